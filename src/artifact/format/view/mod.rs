//! The disk in a file of another form, read as if it were raw.
//!
//! Whoever wrote the file, its numbers are believed only as far as they lead inside it. The structure is checked when the file is opened,
//! so that what is read later can be wrong in one way only: a piece of it does not unpack, of which a [`View`] keeps note. Pieces that
//! nobody reads are unpacked by [`View::unpack_all`].
//! Memory does not grow with the file: tables stay in it, and of what was unpacked the last few pieces are kept.
//!
//! | file | what |
//! |---|---|
//! | [`qcow2`] | images of QEMU's, of both versions |
//! | [`vmdk`] | VMDKs in one file: stream-optimised ones, and those that grow |
//! | [`gzip`] | what has to be unpacked first: disks for MAAS, and archives for Google Compute Engine |
//! | `pieces` | disks whose pieces are anywhere in a file |

pub mod gzip;
mod pieces;
pub mod qcow2;
#[cfg(test)]
mod tests;
pub mod vmdk;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use kfactory_sandbox::CancelToken;

use crate::artifact::region::Region;

/// Why there is no disk to be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The file contradicts itself.
    #[error("{0}")]
    Damaged(String),
    /// It is of a kind that is not read; says what it is.
    #[error("it is {0}, which is not read here")]
    Unread(String),
    /// A file cannot be read, or written where it is unpacked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A disk that is read.
#[derive(Debug, Clone)]
pub struct View {
    /// The disk.
    pub disk: Region,
    /// What the file is, in a few words.
    pub form: String,
    damage: Arc<OnceLock<String>>,
    /// What may be packed still; nothing where all was unpacked when it was opened.
    pieces: Option<Arc<dyn pieces::Unpack>>,
}

impl View {
    /// Returns what turned out to be damaged while the disk was read.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Unpacks what is packed, each piece once, until `stop`: as much work as `gzip -t`, in the memory of one piece.
    ///
    /// # Errors
    ///
    /// A piece does not unpack, the file cannot be read, or the run is stopped.
    pub fn unpack_all(&self, stop: Option<&CancelToken>) -> Result<(), ViewError> {
        let mut pieces = self.pieces.iter();
        pieces.try_for_each(|pieces| pieces.unpack_all(stop))
    }
}

fn damaged<T>(why: impl Into<String>) -> Result<T, ViewError> {
    Err(ViewError::Damaged(why.into()))
}

fn unread<T>(what: impl Into<String>) -> Result<T, ViewError> {
    Err(ViewError::Unread(what.into()))
}

/// A file of which numbers are read at places that the file itself names.
#[derive(Debug, Clone)]
struct Source {
    file: Arc<File>,
    len: u64,
}

impl Source {
    fn new(file: Arc<File>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// Returns whether `len` bytes from `at` on are in the file.
    fn holds(&self, at: u64, len: u64) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Fills `bytes` with what is at `at`; where the file ends before, with zeros.
    fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let there = self.len.saturating_sub(at).min(bytes.len() as u64) as usize;
        let (there, missing) = bytes.split_at_mut(there);
        missing.fill(0);
        self.file.read_exact_at(there, at)
    }

    fn bytes<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, at)?;
        Ok(bytes)
    }

    /// Calls `act` with each of the `count` entries of `N` bytes from `at` on, and its number.
    fn entries<const N: usize>(
        &self,
        at: u64,
        count: u64,
        mut act: impl FnMut(u64, [u8; N]) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        const AT_ONCE: u64 = 4096;
        let mut bytes = vec![0; AT_ONCE as usize * N];
        for first in (0..count).step_by(AT_ONCE as usize) {
            let now = &mut bytes[..(count - first).min(AT_ONCE) as usize * N];
            self.read(now, at + first * N as u64)?;
            for (number, entry) in (first..).zip(now.chunks_exact(N)) {
                act(number, entry.try_into().expect("N bytes"))?;
            }
        }
        Ok(())
    }
}
