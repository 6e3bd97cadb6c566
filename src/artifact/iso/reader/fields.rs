//! Rock Ridge fields of one record, with what is continued elsewhere.

use super::source::{Source, both32, damaged};
use super::{Posix, ReadError};
use crate::artifact::bytes::le32;
use crate::artifact::iso::BLOCK;
use crate::artifact::iso::time::epoch_secs;

/// The longest chain of continuations, as Linux follows them.
const MOST_CONTINUATIONS: usize = 32;
const WHAT: &str = "a Rock Ridge field";

/// What the fields of a record say together.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// How many bytes to pass over in all other records; only `.` of the top directory says so, and only with Rock Ridge.
    pub(super) skip: Option<u8>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) posix: Option<Posix>,
    pub(super) time_secs: Option<i64>,
    pub(super) target: Option<Vec<u8>>,
    /// The directory that stands here was moved to this block.
    pub(super) moved_to: Option<u32>,
    /// The directory stands here only because it was moved.
    pub(super) is_moved: bool,
    /// Whether `target` lacks the rest of its last component.
    component_goes_on: bool,
}

impl Fields {
    /// Reads the fields in `bytes`, which are at `offset` of the disc.
    pub(super) fn read(
        source: &mut Source<'_>,
        bytes: &[u8],
        offset: u64,
    ) -> Result<Self, ReadError> {
        let mut fields = Self::default();
        let mut next = fields.area(bytes, offset)?;
        for _ in 0..MOST_CONTINUATIONS {
            let Some((offset, len)) = next else {
                return Ok(fields);
            };
            let bytes = source.bytes("a continuation of Rock Ridge fields", offset, len)?;
            next = fields.area(&bytes, offset)?;
        }
        match next {
            None => Ok(fields),
            Some(_) => Err(damaged(WHAT, offset, "is continued without end")),
        }
    }

    /// Takes in the fields of one area and returns where they are continued.
    fn area(&mut self, mut bytes: &[u8], offset: u64) -> Result<Option<(u64, u64)>, ReadError> {
        let mut continued = None;
        while bytes.len() >= 4 && bytes[0] != 0 {
            let len = usize::from(bytes[2]);
            if len < 4 || len > bytes.len() {
                return Err(damaged(WHAT, offset, "is longer than its place"));
            }
            let (field, rest) = bytes.split_at(len);
            let bad = |why| damaged(WHAT, offset, why);
            match &field[..2] {
                b"ST" => break,
                b"SP" if field.len() >= 7 && field[4..6] == [0xbe, 0xef] => {
                    self.skip = Some(field[6]);
                }
                b"CE" if field.len() >= 28 => {
                    let numbers = [4, 12, 20].map(|at| both32(field, at));
                    let [Some(block), Some(at), Some(len)] = numbers else {
                        return Err(bad("has two continuations"));
                    };
                    if u64::from(len) > BLOCK {
                        return Err(bad("has a continuation longer than a block"));
                    }
                    let start = u64::from(block) * BLOCK + u64::from(at);
                    continued = Some((start, u64::from(len)));
                }
                b"PX" if field.len() >= 36 => {
                    let [mode, links, uid, gid] = [4, 12, 20, 28].map(|at| le32(field, at));
                    self.posix = Some(Posix {
                        mode,
                        links,
                        uid,
                        gid,
                    });
                }
                b"TF" => self.time_secs = modified(field).or(self.time_secs),
                // Only the real name counts, not what stands for `.` and `..`.
                b"NM" if field.len() >= 5 && field[4] & 0b110 == 0 => {
                    self.name.get_or_insert_default().extend(&field[5..]);
                }
                b"SL" if field.len() >= 5 => self
                    .components(&field[5..])
                    .ok_or_else(|| bad("has a component of a target that is longer than it"))?,
                b"CL" if field.len() >= 12 => self.moved_to = Some(le32(field, 4)),
                b"RE" => self.is_moved = true,
                _ => {}
            }
            bytes = rest;
        }
        Ok(continued)
    }

    /// Takes in components of a symbolic link's target.
    fn components(&mut self, mut bytes: &[u8]) -> Option<()> {
        let target = self.target.get_or_insert_default();
        while let [flags, len, rest @ ..] = bytes {
            let (text, rest) = rest.split_at_checked(usize::from(*len))?;
            if !target.is_empty() && !target.ends_with(b"/") && !self.component_goes_on {
                target.push(b'/');
            }
            match flags & 0b1110 {
                2 => target.push(b'.'),
                4 => target.extend(b".."),
                8 => target.push(b'/'),
                _ => target.extend(text),
            }
            self.component_goes_on = flags & 1 != 0;
            bytes = rest;
        }
        Some(())
    }
}

/// Returns the time of the last change that a `TF` field has in its short form.
fn modified(field: &[u8]) -> Option<i64> {
    const CREATION: u8 = 1;
    const MODIFY: u8 = 2;
    const LONG: u8 = 0x80;
    let flags = *field.get(4)?;
    if flags & MODIFY == 0 || flags & LONG != 0 {
        return None;
    }
    let at = if flags & CREATION == 0 { 5 } else { 12 };
    let bytes = field.get(at..at + 7)?;
    Some(epoch_secs(bytes.try_into().ok()?))
}
