//! What a Raspberry Pi starts from, before any program of EFI: firmware, a device tree, and what config.txt names.

use std::collections::BTreeMap;

use super::rule::Report;
use super::rules;
use crate::artifact::board::config::Config;
use crate::artifact::board::{CONFIG, firmware, is_device_tree};
use crate::artifact::fat::{FatEntry, FatReadError, FatVolume};
use crate::artifact::gpt::{Partition, mbr_partitions};
use crate::artifact::region::Region;
use crate::distro::Model;
use crate::error::Result;

const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// By which boards are told where nothing else says which it is for: the first file that each of them loads.
const FIRST: [(Model, &str); 2] = [(Model::Rpi3, "BOOTCODE.BIN"), (Model::Rpi4, "START4.ELF")];

/// Checks the file system called `path`, and returns the boards that it is for: the one that `model` says, or those whose firmware it has.
pub(super) fn check(
    report: &mut Report,
    path: &str,
    volume: &FatVolume,
    model: Option<Model>,
) -> Result<Vec<Model>, FatReadError> {
    let top = volume.list("")?.unwrap_or_default();
    let by_files = FIRST.iter().filter(|(_, name)| top.contains_key(*name));
    let boards: Vec<Model> = match model {
        Some(model) => vec![model],
        None => by_files.map(|(model, _)| *model).collect(),
    };
    let config = volume.find(CONFIG)?.filter(|file| !file.is_dir);
    if boards.is_empty() && config.is_none() {
        return Ok(boards);
    }
    let mut held = report.hold(&rules::BOARD_FILES);
    if boards.is_empty() {
        held.at(
            path,
            format!("it has {CONFIG}, and no firmware that reads it"),
        );
    }
    for model in &boards {
        for finding in findings(volume, &top, *model)? {
            held.at(path, finding);
        }
    }
    let names: Vec<&str> = boards.iter().map(|model| model.as_str()).collect();
    report.fact("board", names.join(", "));
    Ok(boards)
}

/// Returns what keeps `model` from starting from `volume`, which has the files `top` at its top.
fn findings(
    volume: &FatVolume,
    top: &BTreeMap<String, FatEntry>,
    model: Model,
) -> Result<Vec<String>, FatReadError> {
    let missing = firmware(Some(model)).iter().filter(|name| !has(top, name));
    let mut found: Vec<String> = missing
        .map(|name| format!("it has no {name}, which {model} starts from"))
        .collect();
    let file = |name: &str| -> Result<Option<FatEntry>, FatReadError> {
        Ok(volume.find(name)?.filter(|file| !file.is_dir))
    };
    let mut read = |name: &str| file(name)?.map(|it| text(volume, &it)).transpose();
    let words = read(CONFIG)?;
    let by = match &words {
        Some(_) => format!("{CONFIG} has {model}"),
        None => format!("without {CONFIG} {model} would"),
    };
    let config = Config::read(&words.unwrap_or_default(), model, &mut read)?;
    if !config.is_64bit() {
        found.push(format!(
            "{by} start in 32 bits, and all programs here have 64"
        ));
    }
    let prefix = config.prefix();
    for name in config.needs() {
        if file(&format!("{prefix}{name}"))?.is_none() && file(name)?.is_none() {
            found.push(format!("{by} load {name}, which is not there"));
        }
    }
    let dir = volume.list(prefix)?.unwrap_or_default();
    let mut names = top.values().chain(dir.values());
    if !config.names_device_tree() && !names.any(|file| is_device_tree(model, &file.name)) {
        found.push(format!("it has no device tree for {model}"));
    }
    Ok(found)
}

/// Checks that the ROM of `boards`, which reads no GPT, finds the partition `efi` of the disk.
pub(super) fn mbr(
    report: &mut Report,
    disk: &Region,
    efi: Option<&Partition>,
    boards: &[Model],
) -> Result<()> {
    let partitions = mbr_partitions(disk)?;
    let fat = partitions.iter().find(|it| it.is_fat());
    if fat.is_none() && boards.is_empty() {
        return Ok(());
    }
    let mut held = report.hold(&rules::BOARD_MBR);
    let is_efi = |first: u32, sectors: u32| {
        efi.is_some_and(|efi| (efi.first, efi.sectors) == (first.into(), sectors.into()))
    };
    match fat {
        Some(fat) if !is_efi(fat.first, fat.sectors) => held.add(format!(
            "the FAT of the MBR has {} sectors from {} on, where the partition efi is not",
            fat.sectors, fat.first
        )),
        Some(_) => {}
        None if boards == [Model::Rpi3] => {
            held.add("the MBR has no FAT, and the ROM of a Raspberry Pi 3 reads no GPT");
        }
        None => {}
    }
    Ok(())
}

fn has(names: &BTreeMap<String, FatEntry>, name: &str) -> bool {
    names
        .get(&name.to_uppercase())
        .is_some_and(|file| !file.is_dir)
}

fn text(volume: &FatVolume, file: &FatEntry) -> Result<String, FatReadError> {
    let content = volume.content(file, MAX_CONFIG_BYTES)?;
    let mut bytes = vec![0; content.len() as usize];
    content.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
