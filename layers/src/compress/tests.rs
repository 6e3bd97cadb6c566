//! Compression in both directions: what goes in comes out, and equal input gives equal output.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
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
