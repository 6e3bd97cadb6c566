//! ext4 and ext2 file systems, in a partition or in a file of another one.

use std::io::{self, ErrorKind, Read};

use ext4_view::{Ext4Error, Ext4Read};

use super::root::{Lack, RootFs};
use super::rule::Report;
use super::rules;
use crate::artifact::bytes::le32;
use crate::artifact::region::Region;

/// The superblock, from the start of the file system.
const SUPERBLOCK: u64 = 1024;
const MAX_BLOCK: u64 = 64 << 10;
/// No tool makes groups of fewer blocks; each takes memory.
const MIN_GROUP: u32 = 256;
/// One of 128 TiB has as many, with the sizes that tools choose.
const MAX_GROUPS: u64 = 1 << 20;
/// What every read counts at least.
const LEAST_READ: u64 = 4096;
/// What is read of a file system beside four times its size, at most.
const FREE_READ: u64 = 64 << 20;
/// What is read of a file system at most, however large it says that it is: a small image may be a disk of any size.
const MOST_READ: u64 = 64 << 30;
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

impl Bounded {
    fn new(place: Place) -> Self {
        let all = place.len().saturating_mul(4).saturating_add(FREE_READ);
        let left = all.min(MOST_READ);
        Self { place, left }
    }
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

/// What was found where a file system should be.
#[derive(Debug)]
pub(super) enum Opened {
    /// It can be read.
    Read(Ext4),
    /// Linux reads it, this program does not.
    Unread {
        /// Its label.
        label: String,
        /// The features for which that is so.
        features: String,
    },
}

impl Opened {
    /// Returns the label.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Read(volume) => volume.label(),
            Self::Unread { label, .. } => label.clone(),
        }
    }

    /// Returns what can be read of the file system called `path`; says so where that is nothing.
    pub(super) fn look_into(self, report: &mut Report, path: &str) -> Option<Ext4> {
        let mut held = report.hold(&rules::FILE_SYSTEM_UNREAD);
        match self {
            Self::Read(volume) => Some(volume),
            Self::Unread { features, .. } => {
                held.at(
                    path,
                    format!("it has features that are not read here: {features}"),
                );
                None
            }
        }
    }
}

impl Ext4 {
    /// Opens the file system in `region`.
    ///
    /// # Errors
    ///
    /// `InvalidData` where it is none, or damaged.
    pub(super) fn open(region: Region) -> io::Result<Opened> {
        Self::at(Place::Region(region))
    }

    /// Opens the file system in the file `path` of this one; none where there is no such file.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub(super) fn within(&self, path: &str) -> io::Result<Option<Opened>> {
        let Some(file) = self.file(path)? else {
            return Ok(None);
        };
        if file.metadata().len() > self.len {
            return Err(bad("it is larger than the file system that it is in"));
        }
        Self::at(Place::File(Box::new(file))).map(Some)
    }

    fn at(mut place: Place) -> io::Result<Opened> {
        let len = place.len();
        let superblock = Superblock::read(&mut place)?;
        superblock.check_size(len)?;
        if let Some(features) = superblock.unread()? {
            let label = superblock.label();
            return Ok(Opened::Unread { label, features });
        }
        let fs = ext4_view::Ext4::load(Box::new(Bounded::new(place)))?;
        Ok(Opened::Read(Self { fs, len }))
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

    /// Returns a text of `most` bytes at most.
    pub(super) fn text(&self, path: &str, most: usize) -> io::Result<Result<String, Lack>> {
        let bytes = self.clone().read(path, most)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Who reads a file system with some feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Linux,
    LinuxAndUs,
}

const IS_64BIT: u32 = 0x80;
/// Linux reads file systems without it, this program does not.
const FILETYPE: u32 = 0x2;
/// Features without which a file system cannot be read, by their bits and as `mke2fs` calls them.
///
/// Spec: Linux, Documentation/filesystems/ext4/super.rst, `s_feature_incompat`.
const FEATURES: [(u32, &str, By); 16] = [
    (0x1, "compression", By::Nobody),
    (FILETYPE, "filetype", By::LinuxAndUs),
    (0x4, "needs_recovery", By::LinuxAndUs),
    (0x8, "journal_dev", By::Nobody),
    (0x10, "meta_bg", By::Linux),
    (0x40, "extent", By::LinuxAndUs),
    (IS_64BIT, "64bit", By::LinuxAndUs),
    (0x100, "mmp", By::Linux),
    (0x200, "flex_bg", By::LinuxAndUs),
    (0x400, "ea_inode", By::Linux),
    (0x1000, "dirdata", By::Nobody),
    (0x2000, "metadata_csum_seed", By::LinuxAndUs),
    (0x4000, "large_dir", By::Linux),
    (0x8000, "inline_data", By::Linux),
    (0x1_0000, "encrypt", By::LinuxAndUs),
    (0x2_0000, "casefold", By::Linux),
];

/// Returns the names of those of `features` that are read `by` these; of those without a name their bits.
fn names(features: u32, by: By) -> Vec<String> {
    let known = FEATURES
        .iter()
        .filter(|it| it.2 == by && features & it.0 != 0);
    let mut names: Vec<String> = known.map(|it| it.1.to_owned()).collect();
    let named = FEATURES.iter().fold(0, |all, it| all | it.0);
    if by == By::Nobody && features & !named != 0 {
        names.push(format!("{:#x}", features & !named));
    }
    names
}

/// The first bytes of a file system.
struct Superblock([u8; 1024]);

impl Superblock {
    fn read(place: &mut Place) -> io::Result<Self> {
        let mut bytes = [0; 1024];
        if place.len() < SUPERBLOCK + bytes.len() as u64 {
            return Err(bad("it is too small for any file system"));
        }
        place.read_at(SUPERBLOCK, &mut bytes)?;
        if bytes[0x38..0x3a] != [0x53, 0xef] {
            return Err(bad("it is no ext4 file system"));
        }
        Ok(Self(bytes))
    }

    fn features(&self) -> u32 {
        le32(&self.0, 0x60)
    }

    fn label(&self) -> String {
        let label = self.0[0x78..0x88].split(|byte| *byte == 0).next();
        String::from_utf8_lossy(label.unwrap_or_default()).into_owned()
    }

    /// Returns the features for which it is not read here, though Linux does.
    fn unread(&self) -> io::Result<Option<String>> {
        let features = self.features();
        let foreign = names(features, By::Nobody).join(", ");
        if !foreign.is_empty() {
            let why = format!("it has features that Linux does not read: {foreign}");
            return Err(bad(&why));
        }
        let mut unread = names(features, By::Linux);
        if features & FILETYPE == 0 {
            unread.push("^filetype".to_owned());
        }
        Ok((!unread.is_empty()).then(|| unread.join(", ")))
    }

    /// Checks the numbers that decide how much memory reading the file system takes, which has `len` bytes.
    ///
    /// Spec: Linux, Documentation/filesystems/ext4/super.rst.
    fn check_size(&self, len: u64) -> io::Result<()> {
        let high = match self.features() & IS_64BIT {
            0 => 0,
            _ => le32(&self.0, 0x150),
        };
        let blocks = u64::from(le32(&self.0, 0x4)) | u64::from(high) << 32;
        let block = 1024u64
            .checked_shl(le32(&self.0, 0x18))
            .filter(|block| (1024..=MAX_BLOCK).contains(block));
        let block = block.ok_or_else(|| bad("the size of its blocks is unknown"))?;
        let per_group = le32(&self.0, 0x20);
        if per_group < MIN_GROUP {
            return Err(bad("its groups have too few blocks"));
        }
        let groups = blocks.div_ceil(per_group.into());
        if groups > MAX_GROUPS {
            return Err(bad(&format!(
                "it has {groups} groups of blocks, more than the {MAX_GROUPS} that are read"
            )));
        }
        match blocks.checked_mul(block) {
            Some(bytes) if bytes <= len => Ok(()),
            _ => Err(bad("it is larger than the place it has")),
        }
    }
}

impl RootFs for Ext4 {
    fn read(&mut self, path: &str, most: usize) -> io::Result<Result<Vec<u8>, Lack>> {
        let Some(file) = self.file(path)? else {
            return Ok(Err(Lack::Missing));
        };
        let size = file.metadata().len();
        if size > most as u64 {
            return Ok(Err(Lack::TooLarge { size, most }));
        }
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes)?;
        Ok(Ok(bytes))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::artifact::region::ReadAt;

    /// A superblock, and zeros as far as anybody likes.
    #[derive(Debug)]
    struct Endless([u8; 1024]);

    impl ReadAt for Endless {
        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            bytes.fill(0);
            if offset == SUPERBLOCK {
                bytes.copy_from_slice(&self.0);
            }
            Ok(())
        }
    }

    /// Returns a file system of 2^40 blocks of 1 KiB, in groups of `per_group`.
    fn endless(per_group: u32) -> Region {
        let mut bytes = [0; 1024];
        bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        bytes[0x20..0x24].copy_from_slice(&per_group.to_le_bytes());
        bytes[0x28..0x2c].copy_from_slice(&16u32.to_le_bytes());
        bytes[0x58..0x5a].copy_from_slice(&128u16.to_le_bytes());
        // Types in directories, and numbers of 64 bits.
        bytes[0x60] = 0x82;
        bytes[0xfe] = 64;
        bytes[0x151] = 1;
        Region::of_view(Arc::new(Endless(bytes)), 1 << 50)
    }

    #[test]
    fn groups_that_would_fill_the_memory_are_refused_by_their_number() {
        let said = Ext4::open(endless(1 << 12)).unwrap_err().to_string();
        assert!(said.contains("it has 268435456 groups of blocks"), "{said}");
    }

    #[test]
    fn a_file_system_that_only_linux_reads_is_told_with_its_label_and_its_features() {
        let open = |features: u32| {
            let mut bytes = [0; 1024];
            bytes[0x4] = 8;
            bytes[0x21] = 0x20;
            bytes[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            bytes[0x60..0x64].copy_from_slice(&features.to_le_bytes());
            bytes[0x78..0x7f].copy_from_slice(b"COS_OEM");
            Ext4::open(Region::of_view(Arc::new(Endless(bytes)), 1 << 20))
        };
        for (bits, wanted) in [
            (0x8002, "inline_data"),
            (0x2_4102, "mmp, large_dir, casefold"),
            (0x40, "^filetype"),
        ] {
            let Ok(Opened::Unread { label, features }) = open(bits) else {
                panic!("{bits:#x} is read, or refused");
            };
            assert_eq!((label.as_str(), features.as_str()), ("COS_OEM", wanted));
        }
        let said = open(0x8010_0003).unwrap_err().to_string();
        assert!(
            said.contains("Linux does not read: compression, 0x80100000"),
            "{said}"
        );
    }

    #[test]
    fn a_disk_without_end_is_not_read_without_end() {
        let small = Region::of_view(Arc::new(Endless([0; 1024])), 1 << 20);
        let left = |region| Bounded::new(Place::Region(region)).left;
        assert_eq!(left(small), (4 << 20) + FREE_READ);
        assert_eq!(left(endless(1 << 12)), MOST_READ);
    }
}
