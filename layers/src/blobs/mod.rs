//! Blobs on disk, named by digest.
//!
//! ```text
//! DIR/blobs/sha256/<64 hex digits>                a whole blob, never changed again
//! DIR/blobs/sha256/.kfactory-partial-XXXXXX       being written, see [`crate::partial`]
//! ```
//!
//! A blob gets its name by a rename after its bytes were checked and synced, so a name always means whole content, even
//! after a crash; [`BlobStore::remove_abandoned`] removes what killed writers left. Knows nothing of manifests: what may be
//! removed is the owner's decision.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, HashingWriter, VerifyError, VerifyingReader};
use crate::input::open_regular;
use crate::manifest::Descriptor;
use crate::partial::{self, Partial};
use crate::source::{BlobSource, not_found, verified};

/// Bytes collected before the file is written: compressed output comes in pieces of any size.
const WRITE_BUFFER: usize = 256 * 1024;

/// What happened to a blob on its way into or out of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The bytes are not those asked for; nothing was stored.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A file operation.
    #[error("{doing} {path:?}")]
    Io {
        /// What was being done, a gerund.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
}

impl BlobError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BlobError {
        let path = path.into();
        move |source| match VerifyError::in_io(&source) {
            Some(error) => BlobError::Verify(*error),
            None => BlobError::Io {
                doing,
                path,
                source,
            },
        }
    }
}

/// A whole blob in a store: the proof that it is there, and what a descriptor needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// The directory `blobs/sha256` below some directory.
///
/// Any number of processes may read and write at the same time: a blob is written under a name of its own and two
/// writers of the same content end with the same file.
#[derive(Debug, Clone)]
pub struct BlobStore {
    dir: PathBuf,
}

impl BlobStore {
    /// Opens the store below `root`, making its directories if they are missing.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn ensure(root: &Path) -> Result<Self, BlobError> {
        let store = Self::open(root);
        fs::create_dir_all(&store.dir).map_err(BlobError::io("creating directory", &store.dir))?;
        Ok(store)
    }

    /// Returns the store below `root` without touching the disk: where there is none, it holds no blob.
    pub fn open(root: &Path) -> Self {
        Self {
            dir: root.join("blobs").join(Digest::ALGORITHM),
        }
    }

    /// Returns the file a blob has or would have. Made of the digest alone, so it is always inside the store.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Returns whether the store has the blob.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Returns the size of a blob's file in bytes, or `None` when the store does not have it.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let metadata = fs::metadata(self.path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Opens a blob for reading, checked against its digest and the size of its file.
    ///
    /// # Errors
    ///
    /// `NotFound` when the store does not have it.
    pub fn open_digest(&self, digest: &Digest) -> io::Result<VerifyingReader<File>> {
        let file = self.open_file(digest)?;
        let size = file.metadata()?.len();
        Ok(VerifyingReader::new(file, *digest, size))
    }

    /// Opens a blob's file itself, *unchecked*: for handing on to a reader that does the checking.
    ///
    /// # Errors
    ///
    /// `NotFound` when the store does not have it; `InvalidData` when something else has its name.
    pub fn open_file(&self, digest: &Digest) -> io::Result<File> {
        open_regular(&self.path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_found(digest),
            _ => error,
        })
    }

    /// Reads a blob through and checks that it has this digest and size.
    ///
    /// # Errors
    ///
    /// `NotFound` when the store does not have it; a [`VerifyError`] inside the error when it is damaged.
    pub fn check(&self, digest: &Digest, size: u64) -> io::Result<()> {
        check_file(&self.open_file(digest)?, digest, size)
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`]: the partial file cannot be made.
    pub fn writer(&self) -> Result<BlobWriter, BlobError> {
        let file = self.partial()?;
        Ok(BlobWriter {
            out: HashingWriter::new(BufWriter::with_capacity(WRITE_BUFFER, file)),
            store: self.clone(),
        })
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Blob, BlobError> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        if self.check(&digest, size).is_ok() {
            return Ok(Blob { digest, size });
        }
        let mut writer = self.writer()?;
        writer
            .out
            .write_all(bytes)
            .map_err(BlobError::io("writing blob", self.path(&digest)))?;
        writer.commit()
    }

    /// Stores the blob that `reader` yields, which must have this digest and size.
    ///
    /// # Errors
    ///
    /// [`BlobError::Verify`] when it has not; the store is unchanged then.
    pub fn put_reader(
        &self,
        reader: impl Read,
        digest: &Digest,
        size: u64,
    ) -> Result<Blob, BlobError> {
        let mut writer = self.writer()?;
        let mut verifying = VerifyingReader::new(reader, *digest, size);
        io::copy(&mut verifying, &mut writer.out)
            .map_err(BlobError::io("writing blob", self.path(digest)))?;
        writer.commit_as(digest, size)
    }

    /// Takes a blob over from a file: by a shared copy (reflink) where the file system can, else by copying inside the
    /// kernel. The content is checked in each case. Never by a hard link: whoever edits a layout in place would damage
    /// every other place that shares the file.
    ///
    /// # Errors
    ///
    /// [`BlobError::Verify`] when the file is not that blob; the store is unchanged then.
    pub fn import_file(&self, file: &File, digest: &Digest, size: u64) -> Result<Blob, BlobError> {
        let blob = Blob {
            digest: *digest,
            size,
        };
        if self.check(digest, size).is_ok() {
            return Ok(blob);
        }
        let path = self.path(digest);
        let mut partial = self.partial()?;
        if rustix::fs::ioctl_ficlone(partial.as_file(), file).is_err() {
            copy_content(file, partial.as_file_mut())
                .map_err(BlobError::io("writing blob", &path))?;
        }
        check_file(partial.as_file(), digest, size)
            .map_err(BlobError::io("reading blob", &path))?;
        self.publish(partial, blob)
    }

    /// Takes a blob over from another store, cheaply where both are on one file system.
    ///
    /// # Errors
    ///
    /// As [`import_file`](Self::import_file); `NotFound` inside [`BlobError::Io`] when `from` does not have it.
    pub fn import(&self, from: &BlobStore, digest: &Digest, size: u64) -> Result<Blob, BlobError> {
        let file = from
            .open_file(digest)
            .map_err(BlobError::io("opening blob", from.path(digest)))?;
        self.import_file(&file, digest, size)
    }

    /// Returns the digests of all blobs, sorted. Files that no digest names are passed over.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`]; a store without its directory is empty.
    pub fn digests(&self) -> Result<Vec<Digest>, BlobError> {
        let mut digests: Vec<Digest> = self
            .file_names()?
            .iter()
            .filter_map(|name| Digest::from_hex(name))
            .collect();
        digests.sort();
        Ok(digests)
    }

    /// Removes a blob; returns its size, or `None` when the store did not have it.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`].
    pub fn remove(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let path = self.path(digest);
        let size = self.size(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::io("removing blob", path)(error)),
        }
    }

    /// Removes the partial files of writers that were killed; returns their number.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`] when the directory cannot be read. A file that cannot be judged or removed is left.
    pub fn remove_abandoned(&self) -> Result<usize, BlobError> {
        match partial::remove_abandoned(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            result => result.map_err(BlobError::io("reading directory", &self.dir)),
        }
    }

    fn file_names(&self) -> Result<Vec<String>, BlobError> {
        let error = |source| BlobError::io("reading directory", &self.dir)(source);
        let entries = match fs::read_dir(&self.dir) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(error)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(error)?.file_name().into_string());
        }
        Ok(names)
    }

    fn partial(&self) -> Result<Partial, BlobError> {
        partial::create_in(&self.dir, 0o644).map_err(BlobError::io("creating a file in", &self.dir))
    }

    /// Gives a whole and checked partial file its name, durably.
    fn publish(&self, partial: Partial, blob: Blob) -> Result<Blob, BlobError> {
        let path = self.path(&blob.digest);
        partial
            .as_file()
            .sync_data()
            .map_err(BlobError::io("syncing blob", &path))?;
        partial
            .persist(&path)
            .map_err(BlobError::io("naming blob", &path))?;
        sync_dir(&self.dir).map_err(BlobError::io("syncing directory", &self.dir))?;
        Ok(blob)
    }
}

impl BlobSource for BlobStore {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(verified(self.open_file(&blob.digest)?, blob))
    }
}

/// A blob being written. It has no name until [`commit`](Self::commit); dropping it removes the file.
#[derive(Debug)]
pub struct BlobWriter {
    out: HashingWriter<BufWriter<Partial>>,
    store: BlobStore,
}

impl BlobWriter {
    /// Returns the bytes written so far.
    pub fn written(&self) -> u64 {
        self.out.written()
    }

    /// Names the blob by the digest of what was written, and syncs it to disk.
    ///
    /// # Errors
    ///
    /// [`BlobError::Io`]; nothing was stored then.
    pub fn commit(self) -> Result<Blob, BlobError> {
        let store = self.store.clone();
        let (partial, blob) = self.into_file()?;
        store.publish(partial, blob)
    }

    /// As [`commit`](Self::commit), if what was written is this blob.
    ///
    /// # Errors
    ///
    /// [`BlobError::Verify`] when it is another one; nothing was stored then.
    pub fn commit_as(self, digest: &Digest, size: u64) -> Result<Blob, BlobError> {
        let found = self.out.written();
        let (digest, expected) = (*digest, size);
        if found < expected {
            return Err(VerifyError::TooShort {
                digest,
                expected,
                found,
            }
            .into());
        }
        if found > expected {
            return Err(VerifyError::TooLong { digest, expected }.into());
        }
        let store = self.store.clone();
        let (partial, blob) = self.into_file()?;
        if blob.digest != digest {
            let (expected, found) = (digest, blob.digest);
            return Err(VerifyError::Digest { expected, found }.into());
        }
        store.publish(partial, blob)
    }

    /// Writes out what is buffered; the file has no name yet.
    fn into_file(self) -> Result<(Partial, Blob), BlobError> {
        let (buffered, digest, size) = self.out.finish();
        let path = self.store.path(&digest);
        let partial = buffered
            .into_inner()
            .map_err(|error| BlobError::io("writing blob", path)(error.into_error()))?;
        Ok((partial, Blob { digest, size }))
    }
}

/// Its errors name the directory of the blobs: who writes a layer may not know where it goes.
impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf);
        written.map_err(|error| named(&error, &self.store.dir))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        flushed.map_err(|error| named(&error, &self.store.dir))
    }
}

fn named(error: &io::Error, dir: &Path) -> io::Error {
    let text = format!("writing a blob into {}: {error}", dir.display());
    io::Error::new(error.kind(), text)
}

fn check_file(mut file: &File, digest: &Digest, size: u64) -> io::Result<()> {
    file.rewind()?;
    VerifyingReader::new(file, *digest, size).finish()?;
    Ok(())
}

fn copy_content(mut from: &File, to: &mut File) -> io::Result<()> {
    from.rewind()?;
    to.rewind()?;
    // The standard library uses copy_file_range between files.
    io::copy(&mut from, to)?;
    Ok(())
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
