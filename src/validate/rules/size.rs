//! Sizes: what fits into the partitions that Kairos makes, and what firmware can load.

use std::collections::BTreeSet;

use super::always;
use crate::error::Result;
use crate::progress::bytes_text;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

const MIB: u64 = 1 << 20;
/// The installer's size for each of the three images when it cannot estimate one, and the room that it plans for a boot
/// file of Trusted Boot: five of them fit into its EFI partition.
const INSTALLER_IMAGE: u64 = 3072 * MIB;
/// What the installer adds to the sum of the files.
const INSTALLER_MARGIN: u64 = 100 * MIB;
/// Active, passive and transition image, 1000 MiB to spare, and twice recovery and 200 MiB: in units of the image, and the rest.
const COPIES: u64 = 5;
const SPARE: u64 = 1500 * MIB;
/// The smallest disk that machines for Kairos are advised to have.
const COMMON_DISK: u64 = 32 << 30;
/// Firmware is known to refuse boot files of this size, unpacked.
const LARGE_BOOT_FILE: u64 = 1536 * MIB;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "size-disk",
        severity: Severity::Warning,
        demand: "the system, its passive copy and its recovery fit on a disk of 32 GiB",
        remedy: "remove packages (`--without`, `--firmware`), or plan larger disks",
        steps: &[],
        when: Facts::has_grub,
        check: disk,
    },
    Rule {
        id: "size-boot-file",
        severity: Severity::Error,
        demand: "an image for Trusted Boot fits into the EFI partition that the installer makes (3072 MiB a boot file)",
        remedy: "remove packages and firmware: the whole image becomes one boot file",
        steps: &[],
        when: is_trusted,
        check: boot_file,
    },
    Rule {
        id: "size-firmware",
        severity: Severity::Warning,
        demand: "an image for Trusted Boot is small enough for common firmware (1536 MiB unpacked)",
        remedy: "remove packages and firmware; firmware may refuse to load a boot file of this size",
        steps: &[],
        when: is_trusted,
        check: firmware,
    },
    Rule {
        id: "size-boot-files",
        severity: Severity::Warning,
        demand: "kernel and initrd are small enough to load at a reasonable speed (256 MiB)",
        remedy: "leave firmware and modules out of the initrd (`omit_drivers`, `--firmware`)",
        steps: &[],
        when: always,
        check: boot_files,
    },
];

fn is_trusted(facts: &Facts) -> bool {
    facts.trusted
}

/// Returns the bytes of all files, each counted once whatever its number of names.
fn total(subject: &Subject<'_>) -> u64 {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    subject.tree.walk("", &mut |_, node| {
        if let Some(file) = node.file()
            && seen.insert(file.id)
        {
            bytes += file.size;
        }
    });
    bytes
}

fn disk(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let bytes = total(subject);
    let needed = COPIES * (bytes + INSTALLER_MARGIN) + SPARE;
    if needed > COMMON_DISK {
        found.add(format!(
            "its files are {}, an installation takes {} before any data",
            bytes_text(bytes),
            bytes_text(needed)
        ));
    }
    Ok(())
}

fn boot_file(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let bytes = total(subject);
    if bytes > INSTALLER_IMAGE {
        found.add(format!("its files are {}", bytes_text(bytes)));
    }
    Ok(())
}

fn firmware(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let bytes = total(subject);
    if bytes > LARGE_BOOT_FILE && bytes <= INSTALLER_IMAGE {
        found.add(format!("its files are {}", bytes_text(bytes)));
    }
    Ok(())
}

fn boot_files(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for path in ["boot/vmlinuz", "boot/initrd"] {
        let file = subject.tree.find(path);
        let bytes = file.and_then(|found| found.node.file().map(|file| file.size));
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 256 * MIB) {
            found.at(path, format!("it is {}", bytes_text(bytes)));
        }
    }
    Ok(())
}
