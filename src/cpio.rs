//! The `newc` form of cpio archives, which every Linux initramfs is in: headers, a reader and a writer.
//!
//! Content is streamed. What an initrd is made of besides (compression, several archives in a row) is in [`crate::initrd`].
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Read, Write};

/// How every header begins.
pub(crate) const MAGIC: &[u8; 6] = b"070701";
/// The same with checksums, which the kernel takes and nobody writes.
const MAGIC_CRC: &[u8; 6] = b"070702";
const HEADER_BYTES: usize = 110;
/// The name of the entry that ends an archive.
pub(crate) const TRAILER: &[u8] = b"TRAILER!!!";
/// No path in an initramfs comes near this; a larger value is a damaged archive.
const MAX_NAME_BYTES: u32 = 4096;
/// The bits of a mode that say what an entry is, and those of a file.
pub(crate) const S_IFMT: u32 = 0o170_000;
pub(crate) const S_IFREG: u32 = 0o100_000;

/// The thirteen numbers of a `newc` header, in the order they are written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    pub(crate) ino: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) mtime: u32,
    pub(crate) size: u32,
    pub(crate) dev: (u32, u32),
    pub(crate) rdev: (u32, u32),
    pub(crate) name_size: u32,
}

impl Header {
    fn parse(raw: &[u8; HEADER_BYTES]) -> io::Result<Self> {
        if &raw[..6] != MAGIC && &raw[..6] != MAGIC_CRC {
            return Err(bad("an entry does not begin with 070701"));
        }
        let field = |index: usize| -> io::Result<u32> {
            let text = std::str::from_utf8(&raw[6 + index * 8..14 + index * 8])
                .map_err(|_| bad("a header field is not text"))?;
            u32::from_str_radix(text, 16).map_err(|_| bad("a header field is not hexadecimal"))
        };
        Ok(Self {
            ino: field(0)?,
            mode: field(1)?,
            uid: field(2)?,
            gid: field(3)?,
            nlink: field(4)?,
            mtime: field(5)?,
            size: field(6)?,
            dev: (field(7)?, field(8)?),
            rdev: (field(9)?, field(10)?),
            name_size: field(11)?,
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        let fields = [
            self.ino,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.mtime,
            self.size,
            self.dev.0,
            self.dev.1,
            self.rdev.0,
            self.rdev.1,
            self.name_size,
            0,
        ];
        for field in fields {
            write!(out, "{field:08x}")?;
        }
        Ok(())
    }
}

pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cpio archive: {what}"))
}

/// Reads entries and keeps count, because every part is padded to four bytes.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Reader<R> {
    /// Starts reading at the beginning of an archive.
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, position: 0 }
    }

    /// Returns the next header and its name without the final NUL; `None` at the end of the input.
    pub(crate) fn next_header(&mut self) -> io::Result<Option<(Header, Vec<u8>)>> {
        self.align()?;
        let mut raw = [0u8; HEADER_BYTES];
        // Zero bytes between two archives are padding.
        loop {
            match self.read_some(&mut raw[..4])? {
                0 => return Ok(None),
                4 => {}
                _ => return Err(bad("it ends inside a header")),
            }
            if raw[..4] != [0; 4] {
                break;
            }
        }
        self.exact(&mut raw[4..])?;
        let header = Header::parse(&raw)?;
        if header.name_size == 0 || header.name_size > MAX_NAME_BYTES {
            return Err(bad("a name has an impossible length"));
        }
        let mut name = vec![0; header.name_size as usize];
        self.exact(&mut name)?;
        name.pop();
        self.align()?;
        Ok(Some((header, name)))
    }

    /// Copies the content of the entry just read, `size` bytes, and pads it.
    pub(crate) fn copy<W: Write>(&mut self, size: u64, out: &mut Writer<W>) -> io::Result<()> {
        self.copy_raw(size, out)?;
        out.pad(4)
    }

    /// Copies the content of the entry just read, `size` bytes, and nothing else.
    pub(crate) fn copy_raw(&mut self, size: u64, out: &mut impl Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.inner).take(size), out)?;
        self.position += copied;
        if copied == size {
            Ok(())
        } else {
            Err(bad("it ends inside a file"))
        }
    }

    /// Reads the content of the entry just read, `size` bytes; more than `limit` are an error.
    pub(crate) fn content(&mut self, size: u64, limit: u64) -> io::Result<Vec<u8>> {
        if size > limit {
            return Err(bad("a link or text is impossibly long"));
        }
        let mut content = vec![0; usize::try_from(size).map_err(|_| bad("it is too large"))?];
        self.exact(&mut content)?;
        Ok(content)
    }

    /// Passes over the content of the entry just read, `size` bytes.
    pub(crate) fn skip(&mut self, size: u64) -> io::Result<()> {
        self.copy_raw(size, &mut io::sink())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_some(buffer)? == buffer.len() {
            Ok(())
        } else {
            Err(bad("it ends inside an entry"))
        }
    }

    fn align(&mut self) -> io::Result<()> {
        let rest = (4 - self.position % 4) % 4;
        let mut skip = [0u8; 4];
        let wanted = rest as usize;
        // The very end of the input need not be padded.
        self.read_some(&mut skip[..wanted]).map(|_| ())
    }
}

/// Writes entries and keeps count, for the same reason.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    inner: W,
    position: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, position: 0 }
    }

    /// Returns what was written to.
    #[cfg(test)]
    pub(crate) fn into_inner(self) -> W {
        self.inner
    }

    /// Writes a header and its name; the content follows, then [`pad(4)`](Self::pad).
    pub(crate) fn entry(&mut self, header: &Header, name: &[u8]) -> io::Result<()> {
        let header = Header {
            name_size: name.len() as u32 + 1,
            ..*header
        };
        header.write(self)?;
        self.write_all(name)?;
        self.write_all(&[0])?;
        self.pad(4)
    }

    /// Fills up with zeros to a multiple of `to` bytes, at most 512.
    pub(crate) fn pad(&mut self, to: u64) -> io::Result<()> {
        let rest = (to - self.position % to) % to;
        self.write_all(&[0u8; 512][..rest as usize])
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
