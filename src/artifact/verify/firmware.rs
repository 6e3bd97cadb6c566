//! What firmware starts of a medium: from CD by the boot catalog, from USB stick by MBR and GPT.

use std::io;

use super::iso::{Medium, extents};
use super::rule::{Report, blame, telling};
use super::rules;
use crate::artifact::gpt::{Partition, ReadError, SECTOR_BYTES, Table};
use crate::artifact::guid::Guid;
use crate::artifact::iso::BLOCK;
use crate::artifact::iso::reader::{BootEntry, Entry};
use crate::artifact::region::{Extent, Region};
use crate::error::Result;
use crate::progress::bytes_text;

const BIOS: u8 = 0;
const UEFI: u8 = 0xef;

fn entries(medium: &Medium, platform: u8) -> impl Iterator<Item = &BootEntry> {
    let entries = medium.image.boot.iter().flat_map(|boot| &boot.entries);
    entries.filter(move |entry| entry.platform == platform && entry.is_bootable)
}

/// Returns the file that begins in `block`.
fn file_at(medium: &Medium, block: u32) -> Option<&Entry> {
    let start = u64::from(block) * BLOCK;
    let mut entries = medium.image.primary.entries.iter();
    entries.find(|entry| {
        let first = extents(entry).first();
        first.is_some_and(|first| first.start == start && first.len > 0)
    })
}

fn path_of(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.path).into_owned()
}

/// Checks what a BIOS starts.
pub(super) fn bios(report: &mut Report, medium: &Medium) {
    let mut starts = Vec::new();
    for entry in entries(medium, BIOS) {
        let mut held = report.hold(&rules::BIOS);
        starts.push("BIOS");
        let Some(file) = file_at(medium, entry.block) else {
            held.add(format!(
                "no file begins in block {}, where the boot image is",
                entry.block
            ));
            continue;
        };
        let path = path_of(file);
        if u64::from(entry.sectors) * SECTOR_BYTES > file.size().next_multiple_of(BLOCK) {
            held.at(&path, "it is shorter than what the BIOS loads of it");
        }
        match entry.info {
            Some(info) if !info.checksum_holds => {
                held.at(&path, "it is not what it was when it was told its checksum");
            }
            Some(info) if u64::from(info.len) != file.size() => {
                held.at(&path, "it is not as long as it was told");
            }
            Some(_) => {}
            None => held.at(
                &path,
                "it was not told where it is (boot information table)",
            ),
        }
        let mbr = medium.image.mbr.as_ref().filter(|mbr| mbr.has_code);
        // Where GRUB was not told, the code before it is another's.
        let wanted = u64::from(entry.block) * (BLOCK / SECTOR_BYTES) + 4;
        if let Some(mbr) = mbr.filter(|mbr| entry.has_grub2_info && mbr.grub_sector != wanted) {
            let found = mbr.grub_sector;
            held.at(
                &path,
                format!("as a disk the medium loads sector {found}, it goes on in {wanted}"),
            );
        }
        if !entry.has_grub2_info && mbr.is_some_and(|mbr| mbr.grub_sector == wanted) {
            held.at(
                &path,
                "it was not told where it goes on (GRUB's boot information)",
            );
        }
    }
    if entries(medium, UEFI).next().is_some() {
        starts.push("UEFI");
    }
    let starts = match starts.as_slice() {
        [] => "nothing".to_owned(),
        starts => starts.join(", "),
    };
    report.fact("starts on", starts);
}

/// Returns what UEFI starts from, with its name.
pub(super) fn uefi(report: &mut Report, medium: &Medium) -> Result<Option<(String, Region)>> {
    let mut held = report.hold(&rules::UEFI);
    let Some(entry) = entries(medium, UEFI).next() else {
        held.add("the boot catalog has nothing for UEFI");
        return Ok(None);
    };
    if let Some(file) = file_at(medium, entry.block) {
        return Ok(Some((path_of(file), medium.disc.part(extents(file))?)));
    }
    let start = u64::from(entry.block) * BLOCK;
    let table = medium.image.gpt.iter().flatten().next();
    let partitions = table.into_iter().flat_map(|table| &table.partitions);
    let of_mbr = medium.image.mbr.iter().flat_map(|mbr| &mbr.partitions);
    let of_mbr = of_mbr.map(|it| Extent {
        start: u64::from(it.first) * SECTOR_BYTES,
        len: u64::from(it.sectors) * SECTOR_BYTES,
    });
    let mut extents = partitions.map(Partition::extent).chain(of_mbr);
    let sectors = u64::from(entry.sectors);
    let extent = extents.find(|extent| extent.start == start).or({
        // One sector, or none, stands for as many as there are.
        (sectors > 1).then_some(Extent {
            start,
            len: sectors * SECTOR_BYTES,
        })
    });
    let Some(extent) = extent else {
        held.add(format!(
            "no file and no partition begins in block {}",
            entry.block
        ));
        return Ok(None);
    };
    match medium.disc.part(&[extent]) {
        Ok(part) => Ok(Some(("boot image for UEFI".to_owned(), part))),
        Err(_) => {
            let (Extent { start, len }, all) = (extent, medium.disc.len());
            held.add(format!(
                "its partition has {len} bytes from {start} on, of a medium of {all}"
            ));
            Ok(None)
        }
    }
}

/// Checks what makes the medium a disk.
pub(super) fn partitions(report: &mut Report, medium: &Medium) -> Result<()> {
    let table = match &medium.image.gpt {
        None => return Ok(()),
        Some(Ok(table)) => {
            report.hold(&rules::BACKUP_TABLE);
            Some(table.clone())
        }
        Some(Err(error)) => damaged(report, &medium.disc, error)?,
    };
    let mut held = report.hold(&rules::PARTITIONS);
    let Some(table) = table else {
        return Ok(());
    };
    let is_esp = |kind: Guid| kind == Guid::EFI_SYSTEM;
    let esp = table.partitions.iter().find(|it| is_esp(it.kind));
    match (esp, entries(medium, UEFI).next()) {
        (Some(esp), Some(entry)) if esp.first * SECTOR_BYTES != u64::from(entry.block) * BLOCK => {
            held.add("as a disk, UEFI finds another file system than from CD");
        }
        (None, Some(_)) => held.add("it has no partition for UEFI"),
        _ => {}
    }
    Ok(())
}

/// Returns how many bytes a disk has behind the place of its second table, where that table is sound.
fn added_since(disk: &Region, table: &Table) -> Result<Option<u64>> {
    let made = table.sectors.saturating_mul(SECTOR_BYTES);
    if made >= disk.len() {
        return Ok(None);
    }
    let before = disk.part(&[Extent {
        start: 0,
        len: made,
    }])?;
    Ok(Table::read(&before).is_ok().then(|| disk.len() - made))
}

/// Says which of the two tables is damaged, and returns the first one where that is sound.
pub(super) fn damaged(
    report: &mut Report,
    disk: &Region,
    error: &ReadError,
) -> Result<Option<Table>> {
    let of_system = match error {
        ReadError::Io(error) => error.raw_os_error(),
        _ => None,
    };
    if let Some(code) = of_system {
        return Err(io::Error::from_raw_os_error(code).into());
    }
    let why = match Table::read_first(disk) {
        Ok(table) => {
            let added = added_since(disk, &table)?;
            let mut held = report.hold(&rules::BACKUP_TABLE);
            match added {
                None => held.add(telling(error)),
                // The first boot moves it, and until then everybody reads the first one.
                Some(added) => {
                    let added = bytes_text(added);
                    report.fact(
                        "enlarged",
                        format!("by {added}, which no partition has yet"),
                    );
                }
            }
            return Ok(Some(table));
        }
        Err(ReadError::Io(error)) => blame(error)?,
        Err(error) => telling(&error),
    };
    report.hold(&rules::PARTITIONS).add(why);
    Ok(None)
}
