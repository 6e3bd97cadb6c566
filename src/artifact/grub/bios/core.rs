//! The core image: a sector that reads the rest, a decompressor, and what it unpacks.

use liblzma::stream::{Action, Filters, LzmaOptions, Status, Stream};

use super::sectors::{SECTOR, Sector, put};

/// Fields of `lzma_decompress.img`.
pub(crate) const COMPRESSED_BYTES: usize = 0x08;
const UNCOMPRESSED_BYTES: usize = 0x0c;
const REED_SOLOMON_BYTES: usize = 0x10;

/// An entry of `diskboot.img`'s list of blocks: u64 sector, u16 sectors, u16 segment to read to.
pub(crate) const BLOCKS_ENTRY: usize = 12;
/// The last entry, which is read first.
const BLOCKS_SECTOR: usize = SECTOR - BLOCKS_ENTRY;
const BLOCKS_COUNT: usize = SECTOR - 4;

/// What there is room for below 0x68000, from where the decompressor begins, at 0x8200.
const MAX_BYTES: usize = 0x6_8000 - 0x8200;

/// LZMA as GRUB reads it: no header, these properties.
const LITERAL_CONTEXT_BITS: u32 = 3;
const LITERAL_POSITION_BITS: u32 = 0;
const POSITION_BITS: u32 = 2;
const DICTIONARY_BYTES: u32 = 0x1_0000;

/// A core image, but for where it will lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Whole sectors.
    bytes: Vec<u8>,
}

impl Core {
    pub(super) fn new(
        diskboot: &Sector,
        decompressor: &[u8],
        payload: &[u8],
    ) -> Result<Self, String> {
        if decompressor.len() < REED_SOLOMON_BYTES + 4 {
            return Err("lzma_decompress.img is cut off".to_owned());
        }
        let too_large = |what: &str, bytes: usize| {
            format!("with these modules it has {bytes} bytes{what}; there is room for {MAX_BYTES}")
        };
        let unpacked =
            u32::try_from(payload.len()).map_err(|_| too_large(" uncompressed", payload.len()))?;
        let packed = compress(payload)?;
        let bytes = decompressor.len() + packed.len();
        if bytes > MAX_BYTES {
            return Err(too_large("", bytes));
        }
        let mut core = Vec::with_capacity(SECTOR + bytes + SECTOR);
        core.extend(diskboot);
        core.extend(decompressor);
        core.extend(&packed);
        put(
            &mut core,
            SECTOR + COMPRESSED_BYTES,
            &u32_of(packed.len()).to_le_bytes(),
        );
        put(
            &mut core,
            SECTOR + UNCOMPRESSED_BYTES,
            &unpacked.to_le_bytes(),
        );
        put(&mut core, SECTOR + REED_SOLOMON_BYTES, &0u32.to_le_bytes());
        core.resize(core.len().next_multiple_of(SECTOR), 0);
        // Fits: at most 768 sectors.
        let count = u16::try_from(core.len() / SECTOR - 1).unwrap_or(u16::MAX);
        put(&mut core, BLOCKS_COUNT, &count.to_le_bytes());
        Ok(Self { bytes: core })
    }

    /// Returns the image told that its first sector is sector `lba` (of 512 bytes) of the disk.
    pub fn at(&self, lba: u64) -> Vec<u8> {
        let mut placed = self.bytes.clone();
        put(&mut placed, BLOCKS_SECTOR, &(lba + 1).to_le_bytes());
        placed
    }

    /// Returns the image told no place.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its size in sectors of 512 bytes: what a BIOS boot partition must have.
    pub fn sectors(&self) -> u64 {
        (self.bytes.len() / SECTOR) as u64
    }
}

/// At most some 384 KiB: checked before.
fn u32_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn compress(payload: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: liblzma::stream::Error| format!("compressing it: {error}");
    let mut options = LzmaOptions::new_preset(9).map_err(failed)?;
    options
        .literal_context_bits(LITERAL_CONTEXT_BITS)
        .literal_position_bits(LITERAL_POSITION_BITS)
        .position_bits(POSITION_BITS)
        .dict_size(DICTIONARY_BYTES);
    let mut filters = Filters::new();
    filters.lzma1(&options);
    let mut stream = Stream::new_raw_encoder(&filters).map_err(failed)?;
    // What does not compress grows by less than a hundredth.
    let mut packed = Vec::with_capacity(payload.len() + payload.len() / 50 + 1024);
    let status = stream
        .process_vec(payload, &mut packed, Action::Finish)
        .map_err(failed)?;
    match status {
        Status::StreamEnd => Ok(packed),
        _ => Err("compressing it: no end".to_owned()),
    }
}
