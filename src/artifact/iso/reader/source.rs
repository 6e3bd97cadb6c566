//! Reads that stay inside the disc and within what reading one may cost.

use super::ReadError;
use crate::artifact::bytes::{be32, le32};
use crate::artifact::iso::BLOCK;
use crate::artifact::region::Region;

/// How many bytes of directories, paths and the like are read of a disc at most, however they refer to each other. A disc with
/// 65535 directories and a million files stays well below.
const BUDGET: u64 = 1 << 28;

/// A disc and what may still be read of it.
pub(super) struct Source<'a> {
    region: &'a Region,
    left: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(region: &'a Region) -> Self {
        Self {
            region,
            left: BUDGET,
        }
    }

    /// Returns the size of the disc in bytes.
    pub(super) fn len(&self) -> u64 {
        self.region.len()
    }

    /// Counts `bytes` that are made of what was read.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(bytes).ok_or(ReadError::TooMany {
            what: "bytes of directories",
            limit: BUDGET,
        })?;
        Ok(())
    }

    /// Reads `len` bytes from `offset` on, which belong to `what`.
    pub(super) fn bytes(
        &mut self,
        what: &'static str,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, ReadError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(damaged(what, offset, "reaches past the end of the disc"));
        }
        self.spend(len)?;
        let mut bytes = vec![0; len as usize];
        self.region.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads one block.
    pub(super) fn block(&mut self, what: &'static str, block: u32) -> Result<Vec<u8>, ReadError> {
        self.bytes(what, u64::from(block) * BLOCK, BLOCK)
    }
}

pub(super) fn damaged(what: &'static str, offset: u64, why: &'static str) -> ReadError {
    ReadError::Damaged { what, offset, why }
}

/// Returns a number that stands in both orders; none where they differ.
pub(super) fn both32(bytes: &[u8], at: usize) -> Option<u32> {
    let number = le32(bytes, at);
    (number == be32(bytes, at + 4)).then_some(number)
}
