//! System calls on directory handles, which everything that touches a tree is built from.
//!
//! A directory is reached by handle and a name inside it, never by a joined path, so that no link in an untrusted tree can redirect a call.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::metadata::{FileKind, Metadata, Timestamp, Xattrs};

/// The kernel gives `EAGAIN` when a rename anywhere raced with a contained lookup; more than a few in a row never happen by chance.
const LOOKUP_RETRIES: usize = 64;

/// Directories held open at once while a tree is removed; deeper ones are moved up, since the usual limit is 1024 open files.
const REMOVE_MAX_OPEN: usize = 256;

/// Names are listed in pieces of this size, in bytes.
const LIST_BUFFER: usize = 32 * 1024;

/// The kernel's limit for one attribute value and for a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 64 * 1024;

const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Opens `path` as if `root` were the root directory: links and `..` cannot leave it.
pub(crate) fn open_in_root(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    open_resolved(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` below `root`, refusing (`ELOOP`, `EXDEV`) every symbolic link and every way out.
pub(crate) fn open_plain(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    open_resolved(
        root,
        path,
        flags,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = flags | OFlags::CLOEXEC;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < LOOKUP_RETRIES => tries += 1,
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens the directory `path` in `root`; without read permission, a handle that only serves to look names up.
pub(crate) fn open_dir_in_root(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    match open_in_root(root, path, DIR_FLAGS) {
        Err(Errno::ACCESS) => open_in_root(root, path, OFlags::PATH | OFlags::DIRECTORY),
        result => result,
    }
}

/// Opens the directory `path` below `root`, refusing (`ELOOP`, `EXDEV`) every symbolic link and every way out.
pub(crate) fn open_dir_plain(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    open_plain(root, path, DIR_FLAGS)
}

/// Opens the directory `name` of `dir`, which must not be a link.
pub(crate) fn open_subdir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, DIR_FLAGS | OFlags::NOFOLLOW, Mode::empty())
}

/// Returns the metadata of `name` itself, links not followed; `None` when there is no such name.
pub(crate) fn stat_opt(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Metadata>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Metadata::from_stat(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the metadata of an open file object.
pub(crate) fn stat_fd(fd: impl AsFd) -> Result<Metadata, Errno> {
    rustix::fs::fstat(fd).map(|stat| Metadata::from_stat(&stat))
}

/// Returns the target of the symbolic link `name`, byte for byte.
pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> Result<PathBuf, Errno> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Lists `dir` from its start, without `.` and `..`, sorted by the bytes of the names.
pub(crate) fn list(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, FileKind)>, Errno> {
    // A handle made by `openat` has its own position; seeking lets the same handle be listed twice.
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    // Not on the stack: a caller that lists at every level may have it in each of its frames.
    let mut buffer = Vec::with_capacity(LIST_BUFFER);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((OsString::from_vec(name.to_vec()), entry.file_type()));
        }
    }
    let mut names = Vec::with_capacity(found.len());
    for (name, kind) in found {
        if let Some(kind) = known_kind(dir, &name, kind)? {
            names.push((name, kind));
        }
    }
    names.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(names)
}

/// Some filesystems do not say the kind in a listing; `None` when the name went away since.
fn known_kind(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
) -> Result<Option<FileKind>, Errno> {
    match FileKind::from_raw(kind) {
        Some(kind) => Ok(Some(kind)),
        None => Ok(stat_opt(dir, name)?.map(|found| found.kind)),
    }
}

/// Returns the path of `name` in `dir` for the calls that have no form for directory handles. Needs `/proc`.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    path
}

/// Returns all extended attributes of `name` itself that this process may see; none where the filesystem has none.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Xattrs, Errno> {
    let path = proc_path(dir, name);
    let names = xattr_names(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer))?;
    collect_xattrs(&names, |name, buffer| {
        rustix::fs::lgetxattr(path.as_slice(), name, buffer)
    })
}

/// Returns the names of the extended attributes of an open file object.
pub(crate) fn xattr_names_fd(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let names = xattr_names(|buffer| rustix::fs::flistxattr(fd, buffer))?;
    Ok(split_names(&names).map(<[u8]>::to_vec).collect())
}

fn split_names(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
}

/// Lists into a small buffer first: nearly every file has no attributes at all, or one.
fn xattr_names(list: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match list(&mut small) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; XATTR_MAX];
            let len = list(&mut large)?;
            large.truncate(len);
            Ok(large)
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn collect_xattrs(
    names: &[u8],
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    let mut found = Xattrs::new();
    if names.is_empty() {
        return Ok(found);
    }
    let mut buffer = vec![0; XATTR_MAX];
    for name in split_names(names) {
        match get(name, &mut buffer) {
            Ok(len) => {
                found.insert(name.to_vec(), buffer[..len].to_vec());
            }
            // Removed since, or visible by name only.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Sets the time of the last change of `name` itself, leaving the time of the last access.
pub(crate) fn set_mtime(dir: BorrowedFd<'_>, name: &OsStr, mtime: Timestamp) -> Result<(), Errno> {
    rustix::fs::utimensat(dir, name, &mtime_only(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Returns the argument that sets the time of the last change and nothing else.
pub(crate) fn mtime_only(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: mtime.timespec(),
    }
}

/// Removes `name` and, when it is a directory, everything below it. No such name is success.
///
/// Never follows a link and never leaves `dir`. Depth is bounded by neither the stack nor the number of open files.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    if remove_name(dir, name)? {
        return Ok(());
    }
    let mut open = vec![Emptying::start(dir, name)?];
    let mut hoisted = 0u64;
    while let Some(current) = open.last_mut() {
        let Some(child) = current.todo.pop() else {
            let done = open.pop().expect("the loop just saw it");
            let parent = open.last().map_or(dir, |above| above.fd.as_fd());
            rustix::fs::unlinkat(parent, &done.name, AtFlags::REMOVEDIR)?;
            continue;
        };
        if remove_name(current.fd.as_fd(), &child)? {
            continue;
        }
        if open.len() < REMOVE_MAX_OPEN {
            let next = Emptying::start(open[open.len() - 1].fd.as_fd(), &child)?;
            open.push(next);
        } else {
            hoisted += 1;
            let name = OsString::from(format!("{TEMP_PREFIX}rm.{hoisted}"));
            let from = open[open.len() - 1].fd.as_fd();
            rustix::fs::renameat(from, &child, &open[0].fd, &name)?;
            open[0].todo.push(name);
        }
    }
    Ok(())
}

/// How the names begin that exist only while an operation runs.
pub(crate) const TEMP_PREFIX: &str = ".kfactory-tmp.";

/// A directory that is being emptied.
struct Emptying {
    fd: OwnedFd,
    name: OsString,
    todo: Vec<OsString>,
}

impl Emptying {
    fn start(parent: BorrowedFd<'_>, name: &OsStr) -> Result<Self, Errno> {
        if !rustix::process::geteuid().is_root() {
            // Root passes every mode; an ordinary owner must first be allowed to empty its own directory.
            let _ = rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty());
        }
        let fd = open_subdir(parent, name)?;
        let todo = list(fd.as_fd())?.into_iter().map(|(name, _)| name);
        Ok(Self {
            todo: todo.collect(),
            name: name.to_owned(),
            fd,
        })
    }
}

/// Returns `false` when `name` is a directory, which this does not remove.
fn remove_name(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(error) => match stat_opt(dir, name)? {
            Some(found) if found.is_dir() => Ok(false),
            _ => Err(error),
        },
    }
}

/// Reads until `buffer` is full or the input ends, and returns how many bytes there are.
pub(crate) fn read_full(
    reader: &mut (impl io::Read + ?Sized),
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
