//! Disk formats against `qemu-img` and `tar`, and what their headers say.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::artifact::guid::Guid;
use crate::artifact::judge::judge;

const MIB: u64 = 1 << 20;
const EPOCH: i64 = 1_709_251_199;

/// A raw disk of `size` with data at its start and end, inside and across chunks and tables, and zeros that are no hole where `zeros` says so.
pub(super) fn raw(dir: &Path, size: u64, zeros: bool) -> File {
    let options = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .to_owned();
    let file = options.open(dir.join("raw")).expect("a file");
    file.set_len(size).expect("room");
    if zeros {
        file.write_all_at(&vec![0; 3 << 20], 20 * MIB)
            .expect("written");
    }
    // Nothing that compresses well, and something that does.
    let mut state = 1u32;
    let noise: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let text = b"some text ".repeat(40_000);
    for (at, bytes) in [
        (0, &noise[..512]),
        (MIB, &noise),
        (31 * MIB + 1_000_000, &text),
        (40 * MIB + 17, b"x"),
        (size / 2 - 100_000, &noise),
        (size - 1, b"e"),
    ] {
        file.write_all_at(bytes, at).expect("written");
    }
    file
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

pub(super) fn create(dir: &Path, name: &str) -> (PathBuf, File) {
    let path = dir.join(name);
    let file = File::create_new(&path).expect("a file");
    (path, file)
}

/// Has qemu-img find the disk's content in `image`, and returns what it says of it.
fn is_same(dir: &Path, image: &Path, form: &str) -> Option<String> {
    let raw = dir.join("raw");
    let said = judge(
        "qemu-img",
        &["compare", "-f", "raw", "-F", form, text(&raw), text(image)],
    )?;
    // It says so on a second line when the sizes differ.
    assert_eq!(said.trim(), "Images are identical.");
    judge("qemu-img", &["info", "-f", form, text(image)])
}

/// Makes an image of the same content with holes on one thread, and with zeros in place of some on three.
fn twice(size: u64, make: impl Fn(&RawDisk, &mut File, usize)) -> [Vec<u8>; 2] {
    [false, true].map(|zeros| {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = raw(dir.path(), size, zeros);
        let (path, mut out) = create(dir.path(), "image");
        let threads = if zeros { 3 } else { 1 };
        make(&RawDisk::new(&raw).expect("a disk"), &mut out, threads);
        fs::read(path).expect("the image")
    })
}

#[test]
fn qemu_finds_no_fault_in_a_qcow2_image_and_the_same_content() {
    for (compressed, size, most) in [
        (false, 1600 * MIB, 4 * MIB),
        (true, 1600 * MIB, 3 * MIB),
        (true, 50 * MIB + 512, 3 * MIB),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = raw(dir.path(), size, true);
        let (path, out) = create(dir.path(), "image");
        qcow2::write(&RawDisk::new(&raw).expect("a disk"), &out, compressed, 2).expect("written");
        let len = out.metadata().expect("the file").len();
        assert!(len < most, "{len}");
        let Some(said) = is_same(dir.path(), &path, "qcow2") else {
            return;
        };
        assert!(
            said.contains("compat: 1.1") && said.contains("corrupt: false"),
            "{said}"
        );
        let said =
            judge("qemu-img", &["check", "-f", "qcow2", text(&path)]).expect("qemu-img is there");
        assert!(said.contains("No errors were found"), "{said}");
    }
}

#[test]
fn a_vmdk_is_sound_and_has_the_same_content() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 1600 * MIB, true);
    let (path, out) = create(dir.path(), "image");
    vmdk::write(
        &RawDisk::new(&raw).expect("a disk"),
        &out,
        "image",
        0x1234_5678,
        2,
    )
    .expect("written");
    let Some(said) = is_same(dir.path(), &path, "vmdk") else {
        return;
    };
    for part in [
        "create type: streamOptimized",
        "cid: 305419896",
        "compressed: true",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = judge("qemu-img", &["check", "-f", "vmdk", text(&path)]).expect("qemu-img is there");
    assert!(said.contains("No errors were found"), "{said}");
}

#[test]
fn a_vhd_has_the_size_and_content_of_the_disk_and_keeps_its_holes() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 1601 * MIB, false);
    let (path, out) = create(dir.path(), "image");
    let id = Guid::of_name(Guid::URL, "id");
    vhd::write(&RawDisk::new(&raw).expect("a disk"), &out, id, EPOCH).expect("written");
    let meta = out.metadata().expect("the file");
    assert_eq!(meta.len(), 1601 * MIB + 512);
    assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 < 20 * MIB);
    let bytes = vhd::footer(1601 * MIB, id, EPOCH);
    assert_eq!(bytes[68..84], id.0);
    assert_eq!(
        u32::from_be_bytes(bytes[24..28].try_into().unwrap()),
        762_566_399
    );
    if let Some(said) = is_same(dir.path(), &path, "vpc") {
        assert!(said.contains(&format!("({} bytes)", 1601 * MIB)), "{said}");
    }
}

#[test]
fn the_archive_for_google_holds_one_sparse_disk() {
    // Beyond 8 GiB numbers are written in another way.
    for gib in [1, 9] {
        let dir = tempfile::tempdir().expect("a directory");
        let raw = raw(dir.path(), gib << 30, true);
        let (path, out) = create(dir.path(), "image.tar.gz");
        gce::write(&RawDisk::new(&raw).expect("a disk"), out, EPOCH, 2).expect("written");
        let out = dir.path().join("out");
        fs::create_dir(&out).expect("a directory");
        let Some(said) = judge("tar", &["-tvzf", text(&path)]) else {
            return;
        };
        assert_eq!(
            said.split_whitespace().collect::<Vec<_>>().join(" "),
            format!("-rw-r--r-- 0/0 {} 2024-02-29 23:59 disk.raw", gib << 30)
        );
        judge("tar", &["-xzf", text(&path), "-C", text(&out)]).expect("tar is there");
        is_same(dir.path(), &out.join("disk.raw"), "raw");
    }
}

#[test]
fn parts_without_end_go_on_in_further_headers() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 1 << 30, false);
    for n in 0..60 {
        raw.write_all_at(b"y", 100 * MIB + n * 200_000)
            .expect("written");
    }
    let (path, out) = create(dir.path(), "image.tar.gz");
    gce::write(&RawDisk::new(&raw).expect("a disk"), out, EPOCH, 2).expect("written");
    if judge("tar", &["-xzf", text(&path), "-C", text(dir.path())]).is_some() {
        is_same(dir.path(), &dir.path().join("disk.raw"), "raw");
    }
}

#[test]
fn gzip_gives_the_disk_back_for_maas() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = raw(dir.path(), 60 * MIB, true);
    let mut packed = Vec::new();
    maas::write(&RawDisk::new(&raw).expect("a disk"), &mut packed, 2).expect("written");
    let mut unpacked = Vec::new();
    flate2::write::MultiGzDecoder::new(&mut unpacked)
        .write_all(&packed)
        .expect("gzip");
    assert!(unpacked == fs::read(dir.path().join("raw")).expect("the disk"));
}

#[test]
fn neither_holes_nor_the_number_of_threads_change_a_byte() {
    type Make = fn(&RawDisk, &mut File, usize);
    let forms: [(&str, Make, u64); 5] = [
        (
            "qcow2",
            |disk, out, threads| qcow2::write(disk, out, true, threads).expect("written"),
            100,
        ),
        (
            "vmdk",
            |disk, out, threads| vmdk::write(disk, out, "x", 1, threads).expect("written"),
            100,
        ),
        (
            "vhd",
            |disk, out, _| vhd::write(disk, out, Guid::URL, EPOCH).expect("written"),
            100,
        ),
        (
            "gce",
            |disk, out, threads| gce::write(disk, out, EPOCH, threads).expect("written"),
            1024,
        ),
        (
            "maas",
            |disk, out, threads| maas::write(disk, out, threads).expect("written"),
            100,
        ),
    ];
    for (form, make, mib) in forms {
        let [one, other] = twice(mib * MIB, make);
        assert!(one == other, "{form}");
    }
}

#[test]
fn a_disk_of_nothing_but_zeros_can_be_made_into_every_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, _) = create(dir.path(), "raw");
    let file = File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("raw"))
        .expect("the file");
    file.set_len(1 << 30).expect("room");
    let disk = RawDisk::new(&file).expect("a disk");
    let (path, out) = create(dir.path(), "a");
    qcow2::write(&disk, &out, false, 2).expect("written");
    is_same(dir.path(), &path, "qcow2");
    let (path, out) = create(dir.path(), "b");
    vmdk::write(&disk, &out, "b", 1, 2).expect("written");
    is_same(dir.path(), &path, "vmdk");
    let (path, out) = create(dir.path(), "c");
    gce::write(&disk, &out, 0, 1).expect("written");
    if judge("tar", &["-xzf", text(&path), "-C", text(dir.path())]).is_some() {
        is_same(dir.path(), &dir.path().join("disk.raw"), "raw");
    }
}

#[test]
fn a_size_that_a_cloud_does_not_take_is_refused() {
    let file = tempfile::tempfile().expect("a file");
    let (out, refused) = (
        tempfile::tempfile().expect("a file"),
        |result: io::Result<()>, step: &str| {
            let said = result.expect_err("refused").to_string();
            assert!(said.contains(step), "{said}");
        },
    );
    file.set_len(MIB + 512).expect("room");
    let disk = RawDisk::new(&file).expect("a disk");
    refused(
        gce::write(&disk, &out, 0, 1),
        "1049088 bytes cannot become an image for Google Compute Engine",
    );
    refused(
        vhd::write(&disk, &out, Guid::URL, 0),
        "a multiple of 1048576 bytes",
    );
    refused(
        vmdk::write(&disk, &out, "x", 1, 2),
        "a multiple of 65536 bytes",
    );
    assert_eq!(rounded_up(MIB + 512, vhd::SIZE_STEP), 2 * MIB);
}
