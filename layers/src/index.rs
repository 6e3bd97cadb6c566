//! Indexes: manifests by platform, and the choice among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::descriptor::Descriptor;
use crate::manifest::{null_is_default, to_json};
use crate::media_type;
use crate::platform::Platform;

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

#[cfg(test)]
mod tests {
    use super::*;

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
