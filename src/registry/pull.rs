//! Fetches manifests, from the first endpoint that has them.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::client::{Place, Registry};
use super::config::Endpoint;
use super::error::RegistryError;
use super::reference::Reference;
use super::reply::Reply;
use super::token;
use super::transport::Call;
use kfactory_layers::digest::Digest;
use kfactory_layers::manifest::Descriptor;

/// The manifest kinds we read, in the order of preference.
pub(super) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// The longest manifest read, in bytes. The spec has registries accept 4 MiB; the largest known are far below.
pub(super) const MAX_MANIFEST: usize = 8 * 1024 * 1024;

/// The header in which registries repeat the digest.
pub(super) const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or index, exactly as the registry holds it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The bytes; never re-serialise them, their digest is the manifest's name.
    pub bytes: Bytes,
    /// One of the OCI or Docker media types of manifests and indexes.
    pub media_type: String,
    /// The digest of `bytes`.
    pub digest: Digest,
}

impl Registry {
    /// Fetches the manifest or index that `reference` names; its digest where it has one, else its tag.
    ///
    /// Mirrors are asked before the registry. The digest is checked against the reference and the registry's header.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::NotFound`], [`RegistryError::Unauthorized`], [`RegistryError::Forbidden`]: the registry's answer.
    /// - [`RegistryError::DigestMismatch`]: the bytes are not the ones named.
    /// - [`RegistryError::Manifest`]: the answer is of a kind not read (Docker schema 1), or of two kinds at once.
    /// - [`RegistryError::Mirrors`]: any of these, after mirrors had failed too.
    pub async fn fetch_manifest(
        &self,
        reference: &Reference,
    ) -> Result<FetchedManifest, RegistryError> {
        let mut endpoints = self.endpoints(reference)?;
        loop {
            match self.fetch_manifest_at(reference, endpoints.current()).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => endpoints.failed(error)?,
            }
        }
    }

    /// Fetches the manifest that `entry` of the index at `reference` describes.
    ///
    /// # Errors
    ///
    /// As [`fetch_manifest`](Self::fetch_manifest), and [`RegistryError::SizeMismatch`] and [`RegistryError::Manifest`] where the
    /// index has another size or media type.
    ///
    /// Spec: image-spec `manifest.md`, `mediaType`: it must match the descriptor's.
    pub async fn fetch_entry(
        &self,
        reference: &Reference,
        entry: &Descriptor,
    ) -> Result<FetchedManifest, RegistryError> {
        let reference = reference.with_digest(entry.digest);
        let mut manifest = self.fetch_manifest(&reference).await?;
        let found = manifest.bytes.len() as u64;
        if found != entry.size {
            return Err(RegistryError::SizeMismatch {
                what: format!("manifest `{reference}`, by the index that names it"),
                expected: entry.size,
                found,
            });
        }
        manifest.media_type =
            media_type_in_index(&manifest.bytes, &entry.media_type).map_err(|problem| {
                RegistryError::Manifest {
                    reference: reference.to_string(),
                    problem,
                }
            })?;
        Ok(manifest)
    }

    async fn fetch_manifest_at(
        &self,
        reference: &Reference,
        endpoint: &Endpoint,
    ) -> Result<FetchedManifest, RegistryError> {
        let place = self.pull_place(endpoint).await?;
        let call = manifest_call(&place, Method::GET, reference);
        let mut tries = self.tries();
        loop {
            let outcome = match self.ask_once(&place, &call, &[StatusCode::OK]).await {
                Ok(reply) => read_manifest(reference, reply).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(manifest) => return Ok(manifest),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    pub(super) async fn pull_place(&self, endpoint: &Endpoint) -> Result<Place, RegistryError> {
        self.place(endpoint, [token::pull(&endpoint.repository)].into())
            .await
    }

    /// Returns the places that may hold `reference`, to be tried in order.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Endpoints, RegistryError> {
        let mut left: VecDeque<_> = self.pull_endpoints(reference)?.into();
        let current = left
            .pop_front()
            .expect("there is always the registry itself");
        Ok(Endpoints {
            current,
            left,
            earlier: Vec::new(),
        })
    }
}

/// The mirrors of a reference, then its registry.
pub(super) struct Endpoints {
    current: Endpoint,
    left: VecDeque<Endpoint>,
    earlier: Vec<RegistryError>,
}

impl Endpoints {
    pub(super) fn current(&self) -> &Endpoint {
        &self.current
    }

    /// Goes on to the next place and remembers `error`; where there is none, returns all that went wrong.
    pub(super) fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        // A fault on our side is the same everywhere.
        let ours = matches!(
            error,
            RegistryError::File { .. }
                | RegistryError::Write { .. }
                | RegistryError::Offline { .. }
        );
        match self.left.pop_front() {
            Some(next) if !ours => {
                self.current = next;
                self.earlier.push(error);
                Ok(())
            }
            None if !self.earlier.is_empty() => {
                let earlier = std::mem::take(&mut self.earlier);
                Err(RegistryError::Mirrors {
                    earlier,
                    last: Box::new(error),
                })
            }
            _ => Err(error),
        }
    }
}

pub(super) fn manifest_call(place: &Place, method: Method, reference: &Reference) -> Call<'static> {
    let mut call = Call::new(
        method,
        place.url(&format!("manifests/{}", reference.identifier())),
    );
    let accept = HeaderValue::from_str(&MANIFEST_TYPES.join(", ")).expect("media types are ASCII");
    call.headers.insert(ACCEPT, accept);
    call
}

async fn read_manifest(
    reference: &Reference,
    reply: Reply,
) -> Result<FetchedManifest, RegistryError> {
    let stated = reply.text(CONTENT_TYPE).map(bare_type);
    let header = reply
        .text(DIGEST_HEADER)
        .and_then(|text| Digest::parse(text).ok());
    let bytes = reply.body(MAX_MANIFEST).await?;
    let digest = Digest::of(&bytes);
    for expected in [reference.digest().copied(), header].into_iter().flatten() {
        if expected != digest {
            let what = format!("manifest of `{reference}`");
            return Err(RegistryError::DigestMismatch {
                what,
                expected,
                found: digest,
            });
        }
    }
    let media_type =
        media_type_of(&bytes, stated.as_deref()).map_err(|problem| RegistryError::Manifest {
            reference: reference.to_string(),
            problem,
        })?;
    Ok(FetchedManifest {
        bytes,
        media_type,
        digest,
    })
}

fn bare_type(value: &str) -> String {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// The fields that tell the kinds of manifest apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Finds the media type of a manifest: its own word, else the registry's, else what its fields say.
///
/// A document that is an index to one reader and an image to another is refused: the two would disagree about what was
/// checked.
fn media_type_of(bytes: &[u8], stated: Option<&str>) -> Result<String, String> {
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| format!("not a JSON manifest: {error}"))?;
    if shape.schema_version == Some(1) {
        return Err("Docker schema 1, which registries dropped years ago; push the image again with a current tool".into());
    }
    let index = shape.manifests.is_some();
    let image = shape.layers.is_some() || shape.config.is_some();
    if index && image {
        return Err("it is an index and an image at once".to_owned());
    }
    let guess = if index {
        MANIFEST_TYPES[0]
    } else {
        MANIFEST_TYPES[1]
    };
    let known = stated.filter(|stated| MANIFEST_TYPES.contains(stated));
    let found = shape.media_type.as_deref().or(known).unwrap_or(guess);
    let says_index = found == MANIFEST_TYPES[0] || found == MANIFEST_TYPES[2];
    match known {
        _ if !MANIFEST_TYPES.contains(&found) => Err(format!("media type {found:?} is not read")),
        _ if says_index != index => Err(format!("media type {found:?} does not fit its fields")),
        Some(known) if known != found => Err(format!(
            "it is {known:?}, but says itself that it is {found:?}"
        )),
        _ => Ok(found.to_owned()),
    }
}

/// As [`media_type_of`], for a manifest that an index calls `stated`.
fn media_type_in_index(bytes: &[u8], stated: &str) -> Result<String, String> {
    let stated_by = |problem| format!("by the index that names it, {problem}");
    if !MANIFEST_TYPES.contains(&stated) {
        return Err(stated_by(format!("media type {stated:?} is not read")));
    }
    media_type_of(bytes, Some(stated)).map_err(stated_by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_come_from_the_document_then_the_header_then_the_fields() {
        let [oci_index, oci_image, docker_list, docker_image] = MANIFEST_TYPES;
        let typed = |media_type: &str| {
            format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{}},"layers":[]}}"#)
        };
        let image = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        for (body, stated, expected) in [
            (
                typed(docker_image).as_str(),
                Some(docker_image),
                Ok(docker_image),
            ),
            (&typed(docker_image), Some("text/plain"), Ok(docker_image)),
            (
                &typed(oci_image),
                Some(docker_image),
                Err("but says itself"),
            ),
            (image, Some(docker_image), Ok(docker_image)),
            (image, None, Ok(oci_image)),
            (index, Some("application/json"), Ok(oci_index)),
            (index, Some(docker_list), Ok(docker_list)),
            (index, Some(oci_image), Err("does not fit")),
            (
                &typed("application/vnd.cncf.helm"),
                None,
                Err("is not read"),
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#,
                None,
                Err("schema 1"),
            ),
            (
                r#"{"manifests":[],"layers":[]}"#,
                Some(oci_image),
                Err("at once"),
            ),
            ("<html>", Some(oci_image), Err("not a JSON")),
        ] {
            match (media_type_of(body.as_bytes(), stated), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
            }
        }
    }
}
