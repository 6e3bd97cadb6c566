//! The first bytes of a squashfs.
//!
//! Spec: Linux `fs/squashfs/squashfs_fs.h`.

use crate::artifact::bytes::{le16, le32, le64};

pub(super) const BYTES: usize = 96;
/// Where there is no such table.
const NONE: u64 = u64::MAX;

/// What it says of the rest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Superblock {
    /// The number of the way in which it is compressed.
    pub(super) compressor: u16,
    /// Bytes of a block of data.
    pub(super) block: u32,
    /// Bytes of the whole.
    pub(super) used: u64,
    /// The root directory: the block of its inode, from the start of the table, and the place in that.
    pub(super) root: u64,
    pub(super) inodes: u64,
    pub(super) directories: u64,
    pub(super) fragments: u64,
}

impl Superblock {
    /// Reads it of a squashfs in a file of `len` bytes; otherwise how it is wrong.
    pub(super) fn read(bytes: &[u8; BYTES], len: u64) -> Result<Self, String> {
        if bytes[..4] != *b"hsqs" {
            return Err("it does not begin as a squashfs does".to_owned());
        }
        let version = (le16(bytes, 28), le16(bytes, 30));
        if version != (4, 0) {
            let (major, minor) = version;
            return Err(format!("its version is {major}.{minor}, Linux reads 4.0"));
        }
        let found = Self {
            compressor: le16(bytes, 20),
            block: le32(bytes, 12),
            used: le64(bytes, 40),
            root: le64(bytes, 32),
            inodes: le64(bytes, 64),
            directories: le64(bytes, 72),
            fragments: le64(bytes, 80),
        };
        let power = u32::from(le16(bytes, 22));
        if !(12..=20).contains(&power) || found.block != 1 << power {
            let block = found.block;
            return Err(format!("blocks of {block} bytes (2^{power}) do not exist"));
        }
        let used = found.used;
        if used > len {
            let missing = used - len;
            return Err(format!(
                "it has {used} bytes, of which {missing} are missing"
            ));
        }
        // Three of the tables need not be there.
        for (at, name, is_needed) in [
            (48, "identifiers", true),
            (56, "attributes", false),
            (64, "inodes", true),
            (72, "directories", true),
            (80, "fragments", false),
            (88, "exports", false),
        ] {
            let place = le64(bytes, at);
            let is_inside = (BYTES as u64..used).contains(&place);
            if !is_inside && (is_needed || place != NONE) {
                return Err(format!(
                    "its table of {name} is at {place}, of {used} bytes"
                ));
            }
        }
        match found.inodes < found.directories {
            true => Ok(found),
            false => Err("its directories stand before its inodes".to_owned()),
        }
    }
}
