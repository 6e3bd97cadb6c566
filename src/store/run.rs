//! Runs: each has a locked directory, and what a dead one left is swept by the next that opens the store.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kfactory_sandbox::stage::in_stage;

use super::{StepRecord, Store, entries};
use crate::error::{Context as _, Result};
use crate::leftover;

/// The working directory of one run; removed when dropped, with the changes that no record took over.
#[derive(Debug)]
pub struct Run {
    /// The store's directory.
    store: PathBuf,
    dir: PathBuf,
    _lock: File,
}

impl Run {
    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns a name below `changes/` that belongs to this run until a record takes it over.
    pub fn changes_id(&self, index: usize) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}.{index}")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let own = format!("{name}.");
        let named = named_changes(&self.store);
        for (name, path) in entries(&self.store.join("changes")) {
            if name.starts_with(&own) && !named.contains(&name) {
                discard_tree(&path);
            }
        }
        discard_tree(&self.dir);
    }
}

impl Store {
    /// Starts a run: a fresh directory that is locked as long as the value lives and removed with it.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or locked.
    pub fn start_run(&self) -> Result<Run> {
        let runs = self.dir.join("runs");
        // Locked before it has a name that a sweep looks at.
        let made = tempfile::Builder::new()
            .prefix(&format!(".{}-", std::process::id()))
            .tempdir_in(&runs)
            .context(|| "creating the run's directory".into())?
            .keep();
        let lock = File::create(made.join("lock")).context(|| "creating the run's lock".into())?;
        lock.lock()
            .context(|| "locking the run's directory".into())?;
        let name = made.file_name().unwrap_or_default().to_string_lossy();
        let dir = runs.join(name.trim_start_matches('.'));
        fs::rename(&made, &dir).context(|| "naming the run's directory".into())?;
        Ok(Run {
            store: self.dir.clone(),
            dir,
            _lock: lock,
        })
    }

    /// Removes what dead runs left: their directories, and changes that no record names.
    pub(super) fn sweep(&self) {
        // Listed first: what a run makes that starts from now on is none of our business.
        let changes = entries(&self.dir.join("changes"));
        let (mut dead, mut others_live) = (Vec::new(), false);
        for (name, path) in entries(&self.dir.join("runs")) {
            let lock = File::open(path.join("lock"));
            let is_dead = match lock {
                // One that is being made this moment has no name yet.
                Ok(lock) if !name.starts_with('.') => lock.try_lock().is_ok(),
                // Without a lock it is being made, or its removal was cut short.
                _ => is_older_than_a_minute(&path),
            };
            if is_dead {
                dead.push(path);
            } else {
                others_live = true;
            }
        }
        let named = named_changes(&self.dir);
        for path in dead {
            sweep_tree(&path);
        }
        // A live run may stand on changes whose record another run has replaced since.
        if !others_live {
            for (name, path) in changes {
                if !named.contains(&name) {
                    sweep_tree(&path);
                }
            }
        }
        for (name, path) in entries(&self.dir) {
            // What a trial of the doctor could not remove as the user it ran as.
            if name.starts_with(".overlay-trial-") && is_older_than_a_minute(&path) {
                sweep_tree(&path);
            }
        }
        // A file that cannot be removed is tried again by the next run.
        let _ = self.blobs.remove_abandoned();
    }
}

/// Returns the names of the changes directories that the step records of the store at `store` have taken over.
fn named_changes(store: &Path) -> Vec<String> {
    let records = entries(&store.join("steps")).into_iter();
    let parsed = records.filter_map(|(_, path)| fs::read(path).ok());
    parsed
        .filter_map(|bytes| serde_json::from_slice::<StepRecord>(&bytes).ok())
        .map(|record| record.changes)
        .collect()
}

/// Removes a tree, if it is there; directories without write permission are opened up first.
///
/// # Errors
///
/// Something of it is still there.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = fs::remove_dir_all(path).or_else(|_| remove_by_levels(path));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes a tree that is not needed any more. What cannot be removed is told at the end of the run, and tried again by the next.
pub fn discard_tree(path: &Path) {
    if let Err(error) = remove_tree(path) {
        leftover::note(path, &error);
    }
}

/// As [`discard_tree`], of what another run left: its files may have owners that only a run in the stage, or root, can remove.
fn sweep_tree(path: &Path) {
    let may_all = in_stage() || rustix::process::geteuid().is_root();
    match remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !may_all => {}
        Err(error) => leftover::note(path, &error),
        Ok(()) => {}
    }
}

/// Removes a tree that is closed, or deeper than a process may have directories open or a path be long: what is two levels down is
/// moved up to the first until there is nothing more.
fn remove_by_levels(path: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    open_up(path)?;
    while let Some(entry) = fs::read_dir(path)?.next() {
        let entry = entry?;
        let below = entry.path();
        if !entry.file_type()?.is_dir() {
            fs::remove_file(below)?;
            continue;
        }
        open_up(&below)?;
        for entry in fs::read_dir(&below)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            open_up(&entry.path())?;
            let place = loop {
                moved += 1;
                let place = path.join(format!(".{moved}"));
                if place.symlink_metadata().is_err() {
                    break place;
                }
            };
            fs::rename(entry.path(), place)?;
        }
        fs::remove_dir(below)?;
    }
    fs::remove_dir(path)
}

/// Lets the owner of a directory change what is in it and move it.
fn open_up(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

fn is_older_than_a_minute(path: &Path) -> bool {
    let age = fs::metadata(path)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.elapsed().ok());
    age.is_some_and(|age| age.as_secs() > 60)
}

#[cfg(test)]
mod tests {
    use super::super::tests::store;
    use super::*;

    #[test]
    fn a_closed_tree_deeper_than_a_path_may_be_long_is_removed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("ab/.1")).unwrap();
        fs::write(top.join("ab/.1/file"), "").unwrap();
        // Grown at the root, since no path leads to its end.
        for _ in 0..3000 {
            let grown = dir.path().join("grown");
            fs::create_dir(&grown).unwrap();
            fs::rename(&top, grown.join("ab")).unwrap();
            fs::rename(&grown, &top).unwrap();
        }
        fs::set_permissions(top.join("ab"), fs::Permissions::from_mode(0o500)).unwrap();
        remove_by_levels(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn changes_that_no_record_names_are_swept_once_their_run_is_dead() {
        let (dir, store) = store();
        let run = store.start_run().unwrap();
        let id = run.changes_id(0);
        fs::create_dir_all(store.changes(&id)).unwrap();
        store.sweep();
        assert!(store.changes(&id).is_dir(), "the run lives");
        drop(run);
        drop(store);
        let store = Store::for_test(dir.path()).unwrap();
        assert!(!store.changes(&id).exists());
    }

    #[test]
    fn a_run_that_ends_takes_its_unrecorded_changes_with_it() {
        let (_dir, store) = store();
        let (ending, other) = (store.start_run().unwrap(), store.start_run().unwrap());
        let (left, kept) = (ending.changes_id(0), other.changes_id(0));
        for id in [&left, &kept] {
            fs::create_dir_all(store.changes(id)).unwrap();
        }
        drop(ending);
        assert!(!store.changes(&left).exists());
        assert!(store.changes(&kept).is_dir(), "another run's");
    }
}
