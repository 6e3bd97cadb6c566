//! Reads a disc back, whoever made it: descriptors, trees, boot catalog, MBR and GPT, as plain values.
//!
//! Bytes are trusted in nothing. What contradicts itself is an error that says where; memory and work are bounded whatever the
//! numbers say; and a path never has a component that leads elsewhere. Contents are not read: an [`Entry`] says where they are.
//!
//! Code map: `source` (bounded reads), `volume` (descriptors), `walk` and `record` (directories), `fields` (Rock Ridge), `path_table`, `boot`.

mod boot;
mod fields;
mod path_table;
mod record;
mod source;
#[cfg(test)]
mod tests;
mod volume;
mod walk;

use std::io;

pub use boot::{BootEntry, BootInfo, Catalog, Mbr};

use super::disc::Identifiers;
use crate::artifact::gpt;
use crate::artifact::region::{Extent, Region};
use source::Source;

/// All that is known of a disc without reading what its files hold.
#[derive(Debug)]
pub struct Image {
    /// The volume with upper-case names, or with those of Rock Ridge.
    pub primary: Volume,
    /// The volume with UCS-2 names.
    pub joliet: Option<Volume>,
    /// What firmware starts from a CD.
    pub boot: Option<Catalog>,
    /// The first sector, where it is an MBR.
    pub mbr: Option<Mbr>,
    /// The partition table that the MBR promises, if both its copies are sound and agree; otherwise why not. A disc without a
    /// sound one can still be read, as those are where the second copy is not in the last sector.
    pub gpt: Option<Result<gpt::Table, gpt::ReadError>>,
}

/// One descriptor and the tree that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Without the spaces that fill them up.
    pub identifiers: Identifiers,
    /// Its size in blocks of 2048 bytes.
    pub blocks: u32,
    /// When it was made: `YYYYMMDDhhmmsscc`.
    pub created: String,
    /// When it was last changed, the same way.
    pub modified: String,
    /// Whether the tree has Rock Ridge names.
    pub rock_ridge: bool,
    /// The tree by path; the top directory, whose path is empty, comes first.
    pub entries: Vec<Entry>,
}

/// One path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top directory; UTF-8 in Joliet trees.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// What Rock Ridge says of it.
    pub posix: Option<Posix>,
    /// When its content was last changed, in seconds since 1970.
    pub time_secs: i64,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A file, and where its bytes are, in order.
    File(Vec<Extent>),
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// Something else, by the type bits of its mode.
    Other,
}

/// Mode and owner of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posix {
    /// Type and permissions.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Why a disc cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no ISO 9660 here.
    #[error("it is no ISO 9660 disc: there is no volume descriptor in block 16")]
    NotADisc,
    /// Something contradicts itself, the format, or the size of the disc.
    #[error("{what} at byte {offset} {why}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// Where it is, from the start of the disc.
        offset: u64,
        /// How.
        why: &'static str,
    },
    /// More than any disc has that is meant well.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        limit: u64,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads `disc`, which ends where the region does; a partition that holds a disc is one, too.
///
/// # Errors
///
/// [`ReadError`] by its variant.
pub fn read(disc: &Region) -> Result<Image, ReadError> {
    let mut source = Source::new(disc);
    let descriptors = volume::descriptors(&mut source)?;
    let primary = descriptors.primary.read(&mut source)?;
    let joliet = descriptors
        .joliet
        .map(|joliet| joliet.read(&mut source))
        .transpose()?;
    let boot = descriptors
        .catalog
        .map(|block| boot::catalog(&mut source, block))
        .transpose()?;
    let mbr = boot::mbr(&mut source)?;
    let is_promised = mbr.as_ref().is_some_and(Mbr::is_protective);
    let gpt = is_promised.then(|| gpt::Table::read(disc));
    Ok(Image {
        primary,
        joliet,
        boot,
        mbr,
        gpt,
    })
}

impl Volume {
    /// Returns what is at `path`, relative to the top directory.
    pub fn entry(&self, path: impl AsRef<[u8]>) -> Option<&Entry> {
        let path = path.as_ref();
        let at = self
            .entries
            .binary_search_by(|entry| entry.path.as_slice().cmp(path));
        at.ok().map(|at| &self.entries[at])
    }
}

impl Entry {
    /// Returns the bytes that a file has; of anything else none.
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(extents) => extents.iter().map(|extent| extent.len).sum(),
            _ => 0,
        }
    }
}
