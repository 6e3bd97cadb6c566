//! Mount points inside a root filesystem that somebody else made: found without leaving it, made where missing, gone afterwards.
//!
//! bubblewrap resolves targets with the host's rules: an absolute symbolic link in an image would lead it out of the root filesystem, a
//! dangling one (`/etc/resolv.conf` of systemd-resolved) would fail, and what it creates stays. So targets are resolved and
//! created here first. It must not know what is mounted.

mod stubs;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::spec::{Mount, SandboxSpec};

pub use stubs::{Stubs, missing};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why a mount point cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountPointError {
    /// The target is no absolute path, or is the root itself.
    #[error("mount target {target:?} is not an absolute path below `/`")]
    NotAbsolute {
        /// The target as given.
        target: PathBuf,
    },
    /// Symbolic links lead in a circle.
    #[error("mount target {target:?} goes through more than {MAX_LINKS} symbolic links")]
    TooManyLinks {
        /// The target as given.
        target: PathBuf,
    },
    /// Something of another kind is in the way.
    #[error("mount target {target:?} is not a {wanted}")]
    WrongKind {
        /// The target, resolved.
        target: PathBuf,
        /// `file` or `directory`.
        wanted: &'static str,
    },
    /// The source of a bind mount cannot be used.
    #[error("bind mount source {source_path:?}")]
    Source {
        /// The path outside.
        source_path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{doing} mount target {target:?}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The target, as far as resolved.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a mount covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// The targets of a spec's mounts, resolved: absolute paths inside the root filesystem without symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Where `/proc` goes.
    pub proc: PathBuf,
    /// Where `/dev` goes.
    pub dev: PathBuf,
    /// Where `/sys` goes.
    pub sys: PathBuf,
    /// Where `/tmp` goes.
    pub tmp: PathBuf,
    /// Where `/run` goes.
    pub run: PathBuf,
    /// Where each of [`SandboxSpec::mounts`] goes, in their order.
    pub mounts: Vec<PathBuf>,
}

impl Targets {
    /// Returns the targets as the spec gives them, for printing.
    pub fn unresolved(spec: &SandboxSpec) -> Self {
        Self {
            proc: "/proc".into(),
            dev: "/dev".into(),
            sys: "/sys".into(),
            tmp: "/tmp".into(),
            run: "/run".into(),
            mounts: spec
                .mounts
                .iter()
                .map(|mount| mount.target().to_owned())
                .collect(),
        }
    }

    /// Resolves the targets within the spec's root filesystem.
    ///
    /// What lies below an earlier mount is taken as it is: nothing of the root filesystem is visible there.
    ///
    /// # Errors
    ///
    /// See [`MountPointError`].
    pub fn resolve(spec: &SandboxSpec) -> Result<Self, MountPointError> {
        let mut covered = Vec::new();
        let mut next = |target: &Path| {
            let resolved = resolve(&spec.root, target, &covered)?;
            covered.push(resolved.clone());
            Ok(resolved)
        };
        let (proc, dev) = (next(Path::new("/proc"))?, next(Path::new("/dev"))?);
        let (sys, tmp, run) = (
            next(Path::new("/sys"))?,
            next(Path::new("/tmp"))?,
            next(Path::new("/run"))?,
        );
        let mounts = spec
            .mounts
            .iter()
            .map(|mount| next(mount.target()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            proc,
            dev,
            sys,
            tmp,
            run,
            mounts,
        })
    }

    /// Returns each target with what it covers, in mount order.
    fn with_kinds(&self, spec: &SandboxSpec) -> Result<Vec<(&Path, Kind)>, MountPointError> {
        let fixed = [&self.proc, &self.dev, &self.sys, &self.tmp, &self.run];
        let fixed = fixed
            .into_iter()
            .map(|path| Ok((path.as_path(), Kind::Directory)));
        let own = self
            .mounts
            .iter()
            .zip(&spec.mounts)
            .map(|(path, mount)| Ok((path.as_path(), kind(mount)?)));
        fixed.chain(own).collect()
    }
}

fn kind(mount: &Mount) -> Result<Kind, MountPointError> {
    match mount {
        Mount::Tmpfs { .. } => Ok(Kind::Directory),
        Mount::File { .. } => Ok(Kind::File),
        Mount::Bind { source, .. } => match fs::metadata(source) {
            Ok(metadata) if metadata.is_dir() => Ok(Kind::Directory),
            Ok(_) => Ok(Kind::File),
            Err(error) => Err(MountPointError::Source {
                source_path: source.clone(),
                source: error,
            }),
        },
    }
}

/// Resolves `target` as a process with `root` as its root directory would, and returns the path inside `root`.
///
/// Components that do not exist are kept as they are. Below one of `covered` nothing is looked up.
///
/// # Errors
///
/// [`MountPointError::NotAbsolute`], [`MountPointError::TooManyLinks`], [`MountPointError::Io`].
pub fn resolve(
    root: &Path,
    target: &Path,
    covered: &[PathBuf],
) -> Result<PathBuf, MountPointError> {
    if !target.is_absolute() {
        return Err(MountPointError::NotAbsolute {
            target: target.to_owned(),
        });
    }
    let mut pending = reversed(target);
    let mut resolved = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let outside = root.join(next.strip_prefix("/").unwrap_or(&next));
        let hidden = covered.iter().any(|mount| next.starts_with(mount));
        let link = if hidden {
            None
        } else {
            read_link(&outside).map_err(|source| io_error("resolving", &next, source))?
        };
        match link {
            None => resolved = next,
            Some(_) if links == MAX_LINKS => {
                return Err(MountPointError::TooManyLinks {
                    target: target.to_owned(),
                });
            }
            Some(to) => {
                links += 1;
                if to.is_absolute() {
                    resolved = PathBuf::from("/");
                }
                pending.extend(reversed(&to));
            }
        }
    }
    if resolved == Path::new("/") {
        return Err(MountPointError::NotAbsolute {
            target: target.to_owned(),
        });
    }
    Ok(resolved)
}

/// Returns the names of `path`, last first, `..` among them.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.rev().collect()
}

fn read_link(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(to) => Ok(Some(to)),
        // EINVAL: it exists and is no link. ENOTDIR shows when the mount point is made.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOENT | libc::ENOTDIR)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn outside(root: &Path, inside: &Path) -> PathBuf {
    root.join(inside.strip_prefix("/").unwrap_or(inside))
}

fn io_error(doing: &'static str, target: &Path, source: io::Error) -> MountPointError {
    MountPointError::Io {
        doing,
        target: target.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    pub(super) fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        root
    }

    fn resolved(root: &Path, target: &str) -> PathBuf {
        resolve(root, Path::new(target), &["/run".into()]).unwrap()
    }

    #[test]
    fn links_are_resolved_within_the_root() {
        let root = root();
        symlink("/run", root.path().join("etc/abs")).unwrap();
        symlink("../../../../../usr/x", root.path().join("etc/up")).unwrap();
        assert_eq!(
            resolved(root.path(), "/etc/abs/lock"),
            Path::new("/run/lock")
        );
        assert_eq!(resolved(root.path(), "/etc/up"), Path::new("/usr/x"));
        assert_eq!(
            resolved(root.path(), "/etc/../etc/./a//b"),
            Path::new("/etc/a/b")
        );
    }

    #[test]
    fn a_dangling_link_leads_to_where_it_points() {
        let root = root();
        symlink(
            "../run/systemd/resolve/stub-resolv.conf",
            root.path().join("etc/resolv.conf"),
        )
        .unwrap();
        assert_eq!(
            resolved(root.path(), "/etc/resolv.conf"),
            Path::new("/run/systemd/resolve/stub-resolv.conf")
        );
    }

    #[test]
    fn nothing_is_looked_up_below_a_mount() {
        let root = root();
        fs::create_dir(root.path().join("run")).unwrap();
        symlink("/etc", root.path().join("run/lock")).unwrap();
        assert_eq!(
            resolved(root.path(), "/run/lock/x"),
            Path::new("/run/lock/x")
        );
    }

    #[test]
    fn circles_and_the_root_itself_are_refused() {
        let root = root();
        symlink("loop", root.path().join("loop")).unwrap();
        symlink("/", root.path().join("slash")).unwrap();
        let error = |target: &str| resolve(root.path(), Path::new(target), &[]).unwrap_err();
        assert!(matches!(
            error("/loop"),
            MountPointError::TooManyLinks { .. }
        ));
        assert!(matches!(
            error("/slash"),
            MountPointError::NotAbsolute { .. }
        ));
        assert!(matches!(
            error("relative"),
            MountPointError::NotAbsolute { .. }
        ));
    }
}
