//! How firmware finds boot images on a CD, and what these are told about their place.
//!
//! Spec: El Torito 1.0, 2; `-boot-info-table` of mkisofs; GRUB's `cdboot.S` and `boot.S`.

use super::descriptor::FIRST;
use super::view::Extent;
use super::{BLOCK, SECTOR};

/// Where GRUB's image is told where it goes on. Its first block is `cdboot.img`, then comes the sector of `diskboot.img`, whose
/// list of blocks this is.
pub(super) const GRUB_INFO: std::ops::Range<usize> = 2548..2556;
/// Where the boot info table is, and where it ends.
const TABLE: std::ops::Range<usize> = 8..64;

/// How many sectors of GRUB's image the firmware loads: `cdboot.img`, which loads the rest.
const LOAD_SECTORS: u16 = 4;

/// The platforms of boot images.
pub(super) const BIOS: u8 = 0;
pub(super) const UEFI: u8 = 0xef;
/// The first byte of an entry that can be started.
pub(super) const BOOTABLE: u8 = 0x88;
/// The first byte of a section's header: of the last section, which is the one that we need.
pub(super) const LAST_SECTION: u8 = 0x91;

/// Returns the catalog, one block; none where nothing boots.
pub(super) fn catalog(bios: Option<Extent>, uefi: Option<Extent>) -> Option<Vec<u8>> {
    let bios = bios.map(|extent| entry(extent.block, LOAD_SECTORS));
    let uefi = uefi.map(|extent| {
        let sectors = extent.size / SECTOR;
        // 0 lets firmware read on to the end; the number has 16 bits.
        entry(extent.block, u16::try_from(sectors).unwrap_or(0))
    });
    let mut bytes = match (bios, uefi) {
        (None, None) => return None,
        (Some(only), None) => [validation(BIOS), only].concat(),
        (None, Some(only)) => [validation(UEFI), only].concat(),
        (Some(first), Some(second)) => {
            let mut section = [0; 32];
            section[..4].copy_from_slice(&[LAST_SECTION, UEFI, 1, 0]);
            [validation(BIOS), first, section, second].concat()
        }
    };
    bytes.resize(BLOCK as usize, 0);
    Some(bytes)
}

/// The first entry, whose 16-bit words add up to 0.
fn validation(platform: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&[1, platform]);
    bytes[30..].copy_from_slice(&[0x55, 0xaa]);
    let checksum = 0u16.wrapping_sub(sum16(&bytes));
    bytes[28..30].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Returns the sum of the 16-bit words.
pub(super) fn sum16(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|two| u16::from_le_bytes([two[0], two[1]]));
    words.fold(0, u16::wrapping_add)
}

/// An entry without emulation, loaded where BIOSes load by default.
fn entry(block: u32, sectors: u16) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = BOOTABLE;
    bytes[6..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[8..12].copy_from_slice(&block.to_le_bytes());
    bytes
}

/// Tells a BIOS boot image, which starts at `block`, where it is.
pub(super) fn patch(image: &mut [u8], block: u32) {
    image[GRUB_INFO].copy_from_slice(&grub_sector(block).to_le_bytes());
    let checksum = checksum(image);
    let len = image.len() as u32;
    let table = &mut image[TABLE];
    table.fill(0);
    for (slot, number) in table.chunks_exact_mut(4).zip([FIRST, block, len, checksum]) {
        slot.copy_from_slice(&number.to_le_bytes());
    }
}

/// Returns the sector that GRUB's image goes on at: after the one that its second block starts with.
pub(super) fn grub_sector(block: u32) -> u64 {
    u64::from(block) * (BLOCK / SECTOR) + 5
}

/// Returns the sum of the 32-bit words after the boot info table.
pub(super) fn checksum(image: &[u8]) -> u32 {
    let words = image[TABLE.end..].chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    });
    words.fold(0, u32::wrapping_add)
}
