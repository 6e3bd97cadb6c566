//! Boot sectors, and telling the one of a disk where the rest lies.

use crate::artifact::gpt::BOOT_CODE_BYTES;

/// Bytes of a disk's sector, the unit of every LBA here.
pub const SECTOR: usize = 512;
/// A boot sector.
pub type Sector = [u8; SECTOR];

/// `boot.img`: u64, the sector of the core.
pub(crate) const CORE: usize = 0x5c;
/// `boot.img`: a jump of two bytes over the code that mends a wrong drive number.
const DRIVE_CHECK: usize = 0x66;
const SHORT_JUMP: u8 = 0xeb;
const NO_OPERATION: u8 = 0x90;

/// Tells the code of `boot.img` where the core is, and to mend what some BIOSes say of the drive, as GRUB's installer does for
/// hard disks. `None` where it is no code of GRUB's.
pub(super) fn mbr_code(boot: &Sector, core_lba: u64) -> Option<[u8; BOOT_CODE_BYTES]> {
    if boot[DRIVE_CHECK] != SHORT_JUMP {
        return None;
    }
    let mut code = [0; BOOT_CODE_BYTES];
    code.copy_from_slice(&boot[..BOOT_CODE_BYTES]);
    put(&mut code, CORE, &core_lba.to_le_bytes());
    put(&mut code, DRIVE_CHECK, &[NO_OPERATION; 2]);
    Some(code)
}

/// Writes `field` at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}
