//! Which firmware starts a disk, and what of the image it takes for that.

use super::files::SmallFile;
use crate::artifact::flat::Flat;
use crate::artifact::grub::bios::Modules;
use crate::artifact::grub::menu::chain_to_disk;
use crate::artifact::names::{BIOS_CHAIN, RECOVERY_LABEL};
use crate::distro::Arch;
use crate::error::{Error, Result};

/// What starts the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Boot {
    /// UEFI alone.
    Uefi,
    /// BIOS alone.
    Bios,
    /// Either.
    Both,
}

impl Boot {
    /// Returns whether UEFI starts it.
    pub fn has_uefi(self) -> bool {
        self != Self::Bios
    }

    /// Returns whether a BIOS starts it.
    pub fn has_bios(self) -> bool {
        self != Self::Uefi
    }
}

/// Returns what starts the disk of an image for `arch`: what was `asked` for, or all that the image has boot code for.
///
/// # Errors
///
/// There is no BIOS on such machines, or the image has no GRUB for it.
pub(super) fn choose(asked: Option<Boot>, arch: Arch, flat: &Flat<'_>) -> Result<Boot> {
    match asked {
        None if can_be_bios(arch, flat) => Ok(Boot::Both),
        None | Some(Boot::Uefi) => Ok(Boot::Uefi),
        Some(_) if arch != Arch::Amd64 => Err(Error::user(format!(
            "no machine with {arch} starts by BIOS"
        ))
        .hint("leave `--boot` out, or write `--boot uefi`")),
        Some(boot) => Modules::find(flat.tree)
            .map(|_| boot)
            .map_err(|error| match boot {
                Boot::Both => error.hint("`--boot uefi` does without"),
                _ => error,
            }),
    }
}

/// Returns whether a BIOS can start a disk of an image for `arch`.
pub(super) fn can_be_bios(arch: Arch, flat: &Flat<'_>) -> bool {
    arch == Arch::Amd64 && Modules::find_opt(flat.tree).is_some()
}

/// Returns GRUB's directory on the recovery partition, where a BIOS has it look: the way to the menu, and its modules for what a menu
/// of the user's may ask for.
///
/// # Errors
///
/// A module cannot be read.
pub(super) fn bios_files(modules: &Modules<'_>, flat: &Flat<'_>) -> Result<Vec<SmallFile>> {
    let chain = chain_to_disk(RECOVERY_LABEL);
    let mut files = vec![SmallFile::new(BIOS_CHAIN, chain)];
    for (name, node) in flat.tree.names(modules.dir()) {
        let Some(name) = name.to_str().filter(|name| is_for_menus(name)) else {
            continue;
        };
        if node.file().is_none() {
            continue;
        }
        let path = format!("{}/{name}", modules.dir());
        let bytes = flat.tree.read(&path)?.unwrap_or_default();
        files.push(SmallFile::new(format!("grub2/i386-pc/{name}"), bytes));
    }
    Ok(files)
}

fn is_for_menus(name: &str) -> bool {
    name.ends_with(".mod") || name.ends_with(".lst")
}
