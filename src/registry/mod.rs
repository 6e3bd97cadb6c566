//! Talks to OCI registries: pulls, pushes, and finds the credentials and mirrors that the user configured.
//!
//! Speaks the distribution-spec itself over HTTP. Moves bytes and checks them; what manifests mean is for others.
//!
//! In reading order: [`reference`](Reference) names a manifest · `config` turns it into endpoints (`registries.conf`) ·
//! `transport`, with `body`, `reply`, `wait` and `failure`, makes single HTTP exchanges · `auth`, `authfile`, `helper` find
//! credentials, `challenge` and `token` spend them · `client` joins these and `retry` into the one way requests take ·
//! `pull`, `download`, `push`, `upload` are the operations.
//!
//! Invariants: bytes reach the caller only when digest and size fit. Credentials go to the registry they belong to and
//! the token server it names, never along a redirect. No URL in an error has a query or credentials.

mod auth;
mod authfile;
mod body;
mod challenge;
mod client;
mod config;
mod download;
mod env;
mod error;
mod failure;
#[cfg(test)]
mod fake;
mod helper;
mod pull;
mod push;
mod reference;
mod reply;
mod retry;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod upload;
mod wait;

pub use auth::{Credentials, Secret};
pub use body::BlobSource;
pub use client::{Registry, RegistryOptions};
pub use config::{ConfigError, RegistriesConf};
pub use error::{Refusal, RegistryError, RequestLine};
pub use kfactory_layers::digest::{Digest, DigestError};
pub use pull::FetchedManifest;
pub use push::BlobOutcome;
pub use reference::{DEFAULT_TAG, DOCKER_HUB, Reference, ReferenceError, check_registry};
pub use transport::MAX_CONNECTIONS_PER_HOST;
pub use wait::Progress;
