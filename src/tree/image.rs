//! A tree from the layers of an image, read one after the other without writing any of their files.

use std::collections::{HashSet, btree_map};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use kfactory_layers::apply::{ApplyError, clean_path, link_target, meaning};
use kfactory_layers::digest::{Digest, Hasher};
use kfactory_layers::image::Image;
use kfactory_layers::limits;
use kfactory_layers::metadata::{Entry, EntryKind, Xattrs};
use kfactory_layers::tar::ArchiveReader;
use kfactory_layers::whiteout::Special;

use rustix::io::Errno;

use super::{Content, FileNode, Kind, MAX_LINKS, Names, Node, Source, Tree};
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::printable::counted;
use crate::progress::bytes_text;
use crate::store::Store;

/// The largest distribution images hold some 400 000 names.
const MAX_ENTRIES: u64 = 4_000_000;
/// Each takes two kilobytes as soon as something is in it, and one entry may imply hundreds.
const MAX_DIRECTORIES: u64 = 500_000;
/// What all extended attributes may take, in bytes: labels of SELinux on every file take a tenth.
const MAX_XATTR_BYTES: usize = 256 << 20;
/// The most that is kept of an image's files: programs, kernels and initrds have some gigabytes.
const MAX_KEPT_BYTES: u64 = 16 << 30;

/// What is to be known of the files' contents.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Tells by the path, without a leading slash, whether a file can be read afterwards.
    pub kept: fn(&Path) -> bool,
    /// Whether every file's digest is computed.
    pub digests: bool,
}

/// Reads every layer of `image`, whose blobs are in `store`.
///
/// Every blob is checked against its digest and size, and what it unpacks to against its diff ID.
///
/// # Errors
///
/// A damaged layer, more entries, directories or attributes than any system has, or no room for the contents that are wanted, of
/// which there may be 16 GiB.
pub fn of_image(image: &Image, store: &Store, wanted: Wanted) -> Result<Tree> {
    Reading::beside(store, wanted)?.layers(image, store, 0)
}

/// Returns `tree` with what the last layer of `image` changes; the others are those that [`of_image`] made the tree of.
///
/// # Errors
///
/// As for [`of_image`].
pub fn with_last_layer(tree: Tree, image: &Image, store: &Store, wanted: Wanted) -> Result<Tree> {
    let Source::Kept(kept) = tree.source else {
        return Err(Error::internal("the tree was not made of an image"));
    };
    let mut reading = Reading::new(kept, wanted);
    reading.top = tree.top;
    reading.kept_bytes = reading.kept.metadata()?.len();
    reading.layers(image, store, image.layers().len().saturating_sub(1))
}

/// Reads a root filesystem in an archive, of which nothing else than the contents that are wanted is written, beside `store`.
///
/// # Errors
///
/// The archive cannot be read or was cut off, holds more than four million entries, or no room for the contents that are wanted.
pub fn of_archive(input: impl io::Read, store: &Store, wanted: Wanted) -> Result<Tree> {
    let mut reading = Reading::beside(store, wanted)?;
    let mut archive = ArchiveReader::new(input);
    reading.layer(0, &mut archive)?;
    check_end(reading.entries, &archive)?;
    Ok(reading.finish())
}

/// Checks the end of an archive of so many `entries`: one that was cut off, or is none, must not count as a root filesystem.
///
/// # Errors
///
/// It holds nothing, or has no end mark.
pub fn check_end(entries: u64, archive: &ArchiveReader<impl io::Read>) -> Result<()> {
    match (entries, archive.has_end_mark()) {
        (0, _) => Err(Error::user("the archive holds nothing")
            .hint("write it again; `tar -tf FILE` lists what an archive holds")),
        (_, false) => Err(Error::user(format!(
            "the archive has no end mark after its {}: it was cut off",
            counted(entries, "entry")
        ))
        .hint("copy or write it again")),
        (_, true) => Ok(()),
    }
}

struct Reading {
    top: Node,
    kept: File,
    kept_bytes: u64,
    next_id: u64,
    entries: u64,
    directories: u64,
    xattr_bytes: usize,
    /// What whiteouts of the layer have hidden: names, and directories in which everything is hidden (`true`).
    hidden: HashSet<(PathBuf, bool)>,
    wanted: Wanted,
}

impl Reading {
    fn beside(store: &Store, wanted: Wanted) -> Result<Self> {
        let kept = tempfile::tempfile_in(store.dir())
            .context(|| format!("making a file in {}", store.dir().display()))?;
        Ok(Self::new(kept, wanted))
    }

    fn new(kept: File, wanted: Wanted) -> Self {
        Self {
            top: Node::directory(0),
            kept,
            kept_bytes: 0,
            next_id: 0,
            entries: 0,
            directories: 0,
            xattr_bytes: 0,
            hidden: HashSet::new(),
            wanted,
        }
    }

    fn finish(self) -> Tree {
        Tree {
            top: self.top,
            source: Source::Kept(self.kept),
        }
    }

    /// Reads the layers of `image` from the one with the index `first` on.
    fn layers(mut self, image: &Image, store: &Store, first: usize) -> Result<Tree> {
        let total = image.layers().len();
        let layers = image.layers().iter().zip(image.diff_ids()).enumerate();
        for (index, (layer, diff_id)) in layers.skip(first) {
            let doing = || format!("reading layer {} of {total} ({})", index + 1, layer.digest);
            let mut changeset = Changeset::open(store, layer, *diff_id, None).context(doing)?;
            self.next_id = super::first_id(index);
            self.layer(index, &mut ArchiveReader::new(&mut changeset))
                .context(doing)?;
            changeset.finish().context(doing)?;
        }
        Ok(self.finish())
    }

    fn layer<R: io::Read>(&mut self, layer: usize, archive: &mut ArchiveReader<R>) -> Result<()> {
        self.hidden.clear();
        while let Some(entry) = archive
            .next_entry()
            .map_err(|error| Error::from_source(&error))?
        {
            count(&mut self.entries, MAX_ENTRIES, "entries")?;
            self.entry(layer, entry, archive)?;
        }
        Ok(())
    }

    fn entry<R: io::Read>(
        &mut self,
        layer: usize,
        entry: Entry,
        archive: &mut ArchiveReader<R>,
    ) -> Result<()> {
        let path = clean_path(&entry).map_err(refused)?;
        let special = meaning(&path, &entry).map_err(refused)?;
        let Some((parents, name)) = split(&path) else {
            // The root itself.
            set_metadata(&mut self.top, &entry, layer);
            return Ok(());
        };
        match special {
            Special::None => {}
            Special::Whiteout(hidden) => {
                let dir = self.resolve(&parents);
                // Once is enough, and looking through a large directory for every entry would be too much.
                if self.hidden.insert((place(&dir).join(hidden), false))
                    && let Some(names) = self.dir_opt(&dir)
                    && names.get_mut(hidden).is_some_and(|node| hide(node, layer))
                {
                    names.remove(hidden);
                }
                return Ok(());
            }
            Special::Opaque => {
                let dir = self.resolve(&parents);
                if self.hidden.insert((place(&dir), true))
                    && let Some(names) = self.dir_opt(&dir)
                {
                    hide_content(names, layer);
                }
                return Ok(());
            }
            Special::Ignored => return Ok(()),
        }
        let kind = self.kind(&path, &entry, archive)?;
        self.count_xattrs(&entry.xattrs)?;
        let names = self.dir(&parents, &name, layer)?;
        let made =
            entry.kind == EntryKind::Directory && !names.get(&name).is_some_and(Node::is_dir);
        let slot = names.entry(name).or_insert_with(|| Node::directory(layer));
        match (kind, &slot.kind) {
            // A directory keeps what it holds.
            (Kind::Directory(_), Kind::Directory(_)) => {}
            (kind, _) => slot.kind = kind,
        }
        set_metadata(slot, &entry, layer);
        if made {
            count(&mut self.directories, MAX_DIRECTORIES, "directories")?;
        }
        Ok(())
    }

    fn count_xattrs(&mut self, xattrs: &Xattrs) -> Result<()> {
        let bytes = xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.xattr_bytes = self.xattr_bytes.saturating_add(bytes.sum());
        if self.xattr_bytes > MAX_XATTR_BYTES {
            let most = MAX_XATTR_BYTES >> 20;
            return Err(Error::user(format!(
                "the image's extended attributes take more than {most} MiB"
            )));
        }
        Ok(())
    }

    fn kind<R: io::Read>(
        &mut self,
        path: &Path,
        entry: &Entry,
        archive: &mut ArchiveReader<R>,
    ) -> Result<Kind> {
        Ok(match &entry.kind {
            EntryKind::Directory => Kind::Directory(Names::new()),
            EntryKind::Symlink { target } => Kind::Symlink(target.clone()),
            EntryKind::CharDevice(device) => Kind::CharDevice(*device),
            EntryKind::BlockDevice(device) => Kind::BlockDevice(*device),
            EntryKind::Fifo => Kind::Pipe,
            EntryKind::HardLink { target } => self.hard_link(path, target, entry)?,
            EntryKind::File { size } => {
                let id = self.next_id;
                self.next_id += 1;
                let (content, digest) = self.content(path, *size, archive)?;
                Kind::File(FileNode {
                    size: *size,
                    id,
                    digest,
                    content,
                })
            }
        })
    }

    /// Keeps and hashes a file's content, as far as it is wanted.
    fn content<R: io::Read>(
        &mut self,
        path: &Path,
        size: u64,
        archive: &mut ArchiveReader<R>,
    ) -> Result<(Content, Option<Digest>)> {
        let keep = (self.wanted.kept)(path);
        if keep && size > MAX_KEPT_BYTES - self.kept_bytes {
            return Err(Error::user(format!(
                "{path:?} has {}: with it, more than {} of files are to be read",
                bytes_text(size),
                bytes_text(MAX_KEPT_BYTES)
            )));
        }
        if !keep && !self.wanted.digests {
            return Ok((Content::Dropped, None));
        }
        let mut hasher = Hasher::new();
        let mut content = archive.content(size);
        let mut buffer = vec![0; 1 << 16];
        let start = self.kept_bytes;
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if keep {
                self.kept.write_all(&buffer[..count])?;
                self.kept_bytes += count as u64;
            }
            if self.wanted.digests {
                hasher.update(&buffer[..count]);
            }
        }
        let kept = if keep {
            Content::Kept(start)
        } else {
            Content::Dropped
        };
        let digest = self.wanted.digests.then(|| hasher.finish());
        Ok((kept, digest))
    }

    fn hard_link(&self, path: &Path, target: &Path, entry: &Entry) -> Result<Kind> {
        let target = link_target(target, entry).map_err(refused)?;
        let fail = |errno: Errno| {
            refused(ApplyError::HardLink {
                path: path.to_owned(),
                target: target.clone(),
                source: errno.into(),
            })
        };
        let (above, name) = split(&target).ok_or_else(|| fail(Errno::ISDIR))?;
        let mut node = &self.top;
        for part in self.resolve(&above).into_iter().chain([name]) {
            let names = node.names().ok_or_else(|| fail(no_directory(node)))?;
            node = names.get(&part).ok_or_else(|| fail(Errno::NOENT))?;
        }
        if node.is_dir() {
            return Err(fail(Errno::ISDIR));
        }
        Ok(node.kind.clone())
    }

    /// Returns the names in the directory `parents`, which `name` is added to, made where it is missing; links on the way are followed in
    /// the tree.
    fn dir(&mut self, parents: &[OsString], name: &OsStr, layer: usize) -> Result<&mut Names> {
        let resolved = self.resolve(parents);
        limits::check(&place(&resolved).join(name)).map_err(|error| refused(error.into()))?;
        let mut node = &mut self.top;
        for name in &resolved {
            node = match names_of(node, parents)?.entry(name.clone()) {
                btree_map::Entry::Occupied(there) => there.into_mut(),
                btree_map::Entry::Vacant(free) => {
                    count(&mut self.directories, MAX_DIRECTORIES, "directories")?;
                    free.insert(Node::directory(layer))
                }
            };
        }
        names_of(node, parents)
    }

    /// Returns the names in the directory `resolved`, a path without links, if there is one.
    fn dir_opt(&mut self, resolved: &[OsString]) -> Option<&mut Names> {
        let mut node = &mut self.top;
        for name in resolved {
            let Kind::Directory(names) = &mut node.kind else {
                return None;
            };
            node = names.get_mut(name)?;
        }
        match &mut node.kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// Follows the links among `parents`, as applying the layer would: an entry `lib/x` lands in `usr/lib` where `lib` is a link.
    fn resolve(&self, parents: &[OsString]) -> Vec<OsString> {
        let mut at: Vec<(OsString, Option<&Node>)> = Vec::new();
        let mut todo: Vec<OsString> = parents.iter().rev().cloned().collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            if name == "/" {
                at.clear();
                continue;
            }
            let here = at.last().map_or(Some(&self.top), |(_, node)| *node);
            let node = here
                .and_then(Node::names)
                .and_then(|names| names.get(&name));
            match node.and_then(Node::target) {
                Some(target) if links < MAX_LINKS => {
                    links += 1;
                    let more: Vec<OsString> = target
                        .components()
                        .filter(|part| !matches!(part, Component::CurDir))
                        .map(|part| part.as_os_str().to_owned())
                        .collect();
                    todo.extend(more.into_iter().rev());
                }
                _ => at.push((name, node)),
            }
        }
        at.into_iter().map(|(name, _)| name).collect()
    }
}

/// Returns the names of a directory, which is `parents` or on the way there.
fn names_of<'a>(node: &'a mut Node, parents: &[OsString]) -> Result<&'a mut Names> {
    let errno = no_directory(node);
    match &mut node.kind {
        Kind::Directory(names) => Ok(names),
        _ => Err(refused(ApplyError::Io {
            op: "opening the directory",
            path: place(parents),
            source: errno.into(),
        })),
    }
}

/// Says why nothing can be in `node`, which is no directory: a link is left only where there were too many.
fn no_directory(node: &Node) -> Errno {
    match node.kind {
        Kind::Symlink(_) => Errno::LOOP,
        _ => Errno::NOTDIR,
    }
}

/// Removes what lower layers put into a directory.
fn hide_content(names: &mut Names, layer: usize) {
    names.retain(|_, node| !hide(node, layer));
}

/// Removes what lower layers put below `node`, and returns whether nothing of `layer` is left there.
fn hide(node: &mut Node, layer: usize) -> bool {
    let ours = node.layer >= layer;
    match &mut node.kind {
        Kind::Directory(below) => {
            hide_content(below, layer);
            !ours && below.is_empty()
        }
        _ => !ours,
    }
}

fn set_metadata(node: &mut Node, entry: &Entry, layer: usize) {
    node.mode = entry.mode;
    node.uid = entry.uid;
    node.gid = entry.gid;
    node.mtime = entry.mtime;
    node.xattrs = xattrs(&entry.xattrs);
    node.layer = layer;
}

fn xattrs(all: &Xattrs) -> Option<Box<Xattrs>> {
    (!all.is_empty()).then(|| Box::new(all.clone()))
}

/// Counts one more of `what`.
fn count(number: &mut u64, most: u64, what: &str) -> Result<()> {
    *number += 1;
    if *number > most {
        return Err(Error::user(format!(
            "the image holds more than {most} {what}"
        )));
    }
    Ok(())
}

fn place(names: &[OsString]) -> PathBuf {
    names.iter().collect()
}

/// Says what applying the layer would say.
fn refused(error: ApplyError) -> Error {
    Error::from_source(&error)
}

/// Splits a clean path into the names above and its own; `None` for the root.
fn split(path: &Path) -> Option<(Vec<OsString>, OsString)> {
    let mut all: Vec<OsString> = path.iter().map(OsStr::to_owned).collect();
    let name = all.pop()?;
    Some((all, name))
}

#[cfg(test)]
mod tests;
