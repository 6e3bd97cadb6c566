//! Path tables: a second way to every directory, which some systems take and which must lead to the same.

use std::collections::BTreeSet;

use super::ReadError;
use super::source::{Source, damaged};
use super::walk::{Directory, Tree};
use crate::artifact::iso::BLOCK;

const WHAT: &str = "a path table";

/// Checks that the table at `block` has the directories of `tree` and no others.
pub(super) fn check(
    source: &mut Source<'_>,
    block: u32,
    len: u32,
    is_little: bool,
    tree: &Tree,
) -> Result<(), ReadError> {
    let offset = u64::from(block) * BLOCK;
    let bytes = source.bytes(WHAT, offset, len.into())?;
    // One more tells that there are too many.
    let most = tree.directories.len() + 1;
    let listed = parse(&bytes, is_little, most)
        .ok_or_else(|| damaged(WHAT, offset, "has an entry that is cut off or out of order"))?;
    // Where directories were moved, the table knows their place, and the tree where they belong.
    let same = if tree.has_moved {
        blocks(&listed) == blocks(&tree.directories)
    } else {
        listed.len() == tree.directories.len()
            && listed.iter().collect::<BTreeSet<_>>() == tree.directories.iter().collect()
    };
    match same {
        true => Ok(()),
        false => Err(damaged(WHAT, offset, "has other directories than the tree")),
    }
}

fn blocks(directories: &[Directory]) -> BTreeSet<u32> {
    directories.iter().map(|dir| dir.block).collect()
}

/// Returns the directories of a table, `most` of them; none where an entry is cut off or out of order.
fn parse(mut bytes: &[u8], is_little: bool, most: usize) -> Option<Vec<Directory>> {
    let mut found: Vec<Directory> = Vec::new();
    while !bytes.is_empty() && found.len() < most {
        let (header, rest) = bytes.split_first_chunk::<8>()?;
        let len = usize::from(header[0]);
        let (identifier, rest) = rest.split_at_checked(len)?;
        let mut block = [header[2], header[3], header[4], header[5]];
        let mut parent = [header[6], header[7]];
        if !is_little {
            block.reverse();
            parent.reverse();
        }
        let block = u32::from_le_bytes(block).checked_add(header[1].into())?;
        // Parents come first; the top directory is its own.
        let parent = match usize::from(u16::from_le_bytes(parent)).checked_sub(1)? {
            0 if found.is_empty() => block,
            at => found.get(at)?.block,
        };
        found.push(Directory {
            identifier: identifier.to_vec(),
            block,
            parent,
        });
        bytes = rest.get(len % 2..)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_table_no_more_is_kept_than_the_tree_has_directories() {
        // A top directory in block 1 with a name of one byte, again and again.
        let table = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0].repeat(1 << 20);
        let found = parse(&table, true, 3).expect("sound");
        assert_eq!(found.len(), 3);
    }
}
