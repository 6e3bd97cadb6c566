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
/// The output depends on the input and the [`Compression`] only. Memory is bounded: some 5 MiB a thread for gzip; for
/// zstd 70 MiB with two threads and 130 MiB with eight at the default level, below 200 MiB at every level.
/// [`flush`](Write::flush) flushes the inner writer only: ending a block early would make the bytes depend on the caller's
/// habits. Dropping it without [`finish`](Self::finish) leaves a truncated stream.
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
    let threads = threads.min(zstd_threads(level));
    let threads = u32::try_from(threads).expect("at most MAX_THREADS");
    // Never 0 workers: that is another code path of the library with other bytes.
    encoder.multithread(threads)?;
    Ok(encoder)
}

/// Returns the most threads at this level.
///
/// A thread's share of the input, and so its memory, grows with the level: 8 MiB at 3, 32 MiB at 19. Smaller shares compress
/// worse (by 5 % at level 3 with 1 MiB), so the number of threads gives way instead. It does not change the output.
fn zstd_threads(level: u8) -> usize {
    match level {
        0..=5 => 8,
        6..=9 => 4,
        10..=12 => 2,
        _ => 1,
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that compress like a real tar: runs of text, zeros and noise, made from `seed`.
    fn sample(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let run = (state >> 40) as usize % 700;
            match state >> 62 {
                0 => bytes.resize(bytes.len() + run, 0),
                1 => bytes.extend((0..run).map(|n| (state >> (n % 48)) as u8)),
                _ => bytes.extend(b"usr/share/doc/package/".iter().cycle().take(run)),
            }
        }
        bytes.truncate(len);
        bytes
    }

    fn encode(input: &[u8], compression: Compression, threads: usize, pieces: &[usize]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression, threads).unwrap();
        let mut left = input;
        let mut lengths = pieces.iter().cycle();
        while !left.is_empty() {
            let len = lengths
                .next()
                .map_or(left.len(), |len| (*len).clamp(1, left.len()));
            encoder.write_all(&left[..len]).unwrap();
            encoder.flush().unwrap();
            left = &left[len..];
        }
        encoder.finish().unwrap()
    }

    fn decode(blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(blob)?.read_to_end(&mut out)?;
        Ok(out)
    }

    const ALL: [Compression; 4] = [
        Compression::None,
        Compression::GZIP,
        Compression::Gzip { level: 1 },
        Compression::ZSTD,
    ];

    #[test]
    fn settings_have_one_text_each() {
        for (text, full) in [
            ("none", "none"),
            ("gzip", "gzip:4"),
            ("gzip:9", "gzip:9"),
            ("zstd", "zstd:3"),
            ("zstd:19", "zstd:19"),
        ] {
            let compression: Compression = text.parse().unwrap();
            assert_eq!(compression.to_string(), full);
            let json = serde_json::to_string(&compression).unwrap();
            assert_eq!(json, format!("{full:?}"));
            assert_eq!(
                serde_json::from_str::<Compression>(&json).unwrap(),
                compression
            );
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        for text in [
            "", "xz", "gzip:0", "gzip:13", "gzip:", "none:1", "zstd:20", "zstd:-1", "GZIP",
        ] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_and_almost_nothing_survive_every_setting() {
        let empty_tar = [0; 1024];
        for compression in ALL {
            for input in [&b""[..], &empty_tar] {
                assert_eq!(
                    decode(&encode(input, compression, 2, &[])).unwrap(),
                    input,
                    "{compression}"
                );
            }
        }
    }

    #[test]
    fn blocks_end_where_they_should_at_their_edges() {
        const BLOCK: usize = 1 << 20;
        for len in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let input = sample(len, 3);
            let whole = encode(&input, Compression::GZIP, 2, &[]);
            assert_eq!(
                whole,
                encode(&input, Compression::GZIP, 1, &[BLOCK]),
                "{len}"
            );
            let mut out = Vec::new();
            MultiGzDecoder::new(&whole[..])
                .read_to_end(&mut out)
                .unwrap();
            assert!(out == input, "{len}");
        }
    }

    #[test]
    fn several_members_and_frames_are_one_stream() {
        let (first, second) = (sample(5000, 1), sample(5000, 2));
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let mut blob = encode(&first, compression, 1, &[]);
            blob.extend(encode(&second, compression, 1, &[]));
            assert_eq!(
                decode(&blob).unwrap(),
                [first.clone(), second.clone()].concat(),
                "{compression}"
            );
        }
    }

    #[test]
    fn a_skippable_zstd_frame_may_come_first() {
        let mut blob = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        blob.extend(encode(&sample(5000, 1), Compression::ZSTD, 1, &[]));
        assert_eq!(decode(&blob).unwrap(), sample(5000, 1));
    }

    #[test]
    fn cut_off_streams_are_errors() {
        for compression in [Compression::GZIP, Compression::ZSTD] {
            let blob = encode(&sample(100_000, 1), compression, 1, &[]);
            assert!(decode(&blob[..blob.len() - 1]).is_err(), "{compression}");
            assert!(decode(&blob[..blob.len() / 2]).is_err(), "{compression}");
        }
    }

    #[test]
    fn what_is_no_layer_is_refused_by_name() {
        for (head, what) in [
            (&b"BZh91AY&SY"[..], "bzip2"),
            (b"\xfd7zXZ\0\0\x04", "xz"),
            (b"hsqs", "squashfs"),
            (b"#!/bin/sh\n", "unknown"),
            (&[b'x'; 1000], "unknown"),
        ] {
            let error = decoder(head).err().expect("an error");
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn tars_of_every_age_are_recognised() {
        let ustar = tar_core::EntryBuilder::new_ustar().path("a").finish_bytes();
        let mut old = tar_core::Header::new_old();
        old.set_path(b"a").unwrap();
        old.set_checksum();
        for head in [&ustar[..512], &old.as_bytes()[..], &[0; 512][..]] {
            assert_eq!(Format::detect(head), Ok(Format::Tar));
        }
    }

    /// Accepts some bytes, then fails for ever.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(buf.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_and_not_a_hang() {
        let noise: Vec<u8> = (0..12_000_000u64)
            .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        for compression in ALL {
            let mut encoder = Encoder::new(Full(100_000), compression, 2).unwrap();
            let result = encoder
                .write_all(&noise)
                .and_then(|()| encoder.finish().map(drop));
            assert_eq!(
                result.unwrap_err().kind(),
                io::ErrorKind::StorageFull,
                "{compression}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn output_depends_on_neither_pieces_nor_threads(
            len in 0usize..4_000_000,
            seed: u64,
            pieces in prop::collection::vec(1usize..1_500_000, 1..6),
            threads in 2usize..7,
        ) {
            let input = sample(len, seed);
            for compression in ALL {
                let one = encode(&input, compression, 1, &[]);
                let many = encode(&input, compression, threads, &pieces);
                prop_assert!(one == many, "{compression} with {threads} threads in pieces of {pieces:?}");
                if compression == Compression::None {
                    prop_assert!(one == input);
                } else {
                    prop_assert!(decode(&one).unwrap() == input, "{compression} does not come back");
                }
            }
        }

        #[test]
        fn decoding_anything_never_panics(head in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]), rest in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut bytes = head.to_vec();
            bytes.extend(rest);
            let _ = decode(&bytes);
        }
    }
}
