//! Partition tables of the GPT kind, with the protective MBR before them.
//!
//! A [`Table`] is a value: [`Table::write`] puts it on a disk twice, at the start and at the end, and [`Table::read`] gets it back and
//! holds both against each other. Sectors have 512 bytes. Knows no sizes and names but those it is given.
//!
//! Spec: UEFI 2.10, chapter 5.

mod encode;
mod read;
#[cfg(test)]
mod tests;

use std::io;

use super::guid::Guid;
use super::region::{Extent, Region};
pub use encode::{hybrid_mbr, protective_mbr};
pub use read::{MbrPartition, mbr_partitions};

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// The number of entries that every reader expects to have room.
pub const ENTRIES: u32 = 128;
/// Where partitions begin on disks of every make: at a multiple of 1 MiB.
pub const ALIGNMENT: u64 = (1 << 20) / SECTOR_BYTES;
/// How much code the MBR has room for.
pub const BOOT_CODE_BYTES: usize = 440;

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// At most 36 UTF-16 units.
    pub name: String,
    /// What it is for.
    pub kind: Guid,
    /// What tells it from all others.
    pub guid: Guid,
    /// Its first sector.
    pub first: u64,
    /// How many sectors it has.
    pub sectors: u64,
    /// Attribute bits.
    pub attributes: u64,
}

/// The partition table of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What tells the disk from all others.
    pub guid: Guid,
    /// The size of the disk in sectors; the second copy ends there.
    pub sectors: u64,
    /// How many entries there is room for: a multiple of 4, at least as many as partitions.
    pub entries: u32,
    /// The first sector that a partition may have.
    pub first_usable: u64,
    /// The partitions; the first is number 1.
    pub partitions: Vec<Partition>,
}

/// Why a table cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GptError {
    /// More partitions than entries, or no whole sectors of entries.
    #[error(
        "{partitions} partitions do not go into {entries} entries, or these do not fill whole sectors"
    )]
    Entries {
        /// How many partitions there are.
        partitions: usize,
        /// How many entries.
        entries: u32,
    },
    /// The disk has no room for both tables.
    #[error("a disk of {0} sectors has no room for its partition table")]
    Disk(u64),
    /// A name of more than 36 UTF-16 units.
    #[error("the partition name {0:?} is longer than 36 characters")]
    Name(String),
    /// A partition that is empty, or not between the two tables.
    #[error(
        "the partition {name:?} has {sectors} sectors from {first} on, and the disk's partitions are from {usable:?}"
    )]
    Place {
        /// Its name.
        name: String,
        /// Its first sector.
        first: u64,
        /// Its length.
        sectors: u64,
        /// The first sector and the one after the last that partitions may have.
        usable: std::ops::Range<u64>,
    },
    /// Two partitions with a sector in common.
    #[error("the partitions {0:?} and {1:?} overlap")]
    Overlap(String, String),
    /// A partition that no MBR can describe.
    #[error("the partition {0:?} is not within the first 2 TiB, which is what an MBR knows of")]
    Hybrid(String),
    /// More boot code than there is room for.
    #[error("boot code of {0} bytes does not fit the 440 bytes for it")]
    BootCode(usize),
    /// The disk cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a table cannot be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The first sector is not a protective MBR.
    #[error("the first sector is not a protective MBR")]
    Mbr,
    /// A copy is damaged.
    #[error("the partition table in sector {sector}: {why}")]
    Damaged {
        /// Where its header is.
        sector: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The copies differ.
    #[error("the partition tables at the start and the end of the disk differ")]
    Differ,
    /// The disk cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Table {
    /// Returns a table without partitions for a disk of `sectors`, as most disks have it: 128 entries, and room from 1 MiB on.
    pub fn new(guid: Guid, sectors: u64) -> Self {
        Self {
            guid,
            sectors,
            entries: ENTRIES,
            first_usable: ALIGNMENT,
            partitions: Vec::new(),
        }
    }

    /// Returns how many sectors one copy of the entries takes.
    pub fn entry_sectors(&self) -> u64 {
        (u64::from(self.entries) * encode::ENTRY_BYTES as u64).div_ceil(SECTOR_BYTES)
    }

    /// Returns the sectors that partitions may have: from where it was said up to the second copy.
    pub fn usable(&self) -> std::ops::Range<u64> {
        self.first_usable..self.sectors.saturating_sub(1 + self.entry_sectors())
    }

    /// Writes both copies, and the MBR with `boot_code`, of at most 440 bytes, to `disk`.
    ///
    /// # Errors
    ///
    /// A table that no disk can have, by its variant of [`GptError`]; nothing was written then.
    pub fn write(&self, boot_code: &[u8], disk: &Region) -> Result<(), GptError> {
        let mbr = encode::protective_mbr(boot_code, self.sectors)?;
        self.write_behind(&mbr, disk)
    }

    /// Writes both copies, and an MBR in which the partition `fat` stands too, to `disk`: for firmware that knows no GPT.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write); or [`GptError::Hybrid`].
    pub fn write_hybrid(&self, fat: &Partition, disk: &Region) -> Result<(), GptError> {
        self.write_behind(&encode::hybrid_mbr(fat)?, disk)
    }

    fn write_behind(
        &self,
        mbr: &[u8; SECTOR_BYTES as usize],
        disk: &Region,
    ) -> Result<(), GptError> {
        for (sector, bytes) in self.encode()? {
            disk.write_all_at(&bytes, sector * SECTOR_BYTES)?;
        }
        disk.write_all_at(mbr, 0)?;
        Ok(())
    }

    /// Returns what is to be written of both copies, by sector: entries and header at the start, entries and header at the end.
    ///
    /// The MBR is not among it.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub fn encode(&self) -> Result<[(u64, Vec<u8>); 4], GptError> {
        self.check()?;
        Ok(encode::copies(self))
    }

    /// Reads the table of `disk`, which ends where the region does.
    ///
    /// # Errors
    ///
    /// No protective MBR, a copy that is damaged or not where it belongs, or two that differ.
    pub fn read(disk: &Region) -> Result<Self, ReadError> {
        read::read(disk)
    }

    /// Reads the copy at the start of `disk` alone, wherever on it the other one is and whatever that says.
    ///
    /// # Errors
    ///
    /// No protective MBR, or a copy that is damaged.
    pub fn read_first(disk: &Region) -> Result<Self, ReadError> {
        read::read_first(disk)
    }

    fn check(&self) -> Result<(), GptError> {
        let per_sector = SECTOR_BYTES as u32 / encode::ENTRY_BYTES as u32;
        if self.partitions.len() > self.entries as usize || !self.entries.is_multiple_of(per_sector)
        {
            return Err(GptError::Entries {
                partitions: self.partitions.len(),
                entries: self.entries,
            });
        }
        let usable = self.usable();
        if usable.start < 2 + self.entry_sectors() || usable.is_empty() {
            return Err(GptError::Disk(self.sectors));
        }
        let mut by_place: Vec<&Partition> = self.partitions.iter().collect();
        by_place.sort_by_key(|partition| partition.first);
        for partition in &by_place {
            let Partition {
                name,
                first,
                sectors,
                ..
            } = partition;
            if name.encode_utf16().count() > encode::NAME_UNITS {
                return Err(GptError::Name(name.clone()));
            }
            let end = first.checked_add(*sectors);
            if *sectors == 0 || *first < usable.start || end.is_none_or(|end| end > usable.end) {
                return Err(GptError::Place {
                    name: name.clone(),
                    first: *first,
                    sectors: *sectors,
                    usable,
                });
            }
        }
        match by_place
            .windows(2)
            .find(|pair| pair[0].end() > pair[1].first)
        {
            Some(pair) => Err(GptError::Overlap(
                pair[0].name.clone(),
                pair[1].name.clone(),
            )),
            None => Ok(()),
        }
    }
}

impl Partition {
    /// Returns the sector after its last.
    pub fn end(&self) -> u64 {
        self.first + self.sectors
    }

    /// Returns where it is in bytes.
    pub fn extent(&self) -> Extent {
        Extent {
            start: self.first * SECTOR_BYTES,
            len: self.sectors * SECTOR_BYTES,
        }
    }
}
