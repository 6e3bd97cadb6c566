//! The disc as a disk: MBR with boot code, GPT with the ISO9660 partition and the EFI system partition.
//!
//! Spec: UEFI 2.10, 5; GRUB's `boot_hybrid.img` (`boot.S` with `HYBRID_BOOT`).

use super::disc::Hybrid;
use super::view::Extent;
use super::{BLOCK, IsoError, SECTOR};
use crate::artifact::gpt::{BOOT_CODE_BYTES, ENTRIES, Partition, Table, protective_mbr};
use crate::artifact::guid::Guid;

/// The length of GRUB's boot code as a file; the partition table takes its end.
pub(super) const CODE_LEN: usize = 512;
/// Where the code is told the sector of the boot image.
pub(super) const CODE_SECTOR: usize = 0x1b0;
/// The second entry of the MBR's partition table.
const SECOND_ENTRY: usize = 446 + 16;
/// The sectors of the primary table: MBR, header, entries.
const FRONT_SECTORS: u64 = 2 + ENTRIES as u64 * 128 / SECTOR;
/// The blocks that hold the backup table: header and entries.
pub(super) const BACKUP_BLOCKS: u32 = (FRONT_SECTORS - 1).div_ceil(BLOCK / SECTOR) as u32;

/// Nobody writes here (bit 60, of basic data), and the machine needs it (bit 0).
const READ_ONLY_REQUIRED: u64 = (1 << 60) | 1;

/// Where things are on the disk, in blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// The BIOS boot image.
    pub(super) bios: Option<u32>,
    pub(super) esp: Option<Extent>,
    /// The first block of the ISO9660 partition, and the one after its last.
    pub(super) iso: (u32, u32),
    /// The blocks of the whole disk.
    pub(super) total: u32,
}

/// Returns what is to be written, by offset in bytes.
pub(super) fn tables(hybrid: &Hybrid, places: &Places) -> Result<Vec<(u64, Vec<u8>)>, IsoError> {
    let sectors = |blocks: u32| u64::from(blocks) * (BLOCK / SECTOR);
    let iso = Partition {
        name: "ISO9660".to_owned(),
        kind: Guid::BASIC_DATA,
        guid: hybrid.iso,
        first: sectors(places.iso.0),
        sectors: sectors(places.iso.1 - places.iso.0),
        attributes: READ_ONLY_REQUIRED,
    };
    let esp = places.esp.map(|esp| Partition {
        name: "EFI system".to_owned(),
        kind: Guid::EFI_SYSTEM,
        guid: hybrid.esp,
        first: sectors(esp.block),
        sectors: esp.size / SECTOR,
        attributes: 0,
    });
    let table = Table {
        guid: hybrid.disk,
        sectors: sectors(places.total),
        entries: ENTRIES,
        first_usable: FRONT_SECTORS,
        // In the order of the disk.
        partitions: esp.into_iter().chain([iso]).collect(),
    };
    let internal = |_| IsoError::Boot("the partition table does not fit the disc");
    let copies = table.encode().map_err(internal)?;
    let mut pieces: Vec<_> = copies
        .map(|(sector, bytes)| (sector * SECTOR, bytes))
        .into();
    pieces.push((0, mbr(hybrid, places)?));
    Ok(pieces)
}

fn mbr(hybrid: &Hybrid, places: &Places) -> Result<Vec<u8>, IsoError> {
    let mut code = [0; BOOT_CODE_BYTES];
    if let (Some(given), Some(image)) = (&hybrid.boot_code, places.bios) {
        code.copy_from_slice(&given[..BOOT_CODE_BYTES]);
        // The code reads the image from its second sector on: the first is for El Torito.
        let sector = u64::from(image) * (BLOCK / SECTOR) + 4;
        code[CODE_SECTOR..].copy_from_slice(&sector.to_le_bytes());
    }
    let total = u64::from(places.total) * (BLOCK / SECTOR);
    let mut mbr = protective_mbr(&code, total)
        .map_err(|_| IsoError::Boot("the boot code does not fit the MBR"))?
        .to_vec();
    if hybrid.boot_code.is_some() {
        // Some BIOSes start no disk without an active partition. This one is of no type and covers the MBR alone.
        let entry = &mut mbr[SECOND_ENTRY..SECOND_ENTRY + 16];
        entry[0] = 0x80;
        entry[12] = 1;
    }
    Ok(mbr)
}
