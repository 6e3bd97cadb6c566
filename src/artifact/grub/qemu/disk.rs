//! Disks, from MBR or EFI program to the menu of another partition.

use std::fs;
use std::path::Path;

use super::machine::{drive, firmware, has_qemu, serial};
use super::{fat, write};
use crate::artifact::gpt::{Partition, SECTOR_BYTES, Table, protective_mbr};
use crate::artifact::grub::bios::{CoreSpec, Modules};
use crate::artifact::grub::efi::Medium;
use crate::artifact::grub::menu::chain_to_disk;
use crate::artifact::grub::sample::{Host, has_grub_pc};
use crate::artifact::guid::Guid;
use crate::artifact::judge::judge;

#[test]
fn a_disk_boots_by_bios_from_its_core_partition_into_the_menu_of_another() {
    if !has_grub_pc() || !has_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let modules = Modules::find(&Host).unwrap();
    let core = modules.core(&CoreSpec::disk(2)).unwrap();
    let boot = modules.mbr_code(CORE).unwrap();
    let Some(file) = disk(dir.path(), &boot, &core.at(CORE)) else {
        return;
    };
    serial(&["-drive", &drive(&file)], "the menu at hd0,gpt2");
}

#[test]
fn a_disk_boots_by_efi_into_the_menu_of_another_partition() {
    let Some(firmware) = firmware() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some((fat, _)) = fat(dir.path(), Medium::Disk, &chain_to_disk("SYSTEM")) else {
        return;
    };
    let Some(file) = disk(dir.path(), &[], &[]) else {
        return;
    };
    let args = [
        "-drive",
        &firmware,
        "-drive",
        &drive(&fat),
        "-drive",
        &drive(&file),
    ];
    serial(&args, "the menu at hd1,gpt2");
}

const CORE: u64 = 2048;
const SYSTEM: u64 = 4096;
const SYSTEM_SECTORS: u64 = 8192;

/// Makes a disk with `boot` in its MBR, `core` in a BIOS boot partition and menus in a file system labelled `SYSTEM`.
fn disk(dir: &Path, boot: &[u8], core: &[u8]) -> Option<String> {
    let tree = dir.join("tree");
    write(&tree, "grub2/grub.cfg", chain_to_disk("SYSTEM"));
    write(
        &tree,
        "etc/cos/grub.cfg",
        "echo \"the menu at ${root}\"\necho \"its end\"\nsleep 1000\n",
    );
    let (tree, system) = (tree.to_str().unwrap(), dir.join("system"));
    let kib = (SYSTEM_SECTORS / 2).to_string();
    let system_path = system.to_str().unwrap();
    judge(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext2",
            "-L",
            "SYSTEM",
            "-d",
            tree,
            system_path,
            &kib,
        ],
    )?;

    let partition = |kind, first, sectors| Partition {
        name: String::new(),
        kind,
        guid: Guid::new(u128::from(first)),
        first,
        sectors,
        attributes: 0,
    };
    let mut table = Table::new(Guid::new(1), SYSTEM + SYSTEM_SECTORS + 2048);
    table.partitions = vec![
        partition(Guid::BIOS_BOOT, CORE, SYSTEM - CORE),
        partition(Guid::LINUX, SYSTEM, SYSTEM_SECTORS),
    ];
    let mut disk = vec![0; (table.sectors * SECTOR_BYTES) as usize];
    let mut put = |sector: u64, bytes: &[u8]| {
        let at = (sector * SECTOR_BYTES) as usize;
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &protective_mbr(boot, table.sectors).unwrap());
    for (sector, bytes) in table.encode().unwrap() {
        put(sector, &bytes);
    }
    put(CORE, core);
    put(SYSTEM, &fs::read(system).unwrap());
    write(dir, "disk", &disk);
    Some(dir.join("disk").display().to_string())
}
