//! Finding one image in an index, by name and platform: the same rules for a layout directory and for an archive of one.

use crate::digest::Digest;
use crate::image::{Image, ImageError};
use crate::index::select;
use crate::manifest::{Descriptor, Document, Index, MAX_DOCUMENT_SIZE, ManifestError, SelectError};
use crate::platform::Platform;
use crate::source::{BlobSource, read_blob};

/// Annotation that gives an entry of `index.json` its name.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes inside indexes followed before giving up; real ones have one level.
const MAX_NESTING: usize = 4;

/// Why no image was found under a name and platform.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No entry has the name.
    #[error("nothing is named `{}` here, there is {}", name.escape_debug(), list(present))]
    NoSuchName {
        /// The name asked for.
        name: String,
        /// The names present, escaped for display.
        present: Vec<String>,
    },
    /// No name was given and there are several images.
    #[error("there are several images here, name one of {}", list(present))]
    NameNeeded {
        /// The names present, escaped for display.
        present: Vec<String>,
    },
    /// There is no image at all.
    #[error("there is no image here")]
    Empty,
    /// The image exists, for other platforms.
    #[error(transparent)]
    Platform(#[from] SelectError),
    /// Indexes point at indexes without end.
    #[error("indexes are nested more than {MAX_NESTING} deep")]
    TooDeep,
    /// A manifest or config is missing, damaged or too large.
    #[error("reading {digest}")]
    Blob {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// An index is not one.
    #[error("reading index {digest}")]
    Index {
        /// The index.
        digest: Digest,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A manifest and its config are not an image.
    #[error("reading image {digest}")]
    Image {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        source: ImageError,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing with a name".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Finds the image called `name` (a tag, a digest, or `None` for the only one) for `platform` in `index`.
pub(crate) fn resolve(
    blobs: &dyn BlobSource,
    index: &Index,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Image, ResolveError> {
    let candidates = candidates(index, name)?;
    let mut entry = choose(&candidates, platform)?.clone();
    for _ in 0..MAX_NESTING {
        if !entry.is_index() {
            return read_image(blobs, &entry);
        }
        let nested = read_index(blobs, &entry)?;
        entry = nested.select(platform)?.clone();
    }
    Err(ResolveError::TooDeep)
}

fn candidates<'a>(
    index: &'a Index,
    name: Option<&str>,
) -> Result<Vec<&'a Descriptor>, ResolveError> {
    let images = || {
        index
            .manifests
            .iter()
            .filter(|entry| entry.is_index() || entry.is_manifest())
    };
    let Some(name) = name else {
        return only_image(images().collect());
    };
    let found: Vec<&Descriptor> = match Digest::parse(name) {
        Ok(digest) => images()
            .filter(|entry| entry.digest == digest)
            .take(1)
            .collect(),
        Err(_) => images()
            .filter(|entry| name_of(entry) == Some(name))
            .collect(),
    };
    if found.is_empty() {
        let present = names(images());
        let name = name.to_owned();
        return Err(ResolveError::NoSuchName { name, present });
    }
    Ok(found)
}

/// Without a name: one entry, or several platforms of what must be one image because none or all share a name.
fn only_image(entries: Vec<&Descriptor>) -> Result<Vec<&Descriptor>, ResolveError> {
    let Some((first, rest)) = entries.split_first() else {
        return Err(ResolveError::Empty);
    };
    let same_name = rest.iter().all(|entry| name_of(entry) == name_of(first));
    let by_platform = entries.iter().all(|entry| entry.platform.is_some());
    let same_content = rest.iter().all(|entry| entry.digest == first.digest);
    if same_content {
        return Ok(vec![first]);
    }
    if same_name && by_platform {
        return Ok(entries);
    }
    let present = names(entries.into_iter());
    Err(ResolveError::NameNeeded { present })
}

fn choose<'a>(
    candidates: &[&'a Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, SelectError> {
    match candidates {
        // The only thing of that name is what was asked for; its platform is for the caller to compare.
        [only] if only.platform.is_none() || !only.is_manifest() => Ok(only),
        several => select(several.iter().copied(), platform),
    }
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

fn names<'a>(entries: impl Iterator<Item = &'a Descriptor>) -> Vec<String> {
    let mut names: Vec<String> = entries
        .map(|entry| match name_of(entry) {
            Some(name) => name.escape_debug().to_string(),
            None => entry.digest.to_string(),
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn read_document(blobs: &dyn BlobSource, entry: &Descriptor) -> Result<Vec<u8>, ResolveError> {
    read_blob(blobs, entry, MAX_DOCUMENT_SIZE).map_err(|source| ResolveError::Blob {
        digest: entry.digest,
        source,
    })
}

fn read_index(blobs: &dyn BlobSource, entry: &Descriptor) -> Result<Index, ResolveError> {
    let bytes = read_document(blobs, entry)?;
    let digest = entry.digest;
    match Document::parse(&bytes, Some(&entry.media_type)) {
        Ok(Document::Index(index)) => Ok(index),
        Ok(Document::Manifest(_)) => Err(ResolveError::Index {
            digest,
            source: ManifestError::Ambiguous {
                declared: entry.media_type.clone(),
                found: "a manifest".to_owned(),
            },
        }),
        Err(source) => Err(ResolveError::Index { digest, source }),
    }
}

pub(crate) fn read_image(
    blobs: &dyn BlobSource,
    entry: &Descriptor,
) -> Result<Image, ResolveError> {
    let manifest_bytes = read_document(blobs, entry)?;
    let media_type = Some(entry.media_type.as_str());
    let damaged = |source: ImageError| ResolveError::Image {
        digest: entry.digest,
        source,
    };
    let config = Image::config_of(&manifest_bytes, media_type).map_err(damaged)?;
    let config_bytes = read_document(blobs, &config)?;
    Image::new(manifest_bytes, media_type, config_bytes).map_err(damaged)
}
