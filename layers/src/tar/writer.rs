//! Writes archives whose bytes depend on the entries alone: not on the process, the clock, or the names of users.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::header::{self, Header};
use super::{BLOCK, padding, pax};
use crate::handle::read_full;
use crate::metadata::{Entry, EntryKind, MODE_BITS, Timestamp};

/// Content is copied in pieces of this size, in bytes: large enough that calls cost nothing, small enough to stay in the processor's cache.
const COPY_BUFFER: usize = 256 * 1024;

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The archive could not be written to.
    #[error("writing the archive entry {path:?}")]
    Output {
        /// Path of the entry; empty at the end of the archive.
        path: PathBuf,
        /// The output's reason.
        #[source]
        source: io::Error,
    },
    /// The content could not be read.
    #[error("reading the content of {path:?}")]
    Content {
        /// Path of the entry.
        path: PathBuf,
        /// The input's reason.
        #[source]
        source: io::Error,
    },
    /// The content ended before the size that the entry promised.
    #[error("the content of {path:?} ended after {found} of {expected} bytes")]
    Short {
        /// Path of the entry.
        path: PathBuf,
        /// Size in the entry, in bytes.
        expected: u64,
        /// Bytes there were.
        found: u64,
    },
    /// The format cannot hold this entry.
    #[error("an archive cannot hold {path:?}: {why}")]
    Unrepresentable {
        /// Path of the entry.
        path: PathBuf,
        /// What it is that has no place in an archive.
        why: &'static str,
    },
}

/// Writes an archive, entry by entry, in the order in which the caller gives them.
///
/// User and group names are left out, device numbers are zero except for devices, and PAX records appear only where the ustar header has no
/// room: long names and link targets, large numbers, times with a fraction or before 1970, and extended attributes.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts an archive on `out`. Writes are many and as small as one block; give it something that does not mind.
    pub fn new(out: W) -> Self {
        Self {
            out,
            buffer: Vec::new(),
        }
    }

    /// Appends `entry` and its content: exactly as many bytes of `content` as the entry says; what is left in it stays unread.
    ///
    /// # Errors
    ///
    /// Every variant of [`WriteError`]. After [`WriteError::Short`] or an I/O error the archive is broken and must be discarded.
    pub fn append(&mut self, entry: &Entry, mut content: impl Read) -> Result<(), WriteError> {
        let head = encode(entry)?;
        self.put(&entry.path, &head)?;
        let size = entry.content_size();
        self.copy(&entry.path, &mut content, size)?;
        self.pad(&entry.path, size)
    }

    /// Writes the end of the archive and returns the output, not flushed.
    ///
    /// # Errors
    ///
    /// [`WriteError::Output`].
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.put(Path::new(""), &[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn copy(&mut self, path: &Path, content: &mut impl Read, size: u64) -> Result<(), WriteError> {
        self.buffer.resize(COPY_BUFFER, 0);
        let mut done = 0;
        while done < size {
            let want = usize::try_from(size - done)
                .unwrap_or(usize::MAX)
                .min(COPY_BUFFER);
            let count = read_full(content, &mut self.buffer[..want]).map_err(|source| {
                WriteError::Content {
                    path: path.to_owned(),
                    source,
                }
            })?;
            self.out
                .write_all(&self.buffer[..count])
                .map_err(|source| output(path, source))?;
            done += count as u64;
            if count < want {
                return Err(WriteError::Short {
                    path: path.to_owned(),
                    expected: size,
                    found: done,
                });
            }
        }
        Ok(())
    }

    fn pad(&mut self, path: &Path, size: u64) -> Result<(), WriteError> {
        // Below one block by definition.
        self.put(path, &[0; BLOCK][..padding(size) as usize])
    }

    fn put(&mut self, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
        self.out
            .write_all(bytes)
            .map_err(|source| output(path, source))
    }
}

fn output(path: &Path, source: io::Error) -> WriteError {
    WriteError::Output {
        path: path.to_owned(),
        source,
    }
}

/// Returns everything that stands in front of the content.
fn encode(entry: &Entry) -> Result<Vec<u8>, WriteError> {
    let mut header = Header::new(type_flag(&entry.kind));
    let mut records = Vec::new();
    encode_name(entry, &mut header, &mut records)?;
    encode_link(entry, &mut header, &mut records)?;
    encode_numbers(entry, &mut header, &mut records);
    for (name, value) in &entry.xattrs {
        pax::push(&mut records, &pax::xattr_key(name), value);
    }
    header.seal();
    let mut head = Vec::new();
    if !records.is_empty() {
        encode_records(entry, &records, &mut head)?;
    }
    head.extend_from_slice(&header.0);
    Ok(head)
}

fn type_flag(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File { .. } => b'0',
        EntryKind::HardLink { .. } => b'1',
        EntryKind::Symlink { .. } => b'2',
        EntryKind::CharDevice(_) => b'3',
        EntryKind::BlockDevice(_) => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}

fn encode_name(
    entry: &Entry,
    header: &mut Header,
    records: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut name = archived_name(&entry.path).to_vec();
    if name.is_empty() {
        name.push(b'.');
    }
    if entry.kind == EntryKind::Directory && !name.ends_with(b"/") {
        name.push(b'/');
    }
    put_text(entry, header, records, header::NAME, b"path", &name)
}

fn encode_link(
    entry: &Entry,
    header: &mut Header,
    records: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.as_os_str().as_bytes(),
        EntryKind::HardLink { target } => archived_name(target),
        _ => return Ok(()),
    };
    if target.is_empty() {
        return Err(unrepresentable(entry, "a link without a target"));
    }
    put_text(entry, header, records, header::LINK, b"linkpath", target)
}

/// Names in a layer are relative.
fn archived_name(path: &Path) -> &[u8] {
    let name = path.as_os_str().as_bytes();
    let start = name
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(name.len());
    &name[start..]
}

fn put_text(
    entry: &Entry,
    header: &mut Header,
    records: &mut Vec<u8>,
    field: std::ops::Range<usize>,
    key: &[u8],
    text: &[u8],
) -> Result<(), WriteError> {
    if text.contains(&0) {
        return Err(unrepresentable(entry, "a NUL byte in a name"));
    }
    if text.len() <= field.len() {
        header.set_bytes(field, text);
    } else {
        // The start of the name stays, for tools without PAX that then at least say what they cannot read.
        header.set_bytes(field.clone(), &text[..field.len()]);
        pax::push(records, key, text);
    }
    Ok(())
}

fn encode_numbers(entry: &Entry, header: &mut Header, records: &mut Vec<u8>) {
    header.set_number(header::MODE, u64::from(entry.mode & MODE_BITS));
    let decimal = |records: &mut Vec<u8>, key: &[u8], value: u64| {
        pax::push(records, key, value.to_string().as_bytes())
    };
    if !header.set_number(header::SIZE, entry.content_size()) {
        decimal(records, b"size", entry.content_size());
    }
    if !header.set_number(header::UID, entry.uid.into()) {
        decimal(records, b"uid", entry.uid.into());
    }
    if !header.set_number(header::GID, entry.gid.into()) {
        decimal(records, b"gid", entry.gid.into());
    }
    encode_mtime(entry.mtime, header, records);
    let device = match entry.kind {
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => device,
        _ => Default::default(),
    };
    // Linux has 12 bits for one and 20 for the other, which always fit.
    header.set_number(header::MAJOR, device.major.into());
    header.set_number(header::MINOR, device.minor.into());
}

fn encode_mtime(mtime: Timestamp, header: &mut Header, records: &mut Vec<u8>) {
    let whole = u64::try_from(mtime.secs).ok();
    let fits = header.set_number(header::MTIME, whole.unwrap_or(0));
    if whole.is_none() || !fits || mtime.nanos != 0 {
        pax::push(records, b"mtime", pax::format_time(mtime).as_bytes());
    }
}

/// Writes the records as an entry of their own, which other tools show under this name when they do not know it.
fn encode_records(entry: &Entry, records: &[u8], head: &mut Vec<u8>) -> Result<(), WriteError> {
    if records.len() as u64 > super::MAX_EXTENDED_HEADER {
        return Err(unrepresentable(
            entry,
            "more than 1 MiB of extended attributes",
        ));
    }
    let mut header = Header::new(b'x');
    let last = entry.path.file_name().unwrap_or_default().as_bytes();
    let mut name = b"PaxHeaders/".to_vec();
    name.extend_from_slice(&last[..last.len().min(header::NAME.len() - name.len())]);
    header.set_bytes(header::NAME, &name);
    for (field, value) in [
        (header::MODE, 0o644),
        (header::UID, 0),
        (header::GID, 0),
        (header::SIZE, records.len() as u64),
        (header::MTIME, 0),
        (header::MAJOR, 0),
        (header::MINOR, 0),
    ] {
        header.set_number(field, value);
    }
    header.seal();
    head.extend_from_slice(&header.0);
    head.extend_from_slice(records);
    head.resize(head.len() + padding(records.len() as u64) as usize, 0);
    Ok(())
}

fn unrepresentable(entry: &Entry, why: &'static str) -> WriteError {
    WriteError::Unrepresentable {
        path: entry.path.clone(),
        why,
    }
}
