//! The OCI image layout: a directory of blobs with an index of what they are called.
//!
//! ```text
//! DIR/oci-layout           {"imageLayoutVersion":"1.0.0"}; locked while index.json changes
//! DIR/index.json           replaced as a whole, never written in place
//! DIR/blobs/sha256/...     see [`crate::blobs`]
//! ```
//!
//! Entries and keys of `index.json` that other tools wrote stay as they are. No name taken from a document becomes part of
//! a path: blobs are found by digest only.
//!
//! Spec: image-spec `image-layout.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::blobs::{Blob, BlobError, BlobStore, sync_dir};
use crate::digest::Digest;
use crate::image::Image;
use crate::input::open_regular;
use crate::manifest::{Descriptor, Document, Index, MAX_DOCUMENT_SIZE, ManifestError, to_json};
use crate::media_type;
use crate::partial;
use crate::platform::Platform;
pub use crate::resolve::ResolveError;
use crate::resolve::{REF_NAME, resolve};
use crate::source::{BlobSource, ImageSource};

const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const LAYOUT_VERSION: &str = "1.0.0";

/// Longest name an image may get in a layout; the specification sets none, registries allow 128 for a tag.
const MAX_NAME_LEN: usize = 255;

/// Why a layout cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The directory is not an OCI layout.
    #[error("{dir:?} is not an OCI layout, it has no `oci-layout` file")]
    NotALayout {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has other content, which a new layout would mix with.
    #[error("{dir:?} is not empty and not an OCI layout")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// A version of the format we do not know.
    #[error("{dir:?} is an OCI layout of version {version:?}, only 1.x is supported")]
    Version {
        /// The directory.
        dir: PathBuf,
        /// The version it states.
        version: String,
    },
    /// `index.json` or `oci-layout` is damaged.
    #[error("reading {path:?}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// `index.json` is not an index.
    #[error("reading {path:?}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ManifestError,
    },
    /// A name that no image can have.
    #[error(
        "{name:?} cannot name an image (letters, digits and `-._:@/+`, at most {MAX_NAME_LEN}, starting with a letter or digit)"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// An image is to be named before all its blobs are there.
    #[error("blob {digest} is missing, store it before its manifest")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// Finding an image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Reading or writing a blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
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

fn io_error(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.into();
    move |source| LayoutError::Io {
        doing,
        path,
        source,
    }
}

/// An OCI image layout directory.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    blobs: BlobStore,
}

/// An image in a layout.
#[derive(Debug, Clone)]
pub struct LayoutImage {
    blobs: BlobStore,
    image: Image,
}

impl Layout {
    /// Opens the layout at `dir`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotALayout`], [`LayoutError::Version`], [`LayoutError::Json`], [`LayoutError::Io`].
    pub fn open(dir: &Path) -> Result<Self, LayoutError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let path = dir.join(LAYOUT_FILE);
        let bytes = match read_limited(&path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(LayoutError::NotALayout {
                    dir: dir.to_owned(),
                });
            }
            result => result.map_err(io_error("reading", &path))?,
        };
        let marker: Marker =
            serde_json::from_slice(&bytes).map_err(|source| LayoutError::Json { path, source })?;
        let version = marker.image_layout_version;
        if version.split('.').next() != Some("1") {
            let dir = dir.to_owned();
            return Err(LayoutError::Version { dir, version });
        }
        Ok(Self {
            dir: dir.to_owned(),
            blobs: BlobStore::open(dir),
        })
    }

    /// Makes a new, empty layout at `dir`, which must be empty or missing.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotEmpty`], [`LayoutError::Io`].
    pub fn create(dir: &Path) -> Result<Self, LayoutError> {
        fs::create_dir_all(dir).map_err(io_error("creating directory", dir))?;
        let mut entries = fs::read_dir(dir).map_err(io_error("reading directory", dir))?;
        if entries.next().is_some() {
            return Err(LayoutError::NotEmpty {
                dir: dir.to_owned(),
            });
        }
        BlobStore::ensure(dir)?;
        replace(&dir.join(INDEX_FILE), &Index::new(Vec::new()).to_bytes())?;
        // The marker comes last: a layout that has it is complete.
        let marker = to_json(&json!({"imageLayoutVersion": LAYOUT_VERSION}));
        replace(&dir.join(LAYOUT_FILE), &marker)?;
        Self::open(dir)
    }

    /// Opens the layout at `dir`, or makes one where there is nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn ensure(dir: &Path) -> Result<Self, LayoutError> {
        match Self::open(dir) {
            Err(LayoutError::NotALayout { .. }) => Self::create(dir),
            Ok(layout) => {
                BlobStore::ensure(dir)?;
                Ok(layout)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the blobs, for reading and for storing layers before their image.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Reads `index.json`.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Index`], [`LayoutError::Io`].
    pub fn index(&self) -> Result<Index, LayoutError> {
        let path = self.dir.join(INDEX_FILE);
        let bytes = read_limited(&path).map_err(io_error("reading", &path))?;
        parse_layout_index(&bytes).map_err(|source| LayoutError::Index { path, source })
    }

    /// Returns the names in the layout with what they name, in the order of `index.json`.
    ///
    /// # Errors
    ///
    /// As [`index`](Self::index).
    pub fn names(&self) -> Result<Vec<(String, Descriptor)>, LayoutError> {
        let named = |entry: Descriptor| Some((entry.annotations.get(REF_NAME)?.clone(), entry));
        Ok(self
            .index()?
            .manifests
            .into_iter()
            .filter_map(named)
            .collect())
    }

    /// Finds an image by tag, by digest, or (with `None`) as the only one there is, for `platform`.
    ///
    /// A name that stands for a single manifest without a platform is returned whatever it is for: compare
    /// [`Image::platform`] where that matters.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Resolve`] says what there is instead.
    pub fn resolve(
        &self,
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<LayoutImage, LayoutError> {
        let image = resolve(&self.blobs, &self.index()?, name, platform)?;
        let blobs = self.blobs.clone();
        Ok(LayoutImage { blobs, image })
    }

    /// Stores an image's config and manifest, and gives it `name` in place of whatever had that name.
    ///
    /// Its layers must be in the layout. Without a name the image is found by digest.
    ///
    /// # Errors
    ///
    /// [`LayoutError::MissingBlob`] names the first layer that is not there; nothing is named then.
    pub fn put_image(&self, image: &Image, name: Option<&str>) -> Result<Descriptor, LayoutError> {
        // Nobody takes a blob away between the look and the name.
        let lock = self.lock()?;
        for layer in image.layers() {
            if self.blobs.size(&layer.digest) != Some(layer.size) {
                let digest = layer.digest;
                return Err(LayoutError::MissingBlob { digest });
            }
        }
        self.blobs.put(image.config_bytes())?;
        self.blobs.put(image.manifest_bytes())?;
        let descriptor = image.descriptor();
        self.put_entry(&lock, descriptor.clone(), name)?;
        Ok(descriptor)
    }

    /// Stores a manifest or index as it is and gives it `name` in place of whatever had that name.
    ///
    /// What it refers to must be in the layout: config and layers of a manifest, manifests of an index.
    ///
    /// # Errors
    ///
    /// [`LayoutError::MissingBlob`], [`LayoutError::Index`] when the bytes are neither.
    pub fn put_manifest(
        &self,
        bytes: &[u8],
        name: Option<&str>,
    ) -> Result<Descriptor, LayoutError> {
        let document = Document::parse(bytes, None).map_err(|source| LayoutError::Index {
            path: self.dir.join(INDEX_FILE),
            source,
        })?;
        let (media_type, needed): (&str, Vec<&Descriptor>) = match &document {
            Document::Manifest(m) => (m.media_type(), m.layers.iter().chain([&m.config]).collect()),
            Document::Index(i) => {
                let media_type = i.media_type.as_deref().unwrap_or(media_type::OCI_INDEX);
                (media_type, i.manifests.iter().collect())
            }
        };
        let lock = self.lock()?;
        for blob in needed {
            if !self.blobs.contains(&blob.digest) {
                let digest = blob.digest;
                return Err(LayoutError::MissingBlob { digest });
            }
        }
        let Blob { digest, size } = self.blobs.put(bytes)?;
        let descriptor = Descriptor::new(media_type, digest, size);
        self.put_entry(&lock, descriptor.clone(), name)?;
        Ok(descriptor)
    }

    /// Removes those of `blobs` that no image in the layout needs: what an image brought that was never named.
    ///
    /// Another writer that counted on one of them is told so when it names its image.
    ///
    /// # Errors
    ///
    /// An image of the layout cannot be read, and nothing was removed; [`LayoutError::Blob`].
    pub fn remove_unnamed(&self, blobs: &[Digest]) -> Result<(), LayoutError> {
        let _lock = self.lock()?;
        let mut todo: Vec<Descriptor> = self.index()?.manifests;
        let mut needed = std::collections::BTreeSet::new();
        while let Some(entry) = todo.pop() {
            if !needed.insert(entry.digest) || !self.blobs.contains(&entry.digest) {
                continue;
            }
            let path = self.blobs.path(&entry.digest);
            let bytes = read_limited(&path).map_err(io_error("reading", &path))?;
            match Document::parse(&bytes, Some(&entry.media_type)) {
                Ok(Document::Index(index)) => todo.extend(index.manifests),
                Ok(Document::Manifest(manifest)) => {
                    let blobs = manifest.layers.iter().chain([&manifest.config]);
                    needed.extend(blobs.map(|blob| blob.digest));
                }
                Err(source) => return Err(LayoutError::Index { path, source }),
            }
        }
        for blob in blobs.iter().filter(|blob| !needed.contains(blob)) {
            self.blobs.remove(blob)?;
        }
        Ok(())
    }

    /// Puts one entry into `index.json` under the layout's `_lock`.
    fn put_entry(
        &self,
        _lock: &File,
        entry: Descriptor,
        name: Option<&str>,
    ) -> Result<(), LayoutError> {
        let entry = match name {
            Some(name) => entry.with_annotation(REF_NAME, check_name(name)?),
            None => entry,
        };
        let path = self.dir.join(INDEX_FILE);
        let bytes = read_limited(&path).map_err(io_error("reading", &path))?;
        parse_layout_index(&bytes).map_err(|source| LayoutError::Index {
            path: path.clone(),
            source,
        })?;
        // Edited as plain JSON, so that other tools' entries keep keys in forms we do not know.
        let json_error = |source| LayoutError::Json {
            path: path.clone(),
            source,
        };
        let mut index: Value = serde_json::from_slice(&bytes).map_err(json_error)?;
        let entry = serde_json::to_value(entry).map_err(json_error)?;
        if !index["manifests"].is_array() {
            index["manifests"] = json!([]);
        }
        if let Some(entries) = index["manifests"].as_array_mut() {
            replace_entry(entries, entry, name);
        }
        replace(&path, &to_json(&index))
    }

    /// Waits for other writers of this layout. The lock ends with the file.
    fn lock(&self) -> Result<File, LayoutError> {
        let path = self.dir.join(LAYOUT_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("opening", &path))?;
        file.lock().map_err(io_error("locking", &path))?;
        Ok(file)
    }
}

impl BlobSource for Layout {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        self.blobs.open_blob(blob)
    }
}

impl LayoutImage {
    /// Returns the blobs of the layout the image is in.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }
}

impl BlobSource for LayoutImage {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        self.blobs.open_blob(blob)
    }
}

impl ImageSource for LayoutImage {
    fn image(&self) -> &Image {
        &self.image
    }
}

/// Parses an `index.json`, whose media type older tools do not write.
pub(crate) fn parse_layout_index(bytes: &[u8]) -> Result<Index, ManifestError> {
    match Document::parse(bytes, None)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(ManifestError::Ambiguous {
            declared: INDEX_FILE.to_owned(),
            found: "a manifest".to_owned(),
        }),
    }
}

/// Puts `entry` where the first one it replaces was, else at the end.
fn replace_entry(entries: &mut Vec<Value>, entry: Value, name: Option<&str>) {
    let digest = entry["digest"].clone();
    let is_same = |old: &Value| {
        let old_name = old
            .pointer("/annotations/org.opencontainers.image.ref.name")
            .and_then(Value::as_str);
        match name {
            Some(name) => old_name == Some(name),
            None => old_name.is_none() && old["digest"] == digest,
        }
    };
    let at = entries.iter().position(is_same).unwrap_or(entries.len());
    entries.retain(|old| !is_same(old));
    entries.insert(at.min(entries.len()), entry);
}

/// Returns `name` if an image in a layout can be called so.
///
/// # Errors
///
/// [`LayoutError::InvalidName`].
pub fn check_name(name: &str) -> Result<&str, LayoutError> {
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:@/+".contains(&b);
    if starts_well && name.len() <= MAX_NAME_LEN && name.bytes().all(is_allowed) {
        return Ok(name);
    }
    let name = name.to_owned();
    Err(LayoutError::InvalidName { name })
}

/// Reads a small file that others may have written, up to the limit for documents.
fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(MAX_DOCUMENT_SIZE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT_SIZE {
        let message = format!("larger than {MAX_DOCUMENT_SIZE} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

/// Replaces a file's content at once: readers see the old or the new one, also after a crash.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = partial::create_beside(path, 0o644)?;
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        sync_dir(dir)
    };
    write().map_err(io_error("writing", path))
}

#[cfg(test)]
mod tests;
