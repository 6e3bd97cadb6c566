//! Images for machines that do not start as a PC does: which board a disk is for, and what no disk is made of.

use crate::artifact::board;
use crate::distro::Model;
use crate::error::{Error, Result};
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;

/// Returns the Raspberry Pi that the image is for, if it is for one.
///
/// # Errors
///
/// The image is for Trusted Boot, by its release file.
pub(super) fn check(tree: &Tree) -> Result<Option<Model>> {
    let Some(text) = tree.text(RELEASE_PATH)? else {
        return Ok(None);
    };
    let keys = dotenv::parse(&text).unwrap_or_default();
    if keys.get("KAIROS_TRUSTED_BOOT").map(String::as_str) == Some("true") {
        return Err(Error::user("the image is for Trusted Boot")
            .context_below("its kernel and root filesystem boot as one signed file, and it has neither GRUB nor initrd")
            .hint("convert the base without `--trusted` for a disk that starts by GRUB"));
    }
    Ok(board::of_release(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::Sample;

    fn of(text: &str) -> Result<Option<Model>> {
        let tree = Sample::new().file("etc/kairos-release", 0o644, text.as_bytes());
        check(&tree.tree())
    }

    #[test]
    fn an_image_for_trusted_boot_is_refused_by_name() {
        let text = of("KAIROS_TRUSTED_BOOT=\"true\"\n")
            .unwrap_err()
            .render_text();
        assert!(text.contains("Trusted Boot"), "{text}");
    }

    #[test]
    fn the_board_is_the_one_of_the_release_file_and_other_images_have_none() {
        for (text, board) in [
            ("KAIROS_MODEL=\"rpi4\"\n", Some(Model::Rpi4)),
            ("KAIROS_MODEL=rpi3\n", Some(Model::Rpi3)),
            ("KAIROS_MODEL=generic\nKAIROS_TRUSTED_BOOT=false\n", None),
            ("KAIROS_MODEL=nvidia-jetson-thor\n", None),
            ("", None),
            ("?", None),
        ] {
            assert_eq!(of(text).unwrap(), board, "{text}");
        }
    }
}
