//! Writing an archive file: plain members without any trace of who wrote it when, and a rename at the end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tar_core::{EntryBuilder, EntryType, HEADER_SIZE};

use super::ArchiveError;
use crate::digest::Digest;
use crate::partial::{self, Partial};

const COPY_BUFFER: usize = 256 * 1024;

/// An archive being written under a temporary name next to its own.
pub(super) struct TarOut {
    file: Partial,
    path: PathBuf,
}

impl TarOut {
    pub(super) fn create(path: &Path) -> Result<Self, ArchiveError> {
        let file = partial::create_beside(path, 0o644)
            .map_err(ArchiveError::io("creating a file beside", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        let header = header(name, EntryType::Directory, 0);
        self.write(&header.map_err(ArchiveError::io("writing", &self.path))?)
    }

    pub(super) fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let written = self.member(name, bytes.len() as u64, bytes);
        written.map_err(|error| self.explained(error, Digest::of(bytes)))
    }

    /// Writes the blob `digest` as a member whose size is known.
    pub(super) fn blob(
        &mut self,
        name: &str,
        size: u64,
        digest: Digest,
        content: impl Read,
    ) -> Result<(), ArchiveError> {
        let written = self.member(name, size, content);
        written.map_err(|error| self.explained(error, digest))
    }

    /// Writes what the blob `digest` unpacks to, whose size shows only at its end: the header is written again then.
    pub(super) fn unpacked_blob(
        &mut self,
        name: &str,
        digest: Digest,
        content: impl Read,
    ) -> Result<(), ArchiveError> {
        let written = self.member_of_unknown_size(name, content);
        written.map_err(|error| self.explained(error, digest))
    }

    fn member(&mut self, name: &str, size: u64, content: impl Read) -> Result<(), CopyError> {
        self.file
            .write_all(&header(name, EntryType::Regular, size)?)?;
        let copied = copy(content, self.file.as_file_mut())?;
        if copied != size {
            let message = format!("{copied} bytes where {size} were promised");
            return Err(CopyError::Reading(io::Error::new(
                io::ErrorKind::InvalidData,
                message,
            )));
        }
        Ok(self.pad(size)?)
    }

    fn member_of_unknown_size(&mut self, name: &str, content: impl Read) -> Result<(), CopyError> {
        let start = self.file.stream_position()?;
        self.file.write_all(&[0; HEADER_SIZE])?;
        let size = copy(content, self.file.as_file_mut())?;
        self.pad(size)?;
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(start))?;
        self.file
            .write_all(&header(name, EntryType::Regular, size)?)?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    /// Says which end failed: the blob that was read, or the archive.
    fn explained(&self, error: CopyError, digest: Digest) -> ArchiveError {
        match error {
            CopyError::Reading(source) => ArchiveError::Blob { digest, source },
            CopyError::Writing(source) => ArchiveError::io("writing", &self.path)(source),
        }
    }

    /// Ends the archive and gives it its name.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        self.write(&[0; 2 * HEADER_SIZE])?;
        let synced = self.file.as_file().sync_data();
        synced.map_err(ArchiveError::io("syncing", &self.path))?;
        let named = self.file.persist(&self.path);
        named.map_err(ArchiveError::io("naming", &self.path))?;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let written = self.file.write_all(bytes);
        written.map_err(ArchiveError::io("writing", &self.path))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let past = (size % HEADER_SIZE as u64) as usize;
        if past == 0 {
            return Ok(());
        }
        self.file.write_all(&[0; HEADER_SIZE][past..])
    }
}

/// Which end of a copy failed.
enum CopyError {
    Reading(io::Error),
    Writing(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Writing(error)
    }
}

fn copy(mut from: impl Read, to: &mut File) -> Result<u64, CopyError> {
    let mut buffer = vec![0; COPY_BUFFER];
    let mut copied = 0;
    loop {
        let len = match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Reading(error)),
        };
        to.write_all(&buffer[..len])?;
        copied += len as u64;
    }
}

/// GNU headers: their binary sizes have no 8 GiB limit, and a header is always one block.
fn header(name: &str, kind: EntryType, size: u64) -> io::Result<Vec<u8>> {
    let mode = if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    };
    let mut entry = EntryBuilder::new_gnu();
    entry.path(name).entry_type(kind);
    let fill = |entry: &mut EntryBuilder| -> tar_core::Result<()> {
        entry.mode(mode)?.uid(0)?.gid(0)?.size(size)?.mtime(0)?;
        Ok(())
    };
    fill(&mut entry).map_err(io::Error::other)?;
    Ok(entry.finish_bytes())
}
