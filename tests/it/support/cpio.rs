//! Reads the initrd: an early archive if there is one, then a compressed one.

use std::io::{Cursor, Read};

const MAGIC: &[u8] = b"070701";
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];

/// One entry of an initrd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) mode: u32,
    pub(crate) mtime: u32,
    pub(crate) content: Vec<u8>,
}

/// Returns every entry of every archive in `initrd`.
///
/// Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.
pub(crate) fn entries(initrd: &[u8]) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut rest = initrd;
    while !rest.is_empty() {
        if rest[0] == 0 {
            rest = &rest[1..];
        } else if rest.starts_with(MAGIC) {
            rest = archive(rest, &mut out);
        } else {
            let plain = decompress(rest);
            assert!(plain.starts_with(MAGIC), "a compressed part is no archive");
            out.extend(entries(&plain));
            return out;
        }
    }
    out
}

fn decompress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if bytes.starts_with(&ZSTD) {
        let mut decoder = zstd::Decoder::new(Cursor::new(bytes)).expect("zstd");
        decoder.read_to_end(&mut out).expect("whole");
    } else if bytes.starts_with(&GZIP) {
        let mut decoder = flate2::read::MultiGzDecoder::new(Cursor::new(bytes));
        decoder.read_to_end(&mut out).expect("whole");
    } else {
        panic!(
            "neither cpio nor zstd nor gzip: {:?}",
            &bytes[..bytes.len().min(8)]
        );
    }
    out
}

/// Reads one archive up to its trailer and returns what follows.
fn archive<'a>(mut bytes: &'a [u8], out: &mut Vec<Entry>) -> &'a [u8] {
    loop {
        let field = |index: usize| {
            let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).expect("text");
            u32::from_str_radix(text, 16).expect("hexadecimal")
        };
        assert!(bytes.starts_with(MAGIC), "an entry has no header");
        let (mode, mtime, size, name_size) =
            (field(1), field(5), field(6) as usize, field(11) as usize);
        let name = String::from_utf8_lossy(&bytes[110..110 + name_size - 1]).into_owned();
        let start = (110 + name_size).next_multiple_of(4);
        let end = start + size;
        let content = bytes[start..end].to_vec();
        bytes = &bytes[end.next_multiple_of(4).min(bytes.len())..];
        if name == "TRAILER!!!" {
            return bytes;
        }
        out.push(Entry {
            name,
            mode,
            mtime,
            content,
        });
    }
}
