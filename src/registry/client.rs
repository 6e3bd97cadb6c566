//! The registry client: options, and the one way every request takes (scheme, credentials, retries).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};

use super::auth::{Credential, CredentialStore, Credentials, Lookup};
use super::challenge::Challenge;
use super::config::{Endpoint, RegistriesConf};
use super::env::Env;
use super::error::RegistryError;
use super::reference::Reference;
use super::reply::Reply;
use super::retry::{RetryPolicy, Tries};
use super::token::{self, Scopes, TokenCache, TokenRequest};
use super::transport::{Call, Transport, TransportOptions};

/// How registries are spoken to. The default suits a user with podman's or docker's configuration.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// `Some(false)` accepts any certificate, and plain HTTP where HTTPS is not spoken, everywhere. `Some(true)`
    /// demands valid certificates even of registries that are configured as insecure or are on loopback. `None`
    /// follows the configuration.
    pub tls_verify: Option<bool>,
    /// Registries, as host or host and port, treated as with `tls_verify: Some(false)`.
    pub insecure_registries: Vec<String>,
    /// The only credentials file to read, instead of podman's and docker's.
    pub authfile: Option<PathBuf>,
    /// Credentials to use before any other. After them come `KFACTORY_REGISTRY_USER` with `KFACTORY_REGISTRY_PASSWORD`
    /// from the environment, for the registry in `KFACTORY_REGISTRY_HOST` only if that is set; then the files. Bind
    /// them with [`Credentials::for_registry`] where several registries are in play: one that does not know them
    /// refuses them, even for what it gives to anybody.
    pub creds: Option<Credentials>,
    /// PEM files of certificate authorities to trust beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// The only `registries.conf` to read.
    pub registries_conf: Option<PathBuf>,
    /// The `User-Agent`; kfactory's name and version when `None`.
    pub user_agent: Option<String>,
    /// Opens no connection at all: every request fails with [`RegistryError::Offline`].
    pub offline: bool,
    /// Uploads blobs in pieces of this many bytes from the start, instead of only where one request is refused.
    pub chunk_size: Option<u64>,
}

/// A client for any number of registries. Clones share connections, tokens and limits.
///
/// Methods take `&self` and may run in parallel; at most
/// [`MAX_CONNECTIONS_PER_HOST`](super::MAX_CONNECTIONS_PER_HOST) requests to one host run at a time.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    chunk_size: Option<u64>,
    conf: RegistriesConf,
    credentials: CredentialStore,
    transport: Transport,
    tokens: TokenCache,
    retry: RetryPolicy,
}

/// A place, once its scheme is known, and what may be done there.
pub(super) struct Place {
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) base: Url,
    pub(super) scopes: Scopes,
}

impl Registry {
    /// Prepares a client. Reads `registries.conf` and certificates; opens no connection.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::Config`], [`RegistryError::File`]: a `registries.conf` is wrong or cannot be read.
    /// - [`RegistryError::CaFile`], [`RegistryError::File`]: likewise for certificates.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        Self::build(options, &Env::of_process(), RetryPolicy::default())
    }

    pub(super) fn build(
        options: RegistryOptions,
        env: &Env,
        retry: RetryPolicy,
    ) -> Result<Self, RegistryError> {
        let conf = RegistriesConf::load(options.registries_conf.as_deref(), env)?;
        let credentials = CredentialStore::new(options.creds, options.authfile.as_deref(), env);
        let agent = || format!("kfactory/{}", env!("CARGO_PKG_VERSION"));
        let transport = Transport::new(TransportOptions {
            tls_verify: options.tls_verify,
            insecure: options.insecure_registries,
            ca_files: options.ca_files,
            user_agent: options.user_agent.unwrap_or_else(agent),
            offline: options.offline,
            silence: retry.silence,
        })?;
        let tokens = TokenCache::default();
        let inner = Inner {
            chunk_size: options.chunk_size,
            conf,
            credentials,
            transport,
            tokens,
            retry,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Reads a reference as the user means it: short names go through `registries.conf`.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Reference`].
    pub fn reference(&self, text: &str) -> Result<Reference, RegistryError> {
        Ok(self.inner.conf.resolve(text)?)
    }

    /// Returns where credentials for `reference` were looked for, one line per source, the last being the one used.
    ///
    /// # Errors
    ///
    /// [`RegistryError::AuthFile`] and [`RegistryError::File`] for a credentials file that cannot be read.
    pub async fn credential_sources(
        &self,
        reference: &Reference,
    ) -> Result<Vec<String>, RegistryError> {
        let found = self
            .inner
            .credentials
            .find(reference.registry(), reference.repository())
            .await?;
        Ok(found.tried)
    }

    pub(super) fn chunk_size(&self) -> Option<u64> {
        self.inner.chunk_size
    }

    pub(super) fn retry(&self) -> RetryPolicy {
        self.inner.retry
    }

    /// Starts counting tries of one operation.
    pub(super) fn tries(&self) -> Tries {
        Tries::new(self.inner.retry)
    }

    pub(super) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    /// Returns where to pull `reference` from, in the order to try.
    pub(super) fn pull_endpoints(
        &self,
        reference: &Reference,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        self.inner.conf.pull_endpoints(reference)
    }

    pub(super) fn push_endpoint(&self, reference: &Reference) -> Result<Endpoint, RegistryError> {
        self.inner.conf.push_endpoint(reference)
    }

    /// Prepares requests to `endpoint` that need `scopes`.
    pub(super) async fn place(
        &self,
        endpoint: &Endpoint,
        scopes: Scopes,
    ) -> Result<Place, RegistryError> {
        let mut tries = self.tries();
        let base = loop {
            match self
                .inner
                .transport
                .base_url(&endpoint.registry, endpoint.insecure)
                .await
            {
                Ok(base) => break base,
                Err(error) => tries.failed(error).await?,
            }
        };
        Ok(Place {
            registry: endpoint.registry.clone(),
            repository: endpoint.repository.clone(),
            base,
            scopes,
        })
    }

    /// Sends `call`, repeating it while that may help, and returns an answer with one of the statuses `wanted`.
    pub(super) async fn ask(
        &self,
        place: &Place,
        call: &Call<'_>,
        wanted: &[StatusCode],
    ) -> Result<Reply, RegistryError> {
        let mut tries = self.tries();
        loop {
            match self.ask_once(place, call, wanted).await {
                Ok(reply) => return Ok(reply),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    /// Sends `call` with the credentials it needs and returns an answer with one of the statuses `wanted`.
    pub(super) async fn ask_once(
        &self,
        place: &Place,
        call: &Call<'_>,
        wanted: &[StatusCode],
    ) -> Result<Reply, RegistryError> {
        let known = self.inner.tokens.challenge(&place.registry);
        let mut authorization = match &known {
            Some(challenge) => self.answer(place, challenge, None).await?,
            None => None,
        };
        let mut reply = self.send(place, call, authorization.as_ref()).await?;
        if reply.status() == StatusCode::UNAUTHORIZED
            && let Some(challenge) = Challenge::of(reply.headers())
        {
            // Reads the short error first: its connection can then be used again.
            let refused = reply.into_error().await;
            self.inner
                .tokens
                .remember(&place.registry, challenge.clone());
            let fresh = self
                .answer(place, &challenge, authorization.as_ref())
                .await?;
            if fresh.is_none() || fresh == authorization {
                return Err(self.with_sources(place, refused).await);
            }
            authorization = fresh;
            reply = self.send(place, call, authorization.as_ref()).await?;
        }
        if wanted.contains(&reply.status()) {
            return Ok(reply);
        }
        let error = reply.into_error().await;
        Err(self.with_sources(place, error).await)
    }

    /// Sends `call`; credentials go to the registry itself only, not to where it sends uploads elsewhere.
    async fn send(
        &self,
        place: &Place,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let authorization = authorization.filter(|_| call.url.origin() == place.base.origin());
        self.inner.transport.follow(call, authorization).await
    }

    /// Answers `challenge`; `None` where there is nothing to answer it with.
    async fn answer(
        &self,
        place: &Place,
        challenge: &Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let found = self.find_credentials(place).await?;
        let credential = found.credential.as_ref();
        match (challenge, credential) {
            (_, Some(Credential::Bearer(token))) => Ok(token::raw_bearer(token.reveal())),
            (Challenge::Basic, Some(Credential::Basic { user, password })) => {
                Ok(Some(token::basic(user, password)))
            }
            (Challenge::Basic, _) => Ok(None),
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scopes,
                },
                _,
            ) => {
                let scopes = joined(&place.scopes, scopes);
                let realm = TokenRequest::check_realm(&self.inner.transport, realm, &place.base);
                let realm = realm.map_err(|problem| {
                    let request = Call::new(Method::GET, place.base.clone()).line();
                    RegistryError::Protocol { request, problem }
                })?;
                let slot = self.inner.tokens.slot(&place.registry, &scopes);
                let request = TokenRequest {
                    realm,
                    service: service.as_deref(),
                    scopes: &scopes,
                    credential,
                };
                match token::bearer(&self.inner.transport, &slot, &request, refused).await {
                    Ok(header) => Ok(Some(header)),
                    Err(error) => Err(self.with_sources(place, error).await),
                }
            }
        }
    }

    async fn find_credentials(&self, place: &Place) -> Result<Lookup, RegistryError> {
        self.inner
            .credentials
            .find(&place.registry, &place.repository)
            .await
    }

    /// Adds to a 401 or 403 which credentials were in play.
    async fn with_sources(&self, place: &Place, error: RegistryError) -> RegistryError {
        let RegistryError::Refused(refusal) = error else {
            return error;
        };
        if !matches!(refusal.status, 401 | 403) {
            return RegistryError::Refused(refusal);
        }
        let tried = match self.find_credentials(place).await {
            Ok(found) => found.tried,
            Err(error) => return error,
        };
        let registry = place.registry.clone();
        match refusal.status {
            401 => RegistryError::Unauthorized {
                refusal,
                registry,
                tried,
            },
            _ => RegistryError::Forbidden {
                refusal,
                registry,
                tried,
            },
        }
    }
}

/// Adds the registry's scopes for other repositories: some registries know a repository by a second name.
fn joined(ours: &Scopes, theirs: &[String]) -> Scopes {
    let resource = |scope: &str| {
        scope
            .rsplit_once(':')
            .map_or_else(|| scope.to_owned(), |(name, _)| name.to_owned())
    };
    let named: BTreeSet<_> = ours.iter().map(|scope| resource(scope)).collect();
    let others = theirs
        .iter()
        .filter(|scope| !named.contains(&resource(scope)));
    ours.iter().chain(others).cloned().collect()
}

impl Place {
    /// Returns the URL of `path` below this repository, as in `manifests/latest`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{path}", self.repository));
        url
    }
}
