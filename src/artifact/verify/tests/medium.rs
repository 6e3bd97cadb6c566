//! Live media.

use super::sample::{
    LZ4, MODULES, Medium, VERSION, XZ, ZSTD, find, initrd, program, reword, verify_bytes,
};
use super::{Case, assert_clean};
use crate::artifact::grub::menu::chain_to_live;
use crate::artifact::verify::Report;
use crate::initrd::archive;
use crate::validate::kernel_image::bzimage_for_tests;
use crate::validate::output::Form;

const MENU: &str = "boot/grub2/grub.cfg";
const INITRD: &str = "boot/initrd";
const ROOT: &str = "rootfs.squashfs";
const CHAIN: &str = "EFI/BOOT/grub.cfg";

fn report(medium: &Medium) -> Report {
    verify_bytes(&medium.bytes()).unwrap()
}

/// Returns the report of a good medium after `change`.
fn of(change: impl FnOnce(&mut Medium)) -> Report {
    let mut medium = Medium::new();
    change(&mut medium);
    report(&medium)
}

/// Returns the report of the bytes of a good medium after `change`.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> Report {
    let mut bytes = Medium::new().bytes();
    change(&mut bytes);
    verify_bytes(&bytes).unwrap()
}

fn without(path: &str) -> Report {
    of(|medium| {
        medium.files.remove(path).unwrap();
    })
}

fn with(path: &str, bytes: &[u8]) -> Report {
    of(|medium| medium.edit(path, |it| *it = bytes.to_vec()))
}

fn reworded(from: &str, to: &str) -> Report {
    of(|medium| medium.reword(MENU, from, to))
}

/// Returns the report of a medium after `change` of what UEFI starts.
fn with_efi(path: &str, bytes: Option<Vec<u8>>) -> Report {
    of(|medium| {
        let files = medium.efi.as_mut().unwrap();
        match bytes {
            Some(bytes) => files.insert(path.to_owned(), bytes),
            None => files.remove(path),
        };
    })
}

/// Returns the report of a medium on which the root filesystem has another name in the place of one.
fn renamed(from: &[u8], to: &[u8]) -> Report {
    of(|medium| {
        medium.edit(ROOT, |bytes| {
            let at = find(bytes, from);
            bytes[at..at + to.len()].copy_from_slice(to);
        });
    })
}

/// Returns the report of a medium after `change` of what leads UEFI to the menu.
fn with_chain(from: &str, to: &str) -> Report {
    let mut bytes = chain_to_live().into_bytes();
    reword(&mut bytes, from, to);
    with_efi(CHAIN, Some(bytes))
}

fn le32(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Returns where the boot image is of which the catalog tells in its entry at `at`.
///
/// Spec: El Torito 1.0, 2.0 and 2.2.
fn boot_image(bytes: &[u8], at: usize) -> usize {
    let catalog = 2048 * le32(bytes, 17 * 2048 + 0x47);
    2048 * le32(bytes, catalog + at + 8)
}
const BIOS_ENTRY: usize = 32;
const UEFI_ENTRY: usize = 96;

#[test]
fn a_good_medium_passes_and_tells_what_it_is() {
    let report = report(&Medium::new());
    assert_clean(&report);
    let text = report.render("a.iso".as_ref(), Form::Text).unwrap();
    for words in [
        "label      COS_LIVE\n",
        "starts on  BIOS, UEFI\n",
        "kernel     6.1.0-test (amd64)\n",
        "squashfs   gzip, ",
        "system     debian 12 v1.0.0\n",
        ", 0 errors, 0 warnings\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let json = report.render("a.iso".as_ref(), Form::Json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["passes"], true);
    assert_eq!(json["facts"]["starts_on"], "BIOS, UEFI");
    assert_clean(&with(ROOT, ZSTD));
    assert_clean(&with(ROOT, LZ4));
}

#[test]
fn an_initrd_in_parts_is_one() {
    assert_clean(&of(|medium| {
        let parts = [
            initrd(VERSION, MODULES, &[]),
            initrd(VERSION, &[], &["immucore"]),
        ];
        let [first, second] = parts;
        medium.files.insert("boot/first".to_owned(), first);
        medium.edit(INITRD, |bytes| *bytes = second);
        medium.reword(MENU, "initrd \"", "initrd /boot/first \"");
    }));
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = structure();
    cases.extend(menu());
    cases.extend(root());
    cases.extend(kernel());
    cases.extend(uefi());
    cases
}

/// Returns the report of a medium whose boot image for UEFI is a partition of 2 TiB.
fn with_long_partition() -> Report {
    damaged(|bytes| {
        let block = boot_image(bytes, UEFI_ENTRY) / 2048 + 1;
        let catalog = 2048 * le32(bytes, 17 * 2048 + 0x47);
        let entry = catalog + UEFI_ENTRY;
        bytes[entry + 6..entry + 8].fill(0);
        bytes[entry + 8..entry + 12].copy_from_slice(&(block as u32).to_le_bytes());
        let partition = &mut bytes[446 + 3 * 16..510];
        partition[4] = 0xef;
        partition[8..12].copy_from_slice(&(4 * block as u32).to_le_bytes());
        partition[12..].fill(0xff);
    })
}

fn structure() -> Vec<Case> {
    vec![
        ("iso-structure", damaged(|bytes| bytes.truncate(90_000))),
        // Of the first descriptor, the name; of the top directory, the place.
        ("iso-structure", damaged(|bytes| bytes[16 * 2048 + 1] ^= 1)),
        (
            "iso-structure",
            damaged(|bytes| bytes[16 * 2048 + 160] ^= 1),
        ),
        // Of a file in the Joliet tree, the size in both orders.
        (
            "iso-trees",
            damaged(|bytes| {
                let name: Vec<u8> = "kernel".encode_utf16().flat_map(u16::to_be_bytes).collect();
                let size = find(bytes, &name) - 33 + 10;
                (bytes[size + 1], bytes[size + 6]) = (1, 1);
            }),
        ),
        (
            "iso-label menu-root",
            of(|medium| medium.label = "OTHER".to_owned()),
        ),
        (
            "iso-bios",
            damaged(|bytes| {
                let image = boot_image(bytes, BIOS_ENTRY);
                bytes[image + 3000] ^= 1;
            }),
        ),
        // Where the disk's code loads the image from.
        ("iso-bios", damaged(|bytes| bytes[0x1b0] ^= 1)),
        ("iso-uefi", of(|medium| medium.efi = None)),
        ("iso-uefi partition-table", with_long_partition()),
        ("partition-table", damaged(|bytes| bytes[512 + 60] ^= 1)),
        ("partition-table", damaged(|bytes| bytes[1024] ^= 1)),
        (
            "partition-table-backup",
            damaged(|bytes| {
                let last = bytes.len() - 512;
                bytes[last + 60] ^= 1;
            }),
        ),
    ]
}

fn menu() -> Vec<Case> {
    vec![
        ("menu menu-target", without(MENU)),
        ("menu", with(MENU, b"set timeout=1\n")),
        ("menu-files initrd-format", without(INITRD)),
        ("menu-files", reworded("/boot/kernel", "/boot/other")),
        (
            "menu-root",
            reworded("CDLABEL=COS_LIVE", "CDLABEL=COS_OTHER"),
        ),
        ("menu-root", reworded("root=live", "toor=live")),
        ("menu-squashfs", without(ROOT)),
        (
            "menu-squashfs",
            reworded("squashimg=rootfs", "squashimg=other"),
        ),
        ("menu-arguments", reworded("rd.live.overlay.overlayfs", "")),
    ]
}

fn root() -> Vec<Case> {
    vec![
        ("squashfs", with(ROOT, b"no squashfs")),
        ("squashfs", with(ROOT, &ZSTD[..100])),
        (
            "squashfs",
            of(|medium| {
                medium.files.insert(ROOT.to_owned(), LZ4.to_vec());
                medium.edit(ROOT, |bytes| {
                    let inodes = le32(bytes, 64);
                    bytes[inodes + 2..inodes + 60].fill(0xff);
                });
            }),
        ),
        (
            "squashfs",
            of(|medium| medium.edit(ROOT, |bytes| bytes[28] = 3)),
        ),
        // The inodes, of which the first is the root directory's.
        (
            "squashfs",
            of(|medium| {
                medium.edit(ROOT, |bytes| {
                    let inodes = le32(bytes, 64);
                    bytes[inodes + 2..inodes + 900].fill(0xee);
                });
            }),
        ),
        ("squashfs-compressor", with(ROOT, XZ)),
        (
            "squashfs-compressor",
            of(|medium| medium.edit(ROOT, |bytes| bytes[20] = 9)),
        ),
        (
            "root-unread",
            of(|medium| medium.edit(ROOT, |bytes| bytes[20] = 3)),
        ),
        ("root-files", renamed(b"kairos-release", b"kairos-removed")),
        ("root-files", renamed(b"init", b"exit")),
        (
            "root-modules initrd-kernel",
            with("boot/kernel", &bzimage_for_tests("6.9")),
        ),
    ]
}

fn kernel() -> Vec<Case> {
    let initrd_of = |version, modules, programs| with(INITRD, &initrd(version, modules, programs));
    vec![
        ("kernel", with("boot/kernel", b"no kernel")),
        ("initrd-format", with(INITRD, b"no archive")),
        (
            "initrd-format",
            of(|medium| medium.edit(INITRD, |bytes| bytes.truncate(300))),
        ),
        ("initrd-format", reworded("initrd \"", "true \"")),
        (
            "initrd-init initrd-kernel",
            with(INITRD, &archive(&[("usr/bin/immucore", 0o100_755, b"")])),
        ),
        (
            "initrd-live",
            of(|medium| {
                medium.edit(INITRD, |bytes| {
                    bytes.extend(archive(&[("usr/lib/dracut-lib.sh", 0o100_644, b"")]));
                });
            }),
        ),
        ("initrd-unread", with(INITRD, b"\x02\x21\x4c\x18rest")),
        (
            "initrd-kernel",
            initrd_of("6.0-other", MODULES, &["immucore"]),
        ),
        ("initrd-immucore", initrd_of(VERSION, MODULES, &[])),
        (
            "initrd-modules",
            initrd_of(VERSION, &["isofs"], &["immucore"]),
        ),
    ]
}

/// A program for the machine of the medium, whose header tells of a section that is not there.
fn cut_off() -> Vec<u8> {
    let mut bytes = program(0x8664, "\\grubx64.efi");
    bytes[0x86] = 1;
    bytes[0xa8..0xac].fill(0x7f);
    bytes
}

fn uefi() -> Vec<Case> {
    let (first, second) = ("EFI/BOOT/bootx64.efi", "EFI/BOOT/grubx64.efi");
    let fat = |at: usize| {
        damaged(|bytes| {
            let fat = boot_image(bytes, UEFI_ENTRY);
            bytes[fat + at] ^= 0xff;
        })
    };
    let other = || Some(program(0xaa64, ""));
    vec![
        // The end of the first sector, and the first of the two tables.
        ("efi-fat", fat(510)),
        ("efi-fat", fat(512 + 4)),
        ("efi-program", with_efi(first, None)),
        ("efi-program", with_efi(first, other())),
        ("efi-program", with_efi(first, Some(b"text".to_vec()))),
        ("efi-program", with_efi(first, Some(cut_off()))),
        ("efi-second-program", with_efi(second, None)),
        ("efi-second-program", with_efi(second, Some(cut_off()))),
        ("efi-second-program", with_efi(second, other())),
        ("efi-menu", with_efi(CHAIN, None)),
        (
            "efi-menu",
            with_efi(CHAIN, Some(b"set timeout=1\n".to_vec())),
        ),
        ("menu-target", with_chain("/boot/kernel", "/boot/other")),
        (
            "menu-target",
            with_chain("grub2/grub.cfg", "grub2/other.cfg"),
        ),
    ]
}
