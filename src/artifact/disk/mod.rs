//! `kfactory raw`: a disk that becomes an installed system when it boots first.
//!
//! ```text
//! MBR, GPT | efi COS_GRUB | bios | oem COS_OEM | recovery COS_RECOVERY     | GPT
//!            shim, GRUB     core   configs,      /cOS/recovery.img: the root
//!                                  first boot    filesystem, COS_SYSTEM
//! ```
//!
//! The first boot goes to the recovery system. It adds the partitions for the installed systems, which are not in the file, copies
//! itself there, and restarts into them. The root filesystem is written once, straight from the layers to its place.
//!
//! - [`Boot`]: which firmware starts it, and what it takes for that.
//! - `board`: images for machines that start in another way.
//! - `places`: partitions, names and GUIDs. `recovery`, `oem`: what is in two of them; `files`: small files of theirs.
//! - [`DiskSize`]: sizes as people write them.

mod board;
mod boot;
mod efi;
mod files;
mod oem;
mod places;
mod recovery;
mod size;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use kfactory_sandbox::CancelToken;

use super::boot_files::BootFiles;
use super::efi_volume::EfiVolume;
use super::ext4::{Builder, Ext4Error, Journal, Layout, Size};
use super::flat::Flat;
use super::format::Sizes;
use super::gpt::SECTOR_BYTES;
use super::grub::bios::{CoreSpec, Modules};
use super::guid::Guid;
use super::names::{DISK_MENU, OEM_LABEL};
use super::region::Region;
use crate::distro::{Arch, Model};
use crate::error::{Error, Result};
use crate::progress::bytes_text;
use crate::tree::Tree;
use files::{SmallFile, SmallFiles};
use places::{Part, Places};
use recovery::{Recovery, Stamp};
use size::MIB;

pub use boot::Boot;
pub use size::{DiskSize, NoSize};

const BIOS_BYTES: u64 = MIB;
const OEM_BYTES: u64 = 64 * MIB;
/// What the partition of the installed systems has beside three recovery partitions.
const STATE_FREE_BYTES: u64 = 100 * MIB;
/// What it has at least beside three systems: the active one, the one before it and the next, and a tenth of one for itself.
const STATE_LEAST_FREE_BYTES: u64 = 256 * MIB;
/// With less for what is kept between boots nothing works for long.
const PERSISTENT_LEAST_BYTES: u64 = 256 * MIB;

/// A disk to be made.
#[derive(Debug, Clone)]
pub struct Disk<'a> {
    /// What the image's programs run on.
    pub arch: Arch,
    /// What starts it; all that can be if not given.
    pub boot: Option<Boot>,
    /// How large it is at least.
    pub size: Option<DiskSize>,
    /// The sizes that it may have, all in whole MiB.
    pub sizes: Sizes,
    /// How large the partition of the installed systems will be.
    pub state_size: Option<DiskSize>,
    /// How large the recovery system is.
    pub recovery_size: Option<DiskSize>,
    /// The configuration of the installed system.
    pub cloud_config: Option<&'a [u8]>,
    /// A directory whose files go onto the FAT that UEFI starts from, in place of ours.
    pub overlay_uefi: Option<&'a Path>,
    /// The time of making, in seconds since 1970.
    pub created: i64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that the disk must have when it boots first.
    pub first_boot: u64,
    /// What starts it.
    pub boot: Boot,
    /// The Raspberry Pi that it is for.
    pub board: Option<Model>,
}

/// Everything with its place.
struct Plan<'a> {
    places: Places,
    efi: Option<EfiVolume>,
    bios: Option<Modules<'a>>,
    oem: (Layout, SmallFiles),
    recovery: Recovery,
    made: Made,
}

impl Disk<'_> {
    /// Writes the disk of `flat` to `file`, which is empty.
    ///
    /// # Errors
    ///
    /// The image cannot boot from a disk, or a size is too small; nothing was written then. A damaged layer, a full disk, or the user
    /// stops the run.
    pub fn write(&self, flat: &Flat<'_>, file: &File, cancel: &CancelToken) -> Result<Made> {
        let plan = self.plan(flat)?;
        file.set_len(plan.made.size).map_err(|error| {
            let size = bytes_text(plan.made.size);
            Error::from(error)
                .context(format!("making a file of {size}"))
                .hint("file systems have a largest file: name one on another with `--output`, or a smaller `--size`")
        })?;
        let disk = Region::of_file(Arc::new(file.try_clone()?), plan.made.size);
        plan.write(flat, &disk, cancel)?;
        Ok(plan.made)
    }

    /// Gives everything its place.
    fn plan<'t>(&self, flat: &Flat<'t>) -> Result<Plan<'t>> {
        let board = board::check(flat.tree)?;
        let kernel = BootFiles::find(flat.tree)?;
        let boot = boot::choose(self.boot, self.arch, flat)?;
        let digest = flat.image.manifest_digest();
        let uuid = |label: &str| Guid::of_name(Guid::URL, &format!("{digest}/{label}"));
        let stamp = Stamp {
            created: self.created,
            uuid: &uuid,
        };
        let efi = match boot.has_uefi() {
            true => Some(efi::volume(self, flat, board, kernel.version.as_deref())?),
            false if self.overlay_uefi.is_some() => return Err(efi::without_efi()),
            false => None,
        };
        let bios = match boot.has_bios() {
            true => Some(Modules::find(flat.tree)?),
            false => None,
        };
        let mut files = vec![SmallFile::new(DISK_MENU, menu(flat.tree)?)];
        if let Some(modules) = &bios {
            files.extend(boot::bios_files(modules, flat)?);
        }
        let recovery = Recovery::new(flat, self.recovery_size, files, &stamp)?;
        let mut parts = Vec::new();
        parts.extend(efi.as_ref().map(|efi| (Part::Efi, efi.size())));
        parts.extend(bios.as_ref().map(|_| (Part::Bios, BIOS_BYTES)));
        parts.push((Part::Oem, OEM_BYTES));
        parts.push((Part::Recovery, recovery.partition_bytes()));
        let mut places = Places::new(&parts);
        let state = self.state_size(&recovery)?;
        let first_boot = places.size() + state.bytes() + PERSISTENT_LEAST_BYTES;
        if first_boot > DiskSize::MOST {
            let first_boot = bytes_text(first_boot);
            return Err(Error::user(format!(
                "with such partitions the disk would need {first_boot} when it boots first, and none has more than 1 PiB"
            ))
            .hint("`--state-size` takes less"));
        }
        let size = self.whole_size(places.size(), first_boot)?;
        places.grow(size);
        Ok(Plan {
            places,
            efi,
            bios,
            oem: self.oem(state, &stamp)?,
            recovery,
            made: Made {
                size,
                first_boot,
                boot,
                board,
            },
        })
    }

    /// Returns the size of the disk, of which `least` bytes are taken, and which must have `first_boot` when it boots first.
    fn whole_size(&self, least: u64, first_boot: u64) -> Result<u64> {
        let wanted = self.size.map_or(least, DiskSize::bytes);
        if wanted < least {
            let (wanted, least) = (DiskSize::for_bytes(wanted), DiskSize::for_bytes(least));
            return Err(Error::user(format!(
                "a disk of {wanted} has no room for the partitions of the image, which take {least}"
            ))
            .hint(format!(
                "`--size {}` is enough for the installed system, too; {least} is for a disk that gets larger before it boots",
                DiskSize::for_bytes(first_boot)
            )));
        }
        let whole = wanted.next_multiple_of(self.sizes.step);
        match self.sizes.most {
            Some(most) if whole > most => Err(Error::user(format!(
                "a disk of {} is larger than {}, the most that its format takes",
                DiskSize::for_bytes(whole),
                DiskSize::for_bytes(most)
            ))
            .hint("`--format raw` and `--format qcow2` take any")),
            _ => Ok(whole),
        }
    }

    /// Returns the size of the partition that the first boot makes.
    fn state_size(&self, recovery: &Recovery) -> Result<DiskSize> {
        let usual = 3 * recovery.partition_bytes() + STATE_FREE_BYTES;
        let system = recovery.system_bytes();
        let least = DiskSize::for_bytes(3 * system + system / 10 + STATE_LEAST_FREE_BYTES);
        match self.state_size {
            None => Ok(DiskSize::for_bytes(usual)),
            Some(size) if size >= least => Ok(size),
            Some(size) => Err(Error::user(format!(
                "a state partition of {size} has no room for the installed system, the one before it and an upgrade, each of {}",
                DiskSize::for_bytes(system)
            ))
            .hint(format!("`--state-size {least}` is the least that does"))),
        }
    }

    fn oem(&self, state: DiskSize, stamp: &Stamp<'_>) -> Result<(Layout, SmallFiles)> {
        let volume = stamp.volume(OEM_LABEL, Size::Exact(OEM_BYTES), Journal::Usual);
        let files = oem::files(self.cloud_config, state);
        let laid_out = || {
            let mut builder = Builder::new(volume);
            let files = SmallFiles::declare(&mut builder, files, self.created)?;
            Ok((builder.layout()?, files))
        };
        laid_out().map_err(|error: Ext4Error| {
            Error::from_source(&error).context("cannot lay out the partition with configurations")
        })
    }
}

impl Plan<'_> {
    fn write(&self, flat: &Flat<'_>, disk: &Region, cancel: &CancelToken) -> Result<()> {
        let part = |part| -> Result<Region> {
            let (_, extent) = self.place(part)?;
            Ok(disk.part(&[extent])?)
        };
        let mut boot_code = Vec::new();
        if let Some(modules) = &self.bios {
            let (recovery, _) = self.place(Part::Recovery)?;
            let (_, extent) = self.place(Part::Bios)?;
            let lba = extent.start / SECTOR_BYTES;
            let core = modules.core(&CoreSpec::disk(recovery))?;
            disk.part(&[extent])?.write_all_at(&core.at(lba), 0)?;
            boot_code = modules.mbr_code(lba)?.to_vec();
        }
        let table = self.places.table();
        // The first boot adds partitions to the GPT; its go-diskfs leaves an MBR alone that is not the protective one.
        let written = match self.made.board.and(self.places.partition(Part::Efi)) {
            Some(efi) => table.write_hybrid(efi, disk),
            None => table.write(&boot_code, disk),
        };
        written.map_err(|error| Error::from_source(&error))?;
        if let Some(efi) = &self.efi {
            efi.write(&part(Part::Efi)?)?;
        }
        let (layout, files) = &self.oem;
        let oem = part(Part::Oem)?;
        layout.write(&oem)?;
        files.write(layout, &oem)?;
        self.recovery.write(&part(Part::Recovery)?, flat, cancel)
    }

    fn place(&self, part: Part) -> Result<(u32, super::region::Extent)> {
        let found = self.places.find(part);
        found.ok_or_else(|| Error::internal(format!("the disk has no partition {part:?}")))
    }
}

/// Reads the image's menu.
fn menu(tree: &Tree) -> Result<Vec<u8>> {
    tree.read(DISK_MENU)?.ok_or_else(|| {
        Error::user(format!(
            "the image has no boot menu: /{DISK_MENU} leads to no file"
        ))
        .hint("`kfactory convert` makes it; `kfactory validate` tells what else is missing")
    })
}
