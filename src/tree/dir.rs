//! A tree from a directory of this machine: an unpacked root filesystem, or an overlay of one.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kfactory_layers::metadata::{Device, Timestamp};
use kfactory_layers::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Content, FileNode, Kind, Names, Node, Source, Tree};
use crate::error::{Context as _, Error, Result};

/// Deeper trees are no root filesystems; each level takes an open descriptor and some stack.
const MAX_DEPTH: usize = 200;

/// Reads the names and metadata of everything below `dir`; contents are read from there when somebody asks for them.
///
/// Extended attributes are left out. What the kernel shows of itself (a mounted /proc, /sys) is not looked into. Links are never followed, so nothing outside `dir` is looked at.
///
/// # Errors
///
/// Something may not be read, or the tree is more than 200 directories deep.
pub fn of_dir(dir: &Path) -> Result<Tree> {
    let root = Root::open(dir)?;
    let doing = || format!("reading {}", dir.display());
    let stat = rustix::fs::fstat(&root).context(doing)?;
    let names = read(&root, dir, 0).map_err(|error| error.context(doing()))?;
    let top = node(&stat, Kind::Directory(names));
    Ok(Tree {
        top,
        source: Source::Dir(root),
    })
}

/// Reads the directory `dir`, which is at `path`.
fn read(dir: impl AsFd, path: &Path, depth: usize) -> Result<Names> {
    if depth > MAX_DEPTH {
        return Err(Error::user(format!(
            "it is more than {MAX_DEPTH} directories deep"
        )));
    }
    let failed = |errno| unreadable(path, errno);
    let mut names = Names::new();
    for entry in rustix::fs::Dir::read_from(dir.as_fd()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let found = read_one(dir.as_fd(), name, &path.join(name), depth)?;
        names.insert(name.to_owned(), found);
    }
    Ok(names)
}

/// Says in one line what could not be read, and who could.
fn unreadable(path: &Path, errno: Errno) -> Error {
    let cause = std::io::Error::from(errno);
    let error = Error::user(format!("{}: {cause}", path.display()));
    match errno {
        Errno::ACCESS | Errno::PERM => error.hint(
            "files of other owners are closed to this user: run it as root, or on the image that the tree was made of",
        ),
        _ => error,
    }
}

/// Reads what is called `name` in `dir`; it is at `path`.
fn read_one(dir: impl AsFd, name: &OsStr, path: &Path, depth: usize) -> Result<Node> {
    let failed = |errno| unreadable(path, errno);
    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let device = Device {
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(failed)?;
            Kind::Directory(if is_kernels_own(&child)? {
                Names::new()
            } else {
                read(child, path, depth + 1)?
            })
        }
        FileType::RegularFile => Kind::File(FileNode {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            id: stat.st_ino,
            digest: None,
            content: Content::InPlace,
        }),
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&dir, name, Vec::new()).map_err(failed)?;
            Kind::Symlink(OsStr::from_bytes(target.to_bytes()).into())
        }
        FileType::CharacterDevice => Kind::CharDevice(device),
        FileType::BlockDevice => Kind::BlockDevice(device),
        _ => Kind::Pipe,
    };
    Ok(node(&stat, kind))
}

/// Tells whether a directory is on a file system whose files nobody wrote. Spec: statfs(2).
pub(crate) fn is_kernels_own(dir: impl AsFd) -> Result<bool> {
    const PROC: i64 = 0x9fa0;
    const SYSFS: i64 = 0x6265_6572;
    const DEVPTS: i64 = 0x1cd1;
    const MQUEUE: i64 = 0x1980_0202;
    const CGROUP: i64 = 0x0027_e0eb;
    const CGROUP2: i64 = 0x6367_7270;
    let kind = rustix::fs::fstatfs(dir)?.f_type;
    Ok([PROC, SYSFS, DEVPTS, MQUEUE, CGROUP, CGROUP2].contains(&kind))
}

fn node(stat: &rustix::fs::Stat, kind: Kind) -> Node {
    Node {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            secs: stat.st_mtime,
            nanos: stat.st_mtime_nsec as u32,
        },
        xattrs: None,
        layer: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_with_its_links_and_contents_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/a")).unwrap();
        std::fs::write(dir.path().join("etc/a/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/a/file", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("out")).unwrap();
        let tree = of_dir(dir.path()).unwrap();
        assert_eq!(tree.text("link").unwrap().as_deref(), Some("text"));
        assert!(!tree.has("out"), "the host's file is not in the tree");
        let size = tree.find("etc/a/file").unwrap().node.file().unwrap().size;
        assert_eq!(size, 4);
    }

    #[test]
    fn what_the_kernel_shows_of_itself_is_not_read() {
        let proc = std::fs::File::open("/proc").unwrap();
        let etc = std::fs::File::open("/etc").unwrap();
        assert!(is_kernels_own(proc).unwrap() && !is_kernels_own(etc).unwrap());
    }

    #[test]
    fn what_may_not_be_read_is_one_path_with_who_may() {
        let said = unreadable(Path::new("rootfs/etc/closed"), Errno::ACCESS).render_text();
        assert!(
            said.starts_with("error: rootfs/etc/closed: Permission denied"),
            "{said}"
        );
        assert!(
            said.contains("hint: ") && said.contains("as root"),
            "{said}"
        );
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = of_dir(Path::new("/nonexistent/tree")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tree"), "{error}");
    }
}
