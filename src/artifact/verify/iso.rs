//! An ISO 9660 medium: its trees, what firmware starts of it, and what the menu starts then.

use std::collections::BTreeSet;

use kfactory_sandbox::CancelToken;

use super::boot::{self, BootFile, Way};
use super::efi::Efi;
use super::grub_menu::{Menu, Start};
use super::rule::{Report, telling};
use super::targets::There;
use super::{efi, firmware, rules, squashfs, targets};
use crate::artifact::iso::reader::{self, Entry, Image, Kind, Volume};
use crate::artifact::live::{INITRD, KERNEL, SQUASHFS};
use crate::artifact::names::LIVE_LABEL;
use crate::artifact::region::{Extent, Region};
use crate::error::{Context as _, Error, Result};

/// The label of media for Trusted Boot, which have EFI programs of kernel and initrd (UKI) in place of menu and root filesystem.
const UKI_LABEL: &str = "UKI_ISO_INSTALL";
/// Where menus are, the one that starts first at the top.
const MENUS: [&str; 2] = ["boot/grub2/grub.cfg", "boot/grub/grub.cfg"];
const MAX_MENU_BYTES: u64 = 1 << 20;
/// Where dracut looks, if it is not told (`dmsquash-live-root`).
const LIVE_DIR: &str = "LiveOS";
const LIVE_IMAGE: &str = "squashfs.img";
/// More kernels than this on one medium are not looked into.
const MAX_PAIRS: usize = 8;

/// A medium that could be read.
pub(super) struct Medium {
    pub(super) disc: Region,
    pub(super) image: Image,
}

impl Medium {
    /// Returns the file at `path`, whichever slashes it has; none for anything else.
    pub(super) fn file(&self, path: &str) -> Option<&Entry> {
        let parts = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        let path = parts.collect::<Vec<_>>().join("/");
        let entry = self.image.primary.entry(path)?;
        matches!(entry.kind, Kind::File(_)).then_some(entry)
    }

    fn content(&self, entry: &Entry) -> Result<Region> {
        Ok(self.disc.part(extents(entry))?)
    }

    fn text(&self, entry: &Entry) -> Result<String> {
        let content = self.content(entry)?;
        let mut bytes = vec![0; content.len().min(MAX_MENU_BYTES) as usize];
        content.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Returns where a file is; nowhere for anything else.
pub(super) fn extents(entry: &Entry) -> &[Extent] {
    match &entry.kind {
        Kind::File(extents) => extents,
        _ => &[],
    }
}

/// Checks the medium in `disc`.
pub(super) fn check(report: &mut Report, disc: &Region, stop: Option<&CancelToken>) -> Result<()> {
    let image = match reader::read(disc) {
        Ok(image) => image,
        Err(reader::ReadError::Io(error)) => return Err(error).context(|| "reading it".to_owned()),
        Err(error) => {
            report.hold(&rules::STRUCTURE).add(telling(&error));
            return Ok(());
        }
    };
    if image.primary.identifiers.volume == UKI_LABEL {
        let error = Error::user("it is a medium for Trusted Boot (UKI), which is not read here");
        return Err(error
            .hint("`ukify inspect FILE` and `sbverify --list FILE` show the EFI programs on it"));
    }
    report.hold(&rules::STRUCTURE);
    let medium = Medium {
        disc: disc.clone(),
        image,
    };
    trees(report, &medium.image);
    label(report, &medium.image);
    firmware::bios(report, &medium);
    let uefi = firmware::uefi(report, &medium)?;
    firmware::partitions(report, &medium)?;
    let starts = menu(report, &medium)?;
    let roots = root(report, &medium, &starts);
    let mut kernel = None;
    for (path, entry, initrds) in pairs(report, &medium, &starts) {
        let file = |(path, entry): Named<'_>| -> Result<BootFile<'static>> {
            let content = Box::new(medium.content(entry)?.reader());
            Ok(BootFile { path, content })
        };
        let initrds = initrds.into_iter().map(file).collect::<Result<_>>()?;
        let found = boot::check(report, file((path, entry))?, initrds, Way::Live, stop)?;
        kernel = kernel.or(found);
    }
    for path in roots {
        if let Some(entry) = medium.file(&path) {
            squashfs::check(report, &path, &medium.content(entry)?, kernel.as_ref())?;
        }
    }
    if let Some((path, region)) = uefi {
        let arch = kernel.and_then(|kernel| kernel.arch);
        if let Some(efi) = efi::check(report, &path, region, arch, None)? {
            uefi_menus(report, &medium, &path, &efi);
        }
    }
    Ok(())
}

/// Checks that what UEFI starts finds the menu.
fn uefi_menus(report: &mut Report, medium: &Medium, path: &str, efi: &Efi) {
    let label = &medium.image.primary.identifiers.volume;
    let there = There {
        has_file: &|path| medium.file(path).is_some() || efi.has_menu(path),
        labels: &[label.clone(), efi.label.clone()],
    };
    for (name, menu) in &efi.menus {
        targets::check(report, path, name, menu, &there);
    }
}

/// Both trees must lead to the same bytes. Their names may differ: Joliet's are shorter, and without links.
fn trees(report: &mut Report, image: &Image) {
    let mut held = report.hold(&rules::TREES);
    let Some(joliet) = &image.joliet else {
        return;
    };
    let places = |volume: &Volume| -> BTreeSet<(u64, u64)> {
        let entries = volume.entries.iter().flat_map(extents);
        let used = entries.filter(|extent| extent.len > 0);
        used.map(|extent| (extent.start, extent.len)).collect()
    };
    for (volume, other, name) in [
        (&image.primary, joliet, "Joliet"),
        (joliet, &image.primary, "other"),
    ] {
        let there = places(other);
        for entry in &volume.entries {
            let mut parts = extents(entry).iter().filter(|extent| extent.len > 0);
            if parts.any(|extent| !there.contains(&(extent.start, extent.len))) {
                let path = String::from_utf8_lossy(&entry.path);
                held.at(
                    &path,
                    format!("the {name} tree has nothing with these bytes"),
                );
            }
        }
    }
}

fn label(report: &mut Report, image: &Image) {
    let label = &image.primary.identifiers.volume;
    report.fact("label", label.as_str());
    let mut held = report.hold(&rules::LABEL);
    if label != LIVE_LABEL {
        held.add(format!("its label is {label:?}"));
    }
}

/// Returns what the menus start.
fn menu(report: &mut Report, medium: &Medium) -> Result<Vec<Start>> {
    let mut starts = Vec::new();
    let mut has_menu = false;
    for path in MENUS {
        if let Some(entry) = medium.file(path) {
            has_menu = true;
            starts.extend(Menu::read(&medium.text(entry)?).starts());
        }
    }
    let mut held = report.hold(&rules::MENU);
    if !has_menu {
        held.add(format!("there is none of {}", MENUS.join(" and ")));
    } else if starts.is_empty() {
        held.add("its menu starts no kernel");
    }
    Ok(starts)
}

/// Holds the kernel arguments against the medium, and returns the root filesystems that are on it.
fn root(report: &mut Report, medium: &Medium, starts: &[Start]) -> BTreeSet<String> {
    let label = &medium.image.primary.identifiers.volume;
    let mut found = BTreeSet::new();
    for start in starts {
        let mut held = report.hold(&rules::MENU_ROOT);
        match start.arg("root") {
            None => held.add("an entry has no `root=`"),
            Some(root) if root.contains('$') => {}
            Some(root) => {
                let wanted = ["live:CDLABEL=", "live:LABEL="];
                match wanted.iter().find_map(|it| root.strip_prefix(it)) {
                    Some(found) if found == label => {}
                    Some(_) => held.add(format!(
                        "an entry has `root={root}`, the label is {label:?}"
                    )),
                    None => held.add(format!(
                        "an entry has `root={root}`, which is not on this medium"
                    )),
                }
            }
        }
        let mut held = report.hold(&rules::MENU_ARGUMENTS);
        for word in ["cdroot", "rd.live.overlay.overlayfs"] {
            let is_set = start.has(word) || start.arg(word).is_some();
            if !is_set && start.arg("rd.overlay").is_none() {
                held.add(format!("an entry lacks `{word}`"));
            }
        }
        if !start
            .arg("root")
            .is_some_and(|root| root.starts_with("live:"))
        {
            continue;
        }
        let dir = start.arg("rd.live.dir").unwrap_or(LIVE_DIR);
        let image = start.arg("rd.live.squashimg").unwrap_or(LIVE_IMAGE);
        let path = format!("{dir}/{image}");
        let path = path.trim_start_matches('/').to_owned();
        let mut held = report.hold(&rules::MENU_SQUASHFS);
        if medium.file(&path).is_some() {
            found.insert(path);
        } else if !path.contains('$') {
            held.at(
                &path,
                "an entry has it as the root filesystem, and it is not there",
            );
        }
    }
    if found.is_empty() && medium.file(SQUASHFS).is_some() {
        found.insert(SQUASHFS.to_owned());
    }
    found
}

type Named<'a> = (String, &'a Entry);
/// A kernel with its initrds.
type Pair<'a> = (String, &'a Entry, Vec<Named<'a>>);

/// Returns the kernels with their initrds, each pair once.
fn pairs<'a>(report: &mut Report, medium: &'a Medium, starts: &[Start]) -> Vec<Pair<'a>> {
    let mut names: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    for start in starts {
        if let Some(kernel) = &start.kernel {
            names.insert((kernel.clone(), start.initrds.clone()));
        }
    }
    if names.is_empty() && medium.file(KERNEL).is_some() {
        names.insert((KERNEL.to_owned(), vec![INITRD.to_owned()]));
    }
    let mut pairs = Vec::new();
    let mut find = |path: String| -> Option<Named<'a>> {
        let mut held = report.hold(&rules::MENU_FILES);
        match medium.file(&path) {
            Some(entry) => Some((path, entry)),
            None => {
                held.at(&path, "it is to be booted, and it is not there");
                None
            }
        }
    };
    for (kernel, initrds) in names.into_iter().take(MAX_PAIRS) {
        let kernel = find(kernel);
        let initrds: Vec<Named<'a>> = initrds.into_iter().filter_map(&mut find).collect();
        pairs.extend(kernel.map(|(path, entry)| (path, entry, initrds)));
    }
    pairs
}
