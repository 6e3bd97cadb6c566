//! The bytes of a partition table.

use super::{BOOT_CODE_BYTES, GptError, Partition, SECTOR_BYTES, Table};

pub(super) const SIGNATURE: &[u8; 8] = b"EFI PART";
pub(super) const REVISION: u32 = 0x0001_0000;
pub(super) const HEADER_BYTES: usize = 92;
pub(super) const ENTRY_BYTES: usize = 128;
pub(super) const NAME_UNITS: usize = 36;
/// The type of the MBR's one partition, which keeps programs off that know MBRs only.
pub(super) const PROTECTIVE: u8 = 0xEE;
/// The type of a partition with a FAT of 32 bits, which is found by the numbers of its sectors.
const FAT32: u8 = 0x0C;
pub(super) const MBR_ENTRY: usize = 446;
pub(super) const MBR_ENTRY_BYTES: usize = 16;
pub(super) const MBR_SIGNATURE: [u8; 2] = [0x55, 0xAA];

/// Returns an MBR with `boot_code`, whose one partition covers all of a disk of `sectors`.
///
/// # Errors
///
/// [`GptError::BootCode`]: more than 440 bytes.
pub fn protective_mbr(
    boot_code: &[u8],
    sectors: u64,
) -> Result<[u8; SECTOR_BYTES as usize], GptError> {
    if boot_code.len() > BOOT_CODE_BYTES {
        return Err(GptError::BootCode(boot_code.len()));
    }
    let mut mbr = [0; SECTOR_BYTES as usize];
    mbr[..boot_code.len()].copy_from_slice(boot_code);
    let entry = &mut mbr[MBR_ENTRY..MBR_ENTRY + 16];
    // By cylinder, head and sector: the second sector, up to more than can be said so.
    entry[1..5].copy_from_slice(&[0, 2, 0, PROTECTIVE]);
    entry[5..8].copy_from_slice(&[0xFF; 3]);
    entry[8..12].copy_from_slice(&1u32.to_le_bytes());
    let covered = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    entry[12..].copy_from_slice(&covered.to_le_bytes());
    mbr[510..].copy_from_slice(&MBR_SIGNATURE);
    Ok(mbr)
}

/// Returns an MBR without code, of which the first partition is where `fat` is, and the second keeps programs off what is before it.
///
/// That order is the one in which every firmware of a Raspberry Pi finds the FAT; whoever knows GPTs takes the table that the second
/// partition is the sign of. Partitions of an MBR may not overlap, so what is behind the FAT is in none.
///
/// # Errors
///
/// [`GptError::Hybrid`]: it is not where an MBR can say that it is.
pub fn hybrid_mbr(fat: &Partition) -> Result<[u8; SECTOR_BYTES as usize], GptError> {
    let narrow = |sector: u64| {
        let narrowed = u32::try_from(sector).ok().filter(|sector| *sector > 1);
        narrowed.ok_or_else(|| GptError::Hybrid(fat.name.clone()))
    };
    let (first, sectors) = (narrow(fat.first)?, narrow(fat.sectors)?);
    narrow(fat.end())?;
    let mut mbr = [0; SECTOR_BYTES as usize];
    for (number, kind, first, sectors) in
        [(0, FAT32, first, sectors), (1, PROTECTIVE, 1, first - 1)]
    {
        let at = MBR_ENTRY + number * MBR_ENTRY_BYTES;
        let entry = &mut mbr[at..at + MBR_ENTRY_BYTES];
        // By cylinder, head and sector: more than can be said so.
        entry[1..4].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
        entry[4] = kind;
        entry[5..8].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
    }
    mbr[510..].copy_from_slice(&MBR_SIGNATURE);
    Ok(mbr)
}

/// Returns the parts of both copies by their sectors; the table was checked.
pub(super) fn copies(table: &Table) -> [(u64, Vec<u8>); 4] {
    let entries = entries(table);
    let last = table.sectors - 1;
    let second = last - table.entry_sectors();
    [
        (1, header(table, &entries, 1, last, 2)),
        (2, entries.clone()),
        (last, header(table, &entries, last, 1, second)),
        (second, entries),
    ]
}

fn entries(table: &Table) -> Vec<u8> {
    let mut bytes = vec![0; table.entries as usize * ENTRY_BYTES];
    for (slot, partition) in bytes.chunks_exact_mut(ENTRY_BYTES).zip(&table.partitions) {
        slot.copy_from_slice(&entry(partition));
    }
    bytes
}

fn entry(partition: &Partition) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..16].copy_from_slice(&partition.kind.to_efi());
    entry[16..32].copy_from_slice(&partition.guid.to_efi());
    entry[32..40].copy_from_slice(&partition.first.to_le_bytes());
    entry[40..48].copy_from_slice(&(partition.end() - 1).to_le_bytes());
    entry[48..56].copy_from_slice(&partition.attributes.to_le_bytes());
    for (slot, unit) in entry[56..]
        .chunks_exact_mut(2)
        .zip(partition.name.encode_utf16())
    {
        slot.copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

fn header(table: &Table, entries: &[u8], here: u64, other: u64, entries_at: u64) -> Vec<u8> {
    let usable = table.usable();
    let mut header = Vec::with_capacity(SECTOR_BYTES as usize);
    header.extend(SIGNATURE);
    header.extend(REVISION.to_le_bytes());
    header.extend((HEADER_BYTES as u32).to_le_bytes());
    header.extend([0; 8]); // the checksum, and four bytes of nothing
    for sector in [here, other, usable.start, usable.end - 1] {
        header.extend(sector.to_le_bytes());
    }
    header.extend(table.guid.to_efi());
    header.extend(entries_at.to_le_bytes());
    header.extend(table.entries.to_le_bytes());
    header.extend((ENTRY_BYTES as u32).to_le_bytes());
    header.extend(crc32fast::hash(entries).to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header.resize(SECTOR_BYTES as usize, 0);
    header
}
