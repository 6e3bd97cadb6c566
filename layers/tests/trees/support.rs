//! Describing a tree, changing it at random, and asking what this machine permits.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kfactory_layers::apply::{Applied, ApplyError, ApplyOptions, apply};
use kfactory_layers::diff::{CaptureOptions, Change, write_changeset};
use kfactory_layers::root::Root;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Everything that must survive a layer, of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Not for directories, whose time alone is no change.
    mtime: Option<(i64, i64)>,
    rdev: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same object.
    first_name: PathBuf,
}

pub(crate) type Tree = BTreeMap<PathBuf, Described>;

/// Describes the tree at `root`, the root itself left out, with other means than the crate's own.
pub(crate) fn describe(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let entry = entry.expect("a readable tree");
        let path = entry
            .path()
            .strip_prefix(root)
            .expect("below the root")
            .to_owned();
        let meta = entry.path().symlink_metadata().expect("metadata");
        let kind = meta.file_type();
        let (kind, content) = if kind.is_file() {
            ("file", fs::read(entry.path()).expect("content"))
        } else if kind.is_dir() {
            ("directory", Vec::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path()).expect("target");
            ("symlink", target.into_os_string().into_vec())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else if kind.is_char_device() {
            ("char", Vec::new())
        } else if kind.is_block_device() {
            ("block", Vec::new())
        } else {
            continue;
        };
        let id = (meta.dev(), meta.ino());
        let first_name = names.entry(id).or_insert_with(|| path.clone()).clone();
        let device = matches!(kind, "char" | "block");
        let described = Described {
            kind,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (kind != "directory").then(|| (meta.mtime(), meta.mtime_nsec())),
            rdev: if device { meta.rdev() } else { 0 },
            content,
            xattrs: xattrs(entry.path()),
            first_name,
        };
        tree.insert(path, described);
    }
    tree
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let names = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let len =
            rustix::fs::lgetxattr(path, name, value.as_mut_slice()).expect("a listed attribute");
        (name.to_vec(), value[..len].to_vec())
    };
    names.map(read).collect()
}

/// Fails with the paths that differ, not with two whole trees.
pub(crate) fn assert_same(found: &Tree, expected: &Tree) {
    for (path, node) in expected {
        assert_eq!(found.get(path), Some(node), "{path:?}");
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{path:?} should not be there");
    }
}

/// Returns why trees with foreign owners cannot be made here, if so. Device nodes are left out of the trees where they cannot be made.
pub(crate) fn unprivileged() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("skipped: not root, nor in a user namespace");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let owner = std::os::unix::fs::lchown(dir.path(), Some(3_000_000), Some(3_000_000));
    owner
        .is_err()
        .then_some("skipped: owner 3000000 may not be given")
}

/// Says why a test did not run.
pub(crate) fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "{why}");
}

/// Returns whether a program is there, and says so if not.
pub(crate) fn has_program(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        skip(&format!("skipped: `{name}` is not installed"));
    }
    found
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("a program to run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output.stdout
}

pub(crate) fn open(path: &Path) -> Root {
    Root::open(path).expect("a directory")
}

pub(crate) fn apply_to(path: &Path, archive: &[u8]) -> Result<Applied, ApplyError> {
    apply(&open(path), archive, &ApplyOptions::default())
}

pub(crate) fn archive(changes: &[Change], root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_changeset(changes, &open(root), &CaptureOptions::default(), &mut bytes)
        .expect("an archive");
    bytes
}

/// Makes a copy of a tree with everything that belongs to it.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

/// Returns a runner of `count` cases; `PROPTEST_CASES` asks for another number.
pub(crate) fn cases(count: u32) -> TestRunner {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    TestRunner::new(Config {
        cases: asked.unwrap_or(count),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    })
}

/// One random change of a tree. Paths are numbers into a small set, so that changes meet.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    File {
        path: usize,
        size: usize,
        owner: usize,
        mode: u32,
    },
    Sparse {
        path: usize,
    },
    Append {
        path: usize,
    },
    Rewrite {
        path: usize,
    },
    Directory {
        path: usize,
        mode: u32,
    },
    Symlink {
        path: usize,
        target: usize,
    },
    HardLink {
        from: usize,
        path: usize,
    },
    Device {
        path: usize,
    },
    Fifo {
        path: usize,
    },
    Xattr {
        path: usize,
        name: usize,
    },
    Mode {
        path: usize,
        mode: u32,
    },
    Owner {
        path: usize,
        owner: usize,
    },
    Time {
        path: usize,
        time: usize,
    },
    Remove {
        path: usize,
    },
    RemoveTree {
        path: usize,
    },
    Rename {
        from: usize,
        path: usize,
    },
    Touch {
        path: usize,
    },
}

impl Op {
    /// Returns whether this would give a link or device node another name.
    pub(crate) fn links_a_special(&self, root: &Path) -> bool {
        let Self::HardLink { from, .. } = self else {
            return false;
        };
        let found = root.join(path_of(*from)).symlink_metadata();
        found.is_ok_and(|found| !found.is_file())
    }
}

const PATHS: usize = 70;
const OWNERS: [(u32, u32); 4] = [(0, 0), (3_000_000, 3_000_000), (1000, 100), (0, 42)];
const TIMES: [(i64, i64); 5] = [
    (-2, 500_000_000),
    (0, 0),
    (1_700_000_000, 123_456_789),
    (8_589_934_592, 1),
    (-86_400, 0),
];

/// A valid capability set in the form of the kernel, one byte of which is a line feed.
pub(crate) const CAPABILITY: [u8; 20] =
    [1, 0, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let path = || 0..PATHS;
    let mode = || prop::sample::select(vec![0o644, 0o4755, 0o2755, 0o1777, 0o600, 0o000]);
    prop_oneof![
        6 => (path(), 0usize..3000, 0..OWNERS.len(), mode()).prop_map(|(path, size, owner, mode)| Op::File { path, size, owner, mode }),
        7 => (path(), mode()).prop_map(|(path, mode)| Op::Directory { path, mode }),
        3 => (path(), path()).prop_map(|(path, target)| Op::Symlink { path, target }),
        4 => (path(), path()).prop_map(|(from, path)| Op::HardLink { from, path }),
        3 => (path(), 0..3usize).prop_map(|(path, name)| Op::Xattr { path, name }),
        2 => (path(), mode()).prop_map(|(path, mode)| Op::Mode { path, mode }),
        2 => (path(), 0..OWNERS.len()).prop_map(|(path, owner)| Op::Owner { path, owner }),
        2 => (path(), 0..TIMES.len()).prop_map(|(path, time)| Op::Time { path, time }),
        3 => path().prop_map(|path| Op::Remove { path }),
        2 => path().prop_map(|path| Op::RemoveTree { path }),
        2 => (path(), path()).prop_map(|(from, path)| Op::Rename { from, path }),
        1 => path().prop_map(|path| Op::Device { path }),
        1 => path().prop_map(|path| Op::Fifo { path }),
        1 => path().prop_map(|path| Op::Sparse { path }),
        1 => path().prop_map(|path| Op::Append { path }),
        1 => path().prop_map(|path| Op::Rewrite { path }),
        1 => path().prop_map(|path| Op::Touch { path }),
    ]
}

/// Names repeat on every level, and a parent's number is smaller than its children's.
fn path_of(number: usize) -> PathBuf {
    let mut path = PathBuf::new();
    let mut rest = number;
    loop {
        path.push(match rest % 6 {
            0 => OsString::from("a"),
            1 => OsString::from("b"),
            2 => OsString::from("a.b"),
            3 => OsString::from_vec(b"\xff\xfe".to_vec()),
            4 => OsString::from("l".repeat(255)),
            _ => OsString::from("new\nline"),
        });
        rest /= 6;
        if rest == 0 {
            return path;
        }
    }
}

/// Does `op` in `root` where it is possible. `number` makes times and contents differ between operations.
pub(crate) fn perform(root: &Path, op: &Op, number: i64) {
    let at = |path: &usize| root.join(path_of(*path));
    let _ = attempt(op, number, at);
}

fn attempt(op: &Op, number: i64, at: impl Fn(&usize) -> PathBuf) -> std::io::Result<()> {
    match op {
        Op::File {
            path,
            size,
            owner,
            mode,
        } => {
            let path = at(path);
            let _ = fs::remove_file(&path);
            fs::write(&path, vec![number as u8; *size])?;
            finish(&path, number, OWNERS[*owner], *mode)
        }
        Op::Sparse { path } => {
            let path = at(path);
            let _ = fs::remove_file(&path);
            let file = fs::File::create(&path)?;
            file.set_len(300_000)?;
            std::os::unix::fs::FileExt::write_all_at(&file, b"data", 200_000)?;
            finish(&path, number, OWNERS[0], 0o644)
        }
        Op::Append { path } => {
            let path = regular(at(path))?;
            fs::OpenOptions::new()
                .append(true)
                .open(&path)?
                .write_all(b"more")?;
            set_time(&path, (number, 0))
        }
        Op::Rewrite { path } => {
            // As a careless tool would: other content, same size, same time.
            let path = regular(at(path))?;
            let meta = path.symlink_metadata()?;
            let size = fs::read(&path)?.len();
            fs::OpenOptions::new()
                .write(true)
                .open(&path)?
                .write_all(&vec![number as u8; size])?;
            set_time(&path, (meta.mtime(), meta.mtime_nsec()))
        }
        Op::Directory { path, mode } => {
            let path = at(path);
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode))
        }
        Op::Symlink { path, target } => {
            std::os::unix::fs::symlink(path_of(*target), at(path))?;
            set_time(&at(path), (number, 5))
        }
        Op::HardLink { from, path } => fs::hard_link(at(from), at(path)),
        Op::Device { path } => node(&at(path), FileType::CharacterDevice, number),
        Op::Fifo { path } => node(&at(path), FileType::Fifo, number),
        Op::Xattr { path, name } => {
            let (name, value): (&str, &[u8]) = [
                ("user.a", &b"\n=\0\xff"[..]),
                ("user.b=c%", b""),
                ("security.capability", &CAPABILITY),
            ][*name];
            Ok(rustix::fs::lsetxattr(
                at(path),
                name,
                value,
                XattrFlags::empty(),
            )?)
        }
        Op::Mode { path, mode } => {
            let path = at(path);
            if path.symlink_metadata()?.is_symlink() {
                return Ok(());
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        }
        Op::Owner { path, owner } => {
            let (uid, gid) = OWNERS[*owner];
            std::os::unix::fs::lchown(at(path), Some(uid), Some(gid))
        }
        Op::Time { path, time } => set_time(&at(path), TIMES[*time]),
        Op::Remove { path } => fs::remove_file(at(path)).or_else(|_| fs::remove_dir(at(path))),
        Op::RemoveTree { path } => fs::remove_dir_all(at(path)),
        Op::Rename { from, path } => fs::rename(at(from), at(path)),
        Op::Touch { path } => {
            // Changes nothing, but makes overlayfs copy the file up.
            let path = at(path);
            let meta = path.symlink_metadata()?;
            set_time(&path, (meta.mtime(), meta.mtime_nsec()))
        }
    }
}

/// Opening a named pipe would wait for ever.
fn regular(path: PathBuf) -> std::io::Result<PathBuf> {
    match path.symlink_metadata()?.is_file() {
        true => Ok(path),
        false => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

fn node(path: &Path, kind: FileType, number: i64) -> std::io::Result<()> {
    let device = if kind == FileType::Fifo {
        0
    } else {
        rustix::fs::makedev(1, 3)
    };
    rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, device)?;
    finish(path, number, OWNERS[1], 0o666)
}

fn finish(path: &Path, number: i64, owner: (u32, u32), mode: u32) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    set_time(path, (1_000_000 + number, 7))
}

pub(crate) fn set_time(path: &Path, (secs, nanos): (i64, i64)) -> std::io::Result<()> {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Returns `text` as a path.
pub(crate) fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text))
}
