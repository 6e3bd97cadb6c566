//! Images in one file: `oci-archive` (a tar of an OCI layout) and `docker-archive` (what `docker save` writes).
//!
//! Reading makes an index of the tar once and then reads each blob where it lies; nothing is unpacked and only documents
//! are held in memory. A compressed archive is first decompressed into an unnamed file, since there is no reading a part
//! of it otherwise. Writing is deterministic and replaces the file only when the new one is whole.

mod docker;
mod oci;
mod tar_file;
mod tar_out;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

pub use docker::DockerArchive;
pub use oci::OciArchive;

use crate::digest::Digest;
use crate::image::{Image, ImageError};
use crate::manifest::{Descriptor, ManifestError};
use crate::resolve::ResolveError;
use crate::source::{BlobSource, ImageSource, not_found, verified};
use tar_file::{Section, TarFile};

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The file is not a tar archive.
    #[error("{path:?} is not a tar archive")]
    NotTar {
        /// The file.
        path: PathBuf,
        /// What is wrong at which byte.
        source: io::Error,
    },
    /// A member that every archive of its kind has is not there.
    #[error("{path:?} is not {kind}, it has no {member:?}")]
    NoMember {
        /// The file.
        path: PathBuf,
        /// What it was opened as.
        kind: &'static str,
        /// The member.
        member: String,
    },
    /// A member is damaged or larger than such a document may be.
    #[error("reading {member:?} of {path:?}")]
    Member {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        source: io::Error,
    },
    /// A member is not the document it should be.
    #[error("reading {member:?} of {path:?}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// `index.json` is not an index.
    #[error("reading \"index.json\" of {path:?}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// The parts of an image do not fit together.
    #[error("reading an image in {path:?}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ImageError,
    },
    /// Finding an image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A name that no image can have.
    #[error("{name:?} cannot name an image in {kind}")]
    InvalidName {
        /// The name.
        name: String,
        /// What is being written.
        kind: &'static str,
    },
    /// A blob of the image that is to be written cannot be read.
    #[error("reading blob {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        source: io::Error,
    },
    /// A layer is not what the image's config says it is.
    #[error("layer {layer} has the diff ID {found}, the config names {expected}")]
    DiffId {
        /// The layer's digest.
        layer: Digest,
        /// The diff ID in the config.
        expected: Digest,
        /// The diff ID of its content.
        found: Digest,
    },
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

impl ArchiveError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ArchiveError {
        let path = path.into();
        move |source| ArchiveError::Io {
            doing,
            path,
            source,
        }
    }
}

/// An image in an archive. Cheap to clone; the archive's file stays open as long as one of them lives.
#[derive(Debug, Clone)]
pub struct ArchiveImage {
    tar: TarFile,
    sections: Arc<HashMap<Digest, Section>>,
    image: Image,
}

impl BlobSource for ArchiveImage {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        let section = self
            .sections
            .get(&blob.digest)
            .ok_or_else(|| not_found(&blob.digest))?;
        Ok(verified(self.tar.read(*section), blob))
    }
}

impl ImageSource for ArchiveImage {
    fn image(&self) -> &Image {
        &self.image
    }
}

#[cfg(test)]
mod tests;
