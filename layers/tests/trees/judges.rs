//! Other programs as judges: GNU tar reads what we write, and unpacks as we unpack; umoci makes the same rootfs of the same layers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kfactory_layers::diff::{CaptureOptions, Snapshot, diff_walk};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{
    Op, any_op, apply_to, archive, assert_same, describe, has_program, open, perform, run, skip,
    unprivileged,
};

/// Makes a tree by always the same few hundred changes; returns its directory.
fn busy_tree(scratch: &Path, allowed: impl Fn(&Op) -> bool) -> PathBuf {
    let tree = scratch.join("tree");
    std::fs::create_dir(&tree).expect("a directory");
    change(&tree, 0, allowed);
    tree
}

fn change(tree: &Path, start: i64, allowed: impl Fn(&Op) -> bool) {
    let mut runner = TestRunner::deterministic();
    for number in start..start + 400 {
        let op = any_op()
            .new_tree(&mut runner)
            .expect("an operation")
            .current();
        let destroys = matches!(op, Op::RemoveTree { .. } | Op::Remove { .. }) && number % 3 != 0;
        if !destroys && allowed(&op) {
            perform(tree, &op, number);
        }
    }
}

fn directory(scratch: &Path, name: &str) -> PathBuf {
    let path = scratch.join(name);
    std::fs::create_dir(&path).expect("a directory");
    path
}

/// Captures the changes of `tree` since `before`.
fn captured(before: &Snapshot, tree: &Path) -> Vec<u8> {
    let changes = diff_walk(before, &open(tree), &CaptureOptions::default()).expect("a changeset");
    archive(&changes, tree)
}

fn nothing(scratch: &Path) -> Snapshot {
    let empty = directory(scratch, "empty");
    Snapshot::take(&open(&empty), &|_| false).expect("a snapshot")
}

fn gnu_tar(arguments: &[&str], archive: &Path, dir: &Path) {
    let mut command = Command::new("tar");
    command
        .args(arguments)
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-f"])
        .arg(archive)
        .arg("-C")
        .arg(dir);
    if arguments.contains(&"-c") {
        command.arg(".");
    }
    run(&mut command);
}

#[test]
fn gnu_tar_unpacks_our_archives_as_we_do() {
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    if !has_program("tar") {
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let tree = busy_tree(scratch.path(), |_| true);
    let bytes = captured(&nothing(scratch.path()), &tree);
    let file = scratch.path().join("ours.tar");
    std::fs::write(&file, &bytes).expect("a file");
    let theirs = directory(scratch.path(), "theirs");
    gnu_tar(&["-x", "-p"], &file, &theirs);
    assert!(
        describe(&tree).len() > 40,
        "the tree is too small to say much"
    );
    assert_same(&describe(&theirs), &describe(&tree));
}

#[test]
fn we_unpack_archives_of_gnu_tar_as_it_does() {
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    if !has_program("tar") {
        return;
    }
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=pax"],
        &["--format=ustar"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        // Ustar has no room for the long names, high owners and late times that the others carry.
        let ustar = format.contains(&"--format=ustar");
        let tree = scratch.path().join("tree");
        if ustar {
            std::fs::create_dir_all(tree.join("usr/bin")).expect("a directory");
            std::fs::write(tree.join("usr/bin").join("x".repeat(90)), "x").expect("a file");
            std::fs::create_dir(tree.join("p".repeat(99))).expect("a directory");
            std::fs::write(tree.join("p".repeat(99)).join("y".repeat(90)), "y").expect("a file");
        } else {
            busy_tree(scratch.path(), |_| true);
            many_holes(&tree.join("holes"));
        }
        let file = scratch.path().join("theirs.tar");
        let mut arguments = format.to_vec();
        arguments.push("-c");
        if ustar {
            // Without attributes, which need PAX.
            run(Command::new("tar")
                .args(&arguments)
                .arg("-f")
                .arg(&file)
                .arg("-C")
                .arg(&tree)
                .arg("."));
        } else if format.contains(&"--format=gnu") {
            run(Command::new("tar")
                .args(&arguments)
                .arg("--numeric-owner")
                .arg("-f")
                .arg(&file)
                .arg("-C")
                .arg(&tree)
                .arg("."));
        } else {
            gnu_tar(&arguments, &file, &tree);
        }
        let theirs = directory(scratch.path(), "theirs");
        gnu_tar(&["-x", "-p"], &file, &theirs);
        let ours = directory(scratch.path(), "ours");
        apply_to(&ours, &std::fs::read(&file).expect("an archive")).expect("an archive of GNU tar");
        assert_same(&describe(&ours), &describe(&theirs));
        if format.contains(&"--sparse") {
            assert_holes(&ours.join("holes"));
        }
    }
}

/// More regions than fit in one header, or in one block of a map.
fn many_holes(path: &Path) {
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(100 << 16).expect("a size");
    for number in 0..99u64 {
        let bytes = [number as u8 + 1; 4096];
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, number << 16).expect("a region");
    }
}

fn assert_holes(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let meta = path.metadata().expect("there");
    assert!(
        meta.blocks() * 512 < meta.len() / 4,
        "the holes were filled: {} of {}",
        meta.blocks() * 512,
        meta.len()
    );
}

#[test]
fn umoci_makes_the_same_rootfs_of_the_same_layers() {
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    if !has_program("umoci") {
        return;
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    // Go's archive reader takes an attribute without a value for one that is not there, and does not know the escape for `=`.
    let allowed = |op: &Op| !matches!(op, Op::Xattr { name: 1, .. });
    let tree = busy_tree(scratch.path(), allowed);
    let base = captured(&nothing(scratch.path()), &tree);
    let before = Snapshot::take(&open(&tree), &|_| false).expect("a snapshot");
    change(&tree, 1000, |op| {
        allowed(op) && !matches!(op, Op::Directory { .. })
    });
    let changes = captured(&before, &tree);

    let ours = directory(scratch.path(), "ours");
    apply_to(&ours, &base).expect("the base");
    apply_to(&ours, &changes).expect("the changeset");
    assert_same(&describe(&ours), &describe(&tree));

    let layout = scratch.path().join("layout");
    let image = format!("{}:tag", layout.display());
    let umoci =
        |arguments: &[&str]| run(Command::new("umoci").args(arguments).stdin(Stdio::null()));
    umoci(&["init", "--layout", &layout.display().to_string()]);
    umoci(&["new", "--image", &image]);
    for (name, bytes) in [("base.tar", &base), ("changes.tar", &changes)] {
        let file = scratch.path().join(name);
        std::fs::write(&file, bytes).expect("a file");
        umoci(&[
            "raw",
            "add-layer",
            "--image",
            &image,
            &file.display().to_string(),
        ]);
    }
    let theirs = scratch.path().join("theirs");
    umoci(&[
        "raw",
        "unpack",
        "--image",
        &image,
        &theirs.display().to_string(),
    ]);
    assert_same(&describe(&theirs), &describe(&ours));
}
