//! An ISO 9660 medium: its trees, what firmware starts of it, and what the menu starts then.

use std::collections::BTreeSet;

use kfactory_sandbox::CancelToken;

use super::boot::{self, BootFile};
use super::grub_menu::{self, Start};
use super::rule::{Report, telling};
use super::{efi, firmware, rules, squashfs};
use crate::artifact::iso::reader::{self, Entry, Image, Kind, Volume};
use crate::artifact::region::{Extent, Region};
use crate::error::{Context as _, Result};

/// The label that Kairos' tools give every live medium.
const LABEL: &str = "COS_LIVE";
/// Where menus are, the one that starts first at the top.
const MENUS: [&str; 2] = ["boot/grub2/grub.cfg", "boot/grub/grub.cfg"];
const MAX_MENU_BYTES: u64 = 1 << 20;
/// What upstream's media have, for those whose menu does not tell.
const KERNEL: &str = "boot/kernel";
const INITRD: &str = "boot/initrd";
const SQUASHFS: &str = "rootfs.squashfs";
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
    report.hold(&rules::STRUCTURE);
    let medium = Medium {
        disc: disc.clone(),
        image,
    };
    trees(report, &medium.image);
    label(report, &medium.image);
    firmware::bios(report, &medium);
    let uefi = firmware::uefi(report, &medium)?;
    firmware::partitions(report, &medium);
    let starts = menu(report, &medium)?;
    let squashfs = root(report, &medium, &starts);
    for path in squashfs {
        if let Some(entry) = medium.file(&path) {
            squashfs::check(report, &path, &medium.content(entry)?)?;
        }
    }
    let mut arch = None;
    for (kernel, initrds) in pairs(report, &medium, &starts) {
        let kernel_content = medium.content(kernel.1)?;
        let contents = initrds.iter().map(|it| medium.content(it.1));
        let contents = contents.collect::<Result<Vec<Region>>>()?;
        let initrds: Vec<BootFile<'_>> = initrds
            .iter()
            .zip(&contents)
            .map(|((path, _), content)| BootFile { path, content })
            .collect();
        let kernel = BootFile {
            path: &kernel.0,
            content: &kernel_content,
        };
        arch = boot::check(report, &kernel, &initrds, boot::LIVE, stop)?.or(arch);
    }
    if let Some((path, region)) = uefi {
        efi::check(report, &path, region, arch)?;
    }
    Ok(())
}

/// Both trees must lead to the same bytes. Their names may differ: Joliet's are shorter, and without links.
fn trees(report: &mut Report, image: &Image) {
    let mut held = report.hold(&rules::TREES);
    let Some(joliet) = &image.joliet else {
        return;
    };
    let places = |volume: &Volume| -> BTreeSet<(u64, u64)> {
        let entries = volume.entries.iter().flat_map(|entry| extents(entry));
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
    if label != LABEL {
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
            starts.extend(grub_menu::starts(&medium.text(entry)?));
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
                "the menu names it as the root filesystem, and it is not there",
            );
        }
    }
    if found.is_empty() && medium.file(SQUASHFS).is_some() {
        found.insert(SQUASHFS.to_owned());
    }
    found
}

type Named<'a> = (String, &'a Entry);

/// Returns the kernels with their initrds, each pair once.
fn pairs<'a>(
    report: &mut Report,
    medium: &'a Medium,
    starts: &[Start],
) -> Vec<(Named<'a>, Vec<Named<'a>>)> {
    let mut names: BTreeSet<(String, Vec<String>)> = BTreeSet::new();
    for start in starts {
        if let Some(kernel) = &start.kernel {
            names.insert((kernel.clone(), start.initrds.clone()));
        }
    }
    if names.is_empty() {
        names.insert((KERNEL.to_owned(), vec![INITRD.to_owned()]));
    }
    let mut held = report.hold(&rules::MENU_FILES);
    let mut find = |path: String| -> Option<Named<'a>> {
        match medium.file(&path) {
            Some(entry) => Some((path, entry)),
            None => {
                held.at(&path, "the menu names it, and it is not there");
                None
            }
        }
    };
    let mut pairs = Vec::new();
    for (kernel, initrds) in names.into_iter().take(MAX_PAIRS) {
        let kernel = find(kernel);
        let initrds: Vec<Named<'a>> = initrds.into_iter().filter_map(&mut find).collect();
        pairs.extend(kernel.map(|kernel| (kernel, initrds)));
    }
    pairs
}
