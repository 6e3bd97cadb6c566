//! A root filesystem in memory: every name with its metadata, and the content of those files that somebody reads.
//!
//! Made from the layers of an image ([`of_image`]), without unpacking them and without any privilege, or from a directory
//! ([`of_dir`]). Links resolve as for a process whose root directory the tree is. Paths have no leading slash inside; a
//! leading slash in an argument means the same.

mod contents;
mod dir;
mod image;
mod list;
#[cfg(test)]
pub(crate) mod samples;
mod window;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::digest::Digest;
use kfactory_layers::metadata::{Device, Timestamp, Xattrs};
use kfactory_layers::root::Root;

pub use contents::{Sink, contents};
pub(crate) use dir::is_kernels_own;
pub use dir::of_dir;
pub use image::{Wanted, check_end, of_archive, of_image, with_last_layer};
pub use window::Window;

use crate::error::{Context as _, Error, Result};

/// Most symbolic links followed in one lookup; the kernel's own number.
const MAX_LINKS: usize = 40;
/// The most that [`Tree::read`] reads: no text or table that anybody looks into is near it.
const MAX_READ_BYTES: u64 = 64 << 20;

/// The IDs of an image's files tell by their upper bits which layer brings the content.
const ID_BITS: u32 = 32;

/// Returns the ID of the first file that the layer `index` brings.
fn first_id(layer: usize) -> u64 {
    (layer as u64) << ID_BITS
}

/// Returns which layer brings the content of the file `id`.
fn layer_of(id: u64) -> u64 {
    id >> ID_BITS
}

/// What a directory holds, by name.
pub type Names = BTreeMap<OsString, Node>;

/// One object of the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner, as the image says; from a directory, as this process sees it.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes; empty for a tree made without them.
    pub xattrs: Option<Box<Xattrs>>,
    /// Which of the image's layers it comes from, the lowest being 0.
    pub layer: usize,
}

/// What an object is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory(Names),
    /// A regular file.
    File(FileNode),
    /// A symbolic link, with its target byte for byte.
    Symlink(PathBuf),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe or a socket.
    Pipe,
}

/// A regular file.
#[derive(Debug, Clone)]
pub struct FileNode {
    /// Size in bytes.
    pub size: u64,
    /// What tells two files apart; two names of one file have the same. Those of an image are ordered as its layers hold the files.
    pub id: u64,
    /// The digest of the content, where it was asked for.
    pub digest: Option<Digest>,
    content: Content,
}

/// Where a file's content is.
#[derive(Debug, Clone)]
enum Content {
    /// In the directory the tree was made from, under its own path.
    InPlace,
    /// In memory.
    #[cfg_attr(not(test), expect(dead_code, reason = "samples are made of it"))]
    Bytes(Arc<[u8]>),
    /// In the file beside the tree, from this byte on.
    Kept(u64),
    /// Nowhere: it was not wanted.
    Dropped,
}

/// A root filesystem in memory.
#[derive(Debug)]
pub struct Tree {
    top: Node,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Dir(Root),
    /// A nameless file with the content that was wanted.
    Kept(File),
    #[cfg_attr(not(test), expect(dead_code, reason = "samples are made of it"))]
    Memory,
}

/// What a path leads to.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// Its own path, free of links.
    pub path: PathBuf,
    /// The object, never a symbolic link.
    pub node: &'a Node,
}

impl Node {
    /// Returns a directory without names, 0755 and owned by root.
    fn directory(layer: usize) -> Self {
        Self {
            kind: Kind::Directory(Names::new()),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::EPOCH,
            xattrs: None,
            layer,
        }
    }

    /// Returns what the directory holds; `None` for anything else.
    pub fn names(&self) -> Option<&Names> {
        match &self.kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// Returns the file; `None` for anything else.
    pub fn file(&self) -> Option<&FileNode> {
        match &self.kind {
            Kind::File(file) => Some(file),
            _ => None,
        }
    }

    /// Returns where the symbolic link points; `None` for anything else.
    pub fn target(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }
    }

    /// Returns whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// Returns whether this is a file that somebody may execute.
    pub fn is_executable(&self) -> bool {
        self.file().is_some() && self.mode & 0o111 != 0
    }
}

impl Tree {
    /// Returns the root directory.
    pub fn top(&self) -> &Node {
        &self.top
    }

    /// Returns the object at `path` itself, a link in last place not followed.
    pub fn node(&self, path: impl AsRef<Path>) -> Option<&Node> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else {
            return self.find(path).map(|found| found.node);
        };
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        parent.node.names()?.get(name)
    }

    /// Returns what `path` leads to with every link followed; `None` when it leads nowhere or round in a circle.
    pub fn find(&self, path: impl AsRef<Path>) -> Option<Found<'_>> {
        let mut at: Vec<(&OsStr, &Node)> = Vec::new();
        let mut todo: Vec<PathBuf> = vec![path.as_ref().to_owned()];
        let mut links = 0;
        while let Some(next) = todo.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            if !parts.as_path().as_os_str().is_empty() {
                todo.push(parts.as_path().to_owned());
            }
            match part {
                Component::RootDir | Component::Prefix(_) => at.clear(),
                Component::CurDir => {}
                Component::ParentDir => _ = at.pop(),
                Component::Normal(name) => {
                    let here = at.last().map_or(&self.top, |(_, node)| node);
                    let (name, node) = here.names()?.get_key_value(name)?;
                    if let Some(target) = node.target() {
                        links += 1;
                        if links > MAX_LINKS {
                            return None;
                        }
                        todo.push(target.to_owned());
                    } else {
                        at.push((name, node));
                    }
                }
            }
        }
        Some(Found {
            path: at.iter().map(|(name, _)| name).collect(),
            node: at.last().map_or(&self.top, |(_, node)| node),
        })
    }

    /// Returns whether `path` leads to something, links followed.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.find(path).is_some()
    }

    /// Returns whether `path` leads to a file that somebody may execute.
    pub fn has_executable(&self, path: impl AsRef<Path>) -> bool {
        self.find(path)
            .is_some_and(|found| found.node.is_executable())
    }

    /// Returns what the directory at `path` holds, links followed; nothing where there is no directory.
    pub fn names(&self, path: impl AsRef<Path>) -> impl Iterator<Item = (&OsStr, &Node)> {
        let names = self.find(path).and_then(|found| found.node.names());
        names
            .into_iter()
            .flatten()
            .map(|(name, node)| (name.as_os_str(), node))
    }

    /// Opens the file at `path`, links followed; `None` where there is no file.
    ///
    /// # Errors
    ///
    /// The content cannot be reached, or was not wanted when the tree was made.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Option<Box<dyn Read + Send + '_>>> {
        let window = self.window(path)?;
        Ok(window.map(|it| Box::new(it.into_reader()) as Box<dyn Read + Send>))
    }

    /// Opens the file at `path`, links followed, to be read anywhere in it; `None` where there is no file.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn window(&self, path: impl AsRef<Path>) -> Result<Option<Window<'_>>> {
        let Some(found) = self.find(path) else {
            return Ok(None);
        };
        let Some(file) = found.node.file() else {
            return Ok(None);
        };
        Ok(Some(match (&file.content, &self.source) {
            (Content::Bytes(bytes), _) => Window::of_bytes(bytes),
            (Content::Kept(offset), Source::Kept(kept)) => {
                Window::of_part(kept, *offset, file.size)
            }
            (Content::InPlace, Source::Dir(root)) => match root.open_file_opt(&found.path)? {
                Some(content) => Window::of_file(content, file.size),
                None => return Ok(None),
            },
            _ => {
                return Err(Error::internal(format!(
                    "the content of {:?} was not kept",
                    found.path
                )));
            }
        }))
    }

    /// Returns whether `path` leads to a file whose content is at hand: it was wanted when the tree was made.
    pub fn can_open(&self, path: impl AsRef<Path>) -> bool {
        let found = self.find(path);
        let file = found.and_then(|found| found.node.file());
        file.is_some_and(|file| !matches!(file.content, Content::Dropped))
    }

    /// Reads the file at `path`, links followed; `None` where there is no file. At most 64 MiB.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), or the file is larger.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let Some(content) = self.open(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        content
            .take(MAX_READ_BYTES + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("reading {path:?}"))?;
        if bytes.len() as u64 > MAX_READ_BYTES {
            return Err(Error::user(format!(
                "{path:?} is larger than {MAX_READ_BYTES} bytes"
            )));
        }
        Ok(Some(bytes))
    }

    /// Reads the text at `path`, links followed; bytes that are no UTF-8 become U+FFFD. `None` where there is no file.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn text(&self, path: impl AsRef<Path>) -> Result<Option<String>> {
        Ok(self
            .read(path)?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Calls `visit` for every object below the directory `path` (its links followed), parents first, names sorted.
    pub fn walk<'a>(&'a self, path: impl AsRef<Path>, visit: &mut dyn FnMut(&Path, &'a Node)) {
        if let Some(found) = self.find(path) {
            let mut at = found.path;
            walk(found.node, &mut at, visit);
        }
    }
}

fn walk<'a>(node: &'a Node, at: &mut PathBuf, visit: &mut dyn FnMut(&Path, &'a Node)) {
    for (name, child) in node.names().into_iter().flatten() {
        at.push(name);
        visit(at, child);
        walk(child, at, visit);
        at.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::samples::Sample;

    #[test]
    fn links_are_followed_inside_the_tree_and_never_out_of_it() {
        let tree = Sample::new()
            .file("usr/bin/tool", 0o755, b"x")
            .link("bin", "usr/bin")
            .link("a", "/../../bin/../bin/tool")
            .link("loop", "loop")
            .link("gone", "bin/other")
            .tree();
        let found = tree.find("/a").expect("a leads to the tool");
        assert_eq!(found.path, std::path::Path::new("usr/bin/tool"));
        assert!(tree.has_executable("bin/tool") && tree.has("bin/../bin"));
        assert!(!tree.has("loop") && !tree.has("gone") && !tree.has("bin/tool/x"));
        assert_eq!(tree.read("a").unwrap().as_deref(), Some(&b"x"[..]));
        assert!(tree.node("bin").unwrap().target().is_some());
    }

    #[test]
    fn a_walk_follows_no_link_and_tells_parents_first() {
        let tree = Sample::new()
            .file("a/b/c", 0o644, b"")
            .link("a/up", "/")
            .file("a/z", 0o644, b"")
            .tree();
        let mut seen = Vec::new();
        tree.walk("a", &mut |path, _| seen.push(path.display().to_string()));
        assert_eq!(seen, ["a/b", "a/b/c", "a/up", "a/z"]);
    }
}
