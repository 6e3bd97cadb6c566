//! Mounts inside the stage: overlay, bind and tmpfs, unmounted when dropped.
//!
//! It must not know what the directories hold.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};
use thiserror::Error;

/// The longest string `fsconfig` takes, without its end (`strndup_user(_, 256)`).
const MAX_FSCONFIG_BYTES: usize = 255;

/// The longest option string mount(2) takes, without its end: one page of the smallest size.
const MAX_OPTION_BYTES: usize = 4095;

/// Options of every overlay: what a captured upperdir must not depend on stays off, whatever the kernel's defaults are.
///
/// `userxattr`, without which a user namespace may not mount, turns `redirect_dir` and `metacopy` off by itself and refuses to
/// have them named, so a rename of a lower directory is a copy, and a changed owner copies the file.
const OPTIONS: [(&str, &str); 2] = [("index", "off"), ("xino", "off")];

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
    let layers = Layers::open(lowers, changes)?;
    match layers.mount_by_fsconfig(target) {
        Ok(()) => {}
        // Kernels before 6.5 know fsopen but not `lowerdir+`, kernels before 5.2 neither. Where something else is wrong, the
        // second attempt fails as well and its error counts.
        Err(first) => layers
            .mount_by_string(target)
            .map_err(|second| first.or(second))?,
    }
    Ok(Mounted::new(target))
}

/// A refusal by the new mount interface.
#[derive(Debug)]
struct Refused {
    /// `lowerdir+` was understood, so the old interface has nothing to add.
    understood: bool,
    error: MountError,
}

impl Refused {
    fn or(self, second: MountError) -> MountError {
        if self.understood { self.error } else { second }
    }
}

/// The directories of an overlay under names the kernel takes.
#[derive(Debug)]
struct Layers {
    lowers: Vec<Layer>,
    changes: Option<(Layer, Layer)>,
}

/// A directory, and an open descriptor that names it whatever its path is.
#[derive(Debug)]
struct Layer {
    path: PathBuf,
    fd: OwnedFd,
}

impl Layer {
    fn open(path: &Path) -> Result<Self, MountError> {
        let fd = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| MountError::Open {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            fd,
        })
    }

    /// Returns a short name without special characters: escaping rules differ between kernel versions and interfaces.
    fn short_name(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Returns the path itself where every interface takes it as it is (it then stands in `/proc/mounts`), else the short name.
    fn name(&self) -> CString {
        let bytes = self.path.as_os_str().as_bytes();
        let plain = bytes.len() <= MAX_FSCONFIG_BYTES
            && !bytes.iter().any(|byte| b":,\\\"' \n\t".contains(byte));
        let own = plain.then(|| CString::new(bytes).ok()).flatten();
        own.unwrap_or_else(|| CString::new(self.short_name()).expect("digits hold no NUL"))
    }
}

impl Layers {
    fn open(lowers: &[PathBuf], changes: Option<(&Path, &Path)>) -> Result<Self, MountError> {
        let lowers = lowers
            .iter()
            .map(|path| Layer::open(path))
            .collect::<Result<_, _>>()?;
        let changes = changes
            .map(|(upper, work)| Ok((Layer::open(upper)?, Layer::open(work)?)))
            .transpose()?;
        Ok(Self { lowers, changes })
    }

    fn mount_by_fsconfig(&self, target: &Path) -> Result<(), Refused> {
        let refused = |understood, detail, errno| Refused {
            understood,
            error: failed("overlay", target, detail, errno),
        };
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| refused(false, String::new(), errno))?;
        for layer in &self.lowers {
            rustix::mount::fsconfig_set_string(
                context.as_fd(),
                c"lowerdir+",
                layer.name().as_c_str(),
            )
            .map_err(|errno| refused(false, String::new(), errno))?;
        }
        self.configure(context.as_fd())
            .map_err(|errno| refused(true, kernel_log(&context), errno))?;
        let mount = rustix::mount::fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
        .map_err(|errno| refused(true, kernel_log(&context), errno))?;
        rustix::mount::move_mount(
            mount.as_fd(),
            c"",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|errno| refused(true, String::new(), errno))
    }

    fn configure(&self, context: impl AsFd + Copy) -> Result<(), Errno> {
        use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
        fsconfig_set_string(context, c"source", c"overlay")?;
        fsconfig_set_flag(context, c"userxattr")?;
        for (key, value) in OPTIONS {
            fsconfig_set_string(context, key, value)?;
        }
        if let Some((upper, work)) = &self.changes {
            fsconfig_set_string(context, c"upperdir", upper.name().as_c_str())?;
            fsconfig_set_string(context, c"workdir", work.name().as_c_str())?;
            fsconfig_set_flag(context, c"volatile")?;
        }
        fsconfig_create(context)
    }

    fn mount_by_string(&self, target: &Path) -> Result<(), MountError> {
        let options = self.option_string()?;
        rustix::mount::mount(
            c"overlay",
            target,
            c"overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .map_err(|errno| failed("overlay", target, String::new(), errno))
    }

    /// Returns the options for mount(2): with paths where they fit into a page, with short names otherwise.
    fn option_string(&self) -> Result<CString, MountError> {
        let long = self.joined_options(|layer| layer.name().into_bytes());
        let text = if long.len() <= MAX_OPTION_BYTES {
            long
        } else {
            self.joined_options(|layer| layer.short_name().into_bytes())
        };
        let bytes = text.len();
        CString::new(text)
            .ok()
            .filter(|_| bytes <= MAX_OPTION_BYTES)
            .ok_or(MountError::TooManyLowers {
                lowers: self.lowers.len(),
                bytes,
            })
    }

    fn joined_options(&self, name: impl Fn(&Layer) -> Vec<u8>) -> Vec<u8> {
        let mut text = b"userxattr".to_vec();
        for (key, value) in OPTIONS {
            text.extend_from_slice(format!(",{key}={value}").as_bytes());
        }
        text.extend_from_slice(b",lowerdir=");
        text.extend(
            self.lowers
                .iter()
                .map(&name)
                .collect::<Vec<_>>()
                .join(&b':'),
        );
        if let Some((upper, work)) = &self.changes {
            text.extend(
                [
                    b",volatile,upperdir=".as_slice(),
                    &name(upper),
                    b",workdir=",
                    &name(work),
                ]
                .concat(),
            );
        }
        text
    }
}

/// Reads what the kernel says about a failed mount: lines such as `e overlay: upper fs does not support xattr`.
fn kernel_log(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = crate::lines::printable(buffer[..length].trim_ascii());
        lines.push(
            text.split_once(' ')
                .map_or(text.clone(), |(_, message)| message.to_owned()),
        );
    }
    lines.join("; ")
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
    let options = layers.joined_options(|layer| layer.name().into_bytes());
    Ok(crate::sys::TrialMount {
        target: CString::new(target.as_os_str().as_bytes())?,
        options: CString::new(options)?,
        layers: layers.into_fds(),
    })
}

impl Layers {
    fn into_fds(self) -> Vec<OwnedFd> {
        let changes = self
            .changes
            .into_iter()
            .flat_map(|(upper, work)| [upper, work]);
        self.lowers
            .into_iter()
            .chain(changes)
            .map(|layer| layer.fd)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(directory: &Path, names: &[&str]) -> Vec<PathBuf> {
        names
            .iter()
            .map(|name| {
                let path = directory.join(name);
                fs::create_dir_all(&path).unwrap();
                path
            })
            .collect()
    }

    #[test]
    fn plain_paths_stand_in_the_options_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let paths = layers(directory.path(), &["a", "b", "u", "w"]);
        let opened = Layers::open(&paths[..2], Some((&paths[2], &paths[3]))).unwrap();
        let base = directory.path().display();
        assert_eq!(
            opened.option_string().unwrap().to_str().unwrap(),
            format!(
                "userxattr,index=off,xino=off,lowerdir={base}/a:{base}/b,volatile,upperdir={base}/u,workdir={base}/w"
            )
        );
    }

    #[test]
    fn names_with_separators_are_given_by_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["co:lon", "com,ma", "back\\slash", "new\nline"] {
            let paths = layers(directory.path(), &[name]);
            let layer = Layer::open(&paths[0]).unwrap();
            assert_eq!(
                layer.name().to_str().unwrap(),
                layer.short_name(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn options_over_a_page_use_short_names_and_then_give_up() {
        let directory = tempfile::tempdir().unwrap();
        let long = "x".repeat(200);
        let one = layers(directory.path(), &[&long]).remove(0);
        let many = Layers::open(&vec![one.clone(); 100], None).unwrap();
        assert!(
            many.option_string()
                .unwrap()
                .to_str()
                .unwrap()
                .contains("lowerdir=/proc/self/fd/")
        );
        let too_many = Layers::open(&vec![one; 400], None).unwrap();
        assert!(matches!(
            too_many.option_string(),
            Err(MountError::TooManyLowers { lowers: 400, .. })
        ));
    }

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
