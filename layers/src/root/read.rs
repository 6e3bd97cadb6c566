//! The operations of a root that change nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Root, RootError};
use crate::handle;
use crate::metadata::{FileKind, Metadata, Xattrs};

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, any bytes but `/`.
    pub name: OsString,
    /// Kind of the object itself, links not followed.
    pub kind: FileKind,
}

impl Root {
    /// The most that [`read_opt`](Self::read_opt) reads: 64 MiB, far above any text or database that a step edits.
    pub const READ_LIMIT: u64 = 64 << 20;

    /// Reads the file at `path`, links followed; `None` when it does not exist. At most [`READ_LIMIT`](Self::READ_LIMIT) bytes.
    ///
    /// # Errors
    ///
    /// [`RootError::NotAFile`], [`RootError::TooLarge`], [`RootError::Io`].
    pub fn read_opt(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>, RootError> {
        self.read_at_most(path, Self::READ_LIMIT)
    }

    /// Reads the file at `path`, links followed; `None` when it does not exist. More than `limit` bytes are an error.
    ///
    /// # Errors
    ///
    /// [`RootError::NotAFile`], [`RootError::TooLarge`], [`RootError::Io`].
    pub fn read_at_most(
        &self,
        path: impl AsRef<Path>,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, RootError> {
        let path = path.as_ref();
        let Some(file) = self.open_file_opt(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| RootError::io("reading", path, error))?;
        if bytes.len() as u64 > limit {
            return Err(RootError::TooLarge {
                path: path.to_owned(),
                limit,
            });
        }
        Ok(Some(bytes))
    }

    /// Reads the text file at `path`, links followed; `None` when it does not exist. At most [`READ_LIMIT`](Self::READ_LIMIT) bytes.
    ///
    /// # Errors
    ///
    /// [`RootError::NotUtf8`], and those of [`read_opt`](Self::read_opt).
    pub fn read_to_string_opt(&self, path: impl AsRef<Path>) -> Result<Option<String>, RootError> {
        let path = path.as_ref();
        let Some(bytes) = self.read_opt(path)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| RootError::NotUtf8 {
                path: path.to_owned(),
            })
    }

    /// Opens the regular file at `path` for reading, links followed; `None` when it does not exist.
    ///
    /// Device nodes and pipes in the tree are never opened, since opening alone can act on a device or wait for ever.
    ///
    /// # Errors
    ///
    /// [`RootError::NotAFile`], [`RootError::Io`].
    pub fn open_file_opt(&self, path: impl AsRef<Path>) -> Result<Option<File>, RootError> {
        let path = path.as_ref();
        match self.stat(path, true)? {
            None => return Ok(None),
            Some(found) if found.is_file() => {}
            Some(_) => {
                return Err(RootError::NotAFile {
                    path: path.to_owned(),
                });
            }
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match handle::open_in_root(self.as_fd(), path, flags) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(errno) => Err(RootError::io("opening", path, errno)),
        }
    }

    /// Returns the metadata of what `path` leads to, links followed; `None` when it does not exist.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`].
    pub fn metadata_opt(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, RootError> {
        self.stat(path.as_ref(), true)
    }

    /// Returns the metadata of `path` itself, a link in last place not followed; `None` when it does not exist.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`].
    pub fn symlink_metadata_opt(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<Option<Metadata>, RootError> {
        self.stat(path.as_ref(), false)
    }

    /// Returns whether `path` leads to something, links followed.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: a directory on the way may not be searched, or links go round in a circle.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool, RootError> {
        Ok(self.metadata_opt(path)?.is_some())
    }

    /// Returns the target of the symbolic link `path`, byte for byte; `None` when `path` does not exist or is no link.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`].
    pub fn read_link_opt(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, RootError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let found = handle::open_in_root(self.as_fd(), path, flags).and_then(|fd| {
            if handle::stat_fd(&fd)?.is_symlink() {
                handle::read_link(fd.as_fd(), "".as_ref()).map(Some)
            } else {
                Ok(None)
            }
        });
        match found {
            Ok(target) => Ok(target),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(RootError::io("reading the link", path, errno)),
        }
    }

    /// Lists the directory `path`, links followed, sorted by the bytes of the names.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>, RootError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let entries = handle::open_in_root(self.as_fd(), path, flags)
            .and_then(|dir| handle::list(dir.as_fd()))
            .map_err(|errno| RootError::io("listing", path, errno))?;
        Ok(entries
            .into_iter()
            .map(|(name, kind)| DirEntry { name, kind })
            .collect())
    }

    /// Returns the extended attributes of `path` itself, a link in last place not followed; the empty path is the root. Needs `/proc`.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`], also when it does not exist.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> Result<Xattrs, RootError> {
        let path = path.as_ref();
        let (dir, name) = self.object("reading the attributes of", path)?;
        handle::xattrs(dir.as_fd(), name)
            .map_err(|errno| RootError::io("reading the attributes of", path, errno))
    }
}
