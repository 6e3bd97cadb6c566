//! A disk: its partition table, its partitions, and what firmware starts of them.

use kfactory_sandbox::CancelToken;

use super::efi::{self, Efi};
use super::ext4::Ext4;
use super::kind::{FOOTER, FOOTER_MAGIC};
use super::recovery::Recovery;
use super::rule::{Report, blame};
use super::targets::{self, There};
use super::{board, firmware, oem, rules};
use crate::artifact::bytes::{be32, be64, le16, le32, le64};
use crate::artifact::format::vhd;
use crate::artifact::gpt::{BOOT_CODE_BYTES, Partition, SECTOR_BYTES, Table};
use crate::artifact::grub::bios::{BLOCKS_ENTRY, COMPRESSED_BYTES, CORE, SECTOR};
use crate::artifact::guid::Guid;
use crate::artifact::names::{EFI_LABEL, OEM_LABEL, PERSISTENT_LABEL, RECOVERY_LABEL, STATE_LABEL};
use crate::artifact::region::{Extent, Region};
use crate::error::Result;

/// Of an installed system. What the menu has for it is there after the first boot.
const LATER: [&str; 2] = [STATE_LABEL, PERSISTENT_LABEL];
/// The partition that the first boot adds.
const STATE: &str = "state";

/// Where the core image has how many bytes of it are compressed, behind its first sector.
const CORE_COMPRESSED: usize = SECTOR + COMPRESSED_BYTES;

/// A disk with a sound partition table.
struct Disk<'a> {
    region: &'a Region,
    table: &'a Table,
}

impl Disk<'_> {
    fn find(&self, name: &str) -> Option<&Partition> {
        self.table.partitions.iter().find(|it| it.name == name)
    }

    fn part(&self, name: &str) -> Result<Option<Region>> {
        let found = self.find(name).map(|it| self.region.part(&[it.extent()]));
        Ok(found.transpose()?)
    }
}

/// Checks the disk in `file`.
pub(super) fn check(report: &mut Report, file: &Region, stop: Option<&CancelToken>) -> Result<()> {
    let region = footer(report, file)?;
    report.hold(&rules::PARTITIONS);
    let table = match Table::read(&region) {
        Ok(table) => {
            report.hold(&rules::BACKUP_TABLE);
            Some(table)
        }
        Err(error) => firmware::damaged(report, &region, &error)?,
    };
    let Some(table) = table else {
        return Ok(());
    };
    let disk = Disk {
        region: &region,
        table: &table,
    };
    partitions(report, &disk);
    let mut labels: Vec<String> = LATER.map(str::to_owned).to_vec();
    let oem = volume(report, &disk, "oem", OEM_LABEL, &mut labels)?;
    let recovery = volume(report, &disk, "recovery", RECOVERY_LABEL, &mut labels)?;
    let recovery = recovery.map(Recovery::new);
    let mut kernel = None;
    if let Some(recovery) = &recovery {
        kernel = recovery.check(report, stop)?;
    }
    let mut efi = None;
    if let Some(part) = disk.part("efi")? {
        let arch = kernel.and_then(|kernel| kernel.arch);
        let model = recovery.as_ref().and_then(Recovery::board);
        efi = efi::check(report, "efi", part, arch, model)?;
    }
    if let Some(efi) = &efi {
        label(report, "efi", &efi.label, EFI_LABEL, &mut labels);
    }
    let boards = efi.as_ref().map_or(&[][..], |efi| &efi.boards);
    board::mbr(report, &region, disk.find("efi"), boards)?;
    bios(report, &disk)?;
    let Some(recovery) = &recovery else {
        return Ok(());
    };
    menus(
        report,
        recovery,
        efi.as_ref(),
        disk.find("bios").is_some(),
        &labels,
    )?;
    if let Some(oem) = &oem {
        let is_new = disk.find(STATE).is_none();
        oem::check(report, oem, is_new, recovery.menu())?;
    }
    Ok(())
}

/// Returns the disk in a file, which at the end of a VHD is told its size.
fn footer(report: &mut Report, file: &Region) -> Result<Region> {
    let whole = file.len();
    let mut footer = [0; FOOTER as usize];
    let end = whole.saturating_sub(FOOTER);
    file.read_exact_at(&mut footer, end)?;
    if !footer.starts_with(FOOTER_MAGIC) {
        report.fact("format", "raw");
        return Ok(file.clone());
    }
    report.fact("format", "VHD of a fixed size");
    let size = be64(&footer, 48);
    let sum: u32 = (0..)
        .zip(footer)
        .map(|(at, byte)| match at {
            64..68 => 0,
            _ => u32::from(byte),
        })
        .sum();
    let mut held = report.hold(&rules::FOOTER);
    if be32(&footer, 64) != !sum {
        held.add("its checksum is wrong");
    } else if size != end {
        held.add(format!("it says {size} bytes, there are {end}"));
    }
    let mut held = report.hold(&rules::VHD_SIZE);
    if !end.is_multiple_of(vhd::SIZE_STEP) {
        held.add(format!("the disk has {end} bytes"));
    }
    Ok(file.part(&[Extent { start: 0, len: end }])?)
}

fn partitions(report: &mut Report, disk: &Disk<'_>) {
    let all = &disk.table.partitions;
    let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
    let shown = names
        .iter()
        .map(|name| if name.is_empty() { "(no name)" } else { name });
    report.fact("partitions", shown.collect::<Vec<_>>().join(", "));
    let starts = [("UEFI", "efi"), ("BIOS", "bios")];
    let starts = starts.iter().filter(|it| names.contains(&it.1));
    let starts: Vec<&str> = starts.map(|it| it.0).collect();
    match starts.is_empty() {
        true => report.fact("starts on", "nothing"),
        false => report.fact("starts on", starts.join(", ")),
    }
    let mut held = report.hold(&rules::DISK_PARTITIONS);
    if starts.is_empty() {
        held.add("there is no partition called efi or bios");
    }
    for (name, kind) in [
        ("efi", Guid::EFI_SYSTEM),
        ("bios", Guid::BIOS_BOOT),
        ("oem", Guid::LINUX),
        ("recovery", Guid::LINUX),
    ] {
        let found: Vec<&Partition> = all.iter().filter(|it| it.name == name).collect();
        match found.as_slice() {
            [] if kind == Guid::LINUX => held.add(format!("there is no partition called {name}")),
            [] => {}
            [one] if one.kind == kind => {}
            [one] => held.at(name, format!("its type is {}, not {kind}", one.kind)),
            _ => held.at(name, "there is more than one of this name"),
        }
    }
    let is_other = |it: &&Partition| it.kind == Guid::EFI_SYSTEM && it.name != "efi";
    if let Some(other) = all
        .iter()
        .find(is_other)
        .filter(|_| !names.contains(&"efi"))
    {
        held.at(
            &other.name,
            "UEFI starts from a partition of its type, and it is not called efi",
        );
    }
}

/// Opens the file system of a partition; none where there is none that can be read.
fn volume(
    report: &mut Report,
    disk: &Disk<'_>,
    name: &str,
    wanted: &str,
    labels: &mut Vec<String>,
) -> Result<Option<Ext4>> {
    let Some(part) = disk.part(name)? else {
        return Ok(None);
    };
    let mut held = report.hold(&rules::FILE_SYSTEM);
    match Ext4::open(part) {
        Ok(opened) => {
            label(report, name, &opened.label(), wanted, labels);
            Ok(opened.look_into(report, name))
        }
        Err(error) => {
            held.at(name, blame(error)?);
            Ok(None)
        }
    }
}

/// Checks the label of the file system called `path`, and adds it to those that can be found.
pub(super) fn label(
    report: &mut Report,
    path: &str,
    found: &str,
    wanted: &str,
    labels: &mut Vec<String>,
) {
    let mut held = report.hold(&rules::DISK_LABELS);
    if found != wanted {
        held.at(path, format!("its label is {found:?}, not {wanted}"));
    }
    labels.push(found.to_owned());
}

/// Checks what a BIOS starts: code in the MBR, which loads a sector, which loads the rest.
fn bios(report: &mut Report, disk: &Disk<'_>) -> Result<()> {
    let Some(part) = disk.find("bios") else {
        return Ok(());
    };
    let mut held = report.hold(&rules::DISK_BIOS);
    let mut mbr = [0; SECTOR_BYTES as usize];
    disk.region.read_exact_at(&mut mbr, 0)?;
    if mbr[..BOOT_CODE_BYTES].iter().all(|byte| *byte == 0) {
        held.add("the MBR has no code");
        return Ok(());
    }
    let first = le64(&mbr, CORE);
    if first != part.first {
        held.add(format!(
            "the MBR's code loads sector {first}, the partition begins in {}",
            part.first
        ));
        return Ok(());
    }
    let mut head = [0; 2 * SECTOR_BYTES as usize];
    let start = first * SECTOR_BYTES;
    if part.sectors < 2 {
        held.at("bios", "it has no room for a core image");
        return Ok(());
    }
    disk.region.read_exact_at(&mut head, start)?;
    let mut loaded = 0;
    // The list of blocks is read from the end of the first sector.
    let mut at = SECTOR;
    while at >= BLOCKS_ENTRY + SECTOR_BYTES as usize / 2 {
        at -= BLOCKS_ENTRY;
        let (from, count) = (le64(&head, at), u64::from(le16(&head, at + 8)));
        if count == 0 {
            break;
        }
        let end = from.checked_add(count);
        if from < part.first || end.is_none_or(|end| end > part.end()) {
            held.at(
                "bios",
                format!("it loads {count} sectors from {from} on, which are not its own"),
            );
            return Ok(());
        }
        loaded += count * SECTOR_BYTES;
    }
    let packed = u64::from(le32(&head, CORE_COMPRESSED));
    if loaded == 0 || packed == 0 || packed > loaded {
        held.at("bios", "it holds no core image of GRUB's");
    }
    Ok(())
}

/// Checks that what firmware starts finds the menu.
fn menus(
    report: &mut Report,
    recovery: &Recovery,
    efi: Option<&Efi>,
    has_bios: bool,
    labels: &[String],
) -> Result<()> {
    let there = There {
        has_file: &|path| recovery.has(path) || efi.is_some_and(|efi| efi.has_menu(path)),
        labels,
    };
    for (name, menu) in efi.iter().flat_map(|efi| &efi.menus) {
        targets::check(report, "efi", name, menu, &there);
    }
    if has_bios {
        recovery.check_chain(report, &there)?;
    }
    recovery.check_labels(report, labels);
    Ok(())
}
