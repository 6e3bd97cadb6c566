//! Volume descriptors.

use super::record::top_record;
use super::source::{Source, both32, damaged};
use super::{ReadError, Volume, path_table, walk};
use crate::artifact::bytes::{be32, le16, le32};
use crate::artifact::iso::BLOCK;
use crate::artifact::iso::descriptor::{EL_TORITO, FIRST};
use crate::artifact::iso::disc::Identifiers;
use crate::artifact::iso::names::Names;

/// No disc has so many descriptors.
const MOST: u32 = 64;
/// The escape sequences of the three levels of Joliet.
const JOLIET_LEVELS: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

/// What the descriptors lead to.
pub(super) struct Descriptors {
    pub(super) primary: Descriptor,
    pub(super) joliet: Option<Descriptor>,
    /// The block of the boot catalog.
    pub(super) catalog: Option<u32>,
}

/// One descriptor that has a tree.
pub(super) struct Descriptor {
    names: Names,
    offset: u64,
    bytes: Vec<u8>,
}

/// Reads the descriptors up to the one that ends them.
pub(super) fn descriptors(source: &mut Source<'_>) -> Result<Descriptors, ReadError> {
    let (mut primary, mut joliet, mut catalog) = (None, None, None);
    let has_first = source.len() >= (u64::from(FIRST) + 1) * BLOCK;
    for block in FIRST..FIRST + MOST {
        if block == FIRST && !has_first {
            return Err(ReadError::NotADisc);
        }
        let bytes = source.block("a volume descriptor", block)?;
        let offset = u64::from(block) * BLOCK;
        if &bytes[1..6] != b"CD001" {
            return Err(match block {
                FIRST => ReadError::NotADisc,
                _ => damaged("a volume descriptor", offset, "is none"),
            });
        }
        let found = |names| Descriptor {
            names,
            offset,
            bytes: bytes.clone(),
        };
        match bytes[0] {
            0 if bytes[7..].starts_with(EL_TORITO) => catalog = Some(le32(&bytes, 0x47)),
            1 if primary.is_none() => primary = Some(found(Names::Primary)),
            2 if JOLIET_LEVELS.contains(&&bytes[88..91]) && joliet.is_none() => {
                joliet = Some(found(Names::Joliet));
            }
            255 => {
                let primary = primary.ok_or(ReadError::NotADisc)?;
                return Ok(Descriptors {
                    primary,
                    joliet,
                    catalog,
                });
            }
            _ => {}
        }
    }
    Err(ReadError::TooMany {
        what: "volume descriptors",
        limit: MOST.into(),
    })
}

impl Descriptor {
    /// Reads the tree, and holds the path tables against it.
    pub(super) fn read(&self, source: &mut Source<'_>) -> Result<Volume, ReadError> {
        let bad = |why| damaged("the volume descriptor", self.offset, why);
        let bytes = &self.bytes;
        if u64::from(le16(bytes, 128)) != BLOCK {
            return Err(bad("counts in blocks of another size than 2048"));
        }
        let blocks = both32(bytes, 80).ok_or_else(|| bad("has two sizes of the volume"))?;
        if u64::from(blocks) * BLOCK > source.len() {
            return Err(bad(
                "says that the disc is larger than it is: the end is missing",
            ));
        }
        let path_table_len =
            both32(bytes, 132).ok_or_else(|| bad("has two sizes of the path table"))?;
        let root = top_record(&bytes[156..190]).ok_or_else(|| bad("has no top directory"))?;
        let tree = walk::walk(source, self.names, root)?;
        for (block, is_little) in [(le32(bytes, 140), true), (be32(bytes, 148), false)] {
            path_table::check(source, block, path_table_len, is_little, &tree)?;
        }
        Ok(Volume {
            identifiers: self.identifiers(),
            blocks,
            created: narrow(&bytes[813..829]),
            modified: narrow(&bytes[830..846]),
            rock_ridge: tree.rock_ridge,
            entries: tree.entries,
        })
    }

    fn identifiers(&self) -> Identifiers {
        let text = |at: usize, len: usize| match self.names {
            Names::Primary => narrow(&self.bytes[at..at + len]),
            Names::Joliet => wide(&self.bytes[at..at + len]),
        };
        Identifiers {
            system: text(8, 32),
            volume: text(40, 32),
            volume_set: text(190, 128),
            publisher: text(318, 128),
            preparer: text(446, 128),
            application: text(574, 128),
        }
    }
}

fn narrow(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches([' ', '\0']).to_owned()
}

fn wide(bytes: &[u8]) -> String {
    ucs2(bytes).trim_end_matches([' ', '\0']).to_owned()
}

/// Returns the text of UCS-2 bytes.
pub(super) fn ucs2(bytes: &[u8]) -> String {
    let units = bytes
        .chunks_exact(2)
        .map(|two| u16::from_be_bytes([two[0], two[1]]));
    String::from_utf16_lossy(&units.collect::<Vec<_>>())
}
