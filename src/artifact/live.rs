//! `kfactory iso`: a medium that starts a live system, from CD and from USB stick, on BIOS and on UEFI.
//!
//! What firmware and initrd demand of it: the label `COS_LIVE`, the root filesystem in `/rootfs.squashfs`, kernel and initrd beside
//! GRUB's menu. The root filesystem comes last on the medium and is compressed straight to its place; everything else has a size that
//! the image's layers tell, and stands before it.

mod placed;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use kfactory_layers::metadata::Timestamp;
use kfactory_sandbox::CancelToken;

use super::boot_files::BootFiles;
use super::efi_volume::{EfiVolume, Room, serial};
use super::fat;
use super::flat::{Copies, Flat};
use super::grub::bios::{CoreSpec, Modules};
use super::grub::efi::{self, Medium};
use super::grub::menu::{LiveMenu, chain_to_live};
use super::guid::Guid;
use super::iso::{Content, Disc, FileId, Hybrid, Identifiers, IsoError, Layout, Tree};
use super::output::Output;
use super::overlay::{self, Overlay};
use super::region::{Extent, Region};
use super::squashfs::{Compressor, Squashfs, Target};
use crate::distro::Arch;
use crate::error::{Error, Result};
use placed::Placed;

/// The root filesystem's name on the medium, by which the initrd finds it.
pub(super) const SQUASHFS: &str = "rootfs.squashfs";
/// The largest root filesystem that has room for its directory records.
const MAX_SQUASHFS_BYTES: u64 = 64 << 30;
/// The label of the FAT that UEFI starts from.
const EFI_LABEL: &str = "EFI_LIVE";
/// The kernel's and the initrd's names, as the menu has them.
pub(super) const KERNEL: &str = "boot/kernel";
pub(super) const INITRD: &str = "boot/initrd";
/// Where the menu is.
const MENU: &str = "boot/grub2/grub.cfg";
/// The configuration that the agent reads.
pub(super) const CONFIG: &str = "config.yaml";

/// A medium to be made.
#[derive(Debug, Clone)]
pub struct Live<'a> {
    /// What the image's programs run on.
    pub arch: Arch,
    /// The kernel's consoles, in place of serial line and screen.
    pub console: Option<&'a str>,
    /// Kernel arguments of every entry, behind its own.
    pub cmdline: Option<&'a str>,
    /// A configuration for the installation.
    pub cloud_config: Option<&'a [u8]>,
    /// A directory whose files go onto the medium, in place of ours.
    pub overlay_iso: Option<&'a Path>,
    /// A directory whose files go onto the FAT that UEFI starts from, in place of ours.
    pub overlay_uefi: Option<&'a Path>,
    /// How the root filesystem is compressed.
    pub compressor: Compressor,
    /// The time of making, in seconds since 1970.
    pub created: i64,
    /// Threads that compress.
    pub threads: usize,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Bytes of the whole medium.
    pub size: u64,
    /// Whether it starts on a BIOS.
    pub bios: bool,
}

/// The medium with its places, and where what goes to them comes from.
struct Plan<'a> {
    layout: Layout,
    boot: BootFiles,
    kernel: FileId,
    initrd: FileId,
    squashfs: FileId,
    uefi: FileId,
    fat: EfiVolume,
    overlay: Vec<(FileId, &'a overlay::File)>,
    bios: bool,
}

impl Live<'_> {
    /// Writes the medium of `flat` to `output`, which is not finished yet.
    ///
    /// # Errors
    ///
    /// The image has no kernel, no initrd or no boot loader; a layer is damaged; the disk is full; or the user stops the run.
    pub fn write(&self, flat: &Flat<'_>, output: &Output, cancel: &CancelToken) -> Result<Made> {
        let overlay = self.overlay_iso.map(Overlay::read).transpose()?;
        let plan = self.plan(flat, overlay.as_ref());
        let plan = plan.map_err(|error| match self.overlay_iso {
            // Without one nothing of ours is in the way of anything else.
            Some(dir) => error.hint(format!(
                "`{}` may replace menus and configurations; kernel, initrd, root filesystem and boot code are the image's own",
                dir.display()
            )),
            None => error,
        })?;
        let layout = &plan.layout;
        let offset = layout.offset(plan.squashfs);
        let file = output.file().try_clone().map(Arc::new)?;
        let mut kernel = Placed::new(&file, layout.offset(plan.kernel));
        let mut initrd = Placed::new(&file, layout.offset(plan.initrd));
        placed::mark_untouched(&file)?;
        let squashfs = Squashfs::start(&Target {
            file: output.current_path(),
            offset,
            compressor: self.compressor,
            root: flat.tree.top(),
            created: self.created,
            threads: self.threads,
        })?;
        let mut copies: Copies<'_> = BTreeMap::new();
        copies.insert(plan.boot.kernel.id, &mut kernel);
        copies.insert(plan.boot.initrd.id, &mut initrd);
        squashfs.feed(cancel, |out| flat.write_tar(out, &mut copies))?;
        kernel.check()?;
        initrd.check()?;
        let written = file.metadata()?.len();
        let size = written.checked_sub(offset).filter(|size| *size > 0);
        let size =
            size.ok_or_else(|| Error::internal("the root filesystem is not in its place"))?;
        let metadata = layout.finish(size).map_err(of_disc)?;
        file.set_len(metadata.len)?;
        for piece in &metadata.pieces {
            file.write_all_at(&piece.bytes, piece.offset)?;
        }
        plan.write_fat(&file, metadata.len)?;
        for (id, source) in &plan.overlay {
            source.copy_to(&file, layout.offset(*id))?;
        }
        Ok(Made {
            size: metadata.len,
            bios: plan.bios,
        })
    }

    /// Gives everything its place.
    fn plan<'a>(&self, flat: &Flat<'_>, overlay: Option<&'a Overlay>) -> Result<Plan<'a>> {
        let boot = BootFiles::find(flat.tree)?;
        let efi = efi::plan(self.arch, Medium::Live, flat.tree, &chain_to_live())?;
        let fat = self.efi_volume(flat, &efi)?;
        let mut tree = Tree::new();
        // First what is given: ours goes where there is still room.
        let mut given = Vec::new();
        if let Some(overlay) = overlay {
            for dir in &overlay.dirs {
                tree.dir(dir.path.as_bytes(), dir.mode).map_err(of_disc)?;
            }
            for file in &overlay.files {
                let content = Content::Later(file.size);
                let id = tree.file(file.path.as_bytes(), file.mode, content);
                given.push((id.map_err(of_disc)?, file));
            }
            for (path, target) in &overlay.links {
                tree.symlink(path.as_bytes(), target.as_bytes())
                    .map_err(of_disc)?;
            }
        }
        let is_given = |path: &str| overlay.is_some_and(|overlay| overlay.has(path));
        let mut texts: Vec<(&str, String)> = vec![(MENU, self.menu()?)];
        texts.extend(efi.texts().map(|(path, text)| (path, text.to_owned())));
        for (path, text) in texts.into_iter().filter(|(path, _)| !is_given(path)) {
            let content = Content::Bytes(text.into_bytes());
            tree.file(path, 0o644, content).map_err(of_disc)?;
        }
        if let Some(config) = self.cloud_config {
            let content = Content::Bytes(config.to_vec());
            tree.file(CONFIG, 0o644, content).map_err(of_disc)?;
        }
        let mut later = |path: &str, size: u64| tree.file(path, 0o644, Content::Later(size));
        let kernel = later(KERNEL, boot.kernel.size).map_err(of_disc)?;
        let initrd = later(INITRD, boot.initrd.size).map_err(of_disc)?;
        let uefi = later("boot/uefi.img", fat.size()).map_err(of_disc)?;
        let at_most = MAX_SQUASHFS_BYTES;
        let squashfs = tree.file(SQUASHFS, 0o644, Content::Last { at_most });
        let squashfs = squashfs.map_err(of_disc)?;
        let (bios, boot_code) = self.bios(flat, &mut tree)?;
        let has_bios = bios.is_some();
        let digest = flat.image.manifest_digest();
        let name = |of: &str| Guid::of_name(Guid::URL, &format!("{digest}/{of}"));
        let disc = Disc {
            identifiers: Identifiers {
                volume: LiveMenu::new(self.arch).label,
                application: "KFACTORY".to_owned(),
                ..Identifiers::default()
            },
            time_secs: self.created,
            tree,
            bios,
            uefi: Some(uefi),
            hybrid: Some(Hybrid {
                boot_code,
                disk: name("disk"),
                iso: name("iso"),
                esp: name("esp"),
            }),
        };
        Ok(Plan {
            layout: disc.lay_out().map_err(of_disc)?,
            boot,
            kernel,
            initrd,
            squashfs,
            uefi,
            fat,
            overlay: given,
            bios: has_bios,
        })
    }

    fn menu(&self) -> Result<String> {
        let mut menu = LiveMenu::new(self.arch);
        if let Some(console) = self.console {
            menu.console = console.to_owned();
        }
        if let Some(cmdline) = self.cmdline {
            menu.cmdline = cmdline.to_owned();
        }
        menu.text()
    }

    /// Adds what starts the medium on a BIOS, where there are such machines and the image has GRUB's modules for them.
    fn bios(&self, flat: &Flat<'_>, tree: &mut Tree) -> Result<(Option<FileId>, Option<Vec<u8>>)> {
        let modules = Modules::find_opt(flat.tree).filter(|_| self.arch == Arch::Amd64);
        let Some(modules) = modules else {
            return Ok((None, None));
        };
        let image = modules.el_torito(&CoreSpec::live())?;
        let content = Content::Bytes(image);
        let image = tree
            .file("boot/eltorito.img", 0o644, content)
            .map_err(of_disc)?;
        Ok((Some(image), Some(modules.hybrid_mbr()?.to_vec())))
    }

    /// Lays out the FAT.
    fn efi_volume(&self, flat: &Flat<'_>, efi: &efi::EfiPlan) -> Result<EfiVolume> {
        let given = overlay::contents(self.overlay_uefi)?;
        let volume = fat::Volume {
            label: EFI_LABEL.to_owned(),
            serial: serial(flat.image),
            time: Timestamp::from_secs(self.created),
            kind: None,
            hidden_sectors: 0,
        };
        EfiVolume::new(volume, &efi.files, given, flat.tree, Room::Least)
    }
}

impl Plan<'_> {
    fn write_fat(&self, file: &Arc<File>, len: u64) -> io::Result<()> {
        let extent = Extent {
            start: self.layout.offset(self.uefi),
            len: self.fat.size(),
        };
        let region = Region::of_file(Arc::clone(file), len).part(&[extent])?;
        self.fat.write(&region)
    }
}

fn of_disc(error: IsoError) -> Error {
    Error::from_source(&error).context("cannot lay out the medium")
}
