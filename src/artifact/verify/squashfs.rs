//! The superblock of a squashfs.
//!
//! Spec: Linux `fs/squashfs/squashfs_fs.h`.

use super::rule::Report;
use super::rules;
use crate::artifact::region::Region;
use crate::error::Result;

const BYTES: usize = 96;
/// Where there is no such table.
const NONE: u64 = u64::MAX;

/// Checks the squashfs in `region`, which has the name `path`.
pub(super) fn check(report: &mut Report, path: &str, region: &Region) -> Result<()> {
    let mut bytes = [0; BYTES];
    if region.len() < BYTES as u64 {
        let text = format!("it has {} bytes, too few for any squashfs", region.len());
        report.hold(&rules::SQUASHFS).at(path, text);
        return Ok(());
    }
    region.read_exact_at(&mut bytes, 0)?;
    if let Some(wrong) = wrong(&bytes, region.len()) {
        report.hold(&rules::SQUASHFS).at(path, wrong);
        return Ok(());
    }
    report.hold(&rules::SQUASHFS);
    let compressor = u16_at(&bytes, 20);
    let mut held = report.hold(&rules::SQUASHFS_COMPRESSOR);
    let name = match compressor {
        1 => "gzip",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        2 => {
            held.at(path, "it is compressed with lzma");
            "lzma"
        }
        other => {
            held.at(
                path,
                format!("its compressor has the unknown number {other}"),
            );
            "unknown"
        }
    };
    let used = crate::progress::bytes_text(u64_at(&bytes, 40));
    report.fact("squashfs", format!("{name}, {used}"));
    Ok(())
}

/// Returns how the superblock is wrong for a squashfs in a file of `len` bytes.
fn wrong(bytes: &[u8; BYTES], len: u64) -> Option<String> {
    if bytes[..4] != *b"hsqs" {
        return Some("it does not begin as a squashfs does".to_owned());
    }
    let version = (u16_at(bytes, 28), u16_at(bytes, 30));
    if version != (4, 0) {
        let (major, minor) = version;
        return Some(format!("its version is {major}.{minor}, Linux reads 4.0"));
    }
    let block = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let power = u32::from(u16_at(bytes, 22));
    if !(12..=20).contains(&power) || block != 1 << power {
        return Some(format!("blocks of {block} bytes (2^{power}) do not exist"));
    }
    let used = u64_at(bytes, 40);
    if used > len {
        return Some(format!(
            "it has {used} bytes, of which {} are missing",
            used - len
        ));
    }
    // Identifiers, attributes, inodes, directories, fragments, and what NFS exports; three of them need not be there.
    for (at, name, is_needed) in [
        (48, "identifiers", true),
        (56, "attributes", false),
        (64, "inodes", true),
        (72, "directories", true),
        (80, "fragments", false),
        (88, "exports", false),
    ] {
        let place = u64_at(bytes, at);
        let is_inside = (BYTES as u64..used).contains(&place);
        if !is_inside && (is_needed || place != NONE) {
            return Some(format!(
                "its table of {name} is at {place}, of {used} bytes"
            ));
        }
    }
    (u64_at(bytes, 64) >= u64_at(bytes, 72))
        .then(|| "its directories stand before its inodes".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
