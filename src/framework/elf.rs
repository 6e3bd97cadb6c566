//! Tells which architecture a program is for, from its first bytes.

use super::component::Arch;

/// Bytes needed from the start of a file: up to and including `e_machine`.
pub(crate) const HEAD_LEN: usize = 20;

/// What the first bytes of a program say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ELF program for a machine that we know.
    Elf(Arch),
    /// An ELF program for another machine, by its number.
    OtherElf(u16),
    /// Something else, such as a script. Nothing can be said against it.
    Other,
}

/// Reads the first bytes of a program.
///
/// Spec: System V ABI, "ELF Header".
pub(crate) fn kind(head: &[u8]) -> Kind {
    let Some(head) = head.first_chunk::<HEAD_LEN>() else {
        return Kind::Other;
    };
    if !head.starts_with(b"\x7fELF") {
        return Kind::Other;
    }
    let big_endian = head[5] == 2;
    let machine = if big_endian {
        u16::from_be_bytes([head[18], head[19]])
    } else {
        u16::from_le_bytes([head[18], head[19]])
    };
    let is_64_bit = head[4] == 2;
    match machine {
        62 if is_64_bit => Kind::Elf(Arch::Amd64),
        183 if is_64_bit => Kind::Elf(Arch::Arm64),
        243 if is_64_bit => Kind::Elf(Arch::Riscv64),
        other => Kind::OtherElf(other),
    }
}

#[cfg(test)]
pub(crate) fn head_for_tests(arch: Arch) -> Vec<u8> {
    let machine: u8 = match arch {
        Arch::Amd64 => 62,
        Arch::Arm64 => 183,
        Arch::Riscv64 => 243,
    };
    let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    head.extend([machine, 0]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_machine_is_recognised_and_scripts_are_left_alone() {
        for arch in [Arch::Amd64, Arch::Arm64, Arch::Riscv64] {
            assert_eq!(kind(&head_for_tests(arch)), Kind::Elf(arch));
        }
        assert_eq!(kind(b"#!/bin/sh\nexec true\n#####"), Kind::Other);
        assert_eq!(kind(b"\x7fELF"), Kind::Other);
    }

    #[test]
    fn a_foreign_or_32_bit_machine_is_reported_by_number() {
        let mut head = head_for_tests(Arch::Amd64);
        head[4] = 1;
        assert_eq!(kind(&head), Kind::OtherElf(62));
        let mut sparc = head_for_tests(Arch::Amd64);
        sparc[5] = 2;
        sparc[18..20].copy_from_slice(&[0, 43]);
        assert_eq!(kind(&sparc), Kind::OtherElf(43));
    }
}
