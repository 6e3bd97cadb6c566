//! What UEFI starts from: a FAT, a program for its machines in EFI/BOOT, and GRUB's configuration.

use super::grub_menu::Menu;
use super::pe::Program;
use super::rule::{Report, blame, telling};
use super::{board, rules};
use crate::artifact::fat::{FatEntry, FatReadError, FatVolume};
use crate::artifact::grub::{EFI_DIR as DIR, MORE_VENDORS, VENDORS, first_program};
use crate::artifact::region::Region;
use crate::distro::{Arch, Model};
use crate::error::Result;

/// By architecture, the number of the machine in the header of programs.
///
/// Spec: UEFI 2.10, 2.1.1.
const MACHINES: [(Arch, u16); 3] = [
    (Arch::Amd64, 0x8664),
    (Arch::Arm64, 0xaa64),
    (Arch::Riscv64, 0x5064),
];
/// Directories beside [`DIR`] in which some build of GRUB looks for its configuration, on this file system.
const MENU_DIRS: [&str; 2] = ["boot/grub", "boot/grub2"];
/// Those who sign a GRUB that looks in a directory of theirs, beside those in whose directories it is found.
const MENU_VENDORS: [&str; 4] = ["ubuntu", "debian", "opensuse", "sles"];
/// The largest program that is searched; shim has one megabyte.
const MAX_PROGRAM_BYTES: u64 = 16 << 20;
/// The longest name that shim has for what it starts.
const MAX_NAME: usize = 64;

/// The largest configuration that is read.
const MAX_MENU_BYTES: u64 = 1 << 20;

/// What was found.
pub(super) struct Efi {
    /// The label of the file system.
    pub(super) label: String,
    /// GRUB's configurations on it, by their paths.
    pub(super) menus: Vec<(String, Menu)>,
    /// The boards that it has firmware for.
    pub(super) boards: Vec<Model>,
}

impl Efi {
    /// Tells whether `path` is one of the configurations.
    pub(super) fn has_menu(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        let mut menus = self.menus.iter();
        menus.any(|(menu, _)| menu.eq_ignore_ascii_case(path))
    }
}

/// Checks the file system in `region`, called `path`, for a kernel of `arch` and the board `model`, and returns what it has where it is one.
pub(super) fn check(
    report: &mut Report,
    path: &str,
    region: Region,
    arch: Option<Arch>,
    model: Option<Model>,
) -> Result<Option<Efi>> {
    report.hold(&rules::EFI_FAT);
    let read = FatVolume::open(region).and_then(|volume| {
        let is_complete = programs(report, path, &volume, arch)?;
        let menus = menus(&volume)?;
        let mut held = report.hold(&rules::EFI_MENU);
        if menus.is_empty() && !is_complete {
            held.at(
                path,
                format!("there is no grub.cfg in {DIR}, boot/grub or where else shim's GRUB looks"),
            );
        }
        for (at, menu) in &menus {
            if menu.ends_at_prompt() {
                held.at(path, format!("{at} leads to no menu and starts nothing"));
            }
        }
        let boards = board::check(report, path, &volume, model)?;
        let label = volume.label().to_owned();
        Ok(Efi {
            label,
            menus,
            boards,
        })
    });
    let why = match read {
        Ok(efi) => return Ok(Some(efi)),
        Err(FatReadError::Io(error)) => blame(error)?,
        Err(error) => telling(&error),
    };
    report.hold(&rules::EFI_FAT).at(path, why);
    Ok(None)
}

/// Checks what firmware starts; tells whether all of it finds its menu without configuration.
fn programs(
    report: &mut Report,
    path: &str,
    volume: &FatVolume,
    arch: Option<Arch>,
) -> Result<bool, FatReadError> {
    let (mut found, mut is_complete) = (false, true);
    let wanted = MACHINES
        .iter()
        .filter(|it| arch.is_none_or(|arch| arch == it.0));
    let wanted: Vec<(String, u16)> = wanted.map(|it| (first_program(it.0), it.1)).collect();
    for (name, machine) in &wanted {
        let file = volume.find(&format!("{DIR}/{name}"))?;
        if let Some(file) = file.filter(|file| !file.is_dir) {
            found = true;
            is_complete &= program(report, path, volume, &file, *machine)?;
        }
    }
    if !found {
        let names: Vec<&str> = wanted.iter().map(|it| it.0.as_str()).collect();
        let text = format!("it has no {DIR}/{}", names.join(" and no "));
        report.hold(&rules::EFI_PROGRAM).at(path, text);
    }
    Ok(found && is_complete)
}

fn menus(volume: &FatVolume) -> Result<Vec<(String, Menu)>, FatReadError> {
    let mut menus = Vec::new();
    let vendors = [&VENDORS[..], &MORE_VENDORS, &MENU_VENDORS].concat();
    let vendors = vendors.iter().map(|vendor| format!("EFI/{vendor}"));
    let plain = [&[DIR], &MENU_DIRS[..]].concat();
    for dir in plain.into_iter().map(str::to_owned).chain(vendors) {
        let at = format!("{dir}/grub.cfg");
        let file = volume.find(&at)?;
        if let Some(file) = file.filter(|file| !file.is_dir && file.size > 0) {
            let text = bytes(volume, &file, MAX_MENU_BYTES)?;
            menus.push((at, Menu::read(&String::from_utf8_lossy(&text))));
        }
    }
    Ok(menus)
}

/// Checks what firmware starts, and what that starts; tells whether it starts nothing else: a GRUB that somebody
/// built for this very medium, with its way to the menu inside, as `grub-mkrescue` does.
fn program(
    report: &mut Report,
    path: &str,
    volume: &FatVolume,
    file: &FatEntry,
    machine: u16,
) -> Result<bool, FatReadError> {
    let name = format!("{DIR}/{}", file.name);
    let bytes = bytes(volume, file, MAX_PROGRAM_BYTES)?;
    let mut held = report.hold(&rules::EFI_PROGRAM);
    if let Some(why) = wrong(&bytes, file, machine) {
        held.at(path, format!("{name} {why}"));
    }
    let second = second_of(&bytes);
    if let Some(second) = &second {
        let why = match volume.find(&format!("{DIR}/{second}"))? {
            Some(there) => {
                let bytes = self::bytes(volume, &there, MAX_PROGRAM_BYTES)?;
                wrong(&bytes, &there, machine).map(|why| format!("{DIR}/{second} {why}"))
            }
            None => Some(format!("{name} starts {DIR}/{second}, which is not there")),
        };
        let mut held = report.hold(&rules::EFI_SECOND);
        if let Some(why) = why {
            held.at(path, why);
        }
    }
    Ok(second.is_none())
}

/// Returns why `file`, which begins with `bytes`, is no program for `machine`.
fn wrong(bytes: &[u8], file: &FatEntry, machine: u16) -> Option<String> {
    let Some(program) = Program::read(bytes) else {
        return Some("is no EFI program".to_owned());
    };
    if program.machine != machine {
        let found = program.machine;
        return Some(format!(
            "is for machines of the number {found:#06x}, not {machine:#06x}"
        ));
    }
    let size = u64::from(file.size);
    (program.len > size).then(|| format!("is shorter than its header says: it has {size} bytes"))
}

/// Returns the start of a file, as much as is looked into.
fn bytes(volume: &FatVolume, file: &FatEntry, most: u64) -> Result<Vec<u8>, FatReadError> {
    let content = volume.content(file, most)?;
    let mut bytes = vec![0; content.len() as usize];
    content.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
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
