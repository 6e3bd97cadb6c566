//! Descriptors, manifests and indexes as documents: parsed with limits, written deterministically, unknown keys kept.
//!
//! A document's digest is that of its bytes, so whoever parses one keeps the bytes too; nothing here assumes that
//! writing a foreign document again gives the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::media_type;
use crate::platform::Platform;

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

/// An index: manifests by platform.
///
/// Spec: image-spec `image-index.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The document's own media type; older OCI tools leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the index holds when it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests, in order of preference.
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
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

/// No manifest of an index fits the platform asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no image for {wanted}, the index has {}", list(present))]
pub struct SelectError {
    /// The platform asked for.
    pub wanted: Platform,
    /// The platforms the index offers, sorted, without repetition.
    pub present: Vec<String>,
}

fn list(present: &[String]) -> String {
    if present.is_empty() {
        return "none".to_owned();
    }
    present.join(", ")
}

impl Index {
    /// Makes an OCI index of these manifests, in this order.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            annotations: BTreeMap::new(),
            rest: Map::new(),
        }
    }

    /// Returns the index as compact JSON; the same value always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Returns the entry that serves `wanted` best: the exact variant, else the newest older one; the first of equals.
    ///
    /// Attestations (`unknown/unknown`) are never chosen. An entry without a platform is chosen only when none with a
    /// platform fits and it is the only one of its kind.
    ///
    /// # Errors
    ///
    /// [`SelectError`] lists the platforms present.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, SelectError> {
        select(self.manifests.iter(), wanted)
    }
}

/// [`Index::select`] over any entries.
pub(crate) fn select<'a>(
    entries: impl Iterator<Item = &'a Descriptor> + Clone,
    wanted: &Platform,
) -> Result<&'a Descriptor, SelectError> {
    let best = entries
        .clone()
        .filter_map(|entry| Some((entry.platform()?.serves(wanted)?, entry)))
        .min_by_key(|(steps_down, _)| *steps_down);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    let mut without_platform = entries.clone().filter(|entry| entry.platform.is_none());
    if let (Some(entry), None) = (without_platform.next(), without_platform.next()) {
        return Ok(entry);
    }
    let mut present: Vec<String> = entries
        .filter_map(Descriptor::platform)
        .filter(|platform| !platform.is_unknown())
        .map(|platform| platform.to_string().escape_debug().to_string())
        .collect();
    present.sort();
    present.dedup();
    Err(SelectError {
        wanted: wanted.clone(),
        present,
    })
}

/// A parsed document: one image, or a list of images.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// A manifest.
    Manifest(Box<Manifest>),
    /// An index.
    Index(Index),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Index,
}

fn kind_of(media_type: &str) -> Option<Kind> {
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
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
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

    fn index(platforms: &[&str]) -> Index {
        let entry = |(n, text): (usize, &&str)| {
            let entry = Descriptor::of(media_type::OCI_MANIFEST, &[n as u8]);
            match *text {
                "" => entry,
                text => entry.with_platform(Platform::parse(text).unwrap()),
            }
        };
        Index::new(platforms.iter().enumerate().map(entry).collect())
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

    #[test]
    fn the_best_platform_is_selected() {
        for (present, wanted, chosen) in [
            (&["linux/amd64", "linux/arm64"][..], "arm64", Some(1)),
            (&["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", Some(1)),
            (&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some(1)),
            (
                &["unknown/unknown", "linux/amd64", "linux/amd64"],
                "amd64",
                Some(1),
            ),
            (&["linux/s390x", ""], "amd64", Some(1)),
            (&["", ""], "amd64", None),
            (&["linux/arm64"], "amd64", None),
            (&[], "amd64", None),
        ] {
            let index = index(present);
            let selected = index.select(&Platform::parse(wanted).unwrap());
            let at = selected
                .ok()
                .and_then(|entry| index.manifests.iter().position(|e| e == entry));
            assert_eq!(at, chosen, "{wanted} of {present:?}");
        }
    }

    #[test]
    fn a_missing_platform_is_answered_with_those_present() {
        let error = index(&["linux/s390x", "linux/arm64", "unknown/unknown"])
            .select(&Platform::parse("amd64").unwrap())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for linux/amd64, the index has linux/arm64, linux/s390x"
        );
    }
}
