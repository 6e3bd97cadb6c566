//! Reads and writes references: `[registry/]repository[:tag][@digest]`.
//!
//! Pure text; knows Docker Hub's short names and nothing of configuration files (see `config`).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use kfactory_layers::digest::{Digest, DigestError};

/// The registry meant when a reference names none.
pub const DOCKER_HUB: &str = "docker.io";

/// The tag meant when a reference names neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Registries refuse longer names: distribution-spec, "Pulling manifests", leaves 255 for host and repository.
const MAX_NAME: usize = 255;

/// The spec's longest tag, in characters.
const MAX_TAG: usize = 128;

/// A name of one manifest in one registry, complete: the registry is always known.
///
/// Equal references name the same thing; `ubuntu` and `docker.io/library/ubuntu:latest` are equal.
///
/// Spec: distribution-spec "Pulling manifests" for repository and tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing, or nothing but a tag or digest.
    #[error("reference {text:?} names no repository")]
    Empty {
        /// The text as given.
        text: String,
    },
    /// Registry and repository together are longer than registries accept.
    #[error("reference {text:?} has a name of {length} characters, more than {MAX_NAME}")]
    TooLong {
        /// The text as given.
        text: String,
        /// The length found.
        length: usize,
    },
    /// The repository has upper-case letters, which no registry stores.
    #[error("repository {repository:?} has upper-case letters; did you mean `{}`?", repository.to_lowercase())]
    Uppercase {
        /// The repository as given.
        repository: String,
    },
    /// A part between slashes is empty or has characters the spec does not allow.
    #[error(
        "repository part {component:?} of {text:?} is not lower-case letters and digits, separated by `.`, `_`, `__` or `-`"
    )]
    Repository {
        /// The text as given.
        text: String,
        /// The part that is wrong.
        component: String,
    },
    /// The first part looks like a registry but is no host with an optional port.
    #[error("registry {registry:?} is not a host name or address with an optional port")]
    Registry {
        /// The registry as given.
        registry: String,
    },
    /// The tag is empty, too long, or has characters the spec does not allow.
    #[error(
        "tag {tag:?} is not 1 to {MAX_TAG} of letters, digits, `_`, `.` and `-`, or starts with `.` or `-`"
    )]
    Tag {
        /// The tag as given.
        tag: String,
    },
    /// The part after `@` is no digest.
    #[error("reading the digest of reference {text:?}")]
    Digest {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

impl Reference {
    /// Reads a reference; a name without a registry is one of Docker Hub.
    ///
    /// The first part is a registry when it has a `.` or `:`, or is `localhost`. Without tag and digest the tag is
    /// [`DEFAULT_TAG`]. Short names that a `registries.conf` may direct elsewhere go through
    /// [`Registry::reference`](super::Registry::reference) instead.
    ///
    /// # Errors
    ///
    /// One variant of [`ReferenceError`] for each part that can be wrong.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let parts = Parts::split(text)?;
        match parts.registry {
            Some(registry) => Self::from_parts(text, registry, &parts),
            None => Self::from_parts(text, DOCKER_HUB, &parts),
        }
    }

    /// Reads the short name `text` as one of `registry`.
    pub(super) fn parse_in(text: &str, registry: &str) -> Result<Self, ReferenceError> {
        Self::from_parts(text, registry, &Parts::split(text)?)
    }

    fn from_parts(text: &str, registry: &str, parts: &Parts<'_>) -> Result<Self, ReferenceError> {
        let registry = check_registry(registry)?;
        let repository = canonical_repository(text, &registry, parts.repository)?;
        let length = registry.len() + 1 + repository.len();
        if length > MAX_NAME {
            return Err(ReferenceError::TooLong {
                text: text.to_owned(),
                length,
            });
        }
        if let Some(tag) = parts.tag {
            check_tag(tag)?;
        }
        let digest = parts.digest.map(Digest::parse).transpose();
        let digest = digest.map_err(|source| ReferenceError::Digest {
            text: text.to_owned(),
            source,
        })?;
        let tag = match (parts.tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }

    /// Returns the registry as users write it: host and optional port. Docker Hub is `docker.io`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the repository, complete: `library/ubuntu`, never `ubuntu`, on Docker Hub.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `None` only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest the reference is pinned to.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the same repository with `tag` and no digest.
    ///
    /// # Errors
    ///
    /// [`ReferenceError::Tag`] when `tag` is none.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag)?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// Returns the same reference pinned to `digest`; the tag is kept.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns the shortest text that [`parse`](Self::parse) reads back as this reference, tag always written.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(rest) = full.strip_prefix("docker.io/") else {
            return full;
        };
        // `library/a/b` must keep its first part, and `a.b/c` its registry: without them both name something else.
        match rest.split_once('/') {
            Some(("library", short)) if !short.contains('/') => short.to_owned(),
            Some((first, _)) if is_registry(first) => full,
            _ => rest.to_owned(),
        }
    }

    /// Returns what stands after `/manifests/` in a URL: the digest where there is one.
    pub(super) fn identifier(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A reference cut at its separators, nothing checked yet.
pub(super) struct Parts<'a> {
    pub(super) registry: Option<&'a str>,
    pub(super) repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(super) fn split(text: &'a str) -> Result<Self, ReferenceError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.is_empty() {
            return Err(ReferenceError::Empty {
                text: text.to_owned(),
            });
        }
        Ok(Self {
            registry,
            repository,
            tag,
            digest,
        })
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Checks that `registry` is a host with an optional port, and returns its one spelling: lower case, Docker Hub under one name.
///
/// # Errors
///
/// [`ReferenceError::Registry`].
pub fn check_registry(registry: &str) -> Result<String, ReferenceError> {
    let lower = registry.to_ascii_lowercase();
    let (host, port) = split_port(&lower);
    let port_fits = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+')
    });
    if !(port_fits && is_host(host)) {
        return Err(ReferenceError::Registry {
            registry: registry.to_owned(),
        });
    }
    match lower.as_str() {
        "index.docker.io" | "registry-1.docker.io" => Ok(DOCKER_HUB.to_owned()),
        _ => Ok(lower),
    }
}

/// Cuts `host[:port]`; an IPv6 address keeps its brackets.
pub(super) fn split_port(registry: &str) -> (&str, Option<&str>) {
    let after_address = registry.rfind(']').map_or(0, |end| end + 1);
    match registry[after_address..].find(':') {
        Some(colon) => (
            &registry[..after_address + colon],
            Some(&registry[after_address + colon + 1..]),
        ),
        None => (registry, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    host.split('.').all(|label| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}

fn canonical_repository(
    text: &str,
    registry: &str,
    repository: &str,
) -> Result<String, ReferenceError> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::Uppercase {
            repository: repository.to_owned(),
        });
    }
    if let Some(component) = repository
        .split('/')
        .find(|component| !is_component(component))
    {
        return Err(ReferenceError::Repository {
            text: text.to_owned(),
            component: component.to_owned(),
        });
    }
    if registry == DOCKER_HUB && !repository.contains('/') {
        return Ok(format!("library/{repository}"));
    }
    Ok(repository.to_owned())
}

/// Whether `component` is runs of letters and digits joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().copied().is_some_and(word) && bytes.last().copied().is_some_and(word);
    edges
        && bytes.split(|b| word(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn check_tag(tag: &str) -> Result<(), ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let starts = bytes.first().copied().is_some_and(word);
    let fits = bytes.len() <= MAX_TAG && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'));
    if starts && fits {
        Ok(())
    } else {
        Err(ReferenceError::Tag {
            tag: tag.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn canonical(text: &str) -> String {
        Reference::parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .to_string()
    }

    #[test]
    fn short_names_are_docker_hubs() {
        for (text, expected) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
            ("me/os", "docker.io/me/os:latest"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            (
                "index.docker.io/library/ubuntu",
                "docker.io/library/ubuntu:latest",
            ),
            ("localhost:5000", "docker.io/library/localhost:5000"),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }

    #[test]
    fn the_first_part_is_a_registry_when_it_looks_like_a_host() {
        for (text, registry, repository) in [
            ("localhost/x", "localhost", "x"),
            ("localhost:5000/x", "localhost:5000", "x"),
            ("127.0.0.1:5000/debian:12", "127.0.0.1:5000", "debian"),
            ("[::1]:5000/x", "[::1]:5000", "x"),
            ("[fd00::2]/a/b:1", "[fd00::2]", "a/b"),
            ("Quay.IO/acme/os:9", "quay.io", "acme/os"),
            ("host/x", "docker.io", "host/x"),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(
                (reference.registry(), reference.repository()),
                (registry, repository),
                "{text}"
            );
        }
    }

    #[test]
    fn a_digest_stands_beside_a_tag_and_replaces_the_default_one() {
        let pinned = format!("quay.io/acme/os@sha256:{HEX}");
        assert_eq!(canonical(&pinned), pinned);
        let both = format!("quay.io/acme/os:9@sha256:{HEX}");
        assert_eq!(canonical(&both), both);
        assert_eq!(
            Reference::parse(&both).expect("valid").identifier(),
            format!("sha256:{HEX}")
        );
    }

    #[test]
    fn familiar_names_are_as_short_as_people_write_them() {
        for (text, expected) in [
            ("docker.io/library/ubuntu", "ubuntu:latest"),
            ("docker.io/me/os:1", "me/os:1"),
            ("docker.io/library/a/b:1", "library/a/b:1"),
            ("quay.io/library/ubuntu:1", "quay.io/library/ubuntu:1"),
            ("docker.io/localhost/x:1", "docker.io/localhost/x:1"),
        ] {
            assert_eq!(Reference::parse(text).expect(text).familiar(), expected);
        }
    }

    #[test]
    fn wrong_references_name_the_wrong_part() {
        let long = "a".repeat(300);
        for (text, part) in [
            ("", "names no repository"),
            (":1", "names no repository"),
            ("quay.io/", "names no repository"),
            ("Ubuntu", "did you mean `ubuntu`"),
            ("quay.io/Acme/os", "did you mean `acme/os`"),
            ("a//b", "repository part \"\""),
            ("a/b_-c", "repository part \"b_-c\""),
            ("a/___b", "repository part \"___b\""),
            ("a b", "repository part \"a b\""),
            ("ubuntu:", "tag \"\""),
            ("ubuntu:.x", "tag \".x\""),
            ("ubuntu:a\u{1b}[2J", "tag \"a\\u{1b}[2J\""),
            ("host:99999/x", "registry \"host:99999\""),
            ("host:/x", "registry \"host:\""),
            ("-a.example/x", "registry \"-a.example\""),
            ("[::1/x", "registry \"[::1\""),
            ("ubuntu@sha256:12", "reading the digest"),
            (&long, "more than 255"),
        ] {
            let message = Reference::parse(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn canonical_and_familiar_texts_read_back_as_the_same_reference(
            registry in prop_oneof![
                Just("docker.io".to_owned()), Just("[::1]:5000".to_owned()), Just("localhost".to_owned()),
                "[a-z][a-z0-9]{0,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?",
            ],
            repository in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            pinned: bool,
        ) {
            let mut text = format!("{registry}/{repository}");
            if let Some(tag) = &tag { text.push_str(&format!(":{tag}")); }
            if pinned { text.push_str(&format!("@sha256:{HEX}")); }
            let reference = Reference::parse(&text).expect("generated from the grammar");
            prop_assert_eq!(&Reference::parse(&reference.to_string()).expect("canonical"), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).expect("familiar"), &reference);
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).expect("canonical"), reference);
            }
        }
    }
}
