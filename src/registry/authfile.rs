//! One credentials file: `auth.json` of podman and skopeo, `config.json` of docker.
//!
//! Spec: containers-auth.json(5), and docker's `config.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::auth::{Credential, Lookup, Secret};
use super::error::RegistryError;
use super::helper;
use super::reference::DOCKER_HUB;

/// The key under which docker's own tools keep Docker Hub's credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// One `auth.json` or `config.json`, read at most once.
pub(super) struct CredentialFile {
    pub(super) path: PathBuf,
    /// Named by the user, so its absence is an error.
    required: bool,
    content: OnceLock<Option<Arc<Content>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl CredentialFile {
    pub(super) fn new(path: PathBuf, required: bool) -> Self {
        Self {
            path,
            required,
            content: OnceLock::new(),
        }
    }

    fn content(&self) -> Result<Option<Arc<Content>>, RegistryError> {
        if let Some(content) = self.content.get() {
            return Ok(content.clone());
        }
        let content = self.read()?.map(Arc::new);
        Ok(self.content.get_or_init(|| content).clone())
    }

    fn read(&self) -> Result<Option<Content>, RegistryError> {
        let bytes = match crate::settings_file::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.required => {
                return Ok(None);
            }
            Err(source) => {
                return Err(RegistryError::File {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        // As the other tools have it: an empty file holds no credentials.
        if bytes.is_empty() {
            return Ok(Some(Content::default()));
        }
        // Only the position is kept: serde's message may quote a value, and values here are secrets.
        let content = serde_json::from_slice(&bytes).map_err(|error| RegistryError::AuthFile {
            path: self.path.clone(),
            problem: format!(
                "not the expected JSON at line {} column {}",
                error.line(),
                error.column()
            ),
        })?;
        Ok(Some(content))
    }

    /// Looks in this file; whether the search is over.
    pub(super) async fn search(
        &self,
        registry: &str,
        repository: &str,
        lookup: &mut Lookup,
    ) -> Result<bool, RegistryError> {
        let path = self.path.display();
        let Some(content) = self.content()? else {
            lookup.tried.push(format!("`{path}` does not exist"));
            return Ok(false);
        };
        let keys = keys_of(registry, repository);
        let helpers = content
            .cred_helpers
            .iter()
            .map(|(key, name)| (normal_key(key), name));
        let helpers: BTreeMap<_, _> = helpers.collect();
        let special = keys.iter().find_map(|key| Some((key, *helpers.get(key)?)));
        if let Some((key, name)) = special {
            return Ok(ask(name, key, &path.to_string(), lookup).await);
        }
        if let Some((key, credential)) = content.entry(&keys, &self.path)? {
            lookup.tried.push(format!("entry {key:?} of `{path}`"));
            lookup.credential = Some(credential);
            return Ok(true);
        }
        if let Some(name) = &content.creds_store {
            return Ok(ask(name, registry, &path.to_string(), lookup).await);
        }
        lookup
            .tried
            .push(format!("`{path}` has no entry for {registry}"));
        Ok(false)
    }
}

/// Asks a credential helper. A helper that fails is noted and passed over: another source may do.
async fn ask(name: &str, key: &str, path: &str, lookup: &mut Lookup) -> bool {
    let server = if key == DOCKER_HUB {
        DOCKER_HUB_KEY
    } else {
        key
    };
    let source = format!("helper `docker-credential-{name}` of `{path}`");
    match helper::get(name, server).await {
        Ok(Some(credential)) => {
            lookup.tried.push(source);
            lookup.credential = Some(credential);
        }
        Ok(None) => lookup
            .tried
            .push(format!("{source} has no entry for {server}")),
        Err(problem) => lookup.tried.push(format!("{source}: {problem}")),
    }
    lookup.credential.is_some()
}

impl Content {
    /// Returns the entry under the longest of `keys` that has one with something in it.
    fn entry(
        &self,
        keys: &[String],
        path: &Path,
    ) -> Result<Option<(String, Credential)>, RegistryError> {
        for key in keys {
            let same = self
                .auths
                .iter()
                .filter(|(written, _)| normal_key(written) == *key);
            for (written, entry) in same {
                let wrong = || RegistryError::AuthFile {
                    path: path.to_owned(),
                    problem: format!(
                        "entry {written:?} has an `auth` that is not base64 of `user:password`"
                    ),
                };
                if let Some(credential) = entry.credential().ok_or_else(wrong)? {
                    return Ok(Some((written.clone(), credential)));
                }
            }
        }
        Ok(None)
    }
}

impl Entry {
    /// Returns what the entry holds; the outer `None` for one that cannot be read.
    fn credential(&self) -> Option<Option<Credential>> {
        let filled = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Some(Some(Credential::Identity(Secret::new(token))));
        }
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Some(Credential::Bearer(Secret::new(token))));
        }
        if let (Some(user), Some(password)) = (filled(&self.username), filled(&self.password)) {
            return Some(Some(Credential::Basic {
                user,
                password: Secret::new(password),
            }));
        }
        let Some(auth) = filled(&self.auth) else {
            return Some(None);
        };
        let text = String::from_utf8(BASE64.decode(auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        // docker pads some passwords with NUL.
        let password = Secret::new(password.trim_end_matches('\0'));
        Some(Some(Credential::Basic {
            user: user.to_owned(),
            password,
        }))
    }
}

/// Returns the keys that may hold credentials for `repository`, the most specific first.
fn keys_of(registry: &str, repository: &str) -> Vec<String> {
    let full = format!("{registry}/{repository}");
    let ends = full
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([full.len()]);
    let mut keys: Vec<_> = ends.map(|end| full[..end].to_owned()).collect();
    keys.reverse();
    keys
}

/// Returns `key` as `host[:port][/namespace]`: without a scheme, and without the path of an API version.
pub(super) fn normal_key(key: &str) -> String {
    let (bare, url) = match key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
    {
        Some(rest) => (rest, true),
        None => (key, false),
    };
    let bare = bare.trim_end_matches('/');
    let versioned = bare.ends_with("/v1") || bare.ends_with("/v2");
    let bare = if url || versioned {
        bare.split('/').next().unwrap_or(bare)
    } else {
        bare
    };
    let (host, rest) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    match host {
        "index.docker.io" | "registry-1.docker.io" => format!("{DOCKER_HUB}{rest}"),
        _ => bare.to_owned(),
    }
}
