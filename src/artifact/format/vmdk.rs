//! Stream-optimised VMDK: compressed, written from front to back, the form in which vSphere imports disks and OVA files hold them.
//!
//! Spec: VMware, "Virtual Disk Format 5.0", "Stream-Optimized Compressed Sparse Extents".

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{CHUNK_BYTES, RawDisk, SECTOR_BYTES, has_step};

const MAGIC: &[u8; 4] = b"KDMV";
const VERSION: u32 = 3;
/// Lines end as they should, grains are compressed, and there are markers.
const FLAGS: u32 = 1 | 1 << 16 | 1 << 17;
const GRAIN_SECTORS: u64 = CHUNK_BYTES / SECTOR_BYTES;
const GRAINS_PER_TABLE: u64 = 512;
const DESCRIPTOR_SECTORS: u64 = 20;
/// What is before the first grain.
const HEAD_SECTORS: u64 = GRAIN_SECTORS;
/// Says that the directory is where the footer says.
const AT_END: u64 = u64::MAX;
const DEFLATE: u16 = 1;
/// Sector addresses have 32 bits.
pub(super) const MAX_BYTES: u64 = (u32::MAX as u64) * SECTOR_BYTES;

/// What a marker announces.
const TABLE: u32 = 1;
const DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// Writes `disk` to `out`. The descriptor calls the file `name`; `content_id` is what VMware tells a changed disk by.
/// Compressed on `threads` threads, whose number does not change the bytes.
///
/// # Errors
///
/// The disk is no multiple of 64 KiB or has 2 TiB or more, cannot be read, or `out` not be written.
pub fn write(
    disk: &RawDisk,
    out: impl Write,
    name: &str,
    content_id: u32,
    threads: usize,
) -> io::Result<()> {
    has_step(disk, CHUNK_BYTES, "a VMDK")?;
    if disk.size() > MAX_BYTES {
        let why = format!("a disk of {} bytes is too large for a VMDK", disk.size());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let sectors = disk.size() / SECTOR_BYTES;
    let tables = disk.size().div_ceil(CHUNK_BYTES * GRAINS_PER_TABLE);
    let mut image = Writer {
        out,
        next: 0,
        directory: vec![0; tables as usize],
        table: vec![0; GRAINS_PER_TABLE as usize],
        table_of: None,
    };
    image.put(&header(sectors, AT_END))?;
    let mut descriptor = descriptor(sectors, name, content_id).into_bytes();
    descriptor.resize((DESCRIPTOR_SECTORS * SECTOR_BYTES) as usize, 0);
    image.put(&descriptor)?;
    image.put(&vec![
        0;
        ((HEAD_SECTORS - image.next) * SECTOR_BYTES) as usize
    ])?;
    disk.worked_chunks(threads, deflated, |at, _, grain| {
        image.grain(at / CHUNK_BYTES, &grain?)
    })?;
    image.end_table()?;

    let directory = image.directory.clone();
    let directory_at = image.announced(DIRECTORY, &entries(&directory))?;
    image.announced(FOOTER, &header(sectors, directory_at))?;
    image.put(&[0; SECTOR_BYTES as usize])?; // the end
    image.out.flush()
}

struct Writer<W> {
    out: W,
    /// How many sectors were written.
    next: u64,
    directory: Vec<u32>,
    table: Vec<u32>,
    /// Which of the directory's entries the table is for.
    table_of: Option<u64>,
}

impl<W: Write> Writer<W> {
    /// Adds a grain of the disk, compressed.
    fn grain(&mut self, index: u64, deflated: &[u8]) -> io::Result<()> {
        if self.table_of != Some(index / GRAINS_PER_TABLE) {
            self.end_table()?;
            self.table_of = Some(index / GRAINS_PER_TABLE);
        }
        self.table[(index % GRAINS_PER_TABLE) as usize] = self.next as u32;
        let mut grain = Vec::with_capacity(12 + deflated.len());
        grain.extend((index * GRAIN_SECTORS).to_le_bytes());
        grain.extend((deflated.len() as u32).to_le_bytes());
        grain.extend(deflated);
        self.put(&grain)
    }

    fn end_table(&mut self) -> io::Result<()> {
        let Some(index) = self.table_of.take() else {
            return Ok(());
        };
        let table = entries(&self.table);
        self.directory[index as usize] = self.announced(TABLE, &table)? as u32;
        self.table.fill(0);
        Ok(())
    }

    /// Writes a marker and what it announces, and returns the sector of the latter.
    fn announced(&mut self, kind: u32, bytes: &[u8]) -> io::Result<u64> {
        let mut marker = [0; SECTOR_BYTES as usize];
        let sectors = (bytes.len() as u64).div_ceil(SECTOR_BYTES);
        marker[..8].copy_from_slice(&sectors.to_le_bytes());
        marker[12..16].copy_from_slice(&kind.to_le_bytes());
        self.put(&marker)?;
        let at = self.next;
        self.put(bytes)?;
        Ok(at)
    }

    /// Writes `bytes` and zeros up to the end of a sector.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sectors = (bytes.len() as u64).div_ceil(SECTOR_BYTES);
        let padding = (sectors * SECTOR_BYTES) as usize - bytes.len();
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; SECTOR_BYTES as usize][..padding])?;
        self.next += sectors;
        Ok(())
    }
}

fn deflated(grain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(grain.len()), Compression::default());
    encoder.write_all(grain)?;
    encoder.finish()
}

fn entries(all: &[u32]) -> Vec<u8> {
    all.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

fn header(sectors: u64, directory_at: u64) -> [u8; SECTOR_BYTES as usize] {
    let mut fields = Vec::with_capacity(SECTOR_BYTES as usize);
    fields.extend(MAGIC);
    fields.extend(VERSION.to_le_bytes());
    fields.extend(FLAGS.to_le_bytes());
    for number in [sectors, GRAIN_SECTORS, 1, DESCRIPTOR_SECTORS] {
        fields.extend(number.to_le_bytes());
    }
    fields.extend((GRAINS_PER_TABLE as u32).to_le_bytes());
    // No second directory.
    for number in [0, directory_at, HEAD_SECTORS] {
        fields.extend(number.to_le_bytes());
    }
    // Shut down cleanly; and characters that a transfer as text would change.
    fields.extend([0, b'\n', b' ', b'\r', b'\n']);
    fields.extend(DEFLATE.to_le_bytes());
    let mut header = [0; SECTOR_BYTES as usize];
    header[..fields.len()].copy_from_slice(&fields);
    header
}

fn descriptor(sectors: u64, name: &str, content_id: u32) -> String {
    // By the rule of VMware's own tools for disks of more than 1 GiB.
    let cylinders = sectors / (255 * 63);
    format!(
        "# Disk DescriptorFile\nversion=1\nCID={content_id:08x}\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n\
         # Extent description\nRW {sectors} SPARSE \"{name}\"\n\n\
         # The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n"
    )
}
