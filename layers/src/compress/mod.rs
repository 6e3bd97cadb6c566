//! Compression of layers, in both directions.
//!
//! Decoding looks at the first bytes, never at a media type: registries hold blobs whose media type is wrong. Encoding
//! uses all cores, and its output depends on the input and the level only, not on how many cores there were or in which
//! pieces the input came. It does depend on the versions of the compression libraries, which `Cargo.lock` pins.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::media_type;

pub use decode::{Format, FormatError, PROBE_LEN, decoder};
pub use encode::{Encoder, MAX_THREADS, default_threads};

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which every consumer of images reads.
    Gzip {
        /// 1 (fastest) to 12 (smallest), in libdeflate's scale.
        level: u8,
    },
    /// zstd: several times faster than gzip and smaller, for consumers from 2020 or later.
    Zstd {
        /// 1 (fastest) to 19 (smallest).
        level: u8,
    },
}

/// Text that names no compression we have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a compression (expected none, gzip, gzip:1 to gzip:12, zstd, or zstd:1 to zstd:19)"
)]
pub struct CompressionError {
    /// The text as given.
    pub text: String,
}

impl Compression {
    /// gzip at level 4: as fast as 2 and 3 and smaller; within 1 % of what `gzip -6` makes in three times the CPU time.
    pub const GZIP: Compression = Compression::Gzip { level: 4 };
    /// zstd at its own default level.
    pub const ZSTD: Compression = Compression::Zstd { level: 3 };

    /// Returns the OCI media type of a layer compressed this way.
    pub fn layer_media_type(&self) -> &'static str {
        match self {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip { .. } => media_type::OCI_LAYER_GZIP,
            Compression::Zstd { .. } => media_type::OCI_LAYER_ZSTD,
        }
    }

    fn parse(text: &str) -> Option<Compression> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u8>().ok()?)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Some(Compression::None),
            ("gzip", None) => Some(Self::GZIP),
            ("zstd", None) => Some(Self::ZSTD),
            ("gzip", Some(level @ 1..=12)) => Some(Compression::Gzip { level }),
            ("zstd", Some(level @ 1..=19)) => Some(Compression::Zstd { level }),
            _ => None,
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::GZIP
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| CompressionError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Gzip { level } => write!(f, "gzip:{level}"),
            Compression::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

impl TryFrom<String> for Compression {
    type Error = CompressionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        compression.to_string()
    }
}
