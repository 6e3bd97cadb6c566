//! How large a file system has to be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{BLOCK_BYTES, Ext4Error, FileId, Object, What};

const MIB: u64 = 1 << 20;
const GROUP_BLOCKS: u64 = 32_768;
const INODE_BYTES: u64 = 256;
const INODES_PER_BLOCK: u64 = BLOCK_BYTES / INODE_BYTES;
const MAX_INODES_PER_GROUP: u64 = 32_768;
const DESCRIPTOR_BYTES: u64 = 32;
/// Inodes that every file system has, `lost+found` being the last of them.
const OWN_INODES: u64 = 11;
/// Space for one inode, as mke2fs has it.
const BYTES_PER_INODE: u64 = 16_384;
/// The smallest journal, and the smallest file system: a journal takes at most a quarter.
const SMALLEST_JOURNAL: u64 = 1024;
const SMALLEST: u64 = 4 * SMALLEST_JOURNAL;
/// What a directory loses of each block when its names are sorted into blocks by their hashes.
const DIRECTORY_BLOCK_BYTES: u64 = BLOCK_BYTES - 12 - 264;
/// The longest target of a link that its inode has room for.
const SHORT_TARGET_BYTES: usize = 59;
/// Extended attributes up to so many bytes are in the inode.
const INODE_XATTR_BYTES: usize = 80;

/// How large a file system is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// At most so many bytes, of which a last part that is too short for a block group is left out.
    Exact(u64),
    /// As many whole MiB as the files take, and so many bytes free.
    Margin(u64),
}

/// What the files take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    blocks: u64,
    inodes: u64,
}

/// What the writer has to be told.
#[derive(Debug)]
pub(super) struct Geometry {
    blocks: u64,
    pub(super) inodes: u32,
    /// By the size, if not given.
    pub(super) journal_blocks: Option<u32>,
    may_grow: bool,
    /// How often it was too small.
    grown: u32,
}

pub(super) fn need(objects: &BTreeMap<PathBuf, Object>) -> Need {
    let mut names: BTreeMap<&std::path::Path, u64> = BTreeMap::new();
    let mut seen: std::collections::BTreeSet<FileId> = std::collections::BTreeSet::new();
    // `lost+found` has four blocks.
    let mut need = Need {
        blocks: 4,
        inodes: OWN_INODES,
    };
    for (path, object) in objects {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            *names.entry(parent).or_default() += 8 + (name.len() as u64).next_multiple_of(4);
        }
        need.inodes += 1;
        need.blocks += match &object.what {
            What::File { id, size } if seen.insert(*id) => {
                let blocks = size.div_ceil(BLOCK_BYTES);
                // Files in more than four pieces have blocks that say where they are.
                blocks + (blocks / GROUP_BLOCKS).div_ceil(4)
            }
            What::File { .. } => {
                need.inodes -= 1;
                0
            }
            What::Symlink(target) => u64::from(target.as_os_str().len() > SHORT_TARGET_BYTES),
            _ => 0,
        };
        let xattrs = &object.xattrs;
        let bytes: usize = xattrs
            .iter()
            .map(|(name, value)| 20 + name.len() + value.len())
            .sum();
        need.blocks += u64::from(bytes > INODE_XATTR_BYTES);
        if let What::Directory = object.what {
            names.entry(path).or_default();
        }
    }
    // One block more where there are several: the index.
    let of_directory = |bytes: &u64| match bytes.div_ceil(DIRECTORY_BLOCK_BYTES) {
        0 | 1 => 2,
        blocks => blocks + 1 + blocks / 500,
    };
    need.blocks += names.values().map(of_directory).sum::<u64>();
    need
}

impl Geometry {
    pub(super) fn new(size: Size, smallest_journal: bool, need: Need) -> Result<Self, Ext4Error> {
        let spare = need.inodes / 8 + 128;
        let (asked, margin) = match size {
            Size::Exact(bytes) => (Some(bytes), 0),
            Size::Margin(bytes) => (None, bytes),
        };
        let inodes = need.inodes + spare.max(asked.unwrap_or(margin) / BYTES_PER_INODE);
        let inodes = u32::try_from(inodes).map_err(|_| Ext4Error::Size(asked.unwrap_or(margin)))?;
        let mut geometry = Self {
            blocks: SMALLEST,
            inodes,
            journal_blocks: smallest_journal.then_some(SMALLEST_JOURNAL as u32),
            may_grow: asked.is_none(),
            grown: 0,
        };
        let wanted = need.blocks + margin.div_ceil(BLOCK_BYTES);
        // Groups are added until there is room; each has something for itself.
        while geometry.room() < wanted || !geometry.has_inodes() {
            let lacking = wanted.saturating_sub(geometry.room());
            geometry.resize(geometry.blocks + lacking.max(MIB / BLOCK_BYTES));
        }
        if let Some(asked) = asked {
            let needed = geometry.size();
            geometry.blocks = asked / BLOCK_BYTES;
            if geometry.blocks < SMALLEST {
                return Err(Ext4Error::Size(asked));
            }
            let short = geometry.blocks % GROUP_BLOCKS;
            if short < geometry.least_group() && geometry.blocks > GROUP_BLOCKS {
                geometry.blocks -= short;
            }
            if geometry.room() < need.blocks || !geometry.has_inodes() {
                return Err(Ext4Error::Full {
                    size: asked,
                    needed,
                });
            }
        }
        Ok(geometry)
    }

    pub(super) fn size(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// Makes it a little larger, where it may be and was not often.
    pub(super) fn grow(&mut self) -> bool {
        self.grown += 1;
        self.resize(self.blocks + self.blocks / 64);
        self.may_grow && self.grown < 8
    }

    /// Takes a size of whole MiB whose last group is large enough to be one.
    fn resize(&mut self, blocks: u64) {
        self.blocks = blocks.next_multiple_of(MIB / BLOCK_BYTES);
        let short = self.blocks % GROUP_BLOCKS;
        if short > 0 && short < self.least_group() {
            let missing = self.least_group() - short;
            self.blocks += missing.next_multiple_of(MIB / BLOCK_BYTES);
        }
    }

    fn groups(&self) -> u64 {
        self.blocks.div_ceil(GROUP_BLOCKS)
    }

    fn has_inodes(&self) -> bool {
        u64::from(self.inodes) <= self.groups() * MAX_INODES_PER_GROUP
    }

    /// Returns how many blocks the descriptors of all groups take.
    fn descriptors(&self) -> u64 {
        (self.groups() * DESCRIPTOR_BYTES).div_ceil(BLOCK_BYTES)
    }

    /// Returns how many blocks of inodes each group has.
    fn inode_blocks(&self) -> u64 {
        let per_group = u64::from(self.inodes).div_ceil(self.groups());
        per_group.div_ceil(INODES_PER_BLOCK)
    }

    /// Returns what a group must have room for: copies, bitmaps, inodes, and something besides.
    fn least_group(&self) -> u64 {
        1 + self.descriptors() + 2 + self.inode_blocks() + 64
    }

    /// Returns how many blocks are left for files and directories; somewhat less than there are.
    fn room(&self) -> u64 {
        let copies = self.groups().min(2 + self.groups() / 8);
        let own = copies * (1 + self.descriptors())
            + self.groups() * (2 + self.inode_blocks())
            // Where a table of inodes has to jump over a copy, some blocks stay free.
            + self.groups() / 16 * self.inode_blocks();
        let journal = self
            .journal_blocks
            .map_or_else(|| usual_journal(self.blocks), u64::from);
        self.blocks.saturating_sub(own + journal)
    }
}

/// Returns how many blocks of journal mke2fs makes.
fn usual_journal(blocks: u64) -> u64 {
    match blocks {
        0..32_768 => SMALLEST_JOURNAL,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16_384,
        4_194_304..8_388_608 => 32_768,
        8_388_608..16_777_216 => 65_536,
        16_777_216..33_554_432 => 131_072,
        _ => 262_144,
    }
}
