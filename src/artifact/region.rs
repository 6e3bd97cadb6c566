//! A part of a file that is filled or read as if it were a whole one: a partition of a disk, or a file inside a file system.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Consecutive bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where they start.
    pub start: u64,
    /// How many there are.
    pub len: u64,
}

/// Bytes that are read at any place: of a disk that a file holds in another form.
pub trait ReadAt: fmt::Debug + Send + Sync {
    /// Fills `bytes` with what stands at `offset`.
    ///
    /// # Errors
    ///
    /// What is behind cannot be read, or contradicts itself (`InvalidData`).
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Bytes of which it is counted how often they are read.
#[cfg(test)]
#[derive(Debug)]
pub struct Counted {
    whole: Region,
    reads: std::sync::atomic::AtomicUsize,
}

#[cfg(test)]
impl Counted {
    /// Counts from now on how often `whole` is read.
    pub fn new(whole: Region) -> Arc<Self> {
        let reads = Default::default();
        Arc::new(Self { whole, reads })
    }

    /// Returns the region whose reads are counted.
    pub fn region(self: &Arc<Self>) -> Region {
        Region::of_view(Arc::<Self>::clone(self), self.whole.len())
    }

    /// Returns how often it was read.
    pub fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl ReadAt for Counted {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.whole.read_exact_at(bytes, offset)
    }
}

/// What a region is of.
#[derive(Debug, Clone)]
enum Whole {
    File(Arc<File>),
    View(Arc<dyn ReadAt>),
}

/// The bytes of some extents of a file, in their order, numbered from 0.
///
/// Writers leave out what is zero: the file is a fresh one, whose holes read as zeros.
#[derive(Debug, Clone)]
pub struct Region {
    whole: Whole,
    /// By where they start in the region, each with where it is in the file.
    pieces: Vec<(u64, Extent)>,
    len: u64,
}

impl Region {
    /// Returns the first `len` bytes of `file`; it need not be so long yet.
    pub fn of_file(file: Arc<File>, len: u64) -> Self {
        Self::of(Whole::File(file), len)
    }

    /// Returns the first `len` bytes of `view`, to be read only.
    pub fn of_view(view: Arc<dyn ReadAt>, len: u64) -> Self {
        Self::of(Whole::View(view), len)
    }

    fn of(whole: Whole, len: u64) -> Self {
        Self {
            whole,
            pieces: vec![(0, Extent { start: 0, len })],
            len,
        }
    }

    /// Returns the length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length in bytes, of no collection"
    )]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns the region that `extents` of this one make up, one after the other.
    ///
    /// # Errors
    ///
    /// An extent reaches past the end.
    pub fn part(&self, extents: &[Extent]) -> io::Result<Self> {
        let mut pieces = Vec::new();
        let mut len = 0;
        for extent in extents {
            self.each(extent.start, extent.len, |piece| {
                pieces.push((len, piece));
                len += piece.len;
                Ok(())
            })?;
        }
        Ok(Self {
            whole: self.whole.clone(),
            pieces,
            len,
        })
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// The end of the region, the file cannot be written, or there is only a view.
    pub fn write_all_at(&self, mut bytes: &[u8], offset: u64) -> io::Result<()> {
        self.each(offset, bytes.len() as u64, |piece| {
            let now;
            (now, bytes) = bytes.split_at(piece.len as usize);
            match &self.whole {
                Whole::File(file) => file.write_all_at(now, piece.start),
                Whole::View(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            }
        })
    }

    /// Fills `bytes` with what stands at `offset`.
    ///
    /// # Errors
    ///
    /// The end of the region or of the file, or the file cannot be read.
    pub fn read_exact_at(&self, mut bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.each(offset, bytes.len() as u64, |piece| {
            let (now, rest) = std::mem::take(&mut bytes).split_at_mut(piece.len as usize);
            bytes = rest;
            match &self.whole {
                Whole::File(file) => file.read_exact_at(now, piece.start),
                Whole::View(view) => view.read_exact_at(now, piece.start),
            }
        })
    }

    /// Returns the bytes in their order.
    pub fn reader(&self) -> impl io::Read + use<> {
        Reader {
            region: self.clone(),
            offset: 0,
        }
    }

    /// Copies exactly `len` bytes of `content` to `offset`.
    ///
    /// # Errors
    ///
    /// `content` is shorter or cannot be read; otherwise as for [`write_all_at`](Self::write_all_at).
    pub fn copy_at(&self, content: &mut dyn io::Read, mut offset: u64, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; len.min(1 << 20) as usize];
        let end = offset + len;
        while offset < end {
            let now = &mut buffer[..(end - offset).min(1 << 20) as usize];
            content.read_exact(now)?;
            self.write_all_at(now, offset)?;
            offset += now.len() as u64;
        }
        Ok(())
    }

    /// Calls `act` with the parts of the file that hold `len` bytes from `offset` on.
    fn each(
        &self,
        mut offset: u64,
        mut len: u64,
        mut act: impl FnMut(Extent) -> io::Result<()>,
    ) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{len} bytes at {offset} of a region of {} bytes", self.len),
            ));
        }
        let mut next = self.pieces.partition_point(|(at, _)| *at <= offset);
        while len > 0 {
            let (at, piece) = self.pieces[next - 1];
            let skipped = offset - at;
            let now = len.min(piece.len - skipped);
            act(Extent {
                start: piece.start + skipped,
                len: now,
            })?;
            (offset, len, next) = (offset + now, len - now, next + 1);
        }
        Ok(())
    }
}

/// Reads a region from its start to its end.
#[derive(Debug)]
struct Reader {
    region: Region,
    offset: u64,
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.region.len - self.offset).unwrap_or(usize::MAX);
        let now = buffer.len().min(left);
        self.region.read_exact_at(&mut buffer[..now], self.offset)?;
        self.offset += now as u64;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(len: u64) -> Region {
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(len).expect("room");
        Region::of_file(Arc::new(file), len)
    }

    #[test]
    fn a_part_of_a_part_lands_where_both_say() {
        let whole = region(100);
        let extents = [(50, 10), (20, 10), (0, 5)].map(|(start, len)| Extent { start, len });
        let part = whole.part(&extents).expect("inside");
        let inner = part.part(&[Extent { start: 8, len: 14 }]).expect("inside");
        inner.write_all_at(b"abcdefghijklmn", 0).expect("written");
        let mut bytes = [0; 100];
        whole.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes[58..60], b"ab");
        assert_eq!(&bytes[20..30], b"cdefghijkl");
        assert_eq!(&bytes[..2], b"mn");
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 14);
        let mut back = [0; 4];
        inner.read_exact_at(&mut back, 10).expect("read");
        assert_eq!(&back, b"klmn");
    }

    #[test]
    fn nothing_is_written_past_the_end() {
        let whole = region(100);
        let part = whole
            .part(&[Extent { start: 90, len: 10 }])
            .expect("inside");
        assert!(part.write_all_at(b"12345", 6).is_err());
        assert!(part.write_all_at(b"1", u64::MAX).is_err());
        assert!(part.part(&[Extent { start: 5, len: 6 }]).is_err());
        part.copy_at(&mut &b"12345"[..], 5, 5).expect("fits");
        assert!(
            part.copy_at(&mut &b"1234"[..], 0, 5).is_err(),
            "content too short"
        );
    }
}
