//! Tells by its content what a file is.

use super::rule::Kind;
use crate::artifact::format::view::{gzip, qcow2, vmdk};
use crate::artifact::gpt::{MbrPartition, mbr_partitions};
use crate::artifact::region::Region;
use crate::error::{Error, Result};

/// What makes any disk one that is read.
pub(super) const CONVERT: &str =
    "`qemu-img convert -O raw FILE disk.raw` makes a raw disk of it, which is read";

/// What unpacks what is compressed with gzip.
pub(super) const UNPACK: &str = "`gzip -dc FILE > UNPACKED` unpacks it, `tar -xzf FILE` an archive";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Something that boots, as it is.
    Plain(Kind),
    /// A disk in another form.
    Formed(Form),
}

/// A form in which a disk is read, beside the raw one and that with a footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Qcow2,
    Vmdk,
    /// Alone, or in an archive.
    Gzip,
}

/// Forms by their first bytes.
const FORMS: [(&[u8], Form); 3] = [
    (qcow2::MAGIC, Form::Qcow2),
    (vmdk::MAGIC, Form::Vmdk),
    (gzip::MAGIC, Form::Gzip),
];
/// Formats that are not read, by where their mark is and by its bytes, with what to do.
const OTHERS: [(u64, &[u8], &str, &str); 12] = [
    (
        0,
        b"# Disk DescriptorFile",
        "a VMDK disk of several files",
        CONVERT,
    ),
    (0, b"COWD", "a VMDK disk of ESX's", CONVERT),
    (0, b"conectix", "a VHD disk that grows", CONVERT),
    (0, b"vhdxfile", "a VHDX disk", CONVERT),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI disk", CONVERT),
    (0, b"QED\0", "a QED disk", CONVERT),
    (0, b"WithoutFreeSpace", "a disk of Parallels'", CONVERT),
    (0, b"WithouFreSpacExt", "a disk of Parallels'", CONVERT),
    (
        0,
        b"LUKS\xba\xbe",
        "an encrypted disk (LUKS)",
        "open it with `cryptsetup`, and name what is in it",
    ),
    (
        0,
        b"\xfd7zXZ\0",
        "compressed with xz",
        "`xz -dk FILE` unpacks it",
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "`zstd -dk FILE` unpacks it",
    ),
    (
        0,
        b"hsqs",
        "a squashfs alone",
        "name the medium that it is on, or the directory with the kernel that boots it",
    ),
];
/// Where GPT begins, and the end of the MBR before it.
const GPT: u64 = 512;
const MBR_END: u64 = 510;
/// Where it begins on disks whose sectors are larger.
const LARGE_SECTOR: u64 = 4096;
/// The end of a fixed VHD, which is a raw disk before it.
pub(super) const FOOTER: u64 = 512;
pub(super) const FOOTER_MAGIC: &[u8] = b"conectix";

/// Returns what is in `file`.
///
/// # Errors
///
/// A format that is not read, by its name and with the way out; or none that is known.
pub(super) fn of(file: &Region) -> Result<Content> {
    // What cannot be read is no other format.
    let mut first = vec![0; file.len().min(LARGE_SECTOR) as usize];
    file.read_exact_at(&mut first, 0)?;
    let is = |at: u64, magic: &[u8]| {
        let mut bytes = vec![0; magic.len()];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes == magic
    };
    // The first descriptor may be what is damaged.
    if (16..19).any(|block| is(block * 2048 + 1, b"CD001")) {
        return Ok(Content::Plain(Kind::Iso));
    }
    if let Some((_, form)) = FORMS.iter().find(|form| is(0, form.0)) {
        return Ok(Content::Formed(*form));
    }
    let mut others = OTHERS.iter();
    if let Some((_, _, name, remedy)) = others.find(|other| is(other.0, other.1)) {
        let error = Error::user(format!("it is {name}, which is not read here"));
        return Err(error.hint(*remedy));
    }
    if !is(GPT, b"EFI PART") && is(LARGE_SECTOR, b"EFI PART") {
        return Err(
            Error::user("it is a disk with sectors of 4096 bytes, which is not read here")
                .hint("a disk made for sectors of 512 bytes starts from nearly everything"),
        );
    }
    // A disk whose first sector was damaged has the table behind it still.
    let is_disk = is(GPT, b"EFI PART") || is(MBR_END, &[0x55, 0xaa]) && is_protective(file);
    if is_disk || is(file.len().saturating_sub(FOOTER), FOOTER_MAGIC) {
        return Ok(Content::Plain(Kind::Disk));
    }
    Err(
        Error::user("it is neither an ISO 9660 medium nor a disk with a GPT")
            .hint("`kfactory iso`, `kfactory raw` and `kfactory netboot` write what is read here"),
    )
}

fn is_protective(file: &Region) -> bool {
    let partitions = mbr_partitions(file).unwrap_or_default();
    partitions.iter().any(MbrPartition::is_protective)
}
