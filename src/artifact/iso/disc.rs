//! The description of a disc, as one value.

use super::el_torito::GRUB_INFO;
use super::hybrid::CODE_LEN;
use super::tree::{Content, FileId, Tree};
use super::{IsoError, Layout, SECTOR};
use crate::artifact::guid::Guid;

/// A disc to be made.
#[derive(Debug, Clone)]
pub struct Disc {
    /// What it says about itself.
    pub identifiers: Identifiers,
    /// Seconds since 1970: the one time of the disc and of all that is on it.
    pub time_secs: i64,
    /// What it holds.
    pub tree: Tree,
    /// GRUB's boot image (`cdboot.img` and a core image), with [`Content::Bytes`], from which it starts on a BIOS, from a CD and from a
    /// disk. It is told its place, in GRUB's way and by a boot info table.
    pub bios: Option<FileId>,
    /// The FAT image from which it starts on UEFI.
    pub uefi: Option<FileId>,
    /// Whether it is a disk with partitions, too.
    pub hybrid: Option<Hybrid>,
}

/// The texts of the volume descriptors, in printable ASCII; all but the first may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identifiers {
    /// The label, up to 32 characters. The Joliet tree has room for 16, and programs that show its label cut longer ones.
    pub volume: String,
    /// What system may use the blocks before the descriptors, up to 32 characters.
    pub system: String,
    /// The set of volumes that it belongs to, up to 128 characters.
    pub volume_set: String,
    /// Who publishes it, up to 128 characters.
    pub publisher: String,
    /// Who prepared it, up to 128 characters.
    pub preparer: String,
    /// What it is for, up to 128 characters.
    pub application: String,
}

/// What makes the disc a disk with a partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hybrid {
    /// The 512 bytes of GRUB's `boot_hybrid.img`, by which the disk starts the BIOS boot image; none for machines without BIOS.
    pub boot_code: Option<Vec<u8>>,
    /// The disk's own identifier.
    pub disk: Guid,
    /// That of the ISO9660 partition.
    pub iso: Guid,
    /// That of the EFI system partition; unused without UEFI image.
    pub esp: Guid,
}

impl Disc {
    /// Lays the disc out: from now on every file has its offset.
    ///
    /// # Errors
    ///
    /// [`IsoError`] by its variant; what [`Tree`] let pass fails for its texts, its time, its boot images or its size only.
    pub fn lay_out(self) -> Result<Layout, IsoError> {
        self.identifiers.check()?;
        self.check_last()?;
        self.check_boot()?;
        Layout::of(self)
    }

    fn check_last(&self) -> Result<(), IsoError> {
        let is_last = |node: &usize| matches!(self.tree.content(*node), Some(Content::Last { .. }));
        match (0..self.tree.nodes.len()).filter(is_last).nth(1) {
            Some(second) => Err(IsoError::path(
                &self.tree.path(FileId(second)),
                "cannot be the last file: another one is",
            )),
            None => Ok(()),
        }
    }

    fn check_boot(&self) -> Result<(), IsoError> {
        let fail = |why| Err(IsoError::Boot(why));
        if let Some(bios) = self.bios {
            let Some(Content::Bytes(image)) = self.tree.content(bios.0) else {
                return fail("the BIOS boot image is no file whose bytes are given");
            };
            if image.len() < GRUB_INFO.end {
                return fail("the BIOS boot image is too short to be one of GRUB");
            }
        }
        if let Some(uefi) = self.uefi {
            match self.tree.content(uefi.0) {
                Some(Content::Bytes(_) | Content::Later(_)) => {}
                _ => return fail("the UEFI boot image is no file whose size is given"),
            }
            let size = self.tree.content(uefi.0).map_or(0, Content::most_bytes);
            if size == 0 || !size.is_multiple_of(SECTOR) {
                return fail("the size of the UEFI boot image is not a multiple of 512 bytes");
            }
        }
        if let Some(code) = self
            .hybrid
            .as_ref()
            .and_then(|hybrid| hybrid.boot_code.as_ref())
        {
            if self.bios.is_none() {
                return fail("there is boot code for the MBR, but no BIOS boot image to start");
            }
            if code.len() != CODE_LEN {
                return fail("the boot code for the MBR does not have 512 bytes");
            }
        }
        Ok(())
    }
}

impl Identifiers {
    fn check(&self) -> Result<(), IsoError> {
        for (field, value, limit) in [
            ("the volume label", &self.volume, 32),
            ("the system identifier", &self.system, 32),
            ("the volume set", &self.volume_set, 128),
            ("the publisher", &self.publisher, 128),
            ("the preparer", &self.preparer, 128),
            ("the application", &self.application, 128),
        ] {
            let problem = if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                "holds a character that is not printable ASCII"
            } else if value.len() > limit && limit == 32 {
                "is longer than 32 characters"
            } else if value.len() > limit {
                "is longer than 128 characters"
            } else if value.is_empty() && field == "the volume label" {
                "is empty"
            } else {
                continue;
            };
            return Err(IsoError::Text {
                field,
                value: value.clone(),
                problem,
            });
        }
        Ok(())
    }
}
