//! Files, links and devices.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{ApplyError, Applying, Place};
use crate::handle;
use crate::ledger::LedgerDevice;
use crate::metadata::{Device, Entry, EntryKind};
use crate::tar::ArchiveReader;

/// What a new file may be used for until it has its owner and mode.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

impl Applying<'_> {
    pub(super) fn file(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        size: u64,
        archive: &mut ArchiveReader<impl Read>,
    ) -> Result<(), ApplyError> {
        let mut file = File::from(self.create(place)?);
        copy_content(&mut file, place.path, size, archive)?;
        let fd = OwnedFd::from(file);
        self.describe_open(&fd, place, entry, true)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))
            .map_err(|errno| ApplyError::io("setting the mode of", place.path, errno))?;
        rustix::fs::futimens(&fd, &handle::mtime_only(entry.mtime))
            .map_err(|errno| ApplyError::io("setting the time of", place.path, errno))?;
        self.done.files += 1;
        Ok(())
    }

    /// Creates an empty file that nothing else has a name of.
    fn create(&mut self, place: &Place<'_>) -> Result<OwnedFd, ApplyError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replacing("making the file", place, |dir| {
            rustix::fs::openat(dir, place.name, flags, PRIVATE)
        })
    }

    pub(super) fn symlink(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        target: &Path,
    ) -> Result<(), ApplyError> {
        self.replacing("making the link", place, |dir| {
            rustix::fs::symlinkat(target, dir, place.name)
        })?;
        self.describe_named(place, entry, None)?;
        self.done.symlinks += 1;
        Ok(())
    }

    pub(super) fn device(&mut self, place: &Place<'_>, entry: &Entry) -> Result<(), ApplyError> {
        let (kind, device, record) = match entry.kind {
            EntryKind::CharDevice(device) => {
                let record = LedgerDevice::Char(device.major, device.minor);
                (FileType::CharacterDevice, device, Some(record))
            }
            EntryKind::BlockDevice(device) => {
                let record = LedgerDevice::Block(device.major, device.minor);
                (FileType::BlockDevice, device, Some(record))
            }
            _ => (FileType::Fifo, Device::default(), None),
        };
        let made = self.replacing("making the device node", place, |dir| {
            rustix::fs::mknodat(dir, place.name, kind, PRIVATE, device.raw())
        });
        let refused = matches!(&made, Err(ApplyError::Io { source, .. })
            if source.raw_os_error() == Some(Errno::PERM.raw_os_error()));
        if refused && record.is_some() && self.is_lenient() {
            drop(self.create(place)?);
            self.describe_named(place, entry, record)?;
        } else {
            made?;
            self.describe_named(place, entry, None)?;
        }
        self.done.devices += 1;
        Ok(())
    }

    /// Gives the object at `target` another name. Owner, mode and the rest are the object's own, whatever the entry says.
    pub(super) fn hard_link(&mut self, place: &Place<'_>, target: &Path) -> Result<(), ApplyError> {
        let fail = |errno: Errno| ApplyError::HardLink {
            path: place.path.to_owned(),
            target: target.to_owned(),
            source: errno.into(),
        };
        let name = target.file_name().ok_or_else(|| fail(Errno::ISDIR))?;
        let above = target.parent().unwrap_or(Path::new(""));
        let same = place.parent.path.as_os_str() == above.as_os_str();
        let from = if same {
            Rc::clone(place.parent)
        } else {
            self.link_source(above).map_err(fail)?
        };
        let found = handle::stat_opt(from.fd.as_fd(), name).map_err(fail)?;
        let found = found.ok_or_else(|| fail(Errno::NOENT))?;
        let old = handle::stat_opt(place.parent.fd.as_fd(), place.name).map_err(fail)?;
        if old.is_some_and(|old| old.id() == found.id()) {
            // Already linked, or a link to itself, which replacing would destroy.
            return Ok(());
        }
        if found.is_dir() {
            return Err(fail(Errno::ISDIR));
        }
        if old.is_some() {
            self.remove(place)?;
        }
        rustix::fs::linkat(
            &from.fd,
            name,
            &place.parent.fd,
            place.name,
            AtFlags::empty(),
        )
        .map_err(fail)?;
        if !self.ledger.is_empty() {
            let (source, path) = (
                self.real_path(&from, name),
                self.real_path(place.parent, place.name),
            );
            if let Some(mut record) = self.ledger.get(&source).cloned() {
                record.path.clone_from(&path);
                self.ledger.insert(path, record);
            }
        }
        self.done.hard_links += 1;
        Ok(())
    }

    /// Opens the directory of a link's target without making it the one where the next entry is expected.
    fn link_source(&mut self, path: &Path) -> Result<Rc<super::Parent>, Errno> {
        let current = self.parent.take();
        let found = self.parent_opt(path);
        self.parent = current;
        found.map_err(|error| match error {
            ApplyError::Io { source, .. } => Errno::from_io_error(&source).unwrap_or(Errno::IO),
            _ => Errno::IO,
        })
    }

    /// Lets `make` create an object; what is in its way is removed first.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        place: &Place<'_>,
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, ApplyError> {
        match make(&place.parent.fd) {
            Err(Errno::EXIST) => {
                self.remove(place)?;
                make(&place.parent.fd)
            }
            result => result,
        }
        .map_err(|errno| ApplyError::io(op, place.path, errno))
    }

    /// Takes `path` and everything below it off the ledger, where they stand one after the other.
    fn forget_below(&mut self, path: &Path) {
        let from = (Bound::Included(path), Bound::Unbounded);
        let from = self.ledger.range::<Path, _>(from);
        let below = from.take_while(|(known, _)| known.starts_with(path));
        let below: Vec<PathBuf> = below.map(|(known, _)| known.clone()).collect();
        for known in below {
            self.ledger.remove(&known);
        }
    }

    /// Removes what stands at `place`.
    pub(super) fn remove(&mut self, place: &Place<'_>) -> Result<(), ApplyError> {
        // Handles of directories below, or behind a link, would no longer be what their path says.
        self.parent = None;
        if !self.ledger.is_empty() {
            let path = self.real_path(place.parent, place.name);
            self.forget_below(&path);
        }
        handle::remove_tree(place.parent.fd.as_fd(), place.name)
            .map_err(|errno| ApplyError::io("removing", place.path, errno))
    }
}

/// Writes the content of the archive's current entry. Holes are kept by never writing them.
fn copy_content(
    file: &mut File,
    path: &Path,
    size: u64,
    archive: &mut ArchiveReader<impl Read>,
) -> Result<(), ApplyError> {
    let fail = |error| ApplyError::io("writing", path, error);
    let sparse = archive.is_sparse();
    while let Some(chunk) = archive.next_chunk()? {
        if sparse {
            file.seek(SeekFrom::Start(chunk.offset)).map_err(fail)?;
        }
        file.write_all(chunk.bytes).map_err(fail)?;
    }
    if sparse {
        file.set_len(size).map_err(fail)?;
    }
    Ok(())
}
