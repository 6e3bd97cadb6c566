//! Single HTTP exchanges: which client, which scheme, how many at once, redirects, and time limits.
//!
//! Knows hosts and URLs; knows nothing of repositories, tokens or retries.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, Method, StatusCode, Url};
use tokio::sync::{OnceCell, Semaphore};

use super::body::Payload;
use super::error::{RegistryError, RequestLine};
use super::failure::{answers_without_tls, classify};
use super::reference::{DOCKER_HUB, split_port};
use super::reply::Reply;
use super::wait::{Progress, wait};
use crate::pace::{Answer, Patience};

/// Connections to one host at a time; further requests wait. Registries throttle clients that open many.
pub const MAX_CONNECTIONS_PER_HOST: usize = 8;

/// Where Docker Hub answers the registry API.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// The most hops from a registry to the place that holds the bytes.
const MAX_REDIRECTS: usize = 10;

const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// One request, which can be sent any number of times.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
    pub(super) progress: Option<Progress<'a>>,
}

impl Call<'_> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::Empty,
            progress: None,
        }
    }

    pub(super) fn line(&self) -> RequestLine {
        RequestLine::new(&self.method, &self.url)
    }
}

/// What decides how hosts are spoken to.
#[derive(Debug, Default)]
pub(super) struct TransportOptions {
    pub(super) tls_verify: Option<bool>,
    pub(super) insecure: Vec<String>,
    pub(super) ca_files: Vec<PathBuf>,
    pub(super) user_agent: String,
    pub(super) offline: bool,
    pub(super) silence: Patience,
}

/// Speaks HTTP to hosts.
#[derive(Debug)]
pub(super) struct Transport {
    options: TransportOptions,
    authorities: Vec<Certificate>,
    clients: Mutex<HashMap<ClientKind, Client>>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// Hosts with ports that configuration files declare insecure.
    declared_insecure: Mutex<HashSet<String>>,
}

/// What is remembered about one host and port.
#[derive(Debug)]
struct Host {
    limit: Arc<Semaphore>,
    reached: AtomicBool,
    /// Whether plain HTTP is spoken; found out at the first contact.
    plain: OnceCell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKind {
    trust: Trust,
    /// Never through a proxy.
    direct: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Trust {
    /// The client for plain HTTP needs no authorities, so it works on hosts that have none installed.
    Nobody,
    Authorities,
    Everybody,
}

impl Host {
    /// Tells a host that never answered from one that does not any more, as when it is restarted.
    fn after_contact(&self, error: RegistryError) -> RegistryError {
        match error {
            RegistryError::Connect { request, source } if self.reached.load(Ordering::Relaxed) => {
                RegistryError::Interrupted { request, source }
            }
            other => other,
        }
    }
}

impl Transport {
    pub(super) fn new(options: TransportOptions) -> Result<Self, RegistryError> {
        // Fails only when a provider is installed already, which is then the one to use.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authorities = options.ca_files.iter().map(|path| read_authorities(path));
        let authorities = authorities.collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Self {
            options,
            authorities,
            clients: Mutex::default(),
            hosts: Mutex::default(),
            declared_insecure: Mutex::default(),
        })
    }

    /// Returns the root URL of the API of `registry`, which may take a first contact to find out.
    pub(super) async fn base_url(
        &self,
        registry: &str,
        insecure: bool,
    ) -> Result<Url, RegistryError> {
        let api = if registry == DOCKER_HUB {
            DOCKER_HUB_API
        } else {
            registry
        };
        let secure_url = api_url("https", api)?;
        if insecure {
            lock(&self.declared_insecure).insert(api.to_owned());
        }
        if !self.may_be_plain(api) {
            return Ok(secure_url);
        }
        let plain_url = api_url("http", api)?;
        let host = self.host(api);
        let plain = host
            .plain
            .get_or_try_init(|| self.probe(&secure_url, &plain_url))
            .await?;
        Ok(if *plain { plain_url } else { secure_url })
    }

    /// Whether plain HTTP is spoken at `secure_url`'s port. HTTPS is preferred.
    async fn probe(&self, secure_url: &Url, plain_url: &Url) -> Result<bool, RegistryError> {
        let secure = match self
            .exchange(&Call::new(Method::GET, secure_url.clone()), None)
            .await
        {
            Ok(_) => return Ok(false),
            Err(error) => error,
        };
        // With a port given, both schemes share it, and a refused connection is refused for both.
        let other_port =
            secure_url.port().is_none() && matches!(secure, RegistryError::Connect { .. });
        if !(other_port || answers_without_tls(&secure)) {
            return Err(secure);
        }
        match self
            .exchange(&Call::new(Method::GET, plain_url.clone()), None)
            .await
        {
            // What servers that speak TLS say to those who do not; then TLS failed for another reason.
            Ok(reply) if reply.status() == StatusCode::BAD_REQUEST => Err(secure),
            Ok(_) => Ok(true),
            Err(_) => Err(secure),
        }
    }

    fn may_be_plain(&self, registry: &str) -> bool {
        match self.options.tls_verify {
            Some(verify) => !verify,
            None => is_loopback(registry) || self.is_insecure(registry),
        }
    }

    fn is_insecure(&self, registry: &str) -> bool {
        let listed = |entry: &String| entry == registry || entry == split_port(registry).0;
        self.options.insecure.iter().any(listed) || lock(&self.declared_insecure).contains(registry)
    }

    fn trust(&self, url: &Url) -> Trust {
        if url.scheme() == "http" {
            return Trust::Nobody;
        }
        match self.options.tls_verify {
            Some(true) => Trust::Authorities,
            Some(false) => Trust::Everybody,
            None if self.is_insecure(&authority(url)) => Trust::Everybody,
            None => Trust::Authorities,
        }
    }

    /// Sends `call` and follows redirects. `authorization` goes to the origin of `call.url` and nowhere else.
    pub(super) async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let mut reply = self.exchange(call, authorization).await?;
        for _ in 0..MAX_REDIRECTS {
            let Some(target) = self.redirect_target(call, &reply)? else {
                return Ok(reply);
            };
            let authorization = authorization.filter(|_| target.origin() == call.url.origin());
            let next = Call {
                method: call.method.clone(),
                url: target,
                headers: call.headers.clone(),
                payload: call.payload.clone(),
                progress: call.progress,
            };
            // Gives the connection back before waiting for one to the next host, which may be the same.
            drop(reply);
            reply = self.exchange(&next, authorization).await?;
        }
        Err(RegistryError::Protocol {
            request: call.line(),
            problem: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    fn redirect_target(
        &self,
        call: &Call<'_>,
        reply: &Reply,
    ) -> Result<Option<Url>, RegistryError> {
        let reading = matches!(call.method, Method::GET | Method::HEAD);
        let redirects = match reply.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => reading,
            _ => false,
        };
        if !redirects {
            return Ok(None);
        }
        reply
            .location(LOCATION)
            .and_then(|target| self.check_descent(call, reply, target))
            .map(Some)
    }

    /// Refuses to leave encryption for a host that nobody declared insecure.
    pub(super) fn check_descent(
        &self,
        call: &Call<'_>,
        reply: &Reply,
        target: Url,
    ) -> Result<Url, RegistryError> {
        let from = authority(reply.url());
        let fits = match target.scheme() {
            "https" => true,
            "http" => {
                let to = authority(&target);
                // Plain HTTP on this machine is trusted because it does not leave it.
                let stays_plain = reply.url().scheme() == "http";
                stays_plain && (!is_loopback(&from) || is_loopback(&to))
                    || self.may_descend(&from, &to)
            }
            _ => false,
        };
        if fits {
            return Ok(target);
        }
        let place = RequestLine::new(&call.method, &target).to_string();
        let problem = match target.scheme() {
            "http" => format!("{from} leads to unencrypted {place:?}"),
            scheme => format!(
                "{from} leads to {place:?}, and where `{scheme}:` leads nothing is fetched: only `https:` and `http:`"
            ),
        };
        Err(RegistryError::Protocol {
            request: call.line(),
            problem,
        })
    }

    /// Whether `from` may lead to plain HTTP at `to`: it stays on this machine, or `to` is declared insecure.
    pub(super) fn may_descend(&self, from: &str, to: &str) -> bool {
        let at_home = is_loopback(from) && is_loopback(to);
        match self.options.tls_verify {
            Some(verify) => !verify,
            None => at_home || self.is_insecure(to),
        }
    }

    /// Sends `call` once and waits for the head of the answer, whatever its status.
    pub(super) async fn exchange(
        &self,
        call: &Call<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, RegistryError> {
        let line = call.line();
        if self.options.offline {
            return Err(RegistryError::Offline { request: line });
        }
        let client = self
            .client(&call.url)
            .map_err(|error| classify(line.clone(), error, &call.payload))?;
        let host = self.host(&authority(&call.url));
        let permit = host
            .limit
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let mut request = client
            .request(call.method.clone(), call.url.clone())
            .headers(call.headers.clone());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        // A stated length keeps the body from being sent in HTTP's own chunks, which many registries refuse.
        if !matches!(call.method, Method::GET | Method::HEAD) {
            request = request.header(CONTENT_LENGTH, call.payload.len());
        }
        request = call.payload.attach(request);
        let response = wait(call, &line, request.send()).await?;
        let response = response.map_err(|error| {
            let error = classify(line.clone(), error, &call.payload);
            host.after_contact(error)
        })?;
        host.reached.store(true, Ordering::Relaxed);
        let answer = Answer::new(response, self.options.silence);
        Ok(Reply::new(line, call.url.clone(), answer, permit))
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let fresh = || {
            let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS_PER_HOST));
            Arc::new(Host {
                limit,
                reached: AtomicBool::new(false),
                plain: OnceCell::new(),
            })
        };
        lock(&self.hosts)
            .entry(name.to_owned())
            .or_insert_with(fresh)
            .clone()
    }

    fn client(&self, url: &Url) -> Result<Client, reqwest::Error> {
        let kind = ClientKind {
            trust: self.trust(url),
            direct: is_loopback(&authority(url)),
        };
        if let Some(client) = lock(&self.clients).get(&kind) {
            return Ok(client.clone());
        }
        let client = self.build(kind)?;
        lock(&self.clients).insert(kind, client.clone());
        Ok(client)
    }

    fn build(&self, kind: ClientKind) -> Result<Client, reqwest::Error> {
        let builder = Client::builder()
            .user_agent(&self.options.user_agent)
            .connect_timeout(CONNECT_PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // One connection per transfer: no blob waits behind another's flow control, and a reset loses one only.
            .http1_only();
        let builder = if kind.direct {
            builder.no_proxy()
        } else {
            builder
        };
        match kind.trust {
            Trust::Nobody => builder.tls_certs_only([]),
            Trust::Authorities => builder.tls_certs_merge(self.authorities.clone()),
            Trust::Everybody => builder
                .tls_certs_only([])
                .tls_danger_accept_invalid_certs(true),
        }
        .build()
    }
}

fn read_authorities(path: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let bytes = crate::settings_file::read(path).map_err(|source| RegistryError::File {
        path: path.to_owned(),
        source,
    })?;
    let none = || RegistryError::CaFile {
        path: path.to_owned(),
    };
    let found = Certificate::from_pem_bundle(&bytes).map_err(|_| none())?;
    if found.is_empty() {
        Err(none())
    } else {
        Ok(found)
    }
}

fn api_url(scheme: &str, registry: &str) -> Result<Url, RegistryError> {
    let wrong = |_| super::reference::ReferenceError::Registry {
        registry: registry.to_owned(),
    };
    Ok(Url::parse(&format!("{scheme}://{registry}/v2/")).map_err(wrong)?)
}

/// Returns host and, unless it is the scheme's own, port of `url`, as in references.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether `registry` (host and optional port) is this machine.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = split_port(registry).0;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every critical section is a plain map operation, so the data is whole even after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_only() {
        for (registry, expected) in [
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("localhost", true),
            ("localhost:80", true),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }

    #[tokio::test]
    async fn only_declared_hosts_are_ever_asked_without_encryption() {
        let options = TransportOptions {
            insecure: vec!["plain.example".to_owned()],
            ..Default::default()
        };
        let transport = Transport::new(options).expect("no certificates to read");
        let url = transport
            .base_url("quay.io", false)
            .await
            .expect("no contact needed");
        assert_eq!(url.as_str(), "https://quay.io/v2/");
        assert_eq!(
            transport
                .base_url("docker.io", false)
                .await
                .expect("same")
                .as_str(),
            "https://registry-1.docker.io/v2/"
        );
        assert!(transport.may_be_plain("plain.example:8080"));
        assert!(!transport.may_be_plain("explain.example"));
    }
}
