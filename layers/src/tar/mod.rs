//! The tar format: a writer that always gives the same bytes for the same entries, and a reader that trusts nothing.
//!
//! Both stream, and neither opens a file. Written are ustar headers with PAX records where ustar has no room; read are ustar, PAX, old
//! and GNU headers with all their forms of long names and sparse files.
//!
//! Where tools read the same bytes differently, an archive can hide an entry from one of them. Such archives are refused, not guessed at;
//! the crate's README lists the decisions.

mod decode;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{ArchiveReader, Chunk, Content, ReadError};
pub use writer::{ArchiveWriter, WriteError};

/// Everything in an archive is padded to multiples of this.
pub(crate) const BLOCK: usize = 512;

/// The most that the extended headers of one entry may take, in bytes; the number that Go's `archive/tar` uses too.
///
/// An attribute value has at most 64 KiB and a path 4 KiB.
pub const MAX_EXTENDED_HEADER: u64 = 1 << 20;

/// The most data regions one sparse file may have. 16 bytes of memory each; a file of 1 GiB with data in every 4 KiB page has as many.
pub const MAX_SPARSE_REGIONS: usize = 1 << 18;

/// Returns how many bytes follow content of `size` bytes up to the next block.
pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
