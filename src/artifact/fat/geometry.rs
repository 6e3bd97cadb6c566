//! How large the parts of a FAT volume are, and of which kind it is.

use super::{FatError, Kind, SIZE_STEP};

pub(super) const SECTOR_BYTES: u32 = 512;
/// The table's first two entries are no clusters.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// The usual length of the root directory where it has a place of its own.
const ROOT_ENTRIES: u32 = 512;
/// From this size on the table has 32 bits, as mkfs.fat has it.
const FAT32_FROM: u64 = 512 << 20;
/// The most clusters of each kind, and the fewest; some drivers count the two reserved entries, so that 16 bits begin two later.
const CLUSTERS: [(Kind, u32, u32); 3] = [
    (Kind::Fat12, 1, 4084),
    (Kind::Fat16, 4087, 65_524),
    (Kind::Fat32, 65_525, 0x0FFF_FFF4),
];

/// The parts of a volume, in sectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) kind: Kind,
    pub(super) sectors: u32,
    /// What is before the first table.
    pub(super) reserved: u32,
    /// One table; there are two.
    pub(super) table: u32,
    /// The root directory; none where it is made of clusters.
    pub(super) root: u32,
    pub(super) per_cluster: u32,
    /// How many clusters there are.
    pub(super) clusters: u32,
}

impl Geometry {
    pub(super) fn of_size(
        size: u64,
        kind: Option<Kind>,
        root_entries: u32,
    ) -> Result<Self, FatError> {
        let sectors = u32::try_from(size / u64::from(SECTOR_BYTES))
            .ok()
            .filter(|_| size.is_multiple_of(SECTOR_BYTES.into()))
            .ok_or(FatError::Size(size))?;
        let wide = kind.map_or(size >= FAT32_FROM, |kind| kind == Kind::Fat32);
        let choices: &[u32] = match size >> 20 {
            _ if !wide => &[4, 8, 16, 32, 64, 128],
            0..260 => &[1],
            260..8192 => &[8, 4, 2, 1],
            8192..16384 => &[16],
            16384..32768 => &[32],
            _ => &[64, 128],
        };
        let kinds: &[Kind] = if wide {
            &[Kind::Fat32]
        } else {
            &[Kind::Fat12, Kind::Fat16]
        };
        let mut all = choices
            .iter()
            .flat_map(|per_cluster| kinds.iter().map(|kind| (*per_cluster, *kind)))
            .filter(|(_, one)| kind.is_none_or(|kind| kind == *one));
        all.find_map(|(per_cluster, kind)| Self::of(kind, sectors, per_cluster, root_entries))
            .ok_or(FatError::Size(size))
    }

    /// Returns the smallest volume with room for nodes of so many `bytes`.
    pub(super) fn smallest(
        bytes: &[u32],
        kind: Option<Kind>,
        root_entries: u32,
    ) -> Result<Self, FatError> {
        let content: u64 = bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        let mut size = content / SIZE_STEP * SIZE_STEP;
        loop {
            size += SIZE_STEP;
            match Self::of_size(size, kind, root_entries) {
                Ok(geometry) if geometry.needed(bytes) <= geometry.clusters.into() => {
                    return Ok(geometry);
                }
                // The next step may be large enough for the kind asked for; nothing is beyond the largest of all.
                Err(error) if size > content + (1 << 30) => return Err(error),
                _ => {}
            }
        }
    }

    /// Returns the volume of this kind, where it exists with these clusters.
    fn of(kind: Kind, sectors: u32, per_cluster: u32, root_entries: u32) -> Option<Self> {
        let entries_per_sector = SECTOR_BYTES / super::name::ENTRY_BYTES;
        let (reserved, root) = match kind {
            Kind::Fat32 => (32, 0),
            _ => (
                1,
                root_entries.max(ROOT_ENTRIES).div_ceil(entries_per_sector),
            ),
        };
        let mut table = 1;
        loop {
            let left = sectors.checked_sub(reserved + root + 2 * table)?;
            let clusters = left / per_cluster;
            let entries = u64::from(clusters) + u64::from(FIRST_CLUSTER);
            let needed = (entries * kind.bits()).div_ceil(8 * u64::from(SECTOR_BYTES)) as u32;
            if needed <= table {
                let (_, least, most) = CLUSTERS.into_iter().find(|(one, ..)| *one == kind)?;
                return (least..=most).contains(&clusters).then_some(Self {
                    kind,
                    sectors,
                    reserved,
                    table,
                    root,
                    per_cluster,
                    clusters,
                });
            }
            table += 1.max((needed - table) / 2);
        }
    }

    pub(super) fn size(&self) -> u64 {
        u64::from(self.sectors) * u64::from(SECTOR_BYTES)
    }

    pub(super) fn cluster_bytes(&self) -> u32 {
        self.per_cluster * SECTOR_BYTES
    }

    /// Returns where the first cluster begins, in sectors.
    pub(super) fn data(&self) -> u32 {
        self.reserved + 2 * self.table + self.root
    }

    /// Returns where `cluster` begins, in bytes.
    pub(super) fn offset(&self, cluster: u32) -> u64 {
        u64::from(self.data()) * u64::from(SECTOR_BYTES)
            + u64::from(cluster - FIRST_CLUSTER) * u64::from(self.cluster_bytes())
    }

    /// Returns how many clusters the node `index` of `bytes` takes; the root directory is node 0.
    pub(super) fn clusters_of(&self, index: usize, bytes: u32) -> u32 {
        if index == 0 && self.root > 0 {
            return 0;
        }
        bytes.div_ceil(self.cluster_bytes())
    }

    /// Returns how many clusters all nodes take.
    pub(super) fn needed(&self, bytes: &[u32]) -> u64 {
        let of = |(index, bytes): (usize, &u32)| u64::from(self.clusters_of(index, *bytes));
        bytes.iter().enumerate().map(of).sum()
    }
}

impl Kind {
    /// Returns how many bits an entry of the table has.
    pub(super) fn bits(self) -> u64 {
        match self {
            Kind::Fat12 => 12,
            Kind::Fat16 => 16,
            Kind::Fat32 => 32,
        }
    }
}
