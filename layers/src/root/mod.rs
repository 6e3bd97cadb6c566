//! A root filesystem reached through one directory handle, out of which no operation can leave.
//!
//! Paths are relative to that root; a leading `/` means the same. Symbolic links resolve as they would for a process whose root
//! directory this is: absolute targets start at the root, and `..` stops there. An operation that makes, replaces, moves or removes a name
//! acts on the name itself, never on what a link in last place points to.
//!
//! No handle below the root is kept between calls, so commands may change the tree in between.

mod read;
mod write;

pub(crate) use write::{group, owner};

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::handle;
use crate::metadata::{FileKind, Metadata};

pub use read::DirEntry;

/// Most symbolic links followed in one lookup; the kernel's own number.
const MAX_LINKS: usize = 40;

/// Why an operation in a [`Root`] was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The system refused.
    #[error("{op} {path:?}")]
    Io {
        /// What was being done, as a gerund ("writing").
        op: &'static str,
        /// Path inside the root, or of the root itself while it is opened.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The path cannot name an object to make, replace, move or remove: it is the root itself, or it ends in `..`.
    #[error("{op} {path:?}: the path names no entry of a directory")]
    NoName {
        /// What was being done.
        op: &'static str,
        /// The path as given.
        path: PathBuf,
    },
    /// Content was asked of something that is not a regular file.
    #[error("{path:?} is not a regular file")]
    NotAFile {
        /// Path inside the root.
        path: PathBuf,
    },
    /// A file is larger than the caller is ready to read into memory.
    #[error("{path:?} is larger than {limit} bytes")]
    TooLarge {
        /// Path inside the root.
        path: PathBuf,
        /// The most that would have been read, in bytes.
        limit: u64,
    },
    /// Text was asked of a file that is not UTF-8.
    #[error("{path:?} is not UTF-8 text")]
    NotUtf8 {
        /// Path inside the root.
        path: PathBuf,
    },
}

impl RootError {
    /// Returns the system's reason, where it was the system that refused.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// A directory that serves as the root of a tree.
///
/// Cheap to share between threads by reference. See the [module](self) for what a path means.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the directory `path` as a root. Here alone a path of the host is followed.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: it does not exist, is no directory, or may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RootError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| RootError::io("opening the root", path, errno))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Returns the path the root was opened by. For messages, and for handing to other programs; never for joining paths to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path at which `path`, with every link followed, stands inside the root: relative, empty for the root itself.
    ///
    /// `None` when it does not exist, as when a link dangles or a directory on the way is missing.
    ///
    /// # Errors
    ///
    /// [`RootError::Io`]: too many links, or a directory that may not be searched.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, RootError> {
        let path = path.as_ref();
        match self.resolve_links(path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(RootError::io("resolving", path, errno)),
        }
    }

    /// Follows links here and not in the kernel, which can open what a path leads to but not say where that is.
    fn resolve_links(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut done = PathBuf::new();
        let mut rest: Vec<PathBuf> = vec![path.to_owned()];
        let mut links = 0;
        while let Some(next) = rest.pop() {
            let mut components = next.components();
            let Some(component) = components.next() else {
                continue;
            };
            if !components.as_path().as_os_str().is_empty() {
                rest.push(components.as_path().to_owned());
            }
            match component {
                Component::RootDir | Component::Prefix(_) => done.clear(),
                Component::CurDir => {}
                Component::ParentDir => {
                    done.pop();
                }
                Component::Normal(name) => {
                    let dir =
                        handle::open_plain(self.as_fd(), &done, OFlags::PATH | OFlags::DIRECTORY)?;
                    let found = handle::stat_opt(dir.as_fd(), name)?.ok_or(Errno::NOENT)?;
                    if found.is_symlink() {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        rest.push(handle::read_link(dir.as_fd(), name)?);
                    } else {
                        done.push(name);
                        if !rest.is_empty() && found.kind != FileKind::Directory {
                            return Err(Errno::NOTDIR);
                        }
                    }
                }
            }
        }
        Ok(done)
    }

    /// Opens the directory that holds `path`, links followed, and splits off the last name, which may not exist.
    fn parent<'a>(
        &self,
        op: &'static str,
        path: &'a Path,
    ) -> Result<(OwnedFd, &'a OsStr), RootError> {
        let name = path.file_name().ok_or_else(|| RootError::NoName {
            op,
            path: path.to_owned(),
        })?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = handle::open_dir_in_root(self.as_fd(), parent)
            .map_err(|errno| RootError::io(op, path, errno))?;
        Ok((dir, name))
    }

    /// As [`parent`](Self::parent), where the empty path is the root itself.
    fn object<'a>(
        &self,
        op: &'static str,
        path: &'a Path,
    ) -> Result<(OwnedFd, &'a OsStr), RootError> {
        if !path.as_os_str().is_empty() {
            return self.parent(op, path);
        }
        let root = handle::open_dir_in_root(self.as_fd(), path)
            .map_err(|errno| RootError::io(op, path, errno))?;
        Ok((root, OsStr::new(".")))
    }

    /// As [`parent`](Self::parent), with a link in last place followed; the name exists and is no link.
    fn parent_followed(
        &self,
        op: &'static str,
        path: &Path,
    ) -> Result<(OwnedFd, std::ffi::OsString), RootError> {
        let fail = |errno| RootError::io(op, path, errno);
        let found = self.resolve_links(path).map_err(fail)?;
        let parent = found.parent().unwrap_or(Path::new(""));
        let dir = handle::open_dir_in_root(self.as_fd(), parent).map_err(fail)?;
        let name = found.file_name().unwrap_or(OsStr::new("."));
        Ok((dir, name.to_owned()))
    }

    /// Stats `path`, following a link in last place or not; `None` when it does not exist.
    fn stat(&self, path: &Path, follow: bool) -> Result<Option<Metadata>, RootError> {
        let flags = if follow {
            OFlags::PATH
        } else {
            OFlags::PATH | OFlags::NOFOLLOW
        };
        let found = handle::open_in_root(self.as_fd(), path, flags).and_then(handle::stat_fd);
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(RootError::io("looking up", path, errno)),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
