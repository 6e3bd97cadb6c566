//! Upload sessions: start, send the whole or pieces, ask how far it came, cancel.
//!
//! Spec: distribution-spec, "Pushing blobs".

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::body::BlobSource;
use super::client::{Place, Registry};
use super::error::RegistryError;
use super::pull::DIGEST_HEADER;
use super::reply::Reply;
use super::transport::Call;
use super::wait::Progress;
use kfactory_layers::digest::Digest;

/// The size of a piece where one request for all is refused. Some registries take no larger ones.
const CHUNK_SIZE: u64 = 4 * 1024 * 1024;

/// The header with the smallest piece, but for the last, that a registry takes.
const MIN_CHUNK_HEADER: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Failures in one request after which pieces are tried: something on the way may not let large bodies pass.
const FAILURES_BEFORE_PIECES: u32 = 2;

/// An upload that a registry has opened.
pub(super) struct Session {
    location: Url,
    /// Bytes the registry has.
    offset: u64,
    min_chunk: u64,
}

/// One blob on its way to one repository.
pub(super) struct Upload<'a> {
    pub(super) registry: &'a Registry,
    pub(super) place: &'a Place,
    pub(super) digest: &'a Digest,
    pub(super) size: u64,
    pub(super) source: &'a BlobSource,
    pub(super) progress: Progress<'a>,
}

impl Registry {
    /// Opens an upload.
    pub(super) async fn start_upload(&self, place: &Place) -> Result<Session, RegistryError> {
        let call = Call::new(Method::POST, place.url("blobs/uploads/"));
        let reply = self.ask(place, &call, &[StatusCode::ACCEPTED]).await?;
        self.session(&call, &reply, 0)
    }

    /// Asks to take the blob from repository `from`; the outcome is an upload to fill where that is not granted.
    pub(super) async fn start_mount(
        &self,
        place: &Place,
        digest: &Digest,
        from: &str,
    ) -> Result<Option<Session>, RegistryError> {
        let mut url = place.url("blobs/uploads/");
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from);
        let call = Call::new(Method::POST, url);
        let reply = self
            .ask(place, &call, &[StatusCode::CREATED, StatusCode::ACCEPTED])
            .await?;
        if reply.status() == StatusCode::CREATED {
            return Ok(None);
        }
        self.session(&call, &reply, 0).map(Some)
    }

    /// Gives up an upload. Registries drop forgotten ones after a time, so a refusal does not matter.
    pub(super) async fn cancel_upload(&self, place: &Place, session: Session) {
        let call = Call::new(Method::DELETE, session.location);
        let _ = self
            .ask_once(
                place,
                &call,
                &[StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED],
            )
            .await;
    }

    fn session(
        &self,
        call: &Call<'_>,
        reply: &Reply,
        offset: u64,
    ) -> Result<Session, RegistryError> {
        let location = reply.location(LOCATION)?;
        let location = self.transport().check_descent(call, reply, location)?;
        let min_chunk = reply
            .text(MIN_CHUNK_HEADER)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Ok(Session {
            location,
            offset,
            min_chunk,
        })
    }
}

impl Upload<'_> {
    /// Uploads the blob, in `session` if there is one.
    pub(super) async fn run(&self, session: Option<Session>) -> Result<(), RegistryError> {
        let mut pieces = self.registry.chunk_size().is_some();
        let mut tries = self.registry.tries();
        let (mut next, mut furthest) = (session, 0);
        loop {
            let mut session = match next.take() {
                Some(session) => session,
                None => self.registry.start_upload(self.place).await?,
            };
            let error = match self.send(&mut session, pieces).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !pieces && refuses_whole(&error) {
                pieces = true;
                self.registry.cancel_upload(self.place, session).await;
                continue;
            }
            // Further than ever: starting over again and again must end.
            if session.offset > furthest {
                furthest = session.offset;
                tries.moved_on();
            }
            let lost = session.offset > 0 && is_lost(&error);
            let verdict = if lost {
                tries.lost(error)
            } else {
                tries.failed(error).await
            };
            if let Err(error) = verdict {
                self.registry.cancel_upload(self.place, session).await;
                return Err(error);
            }
            pieces = pieces || tries.count() >= FAILURES_BEFORE_PIECES;
            next = if lost {
                None
            } else {
                self.status(&session).await
            };
        }
    }

    async fn send(&self, session: &mut Session, pieces: bool) -> Result<(), RegistryError> {
        if pieces || session.offset > 0 {
            self.send_pieces(session).await?;
            return self.finish(session, 0).await;
        }
        self.finish(session, self.size).await
    }

    /// Sends pieces until the registry has all bytes.
    async fn send_pieces(&self, session: &mut Session) -> Result<(), RegistryError> {
        let wanted = self.registry.chunk_size().unwrap_or(CHUNK_SIZE).max(1);
        while session.offset < self.size {
            let len = wanted
                .max(session.min_chunk)
                .min(self.size - session.offset);
            let (start, end) = (session.offset, session.offset + len);
            let mut call = self.call(Method::PATCH, session.location.clone(), start, len);
            let range =
                HeaderValue::from_str(&format!("{start}-{}", end - 1)).expect("digits are ASCII");
            call.headers.insert(CONTENT_RANGE, range);
            let reply = self
                .registry
                .ask_once(self.place, &call, &[StatusCode::ACCEPTED])
                .await?;
            let has = received(&reply).unwrap_or(end);
            if has <= start || has > end {
                return Err(reply.protocol(format!(
                    "it says that it has {has} bytes after being sent {start} to {end}"
                )));
            }
            let min_chunk = session.min_chunk;
            *session = self.registry.session(&call, &reply, has)?;
            session.min_chunk = session.min_chunk.max(min_chunk);
            (self.progress)(has);
        }
        Ok(())
    }

    /// Ends the session with its last `len` bytes, and names the blob.
    async fn finish(&self, session: &Session, len: u64) -> Result<(), RegistryError> {
        let mut url = session.location.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        let call = self.call(Method::PUT, url, session.offset, len);
        let wanted = [StatusCode::CREATED, StatusCode::OK, StatusCode::NO_CONTENT];
        let reply = self.registry.ask_once(self.place, &call, &wanted).await?;
        let stored = reply
            .text(DIGEST_HEADER)
            .and_then(|text| Digest::parse(text).ok());
        match stored.filter(|stored| stored != self.digest) {
            Some(found) => Err(RegistryError::DigestMismatch {
                what: format!(
                    "blob stored in {}/{}",
                    self.place.registry, self.place.repository
                ),
                expected: *self.digest,
                found,
            }),
            None => {
                (self.progress)(self.size);
                Ok(())
            }
        }
    }

    fn call(&self, method: Method, url: Url, start: u64, len: u64) -> Call<'_> {
        let mut call = Call::new(method, url);
        call.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        call.payload = self.source.slice(start, len);
        call.progress = Some(self.progress);
        call
    }

    /// Asks how far a broken upload came; `None` where it has to start anew.
    async fn status(&self, session: &Session) -> Option<Session> {
        let call = Call::new(Method::GET, session.location.clone());
        let reply = self
            .registry
            .ask_once(self.place, &call, &[StatusCode::NO_CONTENT])
            .await
            .ok()?;
        let offset = received(&reply).filter(|offset| (1..=self.size).contains(offset))?;
        let mut fresh = match reply.text(LOCATION) {
            Some(_) => self.registry.session(&call, &reply, offset).ok()?,
            None => Session {
                location: session.location.clone(),
                offset,
                min_chunk: 0,
            },
        };
        fresh.min_chunk = fresh.min_chunk.max(session.min_chunk);
        Some(fresh)
    }
}

/// Reads how many bytes a registry says it has. `0-0` is what some say about none, so it counts as none.
fn received(reply: &Reply) -> Option<u64> {
    let text = reply.text(RANGE)?;
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let last: u64 = text.strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

/// Whether `error` says that the blob is too much for one request, or that only pieces are taken.
fn refuses_whole(error: &RegistryError) -> bool {
    let RegistryError::Refused(refusal) = error else {
        return false;
    };
    matches!(refusal.status, 405 | 411 | 413 | 501)
        || refusal.has_code(&["UNSUPPORTED", "SIZE_INVALID"])
}

/// Whether `error` says that a resumed session is gone, or elsewhere than the registry said before.
fn is_lost(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound(_) => true,
        RegistryError::Refused(refusal) => {
            refusal.status == 416
                || refusal.has_code(&["BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN"])
        }
        _ => false,
    }
}
