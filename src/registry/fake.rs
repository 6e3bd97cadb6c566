//! A registry inside the test that can also lie.
//!
//! Speaks just enough HTTP/1.1 over plain TCP. A script sees each request first and may answer it in its own way; what it
//! leaves goes to an honest registry in memory, whose `Location`s are relative and whose sessions resume.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kfactory_layers::digest::Digest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::transport::lock;

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// By lower-case name.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    fn query(&self, name: &str) -> Option<String> {
        let url = reqwest::Url::parse(&format!("http://x{}", self.target)).ok()?;
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What goes back.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Sends this many bytes of the body, then breaks the connection.
    cut: Option<usize>,
    /// Sends the body byte for byte, with this pause after each.
    trickle: Option<Duration>,
}

pub(super) fn answer(status: u16) -> Answer {
    Answer {
        status,
        ..Answer::default()
    }
}

impl Answer {
    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..self
        }
    }

    pub(super) fn trickle(self, pause: Duration) -> Self {
        Self {
            trickle: Some(pause),
            ..self
        }
    }

    pub(super) fn cut(self, after: usize) -> Self {
        Self {
            cut: Some(after),
            ..self
        }
    }
}

/// Sees a request and how many like it (method and path) came before.
type Script = dyn Fn(&Seen, usize) -> Option<Answer> + Send + Sync;

#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: HashMap<String, Vec<u8>>,
    /// By tag and by digest.
    pub(super) manifests: HashMap<String, (String, Vec<u8>)>,
    pub(super) uploads: HashMap<String, Vec<u8>>,
    /// Breaks the next upload after this many bytes of its body, which are kept.
    pub(super) break_upload: Option<usize>,
    /// Breaks the connection of every upload request with a longer body, as some proxies do.
    pub(super) max_body: Option<usize>,
    seen: Vec<Seen>,
}

/// A running registry; ends with the test's runtime.
pub(super) struct Fake {
    /// Host and port.
    pub(super) name: String,
    pub(super) state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(super) async fn honest() -> Self {
        Self::scripted(|_, _| None).await
    }

    pub(super) async fn scripted(
        script: impl Fn(&Seen, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback is there");
        let name = listener.local_addr().expect("bound").to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, script) = (state.clone(), Arc::new(script) as Arc<Script>);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), script.clone()));
            }
        });
        Self {
            name,
            state,
            server,
        }
    }

    pub(super) fn add_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        lock(&self.state)
            .blobs
            .insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub(super) fn add_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Digest {
        let (digest, entry) = (Digest::of(bytes), (media_type.to_owned(), bytes.to_vec()));
        let manifests = &mut lock(&self.state).manifests;
        manifests.insert(digest.to_string(), entry.clone());
        manifests.insert(tag.to_owned(), entry);
        digest
    }

    /// Returns the requests whose target has `part`, the first contact's left out.
    pub(super) fn seen(&self, method: &str, part: &str) -> Vec<Seen> {
        lock(&self.state)
            .seen
            .iter()
            .filter(|seen| seen.is(method, part))
            .cloned()
            .collect()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, script: Arc<Script>) {
    let mut stream = BufReader::new(stream);
    while let Some(mut seen) = read_head(&mut stream).await {
        let length: usize = seen.header("content-length").parse().unwrap_or(0);
        let uploads =
            matches!(seen.method.as_str(), "PUT" | "PATCH") && seen.target.contains("/uploads/");
        if uploads && lock(&state).max_body.is_some_and(|max| length > max) {
            let _ = stream.get_ref().set_zero_linger();
            return;
        }
        let broken = if uploads {
            lock(&state).break_upload.take()
        } else {
            None
        };
        if let Some(after) = broken {
            seen.body = vec![0; after.min(length)];
            let _ = stream.read_exact(&mut seen.body).await;
            let mut state = lock(&state);
            append(&mut state, &seen);
            state.seen.push(seen);
            let _ = stream.get_ref().set_zero_linger();
            return;
        }
        seen.body = vec![0; length];
        if stream.read_exact(&mut seen.body).await.is_err() {
            return;
        }
        let answer = {
            let mut state = lock(&state);
            let path = |seen: &Seen| {
                (
                    seen.method.clone(),
                    seen.target.split('?').next().map(str::to_owned),
                )
            };
            let before = state
                .seen
                .iter()
                .filter(|earlier| path(earlier) == path(&seen))
                .count();
            let answer = script(&seen, before).unwrap_or_else(|| honest(&mut state, &seen));
            state.seen.push(seen.clone());
            answer
        };
        if !write(&mut stream, &seen, answer).await {
            return;
        }
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        stream
            .read_until(b'\n', &mut line)
            .await
            .ok()
            .filter(|read| *read > 0)?;
        // A TLS greeting: not understood, as a plain HTTP server would have it.
        let line = String::from_utf8(line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut words = lines.first()?.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let pairs = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = pairs
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Some(Seen {
        method,
        target,
        headers,
        body: Vec::new(),
    })
}

/// Sends `answer`; whether the connection is still good.
async fn write(stream: &mut BufReader<TcpStream>, seen: &Seen, answer: Answer) -> bool {
    let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !answer
        .headers
        .iter()
        .any(|(name, _)| name == "content-length")
    {
        head.push_str(&format!("content-length: {}\r\n", answer.body.len()));
    }
    head.push_str("\r\n");
    let body = if seen.method == "HEAD" {
        &[][..]
    } else {
        &answer.body
    };
    let body = &body[..answer.cut.unwrap_or(body.len()).min(body.len())];
    let mut sent = stream.write_all(head.as_bytes()).await.is_ok();
    match answer.trickle {
        None => sent = sent && stream.write_all(body).await.is_ok(),
        Some(pause) => {
            for byte in body.chunks(1) {
                sent = sent && stream.write_all(byte).await.is_ok() && stream.flush().await.is_ok();
                if !sent {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
    let _ = stream.flush().await;
    sent && answer.cut.is_none()
}

fn honest(state: &mut State, seen: &Seen) -> Answer {
    let path = seen.target.split('?').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    match seen.method.as_str() {
        "GET" | "HEAD" if path == "/v2/" => answer(200),
        "GET" | "HEAD" if path.contains("/manifests/") => manifest(state, last),
        "GET" | "HEAD" if path.contains("/blobs/sha256:") => blob(state, last, seen),
        "PUT" if path.contains("/manifests/") => put_manifest(state, last, seen),
        "POST" => post_upload(state, seen),
        "PATCH" | "PUT" => continue_upload(state, seen),
        "GET" => match state.uploads.get(last) {
            Some(bytes) => progress_of(204, path, bytes.len()),
            None => error(404, "BLOB_UPLOAD_UNKNOWN"),
        },
        "DELETE" => {
            state.uploads.remove(last);
            answer(204)
        }
        _ => answer(405),
    }
}

pub(super) fn error(status: u16, code: &str) -> Answer {
    answer(status).body(format!(
        r#"{{"errors":[{{"code":"{code}","message":"said the fake"}}]}}"#
    ))
}

fn manifest(state: &State, name: &str) -> Answer {
    match state.manifests.get(name) {
        Some((media_type, bytes)) => answer(200)
            .header("content-type", media_type)
            .body(bytes.clone()),
        None => error(404, "MANIFEST_UNKNOWN"),
    }
}

fn blob(state: &State, name: &str, seen: &Seen) -> Answer {
    let Some(bytes) = state.blobs.get(name) else {
        return error(404, "BLOB_UNKNOWN");
    };
    let start = seen
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|text| text.strip_suffix('-')?.parse().ok());
    let start: usize = start.unwrap_or(0);
    if start == 0 {
        return answer(200).body(bytes.clone());
    }
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    answer(206)
        .header("content-range", range)
        .body(&bytes[start..])
}

fn put_manifest(state: &mut State, name: &str, seen: &Seen) -> Answer {
    let entry = (seen.header("content-type").to_owned(), seen.body.clone());
    state
        .manifests
        .insert(Digest::of(&seen.body).to_string(), entry.clone());
    state.manifests.insert(name.to_owned(), entry);
    answer(201)
}

fn post_upload(state: &mut State, seen: &Seen) -> Answer {
    if seen
        .query("mount")
        .is_some_and(|digest| state.blobs.contains_key(&digest))
    {
        return answer(201);
    }
    let id = format!("upload-{}", state.uploads.len());
    state.uploads.insert(id.clone(), Vec::new());
    answer(202).header("location", format!("{id}?_state=secret-state"))
}

fn append(state: &mut State, seen: &Seen) -> Option<String> {
    let path = seen.target.split('?').next()?;
    let id = path.rsplit('/').next()?.to_owned();
    state.uploads.get_mut(&id)?.extend(&seen.body);
    Some(id)
}

fn progress_of(status: u16, path: &str, len: usize) -> Answer {
    let range = format!("0-{}", len.saturating_sub(1));
    answer(status)
        .header("location", format!("{path}?_state=secret-state"))
        .header("range", range)
}

fn continue_upload(state: &mut State, seen: &Seen) -> Answer {
    let path = seen.target.split('?').next().unwrap_or_default();
    let at = path
        .rsplit('/')
        .next()
        .and_then(|id| state.uploads.get(id))
        .map_or(0, Vec::len);
    let start = seen
        .header("content-range")
        .split('-')
        .next()
        .and_then(|start| start.parse().ok());
    if start.is_some_and(|start: usize| start != at) {
        return error(416, "BLOB_UPLOAD_INVALID");
    }
    let Some(id) = append(state, seen) else {
        return error(404, "BLOB_UPLOAD_UNKNOWN");
    };
    if seen.method == "PATCH" {
        return progress_of(202, path, state.uploads[&id].len());
    }
    let bytes = state.uploads.remove(&id).unwrap_or_default();
    let digest = Digest::of(&bytes).to_string();
    if seen.query("digest").as_deref() != Some(&digest) {
        return error(400, "DIGEST_INVALID");
    }
    state.blobs.insert(digest.clone(), bytes);
    answer(201).header("docker-content-digest", digest)
}
