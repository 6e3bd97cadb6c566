//! The bytes of a FAT volume: boot sector, tables and directories.

use std::io;

use kfactory_layers::metadata::Timestamp;
use kfactory_layers::time::civil_from_days;

use super::geometry::{FIRST_CLUSTER, SECTOR_BYTES};
use super::name::{self, ENTRY_BYTES, Short};
use super::{Kind, Layout, Node, Region};

const FIXED_DISK: u8 = 0xF8;
const SIGNATURE: [u8; 2] = [0x55, 0xAA];
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;
/// Where a volume with 32 bits keeps the number of free clusters, and the copy of its first sectors.
const INFO_SECTOR: u32 = 1;
const BACKUP_SECTOR: u32 = 6;
/// Asks the BIOS for the next boot device, and stops where it has none.
const BOOT_CODE: [u8; 5] = [0xCD, 0x18, 0xF4, 0xEB, 0xFD];

const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME_LABEL: u8 = 0x08;

pub(super) fn write(layout: &Layout, to: &Region) -> io::Result<()> {
    let geometry = &layout.geometry;
    let at = |sector: u32| u64::from(sector) * u64::from(SECTOR_BYTES);
    let boot = boot_sector(layout);
    to.write_all_at(&boot, 0)?;
    if geometry.kind == Kind::Fat32 {
        let info = info_sector(layout);
        to.write_all_at(&info, at(INFO_SECTOR))?;
        to.write_all_at(&boot, at(BACKUP_SECTOR))?;
        to.write_all_at(&info, at(BACKUP_SECTOR + INFO_SECTOR))?;
    }
    let table = table(layout);
    for copy in 0..2 {
        to.write_all_at(&table, at(geometry.reserved + copy * geometry.table))?;
    }
    let mut todo = vec![(0, 0)];
    while let Some((index, parent)) = todo.pop() {
        let Node::Dir(names) = &layout.nodes[index] else {
            continue;
        };
        let offset = match layout.runs[index] {
            (_, 0) => at(geometry.data() - geometry.root),
            (first, _) => geometry.offset(first),
        };
        to.write_all_at(&directory(layout, index, parent), offset)?;
        todo.extend(names.values().map(|(_, child)| (*child, index)));
    }
    Ok(())
}

fn boot_sector(layout: &Layout) -> [u8; SECTOR_BYTES as usize] {
    let geometry = &layout.geometry;
    let wide = geometry.kind == Kind::Fat32;
    let short_count =
        |fits: bool, count: u32| u16::try_from(count).ok().filter(|_| fits).unwrap_or(0);
    let root_entries = geometry.root * SECTOR_BYTES / ENTRY_BYTES;
    let sectors = short_count(!wide, geometry.sectors);
    let mut sector = [0; SECTOR_BYTES as usize];
    let mut put = |offset: usize, bytes: &[u8]| {
        sector[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(3, b"MSWIN4.1");
    put(11, &(SECTOR_BYTES as u16).to_le_bytes());
    put(13, &[geometry.per_cluster as u8]);
    put(14, &(geometry.reserved as u16).to_le_bytes());
    put(16, &[2]);
    put(17, &(root_entries as u16).to_le_bytes());
    put(19, &sectors.to_le_bytes());
    put(21, &[FIXED_DISK]);
    put(22, &short_count(!wide, geometry.table).to_le_bytes());
    // Sectors per track and heads, of no use where disks are addressed by sector; the largest that there are.
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(28, &layout.volume.hidden_sectors.to_le_bytes());
    if sectors == 0 {
        put(32, &geometry.sectors.to_le_bytes());
    }
    let (extended, code) = if wide {
        put(36, &geometry.table.to_le_bytes());
        put(44, &layout.runs[0].0.to_le_bytes());
        put(48, &(INFO_SECTOR as u16).to_le_bytes());
        put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
        (64, 90)
    } else {
        (36, 62)
    };
    put(0, &[0xEB, code as u8 - 2, 0x90]);
    put(extended, &[0x80, 0, 0x29]);
    put(extended + 3, &layout.volume.serial.to_le_bytes());
    put(extended + 7, &layout.label);
    let kind = match geometry.kind {
        Kind::Fat12 => b"FAT12   ",
        Kind::Fat16 => b"FAT16   ",
        Kind::Fat32 => b"FAT32   ",
    };
    put(extended + 18, kind);
    put(code, &BOOT_CODE);
    put(510, &SIGNATURE);
    sector
}

/// Returns the sector that tells how many clusters are free and where to look for them.
fn info_sector(layout: &Layout) -> [u8; SECTOR_BYTES as usize] {
    let used: u32 = layout.runs.iter().map(|(_, count)| count).sum();
    let mut sector = [0; SECTOR_BYTES as usize];
    sector[..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..492].copy_from_slice(&(layout.geometry.clusters - used).to_le_bytes());
    sector[492..496].copy_from_slice(&(FIRST_CLUSTER + used).to_le_bytes());
    sector[510..].copy_from_slice(&SIGNATURE);
    sector
}

/// Returns the table up to the last cluster in use; the rest of it is zero.
fn table(layout: &Layout) -> Vec<u8> {
    let used: u32 = layout.runs.iter().map(|(_, count)| count).sum();
    let mut entries = vec![END_OF_CHAIN; (FIRST_CLUSTER + used) as usize];
    entries[0] = 0x0FFF_FF00 | u32::from(FIXED_DISK);
    for (first, count) in &layout.runs {
        for cluster in *first..(first + count).saturating_sub(1) {
            entries[cluster as usize] = cluster + 1;
        }
    }
    match layout.geometry.kind {
        Kind::Fat32 => entries
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect(),
        Kind::Fat16 => entries
            .iter()
            .flat_map(|entry| (*entry as u16).to_le_bytes())
            .collect(),
        Kind::Fat12 => entries.chunks(2).flat_map(pair_of_12_bits).collect(),
    }
}

fn pair_of_12_bits(pair: &[u32]) -> [u8; 3] {
    let [low, high] = [pair[0], pair.get(1).copied().unwrap_or(0)].map(|entry| entry & 0xFFF);
    let [a, b, c, _] = (low | high << 12).to_le_bytes();
    [a, b, c]
}

fn directory(layout: &Layout, index: usize, parent: usize) -> Vec<u8> {
    let Node::Dir(names) = &layout.nodes[index] else {
        unreachable!("only directories are asked for");
    };
    let entry = |short: &Short, attributes: u8, cluster: u32, size: u32| {
        entry(short, attributes, cluster, size, layout.volume.time)
    };
    let mut bytes = Vec::new();
    if index == 0 {
        bytes.extend(entry(&layout.label, VOLUME_LABEL, 0, 0));
    } else {
        // The root is called 0 here, whatever its cluster.
        let above = if parent == 0 {
            0
        } else {
            layout.runs[parent].0
        };
        bytes.extend(entry(b".          ", DIRECTORY, layout.runs[index].0, 0));
        bytes.extend(entry(b"..         ", DIRECTORY, above, 0));
    }
    let shorts = name::shorten(names.values().map(|(name, _)| name.as_str()));
    for ((name, child), short) in names.values().zip(shorts) {
        bytes.extend(name::long_entries(name, &short).into_iter().flatten());
        let cluster = layout.runs[*child].0;
        bytes.extend(match layout.nodes[*child] {
            Node::Dir(_) => entry(&short, DIRECTORY, cluster, 0),
            Node::File(size) => entry(&short, ARCHIVE, cluster, size),
        });
    }
    bytes
}

fn entry(
    short: &Short,
    attributes: u8,
    cluster: u32,
    size: u32,
    time: Timestamp,
) -> [u8; ENTRY_BYTES as usize] {
    let (date, clock) = date_and_clock(time);
    let mut entry = [0; ENTRY_BYTES as usize];
    let mut put = |offset: usize, value: u16| {
        entry[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    };
    // Creation, access, change; there is no time of day for the access.
    put(14, clock);
    put(16, date);
    put(18, date);
    put(22, clock);
    put(24, date);
    put(20, (cluster >> 16) as u16);
    put(26, cluster as u16);
    entry[..11].copy_from_slice(short);
    entry[11] = attributes;
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// Returns a time as FAT has it: a date of years since 1980, and a clock that counts every other second.
fn date_and_clock(time: Timestamp) -> (u16, u16) {
    const FIRST: i64 = 315_532_800; // 1980-01-01 00:00:00
    const LAST: i64 = 4_354_819_199; // 2107-12-31 23:59:59
    let secs = time.secs.clamp(FIRST, LAST);
    let (year, month, day) = civil_from_days(secs / 86_400);
    let second = secs % 86_400;
    let date = (year - 1980) << 9 | month << 5 | day;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let clock = hour << 11 | minute << 5 | (second % 60 / 2);
    (date as u16, clock as u16)
}
