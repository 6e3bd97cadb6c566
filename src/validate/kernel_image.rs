//! Reads of a kernel image what it is: format, architecture, version.

use std::io::{self, Read};

use crate::distro::Arch;

/// The bzImage header lies in the first sectors, and so does its version text.
const HEAD_BYTES: u64 = 64 << 10;
/// The largest kernels have some 50 MB, unpacked twice that.
const MAX_KERNEL_BYTES: u64 = 512 << 20;
/// How the banner of every Linux kernel begins; the version follows.
const BANNER: &[u8] = b"Linux version ";
/// No version is longer; the kernel's own limit is 64.
const MAX_VERSION_BYTES: usize = 128;

/// What the bytes of a kernel image say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelImage {
    /// The architecture, where the format tells.
    pub(crate) arch: Option<Arch>,
    /// The version (`uname -r`), where it can be found.
    pub(crate) version: Option<String>,
    /// Whether all of it is there, as far as its header says how long it is.
    pub(crate) is_whole: bool,
}

impl KernelImage {
    /// One whose header does not say how long it is.
    fn found(arch: Option<Arch>, version: Option<String>) -> Self {
        Self {
            arch,
            version,
            is_whole: true,
        }
    }
}

/// Reads a kernel image; `None` when it is none that is known here.
///
/// Spec: Linux `Documentation/arch/x86/boot.rst`, `arm64/booting.rst`, `riscv/boot-image-header.rst`; the header of
/// `drivers/firmware/efi/libstub/zboot-header.S`.
///
/// # Errors
///
/// The input fails.
pub(crate) fn read(mut input: impl Read) -> io::Result<Option<KernelImage>> {
    let mut head = Vec::new();
    input.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    let rest = (&mut input).take(MAX_KERNEL_BYTES);
    if is(&head, 0x202, b"HdrS") {
        let len = head.len() as u64 + io::copy(&mut { rest }, &mut io::sink())?;
        return Ok(Some(KernelImage {
            arch: Some(Arch::Amd64),
            version: bzimage_version(&head),
            is_whole: len >= bzimage_bytes(&head),
        }));
    }
    if is(&head, 0, b"MZ") && is(&head, 4, b"zimg") {
        return zboot(&head, rest).map(Some);
    }
    if is(&head, 0x38, b"ARMd") || is(&head, 0x38, b"ARM\x64") {
        return plain(Some(Arch::Arm64), head.chain(rest)).map(Some);
    }
    if is(&head, 0x38, b"RSC\x05") || is(&head, 0x30, b"RISCV\0\0\0") {
        return plain(Some(Arch::Riscv64), head.chain(rest)).map(Some);
    }
    if let crate::framework::elf::Kind::Elf(arch) = crate::framework::elf::kind(&head) {
        return plain(Some(arch), head.chain(rest)).map(Some);
    }
    if is(&head, 0, &[0x1f, 0x8b]) {
        return gzipped(head.chain(rest));
    }
    Ok(None)
}

fn is(head: &[u8], at: usize, magic: &[u8]) -> bool {
    head.get(at..at + magic.len()) == Some(magic)
}

/// The header holds the number of sectors of the part that runs first, beside the first sector, and of what it unpacks in 16 bytes.
fn bzimage_bytes(head: &[u8]) -> u64 {
    let sectors = match head.get(0x1f1) {
        Some(0) => 4,
        sectors => sectors.copied().unwrap_or(0),
    };
    let packed = head.get(0x1f4..0x1f8).and_then(|it| it.try_into().ok());
    match packed.map_or(0, u32::from_le_bytes) {
        0 => 0,
        packed => (u64::from(sectors) + 1) * 512 + u64::from(packed) * 16,
    }
}

/// The header holds the place of a text whose first word is the version, less 0x200.
fn bzimage_version(head: &[u8]) -> Option<String> {
    let at = usize::from(u16::from_le_bytes([*head.get(0x20e)?, *head.get(0x20f)?])) + 0x200;
    (at > 0x200).then(|| head.get(at..).and_then(first_word))?
}

fn first_word(text: &[u8]) -> Option<String> {
    let end = text
        .iter()
        .take(MAX_VERSION_BYTES)
        .position(|byte| byte.is_ascii_whitespace() || *byte == 0)?;
    let word = std::str::from_utf8(&text[..end]).ok()?;
    let is_version = word.starts_with(|c: char| c.is_ascii_digit())
        && word.bytes().all(|byte| byte.is_ascii_graphic());
    is_version.then(|| word.to_owned())
}

/// An EFI program that unpacks the kernel it carries.
fn zboot(head: &[u8], rest: impl Read) -> io::Result<KernelImage> {
    let number = |at: usize| -> u64 {
        head.get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, |bytes| u64::from(u32::from_le_bytes(bytes)))
    };
    let (offset, size) = (number(8), number(12));
    let mut payload = head.chain(rest);
    io::copy(&mut (&mut payload).take(offset), &mut io::sink())?;
    let payload = payload.take(size);
    let version = if is(head, 24, b"gzip") {
        find_banner(flate2::read::GzDecoder::new(payload)).unwrap_or(None)
    } else if is(head, 24, b"zstd") {
        zstd::Decoder::new(payload).map_or(None, |input| find_banner(input).unwrap_or(None))
    } else {
        None
    };
    // The machine of the PE header that the first one points at.
    let pe = usize::try_from(number(0x3c)).unwrap_or(usize::MAX);
    let machine = head
        .get(pe.saturating_add(4)..pe.saturating_add(6))
        .map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let arch = match machine {
        Some(0x8664) => Some(Arch::Amd64),
        Some(0xaa64) => Some(Arch::Arm64),
        Some(0x5064) => Some(Arch::Riscv64),
        _ => None,
    };
    Ok(KernelImage::found(arch, version))
}

fn plain(arch: Option<Arch>, input: impl Read) -> io::Result<KernelImage> {
    let version = find_banner(input)?;
    Ok(KernelImage::found(arch, version))
}

/// A kernel in gzip, as Ubuntu ships it for arm64.
fn gzipped(input: impl Read) -> io::Result<Option<KernelImage>> {
    let mut input = flate2::read::GzDecoder::new(input);
    let mut head = Vec::new();
    if input.by_ref().take(0x40).read_to_end(&mut head).is_err() {
        return Ok(None);
    }
    let arch = if is(&head, 0x38, b"ARM\x64") {
        Arch::Arm64
    } else if is(&head, 0x38, b"RSC\x05") {
        Arch::Riscv64
    } else {
        return Ok(None);
    };
    let version = find_banner(head.chain(input)).unwrap_or(None);
    Ok(Some(KernelImage::found(Some(arch), version)))
}

/// Returns the version in the first banner of an unpacked kernel.
fn find_banner(input: impl Read) -> io::Result<Option<String>> {
    const STEP: usize = 1 << 16;
    let mut input = input.take(MAX_KERNEL_BYTES);
    let mut window = Vec::new();
    loop {
        let before = window.len();
        (&mut input).take(STEP as u64).read_to_end(&mut window)?;
        let is_last = window.len() == before;
        let starts = window
            .windows(BANNER.len())
            .enumerate()
            .filter(|(_, bytes)| *bytes == BANNER);
        for (at, _) in starts {
            if let Some(version) = first_word(&window[at + BANNER.len()..]) {
                return Ok(Some(version));
            }
        }
        if is_last {
            return Ok(None);
        }
        // A banner may lie across two pieces.
        let kept = (BANNER.len() + MAX_VERSION_BYTES).min(window.len());
        window.drain(..window.len() - kept);
    }
}

/// Makes the first bytes of an x86 kernel of `version`.
#[cfg(test)]
pub(crate) fn bzimage_for_tests(version: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    let text = format!("{version} (builder@host) #1 SMP\0");
    image[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn arm64(version: &str) -> Vec<u8> {
        let mut image = vec![0; 0x40];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image.resize(100_000, 7);
        image.extend(format!("Linux version %s\0Linux version {version} (a@b)").bytes());
        image
    }

    fn read_one(bytes: &[u8]) -> Option<(Option<Arch>, Option<String>)> {
        read(bytes)
            .unwrap()
            .map(|image| (image.arch, image.version))
    }

    #[test]
    fn version_and_architecture_are_read_from_every_form() {
        let version = "6.1.0-38-arm64";
        let found = |arch, version: &str| Some((Some(arch), Some(version.to_owned())));
        assert_eq!(
            read_one(&bzimage_for_tests("6.1.0-38-amd64")),
            found(Arch::Amd64, "6.1.0-38-amd64")
        );
        assert_eq!(read_one(&arm64(version)), found(Arch::Arm64, version));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&arm64(version)).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(read_one(&packed), found(Arch::Arm64, version));
        let mut zboot = vec![0; 0x60];
        zboot[..2].copy_from_slice(b"MZ");
        zboot[4..8].copy_from_slice(b"zimg");
        zboot[8..12].copy_from_slice(&0x60u32.to_le_bytes());
        zboot[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        zboot[24..28].copy_from_slice(b"gzip");
        zboot[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
        zboot[0x44..0x46].copy_from_slice(&0xaa64u16.to_le_bytes());
        zboot.extend(packed);
        assert_eq!(read_one(&zboot), found(Arch::Arm64, version));
    }

    #[test]
    fn a_kernel_that_was_cut_off_is_not_whole() {
        let mut image = bzimage_for_tests("6.1.0");
        image[0x1f1] = 3;
        image[0x1f4..0x1f8].copy_from_slice(&100u32.to_le_bytes());
        image.resize(4 * 512 + 1600, 0);
        assert!(read(image.as_slice()).unwrap().unwrap().is_whole);
        image.pop();
        assert!(!read(image.as_slice()).unwrap().unwrap().is_whole);
    }

    #[test]
    fn a_banner_across_two_pieces_is_found() {
        for before in (1 << 16) - 20..(1 << 16) + 5 {
            let mut bytes = vec![b'x'; before];
            bytes.extend(b"Linux version 6.1.0 (x)");
            assert_eq!(
                find_banner(bytes.as_slice()).unwrap().as_deref(),
                Some("6.1.0")
            );
        }
    }

    #[test]
    fn other_files_are_no_kernels() {
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 5000], &[0x1f, 0x8b, 1, 2]] {
            assert_eq!(read_one(bytes), None);
        }
    }
}
