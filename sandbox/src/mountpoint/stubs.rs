//! The mount points that a root filesystem lacks: found, made, and gone afterwards.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::{Kind, MountPointError, Targets, io_error, outside};
use crate::spec::SandboxSpec;

/// Returns the mount points of `spec` that its root filesystem lacks, parents first, as paths inside.
///
/// # Errors
///
/// See [`MountPointError`].
pub fn missing(
    spec: &SandboxSpec,
    targets: &Targets,
) -> Result<Vec<(PathBuf, Kind)>, MountPointError> {
    let mut missing: Vec<(PathBuf, Kind)> = Vec::new();
    let mut covered: Vec<&Path> = Vec::new();
    for (target, kind) in targets.with_kinds(spec)? {
        let hidden = covered
            .iter()
            .any(|mount| target != *mount && target.starts_with(mount));
        if !hidden {
            missing_parts(&spec.root, target, kind, &mut missing)?;
        }
        covered.push(target);
    }
    Ok(missing)
}

fn missing_parts(
    root: &Path,
    target: &Path,
    kind: Kind,
    missing: &mut Vec<(PathBuf, Kind)>,
) -> Result<(), MountPointError> {
    let mut parts: Vec<&Path> = target
        .ancestors()
        .filter(|part| part.parent().is_some())
        .collect();
    parts.reverse();
    for part in parts {
        let wanted = if part == target {
            kind
        } else {
            Kind::Directory
        };
        match fs::symlink_metadata(outside(root, part)) {
            Ok(metadata) if metadata.is_dir() != (wanted == Kind::Directory) => {
                let wanted = if wanted == Kind::Directory {
                    "directory"
                } else {
                    "file"
                };
                return Err(MountPointError::WrongKind {
                    target: part.to_owned(),
                    wanted,
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !missing.iter().any(|(path, _)| path == part) {
                    missing.push((part.to_owned(), wanted));
                }
            }
            Err(error) => return Err(io_error("examining", part, error)),
        }
    }
    Ok(())
}

/// Empty files and directories made to mount on; removed when dropped.
#[derive(Debug)]
pub struct Stubs {
    /// Paths outside, in the order they were made.
    made: Vec<(PathBuf, Kind)>,
}

impl Stubs {
    /// Makes what [`missing`] found. The directories they are put in keep their modification times.
    ///
    /// # Errors
    ///
    /// [`MountPointError::Io`]; what was made until then is removed.
    pub fn make(root: &Path, missing: &[(PathBuf, Kind)]) -> Result<Self, MountPointError> {
        let mut stubs = Self { made: Vec::new() };
        for (inside, kind) in missing {
            let path = outside(root, inside);
            keeping_parent_time(&path, || make_stub(&path, *kind))
                .map_err(|source| io_error("making", inside, source))?;
            stubs.made.push((path, *kind));
        }
        Ok(stubs)
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        for (path, kind) in self.made.drain(..).rev() {
            // A directory with something in it was put to use by the command: then it is no stub any more.
            let _ = keeping_parent_time(&path, || remove_stub(&path, kind));
        }
    }
}

fn make_stub(path: &Path, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Directory => fs::DirBuilder::new().mode(0o755).create(path),
        Kind::File => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .map(drop),
    }
}

fn remove_stub(path: &Path, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Directory => fs::remove_dir(path),
        Kind::File if fs::symlink_metadata(path)?.len() == 0 => fs::remove_file(path),
        Kind::File => Ok(()),
    }
}

/// Runs `change`, which makes or removes `path`, and gives the directory that holds it its former modification time back.
fn keeping_parent_time(path: &Path, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let before = rustix::fs::stat(parent)?;
    change()?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: before.st_mtime as _,
            tv_nsec: before.st_mtime_nsec as _,
        },
    };
    rustix::fs::utimensat(CWD, parent, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::tests::root;
    use super::*;
    use crate::spec::Mount;

    #[test]
    fn stubs_are_made_and_removed_without_a_trace() {
        let root = root();
        let mut spec = SandboxSpec::new(root.path(), ["true"]);
        spec.mounts.push(Mount::File {
            target: "/etc/deep/er/file".into(),
            content: vec![],
            mode: 0o644,
        });
        spec.mounts.push(Mount::File {
            target: "/run/secrets/x".into(),
            content: vec![],
            mode: 0o400,
        });
        let times = |path: &str| {
            let metadata = fs::metadata(root.path().join(path)).unwrap();
            (metadata.mtime(), metadata.mtime_nsec())
        };
        let before = (times(""), times("etc"));
        let targets = Targets::resolve(&spec).unwrap();
        let missing = missing(&spec, &targets).unwrap();
        let names: Vec<_> = missing
            .iter()
            .map(|(path, _)| path.to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "/proc",
                "/dev",
                "/sys",
                "/tmp",
                "/run",
                "/etc/deep",
                "/etc/deep/er",
                "/etc/deep/er/file"
            ]
        );
        let stubs = Stubs::make(root.path(), &missing).unwrap();
        assert!(root.path().join("etc/deep/er/file").is_file());
        assert_eq!((times(""), times("etc")), before);
        drop(stubs);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
        assert_eq!((times(""), times("etc")), before);
    }

    #[test]
    fn a_stub_the_command_put_something_into_stays() {
        let root = root();
        let stubs = Stubs::make(root.path(), &[("/opt".into(), Kind::Directory)]).unwrap();
        fs::write(root.path().join("opt/kept"), "").unwrap();
        drop(stubs);
        assert!(root.path().join("opt/kept").exists());
    }

    #[test]
    fn a_file_where_a_directory_must_be_is_named() {
        let root = root();
        fs::write(root.path().join("proc"), "").unwrap();
        let spec = SandboxSpec::new(root.path(), ["true"]);
        let error = missing(&spec, &Targets::resolve(&spec).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "mount target \"/proc\" is not a directory"
        );
    }
}
