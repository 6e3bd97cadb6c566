//! Disks in the forms of clouds.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;

use super::disk_sample::DiskSample;
use super::{Case, assert_clean};
use crate::artifact::format::{Details, Format, gce};
use crate::artifact::guid::Guid;
use crate::artifact::judge::judge;
use crate::artifact::verify::{Report, verify};

const FORMS: [Format; 4] = [Format::Qcow2, Format::Vmdk, Format::Gce, Format::Maas];

/// Writes the disk `raw` in `format` to `path`.
fn write(raw: &File, format: Format, path: &Path) {
    let out = File::create(path).unwrap();
    let details = Details {
        name: "disk",
        id: Guid::new(3),
        created: 1_700_000_000,
        threads: 2,
    };
    let cancel = kfactory_sandbox::CancelToken::new().unwrap();
    format.write(raw, &out, &details, None, &cancel).unwrap();
}

/// A good disk of a whole GiB, in every form.
fn images() -> &'static [(Format, Vec<u8>)] {
    static IMAGES: OnceLock<Vec<(Format, Vec<u8>)>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        let mut sample = DiskSample::new();
        // What is free is in a partition of its own.
        let used: u64 = sample.parts.iter().map(|part| part.2).sum();
        let free = (gce::SIZE_STEP >> 20) - 2 - used;
        sample.parts.push(("free".to_owned(), Guid::LINUX, free));
        sample.write(&raw);
        let raw = File::open(raw).unwrap();
        let image = |format| {
            let path = dir.path().join("image");
            write(&raw, format, &path);
            (format, fs::read(path).unwrap())
        };
        FORMS.map(image).into()
    })
}

fn image(wanted: Format) -> Vec<u8> {
    let found = images().iter().find(|(format, _)| *format == wanted);
    found.unwrap().1.clone()
}

/// Returns the report of a good disk in `format` after `change`.
fn of(format: Format, change: impl FnOnce(&mut Vec<u8>)) -> Report {
    let mut bytes = image(format);
    change(&mut bytes);
    super::sample::verify_bytes(&bytes).unwrap()
}

#[test]
fn a_good_disk_passes_in_every_form_and_tells_which() {
    for (format, word) in FORMS.iter().zip(["qcow2", "VMDK", "disk.raw", "gzip"]) {
        let report = of(*format, |_| {});
        assert_clean(&report);
        let told = report.facts.iter().find(|(what, _)| *what == "format");
        assert!(told.unwrap().1.contains(word), "{told:?}");
        assert!(report.facts.iter().any(|(what, _)| *what == "system"));
    }
}

#[test]
fn a_disk_that_qemu_img_converts_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image"));
    DiskSample::new().write(&raw);
    for (form, options) in [
        ("qcow2", "compression_type=zstd"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vpc", "subformat=fixed,force_size=on"),
    ] {
        let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
        let words = [
            "convert", "-f", "raw", "-O", form, "-o", options, raw, image,
        ];
        if judge("qemu-img", &words).is_none() {
            return;
        }
        assert_clean(&verify(image.as_ref(), None).unwrap());
    }
}

#[test]
fn a_damaged_image_is_told_by_its_form_alone() {
    // What is in the first cluster of the disk: the partition table.
    let report = of(Format::Qcow2, |bytes| {
        let second = be64(bytes, 1 << 16) & !(1 << 63);
        let first = be64(bytes, second as usize) & ((1 << 54) - 1);
        bytes[first as usize..][..8].fill(0xff);
    });
    let rules: Vec<&str> = report.findings.iter().map(|it| it.rule.as_str()).collect();
    assert_eq!(rules, ["qcow2"], "{:#?}", report.findings);
}

/// A file of the root filesystem that nobody reads: text in no order, of some clusters.
fn unread() -> Vec<u8> {
    let mut number = 1u32;
    let bytes = std::iter::repeat_with(|| {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (number >> 24) as u8 % 16
    });
    bytes.take(300_000).collect()
}

/// Returns a good disk in `format`, and the number of a cluster of 64 KiB that is all inside of a file that nobody reads.
fn with_unread(format: Format) -> (Vec<u8>, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image"));
    let mut sample = DiskSample::new();
    let unread = unread();
    sample
        .system
        .insert("usr/unread".to_owned(), unread.clone());
    sample.write(&raw);
    let disk = fs::read(&raw).unwrap();
    let mut blocks = disk.chunks_exact(1024);
    let start = blocks.position(|block| block == &unread[..1024]).unwrap() as u64 * 1024;
    write(&File::open(raw).unwrap(), format, &image);
    (fs::read(image).unwrap(), start.div_ceil(1 << 16) + 1)
}

#[test]
fn a_damaged_cluster_that_nothing_reads_is_told_too() {
    let damaged = |format, at: fn(&[u8], u64) -> usize| {
        let (mut bytes, cluster) = with_unread(format);
        assert_clean(&super::sample::verify_bytes(&bytes).unwrap());
        let at = at(&bytes, cluster);
        bytes[at..at + 64].fill(0xff);
        let report = super::sample::verify_bytes(&bytes).unwrap();
        let [finding] = report.findings.as_slice() else {
            panic!("{:#?}", report.findings);
        };
        let text = format!("cluster {cluster} of the disk does not unpack");
        assert_eq!(finding.text, text);
        finding.rule.clone()
    };
    let of_qcow2 = |bytes: &[u8], cluster| {
        let second = be64(bytes, 1 << 16) & !(1 << 63);
        let pointer = be64(bytes, second as usize + 8 * cluster as usize);
        assert!(pointer >> 62 == 1, "{pointer:x}");
        (pointer & ((1 << 54) - 1)) as usize
    };
    assert_eq!(damaged(Format::Qcow2, of_qcow2), "qcow2");
    let of_vmdk = |bytes: &[u8], cluster: u64| {
        let marker = (cluster * 128).to_le_bytes();
        let mut sectors = bytes.chunks_exact(512);
        let found = sectors.position(|sector| sector.starts_with(&marker));
        found.unwrap() * 512 + 12
    };
    assert_eq!(damaged(Format::Vmdk, of_vmdk), "vmdk");
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// An archive for Google of a disk that has not its size.
fn small_archive() -> Report {
    let dir = tempfile::tempdir().unwrap();
    let (raw, path) = (dir.path().join("disk.raw"), dir.path().join("a.tar.gz"));
    DiskSample::new().write(&raw);
    let mut header = [0; 512];
    let len = raw.metadata().unwrap().len();
    header[..8].copy_from_slice(b"disk.raw");
    for (at, field) in [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0")] {
        header[at..at + 8].copy_from_slice(field.as_bytes());
    }
    header[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
    header[136..147].fill(b'0');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar  \0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let out = File::create(&path).unwrap();
    let mut out = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    let mut put = |bytes: &[u8]| std::io::Write::write_all(&mut out, bytes).unwrap();
    put(&header);
    put(&fs::read(&raw).unwrap());
    put(&[0; 1024]);
    out.finish().unwrap();
    verify(&path, None).unwrap()
}

/// A VHD of a disk with a sector too many, as the footer says, too.
fn odd_vhd() -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhd");
    DiskSample::new().write(&path);
    let file = File::options().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len() + 512;
    let footer = crate::artifact::format::vhd::footer(len, Guid::new(3), 0);
    file.write_all_at(&footer, len).unwrap();
    verify(&path, None).unwrap()
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        ("vhd-size", odd_vhd()),
        (
            "qcow2",
            of(Format::Qcow2, |bytes| bytes[(1 << 16) + 3] ^= 0x20),
        ),
        (
            "qcow2",
            of(Format::Qcow2, |bytes| bytes.truncate(bytes.len() / 2)),
        ),
        ("vmdk", of(Format::Vmdk, |bytes| bytes[128 * 512] ^= 1)),
        (
            "vmdk",
            of(Format::Vmdk, |bytes| bytes.truncate(bytes.len() - 512)),
        ),
        (
            "gzip",
            of(Format::Maas, |bytes| bytes.truncate(bytes.len() - 1)),
        ),
        (
            "gzip",
            of(Format::Gce, |bytes| {
                let last = bytes.len() - 6;
                bytes[last] ^= 1;
            }),
        ),
        ("gce-archive", small_archive()),
    ]
}
