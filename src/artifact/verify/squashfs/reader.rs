//! Looking up paths in a squashfs, and reading small files of it.

use std::io;

use super::bad;
use super::metadata::{Blocks, Compressor, Cursor};
use super::superblock::Superblock;
use crate::artifact::bytes::{le32, le64};
use crate::artifact::region::Region;
use crate::artifact::verify::root::{Lack, RootFs};

/// What Linux follows.
const MAX_LINKS: usize = 40;
/// The longest target of a link that Linux takes.
const MAX_TARGET: u32 = 4096;
/// The largest directory that is searched; one with a hundred thousand names is smaller.
const MAX_DIRECTORY: u32 = 16 << 20;
const MAX_PARTS: usize = 256;
/// In the size of a block of data.
const IS_PLAIN: u32 = 1 << 24;
const NO_FRAGMENT: u32 = u32::MAX;
const FRAGMENT_BYTES: usize = 16;

/// A squashfs whose superblock is sound.
#[derive(Debug)]
pub(in crate::artifact::verify) struct Reader {
    blocks: Blocks,
    superblock: Superblock,
}

#[derive(Debug, Clone)]
enum Inode {
    Dir { block: u32, offset: u16, len: u32 },
    File(FileInode),
    Link(String),
    Other,
}

#[derive(Debug, Clone)]
struct FileInode {
    start: u64,
    size: u64,
    fragment: u32,
    offset: u32,
    /// The sizes of its blocks, of a file that is small enough to be read.
    blocks: Vec<u32>,
}

impl Reader {
    pub(super) fn new(region: Region, superblock: Superblock, compressor: Compressor) -> Self {
        Self {
            blocks: Blocks::new(region, compressor),
            superblock,
        }
    }

    fn inode(&mut self, reference: u64, most: usize) -> io::Result<Inode> {
        let start = self.superblock.inodes.saturating_add(reference >> 16);
        let mut cursor = Cursor::new(&mut self.blocks, start, reference as u16)?;
        let kind = cursor.u16()?;
        // Mode, owner, group, time and number.
        cursor.skip(14)?;
        Ok(match kind {
            1 => {
                let block = cursor.u32()?;
                cursor.skip(4)?;
                let len = cursor.u16()?.into();
                let offset = cursor.u16()?;
                Inode::Dir { block, offset, len }
            }
            8 => {
                cursor.skip(4)?;
                let len = cursor.u32()?;
                let block = cursor.u32()?;
                cursor.skip(6)?;
                let offset = cursor.u16()?;
                Inode::Dir { block, offset, len }
            }
            2 | 9 => Inode::File(self.superblock.file(&mut cursor, kind, most)?),
            3 | 10 => {
                cursor.skip(4)?;
                let len = cursor.u32()?;
                if len > MAX_TARGET {
                    return Err(bad("a link of it is too long"));
                }
                let target = cursor.take(len as usize)?;
                Inode::Link(String::from_utf8_lossy(&target).into_owned())
            }
            4..=7 | 11..=14 => Inode::Other,
            _ => return Err(bad("it has an inode of an unknown kind")),
        })
    }

    /// Returns the reference of the inode that a directory has under `name`.
    fn entry(&mut self, dir: &Inode, name: &str) -> io::Result<Option<u64>> {
        let Inode::Dir { block, offset, len } = *dir else {
            return Ok(None);
        };
        if len > MAX_DIRECTORY {
            return Err(bad("a directory of it is too large"));
        }
        let start = self.superblock.directories.saturating_add(block.into());
        // Three bytes more are counted than there are.
        let mut left = i64::from(len) - 3;
        if left <= 0 {
            return Ok(None);
        }
        let mut cursor = Cursor::new(&mut self.blocks, start, offset)?;
        while left > 0 {
            let count = u64::from(cursor.u32()?) + 1;
            let inodes = u64::from(cursor.u32()?);
            cursor.skip(4)?;
            left -= 12;
            for _ in 0..count {
                let offset = cursor.u16()?;
                cursor.skip(4)?;
                let len = usize::from(cursor.u16()?) + 1;
                let found = cursor.take(len)?;
                left -= 8 + len as i64;
                if found == name.as_bytes() {
                    return Ok(Some(inodes << 16 | u64::from(offset)));
                }
                if left < 0 {
                    return Err(bad("a directory of it is longer than it says"));
                }
            }
        }
        Ok(None)
    }

    /// Returns what is at `path`, links followed; a file with its blocks where it has `most` bytes at most.
    fn find(&mut self, path: &str, most: usize) -> io::Result<Option<Inode>> {
        let mut rest: Vec<String> = parts(path);
        let mut above: Vec<Inode> = Vec::new();
        let mut here = self.inode(self.superblock.root, most)?;
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == ".." {
                here = above.pop().unwrap_or(here);
                continue;
            }
            let Some(reference) = self.entry(&here, &part)? else {
                return Ok(None);
            };
            let next = self.inode(reference, most)?;
            if let Inode::Link(target) = &next {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                if target.starts_with('/') {
                    here = above.drain(..).next().unwrap_or(here);
                }
                rest.extend(parts(target));
                if rest.len() > MAX_PARTS {
                    return Ok(None);
                }
                continue;
            }
            above.push(std::mem::replace(&mut here, next));
        }
        Ok(Some(here))
    }

    fn content(&mut self, file: &FileInode) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut at = file.start;
        let block_bytes = self.superblock.block as usize;
        for size in &file.blocks {
            let stored = (size & !IS_PLAIN) as usize;
            if stored == 0 {
                content.resize(content.len() + block_bytes, 0);
                continue;
            }
            let is_packed = size & IS_PLAIN == 0;
            let block = self.blocks.block(at, stored, is_packed, block_bytes)?;
            content.extend(block);
            at = at.saturating_add(stored as u64);
        }
        let size = usize::try_from(file.size).unwrap_or(usize::MAX);
        if file.fragment != NO_FRAGMENT {
            let fragment = self.fragment(file.fragment)?;
            let left = size.saturating_sub(content.len());
            let start = file.offset as usize;
            let tail = start
                .checked_add(left)
                .and_then(|end| fragment.get(start..end));
            content.extend(tail.ok_or_else(|| bad("a file of it leaves its fragment"))?);
        }
        if content.len() < size {
            return Err(bad("a file of it is cut off"));
        }
        content.truncate(size);
        Ok(content)
    }

    fn fragment(&mut self, number: u32) -> io::Result<Vec<u8>> {
        let place = u64::from(number) * FRAGMENT_BYTES as u64;
        let metadata = super::metadata::METADATA as u64;
        let index = self
            .superblock
            .fragments
            .saturating_add(place / metadata * 8);
        let start = le64(&self.blocks.bytes(index, 8)?, 0);
        let offset = (place % metadata) as u16;
        let mut cursor = Cursor::new(&mut self.blocks, start, offset)?;
        let entry = cursor.take(FRAGMENT_BYTES)?;
        let size = le32(&entry, 8);
        let stored = (size & !IS_PLAIN) as usize;
        let is_packed = size & IS_PLAIN == 0;
        let most = self.superblock.block as usize;
        self.blocks.block(le64(&entry, 0), stored, is_packed, most)
    }
}

impl Superblock {
    /// Reads the rest of a file's inode: of the short kind, 2, or the long one, 9; with its blocks where it has `most` bytes at most.
    fn file(&self, cursor: &mut Cursor<'_>, kind: u16, most: usize) -> io::Result<FileInode> {
        let (start, size, fragment, offset) = if kind == 2 {
            let start = cursor.u32()?.into();
            let (fragment, offset) = (cursor.u32()?, cursor.u32()?);
            (start, cursor.u32()?.into(), fragment, offset)
        } else {
            let (start, size) = (cursor.u64()?, cursor.u64()?);
            cursor.skip(12)?;
            let (fragment, offset) = (cursor.u32()?, cursor.u32()?);
            cursor.skip(4)?;
            (start, size, fragment, offset)
        };
        Ok(FileInode {
            start,
            size,
            fragment,
            offset,
            blocks: self.blocks(cursor, size, fragment, most)?,
        })
    }

    /// Reads the sizes of the blocks of a file, which stand behind its inode; of one with more than `most` bytes none.
    fn blocks(
        &self,
        cursor: &mut Cursor<'_>,
        size: u64,
        fragment: u32,
        most: usize,
    ) -> io::Result<Vec<u32>> {
        let block = u64::from(self.block);
        let count = match fragment {
            _ if size > most as u64 => 0,
            NO_FRAGMENT => size.div_ceil(block),
            _ => size / block,
        };
        (0..count).map(|_| cursor.u32()).collect()
    }
}

/// Returns the parts of a path, the last one first.
fn parts(path: &str) -> Vec<String> {
    let parts = path.rsplit('/');
    parts
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
        .collect()
}

impl RootFs for Reader {
    fn read(&mut self, path: &str, most: usize) -> io::Result<Result<Vec<u8>, Lack>> {
        match self.find(path, most)? {
            Some(Inode::File(file)) if file.size <= most as u64 => self.content(&file).map(Ok),
            Some(Inode::File(FileInode { size, .. })) => Ok(Err(Lack::TooLarge { size, most })),
            _ => Ok(Err(Lack::Missing)),
        }
    }

    fn is_file(&mut self, path: &str) -> io::Result<bool> {
        Ok(matches!(self.find(path, 0)?, Some(Inode::File(_))))
    }

    fn is_dir(&mut self, path: &str) -> io::Result<bool> {
        Ok(matches!(self.find(path, 0)?, Some(Inode::Dir { .. })))
    }
}
