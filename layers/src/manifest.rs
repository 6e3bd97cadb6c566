//! Manifests and indexes as documents: parsed with limits, written deterministically, unknown keys kept.
//!
//! A document's digest is that of its bytes, so whoever parses one keeps the bytes too; nothing here assumes that
//! writing a foreign document again gives the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use crate::descriptor::{Descriptor, DescriptorPlatform};
pub use crate::index::{Index, SelectError};
use crate::media_type;

/// Most bytes of a manifest, index or config: what registries promise to accept (distribution-spec, "Pushing Manifests").
pub const MAX_DOCUMENT_SIZE: u64 = 4 * 1024 * 1024;
/// Most layers of an image. Overlay file systems stop near 500, Docker at 127; more is an attack or a mistake.
pub const MAX_LAYERS: usize = 1024;
/// Most entries of an index: a 4 MiB index of small entries holds about this many.
pub const MAX_INDEX_ENTRIES: usize = 16_384;

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More bytes than any registry accepts.
    #[error("document of {size} bytes is larger than {MAX_DOCUMENT_SIZE} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// Not JSON, or not of the shape the specification gives.
    #[error("document is not a valid manifest or index")]
    Json(#[source] serde_json::Error),
    /// Docker's first manifest format.
    #[error(
        "manifest is Docker schema 1, which has no config and is not supported; push the image again with a current tool"
    )]
    SchemaOne,
    /// A media type that is neither a manifest nor an index.
    #[error("media type {media_type:?} is neither a manifest nor an index")]
    UnknownMediaType {
        /// The media type found.
        media_type: String,
    },
    /// The document and whoever served it disagree on what it is, or it is both at once.
    #[error("document served as {declared:?} describes itself as {found:?}")]
    Ambiguous {
        /// The media type from the descriptor or the registry's answer.
        declared: String,
        /// What the document looks like.
        found: String,
    },
    /// More layers than [`MAX_LAYERS`].
    #[error("manifest has {count} layers, more than {MAX_LAYERS}")]
    TooManyLayers {
        /// Their number.
        count: usize,
    },
    /// More entries than [`MAX_INDEX_ENTRIES`].
    #[error("index has {count} entries, more than {MAX_INDEX_ENTRIES}")]
    TooManyEntries {
        /// Their number.
        count: usize,
    },
}

/// A manifest: the config and the layers of one platform's image.
///
/// Spec: image-spec `manifest.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; older OCI tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the manifest holds when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, base first.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to (signatures, SBOMs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
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

impl Manifest {
    /// Returns whether the manifest is in Docker's schema 2 rather than in OCI form.
    pub fn is_docker(&self) -> bool {
        match self.media_type.as_deref() {
            Some(media_type) => media_type == media_type::DOCKER_MANIFEST,
            None => self.config.media_type == media_type::DOCKER_CONFIG,
        }
    }

    /// Returns the media type to serve this manifest under.
    pub fn media_type(&self) -> &str {
        match self.media_type.as_deref() {
            Some(media_type) => media_type,
            None if self.is_docker() => media_type::DOCKER_MANIFEST,
            None => media_type::OCI_MANIFEST,
        }
    }

    /// Returns the manifest as compact JSON; the same value always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Returns this manifest in OCI form: Docker's media types replaced by OCI's, the blobs they name untouched.
    #[must_use]
    pub fn to_oci(&self) -> Manifest {
        let mut manifest = self.clone();
        manifest.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        if manifest.config.media_type == media_type::DOCKER_CONFIG {
            manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
        }
        for layer in &mut manifest.layers {
            layer.media_type = media_type::oci_layer(&layer.media_type).to_owned();
        }
        manifest
    }
}

/// A parsed document: one image, or a list of images.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// A manifest.
    Manifest(Box<Manifest>),
    /// An index.
    Index(Index),
}

/// The two kinds of document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Index,
}

pub(crate) fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => Some(Kind::Manifest),
        media_type::OCI_INDEX | media_type::DOCKER_INDEX => Some(Kind::Index),
        _ => None,
    }
}

/// The keys that tell what a document is, whatever else it holds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Probe {
    fn kind(&self, declared: Option<&str>) -> Result<Kind, ManifestError> {
        if self.schema_version == Some(1) || self.fs_layers.is_some() {
            return Err(ManifestError::SchemaOne);
        }
        let is_index = self.manifests.is_some();
        // A document that is both would mean different things to different tools (CVE-2021-41190).
        if is_index && (self.layers.is_some() || self.config.is_some()) {
            return Err(self.ambiguous(declared, "both a manifest and an index"));
        }
        let shape = if is_index {
            Kind::Index
        } else {
            Kind::Manifest
        };
        for stated in [self.media_type.as_deref(), declared].into_iter().flatten() {
            match kind_of(stated) {
                None => {
                    let media_type = stated.to_owned();
                    return Err(ManifestError::UnknownMediaType { media_type });
                }
                Some(kind) if kind != shape => {
                    let found = if is_index { "an index" } else { "a manifest" };
                    return Err(self.ambiguous(declared.or(Some(stated)), found));
                }
                Some(_) => {}
            }
        }
        match (declared, self.media_type.as_deref()) {
            (Some(declared), Some(own)) if declared != own => {
                Err(self.ambiguous(Some(declared), own))
            }
            _ => Ok(shape),
        }
    }

    fn ambiguous(&self, declared: Option<&str>, found: &str) -> ManifestError {
        ManifestError::Ambiguous {
            declared: declared.unwrap_or_default().to_owned(),
            found: found.to_owned(),
        }
    }
}

impl Document {
    /// Parses a manifest or an index, OCI or Docker schema 2.
    ///
    /// `declared` is the media type from the descriptor or the registry's `Content-Type`; parameters after `;` are
    /// ignored, and so are the generic types some registries and file servers answer with.
    ///
    /// # Errors
    ///
    /// - [`ManifestError::SchemaOne`] for Docker's first format.
    /// - [`ManifestError::Ambiguous`] when the document is not what `declared` or its own `mediaType` says.
    /// - [`ManifestError::TooLarge`], [`ManifestError::TooManyLayers`], [`ManifestError::TooManyEntries`]: a limit.
    /// - [`ManifestError::UnknownMediaType`], [`ManifestError::Json`]: not such a document.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Document, ManifestError> {
        let size = bytes.len() as u64;
        if size > MAX_DOCUMENT_SIZE {
            return Err(ManifestError::TooLarge { size });
        }
        if declared.is_some_and(|declared| declared.contains("manifest.v1+prettyjws")) {
            return Err(ManifestError::SchemaOne);
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        match probe.kind(declared.and_then(specific))? {
            Kind::Manifest => {
                parse_manifest(bytes).map(|manifest| Document::Manifest(Box::new(manifest)))
            }
            Kind::Index => parse_index(bytes).map(Document::Index),
        }
    }
}

/// Returns the media type without parameters, or `None` for one that says nothing.
fn specific(declared: &str) -> Option<&str> {
    let plain = declared.split(';').next().unwrap_or_default().trim();
    let generic = [
        "",
        "application/json",
        "application/octet-stream",
        "text/plain",
    ];
    (!generic.contains(&plain)).then_some(plain)
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    let count = manifest.layers.len();
    if count > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers { count });
    }
    Ok(manifest)
}

fn parse_index(bytes: &[u8]) -> Result<Index, ManifestError> {
    let index: Index = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    let count = index.manifests.len();
    if count > MAX_INDEX_ENTRIES {
        return Err(ManifestError::TooManyEntries { count });
    }
    Ok(index)
}

/// Go writes empty maps and lists as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("documents have string keys and no fallible parts")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Digest;

    fn descriptor(media_type: &str) -> Value {
        serde_json::to_value(Descriptor::of(media_type, b"{}")).unwrap()
    }

    fn parse(value: &Value, declared: Option<&str>) -> Result<Document, ManifestError> {
        Document::parse(&to_json(value), declared)
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG),
            "layers": [descriptor(media_type::OCI_LAYER_GZIP)],
        })
    }

    #[test]
    fn unknown_keys_survive_at_every_level() {
        let mut value = manifest();
        value["com.example.extra"] = json!({"b": 1, "a": [null]});
        value["layers"][0]["data"] = json!("e30=");
        value["layers"][0]["urls"] = json!(["https://example.com/blob"]);
        value["annotations"] = json!({"k": "v"});
        let Document::Manifest(manifest) = parse(&value, None).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(serde_json::to_value(&manifest).unwrap(), value);

        let value = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": media_type::OCI_MANIFEST,
                "digest": Digest::of(b""),
                "size": 0,
                "platform": {"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["x"]},
            }],
        });
        let Document::Index(index) = parse(&value, None).unwrap() else {
            panic!("an index")
        };
        assert_eq!(serde_json::to_value(&index).unwrap(), value);
    }

    #[test]
    fn nulls_of_go_programs_are_empty() {
        let mut value = manifest();
        value["layers"] = Value::Null;
        value["annotations"] = Value::Null;
        value["config"]["urls"] = Value::Null;
        let Document::Manifest(manifest) = parse(&value, None).unwrap() else {
            panic!("a manifest")
        };
        assert!(manifest.layers.is_empty() && manifest.annotations.is_empty());
    }

    #[test]
    fn the_first_docker_format_is_refused_by_name() {
        let one = json!({"schemaVersion": 1, "name": "x", "fsLayers": []});
        assert!(matches!(parse(&one, None), Err(ManifestError::SchemaOne)));
        let signed = Some("application/vnd.docker.distribution.manifest.v1+prettyjws");
        assert!(matches!(
            parse(&manifest(), signed),
            Err(ManifestError::SchemaOne)
        ));
    }

    #[test]
    fn documents_that_are_two_things_are_refused() {
        let mut both = manifest();
        both["manifests"] = json!([]);
        assert!(matches!(
            parse(&both, None),
            Err(ManifestError::Ambiguous { .. })
        ));
        for declared in [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST] {
            let result = parse(&manifest(), Some(declared));
            assert!(
                matches!(result, Err(ManifestError::Ambiguous { .. })),
                "{declared}"
            );
        }
        let twice = br#"{"schemaVersion":2,"schemaVersion":2,"layers":[],"config":{}}"#;
        assert!(matches!(
            Document::parse(twice, None),
            Err(ManifestError::Json(_))
        ));
    }

    #[test]
    fn generic_content_types_say_nothing() {
        for declared in [
            "application/json",
            "text/plain; charset=utf-8",
            "application/octet-stream",
        ] {
            assert!(parse(&manifest(), Some(declared)).is_ok(), "{declared}");
        }
        let with_parameter = format!("{}; charset=utf-8", media_type::OCI_MANIFEST);
        assert!(parse(&manifest(), Some(&with_parameter)).is_ok());
        let html = parse(&manifest(), Some("text/html"));
        assert!(matches!(html, Err(ManifestError::UnknownMediaType { .. })));
    }

    #[test]
    fn limits_hold() {
        let big = vec![b' '; MAX_DOCUMENT_SIZE as usize + 1];
        assert!(matches!(
            Document::parse(&big, None),
            Err(ManifestError::TooLarge { .. })
        ));
        let mut value = manifest();
        value["layers"] = vec![descriptor(media_type::OCI_LAYER); MAX_LAYERS + 1].into();
        assert!(matches!(
            parse(&value, None),
            Err(ManifestError::TooManyLayers { count: 1025 })
        ));
        let mut value = manifest();
        value["layers"][0]["size"] = json!(-1);
        assert!(matches!(parse(&value, None), Err(ManifestError::Json(_))));
        value["layers"][0]["size"] = json!(1);
        value["layers"][0]["digest"] = json!("sha512:00");
        assert!(matches!(parse(&value, None), Err(ManifestError::Json(_))));
    }
}
