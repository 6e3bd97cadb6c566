//! An answer whose head has arrived: checked access to its headers, bounded access to its body.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{StatusCode, Url};
use tokio::sync::OwnedSemaphorePermit;

use super::error::{Refusal, RegistryError, RequestLine};
use super::retry::retry_after;
use crate::pace::{Answer, Fault};

/// The most of an error's body to read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// An answer; holds one of its host's connections until dropped.
pub(super) struct Reply {
    request: RequestLine,
    url: Url,
    answer: Answer,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    pub(super) fn new(
        request: RequestLine,
        url: Url,
        answer: Answer,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            request,
            url,
            answer,
            _permit: permit,
        }
    }

    /// Returns the URL that gave this answer, after redirects.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn status(&self) -> StatusCode {
        self.answer.head.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.answer.head.headers()
    }

    /// Returns a header's text; `None` as well for one that is not printable ASCII.
    pub(super) fn text(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Returns the URL in header `name`, which may be relative to the request's.
    pub(super) fn location(&self, name: HeaderName) -> Result<Url, RegistryError> {
        let value = self
            .text(&name)
            .ok_or_else(|| self.protocol(format!("its answer has no `{name}`")))?;
        self.url
            .join(value)
            .map_err(|_| self.protocol(format!("its answer's `{name}` is no URL")))
    }

    pub(super) fn protocol(&self, problem: String) -> RegistryError {
        RegistryError::Protocol {
            request: self.request.clone(),
            problem,
        }
    }

    /// Returns the next piece of the body, `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        self.answer.chunk().await.map_err(|fault| match fault {
            Fault::Stalled(how) => RegistryError::Stalled {
                request: self.request.clone(),
                how,
            },
            Fault::Http(source) => RegistryError::Interrupted {
                request: self.request.clone(),
                source: Box::new(source),
            },
        })
    }

    /// Reads the whole body, which may have at most `limit` bytes.
    pub(super) async fn body(mut self, limit: usize) -> Result<Bytes, RegistryError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(self.protocol(format!("its answer is longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    /// Turns an answer with an unwelcome status into an error.
    ///
    /// 401 and 403 come back as `Refused`: only the caller knows which credentials were in play.
    pub(super) async fn into_error(mut self) -> RegistryError {
        let body = self.start_of_body().await;
        let status = self.status();
        let wait = retry_after(self.headers(), SystemTime::now());
        let refusal = Box::new(Refusal::new(self.request, status, &body));
        match status {
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited {
                refusal,
                retry_after: wait,
            },
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => RegistryError::RateLimited {
                refusal,
                retry_after: wait,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound(refusal),
            _ => RegistryError::Refused(refusal),
        }
    }

    /// Reads as much of the body as an error message needs; a broken one loses its rest, not the status.
    async fn start_of_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = self.chunk().await {
            let take = chunk.len().min(MAX_REFUSAL - body.len());
            body.extend_from_slice(&chunk[..take]);
            if body.len() == MAX_REFUSAL {
                break;
            }
        }
        body
    }
}
