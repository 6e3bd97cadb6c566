//! The file system with the recovery system, which is a file system in a file of it: its menu, its kernel, and the way to it.

use std::collections::BTreeSet;
use std::io;

use kfactory_sandbox::CancelToken;

use super::boot::{self, BootFile, Way};
use super::disk;
use super::ext4::{Ext4, Opened};
use super::grub_menu::{Menu, Search};
use super::root::Lack;
use super::rule::{Report, blame};
use super::targets::{self, There};
use super::{root, rules};
use crate::artifact::board;
use crate::artifact::names::{
    BIOS_CHAIN as CHAIN, DISK_MENU as MENU, RECOVERY_IMAGE as IMAGE, SYSTEM_LABEL,
};
use crate::distro::Model;
use crate::error::Result;
use crate::kairos::release::RELEASE_PATH;
use crate::validate::kernel_image::KernelImage;

const PART: &str = "recovery";
/// Another form of the recovery system, which is not looked into here.
const SQUASHFS: &str = "cOS/recovery.squashfs";
/// What the menu takes the kernel's arguments from, in the recovery system.
const ARGUMENTS: &str = "etc/cos/bootargs.cfg";
const KERNEL: &str = "/boot/vmlinuz";
const INITRD: &str = "/boot/initrd";
const MAX_TEXT: usize = 1 << 20;
/// More kernels than this are not looked into.
const MAX_PAIRS: usize = 4;

/// The partition.
pub(super) struct Recovery {
    volume: Ext4,
    /// Its menu; none where there is none.
    menu: Option<String>,
}

impl Recovery {
    pub(super) fn new(volume: Ext4) -> Self {
        let menu = volume.text(MENU, MAX_TEXT).ok().and_then(Result::ok);
        Self { volume, menu }
    }

    /// Returns the words of the menu.
    pub(super) fn menu(&self) -> &str {
        self.menu.as_deref().unwrap_or_default()
    }

    /// Tells whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        matches!(self.volume.file(path), Ok(Some(_)))
    }

    /// Returns the board that the recovery system says it is for; none where it cannot be asked.
    pub(super) fn board(&self) -> Option<Model> {
        let Opened::Read(image) = self.volume.within(IMAGE).ok().flatten()? else {
            return None;
        };
        let text = image.text(RELEASE_PATH, MAX_TEXT).ok()?.ok()?;
        board::of_release(&text)
    }

    /// Checks the recovery system, and returns what its kernel says of itself.
    pub(super) fn check(
        &self,
        report: &mut Report,
        stop: Option<&CancelToken>,
    ) -> Result<Option<KernelImage>> {
        match self.read(report, stop) {
            Err(error) => {
                report.hold(&rules::FILE_SYSTEM).at(PART, blame(error)?);
                Ok(None)
            }
            Ok(kernel) => Ok(kernel),
        }
    }

    fn read(
        &self,
        report: &mut Report,
        stop: Option<&CancelToken>,
    ) -> io::Result<Option<KernelImage>> {
        let menu = self.volume.text(MENU, MAX_TEXT)?;
        let starts = Menu::read(menu.as_deref().unwrap_or_default()).starts();
        let mut held = report.hold(&rules::RECOVERY_FILES);
        if let Err(lack) = menu {
            held.at(PART, lack.of(MENU));
        } else {
            let mut held = report.hold(&rules::MENU);
            if starts.is_empty() {
                held.at(PART, format!("/{MENU} starts no kernel"));
            }
        }
        let image = match self.volume.within(IMAGE) {
            Ok(Some(image)) => image,
            Ok(None) if self.has(SQUASHFS) => {
                let mut held = report.hold(&rules::ROOT_UNREAD);
                held.at(SQUASHFS, "a recovery system of this form is not read here");
                return Ok(None);
            }
            Ok(None) => {
                let mut held = report.hold(&rules::RECOVERY_FILES);
                held.at(PART, Lack::Missing.of(IMAGE));
                return Ok(None);
            }
            Err(error) => {
                let why = blame(error).map_err(io::Error::other)?;
                report.hold(&rules::FILE_SYSTEM).at(IMAGE, why);
                return Ok(None);
            }
        };
        disk::label(report, IMAGE, &image.label(), SYSTEM_LABEL, &mut Vec::new());
        let Some(image) = image.look_into(report, IMAGE) else {
            return Ok(None);
        };
        self.arguments(report, &image)?;
        let mut names: BTreeSet<(String, Vec<String>)> = starts
            .into_iter()
            .filter_map(|start| Some((start.kernel?, start.initrds)))
            .collect();
        if names.is_empty() {
            names.insert((KERNEL.to_owned(), vec![INITRD.to_owned()]));
        }
        let mut kernel = None;
        for (path, initrds) in names.into_iter().take(MAX_PAIRS) {
            let found = pair(report, &image, path, initrds, stop)?;
            kernel = kernel.or(found);
        }
        root::check(report, IMAGE, &mut image.clone(), kernel.as_ref())?;
        Ok(kernel)
    }

    /// Checks that the initrd will find the root filesystem: by its label, in this file.
    fn arguments(&self, report: &mut Report, image: &Ext4) -> io::Result<()> {
        let arguments = image.text(ARGUMENTS, MAX_TEXT)?;
        let text = [self.menu(), arguments.as_deref().unwrap_or_default()].concat();
        let mut held = report.hold(&rules::MENU_ROOT);
        if let Err(lack) = arguments
            && self.menu().contains(ARGUMENTS)
        {
            let lack = lack.of(ARGUMENTS);
            held.at(IMAGE, format!("{lack}; the menu reads it"));
        }
        for (wanted, what) in [
            (image.label(), "label of the recovery system"),
            (IMAGE.to_owned(), "file that it is in"),
            (
                "cos-img/filename=".to_owned(),
                "argument that tells the initrd which file",
            ),
        ] {
            if !text.contains(&wanted) {
                held.at(PART, format!("the menu does not name the {what}: {wanted}"));
            }
        }
        Ok(())
    }

    /// Checks the way to the menu on machines with BIOS.
    pub(super) fn check_chain(&self, report: &mut Report, there: &There<'_>) -> Result<()> {
        let mut held = report.hold(&rules::RECOVERY_FILES);
        match self.volume.text(CHAIN, MAX_TEXT) {
            Ok(Ok(text)) => targets::check(report, PART, CHAIN, &Menu::read(&text), there),
            Ok(Err(lack)) => {
                let lack = lack.of(CHAIN);
                held.at(
                    PART,
                    format!("{lack}; GRUB looks there on machines with BIOS"),
                );
            }
            Err(error) => report.hold(&rules::FILE_SYSTEM).at(CHAIN, blame(error)?),
        }
        Ok(())
    }

    /// Checks that the devices of the menu are there, or will be after the first boot.
    pub(super) fn check_labels(&self, report: &mut Report, labels: &[String]) {
        let mut held = report.hold(&rules::MENU_TARGET);
        // Files are looked for that need not be there.
        for search in Menu::read(self.menu()).searches() {
            if let Search::Label(label) = search
                && !labels.contains(&label)
            {
                held.at(
                    PART,
                    format!("/{MENU} looks for the label {label}, which nothing here has"),
                );
            }
        }
    }
}

/// Checks a kernel of the recovery system with its initrds.
fn pair(
    report: &mut Report,
    image: &Ext4,
    kernel: String,
    initrds: Vec<String>,
    stop: Option<&CancelToken>,
) -> io::Result<Option<KernelImage>> {
    let mut find = |path: String| -> io::Result<Option<BootFile<'static>>> {
        let found = image.file(&path)?;
        let path = format!("{IMAGE}{path}");
        let mut held = report.hold(&rules::MENU_FILES);
        let Some(file) = found else {
            held.at(&path, "it is to be booted, and it is not there");
            return Ok(None);
        };
        let content = Box::new(file);
        Ok(Some(BootFile { path, content }))
    };
    let kernel = find(kernel)?;
    let mut all = Vec::new();
    for path in initrds {
        all.extend(find(path)?);
    }
    match kernel {
        Some(kernel) => boot::check(report, kernel, all, Way::Disk, stop).map_err(io::Error::other),
        None => Ok(None),
    }
}
