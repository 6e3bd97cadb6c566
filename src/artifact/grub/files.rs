//! How the image's files are reached.

use std::path::Path;

use super::places::BIOS_DIRS;
use crate::error::Result;
use crate::tree::Tree;

/// The files of an image. Paths have no leading slash; symbolic links are followed.
pub trait Files {
    /// Reads the file at `path`; `None` where there is no file.
    ///
    /// # Errors
    ///
    /// The content cannot be reached.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// Returns whether `path` leads to a file.
    fn has(&self, path: &str) -> bool;
}

/// The contents must have been kept: see [`is_wanted`].
impl Files for Tree {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Tree::read(self, path)
    }

    fn has(&self, path: &str) -> bool {
        self.find(path)
            .is_some_and(|found| found.node.file().is_some())
    }
}

/// Returns whether `path` (without a leading slash) is a file whose content the composing of boot files may ask for: GRUB's
/// modules for BIOS machines, and programs for EFI where distributions put them and where their links lead.
pub fn is_wanted(path: &Path) -> bool {
    if BIOS_DIRS.iter().any(|dir| path.starts_with(dir)) {
        return true;
    }
    let name = path.file_name().map(|name| name.to_string_lossy());
    let is_efi = name.is_some_and(|name| name.to_ascii_lowercase().contains(".efi"));
    let tops = ["usr/lib", "usr/lib64", "usr/share", "boot"];
    is_efi && tops.iter().any(|top| path.starts_with(top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::grub::places::{
        grub_places, more_grub_places, more_shim_places, shim_places,
    };
    use crate::distro::Arch;

    #[test]
    fn whatever_is_looked_for_is_wanted_and_little_else() {
        for arch in [Arch::Amd64, Arch::Arm64, Arch::Riscv64] {
            let places = [
                shim_places(arch),
                more_shim_places(arch),
                grub_places(arch, true),
                grub_places(arch, false),
                more_grub_places(arch, true),
            ];
            for place in places.concat() {
                assert!(is_wanted(Path::new(&place)), "{place}");
            }
        }
        assert!(is_wanted(Path::new("usr/share/grub2/i386-pc/normal.mod")));
        for other in [
            "usr/lib/grub/x86_64-efi/normal.mod",
            "boot/vmlinuz",
            "usr/lib/grub/i386-pc-x/normal.mod",
            "opt/shimx64.efi",
        ] {
            assert!(!is_wanted(Path::new(other)), "{other}");
        }
    }
}
