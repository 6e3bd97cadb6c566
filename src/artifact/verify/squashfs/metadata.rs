//! Blocks of a squashfs: what is compressed, and what is written across blocks.

use std::io::{self, Read};

use super::bad;
use crate::artifact::bytes::{le16, le32};
use crate::artifact::region::Region;

/// What a metadata block holds at most.
pub(super) const METADATA: usize = 8192;
/// How much is unpacked of one squashfs, whatever its numbers say.
const BUDGET: u64 = 1 << 29;

/// The most memory that a block in xz may ask for: the largest have a dictionary of a megabyte.
const XZ_MEMORY_BYTES: u64 = 16 << 20;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compressor {
    Gzip,
    Lz4,
    Xz,
    Zstd,
}

impl Compressor {
    /// Unpacks `packed` to at most `most` bytes.
    fn unpack(self, packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let read = |decoder: &mut dyn Read, plain: &mut Vec<u8>| {
            let most = most as u64 + 1;
            decoder.take(most).read_to_end(plain)
        };
        let done = match self {
            Self::Gzip => read(&mut flate2::read::ZlibDecoder::new(packed), &mut plain),
            Self::Lz4 => {
                plain.resize(most, 0);
                let len = lz4_flex::block::decompress_into(packed, &mut plain);
                len.inspect(|len| plain.truncate(*len))
                    .map_err(io::Error::other)
            }
            Self::Xz => liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, 0)
                .map_err(io::Error::from)
                .and_then(|stream| {
                    let mut decoder = liblzma::bufread::XzDecoder::new_stream(packed, stream);
                    read(&mut decoder, &mut plain)
                }),
            Self::Zstd => zstd::Decoder::with_buffer(packed).and_then(|mut decoder| {
                // No block is larger than a megabyte.
                decoder.window_log_max(20)?;
                read(&mut decoder, &mut plain)
            }),
        };
        match done {
            Ok(_) if plain.len() <= most => Ok(plain),
            _ => Err(bad("a block of it does not unpack")),
        }
    }
}

/// Blocks at their places, as many as may still be read.
#[derive(Debug)]
pub(super) struct Blocks {
    region: Region,
    compressor: Compressor,
    left: u64,
}

impl Blocks {
    pub(super) fn new(region: Region, compressor: Compressor) -> Self {
        Self {
            region,
            compressor,
            left: BUDGET,
        }
    }

    /// Reads `stored` bytes at `offset`, which are compressed or not, and are `most` bytes at most.
    pub(super) fn block(
        &mut self,
        offset: u64,
        stored: usize,
        is_packed: bool,
        most: usize,
    ) -> io::Result<Vec<u8>> {
        if stored > most {
            return Err(bad("a block of it is too large"));
        }
        let left = self.left.checked_sub(most as u64);
        self.left = left.ok_or_else(|| bad("its directories have no end"))?;
        let bytes = self.bytes(offset, stored)?;
        match is_packed {
            true => self.compressor.unpack(&bytes, most),
            false => Ok(bytes),
        }
    }

    /// Reads `len` bytes at `offset`.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self.region.read_exact_at(&mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(bad("a block of it is past its end"))
            }
            done => done.map(|()| bytes),
        }
    }
}

/// A place in metadata, which goes on in the next block.
#[derive(Debug)]
pub(super) struct Cursor<'b> {
    blocks: &'b mut Blocks,
    next: u64,
    block: Vec<u8>,
    at: usize,
}

impl<'b> Cursor<'b> {
    /// Returns the place `offset` in the block that begins at `start`.
    pub(super) fn new(blocks: &'b mut Blocks, start: u64, offset: u16) -> io::Result<Self> {
        let mut cursor = Self {
            blocks,
            next: start,
            block: Vec::new(),
            at: 0,
        };
        cursor.load()?;
        cursor.at = offset.into();
        Ok(cursor)
    }

    fn load(&mut self) -> io::Result<()> {
        const IS_PLAIN: u16 = 0x8000;
        let header = self.blocks.bytes(self.next, 2)?;
        let header = le16(&header, 0);
        let stored = usize::from(header & !IS_PLAIN);
        let is_packed = header & IS_PLAIN == 0;
        self.block = self
            .blocks
            .block(self.next + 2, stored, is_packed, METADATA)?;
        self.next += 2 + stored as u64;
        self.at = 0;
        match self.block.is_empty() {
            true => Err(bad("a block of it is empty")),
            false => Ok(()),
        }
    }

    /// Returns the next `len` bytes.
    pub(super) fn take(&mut self, mut len: usize) -> io::Result<Vec<u8>> {
        let mut taken = Vec::new();
        while len > 0 {
            if self.at >= self.block.len() {
                let over = self.at - self.block.len();
                self.load()?;
                self.at = over;
                continue;
            }
            let now = len.min(self.block.len() - self.at);
            taken.extend_from_slice(&self.block[self.at..self.at + now]);
            self.at += now;
            len -= now;
        }
        Ok(taken)
    }

    pub(super) fn skip(&mut self, len: usize) -> io::Result<()> {
        self.take(len).map(|_| ())
    }

    pub(super) fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(le16(&bytes, 0))
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(le32(&bytes, 0))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says in the header of the first block of `stream` that its dictionary has 64 MiB.
    ///
    /// Spec: The .xz File Format 1.2, 3.1 and 5.3.1.
    fn with_large_dictionary(stream: &mut [u8]) {
        const HEADER: usize = 12;
        const MIB_64: u8 = 28;
        let header_bytes = (usize::from(stream[HEADER]) + 1) * 4;
        let (header, checksum) =
            stream[HEADER..HEADER + header_bytes].split_at_mut(header_bytes - 4);
        // Flags, then the filter: LZMA2 with one byte of properties.
        assert_eq!(header[1..4], [0, 0x21, 1]);
        header[4] = MIB_64;
        checksum.copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    }

    #[test]
    fn a_block_in_xz_gets_the_memory_of_a_block_and_no_more() {
        let mut packed = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new(&b"some text"[..], 0);
        encoder.read_to_end(&mut packed).expect("packed");
        let unpack = |packed: &[u8]| Compressor::Xz.unpack(packed, METADATA);
        assert_eq!(unpack(&packed).expect("sound"), b"some text");
        with_large_dictionary(&mut packed);
        let error = unpack(&packed).expect_err("too much memory");
        assert_eq!(error.to_string(), "a block of it does not unpack");
    }
}
