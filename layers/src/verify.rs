//! The one reader every blob passes through: it fails unless the bytes are those the descriptor names.

use std::io::{self, Read};

use crate::digest::{Digest, Hasher};

/// How the bytes of a blob differ from what its descriptor promised.
///
/// Travels inside an [`io::Error`] of kind `InvalidData`; [`VerifyError::in_io`] finds it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The size is right and the content is not.
    #[error("blob {expected} has the digest {found}")]
    Digest {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes that came.
        found: Digest,
    },
    /// The source ended early.
    #[error("blob {digest} ended after {found} bytes, expected {expected} bytes")]
    TooShort {
        /// The blob.
        digest: Digest,
        /// The size promised, in bytes.
        expected: u64,
        /// The bytes that came.
        found: u64,
    },
    /// The source went on after the promised size.
    #[error("blob {digest} is longer than the expected {expected} bytes")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// The size promised, in bytes.
        expected: u64,
    },
}

impl VerifyError {
    /// Returns the verification failure inside `error`, if that is what it is.
    pub fn in_io(error: &io::Error) -> Option<&VerifyError> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<VerifyError> for io::Error {
    fn from(error: VerifyError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Passes a blob on and fails unless it has exactly the promised digest and size.
///
/// The digest is checked *before* the last bytes are handed over, so a consumer that reads the promised size and never
/// asks for the end of the file is protected too. What comes before those last bytes is not verified yet when it is
/// handed over: do not act on a blob for good before it was read to its end (see [`finish`](Self::finish)). More bytes
/// than promised are an error when the end is asked for. An error repeats on every later read.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    expected: Digest,
    size: u64,
    read: u64,
    state: VerifyState,
}

#[derive(Debug)]
enum VerifyState {
    Reading(Hasher),
    Content,
    Done,
    Failed(VerifyError),
}

impl<R: Read> VerifyingReader<R> {
    /// Wraps `inner`, which must yield exactly `size` bytes with the digest `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self {
            inner,
            expected,
            size,
            read: 0,
            state: VerifyState::Reading(Hasher::new()),
        }
    }

    /// Reads what is left, discards it, and returns the inner reader when all of the blob was right.
    ///
    /// # Errors
    ///
    /// A [`VerifyError`] in an [`io::Error`], or the inner reader's own error.
    pub fn finish(mut self) -> io::Result<R> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.inner)
    }

    /// Returns whether the whole blob was read and found right.
    pub fn is_verified(&self) -> bool {
        matches!(self.state, VerifyState::Done)
    }

    fn fail(&mut self, error: VerifyError) -> io::Error {
        self.state = VerifyState::Failed(error);
        error.into()
    }

    fn check_digest(&mut self, hasher: Hasher) -> io::Result<()> {
        let found = hasher.finish();
        if found == self.expected {
            self.state = VerifyState::Content;
            return Ok(());
        }
        let expected = self.expected;
        // A descriptor with too small a size is wrong in that, not in its digest.
        let goes_on = matches!(self.inner.read(&mut [0]), Ok(1..));
        Err(self.fail(if goes_on {
            VerifyError::TooLong {
                digest: expected,
                expected: self.size,
            }
        } else {
            VerifyError::Digest { expected, found }
        }))
    }

    fn read_content(&mut self, mut hasher: Hasher, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.read;
        if left > 0 {
            let most = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            let len = match self.inner.read(&mut buf[..most]) {
                Ok(len) => len,
                Err(error) => {
                    self.state = VerifyState::Reading(hasher);
                    return Err(error);
                }
            };
            if len == 0 {
                return Err(self.fail(VerifyError::TooShort {
                    digest: self.expected,
                    expected: self.size,
                    found: self.read,
                }));
            }
            hasher.update(&buf[..len]);
            self.read += len as u64;
            if self.read < self.size {
                self.state = VerifyState::Reading(hasher);
            } else {
                self.check_digest(hasher)?;
            }
            return Ok(len);
        }
        self.check_digest(hasher)?;
        self.read_end()
    }

    fn read_end(&mut self) -> io::Result<usize> {
        let mut byte = [0];
        if self.inner.read(&mut byte)? > 0 {
            return Err(self.fail(VerifyError::TooLong {
                digest: self.expected,
                expected: self.size,
            }));
        }
        self.state = VerifyState::Done;
        Ok(0)
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match std::mem::replace(&mut self.state, VerifyState::Content) {
            VerifyState::Reading(hasher) => self.read_content(hasher, buf),
            VerifyState::Content => self.read_end(),
            VerifyState::Done => {
                self.state = VerifyState::Done;
                Ok(0)
            }
            VerifyState::Failed(error) => Err(self.fail(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(content: &[u8], digest: Digest, size: u64) -> Result<Vec<u8>, VerifyError> {
        let mut out = Vec::new();
        let mut reader = VerifyingReader::new(content, digest, size);
        match reader.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => {
                let again = reader.read(&mut [0]).unwrap_err();
                assert_eq!(
                    VerifyError::in_io(&again),
                    VerifyError::in_io(&error),
                    "an error must repeat"
                );
                Err(*VerifyError::in_io(&error).expect("a verification error"))
            }
        }
    }

    #[test]
    fn right_content_passes_the_verifying_reader() {
        for content in [&b""[..], b"x", &[7; 100_000]] {
            let size = content.len() as u64;
            assert_eq!(verify(content, Digest::of(content), size).unwrap(), content);
        }
    }

    #[test]
    fn wrong_content_and_wrong_sizes_are_errors() {
        let digest = Digest::of(b"hello");
        assert!(matches!(
            verify(b"hellO", digest, 5),
            Err(VerifyError::Digest { .. })
        ));
        assert!(matches!(
            verify(b"hell", digest, 5),
            Err(VerifyError::TooShort { found: 4, .. })
        ));
        assert!(matches!(
            verify(b"hello!", digest, 5),
            Err(VerifyError::TooLong { .. })
        ));
        assert!(matches!(
            verify(b"hello", digest, 3),
            Err(VerifyError::TooLong { .. })
        ));
        assert!(matches!(
            verify(b"", digest, 0),
            Err(VerifyError::Digest { .. })
        ));
        assert!(matches!(
            verify(b"x", Digest::of(b""), 0),
            Err(VerifyError::TooLong { .. })
        ));
    }

    #[test]
    fn wrong_content_is_refused_even_when_the_end_is_never_asked_for() {
        let mut reader = VerifyingReader::new(&b"hellO"[..], Digest::of(b"hello"), 5);
        let mut buf = [0; 5];
        let error = reader.read_exact(&mut buf).unwrap_err();
        assert!(VerifyError::in_io(&error).is_some());
        assert!(!reader.is_verified());
    }

    #[test]
    fn finish_checks_what_was_not_read() {
        let mut reader = VerifyingReader::new(&b"hello!"[..], Digest::of(b"hello"), 5);
        reader.read_exact(&mut [0; 5]).unwrap();
        assert!(reader.finish().is_err());
    }
}
