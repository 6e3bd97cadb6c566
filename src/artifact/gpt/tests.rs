//! Partition tables against `sgdisk`, and what is refused.

use std::fs::File;
use std::sync::Arc;

use super::*;
use crate::artifact::judge::judge;

const SECTORS: u64 = 300 << 11;

fn table() -> Table {
    let mut table = Table::new(Guid::of_name(Guid::URL, "KAIROS_DISK"), SECTORS);
    let mut first = table.first_usable;
    for (name, kind, mib, attributes) in [
        ("bios", Guid::BIOS_BOOT, 1, 0b101),
        ("efi", Guid::EFI_SYSTEM, 64, 0),
        ("oem", Guid::LINUX, 64, 0),
        ("recovery Größe", Guid::LINUX, 169, 1 << 63),
    ] {
        table.partitions.push(Partition {
            name: name.to_owned(),
            kind,
            guid: Guid::of_name(Guid::URL, name),
            first,
            sectors: mib << 11,
            attributes,
        });
        first += mib << 11;
    }
    table
}

fn disk(sectors: u64) -> (tempfile::NamedTempFile, Region) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let handle: File = file.reopen().expect("the file");
    handle.set_len(sectors * SECTOR_BYTES).expect("room");
    (
        file,
        Region::of_file(Arc::new(handle), sectors * SECTOR_BYTES),
    )
}

#[test]
fn sgdisk_finds_both_copies_sound_and_every_word_as_given() {
    let (file, region) = disk(SECTORS);
    table().write(&[0xEB; 440], &region).expect("written");
    let path = file.path().to_str().expect("a plain path");
    let Some(said) = judge("sgdisk", &["-v", path]) else {
        return;
    };
    assert!(said.contains("No problems found"), "{said}");
    let said = judge("sgdisk", &["-p", "-i", "1", "-i", "4", path]).expect("sgdisk is there");
    let guid = table().guid.to_string().to_uppercase();
    for text in [
        guid.as_str(),
        "recovery Größe",
        "Attribute flags: 0000000000000005",
        "Attribute flags: 8000000000000000",
        "BIOS boot partition",
        "First usable sector is 2048, last usable sector is 614366",
        "First sector: 266240 ",
        "Last sector: 612351 ",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[test]
fn what_was_written_reads_back_the_same_boot_code_included() {
    for entries in [128, 248] {
        let (_file, region) = disk(SECTORS);
        let written = Table { entries, ..table() };
        written.write(b"code", &region).expect("written");
        assert_eq!(Table::read(&region).expect("sound"), written);
        let mut code = [0; 4];
        region.read_exact_at(&mut code, 0).expect("read");
        assert_eq!(&code, b"code");
    }
}

#[test]
fn a_hybrid_mbr_shows_the_fat_first_and_its_gpt_is_sound_to_every_reader() {
    let (file, region) = disk(SECTORS);
    let table = table();
    let efi = &table.partitions[1];
    table.write_hybrid(efi, &region).expect("written");
    assert_eq!(Table::read(&region).expect("sound"), table);
    let parts = mbr_partitions(&region).expect("read");
    let numbers: Vec<_> = parts
        .iter()
        .map(|it| (it.kind, it.first, it.sectors))
        .collect();
    assert_eq!(numbers, [(0x0C, 4096, 64 << 11), (0xEE, 1, 4095)]);
    assert!(parts[0].is_fat() && parts[1].is_protective());
    let path = file.path().to_str().expect("a plain path");
    if let Some(said) = judge("sgdisk", &["-v", path]) {
        assert!(said.contains("No problems found"), "{said}");
        let said = judge("sgdisk", &["-p", path]).expect("sgdisk is there");
        assert!(said.contains("recovery Größe"), "{said}");
    }
    if let Some(said) = judge("sfdisk", &["--verify", path]) {
        assert!(said.contains("No errors detected"), "{said}");
    }
}

#[test]
fn a_partition_that_an_mbr_cannot_describe_is_refused_by_name() {
    let mut efi = table().partitions.remove(1);
    efi.first = 1 << 32;
    let said = hybrid_mbr(&efi).expect_err("too far").to_string();
    assert!(
        said.contains("\"efi\" is not within the first 2 TiB"),
        "{said}"
    );
}

#[test]
fn a_changed_byte_in_any_part_is_found() {
    let (_file, region) = disk(SECTORS);
    table().write(&[], &region).expect("written");
    let last = SECTORS - 1;
    for (sector, at, why) in [
        (0, 511, "not a protective MBR"),
        (1, 0, "in sector 1: there is none"),
        (1, 60, "in sector 1: its header's checksum is wrong"),
        (2, 40, "in sector 1: its entries' checksum is wrong"),
        (last, 60, "in sector 614399: its header's checksum"),
        (last - 32, 3, "in sector 614399: its entries' checksum"),
    ] {
        let at = sector * SECTOR_BYTES + at;
        let mut byte = [0];
        region.read_exact_at(&mut byte, at).expect("read");
        region.write_all_at(&[byte[0] ^ 1], at).expect("written");
        let said = Table::read(&region).expect_err("damaged").to_string();
        assert!(said.contains(why), "{said}");
        region.write_all_at(&byte, at).expect("written");
    }
    Table::read(&region).expect("sound again");
}

/// Returns a disk with a table whose last usable sectors are `last`, in both copies.
fn with_last_usable(last: [u64; 2]) -> Region {
    let (_file, region) = disk(SECTORS);
    table().write(&[], &region).expect("written");
    for (sector, last) in [1, SECTORS - 1].into_iter().zip(last) {
        let mut header = [0; 92];
        let at = sector * SECTOR_BYTES;
        region.read_exact_at(&mut header, at).expect("read");
        header[48..56].copy_from_slice(&last.to_le_bytes());
        header[16..20].fill(0);
        let checksum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        region.write_all_at(&header, at).expect("written");
    }
    region
}

#[test]
fn partitions_may_end_before_the_second_copy_begins() {
    let (used, room) = (612_351, SECTORS - 34);
    for last in [used, used + 1, room] {
        let region = with_last_usable([last; 2]);
        assert_eq!(Table::read(&region).expect("sound"), table());
    }
    for (last, why) in [
        ([used - 1; 2], "leave the sectors that they may have"),
        ([room + 1; 2], "last usable sector"),
        ([2047; 2], "last usable sector"),
        ([u64::MAX; 2], "last usable sector"),
        ([room - 1, room], "differ"),
    ] {
        let said = Table::read(&with_last_usable(last)).expect_err(why);
        assert!(said.to_string().contains(why), "{said}");
    }
}

#[test]
fn a_table_that_sfdisk_ends_early_is_sound() {
    if judge("sfdisk", &["--version"]).is_none() {
        return;
    }
    let (file, region) = disk(SECTORS);
    let path = file.path().to_str().expect("a plain path");
    let script = r"label: gpt\nlast-lba: 500000\nstart=2048, size=4096\n";
    let command = format!("printf '{script}' | sfdisk -q {path}");
    judge("sh", &["-c", &command]);
    assert_eq!(Table::read(&region).expect("sound").partitions.len(), 1);
}

#[test]
fn a_disk_that_has_grown_no_longer_ends_with_its_table() {
    let (file, region) = disk(SECTORS);
    table().write(&[], &region).expect("written");
    file.as_file()
        .set_len((SECTORS + 2048) * SECTOR_BYTES)
        .expect("room");
    let grown = Region::of_file(
        Arc::new(file.reopen().expect("the file")),
        (SECTORS + 2048) * SECTOR_BYTES,
    );
    let said = Table::read(&grown).expect_err("misplaced").to_string();
    assert!(said.contains("looks for the other one elsewhere"), "{said}");
}

#[test]
fn what_no_disk_can_have_is_refused_by_name() {
    type Change = fn(&mut Table);
    let cases: [(Change, &str); 7] = [
        (
            |table| table.partitions[1].first -= 1,
            "\"bios\" and \"efi\" overlap",
        ),
        (
            |table| table.partitions[0].first = 34,
            "\"bios\" has 2048 sectors from 34 on",
        ),
        (
            |table| table.partitions[3].sectors += 4096,
            "\"recovery Größe\" has",
        ),
        (
            |table| table.partitions[3].sectors = u64::MAX,
            "\"recovery Größe\" has",
        ),
        (
            |table| table.partitions[2].name = "n".repeat(37),
            "is longer than 36",
        ),
        (
            |table| table.entries = 2,
            "4 partitions do not go into 2 entries",
        ),
        (|table| table.sectors = 40, "a disk of 40 sectors"),
    ];
    for (change, why) in cases {
        let mut table = table();
        change(&mut table);
        let said = table.encode().expect_err(why).to_string();
        assert!(said.contains(why), "{said}");
    }
    let said = protective_mbr(&[0; 441], 9)
        .expect_err("too long")
        .to_string();
    assert!(said.contains("boot code of 441 bytes"), "{said}");
}
