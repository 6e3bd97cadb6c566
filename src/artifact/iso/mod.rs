//! ISO 9660 discs that start as CD, as USB stick and as virtual disk, on BIOS and UEFI.
//!
//! What a disc holds is laid out before any content exists ([`Disc::lay_out`]): every file has its offset, so contents may
//! come in any order, and one file ([`Content::Last`]) may even have a size that nobody knows before it is written. What is not
//! content comes from [`Layout::finish`] as bytes and where they belong; nothing here reads a file, a clock or chance. Between
//! contents and metadata the disc is zero: write into an empty file, and set its length to [`Metadata::len`] at the end.
//!
//! In block order, a block being 2048 bytes:
//!
//! ```text
//! 0         MBR and primary GPT (hybrid discs)
//! 16        volume descriptors: primary, El Torito, Joliet, end
//!           view of the whole disc with upper-case names and Rock Ridge, view with Joliet names
//!           El Torito boot catalog
//!           UEFI boot image                         (hybrid: this is the EFI system partition, stored once)
//! P         16 empty blocks                         (hybrid: here the ISO9660 partition starts)
//! P + 16    volume descriptors: primary, Joliet, end, with addresses counted from P
//!           both views once more, the same way
//!           files by path; the last file
//!           backup GPT, in the last 33 sectors      (hybrid)
//! ```
//!
//! On a USB stick the label is thus found on the device itself and on its ISO9660 partition, and both can be mounted; the
//! latter lacks the UEFI image, which lies in front of it. `root=live:CDLABEL=...` is content with either. Partitions do not
//! overlap, because UEFI firmware passes over those that do.
//!
//! A CD starts by El Torito, on both kinds of firmware. A disk starts by the MBR, whose code loads the BIOS boot image, or by
//! the EFI system partition; it must have sectors of 512 bytes, in which MBR and GPT count.
//!
//! Code map, in reading order:
//!
//! - `tree`, `disc`: what is wanted.
//! - `layout`: where everything is; `view`: one rendering of the tree in directories and path tables.
//! - `names`, `record`, `susp`, `time`, `descriptor`: the formats those consist of.
//! - `el_torito`, `hybrid`: what firmware looks for.
//! - [`reader`]: the same from bytes, trusting nothing.
//!
//! Specs: ECMA-119 (ISO 9660:1988; level 3, and directories deeper than 8), IEEE P1281 (SUSP), IEEE P1282 (Rock Ridge),
//! Joliet, El Torito 1.0, UEFI ("GUID Partition Table").

mod descriptor;
mod disc;
mod el_torito;
mod hybrid;
#[cfg(test)]
mod judges;
mod layout;
mod names;
pub mod reader;
mod record;
mod susp;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod view;

pub use disc::{Disc, Hybrid, Identifiers};
pub use layout::{Layout, Metadata, Piece};
pub use tree::{Content, FileId, Tree};

/// Bytes of a logical block, which is also a sector of a CD.
pub const BLOCK: u64 = 2048;
/// Bytes of a sector of a hard disk, in which MBR and GPT count.
const SECTOR: u64 = 512;

/// Why a disc cannot be made as it is described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IsoError {
    /// A path, or what it leads to.
    #[error("{path:?} {problem}")]
    Path {
        /// Relative to the top directory of the disc; where it is no text, made legible.
        path: String,
        /// What is wrong about it.
        problem: &'static str,
    },
    /// A text for a volume descriptor.
    #[error("{field} {value:?} {problem}")]
    Text {
        /// Which one.
        field: &'static str,
        /// As it was given.
        value: String,
        /// What is wrong about it.
        problem: &'static str,
    },
    /// The time has no form on a disc.
    #[error("the year of the time {secs} (seconds since 1970) is not one of 1900 to 2155")]
    Time {
        /// Seconds since 1970.
        secs: i64,
    },
    /// A path table cannot count so many.
    #[error("there are more than 65535 directories")]
    Directories,
    /// Block numbers have 32 bits.
    #[error("it would be larger than 8 TiB")]
    Size,
    /// The last file became larger than was said.
    #[error("{path:?} has {size} bytes, where at most {at_most} were expected")]
    Last {
        /// Its path.
        path: String,
        /// The size it has.
        size: u64,
        /// The size it was said to have at most.
        at_most: u64,
    },
    /// Boot code, or how it is to be found.
    #[error("{0}")]
    Boot(&'static str),
}

impl IsoError {
    fn path(path: &[u8], problem: &'static str) -> Self {
        Self::Path {
            path: String::from_utf8_lossy(path).into_owned(),
            problem,
        }
    }
}

/// Returns how many blocks `bytes` take.
fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK)
}
