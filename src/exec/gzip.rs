//! One gzip member, compressed on several threads.
//!
//! The kernel wants every archive of an initrd to end where a gzip member ends, so independent members will not do. Blocks
//! are compressed each on its own, ended by a sync flush, and strung together: RFC 1951 allows that, and the bytes do not
//! depend on how many threads there are.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, FlushCompress, Status};

/// Larger blocks hardly shrink further; smaller ones lose what they could have referred back to.
const BLOCK_BYTES: usize = 1 << 20;
/// Fixed header: deflate, no name, no time, unknown system (RFC 1952, section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

type Job = JoinHandle<io::Result<(Vec<u8>, crc32fast::Hasher)>>;

/// Writes what it is given as one gzip member.
#[derive(Debug)]
pub(super) struct ParallelGzip<W> {
    out: W,
    level: u32,
    threads: usize,
    block: Vec<u8>,
    jobs: VecDeque<Job>,
    crc: crc32fast::Hasher,
    size: u32,
    begun: bool,
}

impl<W: Write> ParallelGzip<W> {
    pub(super) fn new(out: W, level: u32, threads: usize) -> Self {
        let crc = crc32fast::Hasher::new();
        Self {
            out,
            level,
            threads: threads.max(1),
            block: Vec::new(),
            jobs: VecDeque::new(),
            crc,
            size: 0,
            begun: false,
        }
    }

    /// Compresses what is left and ends the member.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.start(true);
        while !self.jobs.is_empty() {
            self.take_one()?;
        }
        let crc = self.crc.finalize();
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.write_all(&self.size.to_le_bytes())?;
        Ok(self.out)
    }

    fn start(&mut self, last: bool) {
        let block = std::mem::take(&mut self.block);
        // The trailer holds the size modulo 2^32.
        self.size = self.size.wrapping_add(block.len() as u32);
        let level = self.level;
        self.jobs
            .push_back(std::thread::spawn(move || compress(&block, level, last)));
    }

    fn take_one(&mut self) -> io::Result<()> {
        let Some(job) = self.jobs.pop_front() else {
            return Ok(());
        };
        let (bytes, crc) = job
            .join()
            .map_err(|_| io::Error::other("a compressing thread panicked"))??;
        if !self.begun {
            self.out.write_all(&HEADER)?;
            self.begun = true;
        }
        self.crc.combine(&crc);
        self.out.write_all(&bytes)
    }
}

fn compress(block: &[u8], level: u32, last: bool) -> io::Result<(Vec<u8>, crc32fast::Hasher)> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(block);
    // A compressor that is used again gives bytes that depend on what it did before: one for each block.
    let mut deflate = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(block.len() / 2 + 64);
    let flush = if last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    loop {
        out.reserve(64 * 1024);
        let done = usize::try_from(deflate.total_in())
            .unwrap_or(usize::MAX)
            .min(block.len());
        let status = deflate
            .compress_vec(&block[done..], &mut out, flush)
            .map_err(io::Error::other)?;
        let consumed = deflate.total_in() == block.len() as u64;
        let room_left = out.len() < out.capacity();
        if status == Status::StreamEnd || (!last && consumed && room_left) {
            return Ok((out, crc));
        }
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.start(false);
            while self.jobs.len() > self.threads {
                self.take_one()?;
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn gzip(data: &[u8], threads: usize) -> Vec<u8> {
        let mut encoder = ParallelGzip::new(Vec::new(), 6, threads);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn one_member_reads_back_whatever_the_number_of_threads() {
        let data: Vec<u8> = (0..5_300_001u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .take(5_300_001)
            .collect();
        for size in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, data.len()] {
            let one = gzip(&data[..size], 1);
            assert_eq!(one, gzip(&data[..size], 4));
            let mut back = Vec::new();
            // Reads a single member and no more.
            let mut decoder = flate2::bufread::GzDecoder::new(one.as_slice());
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == data[..size], "size {size}");
            assert!(decoder.into_inner().is_empty(), "one member only");
        }
    }
}
