//! A disk of our own writers, small, and good but for what a test takes away.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::metadata::Timestamp;

use super::sample::{Files, VERSION, efi, fat, files, initrd};
use crate::artifact::ext4::{Builder, Journal, Layout, Meta, Size, Volume};
use crate::artifact::gpt::{ALIGNMENT, Partition, SECTOR_BYTES, Table};
use crate::artifact::grub::menu::chain_to_disk;
use crate::artifact::guid::Guid;
use crate::artifact::region::Region;
use crate::artifact::verify::{Report, verify};
use crate::validate::kernel_image::bzimage_for_tests;

const MIB: u64 = 1 << 20;
const MENU: &str = include_str!("../../../kairos/files/grub.cfg");
const ARGUMENTS: &str = include_str!("../../../kairos/files/bootargs.cfg");
const FIRST_BOOT: &str = "stages:\n  rootfs.before:\n  - layout:\n      device:\n        label: COS_RECOVERY\n      \
    add_partitions:\n      - fsLabel: COS_STATE\n        size: 10\n  network:\n  - commands:\n    - kairos-agent reset\n";

/// A disk to be.
pub(super) struct DiskSample {
    /// The partitions with their names and types.
    pub(super) parts: Vec<(String, Guid, u64)>,
    pub(super) efi: Files,
    pub(super) oem: Files,
    pub(super) recovery: Files,
    /// The root filesystem.
    pub(super) system: Files,
    /// Of the file systems, in the order of the partitions, and of the one in a file.
    pub(super) labels: [&'static str; 4],
    /// Whether the MBR has the first partition too.
    pub(super) is_hybrid: bool,
}

impl DiskSample {
    pub(super) fn new() -> Self {
        let part = |name: &str, kind, mib| (name.to_owned(), kind, mib);
        let mut environment = b"# GRUB Environment Block\nnext_entry=recovery\n".to_vec();
        environment.resize(1024, b'#');
        let chain = chain_to_disk("COS_RECOVERY");
        let release = b"KAIROS_FLAVOR=\"debian\"\nKAIROS_VERSION=\"v1\"\n";
        let modules = ["squashfs", "overlay"];
        Self {
            parts: vec![
                part("efi", Guid::EFI_SYSTEM, 4),
                part("bios", Guid::BIOS_BOOT, 1),
                part("oem", Guid::LINUX, 16),
                part("recovery", Guid::LINUX, 48),
            ],
            efi: efi(&chain),
            oem: files(&[
                ("01_reset.yaml", FIRST_BOOT.as_bytes()),
                ("grubenv", &environment),
            ]),
            recovery: files(&[
                ("etc/cos/grub.cfg", MENU.as_bytes()),
                ("grub2/grub.cfg", chain.as_bytes()),
            ]),
            system: files(&[
                ("boot/vmlinuz", &bzimage_for_tests(VERSION)),
                ("boot/initrd", &initrd(VERSION, &modules, &["immucore"])),
                ("etc/cos/bootargs.cfg", ARGUMENTS.as_bytes()),
                ("etc/kairos-release", release),
                (&format!("lib/modules/{VERSION}/modules.dep"), b""),
                ("sbin/init", b"program"),
            ]),
            labels: ["COS_GRUB", "COS_OEM", "COS_RECOVERY", "COS_SYSTEM"],
            is_hybrid: false,
        }
    }

    /// Returns one for a Raspberry Pi, whose firmware is `firmware`.
    pub(super) fn board(model: &str, firmware: &[&str]) -> Self {
        let mut disk = Self::new();
        disk.parts.remove(1);
        disk.is_hybrid = true;
        let release = disk.system.get_mut("etc/kairos-release").unwrap();
        release.extend(format!("KAIROS_MODEL=\"{model}\"\n").bytes());
        let config = b"arm_64bit=1\nkernel=u-boot.bin\n";
        disk.efi.insert("config.txt".to_owned(), config.to_vec());
        for name in [&["u-boot.bin"], firmware].concat() {
            disk.efi.insert(name.to_owned(), b"content".to_vec());
        }
        disk
    }

    /// Returns where the partition `name` starts, in bytes.
    pub(super) fn start(&self, name: &str) -> u64 {
        let before = self.parts.iter().take_while(|part| part.0 != name);
        MIB + before.map(|part| part.2 * MIB).sum::<u64>()
    }

    fn table(&self, bytes: u64) -> Table {
        let mut table = Table::new(Guid::new(1), bytes / SECTOR_BYTES);
        let mut first = ALIGNMENT;
        for (number, (name, kind, mib)) in (2..).zip(&self.parts) {
            let sectors = mib * MIB / SECTOR_BYTES;
            table.partitions.push(Partition {
                name: name.clone(),
                kind: *kind,
                guid: Guid::new(number),
                first,
                sectors,
                attributes: 0,
            });
            first += sectors;
        }
        table
    }

    /// Writes the disk to `path`.
    pub(super) fn write(&self, path: &Path) {
        let bytes = 2 * MIB + self.parts.iter().map(|part| part.2 * MIB).sum::<u64>();
        let file = fs::File::create(path).unwrap();
        file.set_len(bytes).unwrap();
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let disk = Region::of_file(Arc::new(file), bytes);
        let table = self.table(bytes);
        let core = self.start("bios") / SECTOR_BYTES;
        let mut code = [0x90; 440];
        code[0x5c..0x64].copy_from_slice(&core.to_le_bytes());
        match self.is_hybrid {
            true => table.write_hybrid(&table.partitions[0], &disk).unwrap(),
            false => table.write(&code, &disk).unwrap(),
        }
        for partition in &table.partitions {
            let part = disk.part(&[partition.extent()]).unwrap();
            match partition.name.as_str() {
                "efi" => {
                    let volume = fat(self.labels[0], &self.efi, Some(part.len()));
                    part.write_all_at(&volume, 0).unwrap();
                }
                "bios" => part.write_all_at(&core_image(core), 0).unwrap(),
                "oem" => self.write_oem(&part),
                "recovery" => self.write_recovery(&part),
                _ => {}
            }
        }
    }

    fn write_oem(&self, part: &Region) {
        let (layout, files) = lay_out(self.labels[1], Size::Exact(part.len()), &self.oem);
        write(&layout, &files, part);
    }

    fn write_recovery(&self, part: &Region) {
        let (system, system_files) = lay_out(self.labels[3], Size::Margin(MIB), &self.system);
        let mut builder = Builder::new(volume(self.labels[2], Size::Exact(part.len())));
        let image = builder
            .file("cOS/recovery.img", META, system.size())
            .unwrap();
        let files = declare(&mut builder, &self.recovery);
        let layout = builder.layout().unwrap();
        write(&layout, &files, part);
        write(&system, &system_files, &layout.region(part, image).unwrap());
    }

    /// Makes the disk, changes it, and verifies it.
    pub(super) fn verified(&self, change: impl FnOnce(&Region)) -> Report {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        self.write(&path);
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let len = file.metadata().unwrap().len();
        change(&Region::of_file(Arc::new(file), len));
        verify(&path, None).unwrap()
    }
}

const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Timestamp::from_secs(1_700_000_000),
};

type Declared<'a> = Vec<(crate::artifact::ext4::FileId, &'a [u8])>;

fn volume(label: &str, size: Size) -> Volume {
    Volume {
        label: label.to_owned(),
        uuid: Guid::new(9),
        epoch: 1_700_000_000,
        size,
        journal: Journal::Smallest,
    }
}

fn declare<'a>(builder: &mut Builder, files: &'a Files) -> Declared<'a> {
    let files = files.iter();
    let declared = files.map(|(path, bytes)| {
        let id = builder.file(path, META, bytes.len() as u64).unwrap();
        (id, bytes.as_slice())
    });
    declared.collect()
}

fn lay_out<'a>(label: &str, size: Size, files: &'a Files) -> (Layout, Declared<'a>) {
    let mut builder = Builder::new(volume(label, size));
    let files = declare(&mut builder, files);
    (builder.layout().unwrap(), files)
}

fn write(layout: &Layout, files: &Declared<'_>, to: &Region) {
    layout.write(to).unwrap();
    for (id, bytes) in files {
        layout
            .region(to, *id)
            .unwrap()
            .write_all_at(bytes, 0)
            .unwrap();
    }
}

/// What a core image of GRUB's says of itself, at sector `lba`: seven sectors behind the first, of which 3000 bytes are compressed.
fn core_image(lba: u64) -> Vec<u8> {
    let mut core = vec![0x90; 4096];
    core[488..500].fill(0);
    core[500..508].copy_from_slice(&(lba + 1).to_le_bytes());
    core[508..510].copy_from_slice(&7u16.to_le_bytes());
    core[520..524].copy_from_slice(&3000u32.to_le_bytes());
    core
}
