//! Reads archives of any origin, entry by entry, in bounded memory.

use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

use super::decode::{Decoded, Extensions, decode, header_name, number, path_from};
use super::header::{self, Format, Header, until_nul};
use super::sparse::{self, ContentMap, Found, Map, PaxSparse, Region};
use super::{BLOCK, MAX_EXTENDED_HEADER, padding};
use crate::metadata::{Entry, EntryKind};

/// How much is read at once, in bytes: content goes to its file from here, and stays in the processor's cache on the way.
const READ_BUFFER: usize = 512 * 1024;

/// Why an archive could not be read further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The input failed.
    #[error("reading the archive at byte {offset}")]
    Io {
        /// Bytes of the archive before the failure.
        offset: u64,
        /// The input's reason.
        #[source]
        source: io::Error,
    },
    /// The archive ends inside an entry.
    #[error("the archive ends inside an entry, after {offset} bytes")]
    Truncated {
        /// Length of the archive, in bytes.
        offset: u64,
    },
    /// What should be a header is none.
    #[error("no archive header at byte {offset}")]
    NotAHeader {
        /// Where it should be.
        offset: u64,
    },
    /// A header says something that cannot be.
    #[error("archive entry {path:?}: invalid {field}")]
    InvalidField {
        /// Path of the entry, as far as it is known.
        path: PathBuf,
        /// Which part of the header.
        field: &'static str,
    },
    /// The entry has two names or two targets, of which every tool would take another.
    #[error("archive entry {path:?} gives its {field} twice")]
    Ambiguous {
        /// Path of the entry, as far as it is known.
        path: PathBuf,
        /// Which part of the header.
        field: &'static str,
    },
    /// The headers of one entry take more memory than any honest entry needs.
    #[error("archive entry at byte {offset}: extended headers take more than {limit} bytes")]
    HeaderTooLarge {
        /// Where the extended header is.
        offset: u64,
        /// [`MAX_EXTENDED_HEADER`].
        limit: u64,
    },
    /// A type of entry that has no meaning in a root filesystem, such as one part of a multi-volume archive.
    #[error("archive entry {path:?} is of the unsupported type {kind:?}")]
    Unsupported {
        /// Path of the entry.
        path: PathBuf,
        /// The type flag.
        kind: char,
    },
}

/// Data at a place in a file; what lies between chunks, and after the last one, is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The data, never empty.
    pub bytes: &'a [u8],
}

/// Reads an archive: [`next_entry`](Self::next_entry) until `None`, and between the calls as much of the entry's content as is wanted.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: R,
    buffer: Vec<u8>,
    ready: Range<usize>,
    /// Bytes of the archive handed out so far.
    offset: u64,
    content: Unread,
    ended: bool,
    has_end_mark: bool,
}

/// What is left of the content of the current entry.
#[derive(Debug, Default)]
struct Unread {
    /// The regions, last one first; the last element is the one being read.
    regions: Vec<Region>,
    /// Bytes still in the archive, padding not counted.
    stored: u64,
    padding: u64,
    /// Whether the file has holes.
    sparse: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Starts reading the uncompressed archive `input`. It is read in large pieces; no buffer around it is needed.
    pub fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; READ_BUFFER],
            ready: 0..0,
            offset: 0,
            content: Unread::default(),
            ended: false,
            has_end_mark: false,
        }
    }

    /// Returns the next entry, or `None` at the end of the archive. Content of the entry before that was not read is skipped.
    ///
    /// Paths and link targets are as the archive has them: absolute, with `..`, or anything else but empty.
    /// On `None` the input has been read to its end, also past the end of the archive, so that a digest over it is complete.
    ///
    /// # Errors
    ///
    /// Every variant of [`ReadError`]. The reader is of no use afterwards.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.next_header()? {
            let extended = header.format() != Format::Old;
            match header.kind() {
                b'x' if extended => {
                    self.extension(&header, &mut extensions, |all| &mut all.records)?
                }
                b'L' if extended => {
                    self.extension(&header, &mut extensions, |all| &mut all.long_name)?
                }
                b'K' if extended => {
                    self.extension(&header, &mut extensions, |all| &mut all.long_link)?
                }
                // Defaults for the entries that follow. No layer tool honours them, so neither does this reader.
                b'g' if extended => drop(self.extended_content(&header, 0)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        if extensions.taken > 0 {
            return Err(self.truncated());
        }
        Ok(None)
    }

    /// Returns the next data of the current entry's content, or `None` at its end. Holes of sparse files are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] and [`ReadError::Truncated`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>, ReadError> {
        let region = loop {
            match self.content.regions.last() {
                None => return Ok(None),
                Some(region) if region.length > 0 => break *region,
                Some(_) => _ = self.content.regions.pop(),
            }
        };
        if self.ready.is_empty() && self.fill()? == 0 {
            return Err(self.truncated());
        }
        let length = usize::try_from(region.length)
            .unwrap_or(usize::MAX)
            .min(self.ready.len());
        let start = self.ready.start;
        self.consume(length);
        self.content.stored -= length as u64;
        if let Some(current) = self.content.regions.last_mut() {
            current.offset += length as u64;
            current.length -= length as u64;
        }
        Ok(Some(Chunk {
            offset: region.offset,
            bytes: &self.buffer[start..start + length],
        }))
    }

    /// Returns whether the archive said itself that it ends there, once [`next_entry`](Self::next_entry) has returned `None`.
    ///
    /// One without the mark was cut off between two entries, or its writer left out what every other one writes.
    pub fn has_end_mark(&self) -> bool {
        self.has_end_mark
    }

    /// Returns whether the current entry is a file with holes.
    pub fn is_sparse(&self) -> bool {
        self.content.sparse
    }

    /// Returns the current entry's content as a stream of `size` bytes, holes filled with zeros.
    pub fn content(&mut self, size: u64) -> Content<'_, R> {
        Content {
            archive: self,
            position: 0,
            size,
            zeros: 0,
            bytes: 0..0,
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, ReadError> {
        let Decoded {
            mut entry,
            stored,
            sparse,
        } = decode(header, extensions)?;
        // Only files have content; a size in any other header is a leftover that writers put there for information.
        if let EntryKind::File { size } = &mut entry.kind {
            *size = match self.start_content(header, stored, sparse) {
                Ok(size) => size,
                Err(ContentError::Read(error)) => return Err(error),
                Err(ContentError::Sparse) => {
                    return Err(ReadError::InvalidField {
                        path: entry.path,
                        field: "sparse map",
                    });
                }
            };
        }
        Ok(entry)
    }

    /// Prepares for `stored` bytes of content and returns the size of the file.
    fn start_content(
        &mut self,
        header: &Header,
        stored: u64,
        sparse: PaxSparse,
    ) -> Result<u64, ContentError> {
        let mut left = stored;
        let found = sparse.found().ok_or(ContentError::Sparse)?;
        let (map, size) = match found {
            None if header.kind() == b'S' => self.gnu_map(header)?,
            _ if header.kind() == b'S' => return Err(ContentError::Sparse),
            None => {
                self.content = Unread {
                    regions: vec![Region {
                        offset: 0,
                        length: stored,
                    }],
                    stored,
                    padding: padding(stored),
                    sparse: false,
                };
                return Ok(stored);
            }
            Some(Found::Map(map, size)) => (map, size),
            Some(Found::InContent(size)) => (self.content_map(&mut left)?, size),
        };
        if !map.fits(size, left) {
            return Err(ContentError::Sparse);
        }
        let mut regions = map.regions;
        regions.reverse();
        self.content = Unread {
            regions,
            stored: left,
            padding: padding(stored),
            sparse: true,
        };
        Ok(size)
    }

    fn gnu_map(&mut self, header: &Header) -> Result<(Map, u64), ContentError> {
        let mut map = Map::default();
        let (size, mut more) = sparse::gnu_header(header, &mut map).ok_or(ContentError::Sparse)?;
        while more {
            let block = self.block()?.ok_or_else(|| self.truncated())?;
            let before = map.regions.len();
            more = sparse::gnu_more(&block, &mut map).ok_or(ContentError::Sparse)?;
            if map.regions.len() == before {
                // A block without a region would make an endless list of them free.
                return Err(ContentError::Sparse);
            }
        }
        Ok((map, size))
    }

    fn content_map(&mut self, left: &mut u64) -> Result<Map, ContentError> {
        let mut lines = ContentMap::default();
        loop {
            *left = left.checked_sub(BLOCK as u64).ok_or(ContentError::Sparse)?;
            let block = self.block()?.ok_or_else(|| self.truncated())?;
            if let Some(map) = lines.block(&block).ok_or(ContentError::Sparse)? {
                return Ok(map);
            }
        }
    }

    /// Reads an extended header into its place in `extensions`.
    fn extension(
        &mut self,
        header: &Header,
        extensions: &mut Extensions,
        place: impl Fn(&mut Extensions) -> &mut Option<Vec<u8>>,
    ) -> Result<(), ReadError> {
        let content = self.extended_content(header, extensions.taken)?;
        // One at least, so that an orphan is noticed even when it is empty.
        extensions.taken += content.len().max(1) as u64;
        let content = match header.kind() {
            b'x' => content,
            _ => until_nul(&content).to_vec(),
        };
        if place(extensions).replace(content).is_some() {
            return Err(ReadError::Ambiguous {
                path: path_from(header_name(header)),
                field: "extended header",
            });
        }
        Ok(())
    }

    fn extended_content(&mut self, header: &Header, taken: u64) -> Result<Vec<u8>, ReadError> {
        let offset = self.offset;
        let size = number(header, header::SIZE).ok_or(ReadError::NotAHeader { offset })?;
        if size.saturating_add(taken) > MAX_EXTENDED_HEADER {
            return Err(ReadError::HeaderTooLarge {
                offset,
                limit: MAX_EXTENDED_HEADER,
            });
        }
        // At most the limit above.
        let mut content = Vec::with_capacity(size as usize);
        while (content.len() as u64) < size {
            let block = self.block()?.ok_or_else(|| self.truncated())?;
            let want = (size as usize - content.len()).min(BLOCK);
            content.extend_from_slice(&block[..want]);
        }
        Ok(content)
    }

    /// Returns the next header that is not the end of the archive.
    fn next_header(&mut self) -> Result<Option<Header>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let header = match self.block()? {
            Some(block) => Header(block),
            None => return self.end(),
        };
        if header.is_zero() {
            self.has_end_mark = true;
            let offset = self.offset;
            return match self.block()? {
                Some(block) if !Header(block).is_zero() => Err(ReadError::NotAHeader { offset }),
                _ => self.end(),
            };
        }
        if header.is_sealed() {
            Ok(Some(header))
        } else {
            Err(ReadError::NotAHeader { offset })
        }
    }

    /// Reads the input to its end: padding of tape drives, usually.
    fn end(&mut self) -> Result<Option<Header>, ReadError> {
        self.ended = true;
        loop {
            self.consume(self.ready.len());
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn skip_content(&mut self) -> Result<(), ReadError> {
        let content = std::mem::take(&mut self.content);
        let mut left = content
            .stored
            .checked_add(content.padding)
            .ok_or_else(|| self.truncated())?;
        while left > 0 {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Err(self.truncated());
            }
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.ready.len());
            self.consume(length);
            left -= length as u64;
        }
        Ok(())
    }

    /// Returns the next block, or `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        while self.ready.len() < BLOCK {
            if self.fill()? == 0 {
                return if self.ready.is_empty() {
                    Ok(None)
                } else {
                    Err(self.truncated())
                };
            }
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.buffer[self.ready.start..self.ready.start + BLOCK]);
        self.consume(BLOCK);
        Ok(Some(block))
    }

    fn consume(&mut self, length: usize) {
        self.ready.start += length;
        self.offset += length as u64;
    }

    /// Reads more behind what is ready and returns how much; there is room, since what is ready is below one block or nothing.
    fn fill(&mut self) -> Result<usize, ReadError> {
        self.buffer.copy_within(self.ready.clone(), 0);
        self.ready = 0..self.ready.len();
        loop {
            match self.input.read(&mut self.buffer[self.ready.end..]) {
                Ok(count) => {
                    self.ready.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + self.ready.len() as u64;
                    return Err(ReadError::Io { offset, source });
                }
            }
        }
    }

    fn truncated(&self) -> ReadError {
        ReadError::Truncated {
            offset: self.offset + self.ready.len() as u64,
        }
    }
}

/// Why content could not be started.
enum ContentError {
    Read(ReadError),
    Sparse,
}

impl From<ReadError> for ContentError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The content of one entry as a stream. Made by [`ArchiveReader::content`].
#[derive(Debug)]
pub struct Content<'a, R> {
    archive: &'a mut ArchiveReader<R>,
    position: u64,
    size: u64,
    /// Zeros to give before `bytes`.
    zeros: u64,
    /// Part of the archive's buffer that was taken and not given yet.
    bytes: Range<usize>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.zeros == 0 && self.bytes.is_empty() {
            self.advance()?;
        }
        let count = if self.zeros > 0 {
            let count = usize::try_from(self.zeros)
                .unwrap_or(usize::MAX)
                .min(out.len());
            out[..count].fill(0);
            self.zeros -= count as u64;
            count
        } else {
            let count = self.bytes.len().min(out.len());
            let start = self.bytes.start;
            out[..count].copy_from_slice(&self.archive.buffer[start..start + count]);
            self.bytes.start += count;
            count
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read> Content<'_, R> {
    fn advance(&mut self) -> io::Result<()> {
        let found = self.archive.next_chunk().map_err(io::Error::other)?;
        match found.map(|chunk| (chunk.offset, chunk.bytes.len())) {
            Some((offset, length)) => {
                self.zeros = offset - self.position;
                let end = self.archive.ready.start;
                self.bytes = end - length..end;
            }
            None => self.zeros = self.size.saturating_sub(self.position),
        }
        Ok(())
    }
}
