//! What a layer is compressed with, and the bytes in it.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;
use tar_core::Header;

use crate::media_type;

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
