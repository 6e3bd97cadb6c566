//! Where images and blobs can be read from: a layout, an archive, a store, or a registry (which the product adds).

use std::io::{self, Read};

use crate::digest::{Digest, VerifyingReader};
use crate::image::Image;
use crate::manifest::Descriptor;

/// A place that holds blobs.
pub trait BlobSource: Send + Sync {
    /// Opens a blob for reading from its start.
    ///
    /// The reader fails when the bytes are not those the descriptor names ([`crate::digest::VerifyError`]); every
    /// implementation wraps its bytes in [`VerifyingReader`].
    ///
    /// # Errors
    ///
    /// `NotFound` when the place does not hold the blob.
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>>;
}

/// One image in a place that holds its blobs.
pub trait ImageSource: BlobSource {
    /// Returns the image: the bytes of its manifest and config among others.
    fn image(&self) -> &Image;
}

/// Reads a whole blob into memory, for documents.
///
/// # Errors
///
/// - `InvalidData` with a [`TooLargeError`] when the descriptor promises more than `limit` bytes; nothing is read then.
/// - What [`BlobSource::open_blob`] and its reader fail with.
pub fn read_blob(source: &dyn BlobSource, blob: &Descriptor, limit: u64) -> io::Result<Vec<u8>> {
    if blob.size > limit {
        let error = TooLargeError {
            digest: blob.digest,
            size: blob.size,
            limit,
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let mut bytes = Vec::new();
    source.open_blob(blob)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A document that is larger than we read into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("blob {digest} has {size} bytes, more than the {limit} bytes allowed here")]
pub struct TooLargeError {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The most we read.
    pub limit: u64,
}

/// Wraps the bytes of `blob` so that they are checked.
pub fn verified<'a>(reader: impl Read + Send + 'a, blob: &Descriptor) -> Box<dyn Read + Send + 'a> {
    Box::new(VerifyingReader::new(reader, blob.digest, blob.size))
}

/// Several places, asked in order: the first that has a blob serves it.
#[derive(Clone, Default)]
pub struct FirstOf<'a>(pub Vec<&'a dyn BlobSource>);

impl std::fmt::Debug for FirstOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FirstOf({} sources)", self.0.len())
    }
}

impl BlobSource for FirstOf<'_> {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        for source in &self.0 {
            match source.open_blob(blob) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        Err(not_found(&blob.digest))
    }
}

pub(crate) fn not_found(digest: &Digest) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("blob {digest} is not here"),
    )
}
