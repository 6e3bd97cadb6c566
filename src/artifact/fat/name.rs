//! Names on a FAT file system: long ones, and the short one that every file has beside it.

use std::collections::BTreeSet;

pub(super) const ENTRY_BYTES: u32 = 32;
/// UTF-16 units in one entry of a long name.
const UNITS: usize = 13;
const MAX_UNITS: usize = 255;
const LAST_PIECE: u8 = 0x40;
const LONG_NAME: u8 = 0x0F;
/// Where the units of a long name stand in its entry.
const UNIT_OFFSETS: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A name of eight characters and three, padded with spaces.
pub(super) type Short = [u8; 11];

pub(super) fn is_valid(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c);
    !name.is_empty()
        && !name.contains(forbidden)
        && !name.ends_with(['.', ' '])
        && name.encode_utf16().count() <= MAX_UNITS
}

/// Returns the label as it is written.
pub(super) fn label(text: &str) -> Option<Short> {
    let fits = |byte: u8| byte == b' ' || is_short(byte.to_ascii_uppercase());
    if text.trim().is_empty() || text.len() > 11 || text.starts_with(' ') || !text.bytes().all(fits)
    {
        return None;
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.to_ascii_uppercase().as_bytes());
    Some(label)
}

/// Returns the most entries that `name` takes: those of the long name, and one.
pub(super) fn entries_at_most(name: &str) -> usize {
    name.encode_utf16().count().div_ceil(UNITS) + 1
}

/// Gives every name of a directory its short name, all different.
pub(super) fn shorten<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<Short> {
    // Names that are short already keep theirs, wherever they stand.
    let mut taken: BTreeSet<Short> = names.clone().filter_map(exact).collect();
    let mut short_of = |name: &str| {
        exact(name).unwrap_or_else(|| {
            let short = alias(name, &taken);
            taken.insert(short);
            short
        })
    };
    names.map(&mut short_of).collect()
}

/// Returns the entries of the long name, last piece first as they stand on disk; none for a name that is short as it is.
pub(super) fn long_entries(name: &str, short: &Short) -> Vec<[u8; ENTRY_BYTES as usize]> {
    if exact(name).is_some() {
        return Vec::new();
    }
    let units: Vec<u16> = name.encode_utf16().collect();
    let pieces = units.len().div_ceil(UNITS);
    let piece = |index: usize| {
        let mut entry = [0; ENTRY_BYTES as usize];
        let last = if index + 1 == pieces { LAST_PIECE } else { 0 };
        entry[0] = (index + 1) as u8 | last;
        entry[11] = LONG_NAME;
        entry[13] = checksum(short);
        for (at, offset) in (index * UNITS..).zip(UNIT_OFFSETS) {
            // One zero ends the name, and what is left of the piece is filled up.
            let filler = if at == units.len() { 0 } else { 0xFFFF };
            let unit = units.get(at).copied().unwrap_or(filler);
            entry[offset..offset + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    };
    (0..pieces).rev().map(piece).collect()
}

fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

/// Returns the short form of a name that is nothing else.
fn exact(name: &str) -> Option<Short> {
    let (base, extension) = match name.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (name, ""),
    };
    let fits = !base.is_empty() && base.len() <= 8 && extension.len() <= 3;
    (fits && base.bytes().chain(extension.bytes()).all(is_short)).then(|| join(base, extension))
}

fn join(base: &str, extension: &str) -> Short {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short
}

/// Returns a short name for `name` that is not taken: its own in upper case where that will do, else one with a number.
fn alias(name: &str, taken: &BTreeSet<Short>) -> Short {
    if let Some(short) = exact(&name.to_ascii_uppercase()).filter(|short| !taken.contains(short)) {
        return short;
    }
    let clean = |text: &str, most: usize| -> String {
        let kept = text.chars().filter(|c| !matches!(c, ' ' | '.'));
        let upper = kept.map(|c| match u8::try_from(c.to_ascii_uppercase()) {
            Ok(byte) if is_short(byte) => c.to_ascii_uppercase(),
            _ => '_',
        });
        upper.take(most).collect()
    };
    let (base, extension) = match name.rsplit_once('.') {
        Some((base, extension)) if !base.trim_matches('.').is_empty() => (base, extension),
        _ => (name, ""),
    };
    let (base, extension) = (clean(base, 8), clean(extension, 3));
    let numbered = |number: u32| {
        let tail = format!("~{number}");
        let kept = base.len().min(8 - tail.len());
        join(&format!("{}{tail}", &base[..kept]), &extension)
    };
    (1..1_000_000)
        .map(numbered)
        .find(|short| !taken.contains(short))
        .expect("a directory holds fewer files than there are numbers")
}

/// Returns what ties the pieces of a long name to its short one.
fn checksum(short: &Short) -> u8 {
    short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}
