//! qcow2, version 3: what is zero takes no room, and clusters may be compressed.
//!
//! Clusters follow each other in the order of the disk; the tables that tell where they are come as soon as they are complete, the counts
//! of references and the header at last.
//!
//! Spec: QEMU, `docs/interop/qcow2.txt`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::{CHUNK_BYTES, RawDisk, SECTOR_BYTES, has_step};

const MAGIC: &[u8; 4] = b"QFI\xFB";
const VERSION: u32 = 3;
const HEADER_BYTES: u32 = 104;
const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = CHUNK_BYTES;
/// Pointers in a table of one cluster.
const POINTERS: u64 = CLUSTER_BYTES / 8;
/// Counts of 16 bits in a cluster of them.
const COUNT_ORDER: u32 = 4;
const COUNTS: usize = CLUSTER_BYTES as usize / 2;
/// Says that a cluster or table has one reference only.
const SINGLE: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Above this bit stands how many more sectors a compressed cluster reaches into.
const SECTORS_SHIFT: u32 = 62 - (CLUSTER_BITS - 8);
/// As little as QEMU's reader remembers.
const WINDOW_BITS: u8 = 12;

/// Writes `disk` to `out`, which is empty; compressed on `threads` threads, whose number does not change the bytes.
///
/// # Errors
///
/// The disk is no whole number of sectors, or a file cannot be read or written.
pub fn write(disk: &RawDisk, out: &File, compressed: bool, threads: usize) -> io::Result<()> {
    has_step(disk, SECTOR_BYTES, "a qcow2 image")?;
    let tables = disk.size().div_ceil(CLUSTER_BYTES * POINTERS);
    let first_clusters = (tables * 8).div_ceil(CLUSTER_BYTES);
    let mut image = Writer {
        out,
        next: (1 + first_clusters) * CLUSTER_BYTES,
        counts: vec![1; 1 + first_clusters as usize],
        first: vec![0; tables as usize],
        second: vec![0; POINTERS as usize],
        second_of: None,
    };
    let work = |chunk: &[u8]| compressed.then(|| deflated(chunk)).flatten();
    disk.worked_chunks(threads, work, |at, chunk, smaller| {
        image.cluster(at / CLUSTER_BYTES, chunk, smaller)
    })?;
    image.end_table()?;
    out.write_all_at(&pointers(&image.first), CLUSTER_BYTES)?;
    let (counts_at, counts_clusters) = image.end_counts()?;
    let header = header(disk.size(), tables, counts_at, counts_clusters);
    out.write_all_at(&header, 0)?;
    out.set_len(image.next)
}

struct Writer<'a> {
    out: &'a File,
    /// The first byte of the file that is free.
    next: u64,
    /// How often each cluster of the file is used; several compressed ones may share one.
    counts: Vec<u16>,
    first: Vec<u64>,
    second: Vec<u64>,
    /// Which of the first table's pointers the second is for.
    second_of: Option<u64>,
}

impl Writer<'_> {
    /// Adds a cluster of the disk, in the `smaller` form that there may be of it.
    fn cluster(&mut self, index: u64, bytes: &[u8], smaller: Option<Vec<u8>>) -> io::Result<()> {
        if self.second_of != Some(index / POINTERS) {
            self.end_table()?;
            self.second_of = Some(index / POINTERS);
        }
        let pointer = match smaller {
            Some(smaller) => self.compressed(&smaller)?,
            None => SINGLE | self.whole(bytes)?,
        };
        self.second[(index % POINTERS) as usize] = pointer;
        Ok(())
    }

    /// Writes a cluster as it is, and returns where.
    fn whole(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.next.next_multiple_of(CLUSTER_BYTES);
        self.out.write_all_at(bytes, at)?;
        self.take(at, CLUSTER_BYTES);
        Ok(at)
    }

    /// Writes a compressed cluster behind the last one, and returns the pointer to it.
    fn compressed(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let (at, len) = (self.next, bytes.len() as u64);
        self.out.write_all_at(bytes, at)?;
        self.take(at, len);
        let more_sectors = (at + len - 1) / SECTOR_BYTES - at / SECTOR_BYTES;
        Ok(COMPRESSED | more_sectors << SECTORS_SHIFT | at)
    }

    /// Counts a reference to what is at `at`, behind which the file goes on.
    fn take(&mut self, at: u64, len: u64) {
        self.next = at + len;
        self.counts
            .resize(self.next.div_ceil(CLUSTER_BYTES) as usize, 0);
        for cluster in at / CLUSTER_BYTES..self.next.div_ceil(CLUSTER_BYTES) {
            self.counts[cluster as usize] += 1;
        }
    }

    fn end_table(&mut self) -> io::Result<()> {
        let Some(index) = self.second_of.take() else {
            return Ok(());
        };
        let table = pointers(&self.second);
        self.first[index as usize] = SINGLE | self.whole(&table)?;
        self.second.fill(0);
        Ok(())
    }

    /// Writes the counts of references, their own included, and the table of where they are; returns where that is and its clusters.
    fn end_counts(&mut self) -> io::Result<(u64, u32)> {
        self.next = self.next.next_multiple_of(CLUSTER_BYTES);
        let used = self.counts.len();
        let (mut blocks, mut tables) = (0, 0);
        while (used + blocks + tables).div_ceil(COUNTS) > blocks
            || (blocks * 8).div_ceil(CLUSTER_BYTES as usize) > tables
        {
            blocks = (used + blocks + tables).div_ceil(COUNTS);
            tables = (blocks * 8).div_ceil(CLUSTER_BYTES as usize);
        }
        self.counts.resize(used + blocks + tables, 1);
        self.counts.resize(blocks * COUNTS, 0);
        let bytes: Vec<u8> = self
            .counts
            .iter()
            .flat_map(|count| count.to_be_bytes())
            .collect();
        self.out.write_all_at(&bytes, self.next)?;
        let places: Vec<u64> = (0..blocks as u64)
            .map(|block| self.next + block * CLUSTER_BYTES)
            .collect();
        let table_at = self.next + blocks as u64 * CLUSTER_BYTES;
        self.out.write_all_at(&pointers(&places), table_at)?;
        self.next = table_at + tables as u64 * CLUSTER_BYTES;
        Ok((table_at, tables as u32))
    }
}

/// Returns a cluster compressed; nothing if that saves nothing.
fn deflated(chunk: &[u8]) -> Option<Vec<u8>> {
    // The end of the disk may be inside of a cluster, which is whole nevertheless.
    let mut cluster = chunk.to_owned();
    cluster.resize(CLUSTER_BYTES as usize, 0);
    let mut deflate = Compress::new_with_window_bits(Compression::default(), false, WINDOW_BITS);
    let mut out = Vec::with_capacity(cluster.len() - 1);
    match deflate.compress_vec(&cluster, &mut out, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => Some(out),
        _ => None,
    }
}

fn pointers(all: &[u64]) -> Vec<u8> {
    all.iter()
        .flat_map(|pointer| pointer.to_be_bytes())
        .collect()
}

fn header(size: u64, tables: u64, counts_at: u64, counts_clusters: u32) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES as usize + 8);
    header.extend(MAGIC);
    header.extend(VERSION.to_be_bytes());
    header.extend([0; 12]); // no backing file
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend([0; 4]); // not encrypted
    header.extend((tables as u32).to_be_bytes());
    header.extend(CLUSTER_BYTES.to_be_bytes());
    header.extend(counts_at.to_be_bytes());
    header.extend(counts_clusters.to_be_bytes());
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no features of which a reader would have to know
    header.extend(COUNT_ORDER.to_be_bytes());
    header.extend(HEADER_BYTES.to_be_bytes());
    header.extend([0; 8]); // no header extensions
    header
}
