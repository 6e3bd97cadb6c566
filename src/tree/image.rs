//! A tree from the layers of an image, without writing any of their files: several are read at the same time, and applied one after the
//! other.

use std::collections::{HashSet, btree_map};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use kfactory_layers::apply::{ApplyError, link_target, meaning};
use kfactory_layers::image::Image;
use kfactory_layers::limits;
use kfactory_layers::metadata::{Entry, EntryKind, Xattrs};
use kfactory_layers::tar::ArchiveReader;
use kfactory_layers::whiteout::Special;

use rustix::io::Errno;

use super::list::{Item, List, Read, Room, count, in_order, refused};
use super::{FileNode, Kind, MAX_LINKS, Names, Node, Source, Tree};
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::printable::counted;
use crate::progress::Transfer;
use crate::store::Store;

/// Each takes two kilobytes as soon as something is in it, and one entry may imply hundreds.
const MAX_DIRECTORIES: u64 = 500_000;

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
/// Every blob is checked against its digest and size, and what it unpacks to against its diff ID. `progress` shows how much of them has
/// been read.
///
/// # Errors
///
/// A damaged layer, more entries, directories or attributes than any system has, or no room for the contents that are wanted, of
/// which there may be 16 GiB.
pub fn of_image(
    image: &Image,
    store: &Store,
    wanted: Wanted,
    progress: Option<&Transfer>,
) -> Result<Tree> {
    Reading::beside(store, wanted)?.layers(image, store, 0, progress)
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
    let mut reading = Reading::new(kept, wanted)?;
    reading.growing.top = tree.top;
    let last = image.layers().len().saturating_sub(1);
    reading.layers(image, store, last, None)
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
    check_end(reading.room.entries(), &archive)?;
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
    room: Room,
    growing: Growing,
}

/// The tree of the layers so far.
struct Growing {
    top: Node,
    next_id: u64,
    directories: u64,
    /// What whiteouts of the layer have hidden: names, and directories in which everything is hidden (`true`).
    hidden: HashSet<(PathBuf, bool)>,
}

impl Reading {
    fn beside(store: &Store, wanted: Wanted) -> Result<Self> {
        let kept = tempfile::tempfile_in(store.dir())
            .context(|| format!("making a file in {}", store.dir().display()))?;
        Self::new(kept, wanted)
    }

    /// Keeps contents in `kept`, behind what is in it.
    fn new(kept: File, wanted: Wanted) -> Result<Self> {
        Ok(Self {
            room: Room::behind(kept, wanted)?,
            growing: Growing {
                top: Node::directory(0),
                next_id: 0,
                directories: 0,
                hidden: HashSet::new(),
            },
        })
    }

    fn finish(self) -> Tree {
        Tree {
            top: self.growing.top,
            source: Source::Kept(self.room.into_file()),
        }
    }

    /// Reads the layers of `image` from the one with the index `first` on.
    fn layers(
        mut self,
        image: &Image,
        store: &Store,
        first: usize,
        progress: Option<&Transfer>,
    ) -> Result<Tree> {
        let Self { room, growing } = &mut self;
        let layers: Vec<_> = image.layers().iter().zip(image.diff_ids()).collect();
        let read = |index: usize| -> Result<List> {
            let (layer, diff_id) = layers[index];
            let mut changeset = Changeset::open(store, layer, *diff_id, progress)?;
            let list = room.list(&mut ArchiveReader::new(&mut changeset));
            Ok(list.then(|| changeset.finish()))
        };
        in_order(first..layers.len(), read, |index, list| {
            let applied = list.and_then(|list| growing.layer(index, list));
            applied.context(|| {
                let (total, digest) = (layers.len(), layers[index].0.digest);
                format!("reading layer {} of {total} ({digest})", index + 1)
            })
        })?;
        Ok(self.finish())
    }

    /// Reads the next layer from its archive.
    fn layer<R: io::Read>(&mut self, layer: usize, archive: &mut ArchiveReader<R>) -> Result<()> {
        self.growing.layer(layer, self.room.list(archive))
    }
}

impl Growing {
    /// Applies what was read of a layer.
    fn layer(&mut self, layer: usize, list: List) -> Result<()> {
        self.hidden.clear();
        self.next_id = super::first_id(layer);
        for item in list.items {
            self.item(layer, item)?;
        }
        list.end
    }

    fn item(&mut self, layer: usize, item: Item) -> Result<()> {
        let Item {
            path,
            entry,
            content,
        } = item;
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
        let kind = self.kind(&path, &entry, content)?;
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
            self.directories += 1;
            count(self.directories, MAX_DIRECTORIES, "directories")?;
        }
        Ok(())
    }

    fn kind(&mut self, path: &Path, entry: &Entry, read: Read) -> Result<Kind> {
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
                Kind::File(FileNode {
                    size: *size,
                    id,
                    digest: read.digest,
                    content: read.content,
                })
            }
        })
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
                    self.directories += 1;
                    count(self.directories, MAX_DIRECTORIES, "directories")?;
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

fn place(names: &[OsString]) -> PathBuf {
    names.iter().collect()
}

/// Splits a clean path into the names above and its own; `None` for the root.
fn split(path: &Path) -> Option<(Vec<OsString>, OsString)> {
    let mut all: Vec<OsString> = path.iter().map(OsStr::to_owned).collect();
    let name = all.pop()?;
    Some((all, name))
}

#[cfg(test)]
mod tests;
