//! One platform's image as a value: a manifest, a config, and methods that return changed copies.
//!
//! The config stays the JSON it came as, so keys we know nothing of survive every change. Layer blobs are only named
//! here; nothing reads or writes them. Bytes of an unchanged image are the bytes it was read from.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::layer::LayerInfo;
pub use crate::manifest::{Descriptor, Document, Index, Manifest, ManifestError, SelectError};
use crate::manifest::{MAX_DOCUMENT_SIZE, to_json};
use crate::media_type;
use crate::platform::Platform;
use crate::time::rfc3339;

mod history;

pub use history::History;

/// Why a manifest and a config do not make an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The manifest is refused.
    #[error("reading the manifest")]
    Manifest(#[from] ManifestError),
    /// An index where one image's manifest was expected.
    #[error("document is an index, not one image's manifest")]
    IsIndex,
    /// An OCI artifact (a chart, a signature, ...) rather than an image.
    #[error("manifest describes {media_type:?}, not a container image")]
    NotAnImage {
        /// Its artifact type or config media type.
        media_type: String,
    },
    /// The config bytes are not those the manifest names.
    #[error("config has the digest {found}, the manifest names {expected}")]
    ConfigMismatch {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The config has more bytes than we read.
    #[error("config of {size} bytes is larger than {MAX_DOCUMENT_SIZE} bytes")]
    ConfigTooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The config is not JSON.
    #[error("config is not valid JSON")]
    ConfigJson(#[source] serde_json::Error),
    /// A config key is missing or has the wrong type.
    #[error("config key `{key}` is not {expected}")]
    ConfigKey {
        /// The key, with its parents.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The config describes another number of layers than the manifest.
    #[error("manifest has {layers} layers, its config {diff_ids} diff IDs")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff IDs in the config.
        diff_ids: usize,
    },
}

/// One platform's image.
///
/// Methods that change something return a new image in OCI form: Docker's media types become OCI's, and the layer blobs
/// they name stay as they are. An image nobody changed keeps its bytes and so its digest.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    config: Map<String, Value>,
    config_bytes: Vec<u8>,
    diff_ids: Vec<Digest>,
}

impl Image {
    /// Makes an image of the bytes of its manifest and of its config.
    ///
    /// `media_type` is what the manifest was served as, if anything said so.
    ///
    /// # Errors
    ///
    /// - [`ImageError::Manifest`], [`ImageError::IsIndex`], [`ImageError::NotAnImage`]: the manifest is not one.
    /// - [`ImageError::ConfigMismatch`]: the config is not the one the manifest names.
    /// - [`ImageError::LayerCount`], [`ImageError::ConfigKey`], [`ImageError::ConfigJson`]: the config is damaged.
    pub fn new(
        manifest_bytes: Vec<u8>,
        media_type: Option<&str>,
        config_bytes: Vec<u8>,
    ) -> Result<Image, ImageError> {
        let Document::Manifest(manifest) = Document::parse(&manifest_bytes, media_type)? else {
            return Err(ImageError::IsIndex);
        };
        Self::check_is_image(&manifest)?;
        let found = Digest::of(&config_bytes);
        if found != manifest.config.digest {
            let expected = manifest.config.digest;
            return Err(ImageError::ConfigMismatch { expected, found });
        }
        let config = parse_config(&config_bytes)?;
        let diff_ids = read_diff_ids(&config)?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        Ok(Image {
            manifest: *manifest,
            manifest_bytes,
            config,
            config_bytes,
            diff_ids,
        })
    }

    /// Checks that `manifest` describes a container image, so that its config is worth fetching.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotAnImage`] names what it is.
    pub fn check_is_image(manifest: &Manifest) -> Result<(), ImageError> {
        let config = manifest.config.media_type.as_str();
        // Docker before 1.10 and some converters did not name the config's type.
        let untyped = manifest.artifact_type.is_none() && config == "application/octet-stream";
        if media_type::is_config(config) || untyped {
            return Ok(());
        }
        let media_type = manifest
            .artifact_type
            .as_deref()
            .unwrap_or(config)
            .to_owned();
        Err(ImageError::NotAnImage { media_type })
    }

    /// Returns the config's descriptor out of the bytes of a manifest: what to fetch before [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) for the manifest, so nothing is fetched for what is not an image.
    pub fn config_of(
        manifest_bytes: &[u8],
        media_type: Option<&str>,
    ) -> Result<Descriptor, ImageError> {
        match Document::parse(manifest_bytes, media_type)? {
            Document::Manifest(manifest) => {
                Self::check_is_image(&manifest)?;
                Ok(manifest.config)
            }
            Document::Index(_) => Err(ImageError::IsIndex),
        }
    }

    /// Makes an image without layers.
    pub fn empty(platform: &Platform) -> Image {
        let mut config = Map::new();
        config.insert(
            "architecture".to_owned(),
            platform.architecture.clone().into(),
        );
        config.insert("os".to_owned(), platform.os.clone().into());
        if let Some(variant) = &platform.variant {
            config.insert("variant".to_owned(), variant.clone().into());
        }
        config.insert("config".to_owned(), json!({}));
        config.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": []}),
        );
        config.insert("history".to_owned(), json!([]));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(media_type::OCI_CONFIG, b""),
            layers: Vec::new(),
            subject: None,
            annotations: Default::default(),
            rest: Map::new(),
        };
        Image {
            manifest,
            manifest_bytes: Vec::new(),
            config,
            config_bytes: Vec::new(),
            diff_ids: Vec::new(),
        }
        .rebuilt()
    }

    /// Makes a one-layer image of a root filesystem that came without one (`dir:`, `tar:`).
    ///
    /// It sets a `PATH` and a shell as the command, so that the image can be run and not only built on.
    pub fn from_rootfs_layer(layer: &LayerInfo, platform: &Platform) -> Image {
        const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Image::empty(platform)
            .with_env("PATH", PATH)
            .with_runtime("Cmd", json!(["/bin/sh"]))
            .append_layer(layer, History::by("root filesystem"))
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the exact bytes of the manifest: as read, or compact JSON once changed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Returns the digest of [`manifest_bytes`](Self::manifest_bytes).
    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest_bytes)
    }

    /// Returns a descriptor of the manifest, with the platform.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::of(self.manifest.media_type(), &self.manifest_bytes)
            .with_platform(self.platform())
    }

    /// Returns the config document.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// Returns the exact bytes of the config: as read, or compact JSON once changed.
    pub fn config_bytes(&self) -> &[u8] {
        &self.config_bytes
    }

    /// Returns the digest of the config, which Docker calls the image ID.
    pub fn config_digest(&self) -> Digest {
        self.manifest.config.digest
    }

    /// Returns the layers, base first.
    pub fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }

    /// Returns the diff IDs of the layers, base first; as many as [`layers`](Self::layers).
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Returns the CPU architecture, `unknown` when the config has none.
    pub fn architecture(&self) -> &str {
        self.text("architecture").unwrap_or("unknown")
    }

    /// Returns the operating system; `linux` when the config has none, as Docker takes it.
    pub fn os(&self) -> &str {
        self.text("os").unwrap_or("linux")
    }

    /// Returns the variant of the architecture.
    pub fn variant(&self) -> Option<&str> {
        self.text("variant")
    }

    /// Returns the platform the config states, in its own spelling.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os().to_owned(),
            architecture: self.architecture().to_owned(),
            variant: self.variant().map(str::to_owned),
        }
    }

    /// Returns when the image was made, as the config writes it.
    pub fn created(&self) -> Option<&str> {
        self.text("created")
    }

    /// Returns the environment, as `NAME=value`.
    pub fn env(&self) -> Vec<&str> {
        let list = self.runtime("Env").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// Returns the value of one environment variable.
    pub fn env_var(&self, name: &str) -> Option<&str> {
        self.env()
            .into_iter()
            .filter_map(|entry| entry.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Returns the labels, in the config's order.
    pub fn labels(&self) -> Vec<(&str, &str)> {
        let labels = self.runtime("Labels").and_then(Value::as_object);
        labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect()
    }

    /// Returns one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.runtime("Labels")?.get(key)?.as_str()
    }

    /// Returns one key of the config's `config` object (`Env`, `Entrypoint`, `Healthcheck`, ...).
    pub fn runtime(&self, key: &str) -> Option<&Value> {
        self.config.get("config")?.get(key)
    }

    /// Returns the history, oldest first; entries of the wrong shape are left out.
    pub fn history(&self) -> Vec<History> {
        let list = self.config.get("history").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|entry| History::deserialize(entry).ok())
            .collect()
    }

    /// Returns this image with one more layer on top.
    ///
    /// Where the base's history names fewer layers than there are, entries that say so are put in first: readers match
    /// history to layers by position.
    #[must_use]
    pub fn append_layer(&self, layer: &LayerInfo, history: History) -> Image {
        self.append_descriptor(layer.descriptor(), layer.diff_id, history)
    }

    /// Returns this image with a layer of another image on top, its descriptor's keys kept.
    #[must_use]
    pub fn append_descriptor(&self, layer: Descriptor, diff_id: Digest, history: History) -> Image {
        let mut image = self.with_complete_history();
        image.manifest.layers.push(layer);
        image.diff_ids.push(diff_id);
        let rootfs = object_in(&mut image.config, "rootfs");
        rootfs.insert("type".to_owned(), "layers".into());
        array_in(rootfs, "diff_ids").push(diff_id.to_string().into());
        image.push_history(history, false);
        image.rebuilt()
    }

    /// Returns this image with a history entry that made no layer.
    #[must_use]
    pub fn append_history(&self, history: History) -> Image {
        let mut image = self.clone();
        image.push_history(history, true);
        image.rebuilt()
    }

    /// Returns this image with one label set.
    #[must_use]
    pub fn with_label(&self, key: &str, value: &str) -> Image {
        let mut image = self.clone();
        let runtime = object_in(&mut image.config, "config");
        object_in(runtime, "Labels").insert(key.to_owned(), value.into());
        image.rebuilt()
    }

    /// Returns this image with one environment variable set, in the place of an older value.
    #[must_use]
    pub fn with_env(&self, name: &str, value: &str) -> Image {
        let mut image = self.clone();
        let env = array_in(object_in(&mut image.config, "config"), "Env");
        let entry = Value::from(format!("{name}={value}"));
        let is_same = |old: &Value| {
            let name_of_old = old.as_str().map(|old| old.split('=').next());
            name_of_old == Some(Some(name))
        };
        match env.iter_mut().find(|old| is_same(old)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
        image.rebuilt()
    }

    /// Returns this image with one key of the config's `config` object set; `null` removes it.
    #[must_use]
    pub fn with_runtime(&self, key: &str, value: Value) -> Image {
        let mut image = self.clone();
        let runtime = object_in(&mut image.config, "config");
        if value.is_null() {
            runtime.shift_remove(key);
        } else {
            runtime.insert(key.to_owned(), value);
        }
        image.rebuilt()
    }

    /// Returns this image with its creation time, in seconds since 1970.
    #[must_use]
    pub fn with_created(&self, epoch_secs: i64) -> Image {
        let mut image = self.clone();
        image
            .config
            .insert("created".to_owned(), rfc3339(epoch_secs).into());
        image.rebuilt()
    }

    /// Returns this image with one manifest annotation set.
    #[must_use]
    pub fn with_annotation(&self, key: &str, value: &str) -> Image {
        let mut image = self.clone();
        image
            .manifest
            .annotations
            .insert(key.to_owned(), value.to_owned());
        image.rebuilt()
    }

    /// Returns this image in OCI form; one that is in that form already keeps its bytes.
    #[must_use]
    pub fn to_oci(&self) -> Image {
        if self.manifest.to_oci() == self.manifest {
            return self.clone();
        }
        let mut image = self.clone();
        image.manifest = image.manifest.to_oci();
        image.manifest_bytes = image.manifest.to_bytes();
        image
    }

    /// Returns the image with other layer descriptors for the same diff IDs, such as the same content uncompressed.
    ///
    /// # Errors
    ///
    /// [`ImageError::LayerCount`] when there are not as many as diff IDs.
    pub fn with_layers(&self, layers: Vec<Descriptor>) -> Result<Image, ImageError> {
        if layers.len() != self.diff_ids.len() {
            return Err(ImageError::LayerCount {
                layers: layers.len(),
                diff_ids: self.diff_ids.len(),
            });
        }
        let mut image = self.clone();
        image.manifest.layers = layers;
        image.manifest = image.manifest.to_oci();
        image.manifest_bytes = image.manifest.to_bytes();
        Ok(image)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.config
            .get(key)?
            .as_str()
            .filter(|text| !text.is_empty())
    }

    fn with_complete_history(&self) -> Image {
        let mut image = self.clone();
        let layers = image.manifest.layers.len();
        let history = array_in(&mut image.config, "history");
        let is_layer = |entry: &&Value| entry.get("empty_layer") != Some(&Value::Bool(true));
        let known = history.iter().filter(is_layer).count();
        for _ in known..layers {
            history.push(json!({"comment": "the base image has no history for this layer"}));
        }
        image
    }

    fn push_history(&mut self, mut history: History, empty_layer: bool) {
        history.empty_layer = empty_layer;
        let entry = serde_json::to_value(history).expect("history is plain text");
        array_in(&mut self.config, "history").push(entry);
    }

    /// Writes both documents again after a change and points the manifest at the new config.
    fn rebuilt(mut self) -> Image {
        self.config_bytes = to_json(&self.config);
        let mut manifest = self.manifest.to_oci();
        manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
        manifest.config.digest = Digest::of(&self.config_bytes);
        manifest.config.size = self.config_bytes.len() as u64;
        // An embedded copy of the old config would contradict the new digest.
        manifest.config.rest.shift_remove("data");
        self.manifest_bytes = manifest.to_bytes();
        self.manifest = manifest;
        self
    }
}

fn parse_config(bytes: &[u8]) -> Result<Map<String, Value>, ImageError> {
    let size = bytes.len() as u64;
    if size > MAX_DOCUMENT_SIZE {
        return Err(ImageError::ConfigTooLarge { size });
    }
    serde_json::from_slice(bytes).map_err(ImageError::ConfigJson)
}

/// Reads `rootfs.diff_ids`, and checks the containers that changes go into, so that those cannot fail later.
fn read_diff_ids(config: &Map<String, Value>) -> Result<Vec<Digest>, ImageError> {
    let list = config
        .get("rootfs")
        .and_then(|rootfs| rootfs.get("diff_ids"));
    let key = |key, expected| ImageError::ConfigKey { key, expected };
    let diff_ids = match list {
        None | Some(Value::Null) => Vec::new(),
        Some(list) => Vec::deserialize(list)
            .map_err(|_| key("rootfs.diff_ids", "a list of sha256 digests"))?,
    };
    for (name, expected) in [("config", "an object"), ("history", "a list")] {
        let fits = match config.get(name) {
            None | Some(Value::Null) => true,
            Some(value) if name == "config" => value.is_object(),
            Some(value) => value.is_array(),
        };
        if !fits {
            return Err(key(name, expected));
        }
    }
    Ok(diff_ids)
}

/// Returns the object under `key`, put there in place of anything else.
fn object_in<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object above")
}

/// Returns the list under `key`, put there in place of anything else.
fn array_in<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("made a list above")
}

#[cfg(test)]
mod tests;
