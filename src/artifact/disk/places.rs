//! The partitions of a disk, one behind the other: upstream's names, types and GUIDs.

use super::size::MIB;
use crate::artifact::gpt::{ALIGNMENT, Partition, SECTOR_BYTES, Table};
use crate::artifact::guid::Guid;
use crate::artifact::names::{EFI_LABEL, OEM_LABEL, RECOVERY_LABEL};
use crate::artifact::region::Extent;

/// The name that the disk's own GUID comes from.
const DISK: &str = "KAIROS_DISK";
/// What stays free behind the last partition, where the second table is.
const TAIL_BYTES: u64 = MIB;
/// Attribute bits of a BIOS boot partition: the platform needs it, and a BIOS may start from it.
const BIOS_ATTRIBUTES: u64 = 1 | 1 << 2;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Efi,
    Bios,
    Oem,
    Recovery,
}

impl Part {
    /// Returns the name in the table.
    fn name(self) -> &'static str {
        match self {
            Self::Efi => "efi",
            Self::Bios => "bios",
            Self::Oem => "oem",
            Self::Recovery => "recovery",
        }
    }

    fn kind(self) -> Guid {
        match self {
            Self::Efi => Guid::EFI_SYSTEM,
            Self::Bios => Guid::BIOS_BOOT,
            Self::Oem | Self::Recovery => Guid::LINUX,
        }
    }
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Places {
    parts: Vec<(Part, Partition)>,
    /// The size of the disk in sectors.
    sectors: u64,
}

impl Places {
    /// Gives `parts`, with their sizes in bytes, their places in this order, on the smallest disk that has room for them.
    pub(super) fn new(parts: &[(Part, u64)]) -> Self {
        let has_efi = parts.iter().any(|(part, _)| *part == Part::Efi);
        let mut next = ALIGNMENT;
        let mut places = Vec::new();
        for (part, bytes) in parts {
            let sectors = bytes.next_multiple_of(MIB) / SECTOR_BYTES;
            // Upstream's disks have one of the two, with the same GUID.
            let label = match part {
                Part::Bios if has_efi => "COS_BIOS",
                Part::Efi | Part::Bios => EFI_LABEL,
                Part::Oem => OEM_LABEL,
                Part::Recovery => RECOVERY_LABEL,
            };
            let partition = Partition {
                name: part.name().to_owned(),
                kind: part.kind(),
                guid: Guid::of_name(Guid::URL, label),
                first: next,
                sectors,
                attributes: match part {
                    Part::Bios => BIOS_ATTRIBUTES,
                    _ => 0,
                },
            };
            next = partition.end();
            places.push((*part, partition));
        }
        Self {
            parts: places,
            sectors: next + TAIL_BYTES / SECTOR_BYTES,
        }
    }

    /// Returns the size of the disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.sectors * SECTOR_BYTES
    }

    /// Makes the disk one of `bytes`, which are no fewer than now and whole MiB.
    pub(super) fn grow(&mut self, bytes: u64) {
        self.sectors = self.sectors.max(bytes / SECTOR_BYTES);
    }

    /// Returns the number of a partition, the first being 1, and where it is in bytes.
    pub(super) fn find(&self, wanted: Part) -> Option<(u32, Extent)> {
        let numbered = (1..).zip(&self.parts);
        let mut found = numbered.filter(|(_, (part, _))| *part == wanted);
        found
            .next()
            .map(|(number, (_, partition))| (number, partition.extent()))
    }

    /// Returns a partition as the table has it.
    pub(super) fn partition(&self, wanted: Part) -> Option<&Partition> {
        let mut parts = self.parts.iter();
        let found = parts.find(|(part, _)| *part == wanted);
        found.map(|(_, partition)| partition)
    }

    /// Returns the partition table.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(Guid::of_name(Guid::URL, DISK), self.sectors);
        table.partitions = self.parts.iter().map(|(_, it)| it.clone()).collect();
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_and_both_tables_have_room() {
        let parts = [
            (Part::Efi, 64 * MIB),
            (Part::Bios, MIB),
            (Part::Oem, 64 * MIB),
            (Part::Recovery, 100 * MIB + 1),
        ];
        let mut places = Places::new(&parts);
        assert_eq!(places.size(), (1 + 64 + 1 + 64 + 101 + 1) * MIB);
        assert_eq!(places.find(Part::Bios).unwrap().0, 2);
        let (number, extent) = places.find(Part::Recovery).unwrap();
        assert_eq!((number, extent.start), (4, 130 * MIB));
        places.grow(300 * MIB);
        let table = places.table();
        assert_eq!(
            table.guid.to_string(),
            "2ceff841-4c1d-5a14-8e46-ed3aeb621093"
        );
        assert_eq!(table.sectors * SECTOR_BYTES, 300 * MIB);
        assert!(table.encode().is_ok());
        let mut guids: Vec<Guid> = table.partitions.iter().map(|it| it.guid).collect();
        guids.sort();
        guids.dedup();
        assert_eq!(guids.len(), 4);
    }

    #[test]
    fn a_disk_for_one_firmware_has_upstreams_guids() {
        for part in [Part::Efi, Part::Bios] {
            let table = Places::new(&[(part, MIB), (Part::Oem, MIB)]).table();
            let guid = Guid::of_name(Guid::URL, "COS_GRUB");
            assert_eq!(table.partitions[0].guid, guid);
        }
    }
}
