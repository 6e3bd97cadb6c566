//! Trees as deep as they may be, and deeper, on the smallest stack that a thread has.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kfactory_layers::apply::{Applied, ApplyError, ApplyOptions, Ownership, apply};
use kfactory_layers::diff::{
    CaptureOptions, Snapshot, capture_upper, capture_walk, diff_upper, diff_walk,
};
use kfactory_layers::limits::{MAX_DEPTH, MAX_PATH_BYTES};
use kfactory_layers::metadata::{Entry, EntryKind};
use kfactory_layers::tar::ArchiveWriter;
use rustix::fs::{CWD, Mode, OFlags};

use crate::support::{assert_same, describe, open};

/// Half of what a thread has that says nothing of its stack, in bytes.
const STACK: usize = 1 << 20;

const TOO_DEEP: &str = "more than 256 directories deep";

fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("no panic");
    });
}

fn scratch() -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = scratch.path().to_owned();
    let make = move |name: &str| {
        let path = path.join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    };
    (scratch, make)
}

/// Makes `depth` directories inside one another below `top`, step by step as the path may be longer than a path can be.
fn nest(top: &Path, name: &str, depth: usize) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut fd = rustix::fs::openat(CWD, top, flags, Mode::empty()).expect("a directory");
    for _ in 0..depth {
        rustix::fs::mkdirat(&fd, name, Mode::RWXU).expect("a directory");
        fd = rustix::fs::openat(&fd, name, flags, Mode::empty()).expect("a directory");
    }
    fd
}

/// Makes a file inside `depth` directories.
fn deep_file(top: &Path, depth: usize) {
    let dir = nest(top, "d", depth);
    let flags = OFlags::WRONLY | OFlags::CREATE;
    rustix::fs::openat(&dir, "file", flags, Mode::RUSR).expect("a file");
}

fn layer(entries: &[(PathBuf, EntryKind)]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for (path, kind) in entries {
        let entry = Entry::new(path, kind.clone());
        archive.append(&entry, std::io::empty()).expect("an entry");
    }
    archive.finish().expect("an archive")
}

/// As whoever runs the test may, root or not.
fn apply_to(root: &Path, bytes: &[u8]) -> Result<Applied, ApplyError> {
    let options = ApplyOptions {
        ownership: Ownership::AsFarAsAllowed,
        ..ApplyOptions::default()
    };
    apply(&open(root), bytes, &options)
}

/// Returns how many open files this process has below `dir`.
fn open_below(dir: &Path) -> usize {
    let files = fs::read_dir("/proc/self/fd").expect("procfs").flatten();
    files
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(dir))
        .count()
}

fn file(path: impl AsRef<OsStr>) -> (PathBuf, EntryKind) {
    (PathBuf::from(path.as_ref()), EntryKind::File { size: 0 })
}

#[test]
fn a_tree_as_deep_as_allowed_is_captured_and_applied() {
    let (_scratch, dir) = scratch();
    let (tree, copy) = (dir("tree"), dir("copy"));
    deep_file(&tree, MAX_DEPTH);
    on_a_small_stack(|| {
        let mut bytes = Vec::new();
        let options = CaptureOptions::default();
        capture_walk(&Snapshot::empty(), &open(&tree), &options, &mut bytes).expect("captured");
        apply_to(&copy, &bytes).expect("applied");
        let taken = Snapshot::take(&open(&tree), &|_| false).expect("taken");
        assert_eq!(
            diff_walk(&taken, &open(&tree), &options).expect("compared"),
            []
        );
    });
    assert_same(&describe(&copy), &describe(&tree));
}

#[test]
fn a_deep_tree_that_several_layers_share_is_captured_with_few_open_files() {
    let (scratch, dir) = scratch();
    let (upper, copy) = (dir("upper"), dir("copy"));
    let lowers: Vec<_> = (0..8)
        .map(|number| dir(&format!("lower{number}")))
        .collect();
    for tree in lowers.iter().chain([&upper]) {
        deep_file(tree, MAX_DEPTH);
    }
    let scratch = fs::canonicalize(scratch.path()).expect("a directory");
    let most = Cell::new(0);
    let options = CaptureOptions {
        exclude: &|_| {
            most.set(most.get().max(open_below(&scratch)));
            false
        },
        ..CaptureOptions::default()
    };
    let mut bytes = Vec::new();
    capture_upper(&upper, &lowers, &options, &mut bytes).expect("captured");
    apply_to(&copy, &bytes).expect("applied");
    let each = 2 * (lowers.len() + 1);
    assert!(most.get() <= each, "{} open files", most.get());
}

#[test]
fn a_deeper_tree_is_captured_in_no_way() {
    let (_scratch, dir) = scratch();
    let tree = dir("tree");
    for depth in [MAX_DEPTH + 1, 1500, 3000] {
        fs::create_dir_all(&tree).expect("a directory");
        deep_file(&tree, depth);
        on_a_small_stack(|| {
            let root = open(&tree);
            let options = CaptureOptions::default();
            let errors = [
                Snapshot::take(&root, &|_| false).map(drop).unwrap_err(),
                diff_walk(&Snapshot::empty(), &root, &options)
                    .map(drop)
                    .unwrap_err(),
                diff_upper(&tree, &[], &options).map(drop).unwrap_err(),
            ];
            for error in errors {
                assert!(error.to_string().contains(TOO_DEEP), "{error}");
                assert!(error.to_string().contains("\"d/d/d/d\""), "{error}");
            }
        });
        rustix::fs::renameat(CWD, &tree, CWD, tree.with_file_name(depth.to_string()))
            .expect("out of the way");
    }
    // The tests' own way to remove a directory may not be up to what is in this one.
    let top = tree.parent().expect("a parent");
    open(top).remove_all("1500").expect("removed");
    open(top).remove_all("3000").expect("removed");
}

#[test]
fn a_tree_whose_paths_no_lookup_takes_is_not_captured() {
    let (_scratch, dir) = scratch();
    let tree = dir("tree");
    nest(&tree, &"n".repeat(200), MAX_PATH_BYTES / 200 + 1);
    let options = CaptureOptions::default();
    let error = diff_walk(&Snapshot::empty(), &open(&tree), &options).unwrap_err();
    assert!(
        error.to_string().contains("longer than 4095 bytes"),
        "{error}"
    );
}

#[test]
fn what_is_at_the_longest_path_can_be_hidden() {
    // 4000 bytes of directories, and the rest in one name.
    let dirs = PathBuf::from(("n".repeat(199) + "/").repeat(20));
    let name = |first: &str| dirs.join(first.to_owned() + &"f".repeat(MAX_PATH_BYTES - 4001));
    let all = [name("a"), name("b")];
    for gone in [&all[..1], &all] {
        let (_scratch, dir) = scratch();
        let (tree, copy) = (dir("tree"), dir("copy"));
        let entries = all.clone().map(file);
        apply_to(&tree, &layer(&entries)).expect("applied");
        apply_to(&copy, &layer(&entries)).expect("applied");
        let before = Snapshot::take(&open(&tree), &|_| false).expect("taken");
        for path in gone {
            assert!(open(&tree).remove_file(path).expect("removed"));
        }
        let mut bytes = Vec::new();
        let options = CaptureOptions::default();
        capture_walk(&before, &open(&tree), &options, &mut bytes).expect("captured");
        apply_to(&copy, &bytes).expect("applied");
        let left = open(&copy).read_dir(&dirs).expect("a directory");
        assert_eq!(left.len(), all.len() - gone.len());
    }
}

#[test]
fn entries_deeper_than_allowed_are_refused_for_their_depth() {
    let (_scratch, dir) = scratch();
    let deep = "d/".repeat(MAX_DEPTH + 1) + "file";
    let link = (
        PathBuf::from("l"),
        EntryKind::Symlink {
            target: "d/".repeat(200).into(),
        },
    );
    let cases = [
        vec![file(&deep)],
        // The path is short, the place is not.
        vec![
            link.clone(),
            file("d/".repeat(200) + "file"),
            file("l/".to_owned() + &"e/".repeat(100) + "file"),
        ],
        // Here the directories are made only where the link says that they are.
        vec![link, file("l/".to_owned() + &"e/".repeat(100) + "file")],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let root = dir(&number.to_string());
        on_a_small_stack(|| {
            let error = apply_to(&root, &layer(entries));
            let error = error.expect_err("too deep");
            assert!(matches!(error, ApplyError::Limit(_)), "{number}: {error:?}");
            assert!(error.to_string().contains(TOO_DEEP), "{error}");
        });
    }
}

#[test]
fn a_whiteout_looks_through_a_tree_as_deep_as_allowed() {
    let (_scratch, dir) = scratch();
    let root = dir("root");
    let deep = "d/".repeat(MAX_DEPTH);
    on_a_small_stack(|| {
        apply_to(&root, &layer(&[file(deep.clone() + "file")])).expect("applied");
        let next = layer(&[file(deep.clone() + "new"), file(".wh.d")]);
        apply_to(&root, &next).expect("applied");
    });
    assert!(root.join(deep.clone() + "new").exists() && !root.join(deep + "file").exists());
}
