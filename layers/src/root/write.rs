//! The operations of a root that change it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Root, RootError};
use crate::handle::{self, TEMP_PREFIX};
use crate::ledger::LedgerDevice;
use crate::metadata::{MODE_BITS, Timestamp};

/// Tells temporary names of one process apart.
static TEMP_COUNTER: AtomicU64 = AtomicU64::new(0);

/// The bits that the kernel clears when the owner changes.
const SET_ID_BITS: u32 = 0o6000;

impl Root {
    /// Writes `bytes` as the whole content of `path`, with this mode and owner.
    ///
    /// The file appears whole or not at all: it is written under a temporary name in the same directory and renamed. What stood at
    /// `path` is replaced, also a link (not its target) and also one of several hard links (the others keep the old content).
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: a parent is missing, `path` is a directory, or the owner may not be given.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]>,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), RootError> {
        self.copy_in(bytes.as_ref(), path, mode, uid, gid).map(drop)
    }

    /// As [`write`](Self::write), with the content streamed from `content`. Returns its size in bytes.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write); also [`RootError::Io`] when `content` cannot be read.
    pub fn copy_in(
        &self,
        mut content: impl Read,
        path: impl AsRef<Path>,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<u64, RootError> {
        let path = path.as_ref();
        let (dir, name) = self.parent("writing", path)?;
        let mut size = 0;
        self.place(dir.as_fd(), name, |temp| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&dir, temp, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(fd);
            size = io::copy(&mut content, &mut file)?;
            rustix::fs::fchown(&file, Some(owner(uid)?), Some(group(gid)?))?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & MODE_BITS))?;
            Ok(())
        })
        .map_err(|error| RootError::io("writing", path, error))?;
        Ok(size)
    }

    /// Makes a symbolic link at `path`, replacing what stands there unless that is a directory.
    ///
    /// A link that already points to `target` is left as it is. `target` is stored byte for byte and need not exist.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: a parent is missing, or `path` is a directory.
    pub fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), RootError> {
        let (target, path) = (target.as_ref(), path.as_ref());
        let (dir, name) = self.parent("linking", path)?;
        if handle::read_link(dir.as_fd(), name)
            .is_ok_and(|found| found.as_os_str() == target.as_os_str())
        {
            return Ok(());
        }
        self.place(dir.as_fd(), name, |temp| {
            Ok(rustix::fs::symlinkat(target, &dir, temp)?)
        })
        .map_err(|error| RootError::io("linking", path, error))
    }

    /// Makes `path` another name of `existing`, replacing what stands there unless that is a directory.
    ///
    /// A link in last place of `existing` is linked itself.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: `existing` does not exist or is a directory, a parent is missing, or `path` is a directory.
    pub fn hard_link(
        &self,
        existing: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), RootError> {
        let (existing, path) = (existing.as_ref(), path.as_ref());
        let (from, from_name) = self.parent("linking to", existing)?;
        let (dir, name) = self.parent("linking", path)?;
        let fail = |errno: io::Error| RootError::io("linking", path, errno);
        let id = |dir: BorrowedFd<'_>, name| {
            handle::stat_opt(dir, name).map(|found| found.map(|found| found.id()))
        };
        let wanted = id(from.as_fd(), from_name).map_err(|errno| fail(errno.into()))?;
        // Renaming one name of an object over another does nothing and leaves the temporary name behind.
        if wanted.is_some() && id(dir.as_fd(), name).map_err(|errno| fail(errno.into()))? == wanted
        {
            return Ok(());
        }
        self.place(dir.as_fd(), name, |temp| {
            Ok(rustix::fs::linkat(
                &from,
                from_name,
                &dir,
                temp,
                AtFlags::empty(),
            )?)
        })
        .map_err(fail)
    }

    /// Makes the directory `path` and the missing ones above it, each with `mode` and owned by the caller.
    ///
    /// Directories that exist, also behind links, keep their mode. A link that dangles is not replaced.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: something on the way is not a directory.
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), RootError> {
        let path = path.as_ref();
        let fail = |errno| RootError::io("making the directory", path, errno);
        let mut made = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => made.push(name),
                Component::ParentDir => made.push(".."),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => continue,
            }
            match self.stat(&made, true)? {
                Some(found) if found.is_dir() => {}
                Some(_) => return Err(fail(Errno::NOTDIR)),
                None => self.create_dir(&made, mode)?,
            }
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path, mode: u32) -> Result<(), RootError> {
        let fail = |errno| RootError::io("making the directory", path, errno);
        let (dir, name) = self.parent("making the directory", path)?;
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).map_err(fail)?;
        // The umask of the process has no say in an image.
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        rustix::fs::chmodat(&dir, name, mode, AtFlags::empty()).map_err(fail)
    }

    /// Removes the name `path`, unless it is a directory. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: it is a directory, or may not be removed.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<bool, RootError> {
        let path = path.as_ref();
        let removed = self.parent("removing", path).and_then(|(dir, name)| {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty())
                .map_err(|errno| RootError::io("removing", path, errno))
        });
        absent_is_false(removed)
    }

    /// Removes `path` and, when it is a directory, everything below it. Returns whether it was there.
    ///
    /// Links below are removed, never followed.
    ///
    /// # Errors
    ///
    /// [`RootError::NoName`] for the root itself; [`RootError::Io`], with part of the tree gone.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<bool, RootError> {
        let path = path.as_ref();
        let removed = self.parent("removing", path).and_then(|(dir, name)| {
            let fail = |errno| RootError::io("removing", path, errno);
            let found = handle::stat_opt(dir.as_fd(), name).map_err(fail)?;
            found.ok_or(Errno::NOENT).map_err(fail)?;
            handle::remove_tree(dir.as_fd(), name).map_err(fail)
        });
        absent_is_false(removed)
    }

    /// Moves `from` to `to`, replacing a file there, or an empty directory by a directory.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), RootError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let (from_dir, from_name) = self.parent("renaming", from)?;
        let (to_dir, to_name) = self.parent("renaming to", to)?;
        rustix::fs::renameat(&from_dir, from_name, &to_dir, to_name)
            .map_err(|errno| RootError::io("renaming", from, errno))
    }

    /// Sets the mode of what `path` leads to, links followed: a link has no mode of its own.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "setting the mode of";
        let (dir, name) = self.parent_followed(op, path)?;
        let mode = Mode::from_raw_mode(mode & MODE_BITS);
        rustix::fs::chmodat(&dir, &name, mode, AtFlags::empty())
            .map_err(|errno| RootError::io(op, path, errno))
    }

    /// Sets the owner of `path` itself, a link in last place not followed; the empty path is the root. Set-id bits stay; `security.capability` does not.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist or the owner may not be given.
    pub fn set_owner(&self, path: impl AsRef<Path>, uid: u32, gid: u32) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "setting the owner of";
        let (dir, name) = self.object(op, path)?;
        set_owner(dir.as_fd(), name, uid, gid).map_err(|errno| RootError::io(op, path, errno))
    }

    /// Sets the time of the last change of `path` itself, a link in last place not followed; the empty path is the root.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist.
    pub fn set_mtime(&self, path: impl AsRef<Path>, mtime: Timestamp) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "setting the time of";
        let (dir, name) = self.object(op, path)?;
        handle::set_mtime(dir.as_fd(), name, mtime).map_err(|errno| RootError::io(op, path, errno))
    }

    /// Sets one extended attribute of `path` itself, a link in last place not followed. Needs `/proc`.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist or the attribute may not be set.
    pub fn set_xattr(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<OsStr>,
        value: &[u8],
    ) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "setting an attribute of";
        let (dir, last) = self.object(op, path)?;
        let full = handle::proc_path(dir.as_fd(), last);
        rustix::fs::lsetxattr(full, name.as_ref(), value, XattrFlags::empty())
            .map_err(|errno| RootError::io(op, path, errno))
    }

    /// Makes a device node at `path`, with mode 0600, replacing what stands there unless that is a directory.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: a parent is missing, `path` is a directory, or this process may not: it takes `CAP_MKNOD` outside of every
    /// user namespace.
    pub fn make_device(
        &self,
        path: impl AsRef<Path>,
        device: LedgerDevice,
    ) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "making the device node";
        let (dir, name) = self.parent(op, path)?;
        let kind = match device {
            LedgerDevice::Char(..) => FileType::CharacterDevice,
            LedgerDevice::Block(..) => FileType::BlockDevice,
        };
        let mode = Mode::RUSR.union(Mode::WUSR);
        self.place(dir.as_fd(), name, |temp| {
            let number = device.device().raw();
            Ok(rustix::fs::mknodat(&dir, temp, kind, mode, number)?)
        })
        .map_err(|error| RootError::io(op, path, error))
    }

    /// Cuts the file that `path` leads to, or grows it with a hole, to `size` bytes. It stays the same file object.
    ///
    /// # Errors
    ///
    /// [`RootError::NotAFile`]; [`RootError::Io`], also when it does not exist.
    pub fn truncate(&self, path: impl AsRef<Path>, size: u64) -> Result<(), RootError> {
        let path = path.as_ref();
        let op = "truncating";
        let fail = |errno| RootError::io(op, path, errno);
        match self.stat(path, true)? {
            None => return Err(fail(Errno::NOENT)),
            Some(found) if found.is_file() => {}
            Some(_) => {
                return Err(RootError::NotAFile {
                    path: path.to_owned(),
                });
            }
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let file = handle::open_in_root(self.as_fd(), path, flags).map_err(fail)?;
        rustix::fs::ftruncate(&file, size).map_err(fail)
    }

    /// Lets `make` create an object under a temporary name in `dir` and renames it to `name`; cleans up on failure.
    fn place(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        make: impl FnOnce(&OsStr) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = TEMP_COUNTER.fetch_add(1, Ordering::Relaxed);
        let temp = OsString::from(format!("{TEMP_PREFIX}{}.{number}", std::process::id()));
        // Only a killed run with the same process number can have left this name.
        handle::remove_tree(dir, &temp)?;
        let placed = make(&temp).and_then(|()| Ok(rustix::fs::renameat(dir, &temp, dir, name)?));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dir, &temp, AtFlags::empty());
        }
        placed
    }
}

/// Sets owner and group of `name` itself and gives back the set-id bits that the kernel takes away for it.
fn set_owner(dir: BorrowedFd<'_>, name: &OsStr, uid: u32, gid: u32) -> Result<(), Errno> {
    let before = handle::stat_opt(dir, name)?.ok_or(Errno::NOENT)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, Some(owner(uid)?), Some(group(gid)?), flags)?;
    if before.is_file() && before.mode & SET_ID_BITS != 0 {
        rustix::fs::chmodat(
            dir,
            name,
            Mode::from_raw_mode(before.mode),
            AtFlags::empty(),
        )?;
    }
    Ok(())
}

/// The number that means "leave as it is" to the kernel cannot own a file.
pub(crate) fn owner(uid: u32) -> Result<Uid, Errno> {
    (uid != u32::MAX)
        .then(|| Uid::from_raw(uid))
        .ok_or(Errno::INVAL)
}

/// As [`owner`], for groups.
pub(crate) fn group(gid: u32) -> Result<Gid, Errno> {
    (gid != u32::MAX)
        .then(|| Gid::from_raw(gid))
        .ok_or(Errno::INVAL)
}

fn absent_is_false(removed: Result<(), RootError>) -> Result<bool, RootError> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.io_kind() == Some(io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}
