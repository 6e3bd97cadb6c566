//! Tells by its content what a file is.

use super::rule::Kind;
use crate::artifact::region::Region;
use crate::error::{Error, Result};

/// Formats that are not read, by bytes at a place, with the words for what to do.
const OTHERS: [(u64, &[u8], &str, &str); 10] = [
    (0, b"QFI\xfb", "a qcow2 disk", "qemu-img convert -O raw"),
    (0, b"KDMV", "a VMDK disk", "qemu-img convert -O raw"),
    (
        0,
        b"# Disk DescriptorFile",
        "a VMDK disk",
        "qemu-img convert -O raw",
    ),
    (
        0,
        b"conectix",
        "a VHD disk",
        "qemu-img convert -f vpc -O raw",
    ),
    (0, b"vhdxfile", "a VHDX disk", "qemu-img convert -O raw"),
    (0, b"<<< Oracle V", "a VDI disk", "qemu-img convert -O raw"),
    (
        0,
        b"\x1f\x8b",
        "compressed with gzip",
        "gzip -d, of a .tar.gz `tar -xzf`, unpacks it:",
    ),
    (0, b"\xfd7zXZ\0", "compressed with xz", "xz -d unpacks it:"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "zstd -d unpacks it:",
    ),
    (
        0,
        b"hsqs",
        "a squashfs alone",
        "name the medium or the directory it is for:",
    ),
];
/// Where GPT begins, and the end of the MBR before it.
const GPT: u64 = 512;
const MBR_END: u64 = 510;
/// The end of a fixed VHD, which is a raw disk before it.
pub(super) const FOOTER: u64 = 512;
pub(super) const FOOTER_MAGIC: &[u8] = b"conectix";

/// Returns what is in `file`.
///
/// # Errors
///
/// A format that is not read, by its name and with the way out; or none that is known.
pub(super) fn of(file: &Region) -> Result<Kind> {
    let is = |at: u64, magic: &[u8]| {
        let mut bytes = vec![0; magic.len()];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes == magic
    };
    if is(16 * 2048 + 1, b"CD001") {
        return Ok(Kind::Iso);
    }
    for (at, magic, name, remedy) in OTHERS {
        if is(at, magic) {
            return Err(refused(name, remedy));
        }
    }
    // A disk whose first sector was damaged has the table behind it still.
    let is_disk = is(GPT, b"EFI PART") || is(MBR_END, &[0x55, 0xaa]) && is_protective(file);
    if is_disk || is(file.len().saturating_sub(FOOTER), FOOTER_MAGIC) {
        return Ok(Kind::Disk);
    }
    Err(
        Error::user("it is neither an ISO 9660 medium nor a disk with a GPT")
            .hint("`kfactory iso`, `kfactory raw` and `kfactory netboot` write what is read here"),
    )
}

fn is_protective(file: &Region) -> bool {
    let mut mbr = [0; 512];
    let is_read = file.read_exact_at(&mut mbr, 0).is_ok();
    is_read && mbr[446..510].chunks_exact(16).any(|entry| entry[4] == 0xee)
}

fn refused(name: &str, remedy: &str) -> Error {
    let text = match remedy.strip_suffix(':') {
        Some(words) => words.to_owned(),
        None => format!("`{remedy} FILE disk.raw` makes a raw disk of it, which is read"),
    };
    Error::user(format!("it is {name}, which is not read here")).hint(text)
}
