//! What UEFI starts from: a FAT, a program for its machines in EFI/BOOT, and GRUB's configuration.

use super::rule::{Report, telling};
use super::rules;
use crate::artifact::fat::{FatEntry, FatReadError, FatVolume};
use crate::artifact::region::Region;
use crate::distro::Arch;
use crate::error::Result;

/// By architecture, the name that firmware starts, and the number of the machine in the header of programs.
///
/// Spec: UEFI 2.10, 3.5.1.1 and 2.1.1.
const PROGRAMS: [(Arch, &str, u16); 3] = [
    (Arch::Amd64, "bootx64.efi", 0x8664),
    (Arch::Arm64, "bootaa64.efi", 0xaa64),
    (Arch::Riscv64, "bootriscv64.efi", 0x5064),
];
const DIR: &str = "EFI/BOOT";
/// The directories in which some build of GRUB looks for its configuration, on this file system.
const MENU_DIRS: [&str; 12] = [
    DIR,
    "boot/grub",
    "boot/grub2",
    "EFI/ubuntu",
    "EFI/debian",
    "EFI/fedora",
    "EFI/redhat",
    "EFI/rocky",
    "EFI/almalinux",
    "EFI/centos",
    "EFI/opensuse",
    "EFI/sles",
];
/// The largest program that is searched; shim has one megabyte.
const MAX_PROGRAM_BYTES: u64 = 16 << 20;
/// The longest name that shim has for what it starts.
const MAX_NAME: usize = 64;

/// Checks the file system in `region`, called `path`, for a kernel of `arch`. Returns its label where it is one.
pub(super) fn check(
    report: &mut Report,
    path: &str,
    region: Region,
    arch: Option<Arch>,
) -> Result<Option<FatVolume>> {
    let volume = match FatVolume::open(region) {
        Ok(volume) => volume,
        Err(error) => {
            report.hold(&rules::EFI_FAT).at(path, telling(&error));
            return Ok(None);
        }
    };
    report.hold(&rules::EFI_FAT);
    match read(report, path, &volume, arch) {
        Ok(()) => Ok(Some(volume)),
        Err(error) => {
            report.hold(&rules::EFI_FAT).at(path, telling(&error));
            Ok(None)
        }
    }
}

fn read(
    report: &mut Report,
    path: &str,
    volume: &FatVolume,
    arch: Option<Arch>,
) -> std::result::Result<(), FatReadError> {
    let mut found = false;
    for (own, name, machine) in PROGRAMS {
        if arch.is_some_and(|arch| arch != own) {
            continue;
        }
        let file = volume.find(&format!("{DIR}/{name}"))?;
        let Some(file) = file.filter(|file| !file.is_dir) else {
            continue;
        };
        found = true;
        program(report, path, volume, &file, machine)?;
    }
    if !found {
        let names = PROGRAMS
            .iter()
            .filter(|it| arch.is_none_or(|arch| arch == it.0));
        let names: Vec<&str> = names.map(|it| it.1).collect();
        let text = format!(
            "it has no {DIR}/{}",
            names.join(" and none of the others: ")
        );
        report.hold(&rules::EFI_PROGRAM).at(path, text);
    }
    let mut has_menu = false;
    for dir in MENU_DIRS {
        let menu = volume.find(&format!("{dir}/grub.cfg"))?;
        has_menu |= menu.is_some_and(|menu| !menu.is_dir && menu.size > 0);
    }
    let mut held = report.hold(&rules::EFI_MENU);
    if !has_menu {
        held.at(
            path,
            format!("there is no grub.cfg in {}", MENU_DIRS.join(", ")),
        );
    }
    Ok(())
}

/// Checks what firmware starts, and what that starts.
fn program(
    report: &mut Report,
    path: &str,
    volume: &FatVolume,
    file: &FatEntry,
    machine: u16,
) -> std::result::Result<(), FatReadError> {
    let name = format!("{DIR}/{}", file.name);
    let bytes = bytes(volume, file)?;
    let mut held = report.hold(&rules::EFI_PROGRAM);
    match machine_of(&bytes) {
        Some(found) if found == machine => {}
        Some(found) => held.at(
            path,
            format!("{name} is for machines of the number {found:#06x}, not {machine:#06x}"),
        ),
        None => held.at(path, format!("{name} is no EFI program")),
    }
    let Some(second) = second_of(&bytes) else {
        return Ok(());
    };
    let there = volume.find(&format!("{DIR}/{second}"))?;
    let there = there.map(|file| self::bytes(volume, &file)).transpose()?;
    let mut held = report.hold(&rules::EFI_SECOND);
    match there.map(|bytes| machine_of(&bytes)) {
        Some(Some(found)) if found == machine => {}
        Some(_) => held.at(
            path,
            format!("{DIR}/{second} is no EFI program for the same machines"),
        ),
        None => held.at(
            path,
            format!("{name} starts {DIR}/{second}, which is not there"),
        ),
    }
    Ok(())
}

/// Returns the start of a program, as much as is looked into.
fn bytes(volume: &FatVolume, file: &FatEntry) -> std::result::Result<Vec<u8>, FatReadError> {
    let content = volume.content(file)?;
    let mut bytes = vec![0; content.len().min(MAX_PROGRAM_BYTES) as usize];
    content.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Returns the number of the machines that a program is for; none of what is no program for EFI.
///
/// Spec: Microsoft PE format, "COFF File Header" and "Optional Header".
fn machine_of(bytes: &[u8]) -> Option<u16> {
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = bytes.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let header = usize::from(u16_at(0x3c)?) | usize::from(u16_at(0x3e)?) << 16;
    let is_pe = bytes.starts_with(b"MZ") && bytes.get(header..)?.starts_with(b"PE\0\0");
    const PE32_PLUS: u16 = 0x20b;
    const EFI_APPLICATION: u16 = 10;
    let is_efi = u16_at(header + 24)? == PE32_PLUS && u16_at(header + 24 + 68)? == EFI_APPLICATION;
    (is_pe && is_efi).then(|| u16_at(header + 4)).flatten()
}

/// Returns what shim starts: a name of its own directory, `\grub...`, which it holds as UCS-2.
fn second_of(bytes: &[u8]) -> Option<String> {
    let wanted: Vec<u8> = r"\grub".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = bytes.windows(wanted.len()).position(|it| it == wanted)?;
    let units = bytes[at + 2..].chunks_exact(2);
    let name: String = units
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take(MAX_NAME)
        .map_while(|unit| char::from_u32(unit.into()).filter(char::is_ascii_graphic))
        .collect();
    let is_name = name.ends_with(".efi") && !name.contains(['/', '\\']);
    is_name.then_some(name)
}
