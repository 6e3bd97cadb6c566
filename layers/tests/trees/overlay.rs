//! The two captures against each other, on the kernel's own overlayfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use kfactory_layers::diff::{
    CaptureOptions, Change, Snapshot, capture_upper, capture_walk, diff_upper, diff_walk,
};
use proptest::prelude::*;

use crate::support::{
    Op, any_op, apply_to, archive, assert_same, cases, copy_tree, describe, open, perform, run,
    skip, unprivileged,
};

/// An overlay mount that goes away with this value.
struct Overlay {
    upper: PathBuf,
    merged: PathBuf,
}

impl Overlay {
    /// Mounts `lowers`, the topmost first, below a new upper directory.
    fn mount(scratch: &Path, name: &str, lowers: &[&Path]) -> Option<Self> {
        let [upper, work, merged] =
            ["upper", "work", "merged"].map(|part| scratch.join(format!("{name}-{part}")));
        for dir in [&upper, &work, &merged] {
            std::fs::create_dir(dir).expect("a directory");
        }
        let lowers: Vec<_> = lowers
            .iter()
            .map(|lower| lower.display().to_string())
            .collect();
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            upper.display(),
            work.display()
        );
        let mount = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then_some(Self { upper, merged })
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Lazily: a program that another test is just starting may hold its copy of a handle until it runs.
        let _ = Command::new("umount").arg("-l").arg(&self.merged).status();
    }
}

/// Returns why overlays cannot be mounted here, if so.
fn unavailable() -> Option<&'static str> {
    if let Some(why) = unprivileged() {
        return Some(why);
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let lower = scratch.path().join("lower");
    std::fs::create_dir(&lower).expect("a directory");
    let mounted = Overlay::mount(scratch.path(), "probe", &[&lower]);
    mounted
        .is_none()
        .then_some("skipped: overlayfs may not be mounted here")
}

fn script(root: &Path, ops: &[Op], start: i64) {
    for (number, op) in (start..).zip(ops) {
        // Only files can carry the note by which a `userxattr` mount shows one number for both names after it copied one up.
        if !op.links_a_special(root) {
            perform(root, op, number);
        }
    }
}

#[test]
fn both_captures_give_the_same_changeset_for_the_same_change() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let ops = || prop::collection::vec(any_op(), 0..50);
    // A mount shows names of one lower file as different files once one of them was copied up, so a walk over it sees other links
    // than there are. Links made on top of single names it shows as they are.
    let single = || {
        ops().prop_map(|mut ops| {
            ops.retain(|op| !matches!(op, Op::HardLink { .. }));
            ops
        })
    };
    let outcome = cases(60).run(&(single(), single(), ops()), |(base, first, second)| {
        compare(&base, &first, &second);
        Ok(())
    });
    outcome.expect("the captures agree");
}

/// Two mounts on top of each other, so that the second has whiteouts and opaque directories in its lower directories.
fn compare(base: &[Op], first: &[Op], second: &[Op]) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let [lower, rebuilt] = ["lower", "rebuilt"].map(|name| scratch.path().join(name));
    std::fs::create_dir(&lower).expect("a directory");
    std::fs::create_dir(&rebuilt).expect("a directory");
    script(&lower, base, 0);
    copy_tree(&lower, &rebuilt);

    let one = step(scratch.path(), "one", &[&lower], first, 1000);
    apply_to(&rebuilt, &one.1).expect("the first changeset fits");
    let two = step(scratch.path(), "two", &[&one.0, &lower], second, 2000);
    apply_to(&rebuilt, &two.1).expect("the second changeset fits");
    assert_same(&describe(&rebuilt), &two.2);
}

/// Runs a script on an overlay; returns its upper directory, the changeset, and the tree after.
fn step(
    scratch: &Path,
    name: &str,
    lowers: &[&Path],
    ops: &[Op],
    start: i64,
) -> (PathBuf, Vec<u8>, crate::support::Tree) {
    let untouched = Overlay::mount(scratch, &format!("{name}-before"), lowers).expect("an overlay");
    let overlay = Overlay::mount(scratch, name, lowers).expect("an overlay");
    let before = Snapshot::take(&open(&overlay.merged), &|_| false).expect("a snapshot");
    script(&overlay.merged, ops, start);

    let reference = open(&untouched.merged);
    let options = CaptureOptions {
        reference: Some(&reference),
        ..CaptureOptions::default()
    };
    let walked = diff_walk(&before, &open(&overlay.merged), &options).expect("a changeset");
    let below: Vec<_> = lowers.iter().map(|lower| lower.to_path_buf()).collect();
    let read = diff_upper(&overlay.upper, &below, &options).expect("a changeset");
    let differs = |a: &[Change], b: &[Change]| {
        a.iter()
            .filter(|change| !b.contains(change))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (only_read, only_walked) = (differs(&read, &walked), differs(&walked, &read));
    assert!(
        read == walked,
        "only in the upper directory: {only_read:#?}\nonly in the walk: {only_walked:#?}"
    );
    let bytes = archive(&read, &overlay.upper);
    assert_eq!(bytes, archive(&walked, &overlay.merged));
    (overlay.upper.clone(), bytes, describe(&overlay.merged))
}

/// Does `change` on an overlay over what `prepare` made, and returns the changes, on which both captures must agree.
fn changes_of(prepare: &[&str], change: &str, exclude: &dyn Fn(&Path) -> bool) -> Vec<Change> {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let lower = scratch.path().join("lower");
    std::fs::create_dir(&lower).expect("a directory");
    let shell = |dir: &Path, script: &str| {
        run(Command::new("sh").args(["-euc", script]).current_dir(dir));
    };
    for script in prepare {
        shell(&lower, script);
    }
    let untouched = Overlay::mount(scratch.path(), "before", &[&lower]).expect("an overlay");
    let overlay = Overlay::mount(scratch.path(), "step", &[&lower]).expect("an overlay");
    let reference = open(&untouched.merged);
    let options = CaptureOptions {
        clamp_mtime: Some(1000),
        exclude,
        reference: Some(&reference),
    };
    let merged = open(&overlay.merged);
    let before = Snapshot::take(&merged, exclude).expect("a snapshot");
    shell(&overlay.merged, change);

    let (mut read, mut walked) = (Vec::new(), Vec::new());
    let summary = capture_upper(
        &overlay.upper,
        std::slice::from_ref(&lower),
        &options,
        &mut read,
    )
    .expect("a capture");
    let other = capture_walk(&before, &merged, &options, &mut walked).expect("a capture");
    assert_eq!(summary, other);
    assert!(read == walked, "the archives differ");
    let changes = diff_upper(&overlay.upper, &[lower], &options).expect("a changeset");
    assert_eq!(summary.entries as usize, changes.len());
    changes
}

fn names(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| {
        let sign = match change {
            Change::Upsert(_) => "+",
            Change::Whiteout(_) => "-",
            Change::OpaqueWhiteout(_) => "*",
        };
        format!("{sign}{}", change.path().display())
    };
    changes.iter().map(name).collect()
}

#[test]
fn only_what_differs_is_in_the_changeset() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let base = "mkdir -p d/e r/x; echo one > d/one; echo two > d/two; echo x > d/e/x; echo y > r/x/y; echo z > r/z; ln d/one d/uno";
    let cases: [(&str, &[&str]); 14] = [
        ("chmod 600 d/two; chmod 644 d/two", &[]),
        ("touch d/new; rm d/new", &[]),
        ("touch d/e", &[]),
        ("cp -a d/two d/t; mv d/t d/two", &[]),
        (
            "t=$(stat -c %y d/two); echo TWO > d/two; touch -d \"$t\" d/two",
            &["+d", "+d/two"],
        ),
        ("rm d/two", &["+d", "-d/two"]),
        ("rm -r r", &["-r"]),
        ("rm -r r/*", &["+r", "*r"]),
        ("rm -r r; mkdir r; echo new > r/a", &["+r", "*r", "+r/a"]),
        ("rm -r d/e; echo file > d/e", &["+d", "+d/e"]),
        (
            "rm d/two; mkdir d/two; echo in > d/two/in",
            &["+d", "+d/two", "+d/two/in"],
        ),
        ("ln d/two d/zwei", &["+d", "+d/two", "+d/zwei"]),
        ("mv d/e r/e", &["+d", "-d/e", "+r", "+r/e", "+r/e/x"]),
        (
            "echo n > d/n; rm d/uno; echo m > d/e/m",
            &["+d", "-d/uno", "+d/e", "+d/e/m", "+d/n"],
        ),
    ];
    for (change, expected) in cases {
        let found = changes_of(&[base], change, &|_| false);
        assert_eq!(names(&found), expected, "{change}");
    }
}

#[test]
fn excluded_paths_leave_no_trace_and_are_never_hidden() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let base = "mkdir -p run etc; echo keep > run/keep; echo a > run/a; echo b > run/b; echo 1 > etc/hosts";
    let exclude = |path: &Path| {
        path == Path::new("run/keep")
            || path == Path::new("etc/resolv.conf")
            || path == Path::new("etc/hosts")
    };
    let cases: [(&str, &[&str]); 4] = [
        ("echo stub > etc/resolv.conf", &[]),
        ("rm etc/hosts; echo changed > run/keep", &[]),
        ("rm run/*", &["+run", "-run/a", "-run/b"]),
        ("rm -r run; mkdir run", &["+run", "-run/a", "-run/b"]),
    ];
    for (change, expected) in cases {
        assert_eq!(
            names(&changes_of(&[base], change, &exclude)),
            expected,
            "{change}"
        );
    }
}

#[test]
fn features_that_move_content_elsewhere_are_refused() {
    if let Some(why) = unavailable() {
        return skip(why);
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(scratch.path().join("f"), "").expect("a file");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(
        scratch.path().join("f"),
        "user.overlay.metacopy",
        b"",
        flags,
    )
    .expect("an attribute");
    let error = diff_upper(scratch.path(), &[], &CaptureOptions::default())
        .expect_err("the content is elsewhere");
    assert!(error.to_string().contains("metacopy"), "{error}");
}

#[test]
fn names_that_only_whiteouts_may_have_are_refused_by_name() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(scratch.path().join(".wh.it"), "").expect("a file");
    let error = diff_upper(scratch.path(), &[], &CaptureOptions::default())
        .expect_err("it would hide `it`");
    assert!(error.to_string().contains(".wh.it"), "{error}");
}
