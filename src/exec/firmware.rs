//! Takes firmware for devices out of an image whose distribution has one package for all vendors.

use std::path::Path;

use kfactory_layers::metadata::FileKind;
use kfactory_layers::root::Root;

use super::Environment;
use crate::distro::kinds::{FIRMWARE_DIR, matches};
use crate::error::Result;
use crate::progress::bytes_text;

/// Removes everything at the top of the firmware directory that matches no pattern, with what is below it.
pub(super) fn keep(env: &Environment<'_>, root: &Root, patterns: &[String]) -> Result<()> {
    if !root.exists(FIRMWARE_DIR)? {
        return Ok(());
    }
    let mut removed_bytes = 0;
    for entry in root.read_dir(FIRMWARE_DIR)? {
        let name = entry.name.to_string_lossy();
        // Files may be compressed.
        let plain = name.trim_end_matches(".zst").trim_end_matches(".xz");
        if patterns.iter().any(|pattern| matches(pattern, plain)) {
            continue;
        }
        let path = Path::new(FIRMWARE_DIR).join(&entry.name);
        removed_bytes += size_below(root, &path)?;
        root.remove_all(path)?;
    }
    env.finding(format!("--firmware saves {}", bytes_text(removed_bytes)));
    Ok(())
}

/// Returns the bytes of all files at and below `path`; links count nothing.
pub(super) fn size_below(root: &Root, path: &Path) -> Result<u64> {
    let Some(metadata) = root.symlink_metadata_opt(path)? else {
        return Ok(0);
    };
    match metadata.kind {
        FileKind::File => Ok(metadata.size),
        FileKind::Directory => root.read_dir(path)?.iter().try_fold(0, |sum, entry| {
            Ok(sum + size_below(root, &path.join(&entry.name))?)
        }),
        _ => Ok(0),
    }
}
