//! A medium and network boot files of our own writers, small, and good but for what a test takes away.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use kfactory_layers::metadata::Timestamp;

use crate::artifact::fat;
use crate::artifact::grub::menu::{LiveMenu, chain_to_live};
use crate::artifact::guid::Guid;
use crate::artifact::iso::{Content, Disc, Hybrid, Identifiers, Tree};
use crate::artifact::region::Region;
use crate::artifact::verify::{Report, verify};
use crate::distro::Arch;
use crate::initrd::archive;
use crate::validate::kernel_image::bzimage_for_tests;

/// The kernel's version; the root filesystems have its modules and its configuration.
pub(super) const VERSION: &str = "6.1.0-test";
/// `mksquashfs` of a small root filesystem, whose kernel does not read xz: `-comp C -b 4096 -all-root -mkfs-time 0 -all-time 0`.
pub(super) const GZIP: &[u8] = include_bytes!("../../../../testdata/squashfs/gzip.squashfs");
pub(super) const LZ4: &[u8] = include_bytes!("../../../../testdata/squashfs/lz4.squashfs");
pub(super) const XZ: &[u8] = include_bytes!("../../../../testdata/squashfs/xz.squashfs");
pub(super) const ZSTD: &[u8] = include_bytes!("../../../../testdata/squashfs/zstd.squashfs");

pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Puts files together.
pub(super) fn files(files: &[(&str, &[u8])]) -> Files {
    let files = files.iter();
    files
        .map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()))
        .collect()
}

/// What an initrd holds beside links and directories.
pub(super) fn initrd(version: &str, modules: &[&str], programs: &[&str]) -> Vec<u8> {
    let dir = format!("usr/lib/modules/{version}");
    let module = |name: &&str| format!("{dir}/kernel/{name}.ko.xz");
    let mut names: Vec<String> = modules.iter().map(module).collect();
    names.extend(programs.iter().map(|name| format!("usr/bin/{name}")));
    names.push(format!("{dir}/modules.builtin"));
    names.push("init".to_owned());
    let builtin = b"kernel/fs/ext4/ext4.ko\nkernel/drivers/block/loop.ko\n";
    let entries: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), 0o100_644, &builtin[..]))
        .collect();
    archive(&entries)
}

/// The modules that lack in the kernel itself.
pub(super) const MODULES: &[&str] = &["squashfs", "isofs", "overlay"];

/// A program of EFI for `machine`, which starts `second`.
pub(super) fn program(machine: u16, second: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes[0x98..0x9a].copy_from_slice(&0x20bu16.to_le_bytes());
    bytes[0xdc] = 10;
    bytes.extend(second.encode_utf16().flat_map(u16::to_le_bytes));
    bytes.extend([0; 64]);
    bytes
}

/// Makes a FAT of `files`.
pub(super) fn fat(label: &str, files: &Files, size: Option<u64>) -> Vec<u8> {
    let mut builder = fat::Builder::new(fat::Volume {
        label: label.to_owned(),
        serial: 7,
        time: Timestamp::from_secs(1_700_000_000),
        kind: None,
        hidden_sectors: 0,
    });
    let ids: Vec<_> = files
        .iter()
        .map(|(path, bytes)| (builder.file(path, bytes.len() as u64).unwrap(), bytes))
        .collect();
    let layout = builder.layout(size).unwrap();
    in_file(layout.size(), |region| {
        layout.write(region).unwrap();
        for (id, bytes) in ids {
            region.write_all_at(bytes, layout.extent(id).start).unwrap();
        }
    })
}

/// Returns what `write` makes of a file of `len` bytes.
pub(super) fn in_file(len: u64, write: impl FnOnce(&Region)) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    let handle = Arc::new(file.as_file().try_clone().unwrap());
    write(&Region::of_file(handle, len));
    fs::read(file.path()).unwrap()
}

/// The files on what UEFI starts, with `chain` as what leads to the menu.
pub(super) fn efi(chain: &str) -> Files {
    files(&[
        ("EFI/BOOT/bootx64.efi", &program(0x8664, "\\grubx64.efi")),
        ("EFI/BOOT/grubx64.efi", &program(0x8664, "")),
        ("EFI/BOOT/grub.cfg", chain.as_bytes()),
    ])
}

/// A medium to be.
pub(super) struct Medium {
    pub(super) label: String,
    pub(super) files: Files,
    pub(super) efi: Option<Files>,
}

impl Medium {
    pub(super) fn new() -> Self {
        let menu = LiveMenu::new(Arch::Amd64).text().unwrap();
        Self {
            label: "COS_LIVE".to_owned(),
            files: files(&[
                ("boot/grub2/grub.cfg", menu.as_bytes()),
                ("boot/kernel", &bzimage_for_tests(VERSION)),
                ("boot/initrd", &initrd(VERSION, MODULES, &["immucore"])),
                ("rootfs.squashfs", GZIP),
            ]),
            efi: Some(efi(&chain_to_live())),
        }
    }

    /// Puts `change`d bytes in the place of a file's.
    pub(super) fn edit(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files.get_mut(path).unwrap());
    }

    /// Replaces words of a text.
    pub(super) fn reword(&mut self, path: &str, from: &str, to: &str) {
        self.edit(path, |bytes| reword(bytes, from, to));
    }

    /// Makes the medium.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut tree = Tree::new();
        for (path, bytes) in &self.files {
            tree.file(path, 0o644, Content::Bytes(bytes.clone()))
                .unwrap();
        }
        let image: Vec<u8> = (0..6000u32).map(|n| ((n * n) >> 3) as u8).collect();
        let image = tree
            .file("boot/eltorito.img", 0o644, Content::Bytes(image))
            .unwrap();
        let fat = self.efi.as_ref().map(|files| fat("EFI_LIVE", files, None));
        let uefi = fat.map(|fat| {
            tree.file("boot/uefi.img", 0o644, Content::Bytes(fat))
                .unwrap()
        });
        let disc = Disc {
            identifiers: Identifiers {
                volume: self.label.clone(),
                ..Identifiers::default()
            },
            time_secs: 1_700_000_000,
            tree,
            bios: Some(image),
            uefi,
            hybrid: Some(Hybrid {
                boot_code: Some(vec![0x90; 512]),
                disk: Guid::new(1),
                iso: Guid::new(2),
                esp: Guid::new(3),
            }),
        };
        let metadata = disc.lay_out().unwrap().finish(0).unwrap();
        let mut bytes = vec![0; metadata.len as usize];
        for piece in &metadata.pieces {
            let start = piece.offset as usize;
            bytes[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        bytes
    }
}

/// Replaces words of a text, which must be there.
pub(super) fn reword(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    *bytes = text.replace(from, to).into_bytes();
}

/// Returns network boot files.
pub(super) fn netboot() -> Files {
    let script = "#!ipxe\nkernel k-kernel initrd=k-initrd rd.live.overlay.overlayfs root=live:${cwduri}k.squashfs netboot\ninitrd k-initrd\nboot\n";
    files(&[
        ("boot.ipxe", script.as_bytes()),
        ("k-kernel", &bzimage_for_tests(VERSION)),
        ("k-initrd", &initrd(VERSION, MODULES, &["immucore"])),
        ("k.squashfs", GZIP),
    ])
}

/// Verifies a file of these bytes.
pub(super) fn verify_bytes(bytes: &[u8]) -> crate::error::Result<Report> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("artifact");
    fs::write(&path, bytes).unwrap();
    verify(&path, None)
}

/// Verifies a directory with these files.
pub(super) fn verify_files(files: &Files) -> Report {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    verify(dir.path(), None).unwrap()
}

/// Returns where `wanted` stands in `bytes` for the first time.
pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    let mut places = bytes.windows(wanted.len());
    places.position(|it| it == wanted).unwrap()
}
