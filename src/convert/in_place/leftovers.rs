//! Takes out of a tree what a sandbox and the capture of a layer would have kept out of an image.
//!
//! What is in `/run`, `/tmp` and `/var/tmp` after the run and was not before goes. So does residue (logs, locks, backups, see
//! [`residue`]); where the base has such a file, it comes back as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kfactory_layers::metadata::{FileKind, Metadata};
use kfactory_layers::root::Root;

use crate::distro::residue;
use crate::error::{Context as _, Result};
use crate::exec::Target;

/// What every command in a sandbox has for itself alone.
const VOLATILE: [&str; 3] = ["/run", "/tmp", "/var/tmp"];

/// A file as it was, and where its content was put.
#[derive(Debug)]
struct Saved {
    metadata: Metadata,
    copy: PathBuf,
}

/// What there was before the first step.
#[derive(Debug)]
pub(super) struct Leftovers {
    volatile: BTreeSet<PathBuf>,
    /// Residue of the base; files with their content.
    residue: BTreeMap<PathBuf, Option<Saved>>,
}

impl Leftovers {
    /// Notes what there is; copies of files that may have to come back go below `copies`.
    pub(super) fn note(target: &Target<'_>, copies: &Path) -> Result<Self> {
        std::fs::create_dir_all(copies).context(|| format!("creating {}", copies.display()))?;
        let mut found = BTreeMap::new();
        for (path, kind) in find_residue(&target.root)? {
            let saved = match kind {
                FileKind::File => save(&target.root, &path, copies.join(found.len().to_string()))?,
                _ => None,
            };
            found.insert(path, saved);
        }
        Ok(Self {
            volatile: volatile(target)?,
            residue: found,
        })
    }

    /// Removes and restores.
    pub(super) fn clear(&self, target: &Target<'_>) -> Result<()> {
        // Backwards: what is in a directory comes before the directory.
        for path in volatile(target)?.into_iter().rev() {
            if !self.volatile.contains(&path) {
                target.root.remove_all(path)?;
            }
        }
        for (path, _) in find_residue(&target.root)? {
            if target.is_mounted(&path) {
                continue;
            }
            match self.residue.get(&path) {
                None => drop(target.root.remove_all(&path)?),
                Some(Some(saved)) => restore(&target.root, &path, saved)?,
                // A directory or link of the base stays; what is new in it was looked at by itself.
                Some(None) => {}
            }
        }
        Ok(())
    }
}

fn save(root: &Root, path: &Path, copy: PathBuf) -> Result<Option<Saved>> {
    let (Some(metadata), Some(mut file)) =
        (root.symlink_metadata_opt(path)?, root.open_file_opt(path)?)
    else {
        return Ok(None);
    };
    File::create(&copy)
        .and_then(|mut out| std::io::copy(&mut file, &mut out))
        .context(|| format!("copying {} aside", path.display()))?;
    Ok(Some(Saved { metadata, copy }))
}

fn restore(root: &Root, path: &Path, saved: &Saved) -> Result<()> {
    let was = &saved.metadata;
    let same = root.symlink_metadata_opt(path)?.is_some_and(|now| {
        (now.kind, now.size, now.mtime, now.mode, now.uid, now.gid)
            == (was.kind, was.size, was.mtime, was.mode, was.uid, was.gid)
    });
    if same {
        return Ok(());
    }
    let copy = File::open(&saved.copy).context(|| format!("opening {}", saved.copy.display()))?;
    root.remove_all(path)?;
    root.copy_in(copy, path, was.mode, was.uid, was.gid)?;
    root.set_mtime(path, was.mtime)?;
    Ok(())
}

/// Returns everything below the volatile directories that is no mount.
fn volatile(target: &Target<'_>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<PathBuf> = VOLATILE.iter().map(PathBuf::from).collect();
    while let Some(dir) = todo.pop() {
        // Not through a link: /var/run leads to /run, which is looked at already.
        let is_dir = target
            .root
            .symlink_metadata_opt(&dir)?
            .is_some_and(|metadata| metadata.is_dir());
        if !is_dir || target.mounts.contains(&dir) {
            continue;
        }
        for entry in target.root.read_dir(&dir)? {
            let path = dir.join(&entry.name);
            if entry.kind == FileKind::Directory {
                todo.push(path.clone());
            }
            if !target.is_mounted(&path) {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// Returns what is residue in the tree. Of a directory whose whole content is, everything below it too.
fn find_residue(root: &Root) -> Result<Vec<(PathBuf, FileKind)>> {
    let mut found = BTreeMap::new();
    for pattern in residue::patterns() {
        // Stars stand in the last name only, so everything that a pattern means is in one directory.
        let Some((parent, _)) = pattern.rsplit_once('/') else {
            continue;
        };
        let mut todo = vec![Path::new("/").join(parent)];
        while let Some(dir) = todo.pop() {
            let is_dir = root
                .symlink_metadata_opt(&dir)?
                .is_some_and(|metadata| metadata.is_dir());
            if !is_dir {
                continue;
            }
            for entry in root.read_dir(&dir)? {
                let path = dir.join(&entry.name);
                let relative = path.strip_prefix("/").unwrap_or(&path);
                if !residue::is_residue(relative.as_os_str().as_bytes()) {
                    continue;
                }
                if entry.kind == FileKind::Directory {
                    todo.push(path.clone());
                }
                found.insert(path, entry.kind);
            }
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_there_comes_back_and_what_is_new_goes() {
        let room = tempfile::tempdir().unwrap();
        let tree = room.path().join("tree");
        let at = |path: &str| tree.join(path);
        let write = |path: &str, text: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), text).unwrap();
        };
        write("var/log/dpkg.log", "base");
        write("var/log/apt/history.log", "base");
        write("run/lock/kept", "base");
        write("run/mounted/there", "base");
        let mounts = [PathBuf::from("/run/mounted")];
        let target = Target {
            root: Root::open(&tree).unwrap(),
            path: &tree,
            lowers: &[],
            mounts: &mounts,
        };
        let leftovers = Leftovers::note(&target, &room.path().join("copies")).unwrap();
        write("var/log/dpkg.log", "base and more");
        write("var/log/apt/term.log", "new");
        write("var/log/other.log", "new");
        write("var/lib/dpkg/status-old", "new");
        write("run/sshd/pid", "new");
        write("run/lock/apt", "new");
        write("run/mounted/new", "theirs");
        write("tmp/x", "new");
        leftovers.clear(&target).unwrap();
        assert_eq!(fs::read_to_string(at("var/log/dpkg.log")).unwrap(), "base");
        for kept in [
            "var/log/apt/history.log",
            "var/log/other.log",
            "run/lock/kept",
            "run/mounted/there",
            "run/mounted/new",
            "tmp",
        ] {
            assert!(at(kept).exists(), "{kept}");
        }
        for gone in [
            "var/log/apt/term.log",
            "var/lib/dpkg/status-old",
            "run/sshd",
            "run/lock/apt",
            "tmp/x",
        ] {
            assert!(!at(gone).exists(), "{gone}");
        }
    }
}
