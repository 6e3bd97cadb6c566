//! Takes out of a finished layer what installing leaves behind, so that equal inputs give equal layers.

use std::path::Path;

use kfactory_layers::metadata::{FileKind, Timestamp};
use kfactory_layers::root::Root;

use super::files::matches;
use crate::distro::debian;
use crate::error::{Context as _, Result};

/// Rewrites files that hold the moment or the machine of the build; `created` is in seconds since 1970.
///
/// # Errors
///
/// A file cannot be read or written.
pub fn normalize(root: &Root, created: i64) -> Result<()> {
    for path in debian::rewritten_paths() {
        let (Some(metadata), Some(content)) = (root.metadata_opt(path)?, root.read_opt(path)?)
        else {
            continue;
        };
        if let Some(changed) = debian::rewrite(path, &content, u64::try_from(created).unwrap_or(0))
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
    for pattern in debian::RESIDUE {
        let Some((parent, name)) = pattern.rsplit_once('/') else {
            continue;
        };
        // `dir/**` is everything below the directory, which here is all of its children.
        let name = if name == "**" { "*" } else { name };
        if !root
            .symlink_metadata_opt(parent)?
            .is_some_and(|metadata| metadata.is_dir())
        {
            continue;
        }
        for entry in root.read_dir(parent)? {
            let wanted = entry
                .name
                .to_str()
                .is_some_and(|candidate| matches(name, candidate));
            if wanted && entry.kind != FileKind::CharDevice {
                root.remove_all(Path::new(parent).join(&entry.name))?;
            }
        }
    }
    Ok(())
}
