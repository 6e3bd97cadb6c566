//! The directories that entries go into: found or made, and given their final state when all else is done.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, XattrFlags};
use rustix::io::Errno;

use super::owner::ACL_DEFAULT;
use super::{Applied, ApplyError, Applying, DirId, Place};
use crate::handle;
use crate::limits;
use crate::metadata::{Entry, EntryKind, Metadata, Timestamp};

/// Links to follow while a parent is made behind a dangling one; the kernel's own number for a lookup.
const MAX_LINKS: usize = 40;

/// What an owner needs to make entries in a directory.
const OWNER_ACCESS: u32 = 0o700;

/// The set-group-ID bit, which on a directory gives its group to what is made in it.
const SET_GID: u32 = 0o2000;

/// A directory that entries go into.
pub(super) struct Parent {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) id: DirId,
    /// New entries get the directory's group.
    pub(super) gives_group: bool,
    /// New entries get an ACL that no archive entry asked for.
    pub(super) gives_acl: bool,
    /// `path` with links followed.
    pub(super) real: PathBuf,
}

/// What a directory becomes when nothing is created in it any more.
pub(super) struct TouchedDir {
    path: PathBuf,
    mtime: Timestamp,
    mode: Option<u32>,
    default_acl: Option<Vec<u8>>,
}

impl Applying<'_> {
    /// Returns the directory `path`, made with all above it when it is missing.
    pub(super) fn parent(&mut self, path: &Path) -> Result<Rc<Parent>, ApplyError> {
        match self.parent_opt(path) {
            Err(ApplyError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()) =>
            {
                self.make_all(path, 0)?;
                self.parent_opt(path)
            }
            result => result,
        }
    }

    /// Returns the directory `path` if it exists.
    pub(super) fn parent_opt(&mut self, path: &Path) -> Result<Rc<Parent>, ApplyError> {
        if let Some(parent) = &self.parent
            && parent.path.as_os_str() == path.as_os_str()
        {
            return Ok(Rc::clone(parent));
        }
        let fail = |errno| ApplyError::io("opening the directory", path, errno);
        let (fd, real) = self.open_parent(path)?;
        let found = handle::stat_fd(&fd).map_err(fail)?;
        self.touch(path, &found)?;
        self.use_parent(path, real, fd, &found)
    }

    /// Opens the directory `path` and says where it really is. Most are where their path says, and then the kernel opens them without a link.
    fn open_parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf), ApplyError> {
        let fail = |error| ApplyError::io("opening the directory", path, error);
        if path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
            && let Ok(fd) = handle::open_dir_plain(self.root.as_fd(), path)
        {
            return Ok((fd, path.to_owned()));
        }
        let fd = handle::open_dir_in_root(self.root.as_fd(), path)
            .map_err(|errno| fail(std::io::Error::from(errno)))?;
        let real = self.root.resolve(path);
        let real = real.map_err(|error| fail(std::io::Error::other(error)))?;
        Ok((fd, real.unwrap_or_else(|| path.to_owned())))
    }

    /// Makes an open directory the one that the next entries are expected in.
    fn use_parent(
        &mut self,
        path: &Path,
        real: PathBuf,
        fd: OwnedFd,
        found: &Metadata,
    ) -> Result<Rc<Parent>, ApplyError> {
        let parent = Rc::new(Parent {
            path: path.to_owned(),
            id: found.id(),
            gives_group: found.mode & SET_GID != 0,
            gives_acl: has_default_acl(&fd),
            real,
            fd,
        });
        self.parent = Some(Rc::clone(&parent));
        Ok(parent)
    }

    /// Notes the time and mode of a directory that the archive has not described, before it changes.
    fn touch(&mut self, path: &Path, found: &Metadata) -> Result<(), ApplyError> {
        if self.touched.contains_key(&found.id()) {
            return Ok(());
        }
        let mut mode = None;
        if self.own.0 != 0 && self.own.0 == found.uid && found.mode & OWNER_ACCESS != OWNER_ACCESS {
            mode = Some(found.mode);
            self.root
                .set_mode(path, found.mode | OWNER_ACCESS)
                .map_err(|error| {
                    ApplyError::io("opening the directory", path, std::io::Error::other(error))
                })?;
        }
        let touched = TouchedDir {
            path: path.to_owned(),
            mtime: found.mtime,
            mode,
            default_acl: None,
        };
        self.touched.insert(found.id(), touched);
        Ok(())
    }

    /// Makes the directory `path` and those above it that are missing, also where a dangling link says that they should be.
    fn make_all(&mut self, path: &Path, links: usize) -> Result<(), ApplyError> {
        let fail = |errno| ApplyError::io("making the directory", path, errno);
        if links > MAX_LINKS {
            return Err(fail(Errno::LOOP));
        }
        let mut prefix = PathBuf::new();
        for part in path {
            prefix.push(part);
            match handle::open_dir_in_root(self.root.as_fd(), &prefix) {
                Ok(_) => {}
                Err(Errno::NOENT) => self.make(&prefix, links)?,
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    fn make(&mut self, path: &Path, links: usize) -> Result<(), ApplyError> {
        let above = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or(OsStr::new("."));
        let parent = self.parent_opt(above)?;
        match handle::read_link(parent.fd.as_fd(), name) {
            Ok(target) => self.make_all(&above.join(target), links + 1),
            Err(_) => {
                limits::check(&parent.real.join(name))?;
                self.count_object(path)?;
                let entry = Entry::new(path, EntryKind::Directory);
                let place = Place {
                    path,
                    parent: &parent,
                    name,
                };
                self.directory(&place, &entry)?;
                self.made.insert((
                    parent.id,
                    std::os::unix::ffi::OsStrExt::as_bytes(name).into(),
                ));
                Ok(())
            }
        }
    }

    /// Makes a directory, or gives the one that is there the entry's metadata; its content stays.
    pub(super) fn directory(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), ApplyError> {
        let dir = place.parent.fd.as_fd();
        let fail = |errno| ApplyError::io("making the directory", place.path, errno);
        let mut fresh = true;
        loop {
            match rustix::fs::mkdirat(dir, place.name, Mode::RWXU) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            let found = handle::stat_opt(dir, place.name).map_err(fail)?;
            if found.is_some_and(|found| found.is_dir()) {
                fresh = false;
                break;
            }
            self.remove(place)?;
        }
        if self.own.0 != 0 && !fresh {
            let _ = rustix::fs::chmodat(dir, place.name, Mode::RWXU, AtFlags::empty());
        }
        let fd = handle::open_subdir(dir, place.name).map_err(fail)?;
        self.describe_directory(place.path, fd, entry, fresh, place)
    }

    /// Gives the entry's metadata to the root directory.
    pub(super) fn root_directory(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        let path = Path::new("");
        let parent = self.parent_opt(path)?;
        let place = Place {
            path,
            parent: &parent,
            name: OsStr::new("."),
        };
        let fd = handle::open_dir_in_root(self.root.as_fd(), path)
            .map_err(|errno| ApplyError::io("opening the directory", path, errno))?;
        self.describe_directory(path, fd, entry, false, &place)
    }

    fn describe_directory(
        &mut self,
        path: &Path,
        fd: OwnedFd,
        entry: &Entry,
        fresh: bool,
        place: &Place<'_>,
    ) -> Result<(), ApplyError> {
        let fail = |errno| ApplyError::io("making the directory", path, errno);
        if !fresh {
            self.clear_xattrs(fd.as_fd(), path, entry)?;
        }
        let found = handle::stat_fd(&fd).map_err(fail)?;
        self.describe_open(&fd, place, entry, fresh)?;
        let open_mode = entry.mode | OWNER_ACCESS;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(open_mode)).map_err(fail)?;
        let touched = TouchedDir {
            path: path.to_owned(),
            mtime: entry.mtime,
            mode: (open_mode != entry.mode).then_some(entry.mode),
            default_acl: entry.xattrs.get(ACL_DEFAULT).cloned(),
        };
        self.touched.insert(found.id(), touched);
        let found = Metadata {
            mode: entry.mode,
            ..found
        };
        let real = self.real_path(place.parent, place.name);
        self.use_parent(path, real, fd, &found)?;
        self.done.directories += 1;
        Ok(())
    }

    /// Gives every directory its final state and returns the account of the whole changeset.
    pub(super) fn finish(mut self) -> Result<Applied, ApplyError> {
        let mut touched: Vec<_> = self.touched.drain().collect();
        // From the leaves up: a mode may close a directory to its own owner.
        touched.sort_unstable_by(|a, b| b.1.path.cmp(&a.1.path));
        for (id, dir) in touched {
            self.settle(id, &dir)?;
        }
        self.done.ledger = self.ledger.into_values().collect();
        Ok(self.done)
    }

    fn settle(&mut self, id: DirId, dir: &TouchedDir) -> Result<(), ApplyError> {
        let fail = |errno| ApplyError::io("setting the time of", &dir.path, errno);
        let fd = match handle::open_dir_in_root(self.root.as_fd(), &dir.path) {
            Ok(fd) => fd,
            // Replaced or removed by a later entry.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        if handle::stat_fd(&fd).map_err(fail)?.id() != id {
            return Ok(());
        }
        if let Some(acl) = &dir.default_acl {
            let set = rustix::fs::fsetxattr(&fd, ACL_DEFAULT, acl, XattrFlags::empty());
            set.map_err(|errno| ApplyError::io("setting the inherited ACL of", &dir.path, errno))?;
        }
        if let Some(mode) = dir.mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(fail)?;
        }
        rustix::fs::futimens(&fd, &handle::mtime_only(dir.mtime)).map_err(fail)
    }

    /// Returns the path at which an entry really is, links followed, as the ledger has it.
    pub(super) fn real_path(&self, parent: &Parent, name: &OsStr) -> PathBuf {
        if name == "." {
            parent.real.clone()
        } else {
            parent.real.join(name)
        }
    }
}

/// A handle that only serves to look names up does not tell, and there the ACL cannot matter: nothing is made without access.
fn has_default_acl(fd: &OwnedFd) -> bool {
    let found = rustix::fs::fgetxattr(fd, ACL_DEFAULT, &mut [0; 4][..]);
    matches!(found, Ok(1..) | Err(Errno::RANGE))
}
