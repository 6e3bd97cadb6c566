//! The form of Fedora and Enterprise Linux: the table `Packages` of an SQLite database, a row a header.
//!
//! Read here rather than with SQLite itself: one table is walked from end to end, of a file that may lie inside a larger one, and
//! a library of a quarter of a million lines of C would have to be built for it. What is read is the file format alone: pages,
//! the B-trees of tables, overflow pages, and the write-ahead log, which holds what the last writer left there.
//!
//! Spec: <https://www.sqlite.org/fileformat2.html>.

use std::collections::HashMap;

use super::{Damage, Files, MAX_HEADER_BYTES, Unclaimed, Visit, bytes_at, fill};
use crate::tree::Window;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const TABLE: &str = "Packages";
/// The database's own header, before the B-tree of page 1.
const HEADER_BYTES: usize = 100;
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// A tree of this depth would hold more pages than a file can.
const MAX_DEPTH: usize = 24;

const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;
/// Marks of a log; the last bit says in which order the bytes are that its checksums add up.
const LOG_MAGIC: u32 = 0x377f_0682;

pub(super) fn read(files: &Files<'_>, visit: Visit<'_>) -> Result<(), Damage> {
    let (file, log) = (&files.database, files.journal.as_ref());
    if file.size() == 0 && log.is_none_or(|log| log.size() == 0) {
        // What SQLite calls an empty database.
        return Ok(());
    }
    let database = Database::open(file, log)?;
    let mut root = None;
    database.rows(1, &mut |row| {
        let columns = columns(row)?;
        let is = |index: usize, text: &str| columns.get(index) == Some(&text.as_bytes());
        if is(0, "table") && is(1, TABLE) {
            root = columns.get(3).map(|page| integer(page));
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| format!("it has no table `{TABLE}`"))?;
    database.rows(root, &mut |row| match columns(row)?.get(1) {
        Some(blob) => visit(blob),
        None => Err("a row of it has no header".into()),
    })
}

struct Database<'a> {
    file: &'a Window<'a>,
    log: Option<&'a Window<'a>>,
    page_bytes: usize,
    /// Bytes of a page that hold data; the rest belongs to extensions.
    usable: usize,
    /// Pages that the log has newer, and where in it.
    newer: HashMap<u32, u64>,
}

impl<'a> Database<'a> {
    fn open(file: &'a Window<'a>, log: Option<&'a Window<'a>>) -> Result<Self, Damage> {
        // Before the first write reached the file itself, the log has all there is.
        let log = log.filter(|log| log.size() > LOG_HEADER_BYTES);
        let newer = log.map_or_else(|| Ok(HashMap::new()), frames)?;
        let header: [u8; HEADER_BYTES] = match (newer.get(&1), log) {
            (Some(offset), Some(log)) => bytes_at(log, *offset)?,
            _ => bytes_at(file, 0)?,
        };
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 1 << 16,
            bytes => usize::from(bytes),
        };
        let usable = page_bytes.saturating_sub(usize::from(header[20]));
        if &header[..16] != MAGIC || !page_bytes.is_power_of_two() || usable < 480 {
            return Err("it does not begin as an SQLite database".into());
        }
        Ok(Self {
            file,
            log,
            page_bytes,
            usable,
            newer,
        })
    }

    fn page(&self, number: u32) -> Result<Vec<u8>, Damage> {
        let mut page = vec![0; self.page_bytes];
        match (self.newer.get(&number), self.log) {
            (Some(offset), Some(log)) => fill(log, *offset, &mut page)?,
            _ => {
                let index = number.checked_sub(1).ok_or("it points to page 0")?;
                fill(
                    self.file,
                    u64::from(index) * self.page_bytes as u64,
                    &mut page,
                )?;
            }
        }
        page.truncate(self.usable);
        Ok(page)
    }

    /// How many pages there can be: more than that are a circle.
    fn most_pages(&self) -> u64 {
        self.file.size() / self.page_bytes as u64 + self.newer.len() as u64
    }

    fn most_bytes(&self) -> u64 {
        self.most_pages() * self.page_bytes as u64
    }

    /// Calls `visit` for every row of the table whose tree begins at page `root`.
    fn rows(
        &self,
        root: u32,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let mut todo = vec![(root, 0)];
        let mut seen = 0;
        let mut unclaimed = Unclaimed(self.most_bytes());
        while let Some((number, depth)) = todo.pop() {
            seen += 1;
            if depth > MAX_DEPTH || seen > self.most_pages() {
                return Err("its pages point to one another in a circle".into());
            }
            let page = self.page(number)?;
            let start = if number == 1 { HEADER_BYTES } else { 0 };
            let torn = || format!("its page {number} is damaged");
            let kind = *page.get(start).ok_or_else(torn)?;
            let count = usize::from(short(&page, start + 3).ok_or_else(torn)?);
            match kind {
                INTERIOR => {
                    let mut children = Vec::with_capacity(count + 1);
                    for index in 0..count {
                        let cell = short(&page, start + 12 + index * 2).ok_or_else(torn)?;
                        children.push(long(&page, usize::from(cell)).ok_or_else(torn)?);
                    }
                    children.push(long(&page, start + 8).ok_or_else(torn)?);
                    todo.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
                }
                LEAF => {
                    for index in 0..count {
                        let cell = short(&page, start + 8 + index * 2).ok_or_else(torn)?;
                        let cell = page.get(usize::from(cell)..).ok_or_else(torn)?;
                        let payload = self.payload(cell)?;
                        unclaimed.claim(&payload, "rows")?;
                        visit(&payload)?;
                    }
                }
                _ => return Err(torn()),
            }
        }
        Ok(())
    }

    /// Returns the record of a leaf's cell, put together from the pages it runs over.
    fn payload(&self, cell: &[u8]) -> Result<Vec<u8>, Damage> {
        let torn = || "a row of it is cut off".to_owned();
        let (len, rest) = varint(cell).ok_or_else(torn)?;
        let (_, rest) = varint(rest).ok_or_else(torn)?;
        if len > self.most_bytes().min(MAX_HEADER_BYTES) {
            return Err(torn());
        }
        let len = usize::try_from(len).map_err(|_| torn())?;
        let here = self.local_bytes(len);
        let mut payload = rest.get(..here).ok_or_else(torn)?.to_vec();
        let mut next = if here < len {
            long(rest, here).ok_or_else(torn)?
        } else {
            0
        };
        while payload.len() < len {
            let page = self.page(next)?;
            next = long(&page, 0).ok_or_else(torn)?;
            let wanted = (len - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(&page[4..4 + wanted]);
        }
        Ok(payload)
    }

    /// Returns how many bytes of a record of `len` bytes stand on the leaf itself.
    fn local_bytes(&self, len: usize) -> usize {
        let most = self.usable - 35;
        if len <= most {
            return len;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let even = least + (len - least) % (self.usable - 4);
        if even <= most { even } else { least }
    }
}

/// Returns where in the log the newest copy of each page is, as of the last whole transaction.
fn frames(log: &Window<'_>) -> Result<HashMap<u32, u64>, Damage> {
    let header: [u8; LOG_HEADER_BYTES as usize] = bytes_at(log, 0)?;
    let word = |index: usize| long(&header, index * 4).expect("within the header");
    let mut sum = Checksum {
        big_endian: word(0) == LOG_MAGIC | 1,
        ..Checksum::default()
    };
    sum.add(&header[..24]);
    if word(0) & !1 != LOG_MAGIC || (sum.one, sum.two) != (word(6), word(7)) {
        // A log that was begun and never came to a transaction counts for nothing.
        return Ok(HashMap::new());
    }
    let (page_bytes, salts) = (u64::from(word(2)), [word(4), word(5)]);
    let (mut newer, mut pending) = (HashMap::new(), Vec::new());
    let mut offset = LOG_HEADER_BYTES;
    let mut page = vec![0; usize::try_from(page_bytes.min(1 << 16)).expect("a page's size")];
    while offset + FRAME_HEADER_BYTES + page_bytes <= log.size() {
        let head: [u8; FRAME_HEADER_BYTES as usize] = bytes_at(log, offset)?;
        fill(log, offset + FRAME_HEADER_BYTES, &mut page)?;
        let word = |index: usize| long(&head, index * 4).expect("within the frame's header");
        sum.add(&head[..8]);
        sum.add(&page);
        if [word(2), word(3)] != salts || (sum.one, sum.two) != (word(4), word(5)) {
            break;
        }
        pending.push((word(0), offset + FRAME_HEADER_BYTES));
        if word(1) != 0 {
            newer.extend(pending.drain(..));
        }
        offset += FRAME_HEADER_BYTES + page_bytes;
    }
    Ok(newer)
}

/// The running checksum of a log.
#[derive(Default)]
struct Checksum {
    big_endian: bool,
    one: u32,
    two: u32,
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let word = |raw: &[u8]| {
            let raw = *raw.first_chunk().expect("a half of eight");
            match self.big_endian {
                true => u32::from_be_bytes(raw),
                false => u32::from_le_bytes(raw),
            }
        };
        let (mut one, mut two) = (self.one, self.two);
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        (self.one, self.two) = (one, two);
    }
}

/// Splits a record into the bytes of its columns.
fn columns(record: &[u8]) -> Result<Vec<&[u8]>, Damage> {
    let torn = || "a row of it is damaged".to_owned();
    let (header_bytes, _) = varint(record).ok_or_else(torn)?;
    let header_bytes = usize::try_from(header_bytes).map_err(|_| torn())?;
    let (header, mut body) = record.split_at_checked(header_bytes).ok_or_else(torn)?;
    let (_, mut kinds) = varint(header).ok_or_else(torn)?;
    let mut out = Vec::new();
    while !kinds.is_empty() {
        let (kind, rest) = varint(kinds).ok_or_else(torn)?;
        kinds = rest;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(torn()),
            _ => (kind - 12) / 2,
        };
        let len = usize::try_from(len).map_err(|_| torn())?;
        let (column, rest) = body.split_at_checked(len).ok_or_else(torn)?;
        body = rest;
        out.push(column);
    }
    Ok(out)
}

/// Returns the value of an integer column that is not negative; 0 where it does not fit.
fn integer(column: &[u8]) -> u32 {
    let value = column
        .iter()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    u32::try_from(value).unwrap_or(0)
}

/// Splits off a number of one to nine bytes.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some((value << 8 | u64::from(*byte), &bytes[9..]));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
