//! Disks compressed with gzip, alone or in an archive: these have no place where reading could begin, and are unpacked.
//!
//! What is unpacked goes to a file without a name, whose holes are what is zero. It grows by what the archive or the partition table
//! inside says, and by no more.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use flate2::bufread::MultiGzDecoder;
use kfactory_layers::metadata::EntryKind;
use kfactory_layers::tar::{ArchiveReader, ReadError};
use kfactory_sandbox::CancelToken;

use super::super::raw::is_zero;
use super::super::{CHUNK_BYTES, SECTOR_BYTES};
use super::{View, ViewError, damaged, unread};
use crate::artifact::bytes::le64;
use crate::artifact::gpt::MbrPartition;
use crate::artifact::region::Region;
use crate::stop::{Stoppable, Stopped};

/// How such files begin.
pub const MAGIC: &[u8; 2] = b"\x1f\x8b";
/// What Google calls the disk in an archive.
pub const MEMBER: &str = "disk.raw";
/// Enough to tell a partition table or an archive by.
const HEAD_BYTES: usize = 1024;
/// Where the header of an archive's entry has its format.
const TAR_MAGIC: std::ops::Range<usize> = 257..265;
const TAR_OLD_GNU: &[u8] = b"ustar  \0";
/// The protective partition's size that says that there is more.
const UNTOLD: u32 = u32::MAX;

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// The disk.
    pub view: View,
    /// What is told of the archive it was in; nothing where it was in none.
    pub archive: Option<Archive>,
}

/// What Google demands of an archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// What the entry with the disk is called.
    pub member: String,
    /// The names of others, as many as are worth telling.
    pub others: Vec<String>,
    /// Whether its headers are of the old GNU format.
    pub is_old_gnu: bool,
}

/// Unpacks the disk in `file` to a file without name in `scratch`, until `stop`.
///
/// # Errors
///
/// The file is damaged or holds no disk, there is no room for what it holds, or the run is stopped.
pub fn open(
    file: &File,
    scratch: &Path,
    stop: Option<&CancelToken>,
) -> Result<Unpacked, ViewError> {
    let stream = || {
        let mut file = file;
        file.rewind()?;
        io::Result::Ok(MultiGzDecoder::new(BufReader::new(Stoppable::new(
            file, stop,
        ))))
    };
    let mut head = Vec::new();
    let read = stream()?.take(HEAD_BYTES as u64).read_to_end(&mut head);
    if head.len() < HEAD_BYTES {
        read.map_err(broken)?;
        return unread("something compressed with gzip that is no disk");
    }
    if head[TAR_MAGIC].starts_with(b"ustar") {
        let is_old_gnu = head[TAR_MAGIC] == *TAR_OLD_GNU;
        return archive(stream()?, is_old_gnu, scratch);
    }
    match told_bytes(&head) {
        Some(most) => plain(stream()?, most, scratch),
        None => unread("something compressed with gzip that is no disk with a GPT"),
    }
}

/// Returns how many bytes the disk that begins with `head` has by its own partition table.
fn told_bytes(head: &[u8]) -> Option<u64> {
    let partitions = MbrPartition::all(head.first_chunk()?);
    let by_mbr = partitions
        .iter()
        .find(|partition| partition.is_protective())
        .map(|partition| match partition.sectors {
            UNTOLD => 1 << 32,
            sectors => u64::from(sectors) + 1,
        });
    let has_header = head[512..].starts_with(b"EFI PART");
    let by_header = has_header
        .then(|| le64(head, 512 + 32))
        .map(|other| other.saturating_add(1));
    let sectors = by_mbr.into_iter().chain(by_header).max()?;
    Some(sectors.saturating_mul(SECTOR_BYTES))
}

fn plain(mut stream: impl Read, most: u64, scratch: &Path) -> Result<Unpacked, ViewError> {
    let disk = Holey::new(scratch)?;
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    let mut at = 0;
    loop {
        let now = fill(&mut stream, &mut buffer).map_err(broken)?;
        if now == 0 {
            break;
        }
        let (bytes, end) = (&buffer[..now], at + now as u64);
        if end > most && !is_zero(bytes) {
            return damaged(format!(
                "it holds more than the {most} bytes of which its partition table tells"
            ));
        }
        disk.put(bytes, at)?;
        at = end;
    }
    Ok(Unpacked {
        view: disk.view(at, "gzip")?,
        archive: None,
    })
}

fn archive(stream: impl Read, is_old_gnu: bool, scratch: &Path) -> Result<Unpacked, ViewError> {
    const MAX_NAMES: usize = 10;
    let mut reader = ArchiveReader::new(stream);
    let mut found = None;
    let mut told = Archive {
        is_old_gnu,
        ..Archive::default()
    };
    while let Some(entry) = reader.next_entry().map_err(broken_archive)? {
        let name = entry.path.to_string_lossy().into_owned();
        match entry.kind {
            EntryKind::File { size } if found.is_none() && is_disk(&name) => {
                let disk = Holey::new(scratch)?;
                while let Some(chunk) = reader.next_chunk().map_err(broken_archive)? {
                    disk.put(chunk.bytes, chunk.offset)?;
                }
                found = Some(disk.view(size, "disk.raw in a tar.gz")?);
                told.member = name;
            }
            _ if told.others.len() < MAX_NAMES => told.others.push(name),
            _ => {}
        }
    }
    if !reader.has_end_mark() {
        return damaged("the archive is cut off: its end mark is missing");
    }
    match found {
        Some(view) => Ok(Unpacked {
            view,
            archive: Some(told),
        }),
        None => unread(format!("an archive without {MEMBER}")),
    }
}

fn is_disk(name: &str) -> bool {
    name.rsplit('/').next() == Some(MEMBER)
}

/// A file without a name, into which nothing is written that is zero.
struct Holey<'a> {
    file: File,
    /// Where it is.
    dir: &'a Path,
}

impl<'a> Holey<'a> {
    fn new(dir: &'a Path) -> io::Result<Self> {
        tempfile::tempfile_in(dir)
            .map(|file| Self { file, dir })
            .map_err(|error| no_room(dir, &error))
    }

    fn put(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut at = at;
        for chunk in bytes.chunks(CHUNK_BYTES as usize) {
            if !is_zero(chunk) {
                self.file
                    .write_all_at(chunk, at)
                    .map_err(|error| no_room(self.dir, &error))?;
            }
            at += chunk.len() as u64;
        }
        Ok(())
    }

    fn view(self, len: u64, form: &str) -> io::Result<View> {
        let sized = self.file.set_len(len);
        sized.map_err(|error| no_room(self.dir, &error))?;
        Ok(View {
            disk: Region::of_file(Arc::new(self.file), len),
            form: form.to_owned(),
            damage: Arc::new(OnceLock::new()),
            pieces: None,
        })
    }
}

/// Says where it was that something could not be written, which nobody named.
fn no_room(dir: &Path, error: &io::Error) -> io::Error {
    let named = match dir == std::env::temp_dir() {
        true => " (the variable TMPDIR names another place)",
        false => "",
    };
    let why = format!("unpacking it in {}{named}: {error}", dir.display());
    io::Error::new(error.kind(), why)
}

/// Tells an archive that does not unpack from a file that cannot be read.
fn broken(error: io::Error) -> ViewError {
    let is_of_system = error.raw_os_error().is_some() || Stopped::is_in(&error);
    match is_of_system {
        true => ViewError::Io(error),
        false => ViewError::Damaged(format!("it does not unpack: {error}")),
    }
}

fn broken_archive(error: ReadError) -> ViewError {
    match error {
        ReadError::Io { source, .. } => broken(source),
        other => ViewError::Damaged(other.to_string()),
    }
}

fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(now) => filled += now,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
