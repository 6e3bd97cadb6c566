//! `oci-archive`: a tar of an OCI image layout.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::tar_file::TarFile;
use super::tar_out::TarOut;
use super::{ArchiveError, ArchiveImage};
use crate::digest::Digest;
use crate::image::Image;
use crate::layout::{check_name, parse_layout_index};
use crate::manifest::{Descriptor, Index, to_json};
use crate::platform::Platform;
use crate::resolve::{REF_NAME, resolve};
use crate::source::{BlobSource, not_found, verified};

const KIND: &str = "an OCI archive";

/// A tar of an OCI image layout, open for reading.
#[derive(Debug, Clone)]
pub struct OciArchive {
    tar: TarFile,
    index: Index,
}

impl OciArchive {
    /// Opens the archive at `path`; a compressed one is decompressed into the directory for temporary files.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::NotTar`], [`ArchiveError::NoMember`], [`ArchiveError::Index`], [`ArchiveError::Io`].
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        Self::open_with_scratch(path, &std::env::temp_dir())
    }

    /// As [`open`](Self::open), with a directory of the caller's choice to decompress into.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with_scratch(path: &Path, scratch: &Path) -> Result<Self, ArchiveError> {
        let tar = TarFile::open(path, scratch)?;
        let bytes = tar.document("index.json", KIND)?;
        let index = parse_layout_index(&bytes).map_err(|source| ArchiveError::Index {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { tar, index })
    }

    /// Returns the archive's index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the name of every entry of the index, in its order.
    pub fn names(&self) -> Vec<Option<String>> {
        let entries = self.index.manifests.iter();
        entries
            .map(|entry| entry.annotations.get(REF_NAME).cloned())
            .collect()
    }

    /// Finds an image by tag, by digest, or (with `None`) as the only one there is, for `platform`; the rules are those
    /// of [`Layout::resolve`](crate::layout::Layout::resolve).
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Resolve`] says what there is instead.
    pub fn resolve(
        &self,
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<ArchiveImage, ArchiveError> {
        let image = resolve(self, &self.index, name, platform)?;
        let layers = image.layers().iter();
        let sections: HashMap<_, _> = layers
            .filter_map(|layer| {
                Some((
                    layer.digest,
                    self.tar.find(blob_name(&layer.digest).as_bytes())?,
                ))
            })
            .collect();
        Ok(ArchiveImage {
            tar: self.tar.clone(),
            sections: Arc::new(sections),
            image,
        })
    }

    /// Writes an archive that holds one image, its blobs taken from `blobs`, optionally under a name.
    ///
    /// The same image gives the same bytes. The file gets its name when it is whole; on error there is none, or the old
    /// one stays.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Blob`] names a layer that cannot be read, [`ArchiveError::InvalidName`] a bad name.
    pub fn write(
        path: &Path,
        image: &Image,
        name: Option<&str>,
        blobs: &dyn BlobSource,
    ) -> Result<(), ArchiveError> {
        let mut entry = image.descriptor();
        if let Some(name) = name {
            let checked = check_name(name).map_err(|_| ArchiveError::InvalidName {
                name: name.to_owned(),
                kind: KIND,
            })?;
            entry = entry.with_annotation(REF_NAME, checked);
        }
        let mut out = TarOut::create(path)?;
        out.document(
            "oci-layout",
            &to_json(&json!({"imageLayoutVersion": "1.0.0"})),
        )?;
        out.document("index.json", &Index::new(vec![entry]).to_bytes())?;
        out.directory("blobs/")?;
        out.directory("blobs/sha256/")?;
        out.document(&blob_name(&image.manifest_digest()), image.manifest_bytes())?;
        out.document(&blob_name(&image.config_digest()), image.config_bytes())?;
        for layer in distinct(image.layers()) {
            let digest = layer.digest;
            let damaged = |source| ArchiveError::Blob { digest, source };
            let content = blobs.open_blob(layer).map_err(damaged)?;
            out.blob(&blob_name(&digest), layer.size, digest, content)?;
        }
        out.finish()
    }
}

/// Returns the layers without repetition: two layers of one image may well be the same blob.
fn distinct(layers: &[Descriptor]) -> impl Iterator<Item = &Descriptor> {
    let is_first =
        |(at, layer): &(usize, &Descriptor)| layers[..*at].iter().all(|l| l.digest != layer.digest);
    layers
        .iter()
        .enumerate()
        .filter(is_first)
        .map(|(_, layer)| layer)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", Digest::ALGORITHM, digest.hex())
}

impl BlobSource for OciArchive {
    fn open_blob(&self, blob: &Descriptor) -> io::Result<Box<dyn Read + Send + '_>> {
        let section = self.tar.find(blob_name(&blob.digest).as_bytes());
        let section = section.ok_or_else(|| not_found(&blob.digest))?;
        Ok(verified(self.tar.read(section), blob))
    }
}
