//! Reading a partition table back, with every check that firmware makes.

use std::io;

use super::encode::{
    ENTRY_BYTES, HEADER_BYTES, MBR_ENTRY, MBR_ENTRY_BYTES, MBR_SIGNATURE, NAME_UNITS, PROTECTIVE,
    REVISION, SIGNATURE,
};
use super::{Guid, Partition, ReadError, Region, SECTOR_BYTES, Table};
use crate::artifact::bytes::{le32, le64};

/// How an entry of an MBR begins that a BIOS should start.
const MBR_ACTIVE: u8 = 0x80;
/// No disk has more entries; a header that says so is not believed.
const MAX_ENTRIES: u32 = 1024;

pub(super) fn read(disk: &Region) -> Result<Table, ReadError> {
    let last = check_mbr(disk)?;
    let first = copy(disk, 1, Some(last))?;
    let second = copy(disk, last, Some(1))?;
    if first != second {
        return Err(ReadError::Differ);
    }
    Ok(first.table)
}

pub(super) fn read_first(disk: &Region) -> Result<Table, ReadError> {
    check_mbr(disk)?;
    copy(disk, 1, None).map(|copy| copy.table)
}

/// What one of the two copies says.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    table: Table,
    /// The last sector that partitions may have. It may be one before what there is room for.
    last_usable: u64,
}

/// A partition as the first sector of a disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MbrPartition {
    /// Whether a BIOS should start it.
    pub is_active: bool,
    /// What it is for.
    pub kind: u8,
    /// Its first sector.
    pub first: u32,
    /// How many sectors it has.
    pub sectors: u32,
}

impl MbrPartition {
    /// Returns the entries of `mbr` in which something stands.
    pub fn all(mbr: &[u8; SECTOR_BYTES as usize]) -> Vec<Self> {
        let entries = mbr[MBR_ENTRY..510].chunks_exact(MBR_ENTRY_BYTES);
        let used = entries.filter(|entry| entry.iter().any(|byte| *byte != 0));
        used.map(|entry| Self {
            is_active: entry[0] == MBR_ACTIVE,
            kind: entry[4],
            first: le32(entry, 8),
            sectors: le32(entry, 12),
        })
        .collect()
    }

    /// Returns whether it has a FAT that the ROM of a Raspberry Pi reads: of 16 or 32 bits.
    pub fn is_fat(&self) -> bool {
        matches!(self.kind, 0x06 | 0x0B | 0x0C | 0x0E)
    }

    /// Returns whether it is there to keep programs off a GPT.
    pub fn is_protective(&self) -> bool {
        self.kind == PROTECTIVE
    }
}

/// Returns the partitions that the MBR of `disk` has, those of no type left out.
///
/// # Errors
///
/// The disk cannot be read.
pub fn mbr_partitions(disk: &Region) -> io::Result<Vec<MbrPartition>> {
    let mut mbr = [0; SECTOR_BYTES as usize];
    disk.read_exact_at(&mut mbr, 0)?;
    let mut partitions = MbrPartition::all(&mbr);
    partitions.retain(|it| it.kind != 0);
    Ok(partitions)
}

/// Checks the first sector, and returns the number of the last.
fn check_mbr(disk: &Region) -> Result<u64, ReadError> {
    let mut mbr = [0; SECTOR_BYTES as usize];
    disk.read_exact_at(&mut mbr, 0)?;
    let partitions = MbrPartition::all(&mbr);
    let has_protective = partitions.iter().any(MbrPartition::is_protective);
    if mbr[510..] != MBR_SIGNATURE || !has_protective {
        return Err(ReadError::Mbr);
    }
    Ok(disk.len() / SECTOR_BYTES - 1)
}

/// Reads the copy whose header is `here`, and which looks for the other one there, if that matters.
fn copy(disk: &Region, here: u64, other: Option<u64>) -> Result<Copy, ReadError> {
    let damaged = |why| ReadError::Damaged { sector: here, why };
    let check = |holds: bool, why| if holds { Ok(()) } else { Err(damaged(why)) };
    let mut header = [0; HEADER_BYTES];
    disk.read_exact_at(&mut header, here * SECTOR_BYTES)?;
    check(header[..8] == *SIGNATURE, "there is none")?;
    check(le32(&header, 8) == REVISION, "its revision is not 1.0")?;
    check(
        le32(&header, 12) == HEADER_BYTES as u32,
        "its header has an unknown size",
    )?;
    let checksum = le32(&header, 16);
    let mut plain = header;
    plain[16..20].fill(0);
    check(
        crc32fast::hash(&plain) == checksum,
        "its header's checksum is wrong",
    )?;
    check(le64(&header, 24) == here, "its header is not where it says")?;
    let found = le64(&header, 32);
    check(
        other.is_none_or(|other| other == found) && found < disk.len() / SECTOR_BYTES,
        "it looks for the other one elsewhere",
    )?;
    let other = found;
    let count = le32(&header, 80);
    let known = le32(&header, 84) == ENTRY_BYTES as u32 && count <= MAX_ENTRIES;
    check(known, "its entries have an unknown size or number")?;
    let mut entries = vec![0; count as usize * ENTRY_BYTES];
    let entries_at = le64(&header, 72).checked_mul(SECTOR_BYTES);
    disk.read_exact_at(
        &mut entries,
        entries_at.ok_or(damaged("its entries are beyond the disk"))?,
    )?;
    let sound = crc32fast::hash(&entries) == le32(&header, 88);
    check(sound, "its entries' checksum is wrong")?;
    let used = |bytes: &&[u8]| bytes[..16] != Guid::ZERO.0;
    let table = Table {
        guid: guid_at(&header, 56),
        sectors: here.max(other) + 1,
        entries: count,
        first_usable: le64(&header, 40),
        partitions: entries
            .chunks_exact(ENTRY_BYTES)
            .filter(used)
            .map(partition)
            .collect(),
    };
    let last_usable = le64(&header, 48);
    let may_end = table.first_usable <= last_usable && last_usable < table.usable().end;
    check(
        may_end,
        "its last usable sector is not between the first one and the second copy",
    )?;
    let is_inside = |partition: &Partition| partition.end() <= last_usable + 1;
    check(
        table.check().is_ok() && table.partitions.iter().all(is_inside),
        "its partitions overlap or leave the sectors that they may have",
    )?;
    Ok(Copy { table, last_usable })
}

fn partition(entry: &[u8]) -> Partition {
    let (first, last) = (le64(entry, 32), le64(entry, 40));
    let units = entry[56..]
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name: Vec<u16> = units
        .take(NAME_UNITS)
        .take_while(|unit| *unit != 0)
        .collect();
    Partition {
        name: String::from_utf16_lossy(&name),
        kind: guid_at(entry, 0),
        guid: guid_at(entry, 16),
        first,
        sectors: last.wrapping_add(1).saturating_sub(first),
        attributes: le64(entry, 48),
    }
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid::from_efi(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}
