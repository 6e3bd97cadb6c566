//! Takes out of a finished layer what installing leaves behind, so that equal inputs give equal layers.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kfactory_layers::metadata::{FileKind, Timestamp};
use kfactory_layers::root::Root;

use crate::distro::residue;
use crate::error::{Context as _, Result};

/// Rewrites files that hold the moment or the machine of the build; `created` is in seconds since 1970.
///
/// # Errors
///
/// A file cannot be read or written.
pub fn normalize(root: &Root, created: i64) -> Result<()> {
    for path in residue::rewritten_paths() {
        let (Some(metadata), Some(content)) = (root.metadata_opt(path)?, root.read_opt(path)?)
        else {
            continue;
        };
        if let Some(changed) = residue::rewrite(path, &content, u64::try_from(created).unwrap_or(0))
        {
            root.write(
                path,
                &changed,
                metadata.mode & 0o7777,
                metadata.uid,
                metadata.gid,
            )?;
            root.set_mtime(
                path,
                Timestamp {
                    secs: created,
                    nanos: 0,
                },
            )?;
        }
    }
    Ok(())
}

/// Removes residue from an overlay upper directory; what the layers below have there shows again.
///
/// Whiteouts stay: they are removals that a step asked for.
///
/// # Errors
///
/// Something cannot be removed.
pub fn prune(upper: &Path) -> Result<()> {
    let root = Root::open(upper).context(|| format!("opening {}", upper.display()))?;
    for pattern in residue::patterns() {
        // Stars stand in the last name only, so everything that a pattern means is in one directory.
        let Some((parent, _)) = pattern.rsplit_once('/') else {
            continue;
        };
        let is_dir = root
            .symlink_metadata_opt(parent)?
            .is_some_and(|metadata| metadata.is_dir());
        if !is_dir {
            continue;
        }
        for entry in root.read_dir(parent)? {
            let path = Path::new(parent).join(&entry.name);
            let wanted = residue::is_residue(path.as_os_str().as_bytes());
            if wanted && entry.kind != FileKind::CharDevice {
                root.remove_all(path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn residue_goes_and_everything_beside_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in [
            "var/log/apt/history.log",
            "var/log/dpkg.log",
            "var/log/lastlog",
            "var/cache/apt/pkgcache.bin",
            "var/lib/dpkg/status",
            "var/lib/dpkg/status-old",
            "etc/shadow",
            "etc/shadow-",
        ] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "x").unwrap();
        }
        prune(dir.path()).unwrap();
        for kept in [
            "var/log/apt",
            "var/log/lastlog",
            "var/lib/dpkg/status",
            "etc/shadow",
        ] {
            assert!(at(kept).exists(), "{kept}");
        }
        for gone in [
            "var/log/apt/history.log",
            "var/log/dpkg.log",
            "var/cache/apt/pkgcache.bin",
            "var/lib/dpkg/status-old",
            "etc/shadow-",
        ] {
            assert!(!at(gone).exists(), "{gone}");
        }
    }
}
