//! What an EFI program says of itself before anything of it runs.
//!
//! Spec: Microsoft PE format, "COFF File Header", "Optional Header", "Section Table".

const PE32_PLUS: u16 = 0x20b;
const EFI_APPLICATION: u16 = 10;
const SECTION_BYTES: usize = 40;
/// Where the place of signatures stands in the optional header, and how long it is before that.
const SIGNATURES: usize = 144;

/// The header of an EFI program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    /// The number of the machines that it is for.
    pub(super) machine: u16,
    /// How long the file is at least: up to the end of the last section or signature.
    pub(super) len: u64,
}

impl Program {
    /// Reads the header of a program; none of what is no program for EFI.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| -> Option<u16> {
            let bytes = bytes.get(at..at.checked_add(2)?)?;
            Some(u16::from_le_bytes(bytes.try_into().ok()?))
        };
        let u32_at = |at: usize| -> Option<u64> {
            let bytes = bytes.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?).into())
        };
        let header = usize::try_from(u32_at(0x3c)?).ok()?;
        let is_pe = bytes.starts_with(b"MZ") && bytes.get(header..)?.starts_with(b"PE\0\0");
        let optional = header.checked_add(24)?;
        let is_efi =
            u16_at(optional)? == PE32_PLUS && u16_at(optional.checked_add(68)?)? == EFI_APPLICATION;
        if !is_pe || !is_efi {
            return None;
        }
        let optional_len = usize::from(u16_at(header + 20)?);
        let table = optional + optional_len;
        let sections = (0..usize::from(u16_at(header + 6)?)).map(|number| {
            let section = table + number * SECTION_BYTES;
            Some((u32_at(section + 20)?, u32_at(section + 16)?))
        });
        let signatures = match optional_len >= SIGNATURES + 8 {
            true => Some((
                u32_at(optional + SIGNATURES)?,
                u32_at(optional + SIGNATURES + 4)?,
            )),
            false => None,
        };
        let mut len = 0;
        for place in sections.chain(signatures.map(Some)) {
            // A table that is not all there ends before what it names.
            let (start, size) = place.unwrap_or((u64::MAX >> 1, 1));
            if size > 0 {
                len = len.max(start + size);
            }
        }
        Some(Self {
            machine: u16_at(header + 4)?,
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, number: u32) {
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// A program with one section of 64 bytes and a signature of 32.
    fn program() -> Vec<u8> {
        let mut bytes = vec![0; 608];
        bytes[..2].copy_from_slice(b"MZ");
        put(&mut bytes, 0x3c, 64);
        bytes[64..68].copy_from_slice(b"PE\0\0");
        bytes[68..70].copy_from_slice(&0x8664u16.to_le_bytes());
        bytes[70] = 1;
        bytes[84] = 240;
        bytes[88..90].copy_from_slice(&PE32_PLUS.to_le_bytes());
        bytes[88 + 68] = 10;
        put(&mut bytes, 88 + SIGNATURES, 576);
        put(&mut bytes, 88 + SIGNATURES + 4, 32);
        put(&mut bytes, 88 + 240 + 16, 64);
        put(&mut bytes, 88 + 240 + 20, 512);
        bytes
    }

    #[test]
    fn a_program_says_what_it_is_for_and_how_long_it_is() {
        let mut bytes = program();
        let read = Program::read(&bytes).unwrap();
        assert_eq!((read.machine, read.len), (0x8664, 608));
        put(&mut bytes, 88 + SIGNATURES + 4, 0);
        assert_eq!(Program::read(&bytes).unwrap().len, 576);
    }

    #[test]
    fn of_a_program_that_was_cut_off_the_length_is_known_as_long_as_the_header_is_there() {
        let bytes = program();
        for len in 0..bytes.len() {
            let read = Program::read(&bytes[..len]);
            assert!(read.is_none_or(|read| read.len > len as u64), "{len}");
        }
        assert_eq!(Program::read(&bytes[..400]).unwrap().len, 608);
    }

    #[test]
    fn what_is_no_program_for_efi_is_told() {
        for (at, byte) in [(0, b'X'), (64, b'X'), (88, 0), (88 + 68, 1)] {
            let mut bytes = program();
            bytes[at] = byte;
            assert_eq!(Program::read(&bytes), None, "{at}");
        }
    }
}
