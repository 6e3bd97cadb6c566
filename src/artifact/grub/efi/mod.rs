//! The EFI programs of a medium: the image's own shim and GRUB, and the names they have on the FAT.
//!
//! The firmware starts `EFI/BOOT/boot<arch>.efi`, the shim, which starts the GRUB beside it by the name that its distribution
//! built into it. GRUB reads a `grub.cfg` in a directory that is built into it too, so the one that leads to the menu lies in
//! each that may be meant.

#[cfg(test)]
mod tests;

use super::Files;
use super::places::{
    EFI_DIR, EfiNames, efi_names, first_program, grub_places, more_grub_places, more_shim_places,
    shim_places,
};
use crate::distro::Arch;
use crate::error::{Error, Result};

/// What the FAT is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A CD or USB stick.
    Live,
    /// A disk with the system on it.
    Disk,
}

/// The files of a FAT that EFI firmware boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiPlan {
    /// In the order of their paths; no path twice, whatever the case of its letters.
    pub files: Vec<EfiFile>,
    /// Where the shim is in the image. Without one, which riscv64 never has, machines boot only with Secure Boot switched off.
    pub shim: Option<String>,
    /// Where GRUB is in the image.
    pub grub: String,
}

/// A file of the FAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfiFile {
    /// Its path on the FAT, without a leading slash: `EFI/BOOT/bootx64.efi`.
    pub path: String,
    /// What it holds.
    pub content: EfiContent,
}

/// What a file of the FAT holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EfiContent {
    /// The image's file at this path, without a leading slash, links to be followed.
    Image(String),
    /// This text.
    Text(String),
}

impl EfiPlan {
    /// Returns the texts among the files, which live media have in their own tree too: some firmware shows GRUB that one.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|file| match &file.content {
            EfiContent::Text(text) => Some((file.path.as_str(), text.as_str())),
            EfiContent::Image(_) => None,
        })
    }
}

/// Chooses the shim and the GRUB of an image for `arch`. `chain` is the `grub.cfg` that leads to the menu:
/// [`chain_to_live`](super::menu::chain_to_live), [`chain_to_disk`](super::menu::chain_to_disk).
///
/// # Errors
///
/// The image has no GRUB for EFI; says where it was looked for and which packages bring it.
pub fn plan(arch: Arch, medium: Medium, image: &dyn Files, chain: &str) -> Result<EfiPlan> {
    let is_live = medium == Medium::Live;
    let first = |places: Vec<String>| places.into_iter().find(|place| image.has(place));
    let grubs = [grub_places(arch, is_live), more_grub_places(arch, is_live)].concat();
    let Some(grub) = first(grubs.clone()) else {
        return Err(no_grub(arch, image, &grubs));
    };
    let shim = first([shim_places(arch), more_shim_places(arch)].concat());

    let mut files = vec![
        program(&first_program(arch), shim.as_ref().unwrap_or(&grub)),
        program(&clean_name(&grub), &grub),
    ];
    if let Some(shim) = shim.as_ref().filter(|_| !is_live) {
        files.push(program(&clean_name(shim), shim));
    }
    for dir in chain_dirs(&grub, is_live) {
        files.push(text(format!("{dir}/grub.cfg"), chain.to_owned()));
    }
    if is_live && arch == Arch::Riscv64 {
        files.push(text(
            "startup.nsh".to_owned(),
            format!("\\EFI\\BOOT\\{}\r\n", first_program(arch)),
        ));
    }
    files.sort_by_key(|file| file.path.to_ascii_lowercase());
    files.dedup_by_key(|file| file.path.to_ascii_lowercase());
    Ok(EfiPlan { files, shim, grub })
}

fn program(name: &str, source: &str) -> EfiFile {
    EfiFile {
        path: format!("{EFI_DIR}/{name}"),
        content: EfiContent::Image(source.to_owned()),
    }
}

fn text(path: String, text: String) -> EfiFile {
    EfiFile {
        path,
        content: EfiContent::Text(text),
    }
}

/// Returns the name by which a shim starts the GRUB at `path`: without what says that it is signed or for CDs.
fn clean_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let endings = [".signed.latest", ".dualsigned", ".signed"];
    let name = endings
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name);
    match name.strip_prefix("gcd") {
        Some(rest) => format!("grub{rest}"),
        None => name.to_owned(),
    }
}

/// Returns the directories where the GRUB at `path` may look for its `grub.cfg`.
fn chain_dirs(path: &str, is_live: bool) -> Vec<String> {
    let mut dirs = vec![EFI_DIR.to_owned()];
    if is_live {
        dirs.push("boot/grub".to_owned());
    }
    if let Some((vendor, _)) = path
        .strip_prefix("boot/efi/EFI/")
        .and_then(|rest| rest.split_once('/'))
    {
        dirs.push(format!("EFI/{vendor}"));
    } else if path.starts_with("usr/lib/grub/") {
        // The path does not tell which of them built it.
        dirs.extend(["EFI/debian".to_owned(), "EFI/ubuntu".to_owned()]);
    }
    dirs
}

fn no_grub(arch: Arch, image: &dyn Files, places: &[String]) -> Error {
    let EfiNames {
        suffix, modules, ..
    } = efi_names(arch);
    let mut error = Error::user(format!(
        "the image has no GRUB for EFI on {}",
        arch.as_str()
    ));
    let dirs =
        ["usr/lib/grub", "usr/share/grub2", "usr/lib/grub2"].map(|top| format!("{top}/{modules}"));
    if let Some(dir) = dirs
        .iter()
        .find(|dir| image.has(&format!("{dir}/kernel.img")))
    {
        error = error.context_below(format!(
            "/{dir} has GRUB's modules, but no program made of them is there"
        ));
    }
    error = error.context_below(format!("none of these exists: /{}", places.join(", /")));
    let packages = match arch {
        Arch::Amd64 => {
            "`shim-signed` and `grub-efi-amd64-signed` (Debian, Ubuntu), `shim-x64` and `grub2-efi-x64` (Red Hat), `shim` and `grub2-x86_64-efi` (SUSE)"
        }
        Arch::Arm64 => {
            "`shim-signed` and `grub-efi-arm64-signed` (Debian, Ubuntu), `shim-aa64` and `grub2-efi-aa64` (Red Hat), `shim` and `grub2-arm64-efi` (SUSE)"
        }
        Arch::Riscv64 => {
            "`grub-efi-riscv64-bin` (Debian, Ubuntu), `grub2-efi-riscv64` (Red Hat), `grub2-riscv64-efi` (SUSE)"
        }
    };
    error.hint(format!("the packages are {packages}")).hint(format!(
        "Alpine (`grub-efi`) and Arch (`grub`) have modules only: run `grub-mkimage -O {modules} -p /boot/grub2 -o \
         /usr/lib/grub/{modules}/grub{suffix}.efi` in the image, followed by the modules {EFI_MODULES}; it boots with Secure Boot switched off"
    ))
}

/// What the menus need of a GRUB that is made by hand.
const EFI_MODULES: &str = "all_video boot chain configfile echo ext2 fat font gfxterm gzio iso9660 linux loadenv loopback ls normal \
    part_gpt part_msdos reboot regexp search search_fs_file search_label serial sleep smbios squash4 test true xzio";
