//! Digests, and the readers and writers that compute or check them.
//!
//! SHA-256 is the only algorithm: no registry in use serves another one, and a second would make every comparison of
//! digests a question. Knows nothing about what the bytes mean.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

pub(crate) use crate::hash_thread::ThreadedHasher;
pub use crate::verify::{VerifyError, VerifyingReader};

/// The name of exact bytes: their SHA-256.
///
/// Ordered by value. Written and read as `sha256:` and 64 lower-case hexadecimal digits.
///
/// Spec: image-spec `descriptor.md`, "Digests".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// A well-formed digest of an algorithm we do not compute.
    #[error("digest algorithm {algorithm:?} is not supported, only \"sha256\"")]
    UnsupportedAlgorithm {
        /// The part before the colon.
        algorithm: String,
    },
    /// Not a digest at all.
    #[error("{text:?} is not a digest (expected \"sha256:\" and 64 lower-case hexadecimal digits)")]
    Malformed {
        /// The text as given, cut to a printable length.
        text: String,
    },
}

/// The longest part of a malformed digest that is quoted in an error: the text may come from a hostile manifest.
const QUOTED_LEN: usize = 100;

impl Digest {
    /// The algorithm every digest of this type uses.
    pub const ALGORITHM: &'static str = "sha256";

    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Parses `sha256:<64 lower-case hex digits>`.
    ///
    /// # Errors
    ///
    /// - [`DigestError::UnsupportedAlgorithm`] names the algorithm of a well-formed foreign digest.
    /// - [`DigestError::Malformed`] for everything else.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let malformed = || DigestError::Malformed {
            text: text.chars().take(QUOTED_LEN).collect(),
        };
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm == Self::ALGORITHM {
            return Self::from_hex(hex).ok_or_else(malformed);
        }
        if is_algorithm(algorithm) && is_encoded(hex) {
            let algorithm = algorithm.to_owned();
            return Err(DigestError::UnsupportedAlgorithm { algorithm });
        }
        Err(malformed())
    }

    /// Returns the digest whose [`hex`](Self::hex) is `hex`, or `None` when that is not 64 lower-case digits.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Digest(bytes))
    }

    /// Returns the 64 hexadecimal digits, which is also the blob's file name in a layout.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
        self.0
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
            .collect()
    }

    /// Returns the 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn is_algorithm(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.split(['+', '.', '_', '-']).all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

fn is_encoded(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
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
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `bytes` at the end.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

/// Passes bytes on to a writer and computes their digest and number.
///
/// Only what the inner writer accepted is counted.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    written: u64,
}

impl<W> HashingWriter<W> {
    /// Wraps `inner`, which has seen no bytes yet as far as the digest is concerned.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            written: 0,
        }
    }

    /// Returns the writer, the digest of all bytes it got, and how many they were. Does not flush.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.written)
    }

    /// Returns the number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.inner.write(buf)?;
        self.hasher.update(&buf[..len]);
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Passes bytes on from a reader and computes their digest and number.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    read: u64,
}

impl<R> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
            read: 0,
        }
    }

    /// Returns the reader, the digest of the bytes read so far, and how many they were.
    ///
    /// A consumer that stops before the end (a tar reader stops at its end marker) must drain the reader first when
    /// it wants the digest of the whole stream.
    pub fn finish(self) -> (R, Digest, u64) {
        (self.inner, self.hasher.finish(), self.read)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        self.hasher.update(&buf[..len]);
        self.read += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY), Ok(Digest::of(b"")));
    }

    #[test]
    fn foreign_algorithms_are_refused_by_name() {
        for (text, algorithm) in [
            ("sha512:cf83", "sha512"),
            ("multihash+base58:QmRZ", "multihash+base58"),
            ("blake3:00", "blake3"),
        ] {
            let error = Digest::parse(text).unwrap_err();
            assert_eq!(
                error,
                DigestError::UnsupportedAlgorithm {
                    algorithm: algorithm.to_owned()
                }
            );
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let long = format!("{EMPTY}0");
        for text in [
            "",
            ":",
            "sha256:",
            "sha256",
            "sha256:../../etc/passwd",
            "SHA256:00",
            &upper,
            &long,
            "sha512:",
        ] {
            let error = Digest::parse(text).unwrap_err();
            assert!(
                matches!(error, DigestError::Malformed { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_message() {
        let message = Digest::parse("sha256:\u{1b}[2J").unwrap_err().to_string();
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }

    #[test]
    fn digest_is_a_json_string() {
        let json = serde_json::to_string(&Digest::of(b"")).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(
            serde_json::from_str::<Digest>(&json).unwrap(),
            Digest::of(b"")
        );
        assert!(serde_json::from_str::<Digest>("\"md5:00\"").is_err());
    }

    proptest! {
        #[test]
        fn every_digest_survives_its_text(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
            prop_assert_eq!(Digest::from_hex(&digest.hex()), Some(digest));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = Digest::parse(&text);
        }

        #[test]
        fn hashing_does_not_depend_on_the_pieces(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..20), repeat in 1usize..60) {
            let whole: Vec<u8> = pieces.concat().repeat(repeat);
            let mut writer = HashingWriter::new(io::sink());
            let mut threaded = ThreadedHasher::new();
            for _ in 0..repeat {
                for piece in &pieces {
                    writer.write_all(piece).unwrap();
                    threaded.update(piece).unwrap();
                }
            }
            let (_, digest, written) = writer.finish();
            prop_assert_eq!(digest, Digest::of(&whole));
            prop_assert_eq!(written, whole.len() as u64);
            prop_assert_eq!(threaded.finish().unwrap(), digest);
        }
    }
}
