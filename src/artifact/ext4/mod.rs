//! ext4 file systems, made without mounting anything and without privilege: owners, devices and attributes are as declared.
//!
//! First everything is declared ([`Builder`]), then it is laid out ([`Layout`]), then the file system is written without its contents
//! ([`Layout::write`]), and the contents go to their places in any order ([`Layout::region`]); in the order of [`FileId`] each lies
//! behind the one before. A file can itself be the place of another file system. The same calls give the same bytes.
//!
//! There is always a journal, since the crate that writes these file systems makes none without; and names are UTF-8.

mod acl;
mod declare;
mod size;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use kfactory_layers::metadata::{Device, Timestamp, Xattrs};
use mkext4::InodeHandle;

use super::guid::Guid;
use super::region::{Extent, Region};
use crate::tree::{Kind, Node, Tree};

pub use size::Size;

/// The unit in which space is given out.
pub const BLOCK_BYTES: u64 = 4096;
/// What every ext4 file system has in its root directory, for what a check finds.
const LOST_AND_FOUND: &str = "lost+found";

/// What a file system is, apart from its files.
#[derive(Debug, Clone)]
pub struct Volume {
    /// At most 16 bytes.
    pub label: String,
    /// What tells it from all others; the seed of directory hashes is made of it.
    pub uuid: Guid,
    /// When it was made, in seconds since 1970; also the time of directories that nobody declared.
    pub epoch: i64,
    /// How large it is.
    pub size: Size,
    /// How large its journal is.
    pub journal: Journal,
}

/// How large a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// 4 MiB, the least that exists: for what is only read.
    Smallest,
    /// By the size of the file system, as mke2fs has it.
    Usual,
}

/// Owner, mode and time of what a caller adds.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All times of it.
    pub mtime: Timestamp,
}

/// A regular file of a file system. By their order the contents lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileId {
    /// One of the tree, by its [`id`](crate::tree::FileNode::id).
    OfTree(u64),
    /// One that the caller added, by its number.
    Added(u32),
}

/// Why a file system cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// An object that the file system cannot hold.
    #[error("{path:?} cannot be on an ext4 file system: {why}")]
    Object {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The label is too long.
    #[error("the label {0:?} is longer than 16 bytes")]
    Label(String),
    /// The size is none, or too small for any file system.
    #[error("an ext4 file system cannot have {0} bytes")]
    Size(u64),
    /// The files do not fit.
    #[error(
        "an ext4 file system of {size} bytes has no room for the files, which need some {needed} bytes with what it needs itself"
    )]
    Full {
        /// The size asked for.
        size: u64,
        /// The size that would do.
        needed: u64,
    },
    /// The writer found something that was not foreseen.
    #[error("laying out an ext4 file system")]
    Layout(#[source] mkext4::Error),
}

/// The files and directories of a file system to be.
#[derive(Debug)]
pub struct Builder {
    volume: Volume,
    /// By path, parents before what is in them; the root directory, under the empty path, is always there.
    objects: BTreeMap<PathBuf, Object>,
    added: u32,
}

#[derive(Debug)]
struct Object {
    what: What,
    meta: Meta,
    xattrs: Xattrs,
}

#[derive(Debug)]
enum What {
    Directory,
    File { id: FileId, size: u64 },
    Symlink(PathBuf),
    CharDevice(Device),
    BlockDevice(Device),
    Pipe,
}

/// A file system of which every byte but the files' own is settled.
#[derive(Debug)]
pub struct Layout {
    inner: mkext4::Layout,
    files: BTreeMap<FileId, InodeHandle>,
}

impl Builder {
    /// Starts a file system with an empty root directory.
    pub fn new(volume: Volume) -> Self {
        let mut builder = Self {
            volume,
            objects: BTreeMap::new(),
            added: 0,
        };
        builder
            .objects
            .insert(PathBuf::new(), builder.plain_directory());
        builder
    }

    /// Declares everything that is in `tree`, its root directory's metadata included.
    ///
    /// A `lost+found` of its root directory is left out: the file system has its own.
    pub fn tree(&mut self, tree: &Tree) {
        self.objects
            .insert(PathBuf::new(), Object::of_node(tree.top()));
        tree.walk("", &mut |path, node| {
            if !path.starts_with(LOST_AND_FOUND) {
                self.objects.insert(path.to_owned(), Object::of_node(node));
            }
        });
    }

    /// Declares the directory `path`; of one that is there, what was said of it before is forgotten.
    ///
    /// # Errors
    ///
    /// A path that leads out or through something that is no directory.
    pub fn dir(&mut self, path: &str, meta: Meta) -> Result<(), Ext4Error> {
        self.put(path, What::Directory, meta)
    }

    /// Declares the file `path` of `size` bytes, in place of a file or link that is there.
    ///
    /// # Errors
    ///
    /// As for [`dir`](Self::dir), or `path` is a directory.
    pub fn file(&mut self, path: &str, meta: Meta, size: u64) -> Result<FileId, Ext4Error> {
        let id = FileId::Added(self.added);
        self.added += 1;
        self.put(path, What::File { id, size }, meta)?;
        Ok(id)
    }

    /// Declares the symbolic link `path`, in place of a file or link that is there.
    ///
    /// # Errors
    ///
    /// As for [`file`](Self::file).
    pub fn symlink(&mut self, path: &str, target: &str, meta: Meta) -> Result<(), Ext4Error> {
        self.put(path, What::Symlink(target.into()), meta)
    }

    /// Settles where everything is.
    ///
    /// # Errors
    ///
    /// An object that no ext4 file system can hold, or no room for all.
    pub fn layout(self) -> Result<Layout, Ext4Error> {
        declare::layout(self)
    }

    fn put(&mut self, path: &str, what: What, meta: Meta) -> Result<(), Ext4Error> {
        let refuse = |why: &str| Ext4Error::object(Path::new(path), why);
        let mut at = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => at.push(name),
                Component::RootDir | Component::CurDir => {}
                _ => return Err(refuse("its path leads out of it")),
            }
        }
        if at.starts_with(LOST_AND_FOUND) {
            return Err(refuse("that directory is the file system's own"));
        }
        let becomes_dir = matches!(what, What::Directory);
        if !becomes_dir && self.objects.get(&at).is_some_and(Object::is_dir) {
            return Err(refuse("it is a directory already"));
        }
        for above in at.ancestors().skip(1) {
            match self.objects.get(above) {
                Some(object) if object.is_dir() => {}
                Some(_) => return Err(refuse("something above it is no directory")),
                None => {
                    let made = self.plain_directory();
                    self.objects.insert(above.to_owned(), made);
                }
            }
        }
        let xattrs = Xattrs::new();
        self.objects.insert(at, Object { what, meta, xattrs });
        Ok(())
    }

    /// Returns a directory of which nothing was said.
    fn plain_directory(&self) -> Object {
        Object {
            what: What::Directory,
            meta: Meta {
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: Timestamp::from_secs(self.volume.epoch),
            },
            xattrs: Xattrs::new(),
        }
    }
}

impl Object {
    fn is_dir(&self) -> bool {
        matches!(self.what, What::Directory)
    }

    fn of_node(node: &Node) -> Self {
        let what = match &node.kind {
            Kind::Directory(_) => What::Directory,
            Kind::File(file) => What::File {
                id: FileId::OfTree(file.id),
                size: file.size,
            },
            Kind::Symlink(target) => What::Symlink(target.clone()),
            Kind::CharDevice(device) => What::CharDevice(*device),
            Kind::BlockDevice(device) => What::BlockDevice(*device),
            Kind::Pipe => What::Pipe,
        };
        let meta = Meta {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
        };
        let xattrs = node.xattrs.as_deref().cloned().unwrap_or_default();
        Self { what, meta, xattrs }
    }
}

impl Layout {
    /// Returns the size of the file system in bytes.
    pub fn size(&self) -> u64 {
        self.inner.image_len()
    }

    /// Returns the files that have contents, in the order in which these lie one behind the other.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.files.keys().copied()
    }

    /// Returns where the content of `file` goes; nothing for an empty file, and for one that is not in this file system.
    pub fn extents(&self, file: FileId) -> Vec<Extent> {
        let Some(handle) = self.files.get(&file) else {
            return Vec::new();
        };
        let extents = self.inner.extents(*handle);
        let extent = |(start, len)| Extent { start, len };
        extents.into_iter().map(extent).collect()
    }

    /// Returns the content of `file` as a region of `volume`, which is the file system's own.
    ///
    /// # Errors
    ///
    /// `volume` is smaller than the file system.
    pub fn region(&self, volume: &Region, file: FileId) -> io::Result<Region> {
        volume.part(&self.extents(file))
    }

    /// Writes everything but the files' contents to `volume`, which is fresh and has at least [`size`](Self::size) bytes.
    ///
    /// # Errors
    ///
    /// As for [`Region::write_all_at`].
    pub fn write(&self, volume: &Region) -> io::Result<()> {
        match self.inner.writer(Metadata(volume)) {
            Ok(_contents_are_not_its) => Ok(()),
            Err(mkext4::Error::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Writes what is not zero.
struct Metadata<'a>(&'a Region);

impl mkext4::RegionSink for Metadata<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn zeros(&mut self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Ext4Error {
    fn object(path: &Path, why: impl Into<String>) -> Self {
        Ext4Error::Object {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}
