//! Reads what others made without being kept busy by it for ever.

use std::io::{self, BufRead, Read};

use crate::progress::bytes_text;

/// A reader that fails when there is more than it may read: [`Read::take`] would make a whole of what was cut off.
#[derive(Debug)]
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
    /// What is too much of it, for the error: "it is larger than".
    what: &'static str,
}

impl<R> Bounded<R> {
    /// Wraps `inner`, of which `limit` bytes may be read.
    pub(crate) fn new(inner: R, limit: u64, what: &'static str) -> Self {
        Self {
            inner,
            left: limit,
            limit,
            what,
        }
    }

    /// Counts what was read elsewhere, of the same whole.
    pub(crate) fn after(mut self, read: u64) -> Self {
        self.left = self.limit.saturating_sub(read);
        self
    }

    /// Returns how many bytes were read, those elsewhere among them.
    pub(crate) fn count(&self) -> u64 {
        self.limit - self.left
    }

    /// Returns what was wrapped.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn room(&self, wanted: usize) -> usize {
        wanted.min(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

fn too_much(what: &str, limit: u64) -> io::Error {
    let text = format!("{what} {}, the most that is read", bytes_text(limit));
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            // The end is where it may be: only another byte is too much.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(too_much(self.what, self.limit)),
            };
        }
        let room = self.room(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (room, what, limit) = (self.room(usize::MAX), self.what, self.limit);
        let buffer = self.inner.fill_buf()?;
        match room {
            0 if !buffer.is_empty() => Err(too_much(what, limit)),
            _ => Ok(&buffer[..buffer.len().min(room)]),
        }
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn bounded(content: &[u8]) -> Bounded<BufReader<&[u8]>> {
        Bounded::new(BufReader::with_capacity(3, content), 8, "it is larger than")
    }

    #[test]
    fn what_is_as_long_as_it_may_be_is_read_and_one_byte_more_is_refused() {
        let mut read = Vec::new();
        bounded(b"12345678").read_to_end(&mut read).unwrap();
        assert_eq!(read, b"12345678");
        for error in [
            bounded(b"123456789").read_to_end(&mut read).unwrap_err(),
            bounded(b"123456789")
                .read_until(b'x', &mut read)
                .unwrap_err(),
        ] {
            let text = "it is larger than 8 B, the most that is read";
            assert_eq!(error.to_string(), text);
        }
        let mut rest = bounded(b"1234").after(6);
        assert!(rest.read_to_end(&mut read).is_err());
        assert_eq!(rest.count(), 8);
    }
}
