//! Boot sectors that are told where on the medium the rest lies.

use super::Core;

/// Bytes of a disk's sector, the unit of every LBA here.
pub const SECTOR: usize = 512;
/// A boot sector.
pub type Sector = [u8; SECTOR];

/// Bytes of `cdboot.img`: one block of a CD.
pub(super) const CDBOOT_BYTES: usize = 2048;
const SECTORS_IN_BLOCK: u64 = (CDBOOT_BYTES / SECTOR) as u64;

/// `boot.img`: u64, the sector of the core.
const BOOT_CORE: usize = 0x5c;
/// `boot.img`: a jump of two bytes over the code that mends a wrong drive number.
pub(super) const BOOT_DRIVE_CHECK: usize = 0x66;
/// `boot_hybrid.img`: u64, the sector of the core inside the El Torito image.
const HYBRID_CORE: usize = 0x1b0;

/// The boot information table (as `mkisofs -boot-info-table` writes it): u32 block of the primary volume descriptor, u32 block of
/// the image, u32 its bytes, u32 sum of its words from byte 64 on; 40 bytes reserved.
const INFO_TABLE: usize = 8;
const INFO_SUMMED: usize = 64;
/// ECMA-119, 6.2.1: 16 blocks of system area lie before the descriptors.
const PRIMARY_DESCRIPTOR: u32 = 16;
/// The list of blocks of the `diskboot.img` behind `cdboot.img`: u64, the sector after it.
const BLOCKS_SECTOR: usize = CDBOOT_BYTES + SECTOR - 12;

/// The El Torito image for BIOS machines, but for where it will lie. No emulation; four sectors are to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElTorito {
    bytes: Vec<u8>,
}

impl ElTorito {
    pub(super) fn new(cdboot: Vec<u8>, core: &Core) -> Self {
        let mut bytes = cdboot;
        bytes.extend(core.bytes());
        Self { bytes }
    }

    /// Returns the image told no place; its size is final.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the image told that it begins at `block` (of 2048 bytes) of the medium: its boot information table and its list
    /// of blocks are filled in.
    pub fn at(&self, block: u32) -> Vec<u8> {
        let mut placed = self.bytes.clone();
        let rest = core_sector(block) + 1;
        put(&mut placed, BLOCKS_SECTOR, &rest.to_le_bytes());
        let sum = sum_of_words(&placed[INFO_SUMMED..]);
        // At most some 384 KiB.
        let bytes = u32::try_from(placed.len()).unwrap_or(u32::MAX);
        let mut table = [0; INFO_SUMMED - INFO_TABLE];
        for (index, field) in [PRIMARY_DESCRIPTOR, block, bytes, sum]
            .into_iter()
            .enumerate()
        {
            put(&mut table, index * 4, &field.to_le_bytes());
        }
        put(&mut placed, INFO_TABLE, &table);
        placed
    }

    /// Returns the hybrid MBR `boot` told that the El Torito image begins at `block` (of 2048 bytes). Of its 512 bytes the first
    /// 440 are code.
    pub fn hybrid_mbr_at(mut boot: Sector, block: u32) -> Sector {
        put(&mut boot, HYBRID_CORE, &core_sector(block).to_le_bytes());
        boot
    }
}

/// The sector of the core in an El Torito image at `block`.
fn core_sector(block: u32) -> u64 {
    u64::from(block) * SECTORS_IN_BLOCK + SECTORS_IN_BLOCK
}

/// Tells `boot.img` where the core is, and to mend what some BIOSes say of the drive, as GRUB's installer does for hard disks.
pub(super) fn mbr(mut boot: Sector, core_lba: u64) -> Sector {
    const NO_OPERATION: u8 = 0x90;
    put(&mut boot, BOOT_CORE, &core_lba.to_le_bytes());
    put(&mut boot, BOOT_DRIVE_CHECK, &[NO_OPERATION; 2]);
    boot
}

/// Sums little-endian words, the last one filled up with zeros.
fn sum_of_words(bytes: &[u8]) -> u32 {
    bytes.chunks(4).fold(0, |sum: u32, word| {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        sum.wrapping_add(u32::from_le_bytes(whole))
    })
}

/// Writes `field` at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
