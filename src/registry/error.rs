//! What can go wrong with a registry, what each case shows, and what to try.
//!
//! URLs are stored without credentials and query: upload locations carry state tokens there. Text from registries is
//! cut and stripped of control characters on the way in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};

use super::config::ConfigError;
use super::reference::ReferenceError;
use super::transport::{authority, is_loopback};
use crate::error::telling;
use crate::pace::Stalled;
use kfactory_layers::digest::Digest;

/// The most of a registry's own words to repeat, in characters.
const MAX_MESSAGE: usize = 500;

/// Why a registry operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A reference, alias or mirror location is not well formed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A `registries.conf` was not understood.
    #[error("reading `{}`", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<ConfigError>,
    },
    /// A credentials file was not understood. What it holds is never shown.
    #[error("credentials file `{}`: {problem}", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        problem: String,
    },
    /// The certificate file given holds no certificate.
    #[error("`{}` holds no PEM certificate", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
    },
    /// A local file could not be read or written.
    #[error("using `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file that a blob is fetched into could not be written.
    #[error("writing `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// `registries.conf` forbids the reference.
    #[error("`{reference}` is blocked by the prefix {prefix:?} in registries.conf")]
    Blocked {
        /// The reference asked for.
        reference: String,
        /// The prefix that blocks it.
        prefix: String,
    },
    /// A connection would be needed, and none may be opened.
    #[error("{request}: no connection is opened when offline")]
    Offline {
        /// The request not made.
        request: RequestLine,
    },
    /// The host could not be reached.
    #[error("{request}")]
    Connect {
        /// The request that did not get out.
        request: RequestLine,
        /// The system's answer.
        source: Box<reqwest::Error>,
    },
    /// The host was reached and no trusted encrypted connection came about.
    #[error("{request}")]
    Tls {
        /// The request that did not get out.
        request: RequestLine,
        /// What is wrong with the certificate or protocol.
        source: Box<reqwest::Error>,
    },
    /// The connection broke, or the answer was not HTTP.
    #[error("{request}: the connection broke")]
    Interrupted {
        /// The request under way.
        request: RequestLine,
        /// What broke.
        source: Box<reqwest::Error>,
    },
    /// The transfer stands still.
    #[error("{request}: {how}")]
    Stalled {
        /// The request under way.
        request: RequestLine,
        /// In which way.
        how: Stalled,
    },
    /// The registry has no such repository, tag, manifest or blob.
    #[error("{0}")]
    NotFound(Box<Refusal>),
    /// The registry wants (other) credentials.
    #[error("{refusal}")]
    Unauthorized {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// The registry, as in references.
        registry: String,
        /// Where credentials were looked for, and with what result.
        tried: Vec<String>,
    },
    /// The registry knows the caller and denies this.
    #[error("{refusal}")]
    Forbidden {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// The registry, as in references.
        registry: String,
        /// Where credentials were looked for, and with what result.
        tried: Vec<String>,
    },
    /// The registry answers no more requests for now.
    #[error("{refusal}")]
    RateLimited {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry answered with another error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The registry's answer does not follow the protocol.
    #[error("{request}: {problem}")]
    Protocol {
        /// The request answered.
        request: RequestLine,
        /// What is missing or wrong.
        problem: String,
    },
    /// Bytes are not the ones named.
    #[error("{what}: expected {expected}, found {found}")]
    DigestMismatch {
        /// Which bytes.
        what: String,
        /// The digest they were asked for by.
        expected: Digest,
        /// The digest they have.
        found: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("{what}: expected {expected} bytes, found {found}")]
    SizeMismatch {
        /// Which bytes.
        what: String,
        /// The size stated, in bytes.
        expected: u64,
        /// The size found, in bytes; for a blob that is too long, where reading stopped.
        found: u64,
    },
    /// A manifest is of a kind this program does not read.
    #[error("manifest of `{reference}`: {problem}")]
    Manifest {
        /// The reference asked for.
        reference: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest read back after a push is not the one pushed.
    #[error(
        "`{reference}` holds another manifest than the one just pushed: expected {expected}, found {found}"
    )]
    ReadBack {
        /// The reference read back.
        reference: String,
        /// The digest pushed.
        expected: Digest,
        /// The digest found.
        found: Digest,
    },
    /// Neither a mirror nor the registry had what was asked for.
    #[error("{}", InOrder(earlier, last))]
    Mirrors {
        /// Each mirror's failure, in the order tried.
        earlier: Vec<RegistryError>,
        /// The failure of the registry itself.
        last: Box<RegistryError>,
    },
}

/// A method and a URL without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine(String);

/// A registry's answer that is an error.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The request answered.
    pub request: RequestLine,
    /// The HTTP status.
    pub status: u16,
    /// The first error's code, such as `MANIFEST_UNKNOWN`.
    pub code: Option<String>,
    /// The first error's message, or the start of a plain-text answer.
    pub message: Option<String>,
}

impl RequestLine {
    pub(super) fn new(method: &Method, url: &Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // These fail only for URLs that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self(format!("{method} {url}"))
    }

    fn is_to_this_machine(&self) -> bool {
        let url = self.0.split_once(' ').map_or("", |(_, url)| url);
        Url::parse(url).is_ok_and(|url| is_loopback(&authority(&url)))
    }
}

impl fmt::Display for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Refusal {
    /// Reads the error document `body`; anything else than one is quoted if it is plain text.
    ///
    /// Spec: distribution-spec, "Error Codes".
    pub(super) fn new(request: RequestLine, status: StatusCode, body: &[u8]) -> Self {
        let (code, message) = match serde_json::from_slice::<serde_json::Value>(body) {
            Ok(document) => words_of(&document),
            Err(_) => (None, plain_text(body)),
        };
        Self {
            request,
            status: status.as_u16(),
            code,
            message,
        }
    }

    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.request, self.status)?;
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        match (&self.code, reason) {
            (Some(code), _) => write!(f, " {code}")?,
            (None, Some(reason)) => write!(f, " {reason}")?,
            (None, None) => {}
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// Finds code and message in the spec's error document, or in what token servers send instead.
fn words_of(document: &serde_json::Value) -> (Option<String>, Option<String>) {
    let text = |value: &serde_json::Value| {
        value
            .as_str()
            .map(printable)
            .filter(|text| !text.is_empty())
    };
    let first = &document["errors"][0];
    if first.is_object() {
        return (text(&first["code"]), text(&first["message"]));
    }
    let message = ["error_description", "details", "message"]
        .iter()
        .find_map(|key| text(&document[key]));
    (text(&document["error"]), message)
}

fn plain_text(body: &[u8]) -> Option<String> {
    let text = printable(std::str::from_utf8(body).ok()?.trim());
    (!text.is_empty() && !text.starts_with('<')).then_some(text)
}

/// Makes a registry's words fit for one line of a terminal.
pub(super) fn printable(text: &str) -> String {
    let start: String = text.chars().take(MAX_MESSAGE).collect();
    crate::printable::line(&start).trim().to_owned()
}

/// Joins the failures of mirrors and registry into one clause; a cause that several in a row share stands once, after the last of them.
struct InOrder<'a>(&'a [RegistryError], &'a RegistryError);

impl fmt::Display for InOrder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().chain([self.1]);
        let told: Vec<Vec<String>> = all.map(|error| telling(error)).collect();
        let alike = |one: &Vec<String>, next: &Vec<String>| one.len() > 1 && one[1..] == next[1..];
        let runs: Vec<String> = told.chunk_by(alike).map(in_a_row).collect();
        match runs.split_last() {
            Some((last, earlier)) if !earlier.is_empty() => {
                write!(f, "{}; then {last}", earlier.join("; "))
            }
            _ => f.write_str(&runs.concat()),
        }
    }
}

/// Writes failures of the same cause as one.
fn in_a_row(failures: &[Vec<String>]) -> String {
    let heads: Vec<&str> = failures.iter().map(|told| told[0].as_str()).collect();
    let mut text = match heads.split_last() {
        Some((last, earlier)) if !earlier.is_empty() => {
            format!("{} and {last}", earlier.join(", "))
        }
        _ => heads.concat(),
    };
    for cause in &failures[0][1..] {
        text.push_str(": ");
        text.push_str(cause);
    }
    text
}

impl RegistryError {
    /// Returns the failure of the registry itself, behind those of its mirrors.
    pub fn decisive(&self) -> &RegistryError {
        match self {
            Self::Mirrors { last, .. } => last.decisive(),
            other => other,
        }
    }

    /// Whether the registry answered that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.decisive(), Self::NotFound(_))
    }

    /// Whether the same request may well succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Stalled { .. } | Self::RateLimited { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 500 | 502 | 503 | 504),
            // Too few bytes may be a transfer that ended early; too many never are.
            Self::SizeMismatch {
                expected, found, ..
            } => found < expected,
            _ => false,
        }
    }

    /// Returns lines that each name a command, setting or value to try; empty when there is nothing to suggest.
    pub fn hints(&self) -> Vec<String> {
        match self.decisive() {
            Self::Unauthorized {
                registry, tried, ..
            }
            | Self::Forbidden {
                registry, tried, ..
            } => {
                let mut hints = vec![format!(
                    "`podman login {registry}` or `--creds USER:PASSWORD`"
                )];
                if !tried.is_empty() {
                    hints.push(format!("credentials: {}", tried.join("; ")));
                }
                hints
            }
            Self::Tls { .. } => vec![
                "`--registry-ca FILE` names the certificate authority to trust".to_owned(),
                "`--tls-verify=false`, or `--insecure-registry HOST` for one registry, accepts any certificate and plain HTTP"
                    .to_owned(),
            ],
            Self::NotFound(_) => vec![
                "check the repository and the tag for a slip; some registries also answer so without the right credentials"
                    .to_owned(),
            ],
            Self::Offline { .. } => vec!["without `--offline` it is fetched".to_owned()],
            Self::RateLimited { retry_after, .. } => rate_hints(*retry_after),
            Self::Connect { request, .. } if request.is_to_this_machine() => vec![
                "no registry listens there: check that it runs, and its port".to_owned(),
            ],
            Self::Connect { .. } => {
                vec![
                    "`HTTPS_PROXY` and `NO_PROXY` name a proxy; `registries.conf` names mirrors"
                        .to_owned(),
                ]
            }
            Self::Stalled {
                how: Stalled::TooSlow { .. },
                ..
            } => {
                vec!["`registries.conf` names mirrors that may be faster".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

fn rate_hints(retry_after: Option<Duration>) -> Vec<String> {
    let wait =
        retry_after.map(|wait| format!("the registry asks to wait {} seconds", wait.as_secs()));
    wait.into_iter()
        .chain(["requests with credentials often have a higher limit".to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &[u8]) -> String {
        let url = Url::parse("https://me:secret@quay.io/v2/acme/os/manifests/9?_state=secret#x")
            .expect("valid");
        Refusal::new(
            RequestLine::new(&Method::GET, &url),
            StatusCode::UNAUTHORIZED,
            body,
        )
        .to_string()
    }

    #[test]
    fn a_refusal_shows_request_status_code_and_message_and_no_secret() {
        let head = "GET https://quay.io/v2/acme/os/manifests/9: 401";
        for (body, tail) in [
            (
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
                "UNAUTHORIZED: authentication required",
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                "Unauthorized: incorrect username or password",
            ),
            ("<html>no</html>", "Unauthorized"),
            ("too\u{1b}[2J many", "Unauthorized: too [2J many"),
            ("", "Unauthorized"),
        ] {
            assert_eq!(refusal(body.as_bytes()), format!("{head} {tail}"));
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Cause(&'static str);

    fn unreadable(path: &str, cause: &'static str) -> RegistryError {
        RegistryError::File {
            path: path.into(),
            source: std::io::Error::other(Cause(cause)),
        }
    }

    #[test]
    fn what_mirrors_and_registry_share_is_said_once() {
        for (causes, said) in [
            (["gone"; 3], "using `a`, using `b` and using `c`: gone"),
            (
                ["gone", "gone", "shut"],
                "using `a` and using `b`: gone; then using `c`: shut",
            ),
            (
                ["gone", "shut", "gone"],
                "using `a`: gone; using `b`: shut; then using `c`: gone",
            ),
        ] {
            let [a, b, c] = causes;
            let error = RegistryError::Mirrors {
                earlier: vec![unreadable("a", a), unreadable("b", b)],
                last: Box::new(unreadable("c", c)),
            };
            assert_eq!(error.to_string(), said);
        }
    }

    #[test]
    fn long_messages_are_cut() {
        assert!(refusal("x".repeat(10_000).as_bytes()).len() < 700);
    }
}
