//! Downloads with retries. Knows nothing of releases.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Response, StatusCode, Url, redirect};

use crate::pace::{self, Fault, Patience, Stalled};

/// Why a download failed. URLs are without credentials and query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not a URL. What it is instead is not shown: it may hold a password.
    #[error("the address of the releases is not a URL")]
    Url,
    /// The server said no.
    #[error("GET {url}: status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The server's answer.
        status: u16,
    },
    /// There was no answer, or it broke off.
    #[error("GET {url}")]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// There was next to no answer for too long.
    #[error("GET {url}")]
    Stalled {
        /// What was asked for.
        url: String,
        /// In which way.
        source: Stalled,
    },
    /// The answer is longer than such a file can be.
    #[error("GET {url}: more than {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The most accepted.
        limit_bytes: u64,
    },
    /// The answer could not be stored.
    #[error("storing {url}")]
    Store {
        /// What was asked for.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How often a download is tried in all.
const ATTEMPTS: u32 = 4;
/// How often one that stands still is: each time is a minute in which nobody learns anything.
const ATTEMPTS_IN_SILENCE: u32 = 2;
/// The first wait between two tries; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// GitHub redirects once.
const MAX_REDIRECTS: usize = 5;

/// A client for one server.
#[derive(Debug)]
pub(crate) struct Client {
    client: reqwest::Client,
    patience: Patience,
}

impl Client {
    /// Makes a client for `base`. Proxies come from the environment, but never for this very machine.
    pub(crate) fn new(base: &str) -> Result<Self, HttpError> {
        // Fails only when there is a provider already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kfactory/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .redirect(redirect::Policy::custom(never_to_plain_http));
        if is_loopback(&parse(base)?) {
            builder = builder.no_proxy();
        }
        let client = builder.build();
        Ok(Self {
            client: client.map_err(|error| failed(base, error.into()))?,
            patience: Patience::default(),
        })
    }

    /// Fetches `url` and hands each piece to `sink`, with the length that the server promised.
    ///
    /// Connections that fail, broken answers and the statuses 408, 429 and 5xx are tried again, with the wait the
    /// server asks for. Each try begins with a call of `begin`, which must throw away what `sink` got before.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        limit_bytes: u64,
        mut begin: impl FnMut() -> std::io::Result<()>,
        mut sink: impl FnMut(&[u8], Option<u64>) -> std::io::Result<()>,
    ) -> Result<(), HttpError> {
        let mut wait = FIRST_WAIT;
        let mut attempt = 0;
        loop {
            attempt += 1;
            begin().map_err(|source| HttpError::Store {
                url: redact(url),
                source,
            })?;
            let mut asked = None;
            match self.try_once(url, limit_bytes, &mut sink, &mut asked).await {
                Err(error) if attempt < attempts(&error) => {
                    tokio::time::sleep(asked.unwrap_or(wait).min(MAX_WAIT)).await;
                    wait *= 2;
                }
                done => return done,
            }
        }
    }

    async fn try_once(
        &self,
        url: &str,
        limit_bytes: u64,
        sink: &mut impl FnMut(&[u8], Option<u64>) -> std::io::Result<()>,
        asked: &mut Option<Duration>,
    ) -> Result<(), HttpError> {
        let failed = |fault| failed(url, fault);
        let request = self.client.get(parse(url)?);
        let mut answer = pace::send(request, self.patience).await.map_err(failed)?;
        if answer.head.status() != StatusCode::OK {
            *asked = retry_after(&answer.head);
            return Err(HttpError::Status {
                url: redact(url),
                status: answer.head.status().as_u16(),
            });
        }
        let total = answer.head.content_length();
        let mut seen = 0;
        while let Some(piece) = answer.chunk().await.map_err(failed)? {
            seen += piece.len() as u64;
            if seen > limit_bytes {
                return Err(HttpError::TooLarge {
                    url: redact(url),
                    limit_bytes,
                });
            }
            sink(&piece, total).map_err(|source| HttpError::Store {
                url: redact(url),
                source,
            })?;
        }
        Ok(())
    }
}

/// Returns whether what comes from `url` can only come from its owner: TLS, or this very machine.
pub(crate) fn is_authenticated(url: &str) -> bool {
    parse(url).is_ok_and(|url| url.scheme() == "https" || is_loopback(&url))
}

/// Returns `url` without credentials and query, for people to read.
pub(crate) fn redact(url: &str) -> String {
    let Ok(mut url) = parse(url) else {
        return "(not a URL)".into();
    };
    // Both fail only for URLs that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

fn parse(url: &str) -> Result<Url, HttpError> {
    Url::parse(url).map_err(|_| HttpError::Url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn never_to_plain_http(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_tls = attempt.previous().iter().any(|url| url.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        attempt.error("redirected from https to plain http")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

fn failed(url: &str, fault: Fault) -> HttpError {
    let url = redact(url);
    match fault {
        Fault::Http(source) => HttpError::Network { url, source },
        Fault::Stalled(source) => HttpError::Stalled { url, source },
    }
}

/// Returns how often to try in all what ends so.
fn attempts(error: &HttpError) -> u32 {
    let is_transient = match error {
        HttpError::Stalled { .. } => return ATTEMPTS_IN_SILENCE,
        HttpError::Status { status, .. } => matches!(status, 408 | 429 | 500..),
        HttpError::Network { source, .. } => !source.is_redirect() && !source.is_builder(),
        _ => false,
    };
    if is_transient { ATTEMPTS } else { 1 }
}

/// Reads the wait that the server asks for, in its form with seconds. The form with a date is not worth a parser.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response
        .headers()
        .get(reqwest::header::RETRY_AFTER)?
        .to_str()
        .ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_and_this_machine_are_authenticated() {
        for (url, expected) in [
            ("https://github.com/x", true),
            ("http://127.0.0.1:8080/x", true),
            ("http://[::1]:8080/x", true),
            ("http://localhost/x", true),
            ("http://mirror.example/x", false),
            ("http://127.0.0.1.example/x", false),
            ("not a url", false),
        ] {
            assert_eq!(is_authenticated(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_trickle_ends_by_name_after_it_was_asked_once_more() {
        let (base, asked) = pace::trickle::server();
        let mut client = Client::new(&base).unwrap();
        client.patience = Patience(Duration::from_millis(300));
        let url = format!("{base}/release.tar.gz");
        let fetching = client.fetch(&url, 1 << 20, || Ok(()), |_, _| Ok(()));
        let error = fetching.await.expect_err("it would take hours");
        let text = crate::error::telling(&error).join(": ");
        let words = format!("GET {url}: no progress, ");
        assert!(text.starts_with(&words), "{text}");
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[test]
    fn credentials_and_queries_are_not_shown() {
        assert_eq!(
            redact("https://me:secret@host/path?token=1"),
            "https://host/path"
        );
        assert_eq!(redact("secret"), "(not a URL)");
    }
}
