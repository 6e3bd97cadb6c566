//! Boards that start from files on a FAT before any EFI program: Raspberry Pi 3 and 4.
//!
//! ```text
//! ROM or EEPROM -> bootcode.bin (Pi 3) -> start*.elf -> config.txt, device tree -> u-boot.bin -> EFI/BOOT/bootaa64.efi
//! ```
//!
//! All of it is the image's own: the firmware, the device trees of its kernel, and U-Boot, which is EFI firmware to what comes
//! behind it and hands on the device tree that it was started with.
//!
//! - [`files`]: what goes to the FAT. [`config`]: the words of config.txt.
//! - `places`: where distributions put such files.
//!
//! Spec: Raspberry Pi documentation, "config.txt" and "Boot flow".

pub mod config;
mod places;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::grub::efi::{EfiContent, EfiFile};
use crate::distro::{Arch, Model};
use crate::error::{Error, Result};
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;
use config::Config;
pub use places::is_wanted;
use places::{FIRMWARE_DIRS, OVERLAYS, U_BOOTS, VENDOR_DIR, device_tree_dirs};

/// Its name on the FAT.
pub const CONFIG: &str = "config.txt";
/// U-Boot's name on the FAT.
const U_BOOT: &str = "u-boot.bin";

/// Returns the Raspberry Pi that an image is for, by its release file.
///
/// # Errors
///
/// The release file cannot be read.
pub fn of(tree: &Tree) -> Result<Option<Model>> {
    Ok(tree.text(RELEASE_PATH)?.as_deref().and_then(of_release))
}

/// Returns the Raspberry Pi that a release file names.
pub fn of_release(text: &str) -> Option<Model> {
    let keys = dotenv::parse(text).unwrap_or_default();
    let model: Model = keys.get("KAIROS_MODEL")?.parse().ok()?;
    model.is_raspberry_pi().then_some(model)
}

/// Returns the firmware without which `model` does not start.
pub fn firmware(model: Option<Model>) -> &'static [&'static str] {
    match model {
        Some(Model::Rpi3) => &["bootcode.bin", "start.elf", "fixup.dat"],
        Some(_) => &["start4.elf", "fixup4.dat"],
        None => &[],
    }
}

/// Returns how the names of the device trees for `model` begin: upstream's, and those of the Raspberry Pi kernel.
pub fn device_trees(model: Model) -> &'static [&'static str] {
    match model {
        Model::Rpi3 => &["bcm2837-rpi-3-", "bcm2710-rpi-3-"],
        _ => &["bcm2711-rpi-4-"],
    }
}

/// Returns whether `name` is a device tree for `model`.
pub fn is_device_tree(model: Model, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let of_model = |start: &&str| name.starts_with(*start);
    name.ends_with(".dtb") && device_trees(model).iter().any(of_model)
}

/// Returns what `model` starts from, at its place on the FAT. `version` is the kernel's; `is_given` tells what the user puts there.
///
/// # Errors
///
/// The image lacks some of it; says what, where it was looked for, and which packages bring it.
pub fn files(
    model: Model,
    arch: Arch,
    tree: &Tree,
    version: Option<&str>,
    is_given: &dyn Fn(&str) -> bool,
) -> Result<Vec<EfiFile>> {
    if arch != Arch::Arm64 {
        return Err(Error::user(format!(
            "the image is for the board `{model}`, which is a machine of arm64, and has programs for {arch}"
        ))
        .hint("`kfactory convert --platform linux/arm64 --model` makes one for the board"));
    }
    let board = Board {
        model,
        tree,
        is_given,
    };
    let mut lacks = Vec::new();
    let mut files = board.firmware(&mut lacks);
    let trees = board.device_trees(version, &mut lacks);
    files.extend(board.u_boot(&mut lacks));
    files.extend(board.config(&files, &trees, &mut lacks)?);
    files.extend(trees);
    match lacks.is_empty() {
        true => Ok(files),
        false => Err(board.lacking(&lacks)),
    }
}

struct Board<'a> {
    model: Model,
    tree: &'a Tree,
    is_given: &'a dyn Fn(&str) -> bool,
}

/// What an image does not have.
struct Lack {
    what: String,
    places: String,
    packages: &'static str,
}

impl Board<'_> {
    /// Returns the firmware: all of it that is in one directory, as config.txt may choose among its kinds.
    fn firmware(&self, lacks: &mut Vec<Lack>) -> Vec<EfiFile> {
        let wanted = firmware(Some(self.model));
        let dir = self.firmware_dir().unwrap_or_default();
        let files = image_files(self.tree, dir, "", |name| {
            name == "bootcode.bin"
                || name.starts_with("start") && name.ends_with(".elf")
                || name.starts_with("fixup") && name.ends_with(".dat")
                || name.starts_with("armstub") && name.ends_with(".bin")
        });
        let is_there = |name: &str| files.iter().any(|file| file.path == name);
        let missing = wanted.iter().copied();
        let missing: Vec<&str> = missing
            .filter(|name| !is_there(name) && !(self.is_given)(name))
            .collect();
        if !missing.is_empty() {
            lacks.push(Lack {
                what: format!("firmware ({})", missing.join(", ")),
                places: FIRMWARE_DIRS.join(", /"),
                packages: "`raspi-firmware` (Debian), `linux-firmware-raspi` (Ubuntu), `raspberrypi-firmware` (openSUSE)",
            });
        }
        files
    }

    fn firmware_dir(&self) -> Option<&'static str> {
        let first = firmware(Some(self.model))[0];
        let mut dirs = FIRMWARE_DIRS.iter().copied();
        dirs.find(|dir| is_file(self.tree, &format!("{dir}/{first}")))
    }

    /// Returns the device trees of the kernel, and what changes them.
    fn device_trees(&self, version: Option<&str>, lacks: &mut Vec<Lack>) -> Vec<EfiFile> {
        let dirs = device_tree_dirs(version.unwrap_or_default());
        for (dir, overlays) in &dirs {
            let mut files = image_files(self.tree, dir, "", |name| {
                name.starts_with("bcm2") && name.ends_with(".dtb")
            });
            let of_board = |file: &EfiFile| is_device_tree(self.model, &file.path);
            if !files.iter().any(of_board) {
                continue;
            }
            files.extend(image_files(self.tree, overlays, OVERLAYS, |name| {
                name.ends_with(".dtbo") || name.ends_with(".dtb") || name == "README"
            }));
            return files;
        }
        let starts = device_trees(self.model);
        let names = ["b", "b-plus"];
        let given = starts
            .iter()
            .flat_map(|start| names.map(|name| format!("{start}{name}.dtb")));
        if !given.into_iter().any(|name| (self.is_given)(&name)) {
            let places: Vec<&str> = dirs.iter().map(|(dir, _)| dir.as_str()).collect();
            lacks.push(Lack {
                what: format!("device trees ({}*.dtb)", starts[0]),
                places: places.join(", /"),
                packages: "the kernel's own, `linux-image-arm64` (Debian) or `linux-raspi` (Ubuntu), or `raspberrypi-firmware-dt` (openSUSE)",
            });
        }
        Vec::new()
    }

    /// Returns U-Boot: the one for all boards of 64 bits, which takes the device tree of the firmware, before one for this board alone,
    /// which may have another built in.
    fn u_boot(&self, lacks: &mut Vec<Lack>) -> Option<EfiFile> {
        let number = match self.model {
            Model::Rpi3 => "3",
            _ => "4",
        };
        let places = U_BOOTS.map(|place| place.replace('N', number));
        let found = places.iter().find(|place| is_file(self.tree, place));
        if found.is_none() && !(self.is_given)(U_BOOT) {
            lacks.push(Lack {
                what: format!("U-Boot ({U_BOOT})"),
                places: places.join(", /"),
                packages: "`u-boot-rpi` (Debian, Ubuntu), `u-boot-rpiarm64` (openSUSE)",
            });
        }
        Some(of_image(U_BOOT, found?))
    }

    /// Returns config.txt: the one that belongs to the image's firmware, where it starts what is there, with what it includes; or ours.
    /// Others, as Debian's and Ubuntu's packages make them, start a kernel without U-Boot, and so without the menu.
    fn config(
        &self,
        files: &[EfiFile],
        trees: &[EfiFile],
        lacks: &mut Vec<Lack>,
    ) -> Result<Vec<EfiFile>> {
        if (self.is_given)(CONFIG) {
            return Ok(Vec::new());
        }
        let dir = self.firmware_dir().unwrap_or_default();
        let path = format!("{dir}/{CONFIG}");
        if let Some(text) = self.tree.text(&path)? {
            let mut included = |name: &str| self.tree.text(format!("{dir}/{name}"));
            let config = Config::read(&text, self.model, &mut included)?;
            let is_there = |name: &str| files.iter().any(|file| file.path == name);
            let starts_u_boot = config.kernel() == U_BOOT && config.is_64bit();
            if starts_u_boot && config.needs().iter().all(|name| is_there(name)) {
                let included = config.includes.iter();
                let included = included.map(|name| (name, format!("{dir}/{name}")));
                let included = included.filter(|(_, path)| is_file(self.tree, path));
                let mut found = vec![of_image(CONFIG, &path)];
                found.extend(included.map(|(name, path)| of_image(name, &path)));
                return Ok(found);
            }
        }
        // openSUSE's device trees are of the Raspberry Pi kernel, which is not the one that it starts; its own file makes them fit.
        if dir == VENDOR_DIR {
            lacks.push(Lack {
                what: format!("{CONFIG} that starts {U_BOOT}"),
                places: path,
                packages: "`raspberrypi-firmware-config` (openSUSE)",
            });
        }
        let has = |start: &str| trees.iter().any(|file| file.path.starts_with(start));
        let is_upstream = !has("bcm2710-") && !has(OVERLAYS);
        Ok(vec![EfiFile {
            path: CONFIG.to_owned(),
            content: EfiContent::Text(config::ours(is_upstream)),
        }])
    }

    fn lacking(&self, lacks: &[Lack]) -> Error {
        let what: Vec<&str> = lacks.iter().map(|lack| lack.what.as_str()).collect();
        let mut error = Error::user(format!(
            "the image is for the board `{}`, and lacks what that starts from: {}",
            self.model,
            what.join(", ")
        ));
        for lack in lacks {
            error = error.context_below(format!(
                "{} is looked for in /{}",
                lack.what,
                lack.places.trim_start_matches('/')
            ));
        }
        for lack in lacks {
            error = error.hint(format!(
                "packages with the {}: {}",
                lack.what, lack.packages
            ));
        }
        error
            .hint("`kfactory convert --with PACKAGE,...` adds packages to the image")
            .hint("`--overlay-uefi DIR` takes what is missing from a directory, by the names that are said here")
    }
}

/// Returns the files of the image's directory `dir` whose names are `wanted`, for the directory `to` of the FAT.
fn image_files(tree: &Tree, dir: &str, to: &str, wanted: impl Fn(&str) -> bool) -> Vec<EfiFile> {
    let names = tree.names(dir).filter_map(|(name, _)| name.to_str());
    let named = names.filter(|name| wanted(name));
    let files = named.map(|name| (format!("{to}{name}"), format!("{dir}/{name}")));
    files
        .filter(|(_, path)| !dir.is_empty() && is_file(tree, path))
        .map(|(name, path)| of_image(&name, &path))
        .collect()
}

fn of_image(name: &str, path: &str) -> EfiFile {
    EfiFile {
        path: name.to_owned(),
        content: EfiContent::Image(path.to_owned()),
    }
}

fn is_file(tree: &Tree, path: &str) -> bool {
    tree.find(Path::new(path))
        .is_some_and(|found| found.node.file().is_some())
}
