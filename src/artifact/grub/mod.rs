//! GRUB on bootable media: everything is taken from the image itself, and no program is run.
//!
//! - [`bios`]: boot code for BIOS machines, composed of the image's GRUB modules: El Torito, hybrid MBR, disks.
//! - [`efi`]: which of the image's shim and GRUB go onto the FAT of a medium, and under which names.
//! - [`menu`]: the texts of `grub.cfg`.
//! - `places`: where distributions put these files.
//! - [`Files`]: how the image's files are reached.

pub mod bios;
pub mod efi;
mod files;
pub mod menu;
mod places;
#[cfg(test)]
mod qemu;
#[cfg(test)]
mod sample;

pub use files::{Files, is_wanted};
pub(crate) use places::{
    BIOS_DIRS, EFI_DIR, MORE_VENDORS, VENDORS, first_program, grub_places, shim_places,
};
