//! What a spec's mounts become where nothing can be mounted, and how that is taken back.
//!
//! | mount | its target | while the command runs | afterwards |
//! |---|---|---|---|
//! | any | missing | its missing parents are made | they are removed |
//! | file | has the same content | nothing is done | |
//! | file | missing, or holds something else | the content in a file of its own | the file is removed |
//! | bind | missing | a link to the source | the link is removed |
//! | bind of an empty directory | a directory that is in use | the directory itself | what the command added to it is removed |
//! | bind of an empty directory, tmpfs | a directory that something is mounted on | the directory itself | what the command added to it is removed |
//! | bind, tmpfs | an empty directory | a link to the source; a fresh directory | the directory is made again as it was |
//! | tmpfs | missing | a fresh directory | it is removed with what it holds |
//! | any | anything else | it is moved aside under a name beside its own | it is moved back |
//!
//! Read-only is not enforced: a link cannot be. It must not know what the files are for.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink,
};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::spec::Mount;

/// One change, and all that is needed to take it back.
#[derive(Debug)]
enum Change {
    /// A file or link was made.
    MadeFile(PathBuf),
    /// A directory was made.
    MadeDir(PathBuf),
    /// A directory was made that a command may fill.
    MadeScratch(PathBuf),
    /// An empty directory was removed.
    RemovedDir { path: PathBuf, metadata: Metadata },
    /// Something was moved out of the way.
    MovedAside { path: PathBuf, aside: PathBuf },
    /// A directory is used as it is.
    Shared {
        path: PathBuf,
        before: BTreeSet<OsString>,
    },
}

/// What stands in for mounts; taken back when dropped, the last first.
#[derive(Debug, Default)]
pub(super) struct Places {
    changes: Vec<Change>,
}

impl Places {
    /// Puts `mounts` in place, in their order.
    pub(super) fn make(mounts: &[Mount]) -> Result<Self, LaunchError> {
        let mut places = Self::default();
        for mount in mounts {
            places.put(mount).map_err(|source| LaunchError::Place {
                target: mount.target().to_owned(),
                source,
            })?;
        }
        Ok(places)
    }

    fn put(&mut self, mount: &Mount) -> io::Result<()> {
        let target = self.parents_of(mount.target())?;
        match mount {
            Mount::Bind { source, .. } => self.link(source, &target),
            Mount::Tmpfs { mode, .. } => {
                if !self.clear_or_share(&target)? {
                    return Ok(());
                }
                DirBuilder::new().create(&target)?;
                self.changes.push(Change::MadeScratch(target.clone()));
                fs::set_permissions(&target, Permissions::from_mode(*mode))
            }
            Mount::File { content, mode, .. } => {
                if holds(&target, content) {
                    return Ok(());
                }
                self.clear(&target)?;
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&target)?;
                self.changes.push(Change::MadeFile(target));
                file.set_permissions(Permissions::from_mode(*mode))?;
                file.write_all(content)
            }
        }
    }

    /// Makes the missing parents of `target` and returns it without links in front of its last name.
    fn parents_of(&mut self, target: &Path) -> io::Result<PathBuf> {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let mut missing = Vec::new();
        let mut there = parent;
        while fs::symlink_metadata(there).is_err() {
            missing.push(there);
            there = there
                .parent()
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        }
        for dir in missing.into_iter().rev() {
            DirBuilder::new().mode(0o755).create(dir)?;
            self.changes.push(Change::MadeDir(dir.to_owned()));
        }
        Ok(parent.canonicalize()?.join(name))
    }

    fn link(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let source = source.canonicalize()?;
        if target.canonicalize().is_ok_and(|present| present == source) {
            return Ok(());
        }
        let is_bare = is_empty_dir(&source);
        if is_bare && is_dir(target) && !is_empty_dir(target) {
            return self.share(target);
        }
        if !is_bare {
            self.clear(target)?;
        } else if !self.clear_or_share(target)? {
            return Ok(());
        }
        symlink(source, target)?;
        self.changes.push(Change::MadeFile(target.to_owned()));
        Ok(())
    }

    /// Lets the command use a directory as it is.
    fn share(&mut self, target: &Path) -> io::Result<()> {
        let before = names(target)?;
        self.changes.push(Change::Shared {
            path: target.to_owned(),
            before,
        });
        Ok(())
    }

    /// Makes sure that nothing is at `target` and returns true, or shares a directory that cannot go because something is
    /// mounted on it, as a container build may have a cache or a tmpfs there.
    fn clear_or_share(&mut self, target: &Path) -> io::Result<bool> {
        match self.clear(target) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && is_dir(target) => {
                self.share(target).map(|()| false)
            }
            done => done.map(|()| true),
        }
    }

    /// Makes sure that nothing is at `target`.
    fn clear(&mut self, target: &Path) -> io::Result<()> {
        let metadata = match fs::symlink_metadata(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        if is_empty_dir(target) {
            fs::remove_dir(target)?;
            self.changes.push(Change::RemovedDir {
                path: target.to_owned(),
                metadata,
            });
            return Ok(());
        }
        let mut name = OsString::from(".kfactory-aside-");
        name.push(target.file_name().unwrap_or_default());
        let aside = target.with_file_name(name);
        if fs::symlink_metadata(&aside).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is in the way", aside.display()),
            ));
        }
        fs::rename(target, &aside)?;
        self.changes.push(Change::MovedAside {
            path: target.to_owned(),
            aside,
        });
        Ok(())
    }

    /// Takes everything back; what cannot be is told, after the rest has been.
    pub(super) fn take_back(mut self) -> Result<(), LaunchError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), LaunchError> {
        let mut outcome = Ok(());
        while let Some(change) = self.changes.pop() {
            if let Err(source) = change.undo() {
                outcome = Err(LaunchError::Place {
                    target: change.path().to_owned(),
                    source,
                });
            }
        }
        outcome
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Nobody to tell: the error that led here is told.
        let _ = self.undo();
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::MadeFile(path) | Self::MadeDir(path) | Self::MadeScratch(path) => path,
            Self::RemovedDir { path, .. }
            | Self::MovedAside { path, .. }
            | Self::Shared { path, .. } => path,
        }
    }

    fn undo(&self) -> io::Result<()> {
        match self {
            Self::MadeFile(path) => gone(fs::remove_file(path)),
            // One that the command put something into is its own from now on.
            Self::MadeDir(path) => match fs::remove_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                done => gone(done),
            },
            Self::MadeScratch(path) => gone(fs::remove_dir_all(path)),
            Self::RemovedDir { path, metadata } => {
                // What a command put in place of the link is no mount's business.
                match DirBuilder::new().create(path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                    made => made?,
                }
                chown(path, Some(metadata.uid()), Some(metadata.gid()))?;
                fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7777))?;
                let times = fs::FileTimes::new().set_modified(metadata.modified()?);
                File::open(path)?.set_times(times)
            }
            Self::MovedAside { path, aside } => fs::rename(aside, path),
            Self::Shared { path, before } => {
                for name in names(path)?.difference(before) {
                    remove(&path.join(name))?;
                }
                Ok(())
            }
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    gone(if is_dir(path) {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    })
}

fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn is_empty_dir(path: &Path) -> bool {
    is_dir(path) && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Tells whether a file holds exactly `content`.
fn holds(path: &Path, content: &[u8]) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let mut found = Vec::new();
    // One byte more tells that there is more.
    let limit = content.len() as u64 + 1;
    file.take(limit).read_to_end(&mut found).is_ok() && found == content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &Path, target: &Path) -> Mount {
        Mount::Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only: false,
        }
    }

    fn file(target: &Path, content: &str) -> Mount {
        Mount::File {
            target: target.to_owned(),
            content: content.into(),
            mode: 0o400,
        }
    }

    /// Everything that is there: paths with kind, mode and content.
    fn listing(dir: &Path) -> Vec<String> {
        let mut out = Vec::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(path) = todo.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_file() {
                fs::read_to_string(&path).unwrap_or_default()
            } else {
                String::new()
            };
            out.push(format!("{path:?} {:o} {content}", metadata.mode()));
            if metadata.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            }
        }
        out.sort();
        out
    }

    #[test]
    fn what_was_there_is_there_again_whatever_the_command_did() {
        let room = tempfile::tempdir().unwrap();
        let at = |path: &str| room.path().join(path);
        for dir in [
            "source/nested",
            "source/lists",
            "empty",
            "root/in-use",
            "root/bare",
        ] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        fs::set_permissions(at("root/bare"), Permissions::from_mode(0o1777)).unwrap();
        fs::write(at("source/lists/one"), "list").unwrap();
        fs::write(at("root/in-use/kept"), "kept").unwrap();
        fs::write(at("root/settings"), "old").unwrap();
        fs::write(at("root/resolv.conf"), "nameserver").unwrap();
        let before = listing(&at("root"));
        let mounts = [
            bind(&at("source"), &at("root/run/work")),
            // Below the mount before it, onto an empty directory of that.
            bind(&at("source/lists"), &at("root/run/work/nested")),
            bind(&at("empty"), &at("root/in-use")),
            bind(&at("source/lists"), &at("root/bare")),
            bind(&at("source/lists/one"), &at("root/settings")),
            file(&at("root/resolv.conf"), "nameserver"),
            file(&at("root/run/secrets/token"), "hush"),
            Mount::Tmpfs {
                target: at("root/scratch"),
                mode: 0o1777,
            },
        ];
        let places = Places::make(&mounts).unwrap();
        let read = |path: &str| fs::read_to_string(at(path)).unwrap();
        assert_eq!(read("root/run/work/nested/one"), "list");
        assert_eq!(read("root/bare/one"), "list");
        assert_eq!(read("root/settings"), "list");
        assert_eq!(read("root/run/secrets/token"), "hush");
        for path in [
            "root/in-use/left",
            "root/scratch/left",
            "root/run/work/left",
        ] {
            fs::write(at(path), "left").unwrap();
        }
        places.take_back().unwrap();
        assert_eq!(listing(&at("root")), before);
        assert!(at("source/nested").is_dir() && at("source/left").is_file());
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "a test that stays away says so")]
    fn what_something_is_mounted_on_is_used_as_it_is() {
        let room = tempfile::tempdir().unwrap();
        let at = |path: &str| room.path().join(path);
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("mounted")).unwrap();
        let mount = |program: &str, words: &[&str]| {
            let mut command = std::process::Command::new(program);
            let output = command.args(words).arg(at("mounted")).output();
            output.is_ok_and(|output| output.status.success())
        };
        if !mount("mount", &["-t", "tmpfs", "tmpfs"]) {
            eprintln!("skipped: a tmpfs cannot be mounted here");
            return;
        }
        let tmpfs = Mount::Tmpfs {
            target: at("mounted"),
            mode: 0o1777,
        };
        let left = [bind(&at("empty"), &at("mounted")), tmpfs].map(|wanted| {
            let places = Places::make(&[wanted]);
            let used = places.map(|places| {
                fs::write(at("mounted/left"), "").unwrap();
                places.take_back().unwrap();
            });
            (used.is_ok(), is_empty_dir(&at("mounted")))
        });
        assert!(mount("umount", &[]));
        assert_eq!(left, [(true, true), (true, true)]);
    }

    #[test]
    fn a_mount_that_cannot_be_put_in_place_takes_the_others_back() {
        let room = tempfile::tempdir().unwrap();
        let at = |path: &str| room.path().join(path);
        fs::create_dir(at("source")).unwrap();
        let mounts = [
            bind(&at("source"), &at("root/run/work")),
            bind(&at("missing"), &at("root/other")),
        ];
        let error = Places::make(&mounts).unwrap_err();
        assert!(error.to_string().contains("root/other"), "{error}");
        assert!(!at("root").exists());
    }
}
