//! Fetches blobs into files: resumed, repeated, and checked before anyone uses them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::client::{Place, Registry};
use super::config::Endpoint;
use super::error::RegistryError;
use super::reference::Reference;
use super::reply::Reply;
use super::transport::Call;
use super::wait::Progress;
use kfactory_layers::digest::{Digest, Hasher};

/// Received pieces that wait for the disk; each has at most some 400 KiB, so eight downloads hold some 25 MiB.
const PIECES_AHEAD: usize = 8;

/// A try that moved the blob forward by this many bytes does not count as failed, so that a link that breaks now and
/// then does not end a large download.
const WORTHWHILE: u64 = 4 * 1024 * 1024;

/// The largest blob fetched into memory, in bytes.
const MAX_SMALL_BLOB: u64 = 32 * 1024 * 1024;

impl Registry {
    /// Fetches a blob of `reference`'s repository into the file `dest`, which is made if it is not there.
    ///
    /// Bytes that `dest` holds already are taken as the start of the blob and not fetched again; a broken transfer
    /// goes on where it stopped. `progress` is called with the bytes in hand, which may go down when a resumed
    /// download turns out to have started from other bytes. `dest` is complete and checked on success only.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::DigestMismatch`], [`RegistryError::SizeMismatch`]: the registry sent other bytes; `dest` is
    ///   left empty, as nothing in it can be trusted.
    /// - [`RegistryError::Write`]: `dest` could not be written.
    /// - as [`fetch_manifest`](Self::fetch_manifest) otherwise; `dest` keeps what came, for the next call.
    ///
    /// Spec: distribution-spec, "Pulling blobs".
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        dest: &Path,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let mut endpoints = self.endpoints(reference)?;
        loop {
            let outcome = match self.pull_place(endpoints.current()).await {
                Ok(place) => {
                    Download {
                        registry: self,
                        place: &place,
                        digest,
                        size,
                        dest,
                        progress,
                    }
                    .run()
                    .await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) => endpoints.failed(error)?,
            }
        }
    }

    /// Fetches a small blob, as a config, of `reference`'s repository into memory.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::SizeMismatch`]: the blob is longer or shorter than `size`.
    /// - [`RegistryError::Protocol`]: `size` is more than 32 MiB; such blobs belong in a file.
    /// - [`RegistryError::DigestMismatch`], and as [`fetch_manifest`](Self::fetch_manifest).
    pub async fn fetch_blob_bytes(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, RegistryError> {
        let mut endpoints = self.endpoints(reference)?;
        loop {
            match self.small_blob_at(endpoints.current(), digest, size).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => endpoints.failed(error)?,
            }
        }
    }

    async fn small_blob_at(
        &self,
        endpoint: &Endpoint,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, RegistryError> {
        let place = self.pull_place(endpoint).await?;
        let mut tries = self.tries();
        loop {
            match self.small_blob(&place, digest, size).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => tries.failed(error).await?,
            }
        }
    }

    async fn small_blob(
        &self,
        place: &Place,
        digest: &Digest,
        size: u64,
    ) -> Result<Bytes, RegistryError> {
        let call = blob_call(place, digest, 0);
        let reply = self.ask_once(place, &call, &[StatusCode::OK]).await?;
        if size > MAX_SMALL_BLOB {
            return Err(reply.protocol(format!(
                "{size} bytes are too many for a blob kept in memory"
            )));
        }
        let what = format!("blob {digest}");
        check_stated_size(&what, &reply, size)?;
        let bytes = reply.body(size as usize).await?;
        let found = Digest::of(&bytes);
        if bytes.len() as u64 != size {
            return Err(RegistryError::SizeMismatch {
                what,
                expected: size,
                found: bytes.len() as u64,
            });
        }
        if found != *digest {
            return Err(RegistryError::DigestMismatch {
                what,
                expected: *digest,
                found,
            });
        }
        Ok(bytes)
    }
}

/// One blob on its way from one endpoint into one file.
struct Download<'a> {
    registry: &'a Registry,
    place: &'a Place,
    digest: &'a Digest,
    size: u64,
    dest: &'a Path,
    progress: Progress<'a>,
}

impl Download<'_> {
    async fn run(&self) -> Result<(), RegistryError> {
        let (path, size) = (self.dest.to_owned(), self.size);
        let mut sink = blocking(move || Sink::open(&path, size))
            .await
            .map_err(|error| self.disk(error))?;
        let inherited = sink.len > 0;
        (self.progress)(sink.len);
        sink = self.fill(sink).await?;
        if inherited && sink.digest() != *self.digest {
            // What an earlier run left was not the start of this blob, so the whole is fetched once.
            sink = self.restart(sink).await?;
            sink = self.fill(sink).await?;
        }
        self.check(sink).await
    }

    /// Fetches what is missing, over as many tries as it takes and is allowed.
    async fn fill(&self, mut sink: Sink) -> Result<Sink, RegistryError> {
        let mut tries = self.registry.tries();
        let mut furthest = sink.len;
        while sink.len < self.size {
            let (returned, outcome) = self.attempt(sink).await?;
            sink = returned;
            // An answer may also end early without a word.
            let error = match outcome {
                Ok(()) if sink.len == self.size => break,
                Ok(()) => self.wrong_size(sink.len),
                Err(error) => error,
            };
            // Further than ever: starting over again and again must end.
            if sink.len >= furthest + WORTHWHILE {
                furthest = sink.len;
                tries.moved_on();
            }
            tries.failed(error).await?;
        }
        Ok(sink)
    }

    /// Asks once for what is missing. The outer error is final; the inner one is for the caller to judge.
    async fn attempt(
        &self,
        sink: Sink,
    ) -> Result<(Sink, Result<(), RegistryError>), RegistryError> {
        let call = blob_call(self.place, self.digest, sink.len);
        let wanted = [
            StatusCode::OK,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::RANGE_NOT_SATISFIABLE,
        ];
        let reply = match self.registry.ask_once(self.place, &call, &wanted).await {
            Ok(reply) => reply,
            Err(error) => return Ok((sink, Err(error))),
        };
        if sink.len > 0 && !continues_at(&reply, sink.len) {
            let fits = reply.status() == StatusCode::OK;
            let sink = self.restart(sink).await?;
            // The registry has no ranges and sent the whole, or refuses this one; then the next try asks for the whole.
            return if fits {
                self.receive(sink, reply).await
            } else {
                Ok((sink, Ok(())))
            };
        }
        if reply.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok((sink, Err(reply.into_error().await)));
        }
        self.receive(sink, reply).await
    }

    /// Writes an answer's body behind what `sink` has.
    async fn receive(
        &self,
        sink: Sink,
        mut reply: Reply,
    ) -> Result<(Sink, Result<(), RegistryError>), RegistryError> {
        let mut received = sink.len;
        check_stated_size(&self.what(), &reply, self.size - received)?;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let writer = spawn_blocking(move || sink.drain(receiver));
        let mut outcome = Ok(());
        loop {
            let piece = match reply.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            received += piece.len() as u64;
            if received > self.size {
                outcome = Err(self.wrong_size(received));
                break;
            }
            // A closed channel means the disk failed; the writer says how.
            if sender.send(piece).await.is_err() {
                break;
            }
            (self.progress)(received);
        }
        drop(sender);
        let sink = writer
            .await
            .expect("writing does not panic")
            .map_err(|error| self.disk(error))?;
        match outcome {
            Err(error @ RegistryError::SizeMismatch { .. }) => {
                self.restart(sink).await?;
                Err(error)
            }
            outcome => Ok((sink, outcome)),
        }
    }

    async fn check(&self, sink: Sink) -> Result<(), RegistryError> {
        let found = sink.digest();
        if found == *self.digest {
            return Ok(());
        }
        self.restart(sink).await?;
        Err(RegistryError::DigestMismatch {
            what: self.what(),
            expected: *self.digest,
            found,
        })
    }

    async fn restart(&self, mut sink: Sink) -> Result<Sink, RegistryError> {
        let sink = blocking(move || sink.restart().map(|()| sink))
            .await
            .map_err(|error| self.disk(error))?;
        (self.progress)(0);
        Ok(sink)
    }

    fn what(&self) -> String {
        format!(
            "blob {} of {}/{}",
            self.digest, self.place.registry, self.place.repository
        )
    }

    fn wrong_size(&self, found: u64) -> RegistryError {
        RegistryError::SizeMismatch {
            what: self.what(),
            expected: self.size,
            found,
        }
    }

    fn disk(&self, source: std::io::Error) -> RegistryError {
        RegistryError::Write {
            path: self.dest.to_owned(),
            source,
        }
    }
}

/// A file with the hash of what is in it.
struct Sink {
    file: File,
    hasher: Hasher,
    len: u64,
}

impl Sink {
    /// Opens `path` and hashes what it holds; more than `size` bytes cannot be the start of the blob and are dropped.
    fn open(path: &Path, size: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let len = file.metadata()?.len();
        let mut sink = Self {
            file,
            hasher: Hasher::new(),
            len,
        };
        if len > size {
            sink.restart()?;
            return Ok(sink);
        }
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match sink.file.read(&mut buffer)? {
                0 => return Ok(sink),
                read => sink.hasher.update(&buffer[..read]),
            }
        }
    }

    fn restart(&mut self) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new();
        self.len = 0;
        Ok(())
    }

    /// Writes and hashes pieces until the channel closes, beside the network rather than between its reads.
    fn drain(mut self, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<Self> {
        while let Some(piece) = pieces.blocking_recv() {
            self.file.write_all(&piece)?;
            self.hasher.update(&piece);
            self.len += piece.len() as u64;
        }
        Ok(self)
    }

    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    spawn_blocking(work)
        .await
        .expect("file work does not panic")
}

fn blob_call(place: &Place, digest: &Digest, from: u64) -> Call<'static> {
    let mut call = Call::new(Method::GET, place.url(&format!("blobs/{digest}")));
    // A proxy that compresses would change length and ranges.
    call.headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if from > 0 {
        let range = HeaderValue::from_str(&format!("bytes={from}-")).expect("digits are ASCII");
        call.headers.insert(RANGE, range);
    }
    call
}

/// Whether the answer's body starts at byte `from` of the blob.
fn continues_at(reply: &Reply, from: u64) -> bool {
    let start = reply
        .text(CONTENT_RANGE)
        .and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    reply.status() == StatusCode::PARTIAL_CONTENT && start == Some(from)
}

/// Refuses an answer whose stated length cannot be right, before its body is read.
fn check_stated_size(what: &str, reply: &Reply, expected: u64) -> Result<(), RegistryError> {
    let stated = reply
        .text(CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    match stated {
        Some(found) if found > expected => Err(RegistryError::SizeMismatch {
            what: what.to_owned(),
            expected,
            found,
        }),
        // A shorter one may be a proxy's broken copy; asking again continues behind it.
        _ => Ok(()),
    }
}
