//! The form of SUSE: a table of slots, each of which says where a package's header is.
//!
//! Pages of 4096 bytes hold slots of 16 bytes, the first two of which are the file's own header; what a slot points to begins
//! and ends with a mark and the length. All numbers are little-endian.
//!
//! Spec: rpm, `lib/backend/ndb/rpmpkg.c`.

use super::{Damage, Files, MAX_HEADER_BYTES, Unclaimed, Visit, bytes_at, fill};
use crate::tree::Window;

const MAGIC: &[u8; 4] = b"RpmP";
const SLOT: &[u8; 4] = b"Slot";
const BLOB_START: &[u8; 4] = b"BlbS";
const BLOB_END: &[u8; 4] = b"BlbE";
const PAGE_BYTES: u64 = 4096;
const SLOT_BYTES: u64 = 16;
const BLOCK_BYTES: u64 = 16;
const BLOB_START_BYTES: u64 = 16;
const BLOB_END_BYTES: u64 = 12;
/// Slots that the file's header takes.
const HEADER_SLOTS: u64 = 2;

pub(super) fn read(files: &Files<'_>, visit: Visit<'_>) -> Result<(), Damage> {
    let file = &files.database;
    let header: [u8; 16] = bytes_at(file, 0)?;
    if &header[..4] != MAGIC {
        return Err("it does not begin as a package database".into());
    }
    let pages = u64::from(number(&header, 3));
    if pages * PAGE_BYTES > file.size() {
        return Err("it is cut off in its table".into());
    }
    let mut unclaimed = Unclaimed(file.size());
    for slot in HEADER_SLOTS..pages * PAGE_BYTES / SLOT_BYTES {
        let raw: [u8; 16] = bytes_at(file, slot * SLOT_BYTES)?;
        if &raw[..4] != SLOT {
            return Err(format!("slot {slot} of its table is none"));
        }
        let (package, block) = (number(&raw, 1), u64::from(number(&raw, 2)));
        if block != 0 {
            let blob = blob(file, package, block * BLOCK_BYTES)?;
            unclaimed.claim(&blob, "headers")?;
            visit(&blob)?;
        }
    }
    Ok(())
}

fn blob(file: &Window<'_>, package: u32, offset: u64) -> Result<Vec<u8>, Damage> {
    let damaged = || format!("the header of package {package} is damaged");
    let start: [u8; BLOB_START_BYTES as usize] = bytes_at(file, offset)?;
    let len = number(&start, 3);
    if &start[..4] != BLOB_START
        || number(&start, 1) != package
        || u64::from(len) > file.size().min(MAX_HEADER_BYTES)
    {
        return Err(damaged());
    }
    let mut blob = vec![0; len as usize];
    let place = offset + BLOB_START_BYTES;
    fill(file, place, &mut blob)?;
    // The end stands at the next multiple of a block that has room for it.
    let taken = (BLOB_START_BYTES + u64::from(len) + BLOB_END_BYTES).next_multiple_of(BLOCK_BYTES);
    let end: [u8; BLOB_END_BYTES as usize] = bytes_at(file, offset + taken - BLOB_END_BYTES)?;
    if &end[8..] != BLOB_END || number(&end, 1) != len {
        return Err(damaged());
    }
    Ok(blob)
}

/// Returns the number in place `index` of four bytes each.
fn number(bytes: &[u8], index: usize) -> u32 {
    let raw = bytes[index * 4..]
        .first_chunk()
        .expect("within what was read");
    u32::from_le_bytes(*raw)
}
