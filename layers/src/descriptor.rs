//! Descriptors: how one document points at the bytes of another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::manifest::{Kind, kind_of, null_is_default};
use crate::platform::Platform;

/// A reference to a blob: what it is, which bytes, and how many.
///
/// Spec: image-spec `descriptor.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Where else the blob may be downloaded from.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// Platform of the manifest this points at; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Annotations, written sorted by key.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Every key not listed above, in the document's order.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A platform with the keys that only its own operating system uses (`os.version`, `os.features`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Operating system, architecture and variant, in the document's own spelling.
    #[serde(flatten)]
    pub platform: Platform,
    /// Every other key, in the document's order.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl From<Platform> for DescriptorPlatform {
    fn from(platform: Platform) -> Self {
        Self {
            platform,
            rest: Map::new(),
        }
    }
}

impl Descriptor {
    /// Makes a descriptor with nothing but the required keys.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            platform: None,
            annotations: BTreeMap::new(),
            rest: Map::new(),
        }
    }

    /// Makes the descriptor of these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Returns this descriptor with a platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// Returns this descriptor with one annotation set.
    #[must_use]
    pub fn with_annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Returns the platform, if the descriptor has one.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref().map(|p| &p.platform)
    }

    /// Returns whether this points at an index (of either spelling) rather than at one manifest.
    pub fn is_index(&self) -> bool {
        kind_of(&self.media_type) == Some(Kind::Index)
    }

    /// Returns whether this points at a manifest (of either spelling).
    pub fn is_manifest(&self) -> bool {
        kind_of(&self.media_type) == Some(Kind::Manifest)
    }
}
