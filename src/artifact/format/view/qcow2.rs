//! qcow2, both versions: tables of two levels, clusters as they are, compressed, or zeros.
//!
//! Read is what QEMU starts without another file: no backing file, no external data, nothing encrypted. Of snapshots, the present state.
//!
//! Spec: QEMU, `docs/interop/qcow2.txt`.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};

use super::pieces::{self, Act, Map, Place};
use super::{Source, View, ViewError, damaged, unread};
use crate::artifact::bytes::{be32, be64};

/// How such files begin.
pub const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER_BYTES: usize = 112;
/// The least that a header of version 3 says of its length.
const OLD_HEADER_BYTES: u32 = 104;
/// QEMU reads no more snapshots, and each takes so many bytes at least.
const MAX_SNAPSHOTS: u32 = 65_536;
const SNAPSHOT_BYTES: u64 = 40;
/// Smaller and larger ones QEMU does not read.
const CLUSTER_BITS: RangeInclusive<u32> = 9..=21;
/// In a pointer, what is the place.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// That a cluster reads as zeros, wherever it points to.
const ZEROS: u64 = 1;
/// Units in which the length of a compressed cluster is told.
const SECTOR_BYTES: u64 = 512;
/// Parts of a cluster, where pointers tell of each.
const PARTS: u64 = 32;
const MAX_COUNT_ORDER: u32 = 6;
/// QEMU reads no first table with more pointers.
const MAX_TABLES: u64 = 1 << 22;

/// What a reader has to know to read such a file.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const OTHER_COMPRESSION: u64 = 1 << 3;
const IN_PARTS: u64 = 1 << 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Deflate,
    Zstd,
}

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Header {
    version: u32,
    cluster_bits: u32,
    /// Bytes of the disk.
    size: u64,
    /// The first table: pointers to second ones.
    tables: u64,
    tables_at: u64,
    /// How often clusters are used: a table of pointers to blocks of counts.
    counts_at: u64,
    counts_clusters: u32,
    count_order: u32,
    is_dirty: bool,
    in_parts: bool,
    compression: Compression,
}

/// Returns the disk in `file`.
///
/// # Errors
///
/// The image is damaged, needs another file or a key, or cannot be read.
pub fn open(file: Arc<File>) -> Result<View, ViewError> {
    let source = Source::new(file)?;
    let header = Header::read(&source)?;
    header.check(&source)?;
    let form = format!("qcow2, version {}", header.version);
    Ok(pieces::view(source, header, header.size, form))
}

impl Header {
    fn read(source: &Source) -> Result<Self, ViewError> {
        let bytes: [u8; HEADER_BYTES] = source.bytes(0)?;
        let version = be32(&bytes, 4);
        if !matches!(version, 2 | 3) {
            return unread(format!("a qcow2 image of version {version}"));
        }
        let is_new = version == 3;
        // What the older version does not have is zero.
        let features = if is_new { be64(&bytes, 72) } else { 0 };
        let header_bytes = if is_new { be32(&bytes, 100) } else { 72 };
        // A header of the first length of this version ends before the byte.
        let number = if header_bytes > OLD_HEADER_BYTES {
            bytes[104]
        } else {
            0
        };
        let compression = match (number, features & OTHER_COMPRESSION != 0) {
            (0, false) => Compression::Deflate,
            (1, true) => Compression::Zstd,
            (0 | 1, _) => return damaged("its header says two things about how it is compressed"),
            (other, _) => return unread(format!("a qcow2 image with compression {other}")),
        };
        for (is_so, what) in [
            (be64(&bytes, 8) != 0, "that needs its backing file"),
            (be32(&bytes, 32) != 0, "that is encrypted"),
            (
                features & EXTERNAL_DATA != 0,
                "that has its data in another file",
            ),
            (features >> 5 != 0, "with features of a later QEMU"),
        ] {
            if is_so {
                return unread(format!("a qcow2 image {what}"));
            }
        }
        let header = Self {
            version,
            cluster_bits: be32(&bytes, 20),
            size: be64(&bytes, 24),
            tables: be32(&bytes, 36).into(),
            tables_at: be64(&bytes, 40),
            counts_at: be64(&bytes, 48),
            counts_clusters: be32(&bytes, 56),
            count_order: if is_new { be32(&bytes, 96) } else { 4 },
            is_dirty: features & DIRTY != 0,
            in_parts: features & IN_PARTS != 0,
            compression,
        };
        if features & CORRUPT != 0 {
            return damaged("it is marked as damaged (the bit `corrupt`)");
        }
        header.check_numbers(source)?;
        if is_new
            && !(u64::from(OLD_HEADER_BYTES)..=header.cluster()).contains(&header_bytes.into())
        {
            return damaged(format!("a header of {header_bytes} bytes does not exist"));
        }
        let (snapshots, at) = (be32(&bytes, 60), be64(&bytes, 64));
        let least = u64::from(snapshots) * SNAPSHOT_BYTES;
        if snapshots > MAX_SNAPSHOTS || snapshots > 0 && !source.holds(at, least) {
            return damaged(format!(
                "its {snapshots} snapshots are not where the header says"
            ));
        }
        Ok(header)
    }

    fn check_numbers(&self, source: &Source) -> Result<(), ViewError> {
        if !CLUSTER_BITS.contains(&self.cluster_bits) {
            let bits = self.cluster_bits;
            return damaged(format!("clusters of 2^{bits} bytes do not exist"));
        }
        let needed = self.size.div_ceil(self.cluster() * self.pointers());
        let (size, tables) = (self.size, self.tables);
        if tables > MAX_TABLES || needed > tables {
            return damaged(format!(
                "its first table has {tables} pointers, a disk of {size} bytes needs {needed} (of at most {MAX_TABLES})"
            ));
        }
        let counts_bytes = u64::from(self.counts_clusters) << self.cluster_bits;
        for (what, at, len) in [
            ("the first table", self.tables_at, self.tables * 8),
            ("the table of counts", self.counts_at, counts_bytes),
        ] {
            if len == 0 && self.size > 0 || !at.is_multiple_of(self.cluster()) {
                return damaged(format!("{what} is not where the header says"));
            }
            if !source.holds(at, len) {
                return damaged(format!(
                    "{what} is at {at} of a file of {} bytes",
                    source.len
                ));
            }
        }
        match self.count_order {
            0..=MAX_COUNT_ORDER => Ok(()),
            order => damaged(format!("counts of 2^{order} bits do not exist")),
        }
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Returns the bytes of a pointer to a cluster.
    fn pointer_bytes(&self) -> u64 {
        if self.in_parts { 16 } else { 8 }
    }

    /// Returns the pointers of a second table.
    fn pointers(&self) -> u64 {
        self.cluster() / self.pointer_bytes()
    }

    /// Returns how many clusters the disk has.
    fn clusters(&self) -> u64 {
        self.size.div_ceil(self.cluster())
    }

    /// Returns how many pointers of the first table the disk needs.
    fn tables_used(&self) -> u64 {
        self.clusters().div_ceil(self.pointers())
    }

    /// Checks every pointer that the disk needs.
    fn check(&self, source: &Source) -> Result<(), ViewError> {
        let counts = Counts::new(self, source);
        counts.check(0, 1, "the header")?;
        counts.check(self.tables_at, self.tables * 8, "the first table")?;
        let mut seen = HashSet::new();
        source.entries::<8>(self.tables_at, self.tables_used(), |table, pointer| {
            let at = u64::from_be_bytes(pointer) & PLACE;
            if at == 0 {
                return Ok(());
            }
            let name = format!("table {table}");
            self.check_place(source, at, self.cluster(), &name)?;
            if !seen.insert(at) {
                return damaged(format!("{name} is another one, too"));
            }
            counts.check(at, self.cluster(), &name)?;
            self.each_pointer(source, table, at, |cluster, pointer| {
                let name = || format!("cluster {cluster} of the disk");
                self.check_cluster(source, &counts, cluster, pointer)
                    .map_err(|error| named(error, name))
            })
        })
    }

    /// Calls `act` with every pointer of the second table of this number, which is at `at`, and the number of its cluster.
    fn each_pointer(
        &self,
        source: &Source,
        table: u64,
        at: u64,
        mut act: impl FnMut(u64, [u8; 16]) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let first = table * self.pointers();
        let count = self.pointers().min(self.clusters() - first);
        match self.in_parts {
            false => source.entries::<8>(at, count, |n, entry| act(first + n, wide(entry))),
            true => source.entries::<16>(at, count, |n, entry| act(first + n, entry)),
        }
    }

    fn check_cluster(
        &self,
        source: &Source,
        counts: &Counts<'_>,
        cluster: u64,
        pointer: [u8; 16],
    ) -> Result<(), ViewError> {
        let (pointer, parts) = (be64(&pointer, 0), be64(&pointer, 8));
        if pointer & COMPRESSED != 0 {
            let (at, len) = self.packed(pointer);
            if at >= source.len {
                return damaged(format!("is at {at} of a file of {} bytes", source.len));
            }
            return counts.check(at, len.min(source.len - at), "");
        }
        if self.version == 2 && pointer & ZEROS != 0 {
            return damaged("has a mark that version 2 does not have");
        }
        if self.in_parts && parts as u32 & (parts >> 32) as u32 != 0 {
            return damaged("has parts that are data and zeros at once");
        }
        let at = pointer & PLACE;
        if at == 0 {
            return match self.in_parts && parts as u32 != 0 {
                true => damaged("has data nowhere"),
                false => Ok(()),
            };
        }
        // The disk may end inside of its last one.
        let len = self
            .cluster()
            .min(self.size - (cluster << self.cluster_bits));
        self.check_place(source, at, len, "")?;
        counts.check(at, len, "")
    }

    fn check_place(&self, source: &Source, at: u64, len: u64, name: &str) -> Result<(), ViewError> {
        let name = name.to_owned() + if name.is_empty() { "" } else { " " };
        if !at.is_multiple_of(self.cluster()) {
            return damaged(format!("{name}is at {at}, where no cluster begins"));
        }
        match source.holds(at, len) {
            true => Ok(()),
            false => damaged(format!(
                "{name}is at {at} of a file of {} bytes",
                source.len
            )),
        }
    }

    /// Returns where a compressed cluster is, and how many bytes it has at most.
    fn packed(&self, pointer: u64) -> (u64, u64) {
        let shift = 62 - (self.cluster_bits - 8);
        let at = pointer & ((1 << shift) - 1);
        let more = pointer >> shift & ((1 << (self.cluster_bits - 8)) - 1);
        (at, (more + 1) * SECTOR_BYTES - at % SECTOR_BYTES)
    }

    /// Returns the pointer to the cluster of this number, and what it says of its parts.
    fn pointer(&self, source: &Source, cluster: u64) -> io::Result<Option<(u64, u64)>> {
        let table = self.tables_at + cluster / self.pointers() * 8;
        let table = u64::from_be_bytes(source.bytes(table)?) & PLACE;
        if table == 0 {
            return Ok(None);
        }
        let at = table + cluster % self.pointers() * self.pointer_bytes();
        Ok(Some(match self.in_parts {
            false => (u64::from_be_bytes(source.bytes(at)?), 0),
            true => {
                let entry: [u8; 16] = source.bytes(at)?;
                (be64(&entry, 0), be64(&entry, 8))
            }
        }))
    }
}

impl Map for Header {
    fn piece_bytes(&self) -> u64 {
        self.cluster()
    }

    fn place(&self, source: &Source, at: u64) -> io::Result<(Place, u64)> {
        let skipped = at % self.cluster();
        let left = self.cluster() - skipped;
        let Some((pointer, parts)) = self.pointer(source, at >> self.cluster_bits)? else {
            return Ok((Place::Zeros, left));
        };
        if pointer & COMPRESSED != 0 {
            let (at, len) = self.packed(pointer);
            return Ok((Place::Packed(at, len), left));
        }
        let place = pointer & PLACE;
        if self.in_parts {
            let part_bytes = self.cluster() / PARTS;
            let has_data = parts >> (skipped / part_bytes) & 1 != 0;
            let left = part_bytes - skipped % part_bytes;
            return Ok(match has_data {
                true => (Place::At(place + skipped), left),
                false => (Place::Zeros, left),
            });
        }
        match place == 0 || pointer & ZEROS != 0 {
            true => Ok((Place::Zeros, left)),
            false => Ok((Place::At(place + skipped), left)),
        }
    }

    fn each_packed(&self, source: &Source, act: &mut Act<'_>) -> Result<(), ViewError> {
        source.entries::<8>(self.tables_at, self.tables_used(), |table, pointer| {
            let at = u64::from_be_bytes(pointer) & PLACE;
            if at == 0 {
                return Ok(());
            }
            self.each_pointer(source, table, at, |cluster, pointer| {
                let pointer = be64(&pointer, 0);
                if pointer & COMPRESSED == 0 {
                    return Ok(());
                }
                let (at, len) = self.packed(pointer);
                act(cluster, at, len)
            })
        })
    }

    // QEMU demands the whole of the last one too, wherever the disk ends.
    fn unpack(&self, packed: &[u8], piece: &mut [u8], _needed: usize) -> Option<u64> {
        match self.compression {
            Compression::Deflate => {
                let mut inflate = Decompress::new(false);
                let done = inflate.decompress(packed, piece, FlushDecompress::Finish);
                // What follows in its last sector is another one's.
                let is_whole = done.is_ok() && inflate.total_out() == piece.len() as u64;
                is_whole.then(|| inflate.total_in())
            }
            Compression::Zstd => unpack_zstd(packed, piece).ok(),
        }
    }
}

/// Returns how many bytes of `packed` were taken.
fn unpack_zstd(packed: &[u8], piece: &mut [u8]) -> io::Result<u64> {
    // No more is needed for the largest clusters.
    const WINDOW_BITS: u32 = 23;
    let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
    decoder.window_log_max(WINDOW_BITS)?;
    io::Read::read_exact(&mut decoder, piece)?;
    Ok((packed.len() - decoder.get_ref().len()) as u64)
}

/// How often clusters of the file are used, by its own counts.
struct Counts<'a> {
    header: &'a Header,
    source: &'a Source,
    /// The block that was looked into last, by its number, and where it is.
    last: std::cell::Cell<Option<(u64, u64)>>,
}

impl<'a> Counts<'a> {
    fn new(header: &'a Header, source: &'a Source) -> Self {
        Self {
            header,
            source,
            last: Default::default(),
        }
    }

    /// Checks that the clusters with these bytes are counted as used: what is not, QEMU gives away once more.
    fn check(&self, at: u64, len: u64, name: &str) -> Result<(), ViewError> {
        // Counts of a dirty image are stale; QEMU makes them anew before it writes.
        if self.header.is_dirty || len == 0 {
            return Ok(());
        }
        let bits = self.header.cluster_bits;
        for cluster in at >> bits..=(at + len - 1) >> bits {
            if !self.is_used(cluster)? {
                let name = name.to_owned() + if name.is_empty() { "" } else { " " };
                return damaged(format!(
                    "{name}is in cluster {cluster} of the file, which counts as free"
                ));
            }
        }
        Ok(())
    }

    fn is_used(&self, cluster: u64) -> Result<bool, ViewError> {
        let order = self.header.count_order;
        let per_block = (self.header.cluster() * 8) >> order;
        let number = cluster / per_block;
        let block = match self.last.get() {
            Some((known, block)) if known == number => block,
            _ => self.block(number)?,
        };
        self.last.set(Some((number, block)));
        if block == 0 {
            return Ok(false);
        }
        let bit = (cluster % per_block) << order;
        let at = block + bit / 8;
        Ok(match order {
            0..3 => {
                let [byte] = self.source.bytes(at)?;
                byte >> (bit % 8) & ((1u16 << (1 << order)) - 1) as u8 != 0
            }
            _ => {
                let bytes: [u8; 8] = self.source.bytes(at)?;
                bytes[..1 << (order - 3)].iter().any(|byte| *byte != 0)
            }
        })
    }

    /// Returns where a block of counts is; 0 where there is none.
    fn block(&self, number: u64) -> Result<u64, ViewError> {
        let blocks = (u64::from(self.header.counts_clusters) << self.header.cluster_bits) / 8;
        if number >= blocks {
            return Ok(0);
        }
        let at = u64::from_be_bytes(self.source.bytes(self.header.counts_at + number * 8)?) & PLACE;
        let cluster = self.header.cluster();
        if at != 0 {
            let name = format!("block {number} of the counts");
            self.header.check_place(self.source, at, cluster, &name)?;
        }
        Ok(at)
    }
}

/// Puts a name before what is wrong.
fn named(error: ViewError, name: impl Fn() -> String) -> ViewError {
    match error {
        ViewError::Damaged(why) => ViewError::Damaged(format!("{} {why}", name())),
        other => other,
    }
}

fn wide(pointer: [u8; 8]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..8].copy_from_slice(&pointer);
    wide
}
