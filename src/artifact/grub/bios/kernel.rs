//! `kernel.img`, an ELF program, as it lies in memory; and what a module looks like.
//!
//! ELF32, little-endian (System V ABI, "Object Files"): the header's fields `e_type` at 16, `e_phoff` at 28, `e_phentsize` at 42,
//! `e_phnum` at 44; of a program header `p_type` at 0, `p_offset` at 4, `p_vaddr` at 8, `p_filesz` at 16.

/// Where GRUB's kernel for BIOS machines is linked to, and begins.
const LINK_ADDRESS: u32 = 0x9000;
/// No kernel reaches beyond the first megabyte.
const MAX_BYTES: usize = 0x10_0000;

const HEADER_BYTES: usize = 52;
const PROGRAM_HEADER_BYTES: usize = 32;
const RELOCATABLE: u16 = 1;
const EXECUTABLE: u16 = 2;
const LOAD: u32 = 1;

/// Returns whether `bytes` begin as a module does: a relocatable ELF32 file.
pub(super) fn is_module(bytes: &[u8]) -> bool {
    elf_type(bytes) == Some(RELOCATABLE)
}

/// Returns the part of the kernel that lies in memory before it runs, from its link address on. GRUB looks for its modules
/// where this ends.
pub(super) fn flat(elf: &[u8]) -> Result<Vec<u8>, &'static str> {
    const CUT: &str = "it is cut off";
    if elf_type(elf) != Some(EXECUTABLE) {
        return Err("it is no 32-bit ELF program");
    }
    let table = usize::try_from(u32_at(elf, 28).ok_or(CUT)?).map_err(|_| CUT)?;
    let entry_bytes = usize::from(u16_at(elf, 42).ok_or(CUT)?);
    if entry_bytes < PROGRAM_HEADER_BYTES {
        return Err("its program headers are too short");
    }
    let mut flat = Vec::new();
    for index in 0..usize::from(u16_at(elf, 44).ok_or(CUT)?) {
        let header = elf.get(table + index * entry_bytes..).ok_or(CUT)?;
        let field = |at| u32_at(header, at).ok_or(CUT);
        let (offset, address, bytes) = (field(4)? as usize, field(8)?, field(16)? as usize);
        if field(0)? != LOAD || bytes == 0 {
            continue;
        }
        let content = elf.get(offset..offset + bytes).ok_or(CUT)?;
        let start = address
            .checked_sub(LINK_ADDRESS)
            .ok_or("it is not linked to 0x9000")? as usize;
        let end = start + bytes;
        if end > MAX_BYTES {
            return Err("it reaches beyond the first megabyte");
        }
        if flat.len() < end {
            flat.resize(end, 0);
        }
        flat[start..end].copy_from_slice(content);
    }
    if flat.is_empty() {
        return Err("it has nothing to load");
    }
    Ok(flat)
}

/// Returns `e_type` of a 32-bit little-endian ELF file.
fn elf_type(bytes: &[u8]) -> Option<u16> {
    let is_elf32 = bytes.len() >= HEADER_BYTES && bytes.starts_with(b"\x7fELF\x01\x01");
    is_elf32.then(|| u16_at(bytes, 16))?
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}
