//! An archive with the one member `disk.raw`, compressed with gzip, as Google Compute Engine imports it.
//!
//! Holes stay out of the archive in the way of GNU tar before 2004, the one that Google names.
//!
//! Spec: GNU tar manual, "Basic Tar Format" and "Storing Sparse Files", old GNU format.

use std::io::{self, Write};

use kfactory_layers::compress::{Compression, Encoder};

use super::{RawDisk, SECTOR_BYTES, has_step};
use crate::artifact::region::Extent;

/// What the size of the disk is a multiple of.
pub const SIZE_STEP: u64 = 1 << 30;
const MEMBER: &[u8] = b"disk.raw";
const BLOCK_BYTES: usize = SECTOR_BYTES as usize;
/// How many parts the header tells of, and every block after it.
const PARTS_IN_HEADER: usize = 4;
const PARTS_IN_BLOCK: usize = 21;
/// tar pads archives to records of twenty blocks.
const RECORD_BYTES: u64 = 20 * SECTOR_BYTES;
/// Numbers in the header have twelve characters.
const NUMBER_BYTES: usize = 12;

/// Writes `disk` to `out`, its member made at `epoch` in seconds since 1970, compressed on `threads` threads, whose number does not change
/// the bytes.
///
/// # Errors
///
/// The disk is no multiple of [`SIZE_STEP`], cannot be read, or `out` not be written.
pub fn write(disk: &RawDisk, out: impl Write, epoch: i64, threads: usize) -> io::Result<()> {
    has_step(disk, SIZE_STEP, "an image for Google Compute Engine")?;
    let mut parts = disk.data()?;
    let stored: u64 = parts.iter().map(|part| part.len).sum();
    if parts
        .last()
        .is_none_or(|last| last.start + last.len < disk.size())
    {
        // Tells where the file ends.
        parts.push(Extent {
            start: disk.size(),
            len: 0,
        });
    }
    let mut encoder = Encoder::new(out, Compression::GZIP, threads)?;
    let head = head(disk.size(), stored, epoch, &parts);
    encoder.write_all(&head)?;
    let mut buffer = vec![0; 1 << 20];
    for part in &parts {
        let (mut at, end) = (part.start, part.start + part.len);
        while at < end {
            let now = (end - at).min(buffer.len() as u64) as usize;
            disk.read_exact_at(&mut buffer[..now], at)?;
            encoder.write_all(&buffer[..now])?;
            at += now as u64;
        }
    }
    // Two empty blocks end an archive.
    let written = head.len() as u64 + stored;
    let end = (written + 2 * SECTOR_BYTES).next_multiple_of(RECORD_BYTES);
    encoder.write_all(&vec![0; (end - written) as usize])?;
    encoder.finish()?.flush()
}

/// Returns the member's header and the blocks that continue it.
fn head(size: u64, stored: u64, epoch: i64, parts: &[Extent]) -> Vec<u8> {
    let (first, more) = parts.split_at(parts.len().min(PARTS_IN_HEADER));
    let mut header = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, MEMBER);
    for (at, value) in [
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (148, b"        "),
    ] {
        put(at, value);
    }
    put(124, &number(stored));
    put(136, &number(epoch.try_into().unwrap_or(0)));
    put(156, b"S");
    put(257, b"ustar  \0");
    put(386, &map(first));
    put(482, &[u8::from(!more.is_empty())]);
    put(483, &number(size));
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());

    let mut head = header.to_vec();
    let blocks = more.chunks(PARTS_IN_BLOCK);
    let last = blocks.len();
    for (index, chunk) in blocks.enumerate() {
        let mut block = [0; BLOCK_BYTES];
        let map = map(chunk);
        block[..map.len()].copy_from_slice(&map);
        block[504] = u8::from(index + 1 < last);
        head.extend(block);
    }
    head
}

fn map(parts: &[Extent]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [number(part.start), number(part.len)].concat())
        .collect()
}

/// Returns a number in octal digits, or in binary where there are too many.
fn number(value: u64) -> [u8; NUMBER_BYTES] {
    let mut field = [0; NUMBER_BYTES];
    if value < 1 << 33 {
        field[..NUMBER_BYTES - 1].copy_from_slice(format!("{value:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    }
    field
}
