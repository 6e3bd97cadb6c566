//! Removing much of the store, shown while it goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Context as _, Result};
use crate::progress::Reporter;
use crate::store::{entries, remove_tree, size_on_disk};

/// What takes less is gone before anybody can read that it is being removed.
const SHOWN_BYTES: u64 = 1 << 20;

/// Removes what `dir` holds, which is `what`: files first, because a tree counts as whole as long as the file beside it says so.
///
/// # Errors
///
/// A directory is still there.
pub(super) fn empty(dir: &Path, what: &str, reporter: &Arc<Reporter>) -> Result<()> {
    let all = entries(dir).into_iter().map(|(_, path)| path);
    let (trees, mut paths): (Vec<_>, Vec<_>) = all.partition(|path| is_tree(path));
    paths.extend(trees);
    remove(&paths, what, reporter)
}

/// Removes `paths`, which are `what`, in their order.
///
/// # Errors
///
/// One that is a directory is still there.
pub(super) fn remove(paths: &[PathBuf], what: &str, reporter: &Arc<Reporter>) -> Result<()> {
    let sized: Vec<_> = paths.iter().flat_map(|path| pieces(path)).collect();
    let total = sized.iter().map(|(_, bytes)| bytes).sum();
    let shown = (total >= SHOWN_BYTES).then(|| reporter.transfer("remove", what, total));
    for (path, bytes) in &sized {
        if is_tree(path) {
            remove_tree(path)
                .context(|| format!("{} cannot be removed entirely", path.display()))
                .map_err(|error| {
                    error.hint("`podman unshare rm -rf` removes files of subordinate IDs")
                })?;
        } else {
            let _ = fs::remove_file(path);
        }
        if let Some(shown) = &shown {
            shown.advance(*bytes);
        }
    }
    Ok(())
}

/// Returns what is removed at a time, with its size in bytes: of a tree one part after the other, and then what is left of it.
fn pieces(path: &Path) -> Vec<(PathBuf, u64)> {
    let parts = match is_tree(path) {
        true => entries(path),
        false => Vec::new(),
    };
    let parts = parts.into_iter().map(|(_, part)| {
        let bytes = size_on_disk(&part);
        (part, bytes)
    });
    let mut sized: Vec<_> = parts.collect();
    let counted: u64 = sized.iter().map(|(_, bytes)| bytes).sum();
    let rest = size_on_disk(path).saturating_sub(counted);
    sized.push((path.to_owned(), rest));
    sized
}

fn is_tree(path: &Path) -> bool {
    path.is_dir() && !path.is_symlink()
}
