//! The outer form of a Debian package: an `ar` archive.
//!
//! Spec: deb(5); ar(5), common format. Also part of the helpers, which are a program without crates.

use std::io::{self, Read};
use std::ops::Range;

/// The first bytes of an archive.
pub(super) const MAGIC: &[u8] = b"!<arch>\n";
/// The size of a member's header, in bytes.
pub(super) const HEADER_BYTES: usize = 60;
/// A member's name, from the start of its header, and its size in decimal.
pub(super) const NAME: Range<usize> = 0..16;
pub(super) const SIZE: Range<usize> = 48..58;

/// A member's header.
pub(super) type Header = [u8; HEADER_BYTES];

/// Reads what an archive begins with.
///
/// # Errors
///
/// `InvalidData` for what is no archive.
pub(super) fn read_magic(from: &mut impl Read) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("it does not begin as an archive does"));
    }
    Ok(())
}

/// Reads the next member's header; nothing at the end of the archive.
///
/// # Errors
///
/// `UnexpectedEof` for part of a header.
pub(super) fn read_header(from: &mut impl Read) -> io::Result<Option<Header>> {
    let mut header = [0; HEADER_BYTES];
    if from.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..])?;
    Ok(Some(header))
}

/// Returns the name in a member's header.
///
/// # Errors
///
/// `InvalidData` where it is not text.
pub(super) fn name_of(header: &Header) -> io::Result<&str> {
    std::str::from_utf8(&header[NAME])
        .map(str::trim_end)
        .map_err(|_| invalid("a member's name is not text"))
}

/// Returns the size in a member's header, in bytes; what follows begins at an even place.
///
/// # Errors
///
/// `InvalidData` where it is no number.
pub(super) fn size_of(header: &Header) -> io::Result<u64> {
    std::str::from_utf8(&header[SIZE])
        .ok()
        .and_then(|digits| digits.trim_end().parse().ok())
        .ok_or_else(|| invalid("a member's size is no number"))
}

/// An error that says what is wrong with an archive.
pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
