//! ext4 and ext2 file systems, in a partition or in a file of another one.

use std::io::{self, ErrorKind, Read};

use ext4_view::{Ext4Error, Ext4Read};

use super::root::RootFs;
use crate::artifact::region::Region;

/// The superblock, from the start of the file system.
const SUPERBLOCK: u64 = 1024;
const MAX_BLOCK: u64 = 64 << 10;
/// No tool makes groups of fewer blocks; each takes memory.
const MIN_GROUP: u32 = 256;
/// What every read counts at least.
const LEAST_READ: u64 = 4096;
/// What is read of a file system beside four times its size, at most.
const FREE_READ: u64 = 64 << 20;
/// What looking for a place in a file counts for each of the blocks before it.
const STEP: u64 = 16;

/// A file system that can be read.
#[derive(Debug, Clone)]
pub(super) struct Ext4 {
    fs: ext4_view::Ext4,
    len: u64,
}

/// Where a file system is.
enum Place {
    Region(Region),
    File(Box<ext4_view::File>),
}

impl Place {
    fn len(&self) -> u64 {
        match self {
            Self::Region(region) => region.len(),
            Self::File(file) => file.metadata().len(),
        }
    }

    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Region(region) => region.read_exact_at(bytes, offset),
            Self::File(file) => {
                if file.position() != offset {
                    file.seek_to(offset)?;
                }
                file.read_exact(bytes)
            }
        }
    }
}

/// A place of which no more is read than reading all of it takes.
struct Bounded {
    place: Place,
    left: u64,
}

impl Ext4Read for Bounded {
    fn read(
        &mut self,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut cost = (bytes.len() as u64).max(LEAST_READ);
        if let Place::File(file) = &self.place
            && file.position() != start
        {
            cost += start / LEAST_READ * STEP;
        }
        let left = self.left.checked_sub(cost);
        self.left = left.ok_or_else(|| bad("reading it has no end"))?;
        Ok(self.place.read_at(start, bytes)?)
    }
}

impl Ext4 {
    /// Opens the file system in `region`.
    ///
    /// # Errors
    ///
    /// `InvalidData` where it is none, or damaged.
    pub(super) fn open(region: Region) -> io::Result<Self> {
        Self::at(Place::Region(region))
    }

    /// Opens the file system in the file `path` of this one; none where there is no such file.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub(super) fn within(&self, path: &str) -> io::Result<Option<Self>> {
        let Some(file) = self.file(path)? else {
            return Ok(None);
        };
        if file.metadata().len() > self.len {
            return Err(bad("it is larger than the file system that it is in"));
        }
        Self::at(Place::File(Box::new(file))).map(Some)
    }

    fn at(mut place: Place) -> io::Result<Self> {
        let len = place.len();
        check_size(&mut place, len)?;
        let bounded = Bounded {
            place,
            left: len.saturating_mul(4).saturating_add(FREE_READ),
        };
        let fs = ext4_view::Ext4::load(Box::new(bounded))?;
        Ok(Self { fs, len })
    }

    /// Returns the label.
    pub(super) fn label(&self) -> String {
        self.fs.label().to_str().unwrap_or_default().to_owned()
    }

    /// Opens a regular file, links followed; none where there is none.
    pub(super) fn file(&self, path: &str) -> io::Result<Option<ext4_view::File>> {
        let path = format!("/{}", path.trim_start_matches('/'));
        found(self.fs.open(path.as_str()))
    }

    /// Returns a text of `most` bytes at most; none where there is no such file.
    pub(super) fn text(&self, path: &str, most: usize) -> io::Result<Option<String>> {
        let bytes = self.clone().read(path, most)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Checks the numbers that decide how much memory reading the file system takes.
///
/// Spec: Linux, Documentation/filesystems/ext4/super.rst.
fn check_size(place: &mut Place, len: u64) -> io::Result<()> {
    let mut bytes = [0; 1024];
    if len < SUPERBLOCK + bytes.len() as u64 {
        return Err(bad("it is too small for any file system"));
    }
    place.read_at(SUPERBLOCK, &mut bytes)?;
    let le32 =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[0x38..0x3a] != [0x53, 0xef] {
        return Err(bad("it is no ext4 file system"));
    }
    const IS_64BIT: u32 = 0x80;
    let high = if le32(0x60) & IS_64BIT == 0 {
        0
    } else {
        le32(0x150)
    };
    let blocks = u64::from(le32(0x4)) | u64::from(high) << 32;
    let block = 1024u64
        .checked_shl(le32(0x18))
        .filter(|block| (1024..=MAX_BLOCK).contains(block));
    let block = block.ok_or_else(|| bad("the size of its blocks is unknown"))?;
    if le32(0x20) < MIN_GROUP {
        return Err(bad("its groups have too few blocks"));
    }
    match blocks.checked_mul(block) {
        Some(bytes) if bytes <= len => Ok(()),
        _ => Err(bad("it is larger than the place it has")),
    }
}

impl RootFs for Ext4 {
    fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(path)? else {
            return Ok(None);
        };
        if file.metadata().len() > most as u64 {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn is_file(&mut self, path: &str) -> io::Result<bool> {
        Ok(self.file(path)?.is_some())
    }

    fn is_dir(&mut self, path: &str) -> io::Result<bool> {
        let path = format!("/{path}");
        let metadata = found(self.fs.metadata(path.as_str()))?;
        Ok(metadata.is_some_and(|metadata| metadata.is_dir()))
    }
}

/// Tells what is not there from what cannot be read.
fn found<T>(result: Result<T, Ext4Error>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(
            Ext4Error::NotFound
            | Ext4Error::NotADirectory
            | Ext4Error::IsADirectory
            | Ext4Error::IsASpecialFile
            | Ext4Error::TooManySymlinks
            | Ext4Error::PathTooLong
            | Ext4Error::MalformedPath,
        ) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
