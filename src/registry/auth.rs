//! Where credentials come from: options, environment, and the files and helpers of podman, skopeo and docker.
//!
//! Only finds them; `token` spends them. Files are read when first asked for and then kept. No secret has a `Debug` or
//! `Display` that shows it, and no error quotes a credentials file.
//!
//! Spec: containers-auth.json(5), and docker's `config.json`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::env::Env;
use super::error::RegistryError;
use super::helper;
use super::reference::DOCKER_HUB;

/// The key under which docker's own tools keep Docker Hub's credentials.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A text that never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A user and password given by the caller, ahead of every file.
#[derive(Clone, Debug)]
pub struct Credentials {
    user: String,
    password: Secret,
    registry: Option<String>,
}

impl Credentials {
    /// Pairs a user with a password, for every registry.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Secret::new(password),
            registry: None,
        }
    }

    /// Reads `USER:PASSWORD`; the password may hold further colons. `None` without a colon or user.
    pub fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        (!user.is_empty()).then(|| Self::new(user, password))
    }

    /// Keeps these credentials from every registry but `registry` (host and optional port).
    #[must_use]
    pub fn for_registry(self, registry: impl Into<String>) -> Self {
        Self {
            registry: Some(registry.into()),
            ..self
        }
    }

    fn fits(&self, registry: &str) -> bool {
        self.registry
            .as_deref()
            .is_none_or(|own| normal_key(own) == registry)
    }
}

/// What proves who we are.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    Basic {
        user: String,
        password: Secret,
    },
    /// An OAuth2 refresh token, spent at the token server.
    Identity(Secret),
    /// A token sent as it is.
    Bearer(Secret),
}

/// The outcome of a search for credentials.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookup {
    pub(super) credential: Option<Credential>,
    /// One line per source looked at, the last being the one used.
    pub(super) tried: Vec<String>,
}

/// Every source of credentials, in order.
pub(super) struct CredentialStore {
    given: Vec<(&'static str, Credentials)>,
    files: Vec<CredentialFile>,
    /// What was found, by registry and repository: a helper may be slow, and may ask its user each time.
    found: tokio::sync::Mutex<HashMap<(String, String), Lookup>>,
}

/// One `auth.json` or `config.json`, read at most once.
struct CredentialFile {
    path: PathBuf,
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

impl CredentialStore {
    /// Names the sources; reads none of them.
    ///
    /// In order: `creds`; `KFACTORY_REGISTRY_USER` with `KFACTORY_REGISTRY_PASSWORD` (for `KFACTORY_REGISTRY_HOST`
    /// only, if set); then `authfile` or `REGISTRY_AUTH_FILE`, which replace podman's two files when given:
    /// `$XDG_RUNTIME_DIR/containers/auth.json` and `~/.config/containers/auth.json`; then docker's `config.json`.
    pub(super) fn new(creds: Option<Credentials>, authfile: Option<&Path>, env: &Env) -> Self {
        let given = creds.map(|creds| ("`--creds`", creds)).into_iter();
        let given =
            given.chain(credentials_of(env).map(|creds| ("`KFACTORY_REGISTRY_USER`", creds)));
        let named = authfile
            .map(Path::to_owned)
            .or_else(|| env.path("REGISTRY_AUTH_FILE"));
        let files = match named {
            Some(path) => vec![CredentialFile::new(path, true)],
            None => default_files(env)
                .into_iter()
                .map(|path| CredentialFile::new(path, false))
                .collect(),
        };
        Self {
            given: given.collect(),
            files,
            found: Default::default(),
        }
    }

    /// Finds the credentials for `repository` on `registry`, and remembers the answer.
    pub(super) async fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Lookup, RegistryError> {
        let key = (registry.to_owned(), repository.to_owned());
        // Held while searching, so that parallel requests start a helper once.
        let mut found = self.found.lock().await;
        if let Some(lookup) = found.get(&key) {
            return Ok(lookup.clone());
        }
        let lookup = self.search(registry, repository).await?;
        found.insert(key, lookup.clone());
        Ok(lookup)
    }

    async fn search(&self, registry: &str, repository: &str) -> Result<Lookup, RegistryError> {
        let mut lookup = Lookup::default();
        for (name, given) in &self.given {
            if given.fits(registry) {
                lookup
                    .tried
                    .push(format!("{name} as user {:?}", given.user));
                lookup.credential = Some(given.credential());
                return Ok(lookup);
            }
            lookup.tried.push(format!("{name} is for another registry"));
        }
        for file in &self.files {
            if file.search(registry, repository, &mut lookup).await? {
                return Ok(lookup);
            }
        }
        Ok(lookup)
    }
}

impl fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<_> = self.files.iter().map(|file| &file.path).collect();
        f.debug_struct("CredentialStore")
            .field("given", &self.given)
            .field("files", &files)
            .finish()
    }
}

impl Credentials {
    fn credential(&self) -> Credential {
        Credential::Basic {
            user: self.user.clone(),
            password: self.password.clone(),
        }
    }
}

fn credentials_of(env: &Env) -> Option<Credentials> {
    let creds = Credentials::new(
        env.get("KFACTORY_REGISTRY_USER")?,
        env.get("KFACTORY_REGISTRY_PASSWORD")?,
    );
    Some(match env.get("KFACTORY_REGISTRY_HOST") {
        Some(host) => creds.for_registry(host),
        None => creds,
    })
}

fn default_files(env: &Env) -> Vec<PathBuf> {
    let runtime = env
        .path("XDG_RUNTIME_DIR")
        .map(|dir| dir.join("containers/auth.json"));
    let user = env.user_config("containers/auth.json");
    let docker = env
        .path("DOCKER_CONFIG")
        .or_else(|| Some(env.path("HOME")?.join(".docker")));
    [runtime, user, docker.map(|dir| dir.join("config.json"))]
        .into_iter()
        .flatten()
        .collect()
}

impl CredentialFile {
    fn new(path: PathBuf, required: bool) -> Self {
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
        let bytes = match std::fs::read(&self.path) {
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
    async fn search(
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
            return Some(Some(Credential::Identity(Secret(token))));
        }
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Some(Credential::Bearer(Secret(token))));
        }
        if let (Some(user), Some(password)) = (filled(&self.username), filled(&self.password)) {
            return Some(Some(Credential::Basic {
                user,
                password: Secret(password),
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
fn normal_key(key: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn show(lookup: &Lookup) -> String {
        match &lookup.credential {
            None => "none".to_owned(),
            Some(Credential::Basic { user, password }) => format!("{user}:{}", password.reveal()),
            Some(Credential::Identity(token)) => format!("identity {}", token.reveal()),
            Some(Credential::Bearer(token)) => format!("bearer {}", token.reveal()),
        }
    }

    async fn found_in(json: &str, registry: &str, repository: &str) -> String {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("auth.json");
        std::fs::write(&path, json).expect("written");
        let store = CredentialStore::new(None, Some(&path), &Env::default());
        match store.find(registry, repository).await {
            Ok(lookup) => show(&lookup),
            Err(error) => format!("error {error}"),
        }
    }

    #[tokio::test]
    async fn the_longest_matching_key_of_a_file_wins() {
        let json = r#"{"auths": {
            "quay.io": {"username": "a", "password": "host"},
            "quay.io/acme": {"username": "b", "password": "namespace"},
            "quay.io/acme/os": {"auth": "Yzpz"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3OngA"},
            "https://reg.example:5000/v2/": {"identitytoken": "idt"},
            "tok.example": {"registrytoken": "rt"},
            "empty.example": {}
        }}"#;
        for (registry, repository, expected) in [
            ("quay.io", "other", "a:host"),
            ("quay.io", "acmes", "a:host"),
            ("quay.io", "acme/x", "b:namespace"),
            ("quay.io", "acme/os", "c:s"),
            ("docker.io", "library/ubuntu", "hub:pw:x"),
            ("reg.example:5000", "x", "identity idt"),
            ("tok.example", "x", "bearer rt"),
            ("empty.example", "x", "none"),
            ("reg.example", "x", "none"),
        ] {
            assert_eq!(
                found_in(json, registry, repository).await,
                expected,
                "{registry}/{repository}"
            );
        }
    }

    #[tokio::test]
    async fn a_broken_file_is_named_and_its_content_never_shown() {
        for json in [
            r#"{"auths": {"quay.io": "hunter2"}}"#,
            r#"{"auths": {"quay.io": {"auth": "hunter2"}}}"#,
        ] {
            let error = found_in(json, "quay.io", "x").await;
            assert!(
                error.starts_with("error credentials file") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn sources_are_asked_in_order_and_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let home = dir.path().to_str().expect("UTF-8");
        let write = |path: &str, password: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("made");
            let entry =
                serde_json::json!({"auths": {"quay.io": {"username": "u", "password": password}}});
            std::fs::write(path, entry.to_string()).expect("written");
        };
        let runtime = format!("{home}/run");
        let env = || Env::of(&[("HOME", home), ("XDG_RUNTIME_DIR", &runtime)]);
        let find = async |creds, env: Env| {
            CredentialStore::new(creds, None, &env)
                .find("quay.io", "x")
                .await
                .expect("readable")
        };

        let nothing = find(None, env()).await;
        assert_eq!(
            (show(&nothing), nothing.tried.len()),
            ("none".to_owned(), 3)
        );
        write(".docker/config.json", "docker");
        assert_eq!(show(&find(None, env()).await), "u:docker");
        write(".config/containers/auth.json", "podman");
        assert_eq!(show(&find(None, env()).await), "u:podman");
        write("run/containers/auth.json", "runtime");
        assert_eq!(show(&find(None, env()).await), "u:runtime");
        let named = [
            ("KFACTORY_REGISTRY_USER", "e"),
            ("KFACTORY_REGISTRY_PASSWORD", "p"),
            ("KFACTORY_REGISTRY_HOST", "quay.io"),
        ];
        assert_eq!(show(&find(None, Env::of(&named)).await), "e:p");
        let elsewhere = Credentials::new("c", "d").for_registry("ghcr.io");
        assert_eq!(show(&find(Some(elsewhere), Env::of(&named)).await), "e:p");
        assert_eq!(
            show(&find(Credentials::parse("c:d:e"), env()).await),
            "c:d:e"
        );
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error_only_when_it_was_named() {
        let env = Env::of(&[("REGISTRY_AUTH_FILE", "/nonexistent/auth.json")]);
        let store = CredentialStore::new(None, None, &env);
        assert!(matches!(
            store.find("quay.io", "x").await,
            Err(RegistryError::File { .. })
        ));
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let shown = format!("{:?}", Credentials::new("me", "hunter2"));
        assert!(
            shown.contains("me") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
