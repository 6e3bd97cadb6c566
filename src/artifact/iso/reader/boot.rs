//! What firmware reads: the El Torito catalog and the MBR.

use super::ReadError;
use super::source::{Source, damaged};
use crate::artifact::bytes::{le16, le32, le64};
use crate::artifact::gpt::MbrPartition;
use crate::artifact::iso::descriptor::FIRST;
use crate::artifact::iso::el_torito::{
    BOOTABLE, GRUB_INFO, LAST_SECTION, checksum, grub_sector, sum16,
};
use crate::artifact::iso::hybrid::CODE_SECTOR;
use crate::artifact::iso::{BLOCK, SECTOR};

/// No boot image that is told its checksum is larger.
const LARGEST_IMAGE: u32 = 1 << 24;
/// The first byte of the header of a section that is not the last one.
const SECTION: u8 = 0x90;
const ENTRY: usize = 32;

/// The El Torito catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The block that it takes.
    pub block: u32,
    /// In its order; the first is the default one.
    pub entries: Vec<BootEntry>,
}

/// One boot image of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootEntry {
    /// For which firmware: 0 for BIOS, 0xef for UEFI.
    pub platform: u8,
    /// Whether it may be started.
    pub is_bootable: bool,
    /// What disk is emulated; 0 for none.
    pub emulation: u8,
    /// How many sectors of 512 bytes firmware loads; 0 or 1 of a UEFI image means as far as the disc reaches.
    pub sectors: u16,
    /// The first block of the image.
    pub block: u32,
    /// What the image was told about itself, where it was.
    pub info: Option<BootInfo>,
    /// Whether the image was told its place in GRUB's way.
    pub has_grub2_info: bool,
}

/// A boot info table, which leads to the image that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootInfo {
    /// The image's length in bytes.
    pub len: u32,
    /// Whether the checksum is that of the image.
    pub checksum_holds: bool,
}

/// The first sector of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mbr {
    /// Whether it holds code.
    pub has_code: bool,
    /// The sector from which GRUB's code loads its image; anything, where the code is another's.
    pub grub_sector: u64,
    /// Of the four entries those in use.
    pub partitions: Vec<MbrPartition>,
}

/// Reads the catalog at `block`.
pub(super) fn catalog(source: &mut Source<'_>, block: u32) -> Result<Catalog, ReadError> {
    const WHAT: &str = "the boot catalog";
    let bytes = source.block(WHAT, block)?;
    let bad = |why| damaged(WHAT, u64::from(block) * BLOCK, why);
    let validation = &bytes[..ENTRY];
    if validation[0] != 1 || validation[30..] != [0x55, 0xaa] || sum16(validation) != 0 {
        return Err(bad(
            "has a first entry that is none, or its checksum is wrong",
        ));
    }
    let mut entries = vec![(validation[1], &bytes[ENTRY..2 * ENTRY])];
    let mut rest = bytes[2 * ENTRY..].chunks_exact(ENTRY);
    while let Some(section) = rest.next() {
        if ![SECTION, LAST_SECTION].contains(&section[0]) {
            break;
        }
        for _ in 0..le16(section, 2) {
            let entry = rest.next().ok_or_else(|| bad("is longer than a block"))?;
            entries.push((section[1], entry));
        }
        if section[0] == LAST_SECTION {
            break;
        }
    }
    let mut found = Vec::new();
    for (platform, bytes) in entries {
        found.push(entry(source, platform, bytes)?);
    }
    Ok(Catalog {
        block,
        entries: found,
    })
}

fn entry(source: &mut Source<'_>, platform: u8, bytes: &[u8]) -> Result<BootEntry, ReadError> {
    const WHAT: &str = "a boot image";
    let block = le32(bytes, 8);
    let start = u64::from(block) * BLOCK;
    let sectors = le16(bytes, 6);
    if start.saturating_add(u64::from(sectors) * SECTOR) > source.len() {
        return Err(damaged(WHAT, start, "reaches past the end of the disc"));
    }
    let room = source.len() - start;
    let mut entry = BootEntry {
        platform,
        is_bootable: bytes[0] == BOOTABLE,
        emulation: bytes[1] & 0x0f,
        sectors,
        block,
        info: None,
        has_grub2_info: false,
    };
    if room >= GRUB_INFO.end as u64 {
        let head = source.bytes(WHAT, start, GRUB_INFO.end as u64)?;
        entry.has_grub2_info = head[GRUB_INFO] == grub_sector(block).to_le_bytes();
    }
    if room >= 64 {
        let head = source.bytes(WHAT, start, 64)?;
        // The descriptor is that of the last session, which need not be the first.
        let [descriptor, own, len, sum] = [8, 12, 16, 20].map(|at| le32(&head, at));
        if descriptor >= FIRST && own == block && (64..=LARGEST_IMAGE).contains(&len) {
            let image = source.bytes(WHAT, start, len.into())?;
            entry.info = Some(BootInfo {
                len,
                checksum_holds: checksum(&image) == sum,
            });
        }
    }
    Ok(entry)
}

/// Reads the first sector; none where it does not end as an MBR does.
pub(super) fn mbr(source: &mut Source<'_>) -> Result<Option<Mbr>, ReadError> {
    let bytes = source.bytes("the first sector", 0, SECTOR)?;
    if bytes[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    let sector = bytes.first_chunk().expect("a sector was read");
    Ok(Some(Mbr {
        has_code: bytes[..CODE_SECTOR].iter().any(|byte| *byte != 0),
        grub_sector: le64(sector, CODE_SECTOR),
        partitions: MbrPartition::all(sector),
    }))
}

impl Mbr {
    /// Tells whether it says that the partitions are in a GPT.
    pub fn is_protective(&self) -> bool {
        self.partitions.iter().any(MbrPartition::is_protective)
    }
}
