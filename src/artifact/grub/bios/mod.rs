//! Boot code for BIOS machines, composed of the image's own GRUB modules.
//!
//! What `grub-mkimage` and `grub-install` make, byte for byte from the files of the image:
//!
//! ```text
//! El Torito image:   cdboot.img | core
//! hybrid MBR:        boot_hybrid.img, which reads the core out of the El Torito image
//! disk:              boot.img in LBA 0, which reads the core in a BIOS boot partition
//!
//! core:              diskboot.img | lzma_decompress.img | LZMA( kernel | module info, modules, config, prefix )
//! ```
//!
//! - [`Modules`]: the directory of modules in an image, and what is made of it.
//! - [`CoreSpec`]: what goes into a core; those for live media and disks.
//! - [`Core`]: finished but for where on a disk it will lie, which [`Core::at`] writes into it. The El Torito image and the hybrid
//!   MBR are told so by what writes the ISO.
//! - `kernel`: `kernel.img` as it lies in memory. `closure`: which modules a module needs. `payload`: what is compressed.

mod closure;
mod core;
mod kernel;
mod modules;
mod payload;
mod sectors;
mod spec;
#[cfg(test)]
mod tests;

pub use self::core::Core;
pub(crate) use self::core::{BLOCKS_ENTRY, COMPRESSED_BYTES};
pub use modules::Modules;
pub(crate) use sectors::CORE;
pub use sectors::{SECTOR, Sector};
pub use spec::CoreSpec;
