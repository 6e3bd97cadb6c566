//! What others see of descriptors, trees and tables.

use super::{sample, written};
use crate::artifact::iso::{BLOCK, reader};
use crate::artifact::judge::judge;

#[test]
fn xorriso_sees_both_boot_images_and_the_partitions() {
    let (_dir, iso, region) = written(&sample());
    let args = [
        "-indev",
        &iso,
        "-report_el_torito",
        "plain",
        "-report_system_area",
        "plain",
    ];
    let Some(said) = judge("xorriso", &args) else {
        return;
    };
    let image = reader::read(&region).expect("readable");
    let boot = image.boot.expect("a catalog");
    let [bios, uefi] = [boot.entries[0].block, boot.entries[1].block];
    let [esp, iso] = &image.gpt.expect("a GPT").expect("sound").partitions[..] else {
        panic!("two partitions");
    };
    // Words of one line each, whose columns may be set otherwise.
    for words in [
        "Volume id : 'COS_LIVE'".to_owned(),
        format!("El Torito boot img : 1 BIOS y none 0x0000 0x00 4 {bios}"),
        format!("El Torito boot img : 2 UEFI y none 0x0000 0x00 6144 {uefi}"),
        "El Torito img path : 1 /boot/eltorito.img".to_owned(),
        "El Torito img opts : 1 boot-info-table grub2-boot-info".to_owned(),
        "El Torito img path : 2 /boot/uefi.img".to_owned(),
        "System area summary: MBR protective-msdos-label grub2-mbr cyl-align-off GPT".to_owned(),
        format!("ISO image size/512 : {}", region.len() / 512),
        "MBR partition : 2 0x80 0x00 0 1".to_owned(),
        "GPT entry array : 2 128 separated".to_owned(),
        "GPT partname local : 1 EFI system".to_owned(),
        format!("GPT start and size : 1 {} 6144", esp.first),
        "GPT partition path : 1 /boot/uefi.img".to_owned(),
        "GPT partname local : 2 ISO9660".to_owned(),
        format!("GPT start and size : 2 {} {}", iso.first, iso.sectors),
    ] {
        let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = said.lines().any(|line| plain(line) == words);
        assert!(found, "{words:?} is not in\n{said}");
    }
}

#[test]
fn xorriso_finds_every_file_where_it_was_laid_out() {
    let disc = sample();
    let (_dir, iso, _) = written(&disc);
    let args = ["-indev", &iso, "-find", "/", "-exec", "report_lba"];
    let Some(said) = judge("xorriso", &args) else {
        return;
    };
    let layout = disc.lay_out().expect("laid out");
    for (path, id) in layout.files() {
        let path = format!("'/{}'", String::from_utf8_lossy(&path));
        let line = said.lines().find(|line| line.ends_with(&path));
        let numbers = line.expect(&path).split(',').nth(1).expect("a block");
        let block: u64 = numbers.trim().parse().expect("a number");
        assert_eq!(block * BLOCK, layout.offset(id), "{path}");
    }
}

/// Returns lines or paths in order, without a slash in front or at the end.
fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let trimmed = lines.map(|line| line.trim_matches('/').to_owned());
    let mut lines: Vec<String> = trimmed.filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

fn paths(volume: &reader::Volume) -> Vec<String> {
    let paths = volume.entries.iter().map(|entry| entry.path.clone());
    let paths = paths.map(|path| String::from_utf8(path).expect("UTF-8"));
    sorted(paths.collect::<Vec<_>>().iter().map(String::as_str))
}

#[test]
fn isoinfo_lists_the_tree_and_its_path_table() {
    let (_dir, iso, region) = written(&sample());
    let Some(said) = judge("isoinfo", &["-R", "-f", "-i", &iso]) else {
        return;
    };
    let primary = reader::read(&region).expect("readable").primary;
    assert_eq!(sorted(said.lines()), paths(&primary));
    let table = judge("isoinfo", &["-p", "-i", &iso]).expect("it is there");
    let dirs = primary.entries.iter();
    let dirs = dirs.filter(|entry| entry.kind == reader::Kind::Dir).count();
    // One line says where the table is.
    assert_eq!(table.lines().count(), dirs + 1, "{table}");
}

#[test]
fn libarchive_lists_the_joliet_tree() {
    let (_dir, iso, region) = written(&sample());
    let args = ["--options", "!rockridge", "-tf", &iso];
    if let Some(said) = judge("bsdtar", &args) {
        let joliet = reader::read(&region).expect("readable").joliet;
        let listed = said.lines().filter(|line| *line != ".");
        assert_eq!(sorted(listed), paths(&joliet.expect("Joliet")));
    }
}

#[test]
fn partition_programs_find_no_fault() {
    let (_dir, iso, _) = written(&sample());
    if let Some(said) = judge("sgdisk", &["-v", &iso]) {
        assert!(said.contains("No problems found"), "{said}");
    }
    if let Some(said) = judge("sfdisk", &["--verify", &iso]) {
        assert!(said.contains("No errors detected"), "{said}");
    }
    if let Some(said) = judge("fdisk", &["-l", &iso]) {
        assert!(said.contains("Disklabel type: gpt"), "{said}");
        assert!(said.contains("EFI System"), "{said}");
        assert!(said.contains("Microsoft basic data"), "{said}");
        assert!(!said.contains("not in disk order"), "{said}");
    }
}

#[test]
fn the_label_is_found_on_the_disk_and_on_its_partition() {
    let (_dir, iso, region) = written(&sample());
    let gpt = reader::read(&region).expect("readable").gpt;
    let start = gpt.expect("a GPT").expect("sound").partitions[1]
        .extent()
        .start;
    for offset in [0, start] {
        let offset = offset.to_string();
        let Some(said) = judge("blkid", &["-p", "-O", &offset, "-o", "export", &iso]) else {
            return;
        };
        let lines: Vec<&str> = said.lines().collect();
        for line in [
            "LABEL=COS_LIVE",
            "TYPE=iso9660",
            "UUID=2023-11-14-22-13-20-00",
        ] {
            assert!(lines.contains(&line), "{offset}: {said}");
        }
    }
}
