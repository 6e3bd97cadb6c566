//! Compression of layers, in both directions.
//!
//! Decoding looks at the first bytes, never at a media type: registries hold blobs whose media type is wrong. Encoding
//! uses all cores, and its output depends on the input and the level only, not on how many cores there were or in which
//! pieces the input came. It does depend on the versions of the compression libraries, which `Cargo.lock` pins.

use std::fmt;
use std::io::{self, Cursor, Read, Write};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use tar_core::Header;

use crate::gzip::GzipEncoder;
use crate::media_type;

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
    /// gzip at the level where a layer is about as small as the gzip program makes it, several times faster.
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

/// What a stream's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An uncompressed tar archive, or nothing at all.
    Tar,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// A stream that is neither a tar archive nor compressed in a way we read.
///
/// Travels inside an [`io::Error`] of kind `InvalidData`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("layer is not a tar archive, gzip or zstd ({what})")]
pub struct FormatError {
    what: &'static str,
}

/// Bytes needed to recognise a format: one tar header.
pub const PROBE_LEN: usize = 512;

impl Format {
    /// Recognises a format by the first [`PROBE_LEN`] bytes, or all of a shorter stream.
    ///
    /// # Errors
    ///
    /// [`FormatError`] names what it looks like instead.
    pub fn detect(head: &[u8]) -> Result<Format, FormatError> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Format::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Format::Zstd),
            // Skippable frames (zstd:chunked metadata) may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Format::Zstd),
            _ if is_tar(head) => Ok(Format::Tar),
            _ => Err(FormatError {
                what: name_of(head),
            }),
        }
    }

    /// Returns the OCI media type of a layer in this format.
    pub fn layer_media_type(self) -> &'static str {
        match self {
            Format::Tar => media_type::OCI_LAYER,
            Format::Gzip => media_type::OCI_LAYER_GZIP,
            Format::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }
}

fn is_tar(head: &[u8]) -> bool {
    let Ok(block) = <&[u8; PROBE_LEN]>::try_from(head) else {
        return head.is_empty();
    };
    // An archive without entries starts with its end marker. The oldest tars have no magic, but always a checksum.
    let header = Header::from_bytes(block);
    header.is_empty() || header.verify_checksum().is_ok()
}

fn name_of(head: &[u8]) -> &'static str {
    match head {
        [b'B', b'Z', b'h', ..] => "looks like bzip2",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "looks like xz",
        [b'P', b'K', 3, 4, ..] => "looks like zip",
        [b'h', b's', b'q', b's', ..] => "looks like squashfs",
        _ => "unknown first bytes",
    }
}

/// Returns the uncompressed bytes of `reader`, whatever it is compressed with.
///
/// Several gzip members and several zstd frames in a row are one stream, as for the tools that write them. Streams: only
/// the decoder's own window is held in memory (at most 128 MiB for a zstd frame that asks for it, usually far less).
///
/// # Errors
///
/// Reading the first bytes; [`FormatError`] when they are nothing we read. Damage further in is an error of the returned
/// reader.
pub fn decoder<'a, R: Read + Send + 'a>(mut reader: R) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::with_capacity(PROBE_LEN);
    reader
        .by_ref()
        .take(PROBE_LEN as u64)
        .read_to_end(&mut head)?;
    let format =
        Format::detect(&head).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let whole = Cursor::new(head).chain(reader);
    Ok(match format {
        Format::Tar => Box::new(whole),
        Format::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Format::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    })
}

/// More threads than this gain nothing (a tar stream is made by one) and would cost memory.
pub const MAX_THREADS: usize = 16;

/// Returns the number of threads to compress with on this machine.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(MAX_THREADS)
}

/// Compresses what is written to it, on several threads.
///
/// The output depends on the input and the [`Compression`] only. Memory is bounded: some 4 MiB a thread for gzip, some
/// 24 MiB a thread for zstd at its default level. [`flush`](Write::flush) flushes the inner writer only: ending a block
/// early would make the bytes depend on the caller's habits. Dropping it without [`finish`](Self::finish) leaves a
/// truncated stream.
pub struct Encoder<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(GzipEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Starts compressing into `out`, on `threads` threads (at least 1, at most [`MAX_THREADS`]).
    ///
    /// # Errors
    ///
    /// zstd may run out of memory. Threads of gzip start with the first full block.
    pub fn new(out: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let threads = threads.clamp(1, MAX_THREADS);
        Ok(Self(match compression {
            Compression::None => Inner::Plain(out),
            Compression::Gzip { level } => Inner::Gzip(GzipEncoder::new(out, level, threads)?),
            Compression::Zstd { level } => Inner::Zstd(zstd_encoder(out, level, threads)?),
        }))
    }

    /// Compresses what is left, writes it, and returns the inner writer, not flushed.
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(encoder) => encoder.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn zstd_encoder<W: Write>(
    out: W,
    level: u8,
    threads: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, i32::from(level))?;
    let threads = u32::try_from(threads).expect("clamped to MAX_THREADS");
    // Never 0 workers: that is another code path of the library with other bytes.
    encoder.multithread(threads)?;
    Ok(encoder)
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(buf),
            Inner::Gzip(encoder) => encoder.write(buf),
            Inner::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(out) => out.flush(),
            Inner::Gzip(encoder) => encoder.get_mut().flush(),
            Inner::Zstd(encoder) => encoder.get_mut().flush(),
        }
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Inner::Plain(_) => "none",
            Inner::Gzip(_) => "gzip",
            Inner::Zstd(_) => "zstd",
        };
        write!(f, "Encoder({name})")
    }
}
