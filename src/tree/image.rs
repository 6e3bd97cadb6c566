//! A tree from the layers of an image, read one after the other without writing any of their files.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use kfactory_layers::digest::{Digest, Hasher};
use kfactory_layers::image::Image;
use kfactory_layers::metadata::{Entry, EntryKind, Xattrs};
use kfactory_layers::tar::ArchiveReader;

use super::{Content, FileNode, Kind, MAX_LINKS, Names, Node, Source, Tree};
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::store::Store;

/// The largest distribution images hold some 400 000 names.
const MAX_ENTRIES: u64 = 4_000_000;
/// How the name of a whiteout begins.
const WHITEOUT: &[u8] = b".wh.";
/// The name that hides everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

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
/// A damaged layer, more than four million entries, or no room for the contents that are wanted.
pub fn of_image(image: &Image, store: &Store, wanted: Wanted) -> Result<Tree> {
    let kept = tempfile::tempfile_in(store.dir())
        .context(|| format!("making a file in {}", store.dir().display()))?;
    let mut reading = Reading {
        top: Node::directory(0),
        kept,
        kept_bytes: 0,
        next_id: 0,
        entries: 0,
        wanted,
    };
    let total = image.layers().len();
    for (index, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
        let doing = || format!("reading layer {} of {total} ({})", index + 1, layer.digest);
        let mut changeset = Changeset::open(store, layer, *diff_id, None).context(doing)?;
        reading
            .layer(index, ArchiveReader::new(&mut changeset))
            .context(doing)?;
        changeset.finish().context(doing)?;
    }
    Ok(Tree {
        top: reading.top,
        source: Source::Kept(reading.kept),
    })
}

struct Reading {
    top: Node,
    kept: File,
    kept_bytes: u64,
    next_id: u64,
    entries: u64,
    wanted: Wanted,
}

impl Reading {
    fn layer<R: io::Read>(&mut self, layer: usize, mut archive: ArchiveReader<R>) -> Result<()> {
        while let Some(entry) = archive
            .next_entry()
            .map_err(|error| Error::from_source(&error))?
        {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::user(format!(
                    "the image holds more than {MAX_ENTRIES} entries"
                )));
            }
            self.entry(layer, entry, &mut archive)?;
        }
        Ok(())
    }

    fn entry<R: io::Read>(
        &mut self,
        layer: usize,
        entry: Entry,
        archive: &mut ArchiveReader<R>,
    ) -> Result<()> {
        let Some((parents, name)) = split(&entry.path) else {
            // The root itself.
            set_metadata(&mut self.top, &entry, layer);
            return Ok(());
        };
        if name.as_bytes() == OPAQUE {
            drop_lower(self.dir(&parents, layer), layer);
            return Ok(());
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            // A whiteout hides only what lower layers put there, wherever in the archive it stands.
            let names = self.dir(&parents, layer);
            let hidden = OsStr::from_bytes(hidden);
            match names.get_mut(hidden) {
                Some(node) if node.layer < layer => _ = names.remove(hidden),
                Some(Node {
                    kind: Kind::Directory(below),
                    ..
                }) => drop_lower(below, layer),
                _ => {}
            }
            return Ok(());
        }
        let kind = self.kind(&parents, &name, &entry, archive)?;
        let names = self.dir(&parents, layer);
        let slot = names.entry(name).or_insert_with(|| Node::directory(layer));
        match (kind, &slot.kind) {
            // A directory keeps what it holds.
            (Kind::Directory(_), Kind::Directory(_)) => {}
            (kind, _) => slot.kind = kind,
        }
        set_metadata(slot, &entry, layer);
        Ok(())
    }

    fn kind<R: io::Read>(
        &mut self,
        parents: &[OsString],
        name: &OsStr,
        entry: &Entry,
        archive: &mut ArchiveReader<R>,
    ) -> Result<Kind> {
        Ok(match &entry.kind {
            EntryKind::Directory => Kind::Directory(Names::new()),
            EntryKind::Symlink { target } => Kind::Symlink(target.clone()),
            EntryKind::CharDevice(device) => Kind::CharDevice(*device),
            EntryKind::BlockDevice(device) => Kind::BlockDevice(*device),
            EntryKind::Fifo => Kind::Pipe,
            EntryKind::HardLink { target } => self.hard_link(target, &entry.path)?,
            EntryKind::File { size } => {
                self.next_id += 1;
                let mut path: PathBuf = parents.iter().collect();
                path.push(name);
                let (content, digest) = self.content(&path, *size, archive)?;
                Kind::File(FileNode {
                    size: *size,
                    id: self.next_id,
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

    fn hard_link(&self, target: &Path, path: &Path) -> Result<Kind> {
        let mut node = &self.top;
        for part in parts(target) {
            let next = node.names().and_then(|names| names.get(&part));
            node = next.ok_or_else(|| {
                Error::user(format!(
                    "{path:?} is another name for {target:?}, which is not there"
                ))
            })?;
        }
        if node.is_dir() {
            return Err(Error::user(format!(
                "{path:?} is another name for a directory"
            )));
        }
        Ok(node.kind.clone())
    }

    /// Returns the names in the directory `parents`, made where it is missing; links on the way are followed in the tree.
    fn dir(&mut self, parents: &[OsString], layer: usize) -> &mut Names {
        let resolved = self.resolve(parents);
        let mut node = &mut self.top;
        for name in &resolved {
            let names = names_of(node, layer);
            node = names
                .entry(name.clone())
                .or_insert_with(|| Node::directory(layer));
        }
        names_of(node, layer)
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

/// Returns the names of a directory; anything else becomes one.
fn names_of(node: &mut Node, layer: usize) -> &mut Names {
    if !node.is_dir() {
        *node = Node::directory(layer);
    }
    match &mut node.kind {
        Kind::Directory(names) => names,
        _ => unreachable!("it was made one"),
    }
}

/// Removes what lower layers put into a directory, and below directories of this layer.
fn drop_lower(names: &mut Names, layer: usize) {
    names.retain(|_, node| node.layer >= layer);
    for node in names.values_mut() {
        if let Kind::Directory(below) = &mut node.kind {
            drop_lower(below, layer);
        }
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

/// Splits a path of an archive into the names above and its own; `None` for the root.
fn split(path: &Path) -> Option<(Vec<OsString>, OsString)> {
    let mut all = parts(path);
    let name = all.pop()?;
    Some((all, name))
}

/// Returns the names of a path; leading slashes and dots are dropped, and `..` goes up but never above the top.
fn parts(path: &Path) -> Vec<OsString> {
    let mut out = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name.to_owned()),
            Component::ParentDir => _ = out.pop(),
            _ => {}
        }
    }
    out
}
