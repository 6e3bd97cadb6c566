//! Turns a challenge and credentials into an `Authorization` header, and remembers it while it is good.
//!
//! Spec: the distribution project's token authentication (GET) and its OAuth2 form (POST).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Credential, Secret};
use super::body::Payload;
use super::challenge::Challenge;
use super::error::RegistryError;
use super::transport::{Call, Transport, authority, lock};

/// How we present ourselves to token servers.
const CLIENT_ID: &str = "kfactory";

/// How long a token is good for when its server does not say.
const DEFAULT_LIFETIME: u64 = 60;

/// Tokens are renewed this long before they end, so that none ends on its way.
const MARGIN: Duration = Duration::from_secs(10);

/// The most of a token server's answer to read: some tokens list many claims.
const MAX_TOKEN_ANSWER: usize = 1024 * 1024;

/// What a request needs to be allowed, as the token servers write it.
pub(super) type Scopes = BTreeSet<String>;

/// Returns the scope for reading from `repository`.
pub(super) fn pull(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// Returns the scope for writing to `repository`.
pub(super) fn push(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

/// Challenges met and tokens received, by registry.
#[derive(Default)]
pub(super) struct TokenCache {
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<(String, Scopes), Arc<Slot>>>,
}

/// A token, or the place where one request waits for another's.
pub(super) type Slot = tokio::sync::Mutex<Option<Token>>;

/// A header that is good for a time.
pub(super) struct Token {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenCache {
    pub(super) fn challenge(&self, registry: &str) -> Option<Challenge> {
        lock(&self.challenges).get(registry).cloned()
    }

    pub(super) fn remember(&self, registry: &str, challenge: Challenge) {
        lock(&self.challenges).insert(registry.to_owned(), challenge);
    }

    /// Returns the place for the token of `scopes`; holding its lock keeps others from asking for the same.
    pub(super) fn slot(&self, registry: &str, scopes: &Scopes) -> Arc<Slot> {
        lock(&self.tokens)
            .entry((registry.to_owned(), scopes.clone()))
            .or_default()
            .clone()
    }
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}

/// Answers a bearer challenge, with the token at hand if it is good and is not `refused`.
pub(super) async fn bearer(
    transport: &Transport,
    slot: &Slot,
    request: &TokenRequest<'_>,
    refused: Option<&HeaderValue>,
) -> Result<HeaderValue, RegistryError> {
    let mut token = slot.lock().await;
    let good = token
        .as_ref()
        .filter(|token| token.until > Instant::now() && Some(&token.header) != refused);
    if let Some(token) = good {
        return Ok(token.header.clone());
    }
    let fresh = request.send(transport).await?;
    let header = fresh.header.clone();
    *token = Some(fresh);
    Ok(header)
}

/// Writes the header that sends `user` and `password` themselves.
pub(super) fn basic(user: &str, password: &Secret) -> HeaderValue {
    secret_header(&format!(
        "Basic {}",
        BASE64.encode(format!("{user}:{}", password.reveal()))
    ))
    .expect("base64 fits in a header")
}

/// Writes the header that sends `token` as it is; `None` when it has characters no header can hold.
pub(super) fn raw_bearer(token: &str) -> Option<HeaderValue> {
    secret_header(&format!("Bearer {token}"))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// One question to a token server.
pub(super) struct TokenRequest<'a> {
    pub(super) realm: Url,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a Scopes,
    pub(super) credential: Option<&'a Credential>,
}

impl TokenRequest<'_> {
    /// Reads where the token server of the registry at `registry` is, and refuses one that would see credentials without
    /// encryption. Plain HTTP is taken on the host of a registry that is spoken to that way, on this machine, and on
    /// hosts that are declared insecure.
    pub(super) fn check_realm(
        transport: &Transport,
        realm: &str,
        registry: &Url,
    ) -> Result<Url, String> {
        let url = registry
            .join(realm)
            .map_err(|_| format!("it names the token server {realm:?}, which is no URL"))?;
        let same_host = registry.scheme() == "http" && registry.host_str() == url.host_str();
        let safe = match url.scheme() {
            "https" => true,
            "http" => same_host || transport.may_descend(&authority(registry), &authority(&url)),
            _ => false,
        };
        if safe {
            return Ok(url);
        }
        let named = format!("it names the token server {realm:?}");
        Err(match url.scheme() {
            "http" => format!("{named}, which is not encrypted"),
            scheme => {
                format!("{named}, and `{scheme}:` names no server: only `https:` and `http:` do")
            }
        })
    }

    async fn send(&self, transport: &Transport) -> Result<Token, RegistryError> {
        let (call, authorization) = self.call();
        let asked = Instant::now();
        let reply = match self.credential {
            // A redirect would carry the body, and with it the identity token, to another host.
            Some(Credential::Identity(_)) => transport.exchange(&call, None).await?,
            _ => transport.follow(&call, authorization.as_ref()).await?,
        };
        if reply.status() != StatusCode::OK {
            return Err(reply.into_error().await);
        }
        let wrong = |problem: &str| RegistryError::Protocol {
            request: call.line(),
            problem: problem.to_owned(),
        };
        let body = reply.body(MAX_TOKEN_ANSWER).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| wrong("its answer is no token document"))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| wrong("its answer holds no token"))?;
        let header =
            raw_bearer(&token).ok_or_else(|| wrong("its token does not fit in a header"))?;
        let lifetime = Duration::from_secs(
            answer
                .expires_in
                .unwrap_or(DEFAULT_LIFETIME)
                .clamp(1, 86_400),
        );
        // A token that lives shorter than the margin is used at once and never again.
        Ok(Token {
            header,
            until: asked + lifetime.saturating_sub(MARGIN),
        })
    }

    fn call(&self) -> (Call<'static>, Option<HeaderValue>) {
        match self.credential {
            Some(Credential::Identity(token)) => (self.exchange_of(token), None),
            Some(Credential::Basic { user, password }) => {
                (self.question(Some(user)), Some(basic(user, password)))
            }
            Some(Credential::Bearer(_)) | None => (self.question(None), None),
        }
    }

    fn question(&self, account: Option<&str>) -> Call<'static> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
            query.extend_pairs(account.map(|user| ("account", user)));
        }
        Call::new(Method::GET, url)
    }

    fn exchange_of(&self, token: &Secret) -> Call<'static> {
        let scopes = self
            .scopes
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ");
        let mut form = Url::parse("form:").expect("constant");
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes)
            .append_pair("refresh_token", token.reveal());
        let mut call = Call::new(Method::POST, self.realm.clone());
        call.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        call.payload = Payload::Bytes(form.query().unwrap_or_default().to_owned().into());
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::transport::TransportOptions;

    #[test]
    fn token_servers_are_encrypted_or_at_home() {
        let insecure = vec!["known.example".to_owned()];
        let options = TransportOptions {
            insecure,
            ..Default::default()
        };
        let transport = Transport::new(options).expect("no certificates to read");
        for (registry, realm, expected) in [
            ("https://a.example/v2/", "https://b.example/token", true),
            ("https://a.example/v2/", "/token", true),
            ("https://a.example/v2/", "http://b.example/token", false),
            ("https://a.example/v2/", "http://127.0.0.1/token", false),
            ("https://a.example/v2/", "http://known.example/token", true),
            (
                "http://known.example/v2/",
                "http://known.example:5001/token",
                true,
            ),
            (
                "http://127.0.0.1:5000/v2/",
                "http://localhost:5001/token",
                true,
            ),
            ("http://127.0.0.1:5000/v2/", "http://b.example/token", false),
            ("https://a.example/v2/", "file:///etc/passwd", false),
            ("https://a.example/v2/", "https://", false),
        ] {
            let registry = Url::parse(registry).expect("valid");
            let found = TokenRequest::check_realm(&transport, realm, &registry);
            assert_eq!(found.is_ok(), expected, "{registry} {realm}: {found:?}");
            if let Err(problem) = found {
                let is_plain = realm.starts_with("http://");
                assert_eq!(problem.contains("not encrypted"), is_plain, "{problem}");
            }
        }
    }
}
