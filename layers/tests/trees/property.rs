//! The promise: a changeset applied to the state before gives the state after.

use std::path::Path;

use kfactory_layers::diff::{CaptureOptions, Change, Snapshot, diff_walk};
use proptest::prelude::*;

use crate::support::{
    Op, any_op, apply_to, archive, assert_same, cases, copy_tree, describe, open, perform, skip,
    unprivileged,
};

fn script(root: &Path, ops: &[Op], start: i64) {
    for (number, op) in (start..).zip(ops) {
        perform(root, op, number);
    }
}

#[test]
fn a_changeset_applied_to_the_state_before_gives_the_state_after() {
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    let ops = || prop::collection::vec(any_op(), 0..60);
    let outcome = cases(150).run(&(ops(), ops()), |(before, after)| {
        round_trip(&before, &after);
        Ok(())
    });
    outcome.expect("every tree survives");
}

fn round_trip(before: &[Op], after: &[Op]) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let dir = |name: &str| {
        let path = scratch.path().join(name);
        std::fs::create_dir(&path).expect("a directory");
        path
    };
    let (tree, copy, base) = (dir("tree"), dir("copy"), dir("base"));
    let empty = Snapshot::take(&open(&tree), &|_| false).expect("a snapshot");
    script(&tree, before, 0);

    let options = CaptureOptions::default();
    let changes = diff_walk(&empty, &open(&tree), &options).expect("a changeset");
    apply_to(&base, &archive(&changes, &tree)).expect("a whole tree is a changeset on nothing");
    assert_same(&describe(&base), &describe(&tree));

    copy_tree(&tree, &copy);
    let snapshot = Snapshot::take(&open(&tree), &|_| false).expect("a snapshot");
    script(&tree, after, 1000);
    let reference = open(&copy);
    let options = CaptureOptions {
        reference: Some(&reference),
        ..options
    };
    let changes = diff_walk(&snapshot, &open(&tree), &options).expect("a changeset");
    apply_to(&base, &archive(&changes, &tree)).expect("the changeset fits");
    assert_same(&describe(&base), &describe(&tree));
    assert_directory_times(&changes, &base);
}

/// Directories that are part of a changeset have their times too.
fn assert_directory_times(changes: &[Change], root: &Path) {
    use std::os::unix::fs::MetadataExt;
    for change in changes {
        let Change::Upsert(entry) = change else {
            continue;
        };
        let meta = root
            .join(&entry.path)
            .symlink_metadata()
            .expect("an object that was just made");
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (entry.mtime.secs, entry.mtime.nanos.into()),
            "{:?}",
            entry.path
        );
    }
}
