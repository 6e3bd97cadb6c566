//! Machines that do not start from such disks, and what they would need.

use crate::distro::Model;
use crate::error::{Error, Result};
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;

/// Where distributions put the firmware of Raspberry Pis.
const FIRMWARE_DIRS: [&str; 3] = ["boot/firmware", "usr/lib/raspi-firmware", "boot"];
const RPI3: [&str; 3] = ["bootcode.bin", "start.elf", "fixup.dat"];
const RPI4: [&str; 2] = ["start4.elf", "fixup4.dat"];
/// Where they put what that firmware starts, and which starts GRUB.
const U_BOOT: [&str; 3] = [
    "usr/lib/u-boot/rpi_arm64/u-boot.bin",
    "usr/lib/u-boot/rpi_3/u-boot.bin",
    "usr/lib/u-boot/rpi_4/u-boot.bin",
];

/// Refuses an image for a machine that starts in another way than by UEFI or BIOS and GRUB.
///
/// # Errors
///
/// The image says that it is for one, by its release file.
pub(super) fn check(tree: &Tree) -> Result<()> {
    let Some(text) = tree.text(RELEASE_PATH)? else {
        return Ok(());
    };
    let keys = dotenv::parse(&text).unwrap_or_default();
    let key = |name: &str| keys.get(name).map(String::as_str);
    if key("KAIROS_TRUSTED_BOOT") == Some("true") {
        return Err(Error::user("the image is for Trusted Boot")
            .context_below("its kernel and root filesystem boot as one signed file, and it has neither GRUB nor initrd")
            .hint("convert the base without `--trusted` for a disk that starts by GRUB"));
    }
    let model = key("KAIROS_MODEL").and_then(|model| model.parse().ok());
    match model {
        Some(model @ (Model::Rpi3 | Model::Rpi4)) => Err(raspberry_pi(model, tree)),
        _ => Ok(()),
    }
}

fn raspberry_pi(model: Model, tree: &Tree) -> Error {
    let firmware: &[&str] = match model {
        Model::Rpi3 => &RPI3,
        _ => &RPI4,
    };
    let has_firmware = |name: &str| {
        FIRMWARE_DIRS
            .iter()
            .any(|dir| tree.has(format!("{dir}/{name}")))
    };
    let mut missing: Vec<&str> = firmware
        .iter()
        .copied()
        .filter(|name| !has_firmware(name))
        .collect();
    if !U_BOOT.iter().any(|path| tree.has(path)) {
        missing.push("u-boot.bin");
    }
    let why = match missing.as_slice() {
        [] => "the image brings them, but no disk made of them was ever tried on such a board"
            .to_owned(),
        missing => format!("the image lacks {}", missing.join(", ")),
    };
    Error::user(format!("cannot make a disk for the model `{model}`"))
        .context_below(format!(
            "the board starts from firmware, U-Boot, device trees and a config.txt on the first FAT file system: {why}"
        ))
        .hint("AuroraBoot brings them along for images of this model")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::Sample;

    fn refused(text: &str, files: &[&str]) -> String {
        let sample = Sample::new().file("etc/kairos-release", 0o644, text.as_bytes());
        let sample = files
            .iter()
            .fold(sample, |sample, path| sample.file(path, 0o644, b"f"));
        check(&sample.tree()).unwrap_err().render_text()
    }

    #[test]
    fn an_image_for_another_way_of_booting_is_refused_with_what_is_missing() {
        let text = refused("KAIROS_TRUSTED_BOOT=\"true\"\n", &[]);
        assert!(text.contains("Trusted Boot"), "{text}");
        let text = refused(
            "KAIROS_MODEL=\"rpi4\"\n",
            &["usr/lib/raspi-firmware/start4.elf"],
        );
        assert!(text.contains("lacks fixup4.dat, u-boot.bin"), "{text}");
        let text = refused(
            "KAIROS_MODEL=rpi3\n",
            &[
                "boot/firmware/bootcode.bin",
                "boot/firmware/start.elf",
                "boot/firmware/fixup.dat",
                "usr/lib/u-boot/rpi_3/u-boot.bin",
            ],
        );
        assert!(text.contains("brings them, but"), "{text}");
    }

    #[test]
    fn any_other_image_is_let_through() {
        for text in ["KAIROS_MODEL=generic\nKAIROS_TRUSTED_BOOT=false\n", "", "?"] {
            let tree = Sample::new().file("etc/kairos-release", 0o644, text.as_bytes());
            assert!(check(&tree.tree()).is_ok(), "{text}");
        }
    }
}
