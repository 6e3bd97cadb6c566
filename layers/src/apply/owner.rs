//! Owners, attributes and modes of new objects, in the order in which none undoes another; and what may not be set, into the ledger.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, XattrFlags};
use rustix::io::Errno;

use super::{ApplyError, Applying, Ownership, Place};
use crate::handle;
use crate::ledger::{LedgerDevice, LedgerEntry};
use crate::metadata::{Entry, EntryKind, Xattrs};
use crate::overlay::is_overlay_xattr;
use crate::root::{group, owner};

/// The ACL that a directory gives to what is made in it.
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// The ACL of an object, which its mode is part of.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// What to call the system with: an open object, or a name in a directory.
enum Object<'a> {
    Open(&'a OwnedFd),
    Named(BorrowedFd<'a>, &'a std::ffi::OsStr),
}

impl Object<'_> {
    fn chown(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(owner(uid)?), Some(group(gid)?));
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Named(dir, name) => {
                rustix::fs::chownat(dir, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(dir, last) => {
                let path = handle::proc_path(*dir, last);
                rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            }
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(dir, last) => rustix::fs::lremovexattr(handle::proc_path(*dir, last), name),
        }
    }
}

impl Applying<'_> {
    /// Sets owner and attributes of an open object. Content must be complete, and the mode comes after: both orders matter,
    /// since writing clears capabilities and a new owner clears set-id bits and capabilities.
    pub(super) fn describe_open(
        &mut self,
        fd: &OwnedFd,
        place: &Place<'_>,
        entry: &Entry,
        fresh: bool,
    ) -> Result<(), ApplyError> {
        self.describe(&Object::Open(fd), place, entry, fresh, None)
    }

    /// Sets owner, attributes, mode and time of an object that cannot or should not be opened.
    pub(super) fn describe_named(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        stand_in: Option<LedgerDevice>,
    ) -> Result<(), ApplyError> {
        let dir = place.parent.fd.as_fd();
        self.describe(
            &Object::Named(dir, place.name),
            place,
            entry,
            true,
            stand_in,
        )?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            // The stand-in for a device must not be taken for a file that anybody may read or run.
            let mode = Mode::from_raw_mode(if stand_in.is_some() { 0 } else { entry.mode });
            rustix::fs::chmodat(dir, place.name, mode, AtFlags::empty())
                .map_err(|errno| ApplyError::io("setting the mode of", place.path, errno))?;
        }
        handle::set_mtime(dir, place.name, entry.mtime)
            .map_err(|errno| ApplyError::io("setting the time of", place.path, errno))
    }

    fn describe(
        &mut self,
        object: &Object<'_>,
        place: &Place<'_>,
        entry: &Entry,
        fresh: bool,
        stand_in: Option<LedgerDevice>,
    ) -> Result<(), ApplyError> {
        let owned = fresh && !place.parent.gives_group && self.own == (entry.uid, entry.gid);
        let refused_owner = !owned && self.set_owner(object, place, entry)?;
        if fresh && place.parent.gives_acl && !matches!(entry.kind, EntryKind::Symlink { .. }) {
            drop_inherited(object, entry).map_err(|errno| {
                ApplyError::io("removing the inherited ACL of", place.path, errno)
            })?;
        }
        let refused_xattrs = self.set_xattrs(object, place, entry)?;
        if refused_owner || !refused_xattrs.is_empty() || stand_in.is_some() {
            let path = self.real_path(place.parent, place.name);
            let record = LedgerEntry {
                path: path.clone(),
                uid: entry.uid,
                gid: entry.gid,
                mode: entry.mode,
                dev: stand_in,
                xattrs: refused_xattrs,
            };
            self.ledger.insert(path, record);
        } else if !self.ledger.is_empty() {
            self.ledger
                .remove(&self.real_path(place.parent, place.name));
        }
        Ok(())
    }

    /// Returns whether the owner was refused and that is accepted.
    fn set_owner(
        &self,
        object: &Object<'_>,
        place: &Place<'_>,
        entry: &Entry,
    ) -> Result<bool, ApplyError> {
        match object.chown(entry.uid, entry.gid) {
            Ok(()) => Ok(false),
            Err(Errno::PERM | Errno::INVAL) if self.is_lenient() => Ok(true),
            Err(errno) => Err(ApplyError::Owner {
                path: place.path.to_owned(),
                uid: entry.uid,
                gid: entry.gid,
                source: errno.into(),
            }),
        }
    }

    /// Returns the attributes that were refused where that is accepted.
    fn set_xattrs(
        &mut self,
        object: &Object<'_>,
        place: &Place<'_>,
        entry: &Entry,
    ) -> Result<Xattrs, ApplyError> {
        let mut refused = Xattrs::new();
        for (name, value) in &entry.xattrs {
            if is_overlay_xattr(name) {
                self.done.dropped_xattrs += 1;
                continue;
            }
            if name == ACL_DEFAULT && entry.kind == EntryKind::Directory {
                // Set at the end, or everything made in the directory would inherit it.
                continue;
            }
            match object.set_xattr(name, value) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
                    if self.is_lenient() =>
                {
                    refused.insert(name.clone(), value.clone());
                }
                Err(errno) => {
                    return Err(ApplyError::Xattr {
                        path: place.path.to_owned(),
                        name: String::from_utf8_lossy(name).into_owned(),
                        source: errno.into(),
                    });
                }
            }
        }
        Ok(refused)
    }

    /// Removes the attributes that a directory had in lower layers and that the entry does not give it again.
    pub(super) fn clear_xattrs(
        &self,
        fd: BorrowedFd<'_>,
        path: &Path,
        entry: &Entry,
    ) -> Result<(), ApplyError> {
        let fail = |errno| ApplyError::io("removing an attribute of", path, errno);
        for name in handle::xattr_names_fd(fd).map_err(fail)? {
            let stays = entry.xattrs.contains_key(&name) && name != ACL_DEFAULT;
            if stays || is_overlay_xattr(&name) {
                continue;
            }
            match rustix::fs::fremovexattr(fd, name.as_slice()) {
                // A label that the system itself gives cannot be taken away.
                Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(())
    }

    pub(super) fn is_lenient(&self) -> bool {
        self.options.ownership == Ownership::AsFarAsAllowed
    }
}

/// Removes the ACLs that an object got from the directory it was made in and that its entry does not have.
fn drop_inherited(object: &Object<'_>, entry: &Entry) -> Result<(), Errno> {
    for name in [ACL_ACCESS, ACL_DEFAULT] {
        if name == ACL_ACCESS && entry.xattrs.contains_key(name) {
            continue;
        }
        match object.remove_xattr(name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
