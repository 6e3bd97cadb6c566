//! Maps of sparse files: which parts of a file an archive has bytes for.
//!
//! Four forms are in use: GNU's own header type, and three generations of PAX records. Spec: GNU tar manual, "Storing Sparse Files".

use super::header::{Header, parse_number};
use super::pax::parse_decimal;
use super::{BLOCK, MAX_SPARSE_REGIONS};

/// A run of bytes that the archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The map of one file in the making.
#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) regions: Vec<Region>,
}

impl Map {
    /// Adds a region; `None` when it is one too many, or does not lie after the one before it.
    pub(crate) fn push(&mut self, offset: u64, length: u64) -> Option<()> {
        offset.checked_add(length)?;
        let start = self
            .regions
            .last()
            .map_or(0, |last| last.offset + last.length);
        if self.regions.len() >= MAX_SPARSE_REGIONS || offset < start {
            return None;
        }
        self.regions.push(Region { offset, length });
        Some(())
    }

    /// Returns whether the regions lie within `size` bytes and take exactly `stored` bytes of the archive.
    pub(crate) fn fits(&self, size: u64, stored: u64) -> bool {
        let end = self
            .regions
            .last()
            .map_or(0, |last| last.offset + last.length);
        // The regions do not overlap, so their sum is at most `end` and cannot overflow.
        let sum: u64 = self.regions.iter().map(|region| region.length).sum();
        end <= size && sum == stored
    }
}

/// Where GNU's header has four `offset, length` pairs, and then whether more follow in a block of their own.
const GNU_PAIRS: usize = 386;
const GNU_MORE: usize = 482;
const GNU_REAL_SIZE: std::ops::Range<usize> = 483..495;
/// The same in a block that holds nothing else.
const MORE_PAIRS: usize = 21;
const MORE_MORE: usize = 504;
const PAIR: usize = 24;

/// Reads the pairs of a GNU sparse header; returns the whole size, and whether a block of further pairs follows.
pub(crate) fn gnu_header(header: &Header, map: &mut Map) -> Option<(u64, bool)> {
    gnu_pairs(&header.0[GNU_PAIRS..GNU_PAIRS + 4 * PAIR], map)?;
    let size = u64::try_from(header.number(GNU_REAL_SIZE)?).ok()?;
    Some((size, header.0[GNU_MORE] != 0))
}

/// Reads a block of further pairs; returns whether one more follows.
pub(crate) fn gnu_more(block: &[u8; BLOCK], map: &mut Map) -> Option<bool> {
    gnu_pairs(&block[..MORE_PAIRS * PAIR], map)?;
    Some(block[MORE_MORE] != 0)
}

fn gnu_pairs(pairs: &[u8], map: &mut Map) -> Option<()> {
    for pair in pairs.chunks_exact(PAIR) {
        let (offset, length) = pair.split_at(PAIR / 2);
        if offset[0] == 0 || length[0] == 0 {
            break;
        }
        let number = |field| u64::try_from(parse_number(field)?).ok();
        map.push(number(offset)?, number(length)?)?;
    }
    Some(())
}

/// What PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    pub(crate) name: Option<Vec<u8>>,
    size: Option<u64>,
    version: (Option<u64>, Option<u64>),
    offset: Option<u64>,
    map: Option<Map>,
}

/// Where the map of a sparse file is.
#[derive(Debug)]
pub(crate) enum Found {
    /// In the records themselves.
    Map(Map, u64),
    /// In front of the content, for a file of this size.
    InContent(u64),
}

impl PaxSparse {
    /// Takes one record whose key begins with `GNU.sparse.`, in the order of the archive; `None` when it makes no sense.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = || parse_decimal(value);
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            b"major" => self.version.0 = Some(number()?),
            b"minor" => self.version.1 = Some(number()?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take()?;
                self.map.get_or_insert_default().push(offset, number()?)?;
            }
            b"map" => self.map = Some(comma_map(value)?),
            b"numblocks" => _ = self.map.get_or_insert_default(),
            _ => return None,
        }
        Some(())
    }

    /// Returns where the map is; `None` inside when the records describe no sparse file, outside when they contradict themselves.
    pub(crate) fn found(self) -> Option<Option<Found>> {
        match (self.version, self.map, self.size) {
            ((Some(1), Some(0)), None, Some(size)) => Some(Some(Found::InContent(size))),
            ((None, None) | (Some(0), Some(_)), Some(map), Some(size)) => {
                Some(Some(Found::Map(map, size)))
            }
            ((None, None), None, None) if self.name.is_none() => Some(None),
            _ => None,
        }
    }
}

fn comma_map(value: &[u8]) -> Option<Map> {
    let mut map = Map::default();
    let mut numbers = value.split(|byte| *byte == b',').map(parse_decimal);
    while let Some(offset) = numbers.next() {
        map.push(offset?, numbers.next()??)?;
    }
    Some(map)
}

/// Reads the map that stands in front of the content: a count, then offsets and lengths, one number in a line.
#[derive(Debug, Default)]
pub(crate) struct ContentMap {
    map: Map,
    left: Option<u64>,
    offset: Option<u64>,
    line: Vec<u8>,
}

impl ContentMap {
    /// Takes the next block; returns the map when it is complete, which ends within this block. Outer `None`: not a map.
    pub(crate) fn block(&mut self, block: &[u8; BLOCK]) -> Option<Option<Map>> {
        for byte in block {
            if *byte != b'\n' {
                // No number has more digits.
                if self.line.len() == 20 {
                    return None;
                }
                self.line.push(*byte);
                continue;
            }
            let number = parse_decimal(&self.line)?;
            self.line.clear();
            self.number(number)?;
            if self.left == Some(0) {
                return Some(Some(std::mem::take(&mut self.map)));
            }
        }
        Some(None)
    }

    fn number(&mut self, number: u64) -> Option<()> {
        match (self.left, self.offset.take()) {
            (None, _) => self.left = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(left), Some(offset)) => {
                self.map.push(offset, number)?;
                self.left = Some(left - 1);
            }
        }
        Some(())
    }
}
