//! `docker-archive`: what `docker save` writes and `docker load` reads.
//!
//! ```text
//! manifest.json        [{"Config": NAME, "RepoTags": [...], "Layers": [NAME, ...]}, ...], base layer first
//! NAME                 config or layer; layers are plain tars, or whatever a newer Docker's store held
//! ```
//!
//! Older versions store layers as `<id>/layer.tar`, some of them symbolic links to others; newer ones store everything as
//! `blobs/sha256/<digest>`. All are found through `manifest.json`. Archives of Docker before 1.10 do not have it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::tar_file::{Section, TarFile};
use super::tar_out::TarOut;
use super::{ArchiveError, ArchiveImage};
use crate::compress::{Format, decoder};
use crate::digest::{Digest, HashingReader};
use crate::image::{Image, ImageError};
use crate::manifest::{Descriptor, Manifest, to_json};
use crate::media_type;
use crate::resolve::ResolveError;
use crate::source::BlobSource;

const KIND: &str = "a Docker archive";
const MANIFEST: &str = "manifest.json";

/// One image in `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// An archive in the format of `docker save`, open for reading.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    tar: TarFile,
    items: Vec<Item>,
}

impl DockerArchive {
    /// Opens the archive at `path`; a compressed one is decompressed into the directory for temporary files.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::NotTar`], [`ArchiveError::NoMember`], [`ArchiveError::Json`], [`ArchiveError::Io`].
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
        let bytes = tar.document(MANIFEST, KIND)?;
        let items = serde_json::from_slice(&bytes).map_err(|source| ArchiveError::Json {
            path: path.to_owned(),
            member: MANIFEST.to_owned(),
            source,
        })?;
        Ok(Self { tar, items })
    }

    /// Returns the tags of all images in the archive.
    pub fn tags(&self) -> Vec<&str> {
        self.items
            .iter()
            .flat_map(Item::tags)
            .map(String::as_str)
            .collect()
    }

    /// Returns every name of every image, and `None` for each image without one.
    pub fn names(&self) -> Vec<Option<String>> {
        let mut names = Vec::new();
        for item in &self.items {
            match item.tags() {
                [] => names.push(None),
                tags => names.extend(tags.iter().cloned().map(Some)),
            }
        }
        names
    }

    /// Finds an image by tag, by config digest, or (with `None`) as the only one there is.
    ///
    /// `debian:12` and `docker.io/library/debian:12` are the same tag. The format has no platforms: compare
    /// [`Image::platform`] where that matters. The image comes in OCI form. A layer that is not a plain tar and has no
    /// digest for a name is read once here, to get one.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Resolve`] says what there is instead; [`ArchiveError::Image`], [`ArchiveError::Member`] and
    /// [`ArchiveError::NoMember`] what is damaged.
    pub fn resolve(&self, name: Option<&str>) -> Result<ArchiveImage, ArchiveError> {
        self.read_item(self.choose(name)?)
    }

    fn choose(&self, name: Option<&str>) -> Result<&Item, ResolveError> {
        let present = || {
            let mut tags: Vec<String> = self
                .tags()
                .iter()
                .map(|tag| tag.escape_debug().to_string())
                .collect();
            tags.sort();
            tags
        };
        match (name, &self.items[..]) {
            (_, []) => Err(ResolveError::Empty),
            (None, [only]) => Ok(only),
            (None, _) => Err(ResolveError::NameNeeded { present: present() }),
            (Some(name), items) => {
                items
                    .iter()
                    .find(|item| is_called(item, name))
                    .ok_or_else(|| ResolveError::NoSuchName {
                        name: name.to_owned(),
                        present: present(),
                    })
            }
        }
    }

    fn read_item(&self, item: &Item) -> Result<ArchiveImage, ArchiveError> {
        let config_bytes = self.tar.document(&item.config, KIND)?;
        let diff_ids = diff_ids(&config_bytes).map_err(|source| self.image_error(source))?;
        let names = item.layers.as_deref().unwrap_or_default();
        if names.len() != diff_ids.len() {
            return Err(self.image_error(ImageError::LayerCount {
                layers: names.len(),
                diff_ids: diff_ids.len(),
            }));
        }
        let mut sections = HashMap::new();
        let mut layers = Vec::new();
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let (descriptor, section) = self.read_layer(name, diff_id)?;
            sections.insert(descriptor.digest, section);
            layers.push(descriptor);
        }
        let image = image_of(config_bytes, layers).map_err(|source| self.image_error(source))?;
        Ok(ArchiveImage {
            tar: self.tar.clone(),
            sections: Arc::new(sections),
            image,
        })
    }

    /// Returns the descriptor of a layer. A plain tar is named by its diff ID, which holds when it is read and checked.
    fn read_layer(
        &self,
        name: &str,
        diff_id: Digest,
    ) -> Result<(Descriptor, Section), ArchiveError> {
        let section = self
            .tar
            .find(name.as_bytes())
            .ok_or_else(|| ArchiveError::NoMember {
                path: self.tar.path().to_owned(),
                kind: KIND,
                member: name.to_owned(),
            })?;
        let damaged = |source| ArchiveError::Member {
            path: self.tar.path().to_owned(),
            member: name.to_owned(),
            source,
        };
        let head = self.tar.head(section).map_err(damaged)?;
        let format = Format::detect(&head).map_err(|error| damaged(io::Error::other(error)))?;
        let digest = match (format, digest_in_name(name)) {
            (Format::Tar, _) => diff_id,
            (_, Some(digest)) => digest,
            (_, None) => self.hash(section).map_err(damaged)?,
        };
        let descriptor = Descriptor::new(format.layer_media_type(), digest, section.size);
        Ok((descriptor, section))
    }

    fn hash(&self, section: Section) -> io::Result<Digest> {
        let mut reader = HashingReader::new(self.tar.read(section));
        io::copy(&mut reader, &mut io::sink())?;
        Ok(reader.finish().1)
    }

    fn image_error(&self, source: ImageError) -> ArchiveError {
        ArchiveError::Image {
            path: self.tar.path().to_owned(),
            source,
        }
    }

    /// Checks that an image can have `tag`, a repository with a tag.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::InvalidName`].
    pub fn check_tag(tag: &str) -> Result<(), ArchiveError> {
        if is_full_tag(tag) {
            return Ok(());
        }
        Err(ArchiveError::InvalidName {
            name: tag.to_owned(),
            kind: KIND,
        })
    }

    /// Writes an archive that holds one image under any number of tags, its blobs taken from `blobs`.
    ///
    /// Layers are stored uncompressed, as `docker load` of every version takes them, and checked against their diff IDs
    /// on the way. The same image gives the same bytes. The file gets its name when it is whole.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::InvalidName`] for a tag without a repository and a tag; [`ArchiveError::Blob`] or
    /// [`ArchiveError::DiffId`] for a damaged layer.
    pub fn write(
        path: &Path,
        image: &Image,
        tags: &[&str],
        blobs: &dyn BlobSource,
    ) -> Result<(), ArchiveError> {
        for tag in tags {
            Self::check_tag(tag)?;
        }
        let config_name = format!("{}.json", image.config_digest().hex());
        let layer_names: Vec<String> = image.diff_ids().iter().map(layer_name).collect();
        let mut out = TarOut::create(path)?;
        out.document(&config_name, image.config_bytes())?;
        for (at, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
            if !image.diff_ids()[..at].contains(diff_id) {
                write_layer(&mut out, layer, diff_id, blobs)?;
            }
        }
        let item = json!([{"Config": config_name, "RepoTags": tags, "Layers": layer_names}]);
        out.document(MANIFEST, &to_json(&item))?;
        out.finish()
    }
}

fn write_layer(
    out: &mut TarOut,
    layer: &Descriptor,
    diff_id: &Digest,
    blobs: &dyn BlobSource,
) -> Result<(), ArchiveError> {
    let damaged = |source| ArchiveError::Blob {
        digest: layer.digest,
        source,
    };
    let blob = blobs.open_blob(layer).map_err(damaged)?;
    let mut tar = HashingReader::new(decoder(blob).map_err(damaged)?);
    let name = layer_name(diff_id);
    out.unpacked_blob(&name, layer.digest, tar.by_ref())?;
    let (_, found, _) = tar.finish();
    if found == *diff_id {
        return Ok(());
    }
    Err(ArchiveError::DiffId {
        layer: layer.digest,
        expected: *diff_id,
        found,
    })
}

fn layer_name(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

fn diff_ids(config_bytes: &[u8]) -> Result<Vec<Digest>, ImageError> {
    let config: Value = serde_json::from_slice(config_bytes).map_err(ImageError::ConfigJson)?;
    let list = config
        .pointer("/rootfs/diff_ids")
        .cloned()
        .unwrap_or_else(|| json!([]));
    serde_json::from_value(list).map_err(|_| ImageError::ConfigKey {
        key: "rootfs.diff_ids",
        expected: "a list of sha256 digests",
    })
}

fn image_of(config_bytes: Vec<u8>, layers: Vec<Descriptor>) -> Result<Image, ImageError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, &config_bytes),
        layers,
        subject: None,
        annotations: Default::default(),
        rest: Default::default(),
    };
    Image::new(
        manifest.to_bytes(),
        Some(media_type::OCI_MANIFEST),
        config_bytes,
    )
}

fn digest_in_name(name: &str) -> Option<Digest> {
    Digest::from_hex(name.strip_prefix("blobs/sha256/")?)
}

fn is_called(item: &Item, name: &str) -> bool {
    if let Ok(digest) = Digest::parse(name) {
        let file_name = item.config.rsplit('/').next().unwrap_or_default();
        return file_name.trim_end_matches(".json") == digest.hex();
    }
    item.tags()
        .iter()
        .any(|tag| familiar(tag) == familiar(name))
}

/// Returns a tag the way people write it: Docker Hub's own prefixes left out, `latest` spelled out.
fn familiar(tag: &str) -> String {
    let short = tag.strip_prefix("docker.io/").unwrap_or(tag);
    let short = short.strip_prefix("library/").unwrap_or(short);
    match has_tag(short) {
        true => short.to_owned(),
        false => format!("{short}:latest"),
    }
}

fn has_tag(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or_default();
    last.split_once(':')
        .is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty())
}

fn is_full_tag(tag: &str) -> bool {
    has_tag(tag)
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:/".contains(&b))
}
