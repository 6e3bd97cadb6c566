//! Programs that know nothing of the writer read its discs.

mod boot;
mod contents;
mod foreign;
mod structure;

use std::fs::File;

use tempfile::TempDir;

use super::tests::{bootable, write_into};
use super::{Content, Disc, Tree};
use crate::artifact::region::Region;

const LAST: u64 = 3_000_000;

/// A disc with what is hard to say in ISO 9660.
fn sample() -> Disc {
    let mut tree = Tree::new();
    let last = Content::Last { at_most: 64 << 30 };
    let long = "n".repeat(255);
    let longer = format!("{}é", "m".repeat(200));
    let deep = "d/".repeat(12);
    tree.file("rootfs.squashfs", 0o644, last).expect("new");
    for (path, mode, size) in [
        ("boot/kernel", 0o755, 100_000),
        ("empty", 0o600, 0),
        (&format!("{deep}file"), 0o644, 3),
        (&format!("long/{long}"), 0o644, 5000),
        (&format!("long/{longer}"), 0o644, 0),
        ("Käse/Über ☃.txt", 0o644, 10),
        ("same/x-y", 0o644, 1),
        ("same/x+y", 0o644, 2),
        ("same/X_Y", 0o644, 3),
    ] {
        tree.file(path, mode, Content::Later(size)).expect("new");
    }
    for (path, target) in [
        ("root", "/"),
        ("link", "/boot/../boot/./kernel"),
        ("far", &format!("{}end", "../x/".repeat(190))),
        ("wide", &format!("/{}/{}", "c".repeat(255), "e".repeat(255))),
    ] {
        tree.symlink(path, target).expect("new");
    }
    bootable(tree)
}

/// Writes `disc` as `disc.iso` into a directory of its own.
fn written(disc: &Disc) -> (TempDir, String, Region) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("disc.iso");
    let options = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path);
    let region = write_into(options.expect("a file"), disc, LAST);
    let path = path.to_str().expect("UTF-8").to_owned();
    (dir, path, region)
}
