//! Disks of our writers and of qemu-img's, read back; and files that say what cannot be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{View, ViewError, gzip, qcow2, vmdk};
use crate::artifact::format::tests::{create, raw, text};
use crate::artifact::format::{self, RawDisk};
use crate::artifact::judge::judge;

const MIB: u64 = 1 << 20;
const EPOCH: i64 = 1_709_251_199;

fn open(path: &Path) -> Result<View, ViewError> {
    let file = File::open(path).expect("the file");
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).expect("a few bytes");
    match &magic {
        qcow2::MAGIC => qcow2::open(Arc::new(file)),
        vmdk::MAGIC => vmdk::open(Arc::new(file)),
        _ => gzip::open(&file, &std::env::temp_dir(), None).map(|unpacked| unpacked.view),
    }
}

/// Fails unless the disk in `image` is the one in `raw`.
fn assert_same(image: &Path, raw: &File) {
    let view = open(image).expect("a sound file");
    let len = raw.metadata().expect("the file").len();
    assert_eq!(view.disk.len(), len, "{}", view.form);
    let mut ours = vec![0; MIB as usize];
    let mut theirs = ours.clone();
    // Neither at the start of a cluster nor as long as one.
    for at in (0..len).step_by(MIB as usize - 3) {
        let count = (len - at).min(MIB) as usize;
        view.disk
            .read_exact_at(&mut ours[..count], at)
            .expect("inside");
        raw.read_exact_at(&mut theirs[..count], at).expect("inside");
        assert!(ours[..count] == theirs[..count], "{} at {at}", view.form);
    }
    assert_eq!(view.damage(), None);
    view.unpack_all(None).expect("every piece unpacks");
}

fn damage_of(image: &Path) -> String {
    match open(image) {
        Err(ViewError::Damaged(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_form_of_ours_gives_the_disk_back() {
    let size = 100 * MIB;
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), size, true);
    let disk = RawDisk::new(&raw).expect("a disk");
    for compressed in [true, false] {
        let (path, out) = create(dir.path(), &format!("{compressed}.qcow2"));
        format::qcow2::write(&disk, &out, compressed, 2).expect("written");
        assert_same(&path, &raw);
    }
    let (path, out) = create(dir.path(), "vmdk");
    format::vmdk::write(&disk, &out, "vmdk", 1, 2).expect("written");
    assert_same(&path, &raw);
    // Without a partition table nobody knows how large it may be.
    raw.write_all_at(&protective(size), 0).expect("written");
    let (path, out) = create(dir.path(), "gz");
    format::maas::write(&disk, &out, 2).expect("written");
    assert_same(&path, &raw);
}

#[test]
fn an_archive_for_google_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 1 << 30, true);
    let disk = RawDisk::new(&raw).expect("a disk");
    let (path, out) = create(dir.path(), "tar.gz");
    format::gce::write(&disk, &out, EPOCH, 2).expect("written");
    assert_same(&path, &raw);
}

fn protective(size: u64) -> [u8; 512] {
    crate::artifact::gpt::protective_mbr(&[], size / 512).expect("no code")
}

#[test]
fn every_image_of_qemus_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 60 * MIB + 512, true);
    let image = dir.path().join("image");
    for (form, options) in [
        ("qcow2", "compat=0.10"),
        ("qcow2", "compat=1.1"),
        ("qcow2", "cluster_size=512"),
        ("qcow2", "cluster_size=2M"),
        ("qcow2", "cluster_size=4k,refcount_bits=1"),
        ("qcow2", "refcount_bits=64"),
        ("qcow2", "extended_l2=on,cluster_size=128k"),
        ("qcow2", "lazy_refcounts=on"),
        ("qcow2", "preallocation=metadata"),
        ("qcow2", "compression_type=zstd"),
        ("qcow2", "-c,compression_type=zlib"),
        ("qcow2", "-c,compression_type=zstd"),
        ("qcow2", "-c,cluster_size=512"),
        ("qcow2", "-c,cluster_size=2M,compression_type=zstd"),
        ("qcow2", "-c,extended_l2=on"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
        ("vmdk", "subformat=streamOptimized"),
    ] {
        let mut words = vec!["convert", "-f", "raw", "-O", form];
        let options = match options.strip_prefix("-c,") {
            Some(rest) => {
                words.push("-c");
                rest
            }
            None => options,
        };
        let from = dir.path().join("raw");
        words.extend(["-o", options, text(&from), text(&image)]);
        if judge("qemu-img", &words).is_none() {
            return;
        }
        assert_same(&image, &raw);
    }
}

#[test]
fn clusters_that_were_made_zeros_are_zeros() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 60 * MIB, true);
    for (form, options) in [
        ("qcow2", "compat=1.1"),
        ("qcow2", "extended_l2=on"),
        ("vmdk", "zeroed_grain=on"),
    ] {
        let (from, image) = (dir.path().join("raw"), dir.path().join("image"));
        let words = [
            "convert",
            "-f",
            "raw",
            "-O",
            form,
            "-o",
            options,
            text(&from),
            text(&image),
        ];
        if judge("qemu-img", &words).is_none() {
            return;
        }
        // The first stays allocated, the second does not; and a part of a cluster.
        for range in ["1M 64k", "1088k 64k", "31M 1M", "60800k 4k"] {
            for (file, form) in [(&image, form), (&from, "raw")] {
                let option = if range.starts_with("1M") {
                    "-z"
                } else {
                    "-z -u"
                };
                let command = format!("write {option} {range}");
                if judge("qemu-io", &["-f", form, "-c", &command, text(file)]).is_none() {
                    return;
                }
            }
        }
        assert_same(&image, &raw);
    }
}

#[test]
fn what_needs_something_else_is_refused_by_what_that_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let (base, image, data) = (path("base"), path("image"), path("data"));
    let (base, shown, data) = (text(&base), path("image"), text(&data));
    let data = format!("data_file={data}");
    for (words, what) in [
        (vec!["-f", "qcow2", "-b", base, "-F", "raw"], "backing file"),
        (vec!["-f", "qcow2", "-o", &data], "in another file"),
        (
            vec!["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
            "",
        ),
    ] {
        fs::write(base, [0; 4096]).expect("written");
        let mut words: Vec<&str> = [vec!["create", "-q"], words].concat();
        words.extend([text(&shown), "1M"]);
        if judge("qemu-img", &words).is_none() {
            return;
        }
        let part = path("image-s001");
        let made = if what.is_empty() { &part } else { &image };
        let said = open(made).expect_err("refused").to_string();
        let what = if what.is_empty() {
            "several files"
        } else {
            what
        };
        assert!(said.contains(what) && said.contains("not read"), "{said}");
    }
}

/// A small qcow2 image of ours, to be changed.
fn small(compressed: bool) -> (tempfile::TempDir, std::path::PathBuf, File) {
    let dir = tempfile::tempdir().expect("a directory");
    // Two tables.
    let raw = raw(dir.path(), 600 * MIB, false);
    let (path, out) = create(dir.path(), "image");
    format::qcow2::write(&RawDisk::new(&raw).expect("a disk"), &out, compressed, 1)
        .expect("written");
    (dir, path, out)
}

fn be64_at(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).expect("inside");
    u64::from_be_bytes(bytes)
}

#[test]
fn a_qcow2_that_contradicts_itself_is_damaged() {
    const FIRST: u64 = 1 << 16;
    let (_dir, path, reading) = small(false);
    let whole = fs::read(&path).expect("the image");
    let options = File::options().read(true).write(true).to_owned();
    let file = options.open(&path).expect("the image");
    drop(reading);
    let second = be64_at(&file, FIRST) & !(1 << 63);
    let counts = be64_at(&file, 48);
    let first = be64_at(&file, second) & !(1 << 63);
    let count = be64_at(&file, counts) + 2 * (first >> 16);
    let same = be64_at(&file, FIRST).to_be_bytes();
    let far = (1u64 << 63 | 1 << 40).to_be_bytes();
    for (at, bytes, said) in [
        (20, &40u32.to_be_bytes()[..], "2^40"),
        (20, &0u32.to_be_bytes(), "2^0"),
        (24, &u64::MAX.to_be_bytes(), "needs"),
        (36, &u32::MAX.to_be_bytes(), "pointers"),
        (40, &(1u64 << 60).to_be_bytes(), "first table"),
        (40, &u64::MAX.to_be_bytes(), "first table"),
        (40, &17u64.to_be_bytes(), "first table"),
        (48, &(u64::MAX << 16).to_be_bytes(), "table of counts"),
        (56, &0u32.to_be_bytes(), "table of counts"),
        (79, &[2], "corrupt"),
        (96, &7u32.to_be_bytes(), "2^7"),
        (FIRST, &far, "table 0 is at 1099511627776"),
        (FIRST, &(second | 512).to_be_bytes(), "no cluster begins"),
        (second, &far, "cluster 0 of the disk is at 1099511627776"),
        // A table is not where a cluster may be, nor the other way round; but reading ends.
        (
            counts,
            &[0; 8],
            "the header is in cluster 0 of the file, which counts as free",
        ),
        (count, &[0; 2], "cluster 0 of the disk is in cluster"),
        (FIRST + 8, &same, "table 1 is another one, too"),
        (second, &(1u64 << 62 | 1 << 40).to_be_bytes(), "cluster 0"),
    ] {
        file.write_all_at(&whole, 0).expect("mended");
        file.write_all_at(bytes, at).expect("damaged");
        let why = damage_of(&path);
        assert!(why.contains(said), "{said:?} is not in {why:?}");
    }
    file.write_all_at(&whole, 0).expect("mended");
    file.set_len(whole.len() as u64 / 2).expect("cut off");
    assert!(damage_of(&path).contains("of a file of"));
}

/// Where text is in the small image, which compresses.
const TEXT: u64 = 31 * MIB + 1_100_000;

/// Returns the pointer to the packed cluster with text of a small image, and where it stands.
fn packed_text(file: &File) -> (u64, u64) {
    let second = be64_at(file, 1 << 16) & !(1 << 63);
    let at = second + 8 * (TEXT >> 16);
    let pointer = be64_at(file, at);
    assert!(pointer >> 62 == 1, "{pointer:x}");
    (pointer, at)
}

#[test]
fn a_cluster_that_does_not_unpack_is_noted_when_it_is_read() {
    let (_dir, path, file) = small(true);
    let at = packed_text(&file).0 & ((1 << 54) - 1);
    let file = File::options().write(true).open(&path).expect("the image");
    file.write_all_at(&[0xff; 16], at).expect("damaged");
    let view = open(&path).expect("tables are sound");
    assert_eq!(view.damage(), None);
    let read = view.disk.read_exact_at(&mut [0; 8], TEXT);
    assert!(read.is_err());
    assert!(view.damage().is_some_and(|why| why.contains("unpack")));
}

#[test]
fn a_cluster_that_nobody_reads_is_unpacked_once_all_are() {
    let (_dir, path, file) = small(true);
    let at = packed_text(&file).0 & ((1 << 54) - 1);
    open(&path).expect("sound").unpack_all(None).expect("sound");
    let file = File::options().write(true).open(&path).expect("the image");
    file.write_all_at(&[0xff; 16], at).expect("damaged");
    let view = open(&path).expect("tables are sound");
    let said = view.unpack_all(None).expect_err("damaged").to_string();
    let cluster = TEXT >> 16;
    assert_eq!(
        said,
        format!("cluster {cluster} of the disk does not unpack")
    );
}

#[test]
fn unpacking_ends_when_it_is_stopped_or_one_place_is_every_cluster() {
    let (_dir, path, file) = small(true);
    let (pointer, at) = packed_text(&file);
    let cancel = kfactory_sandbox::CancelToken::new().expect("a token");
    cancel.cancel();
    let view = open(&path).expect("sound");
    let error = view.unpack_all(Some(&cancel)).expect_err("stopped");
    assert!(matches!(&error, ViewError::Io(error) if crate::stop::Stopped::is_in(error)));
    let file = File::options().write(true).open(&path).expect("the image");
    let first = at & !0xffff;
    let pointers = pointer.to_be_bytes().repeat(8192);
    file.write_all_at(&pointers, first).expect("changed");
    let view = open(&path).expect("tables are sound");
    let said = view.unpack_all(None).expect_err("no end").to_string();
    assert_eq!(said, "packed clusters of it are in the same place");
}

#[test]
fn a_grain_is_whole_up_to_the_end_of_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 50 * MIB, false);
    let (path, out) = create(dir.path(), "image");
    format::vmdk::write(&RawDisk::new(&raw).expect("a disk"), &out, "image", 1, 1)
        .expect("written");
    let mut packed = Vec::new();
    let mut encoder = flate2::read::ZlibEncoder::new(&[0x5a; 512][..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut packed).expect("packed");
    // The first grain, which has a sector only.
    let grain = [
        &0u64.to_le_bytes()[..],
        &(packed.len() as u32).to_le_bytes(),
        &packed,
    ]
    .concat();
    let file = File::options().write(true).open(&path).expect("the image");
    file.write_all_at(&grain, 128 * 512).expect("changed");
    let view = open(&path).expect("tables are sound");
    let why = "cluster 0 of the disk does not unpack";
    assert_eq!(view.unpack_all(None).expect_err("short").to_string(), why);
    view.disk.read_exact_at(&mut [0; 8], 0).expect_err("short");
    // A disk that has no more than that.
    let one = 1u64.to_le_bytes();
    let end = fs::metadata(&path).expect("the image").len() - 1024;
    for header in [0, end] {
        file.write_all_at(&one, header + 12).expect("changed");
    }
    let view = open(&path).expect("tables are sound");
    view.unpack_all(None).expect("whole");
    let mut bytes = [0; 512];
    view.disk.read_exact_at(&mut bytes, 0).expect("whole");
    assert_eq!(bytes, [0x5a; 512]);
}

#[test]
fn a_vmdk_that_contradicts_itself_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 50 * MIB, false);
    let (path, out) = create(dir.path(), "image");
    format::vmdk::write(&RawDisk::new(&raw).expect("a disk"), &out, "image", 1, 1)
        .expect("written");
    let whole = fs::read(&path).expect("the image");
    let len = whole.len() as u64;
    // The header in the footer.
    let end = len - 1024;
    let file = File::options().write(true).open(&path).expect("the image");
    let entry = (u32::MAX - 1).to_le_bytes();
    let mut directory = [0; 8];
    directory.copy_from_slice(&whole[end as usize + 56..][..8]);
    let directory = u64::from_le_bytes(directory) * 512;
    for (at, bytes, said) in [
        (12, &[0xff; 8][..], "too large"),
        (20, &[0; 8], "grains of 0 sectors"),
        (28, &[0xff; 8], "descriptor"),
        (44, &[0; 4], "tables of 0"),
        (73, b"\r\n", "as text"),
        (end, &[0], "its end is missing"),
        (len - 512, &[1], "its end is missing"),
        (end + 12, &[1], "contradicts its start"),
        (end + 56, &[0xfe; 8], "directory"),
        (directory, &entry, "table 0 is at"),
        (128 * 512, &[9], "cluster 0 of the disk is not at"),
        (128 * 512 + 8, &[0xff; 4], "cluster 0 of the disk is not at"),
    ] {
        file.write_all_at(&whole, 0).expect("mended");
        file.write_all_at(bytes, at).expect("damaged");
        let why = damage_of(&path);
        assert!(why.contains(said), "{said:?} is not in {why:?}");
    }
    file.write_all_at(&whole, 0).expect("mended");
    file.set_len(len - 4096).expect("cut off");
    assert_eq!(damage_of(&path), "its end is missing");
}

#[test]
fn what_does_not_unpack_whole_or_is_larger_than_it_says_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let large = raw(dir.path(), 1 << 30, false);
    let disk = RawDisk::new(&large).expect("a disk");
    let (archive, out) = create(dir.path(), "tar.gz");
    format::gce::write(&disk, &out, EPOCH, 2).expect("written");
    let raw = raw(dir.path(), 100 * MIB, false);
    raw.write_all_at(&protective(100 * MIB), 0)
        .expect("written");
    let disk = RawDisk::new(&raw).expect("a disk");
    let (path, out) = create(dir.path(), "gz");
    format::maas::write(&disk, &out, 2).expect("written");
    for path in [&path, &archive] {
        let mut bytes = fs::read(path).expect("the file");
        let len = bytes.len();
        fs::write(path, &bytes[..len - 10]).expect("cut off");
        assert!(damage_of(path).contains("does not unpack"));
        bytes[len / 2] ^= 0x55;
        fs::write(path, &bytes).expect("damaged");
        damage_of(path);
    }
    // A disk that is larger than its table says by what is no zeros.
    raw.write_all_at(&protective(50 * MIB), 0).expect("written");
    let (path, out) = create(dir.path(), "large.gz");
    format::maas::write(&disk, &out, 2).expect("written");
    assert!(damage_of(&path).contains("holds more than the 52428800 bytes"));
}

#[test]
fn an_archive_says_what_google_would_not_take() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("d")).expect("a directory");
    for name in ["d/disk.raw", "other"] {
        fs::write(dir.path().join(name), vec![7; 5000]).expect("written");
    }
    let path = dir.path().join("a.tar.gz");
    let words = ["--format=pax", "-C", text(dir.path()), "-czf", text(&path)];
    let words = [&words[..], &["other", "d/disk.raw"]].concat();
    if judge("tar", &words).is_none() {
        return;
    }
    let unpacked = gzip::open(
        &File::open(&path).expect("the file"),
        &std::env::temp_dir(),
        None,
    )
    .expect("a disk");
    assert_eq!(
        unpacked.archive,
        Some(gzip::Archive {
            member: "d/disk.raw".to_owned(),
            others: vec!["other".to_owned()],
            is_old_gnu: false
        })
    );
    assert_eq!(unpacked.view.disk.len(), 5000);
}

/// Images of ours to be damaged anyhow.
fn images() -> &'static [Vec<u8>] {
    static IMAGES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    IMAGES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, file) = create(dir.path(), "small");
        file.set_len(3 * MIB).expect("room");
        file.write_all_at(&b"some text ".repeat(20_000), MIB)
            .expect("written");
        file.write_all_at(&protective(3 * MIB), 0).expect("written");
        drop(file);
        let file = File::open(path).expect("the disk");
        let disk = RawDisk::new(&file).expect("a disk");
        let make = |name: &str, write: &dyn Fn(&File)| {
            let (path, out) = create(dir.path(), name);
            write(&out);
            fs::read(path).expect("the image")
        };
        vec![
            make("a", &|out| {
                format::qcow2::write(&disk, out, true, 1).expect("written");
            }),
            make("b", &|out| {
                format::qcow2::write(&disk, out, false, 1).expect("written");
            }),
            make("c", &|out| {
                format::vmdk::write(&disk, out, "c", 1, 1).expect("written");
            }),
            make("d", &|out| {
                format::maas::write(&disk, out, 1).expect("written");
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_the_bytes_are_there_is_an_answer(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        keep in prop_oneof![Just(1000usize), 0..1000usize],
    ) {
        let mut bytes = images()[which].clone();
        let used: Vec<usize> = (0..bytes.len()).filter(|at| *at < 112 || bytes[*at] != 0).collect();
        for (place, value) in changes {
            bytes[used[place.index(used.len())]] = value;
        }
        bytes.truncate((bytes.len() * keep / 1000).max(4));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let Ok(view) = open(file.path()) else { return Ok(()) };
        let mut buffer = vec![0; 1 << 16];
        for at in (0..view.disk.len().min(4 * MIB)).step_by(1 << 16) {
            let count = (view.disk.len() - at).min(1 << 16) as usize;
            let read = view.disk.read_exact_at(&mut buffer[..count], at);
            prop_assert!(read.is_ok() || view.damage().is_some());
        }
    }

    #[test]
    fn any_stretch_of_a_view_is_that_of_the_disk(
        which in 0..4usize, at in 0..3 * MIB, len in 0..200_000u64,
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &images()[which]).unwrap();
        let view = open(file.path()).unwrap();
        let mut whole = vec![0; 3 << 20];
        let text = b"some text ".repeat(20_000);
        whole[1 << 20..][..text.len()].copy_from_slice(&text);
        whole[..512].copy_from_slice(&protective(3 * MIB));
        let len = len.min(3 * MIB - at);
        let mut bytes = vec![0; len as usize];
        view.disk.read_exact_at(&mut bytes, at).unwrap();
        prop_assert!(bytes == whole[at as usize..(at + len) as usize]);
        prop_assert!(view.disk.read_exact_at(&mut [0], 3 * MIB).is_err());
    }
}
