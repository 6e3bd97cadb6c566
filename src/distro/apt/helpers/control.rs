//! A package's control files, as far as they are plain: files of root's, in one directory, with short names.
//!
//! Spec: ustar of POSIX.1-2001.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// More than any package's control files take.
pub(super) const MAX_BYTES: u64 = 64 << 20;

const BLOCK_BYTES: usize = 512;
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const MAGIC: Range<usize> = 257..262;
const PREFIX: Range<usize> = 345..500;

/// A control file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ControlFile<'a> {
    /// One part of a path.
    name: &'a str,
    /// Permission bits.
    mode: u32,
    /// Seconds since 1970.
    modified: u64,
    content: &'a [u8],
}

impl ControlFile<'_> {
    /// Writes the file to `dir`; the last of a name stays, as with tar.
    pub(super) fn write_below(&self, dir: &Path) -> io::Result<()> {
        let mut file = File::create(dir.join(self.name))?;
        file.write_all(self.content)?;
        file.set_permissions(Permissions::from_mode(self.mode))?;
        file.set_modified(UNIX_EPOCH + Duration::from_secs(self.modified))
    }
}

/// Returns the files of an archive that has nothing else but their directory; nothing where any entry is not plain.
pub(super) fn files(archive: &[u8]) -> Option<Vec<ControlFile<'_>>> {
    let mut files = Vec::new();
    let mut rest = archive;
    loop {
        let (header, behind) = rest.split_at_checked(BLOCK_BYTES)?;
        if header.iter().all(|&byte| byte == 0) {
            return Some(files);
        }
        let size = usize::try_from(number(header, SIZE)?).ok()?;
        let (content, _) = behind.split_at_checked(size)?;
        (_, rest) = behind.split_at_checked(size.checked_next_multiple_of(BLOCK_BYTES)?)?;
        if !is_roots_and_whole(header)? {
            return None;
        }
        let name = text(&header[NAME])?;
        match (header[TYPE], name) {
            (b'5', "./" | ".") => {}
            (b'0', name) => files.push(ControlFile {
                name: plain_name(name)?,
                mode: u32::try_from(number(header, MODE)?).ok()? & 0o7777,
                modified: number(header, MTIME)?,
                content,
            }),
            _ => return None,
        }
    }
}

fn is_roots_and_whole(header: &[u8]) -> Option<bool> {
    let sum = header.iter().enumerate().map(|(at, byte)| {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        u64::from(byte)
    });
    let is_whole = number(header, CHECKSUM)? == sum.sum::<u64>();
    let is_roots = number(header, UID)? == 0 && number(header, GID)? == 0;
    let is_short = header[PREFIX].iter().all(|&byte| byte == 0);
    Some(is_whole && is_roots && is_short && &header[MAGIC] == b"ustar")
}

/// Returns the name below `./` where it is one part of a path.
fn plain_name(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains('/');
    is_plain.then_some(name)
}

/// Reads a text that ends with its first zero byte.
fn text(field: &[u8]) -> Option<&str> {
    let text = field.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

/// Reads an octal number.
fn number(header: &[u8], field: Range<usize>) -> Option<u64> {
    let digits = text(&header[field])?.trim_matches(' ');
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::files;

    /// Returns an entry of a tar archive of `format`, with content `x`.
    fn entry(format: &str, name: &str, owner: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.args(["--create", "--file=-", "--numeric-owner", "--mtime=@7"]);
        tar.args([&format!("--format={format}"), &format!("--owner={owner}")]);
        tar.args([
            "--group=0",
            "--mode=0640",
            &format!("--transform=s,file,{name},"),
        ]);
        let output = tar.arg("file").current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    #[test]
    fn control_files_that_are_not_plain_are_left_to_dpkg_deb() {
        for format in ["gnu", "ustar"] {
            let plain = entry(format, "./md5sums", "0");
            assert_eq!(files(&plain).map(|all| all.len()), Some(1));
            let mut changed = plain.clone();
            changed[100] ^= 1;
            let long = format!("./{}", "n".repeat(120));
            for unusual in [
                changed,
                plain[..600].to_vec(),
                entry(format, "./md5sums", "7"),
                entry(format, "./a/md5sums", "0"),
                entry(format, "../md5sums", "0"),
                entry("pax", &long, "0"),
                entry("gnu", &long, "0"),
            ] {
                assert_eq!(files(&unusual), None);
            }
        }
    }
}
