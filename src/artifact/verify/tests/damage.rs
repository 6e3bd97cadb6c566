//! Whatever the bytes are, there is an answer, and soon.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use proptest::prelude::*;
use tempfile::TempDir;

use super::disk_sample::DiskSample;
use super::sample::{Medium, verify_bytes};
use crate::artifact::verify::verify;

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
