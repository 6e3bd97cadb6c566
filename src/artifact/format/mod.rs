//! Disks in the forms that clouds and hypervisors take them in, made from a raw one.
//!
//! Each is written in one pass with bounded memory. Holes are found without reading them, and what is zero is left out wherever the
//! form can do so; the result depends on the content alone, not on where the file system happens to keep holes. Sizes that a cloud
//! asks for are refused here, not made: the table at the end of a disk has to be where the disk ends, so who lays it out
//! gives it the size, by [`rounded_up`].
//!
//! | file | what |
//! |---|---|
//! | [`Format`] | which one, by name or by the ending of a file |
//! | [`gce`] | Google Compute Engine: `disk.raw` in a compressed archive |
//! | [`maas`] | MAAS: the raw disk compressed with gzip |
//! | [`qcow2`] | QEMU, OpenStack, Proxmox |
//! | [`vhd`] | Azure: fixed VHD |
//! | [`vmdk`] | vSphere: stream-optimised VMDK, as in an OVA |
//! | [`view`] | what is in such a file, read back |

pub mod gce;
mod kinds;
pub mod maas;
pub mod qcow2;
mod raw;
#[cfg(test)]
mod tests;
pub mod vhd;
pub mod view;
pub mod vmdk;

pub use kinds::{Details, Format, Sizes};
pub use raw::RawDisk;

use std::io;

const SECTOR_BYTES: u64 = 512;
/// How finely zeros are looked for: the unit of qcow2 and VMDK.
const CHUNK_BYTES: u64 = 64 << 10;

/// Returns the smallest multiple of `step` that is at least `size`.
pub fn rounded_up(size: u64, step: u64) -> u64 {
    size.next_multiple_of(step)
}

/// Refuses a disk whose size is not a multiple of `step`.
fn has_step(disk: &RawDisk, step: u64, form: &str) -> io::Result<()> {
    if disk.size() > 0 && disk.size().is_multiple_of(step) {
        return Ok(());
    }
    let size = disk.size();
    let why = format!(
        "a disk of {size} bytes cannot become {form}, whose size is a multiple of {step} bytes"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}
