//! Where credentials come from: options, environment, and the files and helpers of podman, skopeo and docker.
//!
//! Only finds them; `token` spends them. Files are read when first asked for and then kept. No secret has a `Debug` or
//! `Display` that shows it, and no error quotes a credentials file.
//!
//! Spec: containers-auth.json(5), and docker's `config.json`.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::authfile::{CredentialFile, normal_key};
use super::env::Env;
use super::error::RegistryError;

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
