//! A package's control files, as far as they are plain: files of root's, in one directory, with short names.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::ustar::{BLOCK_BYTES, GID, SIZE, TYPE, UID, is_whole, octal, text};

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const MTIME: Range<usize> = 136..148;
const PREFIX: Range<usize> = 345..500;

/// More than any package's control files take.
pub(super) const MAX_BYTES: u64 = 64 << 20;

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
        let (header, behind) = rest.split_first_chunk::<BLOCK_BYTES>()?;
        if header.iter().all(|&byte| byte == 0) {
            return Some(files);
        }
        let size = usize::try_from(octal(&header[SIZE])?).ok()?;
        let (content, _) = behind.split_at_checked(size)?;
        (_, rest) = behind.split_at_checked(size.checked_next_multiple_of(BLOCK_BYTES)?)?;
        let is_roots = octal(&header[UID])? == 0 && octal(&header[GID])? == 0;
        let is_short = text(&header[PREFIX]).is_empty();
        if !(is_whole(header) && is_roots && is_short) {
            return None;
        }
        let name = std::str::from_utf8(text(&header[NAME])).ok()?;
        match (header[TYPE], name) {
            (b'5', "./" | ".") => {}
            (b'0', name) => files.push(ControlFile {
                name: plain_name(name)?,
                mode: u32::try_from(octal(&header[MODE])?).ok()? & 0o7777,
                modified: octal(&header[MTIME])?,
                content,
            }),
            _ => return None,
        }
    }
}

/// Returns the name below `./` where it is one part of a path.
fn plain_name(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains('/');
    is_plain.then_some(name)
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
