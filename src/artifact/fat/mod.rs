//! FAT file systems: for EFI firmware, which reads nothing else.
//!
//! First everything is declared with its size ([`Builder`]), then it is laid out ([`Layout`]), every file in one piece, and at last
//! written: the tables and directories by [`Layout::write`], the contents by whoever has them, in any order, to [`Layout::extent`].
//! The same calls give the same bytes. Knows nothing of partitions and of what the files are for.
//!
//! Spec: Microsoft, "FAT: General Overview of On-Disk Format" 1.03.

mod encode;
mod geometry;
mod name;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;

use kfactory_layers::metadata::Timestamp;

use super::region::{Extent, Region};
use geometry::Geometry;
pub use read::{FatEntry, FatReadError, FatVolume};

/// A volume as large as its content needs is a multiple of this.
pub const SIZE_STEP: u64 = 4 << 20;

/// What a volume is, apart from its files.
#[derive(Debug, Clone)]
pub struct Volume {
    /// At most eleven ASCII characters; shown in upper case.
    pub label: String,
    /// The volume's serial number.
    pub serial: u32,
    /// The time of every file, directory and label, as UTC; from 1980 to 2107, others are taken for the nearest.
    pub time: Timestamp,
    /// How wide the table is; by the size, as mkfs.fat chooses, if not given.
    pub kind: Option<Kind>,
    /// Where the volume starts on its disk, in sectors; 0 if it is a disk of its own.
    pub hidden_sectors: u32,
}

/// How wide an entry of the allocation table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 12 bits: up to 4084 clusters.
    Fat12,
    /// 16 bits: up to 65524 clusters.
    Fat16,
    /// 32 bits, of which 28 count.
    Fat32,
}

/// Why a volume cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// The name does not exist in FAT.
    #[error("{0:?} is not a name that a FAT file system can hold")]
    Name(String),
    /// A file in the place of a directory.
    #[error("{file:?} is a file, and {path:?} needs a directory in its place")]
    FileAsDirectory {
        /// Its name.
        file: String,
        /// The directory that it, or one below it, is to be.
        path: String,
    },
    /// Two names that differ in case only.
    #[error(
        "{0:?} is there twice: names on a FAT file system are the same in upper and lower case"
    )]
    Twice(String),
    /// A file of 4 GiB or more.
    #[error("{path:?} has {size} bytes, and a file on a FAT file system less than 4294967296")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its size.
        size: u64,
    },
    /// The label does not exist in FAT.
    #[error(
        "{0:?} is no label of a FAT file system: at most 11 letters, digits, spaces, `-` and `_`"
    )]
    Label(String),
    /// The files do not fit.
    #[error(
        "a FAT file system of {size} bytes has no room for {needed} bytes of files and directories"
    )]
    Full {
        /// The size asked for.
        size: u64,
        /// What all clusters in use need.
        needed: u64,
    },
    /// No FAT file system has this size, or not one of the kind asked for.
    #[error("a FAT file system cannot have {0} bytes")]
    Size(u64),
}

/// A file that was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(usize);

/// The files and directories of a volume to be.
#[derive(Debug, Clone)]
pub struct Builder {
    volume: Volume,
    /// The root directory first.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    /// By the name in upper case; in this order they stand in the directory.
    Dir(BTreeMap<String, (String, usize)>),
    File(u32),
}

/// A volume of which every byte but the files' own is settled.
#[derive(Debug)]
pub struct Layout {
    volume: Volume,
    label: [u8; 11],
    nodes: Vec<Node>,
    /// Of each node, the first cluster and their number; none of an empty file.
    runs: Vec<(u32, u32)>,
    geometry: Geometry,
}

impl Builder {
    /// Starts a volume without files.
    pub fn new(volume: Volume) -> Self {
        Self {
            volume,
            nodes: vec![Node::Dir(BTreeMap::new())],
        }
    }

    /// Declares the directory `path` and those above it; names are apart by `/`. One that is there already stays.
    ///
    /// # Errors
    ///
    /// A name that FAT cannot hold, or that is a file's.
    pub fn dir(&mut self, path: &str) -> Result<(), FatError> {
        self.ensure(path).map(drop)
    }

    /// Declares the file `path` of `size` bytes, and the directories above it.
    ///
    /// # Errors
    ///
    /// A name that FAT cannot hold or that is taken, or a file of 4 GiB or more.
    pub fn file(&mut self, path: &str, size: u64) -> Result<FileId, FatError> {
        let (parents, file_name) = path.rsplit_once('/').unwrap_or(("", path));
        let size = u32::try_from(size).map_err(|_| FatError::FileTooLarge {
            path: path.to_owned(),
            size,
        })?;
        if !name::is_valid(file_name) {
            return Err(FatError::Name(path.to_owned()));
        }
        let parent = self.ensure(parents)?;
        let id = self.nodes.len();
        match self.names(parent).entry(file_name.to_uppercase()) {
            Entry::Vacant(free) => free.insert((file_name.to_owned(), id)),
            Entry::Occupied(_) => return Err(FatError::Twice(path.to_owned())),
        };
        self.nodes.push(Node::File(size));
        Ok(FileId(id))
    }

    /// Settles where everything is on a volume of `size` bytes, or on the smallest multiple of [`SIZE_STEP`] that it fits on.
    ///
    /// # Errors
    ///
    /// The label, a size that no such volume has, or no room.
    pub fn layout(self, size: Option<u64>) -> Result<Layout, FatError> {
        let label = name::label(&self.volume.label)
            .ok_or_else(|| FatError::Label(self.volume.label.clone()))?;
        let bytes: Vec<u32> = self.nodes.iter().map(Node::bytes).collect();
        let root_entries = bytes[0] / name::ENTRY_BYTES;
        let kind = self.volume.kind;
        let geometry = match size {
            Some(size) => {
                let geometry = Geometry::of_size(size, kind, root_entries)?;
                let needed = geometry.needed(&bytes);
                if needed > geometry.clusters.into() {
                    let needed = needed * u64::from(geometry.cluster_bytes());
                    return Err(FatError::Full { size, needed });
                }
                geometry
            }
            None => Geometry::smallest(&bytes, kind, root_entries)?,
        };
        let mut next = geometry::FIRST_CLUSTER;
        let mut runs = vec![(0, 0); self.nodes.len()];
        let dirs_first = |index: &usize| matches!(self.nodes[*index], Node::File(_));
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(dirs_first);
        for index in order {
            let count = geometry.clusters_of(index, bytes[index]);
            if count > 0 {
                runs[index] = (next, count);
                next += count;
            }
        }
        Ok(Layout {
            volume: self.volume,
            label,
            nodes: self.nodes,
            runs,
            geometry,
        })
    }

    fn ensure(&mut self, path: &str) -> Result<usize, FatError> {
        let mut at = 0;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !name::is_valid(part) {
                return Err(FatError::Name(path.to_owned()));
            }
            let new = self.nodes.len();
            let key = part.to_uppercase();
            // Two spellings that differ in case are one directory, as for whoever reads it.
            let (_, index) = self.names(at).entry(key).or_insert((part.to_owned(), new));
            at = *index;
            if at == new {
                self.nodes.push(Node::Dir(BTreeMap::new()));
            } else if let Node::File(_) = self.nodes[at] {
                return Err(FatError::FileAsDirectory {
                    file: part.to_owned(),
                    path: path.to_owned(),
                });
            }
        }
        Ok(at)
    }

    fn names(&mut self, dir: usize) -> &mut BTreeMap<String, (String, usize)> {
        match &mut self.nodes[dir] {
            Node::Dir(names) => names,
            Node::File(_) => unreachable!("only directories have names below them"),
        }
    }
}

impl Node {
    /// Returns the size of the content; of a directory, with one entry more: the label in the root, `.` and `..` elsewhere, and the
    /// last entry, which is empty.
    fn bytes(&self) -> u32 {
        match self {
            Node::File(size) => *size,
            Node::Dir(names) => {
                let entries: usize = names
                    .values()
                    .map(|(name, _)| name::entries_at_most(name))
                    .sum();
                (entries + 3) as u32 * name::ENTRY_BYTES
            }
        }
    }
}

impl Layout {
    /// Returns the size of the volume in bytes.
    pub fn size(&self) -> u64 {
        self.geometry.size()
    }

    /// Returns how wide the table came out.
    pub fn kind(&self) -> Kind {
        self.geometry.kind
    }

    /// Returns where the content of `file` goes.
    pub fn extent(&self, file: FileId) -> Extent {
        let len = self.nodes[file.0].bytes().into();
        let (first, count) = self.runs[file.0];
        let start = if count == 0 {
            0
        } else {
            self.geometry.offset(first)
        };
        Extent { start, len }
    }

    /// Writes everything but the files' contents to `to`, which is fresh and has at least [`size`](Self::size) bytes.
    ///
    /// # Errors
    ///
    /// As for [`Region::write_all_at`].
    pub fn write(&self, to: &Region) -> io::Result<()> {
        encode::write(self, to)
    }
}
