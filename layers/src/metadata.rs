//! What a file object is, apart from its content and its name: the words that archives, root filesystems and changesets share.
//!
//! Plain values. Nothing here opens a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::fs::{FileType, Stat, Timespec};

/// Extended attributes by full name (`security.capability`, `user.mime_type`), both sides any bytes.
///
/// Sorted by name, so that an archive written from it does not depend on the order in which a filesystem lists them.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The permission, set-id and sticky bits of a mode; the rest of `st_mode` is the kind.
pub const MODE_BITS: u32 = 0o7777;

/// A point in time as filesystems and PAX headers have it: seconds since 1970, and nanoseconds after that second.
///
/// Times before 1970 have negative `secs`; `nanos` always counts forward and is below 1,000,000,000.
/// Half a second before 1970 is `{ secs: -1, nanos: 500_000_000 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

impl Timestamp {
    /// The start of 1970; what directories get that no archive entry describes.
    pub const EPOCH: Self = Self { secs: 0, nanos: 0 };

    /// Returns the time `secs` seconds after the start of 1970.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// Returns the earlier of this time and `secs`, the rule of `SOURCE_DATE_EPOCH`.
    #[must_use]
    pub fn clamped(self, secs: Option<i64>) -> Self {
        secs.map_or(self, |secs| self.min(Self::from_secs(secs)))
    }

    pub(crate) fn timespec(self) -> Timespec {
        Timespec {
            tv_sec: self.secs,
            tv_nsec: self.nanos.into(),
        }
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Device {
    /// Major number: which driver.
    pub major: u32,
    /// Minor number: which of the driver's devices.
    pub minor: u32,
}

impl Device {
    /// The number that overlayfs gives to a whiteout, made as a character device.
    pub const WHITEOUT: Self = Self { major: 0, minor: 0 };

    /// Tells whether Linux has such a number: 12 bits for the driver, 20 for the device. It makes another one of any other.
    ///
    /// Spec: `MKDEV` of linux/kdev_t.h.
    pub fn fits_linux(self) -> bool {
        self.major < 1 << 12 && self.minor < 1 << 20
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Self {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }

    pub(crate) fn raw(self) -> u64 {
        rustix::fs::makedev(self.major, self.minor)
    }
}

/// What kind of file object a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket: no archive can hold one.
    Socket,
}

impl FileKind {
    /// Returns `None` for a kind that no Linux filesystem has.
    pub(crate) fn from_raw(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// What one `stat` call says about a file object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of object.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits ([`MODE_BITS`]).
    pub mode: u32,
    /// Owner, as this process's user namespace shows it.
    pub uid: u32,
    /// Group, as this process's user namespace shows it.
    pub gid: u32,
    /// Size in bytes: of the content of a file, of the target of a symbolic link.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Time of the last change of anything, set by the kernel alone.
    pub ctime: Timestamp,
    /// Filesystem the object is on.
    pub dev: u64,
    /// Inode number, unique within `dev`.
    pub ino: u64,
    /// Number of names the object has.
    pub nlink: u64,
    /// Device number; meaningful for device nodes only.
    pub rdev: Device,
}

impl Metadata {
    pub(crate) fn from_stat(stat: &Stat) -> Self {
        let kind = FileKind::from_raw(FileType::from_raw_mode(stat.st_mode));
        Self {
            kind: kind.unwrap_or(FileKind::Socket),
            mode: stat.st_mode & MODE_BITS,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Timestamp {
                secs: stat.st_mtime,
                nanos: stat.st_mtime_nsec as u32,
            },
            ctime: Timestamp {
                secs: stat.st_ctime,
                nanos: stat.st_ctime_nsec as u32,
            },
            dev: stat.st_dev,
            ino: stat.st_ino,
            nlink: u64::from(stat.st_nlink as u32),
            rdev: Device::from_raw(stat.st_rdev),
        }
    }

    /// Returns what identifies the object behind any of its names while it exists.
    pub fn id(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// Returns whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Returns whether this is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}

/// What an archive entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file of `size` bytes; the holes of a sparse file count.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// Directory.
    Directory,
    /// Symbolic link; the target is kept byte for byte.
    Symlink {
        /// Where it points.
        target: PathBuf,
    },
    /// Another name for the file object at `target`.
    HardLink {
        /// Path of an entry of this archive, or of an object that was there before.
        target: PathBuf,
    },
    /// Character device.
    CharDevice(Device),
    /// Block device.
    BlockDevice(Device),
    /// Named pipe.
    Fifo,
}

/// One entry of an archive: a name and everything that belongs to it but the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path relative to the root of the tree. As read from an archive it is untrusted, and may be anything but empty.
    pub path: PathBuf,
    /// What to make.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits ([`MODE_BITS`]).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Entry {
    /// Returns an entry at `path` owned by 0:0, mode 0755 for directories and 0644 for the rest, changed at the epoch.
    pub fn new(path: impl Into<PathBuf>, kind: EntryKind) -> Self {
        let mode = match kind {
            EntryKind::Directory => 0o755,
            EntryKind::Symlink { .. } => 0o777,
            _ => 0o644,
        };
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::EPOCH,
            xattrs: Xattrs::new(),
        }
    }

    /// Returns the number of content bytes that follow the entry, holes included.
    pub fn content_size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }
}
