//! Leaves apt's package lists in a tree whose init phase is still to come: a container build may install a package of its own between
//! the two phases, as kairos-init's documents show, without asking the archive for lists again. The init phase removes them.

use std::fs::{self, File};
use std::path::Path;

use crate::error::{Context as _, Result};
use crate::exec::Target;

/// Where apt looks for them.
const PLACE: &str = "/var/lib/apt/lists";
/// apt's lock file between its lists.
const LOCK: &str = "lock";

/// Copies the lists at `lists` (made by this run, missing where it used no apt) to where apt finds them.
pub(super) fn leave(lists: &Path, target: &Target<'_>) -> Result<()> {
    if !lists.is_dir() || target.is_mounted(Path::new(PLACE)) {
        return Ok(());
    }
    let doing = || format!("leaving the package lists in {PLACE}");
    for entry in fs::read_dir(lists).context(doing)? {
        let entry = entry.context(doing)?;
        if entry.file_name() == LOCK || !entry.file_type().context(doing)?.is_file() {
            continue;
        }
        let content = File::open(entry.path()).context(doing)?;
        let place = Path::new(PLACE).join(entry.file_name());
        target.root.create_dir_all(PLACE, 0o755)?;
        target.root.copy_in(content, place, 0o644, 0, 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kfactory_layers::root::Root;

    use super::*;

    fn left(mounts: &[std::path::PathBuf]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let (lists, tree) = (dir.path().join("lists"), dir.path().join("tree"));
        for path in [lists.join("partial"), tree.clone()] {
            fs::create_dir_all(path).unwrap();
        }
        for name in ["archive_InRelease", "archive_Packages.lz4", "lock"] {
            fs::write(lists.join(name), name).unwrap();
        }
        let target = Target {
            root: Root::open(&tree).unwrap(),
            path: &tree,
            lowers: &[],
            mounts,
        };
        leave(&lists, &target).unwrap();
        let mut names: Vec<String> = fs::read_dir(tree.join("var/lib/apt/lists"))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn lists_are_left_without_what_only_a_running_apt_needs() {
        assert_eq!(left(&[]), ["archive_InRelease", "archive_Packages.lz4"]);
    }

    #[test]
    fn a_cache_that_is_mounted_there_is_not_written_to() {
        assert!(left(&[PLACE.into()]).is_empty());
    }
}
