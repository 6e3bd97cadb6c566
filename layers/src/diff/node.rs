//! Everything that a changeset says about one object, read from a tree, and whether two of them are the same.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::CaptureError;
use crate::handle::{self, read_full};
use crate::metadata::{Entry, EntryKind, FileKind, Metadata, Xattrs};
use crate::overlay::is_overlay_xattr;

/// Two files are compared in pieces of this size, in bytes.
const COMPARE_BUFFER: usize = 64 * 1024;

/// One object of a tree.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) meta: Metadata,
    /// Where a symbolic link points.
    pub(super) target: PathBuf,
    pub(super) xattrs: Xattrs,
    /// The notes of overlayfs, which are no part of the object.
    pub(super) overlay: Xattrs,
}

impl Node {
    /// Reads the object `name` of `dir`; `None` when there is none, or one that no archive can hold.
    pub(super) fn read(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Self>, Errno> {
        let Some(meta) = handle::stat_opt(dir, name)? else {
            return Ok(None);
        };
        if meta.kind == FileKind::Socket {
            return Ok(None);
        }
        let target = if meta.is_symlink() {
            handle::read_link(dir, name)?
        } else {
            PathBuf::new()
        };
        let mut xattrs = handle::xattrs(dir, name)?;
        let mut overlay = Xattrs::new();
        if !xattrs.is_empty() {
            overlay = xattrs.clone();
            overlay.retain(|name, _| is_overlay_xattr(name));
            xattrs.retain(|name, _| !is_of_the_machine(name));
        }
        Ok(Some(Self {
            meta,
            target,
            xattrs,
            overlay,
        }))
    }

    /// Returns whether a changeset would say the same about this object and what became of it, the content of files and the times of
    /// directories aside.
    pub(super) fn is_like(&self, after: &Self) -> bool {
        let (a, b) = (&self.meta, &after.meta);
        a.kind == b.kind
            && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid)
            && self.xattrs == after.xattrs
            && !self.has_new_names(after)
            && match a.kind {
                FileKind::Directory => true,
                FileKind::File => (a.size, a.mtime) == (b.size, b.mtime),
                FileKind::Symlink => self.target == after.target && a.mtime == b.mtime,
                _ => (a.rdev, a.mtime) == (b.rdev, b.mtime),
            }
    }

    /// A name that looks as before but is now one of several may have been replaced by a link.
    fn has_new_names(&self, after: &Self) -> bool {
        !self.meta.is_dir() && after.meta.nlink > self.meta.nlink
    }

    /// Returns the archive entry that makes this object.
    pub(super) fn entry(&self, path: PathBuf) -> Entry {
        let kind = match self.meta.kind {
            FileKind::File => EntryKind::File {
                size: self.meta.size,
            },
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink {
                target: self.target.clone(),
            },
            FileKind::CharDevice => EntryKind::CharDevice(self.meta.rdev),
            FileKind::BlockDevice => EntryKind::BlockDevice(self.meta.rdev),
            // Sockets never become nodes.
            FileKind::Fifo | FileKind::Socket => EntryKind::Fifo,
        };
        Entry {
            path,
            kind,
            mode: self.meta.mode,
            uid: self.meta.uid,
            gid: self.meta.gid,
            mtime: self.meta.mtime,
            xattrs: self.xattrs.clone(),
        }
    }
}

/// What differs between machines, or between those who may see it and those who may not.
fn is_of_the_machine(name: &[u8]) -> bool {
    is_overlay_xattr(name) || name.starts_with(b"trusted.") || name == b"security.selinux"
}

/// Opens the regular file `name` of `dir` for reading.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// Returns whether two files of one size have the same content.
pub(super) fn same_content(a: &mut File, b: &mut File, path: &Path) -> Result<bool, CaptureError> {
    let fail = |error| CaptureError::io("comparing", path, error);
    let (mut left, mut right) = (vec![0; COMPARE_BUFFER], vec![0; COMPARE_BUFFER]);
    loop {
        let count = read_full(a, &mut left).map_err(fail)?;
        if read_full(b, &mut right).map_err(fail)? != count || left[..count] != right[..count] {
            return Ok(false);
        }
        if count < COMPARE_BUFFER {
            return Ok(true);
        }
    }
}

/// Opens the directory `path` of the tree at `root`: of the directories above none has to stay open, however deep this one is.
pub(super) fn open_dir(root: impl AsFd, path: &Path) -> Result<OwnedFd, CaptureError> {
    handle::open_dir_plain(root.as_fd(), path)
        .map_err(|errno| CaptureError::io("opening", path, errno))
}
