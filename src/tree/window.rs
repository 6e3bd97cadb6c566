//! The content of one file, to be read anywhere in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

/// The content of one file of a tree.
#[derive(Debug)]
pub struct Window<'a> {
    source: Source<'a>,
    size: u64,
}

#[derive(Debug)]
enum Source<'a> {
    Bytes(&'a [u8]),
    /// A part of a file, from this byte on.
    Part(&'a File, u64),
    Own(File),
}

impl<'a> Window<'a> {
    pub(super) fn of_bytes(bytes: &'a [u8]) -> Self {
        Self {
            source: Source::Bytes(bytes),
            size: bytes.len() as u64,
        }
    }

    pub(super) fn of_part(file: &'a File, start: u64, size: u64) -> Self {
        Self {
            source: Source::Part(file, start),
            size,
        }
    }

    pub(super) fn of_file(file: File, size: u64) -> Self {
        Self {
            source: Source::Own(file),
            size,
        }
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` where the content ends before, or the content cannot be read.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = self.read_at(buffer, offset)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[count..];
            offset += count as u64;
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = &mut buffer[..wanted];
        if wanted == 0 {
            return Ok(0);
        }
        match &self.source {
            Source::Bytes(bytes) => {
                let start = usize::try_from(offset).expect("inside the bytes");
                buffer.copy_from_slice(&bytes[start..start + wanted]);
                Ok(wanted)
            }
            Source::Part(file, start) => file.read_at(buffer, start + offset),
            Source::Own(file) => file.read_at(buffer, offset),
        }
    }

    pub(super) fn into_reader(self) -> impl Read + Send + 'a {
        Reader {
            window: self,
            offset: 0,
        }
    }
}

#[derive(Debug)]
struct Reader<'a> {
    window: Window<'a>,
    offset: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.window.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
