//! Names bytes by their hash, and computes such names as bytes stream past.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// The SHA-256 digest of exact bytes, written `sha256:` and 64 lower-case hexadecimal digits.
///
/// Spec: image-spec `descriptor.md`, "Digests".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The text is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("{text:?} is not a digest (expected \"sha256:\" and 64 lower-case hexadecimal digits)")]
    Malformed {
        /// The text as given.
        text: String,
    },
}

impl Digest {
    /// Reads a digest.
    ///
    /// # Errors
    ///
    /// [`DigestError::Malformed`], also for other algorithms.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        Self::parse_opt(text).ok_or_else(|| DigestError::Malformed {
            text: text.to_owned(),
        })
    }

    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    fn parse_opt(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let fits = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)).filter(|_| fits) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        fits.then_some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub(super) struct Hasher(sha2::Sha256);

impl Hasher {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}
