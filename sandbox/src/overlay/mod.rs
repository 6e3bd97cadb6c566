//! Mounts inside the stage: overlay, bind and tmpfs, unmounted when dropped.
//!
//! It must not know what the directories hold.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use thiserror::Error;

mod layers;

use layers::{Layers, MAX_OPTION_BYTES};

/// Why a mount failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The kernel refused the mount.
    #[error("mounting {kind} on {target:?}{}", detail_text(.detail))]
    Mount {
        /// `overlay`, `bind` or `tmpfs`.
        kind: &'static str,
        /// Where it was to go.
        target: PathBuf,
        /// What the kernel's log for this mount says, where it has one.
        detail: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There are too many lower directories for a kernel without `lowerdir+` (before 6.5).
    #[error(
        "overlay options of {bytes} bytes for {lowers} lower directories are more than this kernel takes ({MAX_OPTION_BYTES})"
    )]
    TooManyLowers {
        /// How many lower directories.
        lowers: usize,
        /// How long the options would be.
        bytes: usize,
    },
    /// An overlay needs at least one lower directory.
    #[error("an overlay on {target:?} without lower directories")]
    NoLowers {
        /// Where it was to go.
        target: PathBuf,
    },
    /// A directory of the mount cannot be opened.
    #[error("opening {path:?}")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount stays.
    #[error("unmounting {target:?}")]
    Unmount {
        /// What was to be unmounted.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MountError {
    /// Returns what the reader can do about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Mount { kind: "overlay", source, .. } => match source.raw_os_error() {
                Some(libc::EPERM) => {
                    vec!["overlayfs in a user namespace needs Linux 5.11 or later; `uname -r` tells".to_owned()]
                }
                Some(libc::ENODEV) => vec!["`modprobe overlay` as root loads overlayfs".to_owned()],
                Some(libc::EINVAL) => vec![
                    "the directory for changes must be on ext4, xfs, btrfs or tmpfs: not on overlayfs (a container's root), NFS or FUSE".to_owned(),
                ],
                _ => Vec::new(),
            },
            Self::TooManyLowers { .. } => vec!["Linux 6.5 or later takes up to 500 lower directories".to_owned()],
            _ => Vec::new(),
        }
    }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

/// A mount that ends when this is dropped.
///
/// Dropping detaches: processes that still use the mount keep it until they end. Use [`Mounted::unmount`] where a failure matters.
#[derive(Debug)]
#[must_use = "the mount ends when this is dropped"]
pub struct Mounted {
    target: Option<PathBuf>,
}

impl Mounted {
    fn new(target: &Path) -> Self {
        Self {
            target: Some(target.to_owned()),
        }
    }

    /// Returns where it is mounted.
    pub fn target(&self) -> &Path {
        self.target.as_deref().unwrap_or(Path::new(""))
    }

    /// Detaches the mount now.
    ///
    /// # Errors
    ///
    /// [`MountError::Unmount`]; the mount is then given up and stays until the stage ends.
    pub fn unmount(mut self) -> Result<(), MountError> {
        let Some(target) = self.target.take() else {
            return Ok(());
        };
        detach(&target).map_err(|errno| MountError::Unmount {
            target,
            source: errno.into(),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            // Nobody to tell; the stage's end removes it in any case.
            let _ = detach(&target);
        }
    }
}

fn detach(target: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// An overlay mount that ends when this is dropped.
#[derive(Debug)]
#[must_use = "the mount ends when this is dropped"]
pub struct OverlayMount {
    mounted: Mounted,
}

impl OverlayMount {
    /// Mounts `lowers`, topmost first, under the fresh or earlier changes in `upper`.
    ///
    /// `work` must be an empty directory on the file system of `upper`, a new one for each mount: the mount is `volatile` (nothing
    /// is synced to disk), and the mark it leaves there refuses a second use. All directories must exist and stay unchanged from
    /// outside while mounted. What the lower directories say in `user.overlay.*` attributes is obeyed.
    ///
    /// # Errors
    ///
    /// See [`MountError`]; nothing is mounted then.
    ///
    /// Spec: Linux `Documentation/filesystems/overlayfs.rst`.
    pub fn mount(
        lowers: &[PathBuf],
        upper: &Path,
        work: &Path,
        target: &Path,
    ) -> Result<Self, MountError> {
        let mounted = mount_overlay(lowers, Some((upper, work)), target)?;
        Ok(Self { mounted })
    }

    /// Mounts `lowers`, topmost first, for reading only.
    ///
    /// # Errors
    ///
    /// See [`MountError`]; nothing is mounted then.
    pub fn mount_read_only(lowers: &[PathBuf], target: &Path) -> Result<Self, MountError> {
        let mounted = match lowers {
            // The kernel wants two layers where there is no upper one.
            [only] => bind_mount(only, target, true)?,
            _ => mount_overlay(lowers, None, target)?,
        };
        Ok(Self { mounted })
    }

    /// Returns where it is mounted.
    pub fn target(&self) -> &Path {
        self.mounted.target()
    }

    /// Detaches the mount now.
    ///
    /// # Errors
    ///
    /// [`MountError::Unmount`].
    pub fn unmount(self) -> Result<(), MountError> {
        self.mounted.unmount()
    }
}

/// Mounts the tree at `source` on `target`, submounts included.
///
/// With `read_only` nothing can be written through `target` itself; submounts keep their own setting.
///
/// # Errors
///
/// [`MountError::Mount`].
pub fn bind_mount(source: &Path, target: &Path, read_only: bool) -> Result<Mounted, MountError> {
    let failed = |errno: Errno| failed("bind", target, String::new(), errno);
    rustix::mount::mount_bind_recursive(source, target).map_err(failed)?;
    let mounted = Mounted::new(target);
    // A bind mount joins the source's peer group; ours must not pass mounts back.
    rustix::mount::mount_change(
        target,
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(failed)?;
    if read_only {
        // Flags that were set outside the stage are locked: a remount must repeat them.
        let flags = rustix::fs::statvfs(target).map_err(failed)?.f_flag;
        rustix::mount::mount_remount(
            target,
            MountFlags::BIND | MountFlags::RDONLY | kept_flags(flags),
            c"",
        )
        .map_err(failed)?;
    }
    Ok(mounted)
}

fn kept_flags(flags: rustix::fs::StatVfsMountFlags) -> MountFlags {
    use rustix::fs::StatVfsMountFlags as Vfs;
    let table = [
        (Vfs::NOSUID, MountFlags::NOSUID),
        (Vfs::NODEV, MountFlags::NODEV),
        (Vfs::NOEXEC, MountFlags::NOEXEC),
        (Vfs::NOATIME, MountFlags::NOATIME),
        (Vfs::NODIRATIME, MountFlags::NODIRATIME),
        (Vfs::RELATIME, MountFlags::RELATIME),
    ];
    table
        .into_iter()
        .filter(|(vfs, _)| flags.contains(*vfs))
        .fold(MountFlags::empty(), |all, (_, flag)| all | flag)
}

/// Mounts a new tmpfs on `target` whose root has the permission bits `mode`.
///
/// # Errors
///
/// [`MountError::Mount`].
pub fn tmpfs(target: &Path, mode: u32) -> Result<Mounted, MountError> {
    let options = CString::new(format!("mode={mode:o}")).expect("digits hold no NUL");
    rustix::mount::mount(
        c"tmpfs",
        target,
        c"tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        options.as_c_str(),
    )
    .map_err(|errno| failed("tmpfs", target, String::new(), errno))?;
    Ok(Mounted::new(target))
}

fn failed(kind: &'static str, target: &Path, detail: String, errno: Errno) -> MountError {
    MountError::Mount {
        kind,
        target: target.to_owned(),
        detail,
        source: errno.into(),
    }
}

fn mount_overlay(
    lowers: &[PathBuf],
    changes: Option<(&Path, &Path)>,
    target: &Path,
) -> Result<Mounted, MountError> {
    if lowers.is_empty() {
        return Err(MountError::NoLowers {
            target: target.to_owned(),
        });
    }
    Layers::open(lowers, changes)?.mount(target)?;
    Ok(Mounted::new(target))
}

/// Returns the options and target of an overlay mount for a trial by mount(2) in a forked child.
pub(crate) fn trial_mount(directory: &Path) -> io::Result<crate::sys::TrialMount> {
    let part = |name: &str| -> io::Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    };
    let (lower, upper, work, target) = (
        part("lower")?,
        part("upper")?,
        part("work")?,
        part("merged")?,
    );
    let layers = Layers::open(&[lower], Some((&upper, &work))).map_err(io::Error::other)?;
    let options = layers.option_string().map_err(io::Error::other)?;
    Ok(crate::sys::TrialMount {
        target: CString::new(target.as_os_str().as_bytes())?,
        options,
        layers: layers.into_fds(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_named() {
        let error = OverlayMount::mount_read_only(
            &["/nonexistent/a".into(), "/nonexistent/b".into()],
            Path::new("/"),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "opening \"/nonexistent/a\"");
    }
}
