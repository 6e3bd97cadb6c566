//! VMDKs in one file: stream-optimised ones, as in an OVA, and those that grow (`monolithicSparse`).
//!
//! Spec: VMware, "Virtual Disk Format 5.0", "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents".

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};

use super::pieces::{self, Act, Map, Place};
use super::{Source, View, ViewError, damaged, unread};
use crate::artifact::bytes::{le16, le32, le64};

/// How such files begin.
pub const MAGIC: &[u8; 4] = b"KDMV";
const SECTOR_BYTES: u64 = 512;
/// The largest grain, in sectors; everybody's have 128.
const MAX_GRAIN_SECTORS: u64 = 4096;
const MAX_TABLE_ENTRIES: u32 = 512;
/// The most sectors that a directory can be for: 4 TiB.
const MAX_SECTORS: u64 = 1 << 33;
const MAX_DESCRIPTOR_SECTORS: u64 = 128;
/// What follows the last table of a stream: its footer and an end.
const END_SECTORS: u64 = 2;
/// Says that the directory is where the footer says.
const AT_END: u64 = u64::MAX;
/// Characters that a transfer as text would change.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";
/// In front of a packed grain: u64 sector of the disk, u32 bytes.
const MARKER_BYTES: u64 = 12;

const HAS_LINE_ENDS: u32 = 1;
/// A grain at 1 is zeros.
const HAS_ZEROS: u32 = 1 << 2;
const IS_PACKED: u32 = 1 << 16;

/// What the header says, or the footer in its place.
#[derive(Debug, Clone, Copy)]
struct Header {
    flags: u32,
    sectors: u64,
    grain_sectors: u64,
    descriptor_at: u64,
    descriptor_sectors: u64,
    table_entries: u64,
    directory_at: u64,
}

/// Returns the disk in `file`.
///
/// # Errors
///
/// The file is damaged, needs others or is of a kind that is not read, or cannot be read.
pub fn open(file: Arc<File>) -> Result<View, ViewError> {
    let source = Source::new(file)?;
    let mut header = Header::read(&source, 0)?;
    let form = header.descriptor(&source)?;
    if header.directory_at == AT_END {
        header = footer(&source, &header)?;
    }
    header.check(&source)?;
    let len = header.sectors * SECTOR_BYTES;
    Ok(pieces::view(source, header, len, format!("VMDK, {form}")))
}

/// Returns what the end of a stream says.
fn footer(source: &Source, header: &Header) -> Result<Header, ViewError> {
    let cut = || damaged("its end is missing");
    let Some(at) = source.len.checked_sub(END_SECTORS * SECTOR_BYTES) else {
        return cut();
    };
    if source.bytes::<4>(at)? != *MAGIC || source.bytes::<16>(at + SECTOR_BYTES)? != [0; 16] {
        return cut();
    }
    let footer = Header::read(source, at)?;
    match footer.sectors == header.sectors && footer.directory_at != AT_END {
        true => Ok(footer),
        false => damaged("its end contradicts its start"),
    }
}

impl Header {
    fn read(source: &Source, at: u64) -> Result<Self, ViewError> {
        let bytes: [u8; 79] = source.bytes(at)?;
        let version = le32(&bytes, 4);
        if !(1..=3).contains(&version) {
            return unread(format!("a VMDK disk of version {version}"));
        }
        let flags = le32(&bytes, 8);
        if flags & HAS_LINE_ENDS != 0 && bytes[73..77] != LINE_ENDS {
            return damaged("its line ends were changed: it was transferred as text");
        }
        let compression = le16(&bytes, 77);
        if flags & IS_PACKED != 0 && compression != 1 {
            return unread(format!("a VMDK disk with compression {compression}"));
        }
        let header = Self {
            flags,
            sectors: le64(&bytes, 12),
            grain_sectors: le64(&bytes, 20),
            descriptor_at: le64(&bytes, 28),
            descriptor_sectors: le64(&bytes, 36),
            table_entries: le32(&bytes, 44).into(),
            directory_at: le64(&bytes, 56),
        };
        let grain = header.grain_sectors;
        if !grain.is_power_of_two() || grain > MAX_GRAIN_SECTORS {
            return damaged(format!("grains of {grain} sectors do not exist"));
        }
        let entries = header.table_entries;
        if entries == 0 || entries > MAX_TABLE_ENTRIES.into() {
            return damaged(format!("tables of {entries} grains do not exist"));
        }
        match header.sectors <= MAX_SECTORS {
            true => Ok(header),
            false => damaged(format!("a disk of {} sectors is too large", header.sectors)),
        }
    }

    /// Returns the kind that the descriptor says, once it is one in a single file.
    fn descriptor(&self, source: &Source) -> Result<String, ViewError> {
        const PART: &str = "a part of a VMDK disk of several files";
        if self.descriptor_at == 0 || self.descriptor_sectors == 0 {
            return unread(PART);
        }
        let at = self.descriptor_at.checked_mul(SECTOR_BYTES);
        let sectors = self.descriptor_sectors.min(MAX_DESCRIPTOR_SECTORS);
        let Some(at) = at.filter(|at| source.holds(*at, sectors * SECTOR_BYTES)) else {
            return damaged("its descriptor is outside of the file");
        };
        let mut text = vec![0; (sectors * SECTOR_BYTES) as usize];
        source.read(&mut text, at)?;
        let text = String::from_utf8_lossy(&text);
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (found, value) = line.split_once('=')?;
                let value = value.trim().trim_matches('"');
                (found.trim() == key).then(|| value.to_owned())
            })
        };
        if value("parentCID").is_some_and(|parent| parent != "ffffffff") {
            return unread("a VMDK disk that continues another one");
        }
        match value("createType").as_deref() {
            Some(kind @ ("streamOptimized" | "monolithicSparse")) => Ok(kind.to_owned()),
            Some(kind) => unread(format!("a VMDK disk of the kind {kind:?}")),
            None if text.trim_matches('\0').is_empty() => unread(PART),
            None => damaged("its descriptor does not say its kind"),
        }
    }

    fn grain_bytes(&self) -> u64 {
        self.grain_sectors * SECTOR_BYTES
    }

    fn is_packed(&self) -> bool {
        self.flags & IS_PACKED != 0
    }

    /// Returns how many grains the disk has.
    fn grains(&self) -> u64 {
        self.sectors.div_ceil(self.grain_sectors)
    }

    /// Checks every entry of the directory and of its tables.
    fn check(&self, source: &Source) -> Result<(), ViewError> {
        let tables = self.grains().div_ceil(self.table_entries);
        let directory_at = self.directory_at.checked_mul(SECTOR_BYTES);
        let Some(directory_at) = directory_at.filter(|at| source.holds(*at, tables * 4)) else {
            return damaged("its directory of tables is outside of the file");
        };
        let mut seen = HashSet::new();
        source.entries::<4>(directory_at, tables, |table, entry| {
            let at = u64::from(u32::from_le_bytes(entry)) * SECTOR_BYTES;
            if at == 0 {
                return Ok(());
            }
            if !source.holds(at, self.table_entries * 4) {
                let len = source.len;
                return damaged(format!("table {table} is at {at} of a file of {len} bytes"));
            }
            if !seen.insert(at) {
                return damaged(format!("table {table} is another one, too"));
            }
            let first = table * self.table_entries;
            let count = self.table_entries.min(self.grains() - first);
            source.entries::<4>(at, count, |grain, entry| {
                self.check_grain(source, first + grain, u32::from_le_bytes(entry))
            })
        })
    }

    fn check_grain(&self, source: &Source, grain: u64, entry: u32) -> Result<(), ViewError> {
        let Some(at) = self.grain_at(entry) else {
            return Ok(());
        };
        let bytes = self.grain_bytes();
        let name = format!("cluster {grain} of the disk");
        let len = match self.is_packed() {
            false => bytes.min((self.sectors - grain * self.grain_sectors) * SECTOR_BYTES),
            true => {
                let marker: [u8; 12] = source.bytes(at)?;
                let len = u64::from(le32(&marker, 8));
                if le64(&marker, 0) != grain * self.grain_sectors || len > 2 * bytes {
                    return damaged(format!("{name} is not at {at}, where its table says"));
                }
                MARKER_BYTES + len
            }
        };
        match source.holds(at, len) {
            true => Ok(()),
            false => damaged(format!(
                "{name} is at {at} of a file of {} bytes",
                source.len
            )),
        }
    }

    /// Returns where the packed grain is whose marker is at `at`, and its bytes.
    fn packed(&self, source: &Source, at: u64) -> io::Result<(u64, u64)> {
        let len: [u8; 4] = source.bytes(at + 8)?;
        let len = u64::from(u32::from_le_bytes(len)).min(2 * self.grain_bytes());
        Ok((at + MARKER_BYTES, len))
    }

    /// Returns where the grain of a table's entry is; nothing for zeros.
    fn grain_at(&self, entry: u32) -> Option<u64> {
        match entry {
            0 => None,
            1 if self.flags & HAS_ZEROS != 0 => None,
            sector => Some(u64::from(sector) * SECTOR_BYTES),
        }
    }
}

impl Map for Header {
    fn piece_bytes(&self) -> u64 {
        self.grain_bytes()
    }

    fn place(&self, source: &Source, at: u64) -> io::Result<(Place, u64)> {
        let grain = at / self.grain_bytes();
        let skipped = at % self.grain_bytes();
        let left = self.grain_bytes() - skipped;
        let entry = self.directory_at * SECTOR_BYTES + grain / self.table_entries * 4;
        let table = u32::from_le_bytes(source.bytes(entry)?);
        if table == 0 {
            return Ok((Place::Zeros, left));
        }
        let entry = u64::from(table) * SECTOR_BYTES + grain % self.table_entries * 4;
        let place = match self.grain_at(u32::from_le_bytes(source.bytes(entry)?)) {
            None => Place::Zeros,
            Some(at) if self.is_packed() => {
                let (at, len) = self.packed(source, at)?;
                Place::Packed(at, len)
            }
            Some(at) => Place::At(at + skipped),
        };
        Ok((place, left))
    }

    fn each_packed(&self, source: &Source, act: &mut Act<'_>) -> Result<(), ViewError> {
        if !self.is_packed() {
            return Ok(());
        }
        let tables = self.grains().div_ceil(self.table_entries);
        source.entries::<4>(self.directory_at * SECTOR_BYTES, tables, |table, entry| {
            let at = u64::from(u32::from_le_bytes(entry)) * SECTOR_BYTES;
            if at == 0 {
                return Ok(());
            }
            let first = table * self.table_entries;
            let count = self.table_entries.min(self.grains() - first);
            source.entries::<4>(at, count, |grain, entry| {
                let Some(at) = self.grain_at(u32::from_le_bytes(entry)) else {
                    return Ok(());
                };
                let (at, len) = self.packed(source, at)?;
                act(first + grain, at, len)
            })
        })
    }

    fn unpack(&self, packed: &[u8], piece: &mut [u8], needed: usize) -> Option<u64> {
        let mut inflate = Decompress::new(true);
        let done = inflate.decompress(packed, piece, FlushDecompress::Finish);
        // The disk may end inside of its last grain.
        let is_whole = done.is_ok_and(|status| status == flate2::Status::StreamEnd)
            && inflate.total_out() >= needed as u64;
        is_whole.then(|| inflate.total_in())
    }
}
