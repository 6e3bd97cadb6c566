//! The header of an entry of a tar archive.
//!
//! Spec: ustar of POSIX.1-2001. Also part of the helpers, which are a program without crates.

use std::ops::Range;

/// The size of a header; content takes a multiple of it.
pub(super) const BLOCK_BYTES: usize = 512;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const CHECKSUM: Range<usize> = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const MAGIC: Range<usize> = 257..262;
pub(super) const USER: Range<usize> = 265..297;
pub(super) const GROUP: Range<usize> = 297..329;

/// A header.
pub(super) type Header = [u8; BLOCK_BYTES];

/// Returns whether a header is of this format, GNU's included, and has the sum that it states.
pub(super) fn is_whole(header: &Header) -> bool {
    &header[MAGIC] == b"ustar" && octal(&header[CHECKSUM]) == Some(checksum(header).into())
}

/// Adds up a header's bytes, with spaces for the sum itself.
pub(super) fn checksum(header: &Header) -> u32 {
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    let own: u32 = header[CHECKSUM].iter().copied().map(u32::from).sum();
    sum - own + u32::from(b' ') * CHECKSUM.len() as u32
}

/// Reads a number in octal digits, which spaces may precede and a space or zero byte ends.
pub(super) fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text(field)).ok()?;
    u64::from_str_radix(digits.trim_matches(' '), 8).ok()
}

/// Returns a field up to its first zero byte.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0);
    &field[..end.unwrap_or(field.len())]
}
