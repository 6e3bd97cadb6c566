//! Reading a FAT volume back, whoever made it.
//!
//! Bytes are trusted in nothing: every chain of clusters has an end that its table knows, whatever it says.

use std::collections::BTreeMap;
use std::io;

use super::{Extent, Kind, Region};
use crate::artifact::bytes::{le16, le32};

const SIGNATURE: [u8; 2] = [0x55, 0xAA];
const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0F;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// Where the units of a long name stand in its entry.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// The most that a directory may have, by the specification.
const MAX_DIRECTORY_BYTES: u64 = 2 << 20;
/// The deepest path that is followed.
const MAX_DEPTH: usize = 16;
/// The largest table that is held against its copy.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// A FAT volume that can be read.
#[derive(Debug)]
pub struct FatVolume {
    region: Region,
    kind: Kind,
    /// Of the root directory; of the boot sector where that has none.
    label: String,
    tables: u64,
    table_at: u64,
    table_bytes: u64,
    /// The root directory, where it has a place of its own.
    root: Extent,
    root_cluster: u32,
    data_at: u64,
    cluster_bytes: u64,
    clusters: u32,
}

/// What stands in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatEntry {
    /// Its long name, or the short one where it has no other.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The bytes that a file has.
    pub size: u32,
    cluster: u32,
}

/// Why a volume cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatReadError {
    /// There is no FAT here.
    #[error("it is no FAT file system: {0}")]
    NotFat(&'static str),
    /// Something contradicts itself.
    #[error("the FAT file system is damaged: {0}")]
    Damaged(&'static str),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FatVolume {
    /// Reads what the volume in `region` says of itself, and holds its tables against each other.
    ///
    /// # Errors
    ///
    /// [`FatReadError`] by its variant.
    pub fn open(region: Region) -> Result<Self, FatReadError> {
        let mut boot = [0; 512];
        region.read_exact_at(&mut boot, 0)?;
        let no = FatReadError::NotFat;
        if boot[510..] != SIGNATURE {
            return Err(no("its first sector does not end as one does"));
        }
        let n16 = |at: usize| u64::from(le16(&boot, at));
        let n32 = |at: usize| u64::from(le32(&boot, at));
        let either = |short: u64, long: u64| if short == 0 { long } else { short };
        let (sector, per_cluster) = (n16(11), u64::from(boot[13]));
        if ![512, 1024, 2048, 4096].contains(&sector) || !per_cluster.is_power_of_two() {
            return Err(no("it has no sectors or clusters"));
        }
        let (reserved, tables, root_entries) = (n16(14), u64::from(boot[16]), n16(17));
        let (sectors, table) = (either(n16(19), n32(32)), either(n16(22), n32(36)));
        if reserved == 0 || !(1..=2).contains(&tables) || table == 0 {
            return Err(no("it has no table"));
        }
        let damaged = FatReadError::Damaged;
        if sectors * sector > region.len() {
            return Err(damaged("it is larger than the place it has"));
        }
        let root_sectors = (root_entries * ENTRY as u64).div_ceil(sector);
        let data = reserved + tables * table + root_sectors;
        let clusters = sectors.checked_sub(data).map(|left| left / per_cluster);
        let clusters = clusters.and_then(|clusters| u32::try_from(clusters).ok());
        let clusters = clusters.ok_or(damaged("its parts are larger than the whole"))?;
        let kind = match clusters {
            0..4085 => Kind::Fat12,
            4085..65525 => Kind::Fat16,
            _ => Kind::Fat32,
        };
        let table_bytes = table * sector;
        if (u64::from(clusters) + 2) * kind.bits() > table_bytes * 8 {
            return Err(damaged("its table is too short for its clusters"));
        }
        let label_at = if kind == Kind::Fat32 { 71 } else { 43 };
        let mut volume = Self {
            kind,
            label: narrow(&boot[label_at..label_at + 11]),
            tables,
            table_at: reserved * sector,
            table_bytes,
            root: Extent {
                start: (reserved + tables * table) * sector,
                len: root_entries * ENTRY as u64,
            },
            root_cluster: n32(44) as u32,
            data_at: data * sector,
            cluster_bytes: per_cluster * sector,
            clusters,
            region,
        };
        volume.compare_tables()?;
        if let Some(label) = volume.read_root()?.1 {
            volume.label = label;
        }
        Ok(volume)
    }

    /// Returns the label, without the spaces that fill it up.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns what is at `path`; upper and lower case are the same.
    ///
    /// # Errors
    ///
    /// A directory on the way is damaged.
    pub fn find(&self, path: &str) -> Result<Option<FatEntry>, FatReadError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(self.list(dir)?.and_then(|names| {
            let found = names.get(&name.to_uppercase());
            found.cloned()
        }))
    }

    /// Returns what the directory `path` holds, by the names in upper case; none where there is no such directory.
    ///
    /// # Errors
    ///
    /// It, or a directory on the way, is damaged.
    pub fn list(&self, path: &str) -> Result<Option<BTreeMap<String, FatEntry>>, FatReadError> {
        let mut names = self.read_root()?.0;
        for part in path
            .split('/')
            .filter(|part| !part.is_empty())
            .take(MAX_DEPTH)
        {
            let Some(entry) = names.get(&part.to_uppercase()).filter(|it| it.is_dir) else {
                return Ok(None);
            };
            let extents = self.chain(entry.cluster, MAX_DIRECTORY_BYTES, true)?;
            names = self.directory(&extents)?.0;
        }
        Ok(Some(names))
    }

    /// Returns the content of a file, of which `most` bytes are wanted. Clusters behind them are not looked up.
    ///
    /// # Errors
    ///
    /// Its clusters are fewer than it needs, or are none.
    pub fn content(&self, file: &FatEntry, most: u64) -> Result<Region, FatReadError> {
        if u64::from(file.size) > u64::from(self.clusters) * self.cluster_bytes {
            return Err(FatReadError::Damaged("a file is larger than the volume"));
        }
        let size = u64::from(file.size).min(most);
        let mut extents = match size {
            0 => Vec::new(),
            _ => self.chain(file.cluster, size, false)?,
        };
        let room: u64 = extents.iter().map(|extent| extent.len).sum();
        if room < size {
            return Err(FatReadError::Damaged("a file has too few clusters"));
        }
        if let Some(last) = extents.last_mut() {
            last.len -= room - size;
        }
        Ok(self.region.part(&extents)?)
    }

    fn read_root(&self) -> Result<(BTreeMap<String, FatEntry>, Option<String>), FatReadError> {
        match self.kind {
            Kind::Fat32 => {
                self.directory(&self.chain(self.root_cluster, MAX_DIRECTORY_BYTES, true)?)
            }
            _ => self.directory(&[self.root]),
        }
    }

    /// Returns the clusters from `first` on, up to the end of the chain or as many as `bytes` need; `is_bounded` makes more an error.
    fn chain(&self, first: u32, bytes: u64, is_bounded: bool) -> Result<Vec<Extent>, FatReadError> {
        let mut extents: Vec<Extent> = Vec::new();
        let (mut next, mut len) = (first, 0);
        while len < bytes {
            let is_cluster = (2..self.clusters + 2).contains(&next);
            if !is_cluster && next >= self.end() && len > 0 {
                return Ok(extents);
            }
            if !is_cluster {
                return Err(FatReadError::Damaged(
                    "a chain of clusters leads out of the volume",
                ));
            }
            let start = self.data_at + u64::from(next - 2) * self.cluster_bytes;
            match extents.last_mut() {
                Some(last) if last.start + last.len == start => last.len += self.cluster_bytes,
                _ => extents.push(Extent {
                    start,
                    len: self.cluster_bytes,
                }),
            }
            len += self.cluster_bytes;
            next = self.next(next)?;
        }
        match is_bounded {
            true => Err(FatReadError::Damaged("a directory has no end")),
            false => Ok(extents),
        }
    }

    /// Returns the least value that ends a chain.
    fn end(&self) -> u32 {
        match self.kind {
            Kind::Fat12 => 0xFF8,
            Kind::Fat16 => 0xFFF8,
            Kind::Fat32 => 0x0FFF_FFF8,
        }
    }

    fn next(&self, cluster: u32) -> Result<u32, FatReadError> {
        let bit = u64::from(cluster) * self.kind.bits();
        let mut bytes = [0; 4];
        let width = if self.kind == Kind::Fat32 { 4 } else { 2 };
        self.region
            .read_exact_at(&mut bytes[..width], self.table_at + bit / 8)?;
        let value = u32::from_le_bytes(bytes);
        Ok(match self.kind {
            Kind::Fat12 => value >> (bit % 8) & 0xFFF,
            Kind::Fat16 => value,
            Kind::Fat32 => value & 0x0FFF_FFFF,
        })
    }

    fn compare_tables(&self) -> Result<(), FatReadError> {
        if self.tables < 2 || self.table_bytes > MAX_TABLE_BYTES {
            return Ok(());
        }
        let mut tables = [(); 2].map(|()| vec![0; self.table_bytes as usize]);
        for (copy, table) in (0..).zip(&mut tables) {
            self.region
                .read_exact_at(table, self.table_at + copy * self.table_bytes)?;
        }
        match tables[0] == tables[1] {
            true => Ok(()),
            false => Err(FatReadError::Damaged("its two tables differ")),
        }
    }

    /// Returns what a directory holds, and the label that stands in it.
    fn directory(
        &self,
        extents: &[Extent],
    ) -> Result<(BTreeMap<String, FatEntry>, Option<String>), FatReadError> {
        let content = self.region.part(extents)?;
        let mut bytes = vec![0; content.len() as usize];
        content.read_exact_at(&mut bytes, 0)?;
        let (mut names, mut label) = (BTreeMap::new(), None);
        let mut long: Vec<u16> = Vec::new();
        for entry in bytes.chunks_exact(ENTRY) {
            let attributes = entry[11] & 0x3F;
            match entry[0] {
                0 => break,
                0xE5 => long.clear(),
                b'.' if attributes != LONG_NAME => long.clear(),
                first if attributes == LONG_NAME => {
                    // The last piece comes first.
                    if first & 0x40 != 0 {
                        long.clear();
                    }
                    let piece = UNITS.map(|at| le16(entry, at));
                    long.splice(0..0, piece);
                    long.truncate(20 * UNITS.len());
                }
                _ if attributes & VOLUME_LABEL != 0 => {
                    label = Some(narrow(&entry[..11]));
                    long.clear();
                }
                _ => {
                    let name = name_of(&std::mem::take(&mut long), entry);
                    names.insert(name.to_uppercase(), self.entry(name, entry));
                }
            }
        }
        Ok((names, label))
    }

    fn entry(&self, name: String, bytes: &[u8]) -> FatEntry {
        let low = u32::from(le16(bytes, 26));
        let high = match self.kind {
            Kind::Fat32 => u32::from(le16(bytes, 20)),
            _ => 0,
        };
        FatEntry {
            name,
            is_dir: bytes[11] & DIRECTORY != 0,
            size: le32(bytes, 28),
            cluster: high << 16 | low,
        }
    }
}

fn name_of(long: &[u16], entry: &[u8]) -> String {
    if !long.is_empty() {
        let units: Vec<u16> = long.iter().copied().take_while(|unit| *unit != 0).collect();
        return String::from_utf16_lossy(&units);
    }
    let (base, extension) = (narrow(&entry[..8]), narrow(&entry[8..11]));
    match extension.as_str() {
        "" => base,
        _ => format!("{base}.{extension}"),
    }
}

fn narrow(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
