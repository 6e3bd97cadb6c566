//! Files, one by one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kfactory_layers::metadata::Xattrs;
use kfactory_layers::overlay::is_overlay_xattr;

use super::{Change, Found, Side, Subject, services};
use crate::kairos::release::RELEASE_PATH;
use crate::tree::{Kind, Names, Node, Tree};

/// Returns how many objects the tree holds.
pub(super) fn count(tree: &Tree) -> usize {
    let mut count = 0;
    tree.walk("", &mut |_, _| count += 1);
    count
}

/// Compares every object below the root.
pub(super) fn compare(here: &Side, there: &Side, found: &mut Found) {
    let mut at = PathBuf::from("/");
    let pair = (here.tree.top(), there.tree.top());
    metadata(here, &at, pair, found);
    let empty = Names::new();
    let names = (
        pair.0.names().unwrap_or(&empty),
        pair.1.names().unwrap_or(&empty),
    );
    directory((here, there), &mut at, names, found);
}

fn directory(
    (here, there): (&Side, &Side),
    at: &mut PathBuf,
    (ours, theirs): (&Names, &Names),
    found: &mut Found,
) {
    let mut all: Vec<&OsString> = ours.keys().chain(theirs.keys()).collect();
    all.sort();
    all.dedup();
    for name in all {
        at.push(name);
        match (ours.get(name), theirs.get(name)) {
            (Some(one), Some(other)) => both((here, there), at, (one, other), found),
            (Some(one), None) => alone(here.step(one.layer), at, one, true, found),
            (None, Some(other)) => alone(there.step(other.layer), at, other, false, found),
            (None, None) => {}
        }
        at.pop();
    }
}

/// What only one has is one difference, whatever is below it: a missing directory says enough.
fn alone(step: &str, at: &Path, node: &Node, is_ours: bool, found: &mut Found) {
    if is_told_elsewhere(at, node) {
        return;
    }
    let text = Some(describe(node));
    let sides = if is_ours { (text, None) } else { (None, text) };
    found.add(step, Subject::File, at.display().to_string(), sides);
}

/// Services and the release file are compared by what they mean.
fn is_told_elsewhere(at: &Path, node: &Node) -> bool {
    at == Path::new(RELEASE_PATH) && node.file().is_some()
        || services::is_state(at, node.target().is_some())
}

fn both(sides: (&Side, &Side), at: &mut PathBuf, (one, other): (&Node, &Node), found: &mut Found) {
    let (here, _) = sides;
    metadata(here, at, (one, other), found);
    let step = here.step(one.layer);
    let differ = |change, found: &mut Found| {
        let texts = (Some(describe(one)), Some(describe(other)));
        found.push(step, Subject::File, at.display().to_string(), change, texts);
    };
    match (&one.kind, &other.kind) {
        (Kind::Directory(ours), Kind::Directory(theirs)) => {
            directory(sides, at, (ours, theirs), found);
        }
        (Kind::File(ours), Kind::File(theirs)) => {
            let is_same = ours.size == theirs.size && ours.digest == theirs.digest;
            if !is_same && !is_told_elsewhere(at, one) {
                differ(Change::Content, found);
            }
        }
        (Kind::Symlink(ours), Kind::Symlink(theirs)) => {
            if ours != theirs && !is_told_elsewhere(at, one) {
                differ(Change::Content, found);
            }
        }
        (Kind::CharDevice(ours), Kind::CharDevice(theirs))
        | (Kind::BlockDevice(ours), Kind::BlockDevice(theirs)) => {
            if ours != theirs {
                differ(Change::Content, found);
            }
        }
        (Kind::Pipe, Kind::Pipe) => {}
        _ => differ(Change::Kind, found),
    }
}

fn metadata(here: &Side, at: &Path, (one, other): (&Node, &Node), found: &mut Found) {
    let step = here.step(one.layer);
    let mut differ = |change, ours: String, theirs: String| {
        if ours != theirs {
            let texts = (Some(ours), Some(theirs));
            found.push(step, Subject::File, at.display().to_string(), change, texts);
        }
    };
    let owner = |node: &Node| format!("{}:{}", node.uid, node.gid);
    differ(Change::Owner, owner(one), owner(other));
    // A link's own mode means nothing on Linux.
    if one.target().is_none() && other.target().is_none() {
        let mode = |node: &Node| format!("{:04o}", node.mode);
        differ(Change::Mode, mode(one), mode(other));
    }
    differ(Change::Xattrs, xattrs(one), xattrs(other));
}

fn xattrs(node: &Node) -> String {
    let none = Xattrs::new();
    let all = node.xattrs.as_deref().unwrap_or(&none);
    let one = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}={value}", String::from_utf8_lossy(name))
    };
    // Builders on overlayfs leave its notes in layers, where they mean nothing.
    let of_the_file = all.iter().filter(|(name, _)| !is_overlay_xattr(name));
    of_the_file.map(one).collect::<Vec<_>>().join(" ")
}

fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Directory(_) => "directory".to_owned(),
        Kind::File(file) => {
            let digest = file.digest.map(|digest| digest.hex()[..12].to_owned());
            format!("{} bytes, {}", file.size, digest.unwrap_or_default())
        }
        Kind::Symlink(target) => format!("link to {}", target.display()),
        Kind::CharDevice(device) => format!("character device {}:{}", device.major, device.minor),
        Kind::BlockDevice(device) => format!("block device {}:{}", device.major, device.minor),
        Kind::Pipe => "pipe".to_owned(),
    }
}
