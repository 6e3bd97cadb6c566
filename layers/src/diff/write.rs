//! A list of changes as an archive.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::node::open_file;
use super::{CaptureError, CaptureOptions, Captured, Change};
use crate::handle;
use crate::metadata::{Entry, EntryKind};
use crate::overlay::{WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::root::Root;
use crate::tar::ArchiveWriter;

/// Output is collected up to this size, in bytes; most entries are smaller.
const OUTPUT_BUFFER: usize = 256 * 1024;

/// Writes `changes` as an archive, with the content of files read from `root`, and returns what it holds.
///
/// `root` is the tree that the changes were found in: the upper directory, or the tree that was walked. `out` is flushed.
///
/// # Errors
///
/// [`CaptureError::Io`] and [`CaptureError::Write`], the latter also for a file that is shorter now than when it was found.
pub fn write_changeset(
    changes: &[Change],
    root: &Root,
    options: &CaptureOptions<'_>,
    out: impl Write,
) -> Result<Captured, CaptureError> {
    let mut archive = ArchiveWriter::new(io::BufWriter::with_capacity(OUTPUT_BUFFER, out));
    let mut content = ContentSource { root, dir: None };
    let mut captured = Captured::default();
    for change in changes {
        captured.entries += 1;
        match change {
            Change::Upsert(entry) => {
                let mut entry = entry.as_ref().clone();
                entry.mtime = entry.mtime.clamped(options.clamp_mtime);
                write_entry(&mut archive, &entry, &mut content)?;
                if let EntryKind::File { size } = entry.kind {
                    captured.files += 1;
                    captured.bytes += size;
                }
            }
            Change::Whiteout(path) => {
                let mut name = OsStr::from_bytes(WHITEOUT_PREFIX).to_owned();
                name.push(path.file_name().unwrap_or_default());
                captured.whiteouts += 1;
                archive.append(&whiteout(path.with_file_name(name)), io::empty())?;
            }
            Change::OpaqueWhiteout(path) => {
                captured.whiteouts += 1;
                let path = path.join(OsStr::from_bytes(WHITEOUT_OPAQUE));
                archive.append(&whiteout(path), io::empty())?;
            }
        }
    }
    let mut out = archive.finish()?;
    out.flush()
        .map_err(|error| CaptureError::io("writing the changeset of", root.path(), error))?;
    Ok(captured)
}

fn whiteout(path: PathBuf) -> Entry {
    Entry::new(path, EntryKind::File { size: 0 })
}

fn write_entry<W: Write>(
    archive: &mut ArchiveWriter<W>,
    entry: &Entry,
    content: &mut ContentSource<'_>,
) -> Result<(), CaptureError> {
    if entry.content_size() == 0 {
        return Ok(archive.append(entry, io::empty())?);
    }
    let file = content.open(&entry.path)?;
    Ok(archive.append(entry, file)?)
}

/// Opens files of a tree; the directory of the last one stays open, since the next one is mostly beside it.
struct ContentSource<'a> {
    root: &'a Root,
    dir: Option<(PathBuf, OwnedFd)>,
}

impl ContentSource<'_> {
    fn open(&mut self, path: &Path) -> Result<std::fs::File, CaptureError> {
        let fail = |errno| CaptureError::io("opening", path, errno);
        let above = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().unwrap_or_default();
        if let Some((known, dir)) = &self.dir
            && known.as_os_str() == above.as_os_str()
        {
            return open_file(dir.as_fd(), name).map_err(fail);
        }
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let dir = handle::open_plain(self.root.as_fd(), above, flags).map_err(fail)?;
        let file = open_file(dir.as_fd(), name).map_err(fail)?;
        self.dir = Some((above.to_owned(), dir));
        Ok(file)
    }
}
