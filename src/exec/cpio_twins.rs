//! Finds files of a cpio archive that are equal, so that an initrd holds their content once.
//!
//! dracut copies each name of a program with many of them (the Rust coreutils of newer Ubuntu releases: two dozen of 12 MB
//! each), and all of it is memory on the machine that boots. Its own search depends on the clock, so it is left out.

use std::collections::HashMap;
use std::io::{self, Read};

use kfactory_layers::digest::{Digest, Hasher};

use crate::cpio::{Header, Reader, S_IFMT, S_IFREG, TRAILER};

/// Smaller files are not worth sharing an inode.
const MIN_BYTES: u32 = 64 << 10;

/// Which entries are equal, by their numbers in the order of the input.
#[derive(Debug, Default)]
pub(super) struct Twins {
    of: HashMap<usize, Twin>,
}

/// One of several equal files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Twin {
    /// The number of the first of them, which may be itself.
    pub(super) first: usize,
    /// How many there are.
    pub(super) count: u32,
}

/// What two files must have in common besides their content: the archive they are in, size, mode, user and group.
type Kind = (usize, u32, u32, u32, u32);

impl Twins {
    /// Finds them in what `open` opens; it is read twice, and only files that may have a twin are hashed.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a damaged archive, or an I/O error.
    pub(super) fn find<R: Read>(open: impl Fn() -> io::Result<R>) -> io::Result<Self> {
        let mut kinds: HashMap<Kind, usize> = HashMap::new();
        walk(open()?, |at, header, reader| {
            if let Some(kind) = kind(at, header) {
                *kinds.entry(kind).or_default() += 1;
            }
            reader.skip(u64::from(header.size))
        })?;
        kinds.retain(|_, count| *count > 1);
        let mut equal: HashMap<(Kind, Digest), Vec<usize>> = HashMap::new();
        if !kinds.is_empty() {
            walk(open()?, |at, header, reader| {
                let size = u64::from(header.size);
                let Some(kind) = kind(at, header).filter(|kind| kinds.contains_key(kind)) else {
                    return reader.skip(size);
                };
                let mut hash = Hashing(Hasher::new());
                reader.copy_raw(size, &mut hash)?;
                let digest = hash.0.finish();
                equal.entry((kind, digest)).or_default().push(at.number);
                Ok(())
            })?;
        }
        let mut of = HashMap::new();
        for numbers in equal.into_values().filter(|numbers| numbers.len() > 1) {
            let twin = Twin {
                first: numbers[0],
                count: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
            };
            of.extend(numbers.into_iter().map(|number| (number, twin)));
        }
        Ok(Self { of })
    }

    pub(super) fn get(&self, number: usize) -> Option<Twin> {
        self.of.get(&number).copied()
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, Default)]
struct At {
    archive: usize,
    number: usize,
}

/// Calls `look` for every entry of all archives in a row; it must pass over the content.
fn walk<R: Read>(
    input: R,
    mut look: impl FnMut(At, &Header, &mut Reader<R>) -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = Reader::new(input);
    let mut at = At::default();
    while let Some((header, name)) = reader.next_header()? {
        look(at, &header, &mut reader)?;
        at.number += 1;
        at.archive += usize::from(name == TRAILER);
    }
    Ok(())
}

/// Returns the kind of a file that may have a twin.
fn kind(at: At, header: &Header) -> Option<Kind> {
    let may = header.mode & S_IFMT == S_IFREG && header.nlink == 1 && header.size >= MIN_BYTES;
    may.then_some((
        at.archive,
        header.size,
        header.mode & 0o1777,
        header.uid,
        header.gid,
    ))
}

struct Hashing(Hasher);

impl io::Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
