//! What is mounted inside a tree. Spec: proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Result};

const MOUNTS: &str = "/proc/self/mountinfo";

/// Returns where something is mounted below `root`, as paths inside it that begin with `/`.
pub(super) fn below(root: &Path) -> Result<Vec<PathBuf>> {
    let root = root
        .canonicalize()
        .context(|| format!("opening {}", root.display()))?;
    let text = std::fs::read(MOUNTS).context(|| format!("reading {MOUNTS}"))?;
    let inside = |mount: PathBuf| {
        let rest = mount.strip_prefix(&root).ok()?;
        (rest != Path::new("")).then(|| Path::new("/").join(rest))
    };
    Ok(mount_points(&text).filter_map(inside).collect())
}

/// Tells whether something is mounted at `path` itself; no where that cannot be found out.
pub fn is_mount_point(path: &Path) -> bool {
    std::fs::read(MOUNTS).is_ok_and(|text| mount_points(&text).any(|mount| mount == path))
}

fn mount_points(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
}

/// Blanks, tabs, line feeds and backslashes are written as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
            23 22 0:5 / /proc rw shared:2 - proc proc rw\n\
            24 22 0:6 /x /with\\040blank\\134 rw - tmpfs t rw\n";
        let found: Vec<PathBuf> = mount_points(text).collect();
        assert_eq!(found, ["/", "/proc", "/with blank\\"].map(PathBuf::from));
    }

    #[test]
    fn what_is_mounted_on_this_machine_is_found() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(Path::new("/etc")));
        assert!(
            below(Path::new("/"))
                .unwrap()
                .contains(&PathBuf::from("/proc"))
        );
    }
}
