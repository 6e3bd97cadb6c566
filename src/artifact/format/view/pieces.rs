//! Disks whose pieces are anywhere in a file, as they are or packed.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kfactory_sandbox::CancelToken;

use super::{Source, View, ViewError, damaged};
use crate::artifact::region::{ReadAt, Region};
use crate::stop::Stopped;

/// What is kept of unpacked pieces, in bytes.
const CACHE_BYTES: u64 = 8 << 20;

/// Where a piece of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is zeros.
    Zeros,
    /// In the file from this byte on.
    At(u64),
    /// In the file from this byte on, in so many bytes, from which the whole piece is unpacked.
    Packed(u64, u64),
}

/// Where the pieces of a disk are in a file.
pub(super) trait Map: fmt::Debug + Send + Sync {
    /// Returns the bytes of a piece. All are of this size and begin at its multiples; the last one may be cut off.
    fn piece_bytes(&self) -> u64;
    /// Returns where the byte `at` of the disk is, and how many bytes from it on are in the same way in the same place, one at least.
    fn place(&self, source: &Source, at: u64) -> io::Result<(Place, u64)>;
    /// Calls `act` with every packed piece, in the order of the disk.
    fn each_packed(&self, source: &Source, act: &mut Act<'_>) -> Result<(), ViewError>;
    /// Unpacks `packed` into `piece`, which is as long as a piece and of which the disk has `needed` bytes. Returns how many bytes of
    /// `packed` that took; none where it is impossible.
    fn unpack(&self, packed: &[u8], piece: &mut [u8], needed: usize) -> Option<u64>;
}

/// What is done with a packed piece: its number, where it is in the file, and its bytes there at most.
pub(super) type Act<'a> = dyn FnMut(u64, u64, u64) -> Result<(), ViewError> + 'a;

/// Pieces that can be unpacked without being asked for.
pub(super) trait Unpack: fmt::Debug + Send + Sync {
    /// Unpacks every packed piece once, until `stop`.
    ///
    /// # Errors
    ///
    /// One does not unpack, the file cannot be read, or the run is stopped.
    fn unpack_all(&self, stop: Option<&CancelToken>) -> Result<(), ViewError>;
}

/// A disk in pieces.
#[derive(Debug)]
struct Pieces<M> {
    source: Source,
    map: M,
    /// The bytes of the disk.
    len: u64,
    /// By where they are in the file, the one used last at the end.
    unpacked: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
    damage: Arc<OnceLock<String>>,
}

/// Returns the disk of `len` bytes that `map` finds in `source`; `form` says what the file is.
pub(super) fn view(source: Source, map: impl Map + 'static, len: u64, form: String) -> View {
    let damage = Arc::default();
    let pieces = Arc::new(Pieces {
        source,
        map,
        len,
        unpacked: Mutex::default(),
        damage: Arc::clone(&damage),
    });
    View {
        disk: Region::of_view(Arc::<Pieces<_>>::clone(&pieces), len),
        form,
        damage,
        pieces: Some(pieces),
    }
}

impl<M: Map> Pieces<M> {
    /// Returns the piece that is packed in `len` bytes at `at`; `number` tells people which one.
    fn unpacked(&self, at: u64, len: u64, number: u64) -> io::Result<Arc<Vec<u8>>> {
        let mut cache = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = cache.iter().position(|(known, _)| *known == at) {
            let found = cache.remove(place).expect("it was found there");
            let piece = Arc::clone(&found.1);
            cache.push_back(found);
            return Ok(piece);
        }
        let size = self.map.piece_bytes();
        while cache.len() as u64 >= (CACHE_BYTES / size).max(1) {
            cache.pop_front();
        }
        let mut packed = vec![0; len as usize];
        self.source.read(&mut packed, at)?;
        let mut piece = vec![0; size as usize];
        if self.unpack(number, &packed, &mut piece).is_none() {
            return Err(self.damaged(does_not_unpack(number)));
        }
        let piece = Arc::new(piece);
        cache.push_back((at, Arc::clone(&piece)));
        Ok(piece)
    }

    /// As [`Map::unpack`], of the piece of this number.
    fn unpack(&self, number: u64, packed: &[u8], piece: &mut [u8]) -> Option<u64> {
        let size = self.map.piece_bytes();
        let needed = self.len.saturating_sub(number * size).min(size);
        self.map.unpack(packed, piece, needed as usize)
    }

    fn damaged(&self, why: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, why.clone());
        let _ = self.damage.set(why);
        error
    }
}

fn does_not_unpack(number: u64) -> String {
    format!("cluster {number} of the disk does not unpack")
}

impl<M: Map> Unpack for Pieces<M> {
    fn unpack_all(&self, stop: Option<&CancelToken>) -> Result<(), ViewError> {
        let mut packed = Vec::new();
        let mut piece = vec![0; self.map.piece_bytes() as usize];
        // No byte of the file is in two pieces, so all of them together have no more than it has.
        let mut left = self.source.len;
        self.map.each_packed(&self.source, &mut |number, at, len| {
            if stop.is_some_and(CancelToken::is_cancelled) {
                return Err(io::Error::from(Stopped).into());
            }
            packed.resize(len as usize, 0);
            self.source.read(&mut packed, at)?;
            let Some(taken) = self.unpack(number, &packed, &mut piece) else {
                return damaged(does_not_unpack(number));
            };
            match left.checked_sub(taken) {
                Some(rest) => left = rest,
                None => return damaged("packed clusters of it are in the same place"),
            }
            Ok(())
        })
    }
}

impl<M: Map> ReadAt for Pieces<M> {
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        let size = self.map.piece_bytes();
        while !bytes.is_empty() {
            let (place, len) = match self.map.place(&self.source, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.damaged(error.to_string()));
                }
                found => found?,
            };
            let now;
            let count = (bytes.len() as u64).min(len) as usize;
            (now, bytes) = bytes.split_at_mut(count);
            match place {
                Place::Zeros => now.fill(0),
                Place::At(at) => self.source.read(now, at)?,
                Place::Packed(at, len) => {
                    let piece = self.unpacked(at, len, offset / size)?;
                    let skipped = (offset % size) as usize;
                    now.copy_from_slice(&piece[skipped..skipped + count]);
                }
            }
            offset += count as u64;
        }
        Ok(())
    }
}
