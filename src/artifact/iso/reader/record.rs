//! Directory records.

use super::source::both32;
use crate::artifact::iso::record::DIRECTORY;
use crate::artifact::iso::time::epoch_secs;

/// One record, of which all lengths are checked.
pub(super) struct Record<'a> {
    pub(super) identifier: &'a [u8],
    /// The first block after its extended attributes.
    pub(super) block: u32,
    pub(super) size: u32,
    pub(super) flags: u8,
    pub(super) time_secs: i64,
    pub(super) system_use: &'a [u8],
}

/// Parses the record of the top directory in a descriptor.
pub(super) fn top_record(bytes: &[u8]) -> Option<Record<'_>> {
    let (record, _) = record(bytes).ok()?;
    (record.flags & DIRECTORY != 0 && record.identifier == [0]).then_some(record)
}

/// Parses the record at the start of `bytes`, which end with its block, and returns its length, too.
pub(super) fn record(bytes: &[u8]) -> Result<(Record<'_>, usize), &'static str> {
    const HEADER: usize = 33;
    let len = usize::from(bytes[0]);
    let Some(record) = bytes.get(..len).filter(|record| record.len() > HEADER) else {
        return Err("is too short, or crosses the end of its block");
    };
    let identifier_len = usize::from(record[32]);
    let system_use = (HEADER + identifier_len).next_multiple_of(2);
    let identifier = record
        .get(HEADER..HEADER + identifier_len)
        .filter(|identifier| !identifier.is_empty())
        .ok_or("has an identifier that is empty or longer than it")?;
    let (Some(block), Some(size)) = (both32(record, 2), both32(record, 10)) else {
        return Err("says another place or size in one byte order than in the other");
    };
    if record[26] != 0 || record[27] != 0 {
        return Err("is of an interleaved file, which is not understood");
    }
    let time = record[18..25].try_into().expect("seven bytes");
    let found = Record {
        identifier,
        block: block
            .checked_add(record[1].into())
            .ok_or("has a place past any disc")?,
        size,
        flags: record[25],
        time_secs: epoch_secs(time),
        system_use: record.get(system_use..).unwrap_or_default(),
    };
    Ok((found, len))
}
