//! Whatever the bytes are, there is an answer, and soon.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use proptest::prelude::*;
use tempfile::TempDir;

use super::disk_sample::DiskSample;
use super::sample::{Medium, verify_bytes};
use crate::artifact::fat;
use crate::artifact::gpt::{ALIGNMENT, Partition, SECTOR_BYTES, Table};
use crate::artifact::guid::Guid;
use crate::artifact::region::{Counted, Region};
use crate::artifact::verify::rule::{Kind, Report};
use crate::artifact::verify::{efi, verify};

/// A byte that is another: one of those that are not zero, which most of a medium or disk is.
type Change = (prop::sample::Index, u8);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any::<Change>(), 1..24)
}

/// Returns where the bytes are that are not zero.
fn places(bytes: &[u8]) -> Vec<u64> {
    let numbered = (0..).zip(bytes);
    let used = numbered.filter(|(_, byte)| **byte != 0);
    used.map(|(at, _)| at).collect()
}

/// A medium and where its bytes are.
fn medium() -> &'static (Vec<u8>, Vec<u64>) {
    static MEDIUM: OnceLock<(Vec<u8>, Vec<u64>)> = OnceLock::new();
    MEDIUM.get_or_init(|| {
        let bytes = Medium::new().bytes();
        let places = places(&bytes);
        (bytes, places)
    })
}

/// A disk that is changed and mended again, since it is too large for many copies.
struct Disk {
    dir: TempDir,
    file: File,
    places: Vec<u64>,
}

impl Disk {
    fn new(has_checksums: bool) -> Mutex<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let sample = DiskSample::new();
        sample.write(&path);
        let options = File::options().read(true).write(true).clone();
        let file = options.open(&path).unwrap();
        if !has_checksums {
            drop_checksums(&file, &sample);
        }
        let places = places(&std::fs::read(&path).unwrap());
        Mutex::new(Self { dir, file, places })
    }

    fn with(&self, changes: &[Change], check: impl FnOnce(&std::path::Path)) {
        let mut before = Vec::new();
        for (place, value) in changes {
            let at = self.places[place.index(self.places.len())];
            let mut byte = [0];
            self.file.read_exact_at(&mut byte, at).unwrap();
            self.file.write_all_at(&[*value], at).unwrap();
            before.push((at, byte));
        }
        check(&self.dir.path().join("disk.raw"));
        for (at, byte) in before.iter().rev() {
            self.file.write_all_at(byte, *at).unwrap();
        }
    }
}

/// Takes the feature away by which file systems are read no further than their first wrong checksum.
///
/// Spec: Linux, Documentation/filesystems/ext4/super.rst, `s_feature_ro_compat`.
fn drop_checksums(file: &File, sample: &DiskSample) {
    const METADATA_CSUM: u8 = 0x04;
    for name in ["oem", "recovery"] {
        let at = sample.start(name) + 1024 + 0x65;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] & !METADATA_CSUM], at).unwrap();
    }
}

fn disk(has_checksums: bool) -> &'static Mutex<Disk> {
    static DISKS: [OnceLock<Mutex<Disk>>; 2] = [const { OnceLock::new() }; 2];
    DISKS[usize::from(has_checksums)].get_or_init(|| Disk::new(has_checksums))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_damage_to_a_medium_is_answered(
        changes in changes(),
        keep in prop_oneof![Just(1000usize), 0..1000usize],
    ) {
        let (bytes, places) = medium();
        let mut bytes = bytes.clone();
        for (place, value) in changes {
            bytes[places[place.index(places.len())] as usize] = value;
        }
        bytes.truncate(bytes.len() * keep / 1000);
        // An error or a report.
        let _ = verify_bytes(&bytes);
    }

    #[test]
    fn any_damage_to_a_disk_is_answered(changes in changes(), has_checksums: bool) {
        let disk = disk(has_checksums).lock().unwrap_or_else(PoisonError::into_inner);
        disk.with(&changes, |path| {
            let _ = verify(path, None);
        });
    }
}

#[test]
fn a_disk_that_is_cut_off_anywhere_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    DiskSample::new().write(&path);
    let file = File::options().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    for part in (0..20).rev() {
        file.set_len(len * part / 20).unwrap();
        assert!(verify(&path, None).is_ok_and(|report| !report.passes()) || part == 0);
    }
}

/// A FAT of which the largest program has two clusters, one after the other, for half a gigabyte.
fn circle() -> Region {
    let mut builder = fat::Builder::new(fat::Volume {
        label: "COS_GRUB".to_owned(),
        serial: 7,
        time: kfactory_layers::metadata::Timestamp::from_secs(0),
        kind: Some(fat::Kind::Fat32),
        hidden_sectors: 0,
    });
    let program = builder.file("EFI/BOOT/bootx64.efi", 500 << 20).unwrap();
    let layout = builder.layout(Some(600 << 20)).unwrap();
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(layout.size()).unwrap();
    let volume = Region::of_file(file, layout.size());
    layout.write(&volume).unwrap();
    let mut boot = [0; 512];
    volume.read_exact_at(&mut boot, 0).unwrap();
    let le16 = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (sector, cluster) = (le16(11), le16(11) * u64::from(boot[13]));
    let (table_at, table_bytes) = (le16(14) * sector, le16(36) * sector);
    let data_at = table_at + 2 * table_bytes;
    let first = (layout.extent(program).start - data_at) / cluster + 2;
    for table in [table_at, table_at + table_bytes] {
        let second = table + 4 * (first + 1);
        let first = (first as u32).to_le_bytes();
        volume.write_all_at(&first, second).unwrap();
    }
    volume
}

#[test]
fn clusters_in_a_circle_are_followed_no_further_than_a_program_is_read() {
    let volume = Counted::new(circle());
    let mut report = Report::new(Kind::Disk);
    let _ = efi::check(&mut report, "efi", volume.region(), None, None);
    assert!(!report.passes());
    let reads = volume.reads();
    assert!(reads < 20_000, "{reads} reads");
}

/// Returns a qcow2 image, marked as dirty, of a disk of `bytes` bytes, which has `pieces` at some places and is zeros elsewhere.
fn qcow2(bytes: u64, pieces: &[(u64, Vec<u8>)]) -> Vec<u8> {
    const CLUSTER: u64 = 1 << 21;
    let (table_at, counts_at) = (CLUSTER, 2 * CLUSTER);
    let mut image = vec![0; 3 * CLUSTER as usize];
    let put = |image: &mut Vec<u8>, at: u64, bytes: &[u8]| {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    let tables = bytes.div_ceil(CLUSTER * CLUSTER / 8) as u32;
    for (at, number) in [(4, 3), (20, 21), (36, tables), (56, 1), (96, 4), (100, 104)] {
        put(&mut image, at, &u32::to_be_bytes(number));
    }
    for (at, number) in [(24, bytes), (40, table_at), (48, counts_at), (72, 1)] {
        put(&mut image, at, &number.to_be_bytes());
    }
    put(&mut image, 0, b"QFI\xfb");
    // Returns where a pointer leads, to a new cluster if nowhere yet.
    let follow = |image: &mut Vec<u8>, pointer: u64| {
        let found: [u8; 8] = image[pointer as usize..][..8].try_into().unwrap();
        let found = u64::from_be_bytes(found);
        if found > 0 {
            return found;
        }
        let new = image.len() as u64;
        image.resize(image.len() + CLUSTER as usize, 0);
        put(image, pointer, &new.to_be_bytes());
        new
    };
    for (at, bytes) in pieces {
        let cluster = at / CLUSTER;
        let table = follow(&mut image, table_at + cluster / (CLUSTER / 8) * 8);
        let data = follow(&mut image, table + cluster % (CLUSTER / 8) * 8);
        put(&mut image, data + at % CLUSTER, bytes);
    }
    image
}

#[test]
fn a_small_image_of_a_disk_without_end_takes_no_memory_for_what_is_not_there() {
    const BYTES: u64 = 1 << 50;
    let mut table = Table::new(Guid::new(1), BYTES / SECTOR_BYTES);
    let oem = Partition {
        name: "oem".to_owned(),
        kind: Guid::LINUX,
        guid: Guid::new(2),
        first: ALIGNMENT,
        sectors: BYTES / SECTOR_BYTES / 2,
        attributes: 0,
    };
    let start = oem.extent().start;
    table.partitions.push(oem);
    // Two thousand million groups of 256 blocks of 1 KiB.
    let mut superblock = vec![0; 1024];
    superblock[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    superblock[0x21] = 1;
    superblock[0x28] = 16;
    superblock[0x58] = 128;
    superblock[0x60] = 0x82;
    superblock[0xfe] = 64;
    superblock[0x150] = 0x7f;
    let mut mbr = vec![0; 512];
    mbr[446 + 4] = 0xee;
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut pieces = vec![(0, mbr), (start + 1024, superblock)];
    let table = table.encode().unwrap();
    pieces.extend(table.map(|(sector, bytes)| (sector * SECTOR_BYTES, bytes)));
    let report = verify_bytes(&qcow2(BYTES, &pieces)).unwrap();
    let said = |rule: &str, text: &str| {
        let mut findings = report.findings.iter();
        findings.any(|it| it.rule == rule && it.text.contains(text))
    };
    assert!(
        said("file-system", "groups of blocks"),
        "{:#?}",
        report.findings
    );
}
