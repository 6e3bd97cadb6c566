//! What an entry may ask for, whatever the tree holds. Whoever reads a changeset without applying it goes by the same rules.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ApplyError;
use crate::limits;
use crate::metadata::{Device, Entry, EntryKind};
use crate::whiteout::{Special, special};

/// Returns the path of `entry`, relative and without empty parts and `.`; the root itself becomes empty.
///
/// # Errors
///
/// [`ApplyError::Escapes`].
pub fn clean_path(entry: &Entry) -> Result<PathBuf, ApplyError> {
    contained(&entry.path, entry)
}

/// Returns what the name of `entry`, whose [`clean_path`] is `path`, makes of it.
///
/// # Errors
///
/// - [`ApplyError::InvalidWhiteout`].
/// - [`ApplyError::Escapes`]: a root that is no directory.
/// - [`ApplyError::OverlayWhiteout`], [`ApplyError::Limit`]: no rootfs may hold such an object, or not there.
pub fn meaning<'a>(path: &'a Path, entry: &Entry) -> Result<Special<'a>, ApplyError> {
    let special = special(path).ok_or_else(|| ApplyError::InvalidWhiteout {
        path: entry.path.clone(),
    })?;
    match special {
        Special::None => check_object(path, entry)?,
        // The tree holds what it hides, and that has the shorter name.
        Special::Whiteout(hidden) => limits::check(&path.with_file_name(hidden))?,
        Special::Opaque => limits::check(path.parent().unwrap_or(path))?,
        Special::Ignored => {}
    }
    Ok(special)
}

fn check_object(path: &Path, entry: &Entry) -> Result<(), ApplyError> {
    limits::check(path)?;
    if path.as_os_str().is_empty() && entry.kind != EntryKind::Directory {
        return Err(ApplyError::Escapes {
            path: entry.path.clone(),
            name: entry.path.clone(),
        });
    }
    match &entry.kind {
        EntryKind::Symlink { target } => Ok(limits::check_target(path, target)?),
        EntryKind::CharDevice(Device::WHITEOUT) => Err(ApplyError::OverlayWhiteout {
            path: entry.path.clone(),
        }),
        _ => Ok(()),
    }
}

/// Returns `target`, which the hard link `entry` is to be another name of, as [`clean_path`] does.
///
/// # Errors
///
/// [`ApplyError::Escapes`], [`ApplyError::Limit`].
pub fn link_target(target: &Path, entry: &Entry) -> Result<PathBuf, ApplyError> {
    let target = contained(target, entry)?;
    limits::check(&target)?;
    Ok(target)
}

/// Cleans `name`, the path of `entry` or the target of a hard link.
///
/// A name with `..` is refused even where it would come back inside: no tool that writes layers makes one.
fn contained(name: &Path, entry: &Entry) -> Result<PathBuf, ApplyError> {
    let mut clean = Vec::with_capacity(name.as_os_str().len());
    for part in name.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(ApplyError::Escapes {
                    path: entry.path.clone(),
                    name: name.to_owned(),
                });
            }
            _ => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(PathBuf::from(OsStr::from_bytes(&clean)))
}
