//! Disks.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kfactory_layers::digest::Digest;

use super::disk_sample::DiskSample;
use super::sample::{initrd, reword};
use super::{Case, assert_clean};
use crate::artifact::format::vhd;
use crate::artifact::gpt::SECTOR_BYTES;
use crate::artifact::guid::Guid;
use crate::artifact::region::{ReadAt, Region};
use crate::artifact::verify::{Kind, Report, disk, verify};
use crate::validate::kernel_image::bzimage_for_tests;
use crate::validate::output::Form;

const MENU: &str = "etc/cos/grub.cfg";

/// Returns the report of a good disk after `change`.
fn of(change: impl FnOnce(&mut DiskSample)) -> Report {
    let mut disk = DiskSample::new();
    change(&mut disk);
    disk.verified(|_| {})
}

/// Returns the report of a good disk of which a byte is another: the one at `at` in the partition `name`.
fn flipped(name: &str, at: u64) -> Report {
    let disk = DiskSample::new();
    disk.verified(|file| flip(file, disk.start(name) + at))
}

fn flip(file: &Region, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

fn menu(from: &str, to: &str) -> Report {
    of(|disk| reword(disk.recovery.get_mut(MENU).unwrap(), from, to))
}

fn oem(name: &str, from: &str, to: &str) -> Report {
    of(|disk| reword(disk.oem.get_mut(name).unwrap(), from, to))
}

fn without_system(name: &str) -> Report {
    of(|disk| {
        disk.system.remove(name).unwrap();
    })
}

fn system(name: &str, bytes: &[u8]) -> Report {
    of(|disk| {
        disk.system.insert(name.to_owned(), bytes.to_vec());
    })
}

fn labelled(number: usize) -> Report {
    of(|disk| disk.labels[number] = "COS_OTHER")
}

/// Verifies a disk with the end of a VHD, which says that it is `more` bytes larger than it is.
fn with_footer(more: u64) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhd");
    DiskSample::new().write(&path);
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    let footer = vhd::footer(len + more, Guid::new(3), 1_700_000_000);
    std::io::Write::write_all(&mut file, &footer).unwrap();
    verify(&path, None).unwrap()
}

#[test]
fn a_good_disk_passes_and_tells_what_it_is() {
    let report = of(|_| {});
    assert_clean(&report);
    let text = report.render("disk.raw".as_ref(), Form::Text).unwrap();
    for words in [
        "kind       disk\n",
        "format     raw\n",
        "partitions efi, bios, oem, recovery\n",
        "starts on  UEFI, BIOS\n",
        "kernel     6.1.0-test (amd64)\n",
        "system     debian v1\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert_clean(&with_footer(0));
}

const PI3: [&str; 4] = [
    "bootcode.bin",
    "start.elf",
    "fixup.dat",
    "bcm2837-rpi-3-b.dtb",
];
const PI4: [&str; 3] = ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"];

/// Returns the report of a good disk for a Raspberry Pi 3 after `change`.
fn of_board(change: impl FnOnce(&mut DiskSample)) -> Report {
    let mut disk = DiskSample::board("rpi3", &PI3);
    change(&mut disk);
    disk.verified(|_| {})
}

fn without_firmware(name: &str) -> Report {
    of_board(|disk| drop(disk.efi.remove(name).unwrap()))
}

#[test]
fn a_good_disk_for_a_board_passes_and_tells_which() {
    let report = of_board(|_| {});
    assert_clean(&report);
    assert!(report.facts.contains(&("board", "rpi3".to_owned())));
    let mut disk = DiskSample::board("rpi4", &PI4);
    assert_clean(&disk.verified(|_| {}));
    // Its firmware reads a GPT too.
    disk.is_hybrid = false;
    assert_clean(&disk.verified(|_| {}));
    // Where the system does not say what it is for, its firmware does.
    let disk = DiskSample::board("generic", &[&PI3[..], &PI4].concat());
    let report = disk.verified(|_| {});
    assert_clean(&report);
    assert!(report.facts.contains(&("board", "rpi3, rpi4".to_owned())));
}

#[test]
fn an_installed_disk_needs_no_first_boot() {
    assert_clean(&of(|disk| {
        disk.oem.clear();
        disk.parts.push(("state".to_owned(), Guid::LINUX, 1));
    }));
}

/// Returns the report of a good disk of which the file system `name` has `inline_data`, which Linux reads.
fn with_inline_data(name: &str) -> Report {
    const FEATURES: u64 = 1024 + 0x60;
    let disk = DiskSample::new();
    disk.verified(|file| {
        let at = disk.start(name) + FEATURES + 1;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] | 0x80], at).unwrap();
    })
}

#[test]
fn what_only_linux_reads_is_a_warning_that_names_it() {
    for name in ["oem", "recovery"] {
        let report = with_inline_data(name);
        let [finding] = report.findings.as_slice() else {
            panic!("{:#?}", report.findings);
        };
        assert!(finding.text.ends_with(": inline_data"), "{}", finding.text);
        assert!(report.passes());
    }
}

#[test]
fn a_file_that_is_too_large_is_not_said_to_be_missing() {
    let large = vec![b'#'; (1 << 20) + 1];
    let of_volume = |name: &str| {
        of(|disk| {
            let files = match name {
                "etc/kairos-release" | "etc/cos/bootargs.cfg" => &mut disk.system,
                MENU | "grub2/grub.cfg" => &mut disk.recovery,
                _ => &mut disk.oem,
            };
            files.insert(name.to_owned(), large.clone());
        })
    };
    for (name, rule, most) in [
        ("etc/kairos-release", "root-files", 64 << 10),
        ("etc/cos/bootargs.cfg", "menu-root", 1 << 20),
        (MENU, "recovery-files", 1 << 20),
        ("grub2/grub.cfg", "recovery-files", 1 << 20),
        ("01_reset.yaml", "oem-files", 1 << 20),
        ("grubenv", "oem-environment", 64 << 10),
    ] {
        let said = format!("/{name} has 1048577 bytes, and of such a file {most} are read at most");
        let report = of_volume(name);
        let mut findings = report.findings.iter();
        let is_told = findings.any(|it| it.rule == rule && it.text.contains(&said));
        assert!(is_told, "{name}: {:#?}", report.findings);
    }
}

/// A disk that fails from one byte up to another.
#[derive(Debug)]
struct Failing {
    whole: Region,
    bad: std::ops::Range<u64>,
}

impl ReadAt for Failing {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        const EIO: i32 = 5;
        match offset < self.bad.end && offset + bytes.len() as u64 > self.bad.start {
            true => Err(io::Error::from_raw_os_error(EIO)),
            false => self.whole.read_exact_at(bytes, offset),
        }
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_told_as_that_wherever_it_fails() {
    const STEP: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    DiskSample::new().write(&path);
    let file = std::fs::File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let whole = Region::of_file(Arc::new(file), len);
    let mut failed = 0;
    for start in (0..len).step_by(STEP as usize) {
        let bad = start..start + STEP;
        let disk = Failing {
            whole: whole.clone(),
            bad,
        };
        let disk = Region::of_view(Arc::new(disk), len);
        let mut report = Report::new(Kind::Disk);
        if let Err(error) = disk::check(&mut report, &disk, None) {
            let said = error.render_text();
            assert!(said.contains("os error 5"), "at {start}: {said}");
            failed += 1;
        }
    }
    // Tables, file systems, kernel and initrd: not all in the same place.
    assert!(failed > 5, "{failed}");
}

#[test]
fn formats_that_are_not_read_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for (head, name) in [
        (&b"QFI\xfb\0\0\0\x09"[..], "qcow2 image of version 9"),
        (b"KDMV\x04\0\0\0", "VMDK disk of version 4"),
        (b"# Disk DescriptorFile", "VMDK disk of several files"),
        (b"conectix", "VHD"),
        (b"vhdxfile", "VHDX"),
        (b"\xfd7zXZ\0", "xz"),
    ] {
        let mut bytes = vec![0; 4096];
        bytes[..head.len()].copy_from_slice(head);
        std::fs::write(&path, bytes).unwrap();
        let text = verify(&path, None).unwrap_err().render_text();
        assert!(text.contains(name) && text.contains("hint: "), "{text}");
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = layout();
    cases.extend(boards());
    cases.extend(configurations());
    cases.extend(contents());
    cases
}

fn layout() -> Vec<Case> {
    let damaged = |at: u64| DiskSample::new().verified(|file| flip(file, at));
    vec![
        ("vhd-footer", with_footer(512)),
        ("partition-table", damaged(510)),
        ("partition-table", damaged(SECTOR_BYTES + 16)),
        ("partition-table", damaged(2 * SECTOR_BYTES)),
        (
            "partition-table-backup",
            DiskSample::new().verified(|file| flip(file, file.len() - SECTOR_BYTES)),
        ),
        (
            "disk-partitions",
            of(|disk| disk.parts[2].0 = "other".to_owned()),
        ),
        ("disk-partitions", of(|disk| disk.parts[0].1 = Guid::LINUX)),
        (
            "disk-partitions",
            of(|disk| disk.parts.push(disk.parts[3].clone())),
        ),
        (
            "disk-partitions",
            of(|disk| {
                disk.parts.drain(..2);
            }),
        ),
        ("disk-labels", labelled(0)),
        ("disk-labels", labelled(1)),
        // The menu still looks for the old one.
        ("disk-labels menu-target", labelled(2)),
        ("disk-labels menu-root", labelled(3)),
        // No code, another sector, another list of blocks, nothing behind it.
        (
            "disk-bios",
            DiskSample::new().verified(|file| file.write_all_at(&[0; 440], 0).unwrap()),
        ),
        ("disk-bios", damaged(0x5c)),
        ("disk-bios", flipped("bios", 502)),
        ("disk-bios", flipped("bios", 522)),
        ("efi-fat", flipped("efi", 510)),
        // The magic number, the checksum, and the size of the superblock.
        ("file-system", flipped("oem", 1024 + 0x38)),
        ("file-system", flipped("recovery", 1024 + 0x3fc)),
        ("file-system", flipped("recovery", 1024 + 0x07)),
        ("file-system-unread", with_inline_data("oem")),
    ]
}

fn boards() -> Vec<Case> {
    let mut cases: Vec<Case> = PI3
        .iter()
        .map(|name| ("board-files", without_firmware(name)))
        .collect();
    cases.extend([
        ("board-files", without_firmware("u-boot.bin")),
        ("board-files", without_firmware("config.txt")),
        (
            "board-files",
            of_board(|disk| reword(disk.efi.get_mut("config.txt").unwrap(), "u-boot", "other")),
        ),
        (
            "board-files",
            of_board(|disk| {
                reword(
                    disk.efi.get_mut("config.txt").unwrap(),
                    "64bit=1",
                    "64bit=0",
                )
            }),
        ),
        // A disk for no board, with a configuration that nothing reads.
        (
            "board-files",
            of(|disk| drop(disk.efi.insert("config.txt".to_owned(), Vec::new()))),
        ),
        ("board-mbr", of_board(|disk| disk.is_hybrid = false)),
        // The low byte of the partition's first sector.
        (
            "board-mbr",
            DiskSample::board("rpi3", &PI3).verified(|file| flip(file, 446 + 8)),
        ),
    ]);
    cases
}

fn configurations() -> Vec<Case> {
    vec![
        (
            "oem-files",
            of(|disk| drop(disk.oem.remove("01_reset.yaml"))),
        ),
        ("oem-files", oem("01_reset.yaml", "layout", "other")),
        (
            "oem-files",
            oem("01_reset.yaml", "kairos-agent reset", "true"),
        ),
        ("oem-files", oem("01_reset.yaml", "stages:", "stages: [")),
        (
            "oem-environment",
            of(|disk| drop(disk.oem.remove("grubenv"))),
        ),
        ("oem-environment", oem("grubenv", "##", "#")),
        ("oem-environment", oem("grubenv", "=recovery", "=passive")),
        (
            "oem-environment",
            oem("grubenv", "next_entry", "last_entry"),
        ),
    ]
}

fn contents() -> Vec<Case> {
    let modules = &["squashfs", "overlay"];
    let (kernel, ramdisk) = ("boot/vmlinuz", "boot/initrd");
    vec![
        (
            "recovery-files oem-environment menu-root menu-target",
            of(|disk| drop(disk.recovery.remove(MENU))),
        ),
        (
            "recovery-files",
            of(|disk| drop(disk.recovery.remove("grub2/grub.cfg"))),
        ),
        ("menu", menu("linux (loop0)", "true ")),
        (
            "menu-files initrd-format",
            menu("/boot/initrd", "/boot/other"),
        ),
        (
            "menu-target",
            menu(
                "--label --set=root COS_RECOVERY",
                "--label --set=root COS_OTHER",
            ),
        ),
        ("menu-root", menu("cOS/recovery.img", "cOS/other.img")),
        ("menu-root", without_system("etc/cos/bootargs.cfg")),
        ("menu-files", without_system(kernel)),
        ("root-files", without_system("sbin/init")),
        (
            "root-modules initrd-kernel",
            system(kernel, &bzimage_for_tests("6.9")),
        ),
        ("kernel", system(kernel, b"no kernel")),
        ("initrd-format", system(ramdisk, b"no archive")),
        (
            "initrd-kernel",
            system(ramdisk, &initrd("6.9", modules, &["immucore"])),
        ),
    ]
}

#[test]
fn a_disk_that_was_enlarged_before_its_first_boot_is_as_good_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    DiskSample::new().write(&path);
    let digest = Digest::of(&fs::read(&path).unwrap());
    fs::write(
        dir.path().join("disk.raw.sha256"),
        format!("{}  disk.raw\n", digest.hex()),
    )
    .unwrap();
    assert_clean(&verify(&path, None).unwrap());
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + (5 << 20))
        .unwrap();
    let report = verify(&path, None).unwrap();
    assert_clean(&report);
    let text = report.render(&path, Form::Text).unwrap();
    for words in [
        "before 5.0 MiB were added",
        "by 5.0 MiB, which no partition has yet",
    ] {
        assert!(text.contains(words), "{text}");
    }
    file.write_all_at(b"x", 1 << 20).unwrap();
    let report = verify(&path, None).unwrap();
    assert!(report.findings.iter().any(|it| it.rule == "checksum"));
}
