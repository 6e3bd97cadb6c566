//! Whiteouts: names in a changeset that hide what lower layers put there, and nothing of what their own layer brings.
//!
//! Spec: image-spec `layer.md`, "Whiteouts" and "Opaque Whiteout".

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{ApplyError, Applying, DirId, Parent, Place};
use crate::handle;
use crate::limits;

impl Applying<'_> {
    /// Hides `hidden` in the directory of `path`.
    pub(super) fn whiteout(&mut self, path: &Path, hidden: &OsStr) -> Result<(), ApplyError> {
        self.done.whiteouts += 1;
        let Some(parent) = self.existing(path)? else {
            return Ok(());
        };
        let path = parent.path.join(hidden);
        if self.made.is_empty() {
            let place = Place {
                path: &path,
                parent: &parent,
                name: hidden,
            };
            return self.remove(&place);
        }
        // Once is enough, and looking through a large directory for every entry would be too much.
        if !self.hidden.insert((parent.id, hidden.as_bytes().into())) {
            return Ok(());
        }
        let place = (parent.fd.as_fd(), parent.id, hidden);
        self.hide(place, &self.real_path(&parent, hidden)).map(drop)
    }

    /// Hides everything in the directory of `path`.
    pub(super) fn opaque(&mut self, path: &Path) -> Result<(), ApplyError> {
        self.done.whiteouts += 1;
        let Some(parent) = self.existing(path)? else {
            return Ok(());
        };
        if !self.hidden.insert((parent.id, b"."[..].into())) {
            return Ok(());
        }
        let real = self.real_path(&parent, OsStr::new("."));
        self.hide_content(parent.fd.as_fd(), parent.id, &real)
            .map(drop)
    }

    /// Returns the directory that a whiteout is in, if there is one: what does not exist need not be hidden.
    fn existing(&mut self, path: &Path) -> Result<Option<Rc<Parent>>, ApplyError> {
        match self.parent_opt(path.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => Ok(Some(parent)),
            Err(ApplyError::Io { source, .. })
                if matches!(
                    Errno::from_io_error(&source),
                    Some(Errno::NOENT | Errno::NOTDIR)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a name unless this layer made it, and returns whether it is gone. A directory stays as long as something of this layer is in it.
    fn hide(
        &mut self,
        place: (BorrowedFd<'_>, DirId, &OsStr),
        real: &Path,
    ) -> Result<bool, ApplyError> {
        let fail = |errno| ApplyError::io("removing", real, errno);
        limits::check(real)?;
        let (dir, id, name) = place;
        let ours = self.made.contains(&(id, name.as_bytes().into()));
        let Some(found) = handle::stat_opt(dir, name).map_err(fail)? else {
            return Ok(true);
        };
        if !found.is_dir() {
            if !ours {
                self.parent = None;
                self.ledger.remove(real);
                rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(fail)?;
            }
            return Ok(!ours);
        }
        let below = handle::open_subdir(dir, name).map_err(fail)?;
        let empty = self.hide_content(below.as_fd(), found.id(), real)?;
        if ours || !empty {
            return Ok(false);
        }
        self.parent = None;
        self.ledger.remove(real);
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(fail)?;
        Ok(true)
    }

    /// Hides everything in a directory and returns whether it is empty now.
    fn hide_content(
        &mut self,
        dir: BorrowedFd<'_>,
        id: DirId,
        real: &Path,
    ) -> Result<bool, ApplyError> {
        let fail = |errno| ApplyError::io("removing what was in", real, errno);
        let mut empty = true;
        for (name, _) in handle::list(dir).map_err(fail)? {
            empty &= self.hide((dir, id, &name), &real.join(&name))?;
        }
        Ok(empty)
    }
}
