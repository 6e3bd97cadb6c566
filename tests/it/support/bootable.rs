//! Images of a few files that boot as far as a menu: GRUB of this machine, and nothing behind it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::base::pack;
use super::{run, skipped, world};

/// What the menu shows where it is reached.
pub(crate) const MENU_TEXT: &str = "the menu of the disk";

/// GRUB for BIOS, and GRUB for EFI, as Debian's `grub-pc-bin` and `grub-efi-amd64-bin` bring them.
pub(crate) const GRUB_BIOS: &str = "usr/lib/grub/i386-pc";
pub(crate) const GRUB_EFI: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";

const RELEASE: &str = r#"KAIROS_FLAVOR="debian"
KAIROS_FLAVOR_RELEASE="12"
KAIROS_VARIANT="core"
KAIROS_ARCH="amd64"
KAIROS_MODEL="generic"
KAIROS_VERSION="v1.0.0"
"#;

/// Makes the root filesystem of such an image, without the paths in `without` and with `files` beside or in place of its own; returns
/// its tar file, or `None` where this machine has no GRUB. It is not ready for Kairos.
pub(crate) fn bootable(name: &str, without: &[&str], files: &[(&str, &str)]) -> Option<PathBuf> {
    // Several tests may ask for the same one.
    static LOCK: Mutex<()> = Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    for path in [GRUB_BIOS, GRUB_EFI] {
        if !Path::new("/").join(path).exists() {
            skipped(&format!("there is no GRUB at /{path}"));
            return None;
        }
    }
    let dir = world().own_dir(&format!("bootable/{name}"));
    let tar = dir.with_extension("tar");
    if tar.exists() {
        return Some(tar);
    }
    let menu = format!("echo \"{MENU_TEXT}\"\necho \"its end\"\nsleep 1000\n");
    let own = [
        ("boot/vmlinuz", "kernel"),
        ("boot/initrd", "initrd"),
        ("etc/cos/grub.cfg", &menu),
        ("etc/kairos-release", RELEASE),
    ];
    for (path, text) in own.iter().chain(files) {
        std::fs::create_dir_all(dir.join(path).parent().expect("below the root"))
            .expect("a directory");
        std::fs::write(dir.join(path), text).expect("written");
    }
    for path in [GRUB_BIOS, GRUB_EFI] {
        let place = dir.join(path);
        let parent = place.parent().expect("below the root");
        std::fs::create_dir_all(parent).expect("a directory");
        run(Command::new("cp")
            .arg("-r")
            .arg(Path::new("/").join(path))
            .arg(parent));
    }
    for path in without {
        run(Command::new("rm").arg("-r").arg(dir.join(path)));
    }
    pack(&dir, &tar);
    Some(tar)
}
