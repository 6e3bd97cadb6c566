//! The FAT that UEFI starts from, and before it the board.

use kfactory_layers::metadata::Timestamp;

use super::size::MIB;
use super::{Disk, boot};
use crate::artifact::efi_volume::{EfiVolume, Room, serial};
use crate::artifact::flat::Flat;
use crate::artifact::gpt::SECTOR_BYTES;
use crate::artifact::grub::efi::{self, Medium};
use crate::artifact::grub::menu::chain_to_disk;
use crate::artifact::names::{EFI_LABEL, RECOVERY_LABEL};
use crate::artifact::{board, fat, overlay};
use crate::distro::Model;
use crate::error::{Error, Result};

/// Upstream's size, which has room for everything but a board's files at their most; then it is twice that, or three times.
const STEP_BYTES: u64 = 64 * MIB;

/// Lays out the volume of `disk` for an image for `board`, whose kernel is of `version`.
///
/// # Errors
///
/// The image lacks what it starts from, or a file that is given has a name that no FAT has.
pub(super) fn volume(
    disk: &Disk<'_>,
    flat: &Flat<'_>,
    board: Option<Model>,
    version: Option<&str>,
) -> Result<EfiVolume> {
    let given = overlay::contents(disk.overlay_uefi)?;
    let chain = chain_to_disk(RECOVERY_LABEL);
    let plan = efi::plan(disk.arch, Medium::Disk, flat.tree, &chain);
    let plan = plan.map_err(|error| match boot::can_be_bios(disk.arch, flat) {
        true => error.hint("`--boot bios` does without"),
        false => error,
    })?;
    let mut files = plan.files;
    if let Some(model) = board {
        let is_given = |name: &str| given.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
        let of_board = board::files(model, disk.arch, flat.tree, version, &is_given);
        files.extend(of_board?);
    }
    let volume = fat::Volume {
        label: EFI_LABEL.to_owned(),
        serial: serial(flat.image),
        time: Timestamp::from_secs(disk.created),
        // What the ROM of boards is known to read; others take what its size asks for.
        kind: board.map(|_| fat::Kind::Fat32),
        hidden_sectors: u32::try_from(MIB / SECTOR_BYTES).unwrap_or(0),
    };
    EfiVolume::new(volume, &files, given, flat.tree, Room::Multiple(STEP_BYTES))
}

/// Says that files for a FAT are given, and the disk has none.
pub(super) fn without_efi() -> Error {
    Error::user("a disk that starts by BIOS alone has no file system for UEFI")
        .hint("leave `--overlay-uefi` out, or write `--boot uefi` or `--boot both`")
}
