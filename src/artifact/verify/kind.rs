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
/// The end of a disk that Azure takes, which is a raw one before it.
const FOOTER: u64 = 512;

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
    let end = file.len().saturating_sub(FOOTER);
    if is(end, b"conectix") {
        return Err(refused("a VHD disk", "qemu-img convert -f vpc -O raw"));
    }
    Err(Error::user("it is no ISO 9660 medium")
        .hint("`kfactory iso` and `kfactory netboot` write what is read here"))
}

fn refused(name: &str, remedy: &str) -> Error {
    let text = match remedy.strip_suffix(':') {
        Some(words) => words.to_owned(),
        None => format!("`{remedy} FILE disk.raw` makes a raw disk of it, which is read"),
    };
    Error::user(format!("it is {name}, which is not read here")).hint(text)
}
