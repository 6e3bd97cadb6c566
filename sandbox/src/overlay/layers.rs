//! The directories of an overlay under names the kernel takes, and the two ways to hand them over.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use super::{MountError, failed};

/// The longest string `fsconfig` takes, without its end (`strndup_user(_, 256)`).
const MAX_FSCONFIG_BYTES: usize = 255;

/// The longest option string mount(2) takes, without its end: one page of the smallest size.
pub(super) const MAX_OPTION_BYTES: usize = 4095;

/// Options of every overlay: what a captured upperdir must not depend on stays off, whatever the kernel's defaults are.
///
/// `userxattr`, without which a user namespace may not mount, turns `redirect_dir` and `metacopy` off by itself and refuses to
/// have them named, so a rename of a lower directory is a copy, and a changed owner copies the file.
const OPTIONS: [(&str, &str); 2] = [("index", "off"), ("xino", "off")];

/// A refusal by the new mount interface.
#[derive(Debug)]
struct Refused {
    /// The kernel knows `lowerdir+` and says what else is wrong, so the old interface has nothing to add.
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
pub(super) struct Layers {
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
    pub(super) fn open(
        lowers: &[PathBuf],
        changes: Option<(&Path, &Path)>,
    ) -> Result<Self, MountError> {
        let lowers = lowers
            .iter()
            .map(|path| Layer::open(path))
            .collect::<Result<_, _>>()?;
        let changes = changes
            .map(|(upper, work)| Ok((Layer::open(upper)?, Layer::open(work)?)))
            .transpose()?;
        Ok(Self { lowers, changes })
    }

    /// Mounts the overlay on `target`.
    pub(super) fn mount(&self, target: &Path) -> Result<(), MountError> {
        // Kernels before 6.5 know fsopen but not `lowerdir+`, kernels before 5.2 neither. Where something else is wrong, the
        // second attempt fails as well and its error counts.
        self.mount_by_fsconfig(target).or_else(|first| {
            self.mount_by_string(target)
                .map_err(|second| first.or(second))
        })
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
            .map_err(|errno| {
                let log = kernel_log(&context);
                refused(
                    !log.is_empty() && !log.contains("nknown parameter"),
                    log,
                    errno,
                )
            })?;
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
    pub(super) fn option_string(&self) -> Result<CString, MountError> {
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

impl Layers {
    /// Returns the open directories, for as long as a name of them is in use.
    pub(super) fn into_fds(self) -> Vec<OwnedFd> {
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
    use std::fs;

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
}
