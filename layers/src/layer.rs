//! Layers: an uncompressed changeset goes in, a blob with all its digests comes out, in one pass.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::compress::{Compression, Encoder};
use crate::digest::{Digest, HashingWriter, ThreadedHasher};
use crate::manifest::Descriptor;

/// A finished layer: its names, sizes and media type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the blob as stored.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Size of the uncompressed tar in bytes.
    pub uncompressed_size: u64,
    /// Media type of the blob.
    pub media_type: String,
}

impl LayerInfo {
    /// Returns the descriptor that names this layer in a manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.as_str(), self.digest, self.size)
    }
}

/// Writes a layer blob: takes the uncompressed tar, passes the compressed blob on, and computes both digests on the way.
///
/// The diff ID is hashed on its own thread and compression uses `threads` more; the bytes and digests do not depend on
/// how many. Memory is bounded, see [`Encoder`]. Dropping it without [`finish`](Self::finish) leaves a truncated blob
/// behind, which must not be kept.
#[derive(Debug)]
pub struct LayerWriter<W: Write> {
    encoder: Encoder<HashingWriter<W>>,
    diff_id: Option<ThreadedHasher>,
    uncompressed_size: u64,
    media_type: &'static str,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer that is written to `out`.
    ///
    /// # Errors
    ///
    /// As [`Encoder::new`].
    pub fn new(out: W, compression: Compression, threads: usize) -> io::Result<Self> {
        Ok(Self {
            encoder: Encoder::new(HashingWriter::new(out), compression, threads)?,
            // Without compression both digests are of the same bytes.
            diff_id: (compression != Compression::None).then(ThreadedHasher::new),
            uncompressed_size: 0,
            media_type: compression.layer_media_type(),
        })
    }

    /// Returns the bytes of tar written so far.
    pub fn uncompressed_size(&self) -> u64 {
        self.uncompressed_size
    }

    /// Ends the blob and returns the inner writer, not flushed, and what the layer turned out to be.
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub fn finish(self) -> io::Result<(W, LayerInfo)> {
        let (out, digest, size) = self.encoder.finish()?.finish();
        let diff_id = match self.diff_id {
            Some(hasher) => hasher.finish()?,
            None => digest,
        };
        let info = LayerInfo {
            diff_id,
            digest,
            size,
            uncompressed_size: self.uncompressed_size,
            media_type: self.media_type.to_owned(),
        };
        Ok((out, info))
    }
}

impl<W: Write> Write for LayerWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = self.encoder.write(buf)?;
        if let Some(hasher) = &mut self.diff_id {
            hasher.update(&buf[..len])?;
        }
        self.uncompressed_size += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::compress::decoder;

    #[test]
    fn digests_and_sizes_are_those_of_the_bytes() {
        let tar: Vec<u8> = [&[0; 1024][..], &b"usr/bin/".repeat(400_000)].concat();
        for text in ["none", "gzip", "zstd"] {
            let compression: Compression = text.parse().unwrap();
            let mut writer = LayerWriter::new(Vec::new(), compression, 2).unwrap();
            for piece in tar.chunks(99_991) {
                writer.write_all(piece).unwrap();
            }
            assert_eq!(writer.uncompressed_size(), tar.len() as u64);
            let (blob, info) = writer.finish().unwrap();
            assert_eq!(info.diff_id, Digest::of(&tar), "{text}");
            assert_eq!(info.digest, Digest::of(&blob), "{text}");
            assert_eq!(
                (info.size, info.uncompressed_size),
                (blob.len() as u64, tar.len() as u64)
            );
            assert_eq!(info.media_type, compression.layer_media_type());
            let mut back = Vec::new();
            decoder(&blob[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == tar, "{text}");
        }
    }
}
