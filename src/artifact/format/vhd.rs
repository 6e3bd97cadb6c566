//! Fixed VHD: the raw disk with a footer of one sector, as Azure takes it.
//!
//! Spec: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::{RawDisk, SECTOR_BYTES, has_step};
use crate::artifact::guid::Guid;

/// What the size of a disk for Azure is a multiple of.
pub const SIZE_STEP: u64 = 1 << 20;
/// The start of 2000, from which VHD counts seconds, in seconds since 1970.
const EPOCH: i64 = 946_684_800;
/// Who made it. Programs take the size in bytes of those makers that they know, and of all others that of the geometry, which is smaller.
const CREATOR: &[u8; 4] = b"win ";
const CREATOR_VERSION: u32 = 0x000A_0000;
const HOST: &[u8; 4] = b"Wi2k";
const FIXED: u32 = 2;
/// How many the geometry has at most.
const MAX_SECTORS: u64 = 65_535 * 16 * 255;
/// The largest that Hyper-V and Azure take.
pub(super) const MAX_BYTES: u64 = 2040 << 30;

/// Writes `disk` to `out`, which is empty, with the identity `id` and made at `epoch` in seconds since 1970.
///
/// # Errors
///
/// The disk is no multiple of [`SIZE_STEP`], or a file cannot be read or written.
pub fn write(disk: &RawDisk, out: &File, id: Guid, epoch: i64) -> io::Result<()> {
    has_step(disk, SIZE_STEP, "a VHD")?;
    out.set_len(disk.size())?;
    disk.chunks(|at, chunk| out.write_all_at(chunk, at))?;
    out.write_all_at(&footer(disk.size(), id, epoch), disk.size())
}

/// Returns the footer that makes a VHD of a raw disk of `size` bytes.
pub fn footer(size: u64, id: Guid, epoch: i64) -> [u8; SECTOR_BYTES as usize] {
    let (cylinders, heads, sectors) = geometry(size / SECTOR_BYTES);
    let secs = u32::try_from(epoch.saturating_sub(EPOCH).max(0)).unwrap_or(u32::MAX);
    let mut fields = Vec::with_capacity(SECTOR_BYTES as usize);
    fields.extend(b"conectix");
    fields.extend(2u32.to_be_bytes()); // a bit that is always set
    fields.extend(0x0001_0000u32.to_be_bytes());
    fields.extend(u64::MAX.to_be_bytes());
    fields.extend(secs.to_be_bytes());
    fields.extend(CREATOR);
    fields.extend(CREATOR_VERSION.to_be_bytes());
    fields.extend(HOST);
    fields.extend(size.to_be_bytes());
    fields.extend(size.to_be_bytes());
    fields.extend(cylinders.to_be_bytes());
    fields.extend([heads, sectors]);
    fields.extend(FIXED.to_be_bytes());
    let checksum_at = fields.len();
    fields.extend([0; 4]);
    fields.extend(id.0);
    let sum: u32 = fields.iter().map(|byte| u32::from(*byte)).sum();
    fields[checksum_at..checksum_at + 4].copy_from_slice(&(!sum).to_be_bytes());
    let mut footer = [0; SECTOR_BYTES as usize];
    footer[..fields.len()].copy_from_slice(&fields);
    footer
}

/// Returns cylinders, heads and sectors per track, by the specification's own rules.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(MAX_SECTORS);
    let (per_track, heads) = if total >= 65_535 * 16 * 63 {
        (255, 16)
    } else {
        let heads = (total / 17).div_ceil(1024).max(4);
        let fits = |heads: u64, per_track: u64| total / per_track < heads * 1024 && heads <= 16;
        if fits(heads, 17) {
            (17, heads)
        } else if fits(16, 31) {
            (31, 16)
        } else {
            (63, 16)
        }
    };
    (
        (total / per_track / heads) as u16,
        heads as u8,
        per_track as u8,
    )
}
