//! Tells what a failed exchange means: no connection, no trust, or a break.

use std::error::Error;

use super::body::{Payload, SourceFailed};
use super::error::{RegistryError, RequestLine};

/// Makes the error of a request that got no answer.
pub(super) fn classify(
    request: RequestLine,
    error: reqwest::Error,
    payload: &Payload,
) -> RegistryError {
    if let (Payload::File(slice), Some(failed)) = (payload, cause::<SourceFailed>(&error)) {
        return RegistryError::File {
            path: slice.path.to_path_buf(),
            source: failed.to_io(),
        };
    }
    let source = Box::new(error.without_url());
    if cause::<rustls::Error>(&*source).is_some() || source.is_builder() {
        return RegistryError::Tls { request, source };
    }
    match source.is_connect() {
        true => RegistryError::Connect { request, source },
        false => RegistryError::Interrupted { request, source },
    }
}

/// Whether plain HTTP may be spoken where HTTPS failed with `error`: the other side broke off, answered TLS with something
/// else, or we know no authorities and could not even ask.
pub(super) fn answers_without_tls(error: &RegistryError) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        RegistryError::Tls { source, .. } => {
            let strange = cause::<rustls::Error>(&**source);
            source.is_builder() || matches!(strange, Some(rustls::Error::InvalidMessage(_)))
        }
        RegistryError::Connect { source, .. } => causes(&**source).any(|error| {
            let kind = error
                .downcast_ref::<std::io::Error>()
                .map(std::io::Error::kind);
            matches!(
                kind,
                Some(ConnectionAborted | ConnectionReset | UnexpectedEof)
            )
        }),
        _ => false,
    }
}

/// Finds the first error of type `T` in `error` and its causes.
fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns `error` and its causes, what I/O errors wrap included.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        // An I/O error's `source` is that of the error it wraps, so the wrapped one has to be asked for.
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}
