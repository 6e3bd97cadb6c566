//! A tree from a directory of this machine: an unpacked root filesystem, or an overlay of one.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kfactory_layers::limits;
use kfactory_layers::metadata::{Device, Timestamp};
use kfactory_layers::root::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Content, FileNode, Kind, Names, Node, Source, Tree};
use crate::error::{Context as _, Error, Result};

/// Reads the names and metadata of everything below `dir`; contents are read from there when somebody asks for them.
///
/// Extended attributes are left out. What the kernel shows of itself (a mounted /proc, /sys) is not looked into. Links are never followed, so nothing outside `dir` is looked at.
///
/// # Errors
///
/// Something may not be read, or the tree is deeper than one may be ([`limits`]).
pub fn of_dir(dir: &Path) -> Result<Tree> {
    let root = Root::open(dir)?;
    let doing = || format!("reading {}", dir.display());
    let stat = rustix::fs::fstat(&root).context(doing)?;
    let reading = Reading { dir };
    let names = reading
        .names(&root, Path::new(""))
        .map_err(|error| error.context(doing()))?;
    let top = node(&stat, Kind::Directory(names));
    Ok(Tree {
        top,
        source: Source::Dir(root),
    })
}

struct Reading<'a> {
    /// Where the tree is, for messages.
    dir: &'a Path,
}

impl Reading<'_> {
    /// Reads the directory `dir`, which is at `path` in the tree. It stays open while what is below it is read, its listing does not.
    fn names(&self, dir: impl AsFd, path: &Path) -> Result<Names> {
        let failed = |errno| unreadable(&self.dir.join(path), errno);
        let mut names = Names::new();
        for name in list(&dir).map_err(failed)? {
            let path = path.join(&name);
            limits::check(&path).map_err(|error| Error::from_source(&error))?;
            let mut found = self.object(&dir, &name, &path)?;
            if found.is_dir()
                && let Some(child) = self.subdirectory(&dir, &name, &path)?
            {
                found.kind = Kind::Directory(self.names(child, &path)?);
            }
            names.insert(name, found);
        }
        Ok(names)
    }

    /// Opens the directory `name` of `dir`; `None` for one that the kernel makes up.
    fn subdirectory(&self, dir: impl AsFd, name: &OsStr, path: &Path) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = rustix::fs::openat(&dir, name, flags, Mode::empty())
            .map_err(|errno| unreadable(&self.dir.join(path), errno))?;
        Ok((!is_kernels_own(&child)?).then_some(child))
    }

    /// Reads what is called `name` in `dir`, but nothing below it; it is at `path` in the tree.
    fn object(&self, dir: impl AsFd, name: &OsStr, path: &Path) -> Result<Node> {
        let failed = |errno| unreadable(&self.dir.join(path), errno);
        let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let device = Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(Names::new()),
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
}

/// Returns the names in a directory.
fn list(dir: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
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
    fn a_tree_is_read_as_deep_as_it_may_be_and_no_deeper() {
        let dir = tempfile::tempdir().unwrap();
        let mut deepest = dir.path().join("d/".repeat(limits::MAX_DEPTH));
        std::fs::create_dir_all(&deepest).unwrap();
        std::fs::write(deepest.join("file"), "").unwrap();
        std::thread::scope(|scope| {
            // Half of what a thread has that says nothing of its stack.
            let thread = std::thread::Builder::new().stack_size(1 << 20);
            let work = || {
                let mut count = 0;
                of_dir(dir.path()).unwrap().walk("", &mut |_, _| count += 1);
                assert_eq!(count, limits::MAX_DEPTH + 1);
            };
            thread.spawn_scoped(scope, work).unwrap();
        });
        deepest.push("d/d");
        std::fs::create_dir_all(&deepest).unwrap();
        let error = of_dir(dir.path()).unwrap_err().render_text();
        assert!(error.contains("more than 256 directories deep"), "{error}");
        assert!(error.contains("\"d/d/d/d\""), "{error}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = of_dir(Path::new("/nonexistent/tree")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tree"), "{error}");
    }
}
