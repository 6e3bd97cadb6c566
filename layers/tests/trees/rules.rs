//! The rules of applying that random trees do not single out, and what happens without privileges.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use kfactory_layers::apply::{Applied, ApplyError, ApplyOptions, Ownership, apply};
use kfactory_layers::ledger::{LedgerDevice, LedgerEntry};
use kfactory_layers::metadata::{Device, Entry, EntryKind, Timestamp};
use kfactory_layers::tar::ArchiveWriter;

use crate::support::{CAPABILITY, apply_to, open, skip, unprivileged};

/// Builds an archive of entries in the notation `dir/`, `name=content`, `link>target`, `hard=>target`, owned by the caller.
fn archive(entries: &[&str]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for text in entries {
        let (mut entry, content) = parse(text);
        entry.uid = rustix::process::geteuid().as_raw();
        entry.gid = rustix::process::getegid().as_raw();
        entry.mtime = Timestamp::from_secs(1000);
        archive
            .append(&entry, content.as_bytes())
            .expect("an entry");
    }
    archive.finish().expect("an archive")
}

fn parse(text: &str) -> (Entry, String) {
    let (kind, name, content) = if let Some((name, target)) = text.split_once("=>") {
        (
            EntryKind::HardLink {
                target: target.into(),
            },
            name,
            "",
        )
    } else if let Some((name, target)) = text.split_once('>') {
        (
            EntryKind::Symlink {
                target: target.into(),
            },
            name,
            "",
        )
    } else if let Some((name, content)) = text.split_once('=') {
        (
            EntryKind::File {
                size: content.len() as u64,
            },
            name,
            content,
        )
    } else if let Some(name) = text.strip_suffix('/') {
        (EntryKind::Directory, name, "")
    } else {
        (EntryKind::File { size: 0 }, text, "")
    };
    (Entry::new(name, kind), content.to_owned())
}

/// Applies the layers and returns what is in the tree then, directories with a slash.
fn flattened(layers: &[&[&str]]) -> Vec<String> {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    for layer in layers {
        apply_to(scratch.path(), &archive(layer)).expect("a layer");
    }
    listing(scratch.path())
}

fn listing(root: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(root)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter();
    let name = |entry: walkdir::DirEntry| {
        let slash = if entry.file_type().is_dir() { "/" } else { "" };
        format!(
            "{}{slash}",
            entry.path().strip_prefix(root).expect("below").display()
        )
    };
    entries
        .map(|entry| name(entry.expect("readable")))
        .collect()
}

#[test]
fn whiteouts_hide_only_lower_layers_wherever_they_stand() {
    let base: &[&str] = &["d/", "d/old", "d/both=old", "d/sub/", "d/sub/old", "file"];
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["d/.wh.old"],
            &["d/", "d/both", "d/sub/", "d/sub/old", "file"],
        ),
        (&[".wh.d"], &["file"]),
        (&["d/", "d/.wh..wh..opq", "d/new"], &["d/", "d/new", "file"]),
        (
            &["d/", "d/new", "d/sub/", "d/sub/new", "d/.wh..wh..opq"],
            &["d/", "d/new", "d/sub/", "d/sub/new", "file"],
        ),
        (
            &["d/both=new", "d/.wh.both"],
            &["d/", "d/both", "d/old", "d/sub/", "d/sub/old", "file"],
        ),
        (
            &["d/sub/new", ".wh.d"],
            &["d/", "d/sub/", "d/sub/new", "file"],
        ),
        (&["d=now a file", "d/.wh.old"], &["d", "file"]),
        (
            &["none/.wh.x", ".wh.none", "none/.wh..wh..opq"],
            &["d/", "d/both", "d/old", "d/sub/", "d/sub/old", "file"],
        ),
    ];
    for (layer, expected) in cases {
        assert_eq!(flattened(&[base, layer]), expected, "{layer:?}");
    }
}

#[test]
fn leftovers_of_aufs_are_ignored() {
    assert_eq!(
        flattened(&[&["f", ".wh..wh.plnk/", ".wh..wh.plnk/1.2", ".wh..wh.aufs"]]),
        ["f"]
    );
}

#[test]
fn an_entry_of_another_kind_takes_the_place_of_the_old_one() {
    let cases: [(&[&str], &[&str]); 5] = [
        (&["x/", "x/in"], &["x=file"]),
        (&["x=file"], &["x/", "x/in"]),
        (
            &["x>elsewhere", "elsewhere/", "elsewhere/keep"],
            &["x/", "x/in"],
        ),
        (&["x/", "x/in"], &["x>elsewhere"]),
        (&["x/", "x/in"], &["y=1", "x=>y"]),
    ];
    let expected: [&[&str]; 5] = [
        &["x"],
        &["x/", "x/in"],
        &["elsewhere/", "elsewhere/keep", "x/", "x/in"],
        &["x"],
        &["x", "y"],
    ];
    for ((before, after), expected) in cases.iter().zip(expected) {
        assert_eq!(
            flattened(&[before, after]),
            expected,
            "{before:?} then {after:?}"
        );
    }
}

#[test]
fn missing_parents_are_made_also_behind_dangling_links() {
    let found = flattened(&[&["lib>usr/lib", "abs>/opt/abs", "lib/a/f", "abs/g", "x/y/z"]]);
    let expected = [
        "abs",
        "lib",
        "opt/",
        "opt/abs/",
        "opt/abs/g",
        "usr/",
        "usr/lib/",
        "usr/lib/a/",
        "usr/lib/a/f",
        "x/",
        "x/y/",
        "x/y/z",
    ];
    assert_eq!(found, expected);
}

#[test]
fn directories_that_a_layer_does_not_describe_keep_their_time() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = scratch.path();
    apply_to(root, &archive(&["d/", "d/a", "d/e/", "implied/x"])).expect("a layer");
    let root_time = root.metadata().expect("there").mtime();
    apply_to(root, &archive(&["d/b", "d/.wh.a", "d/e/f"])).expect("a layer");
    for (path, time) in [("d", 1000), ("d/e", 1000), ("implied", 0), ("", root_time)] {
        assert_eq!(
            root.join(path).metadata().expect("there").mtime(),
            time,
            "{path}"
        );
    }
}

#[test]
fn applying_a_layer_twice_is_applying_it_once() {
    let layer: &[&str] = &["d/", "d/a=1", "d/b=>d/a", "d/l>a", "d/.wh.gone"];
    assert_eq!(flattened(&[layer, layer]), flattened(&[layer]));
}

#[test]
fn what_a_directory_gives_its_children_does_not_change_them() {
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = scratch.path();
    // `default:user::rwx,group::r-x,group:42:rwx,mask::rwx,other::---` as the kernel stores it.
    let acl: Vec<u8> = [
        (1u16, 7u16, u32::MAX),
        (4, 5, u32::MAX),
        (8, 7, 42),
        (16, 7, u32::MAX),
        (32, 0, u32::MAX),
    ]
    .iter()
    .fold(vec![2, 0, 0, 0], |mut bytes, (tag, perm, id)| {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes
    });
    let mut parent = Entry::new("d", EntryKind::Directory);
    (parent.mode, parent.gid) = (0o2755, 42);
    parent
        .xattrs
        .insert(b"system.posix_acl_default".to_vec(), acl.clone());
    let mut writer = ArchiveWriter::new(Vec::new());
    for entry in [
        parent,
        Entry::new("d/f", EntryKind::File { size: 0 }),
        Entry::new("d/s", EntryKind::Directory),
    ] {
        writer.append(&entry, std::io::empty()).expect("an entry");
    }
    match apply_to(root, &writer.finish().expect("an archive")) {
        Err(ApplyError::Xattr { source, .. }) if source.raw_os_error() == Some(95) => {
            return skip("skipped: no ACLs on this filesystem");
        }
        outcome => outcome.expect("a layer"),
    };
    apply_to(root, &archive(&["d/g", "d/t/"])).expect("a second layer");
    let mut value = [0; 256];
    let len = rustix::fs::lgetxattr(root.join("d"), "system.posix_acl_default", &mut value[..])
        .expect("the directory's own");
    assert_eq!(value[..len], acl);
    for name in ["f", "s", "g", "t"] {
        let path = root.join("d").join(name);
        let names = rustix::fs::llistxattr(&path, &mut [0; 256][..]).expect("a list");
        let meta = path.metadata().expect("there");
        let mode = if meta.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(
            (names, meta.gid(), meta.mode() & 0o7777),
            (0, 0, mode),
            "{name}"
        );
    }
}

/// A layer as root would make it.
fn privileged_layer() -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    let mut add =
        |path: &str, kind: EntryKind, mode: u32, owner: (u32, u32), xattr: Option<&[u8]>| {
            let mut entry = Entry::new(path, kind);
            (entry.mode, entry.uid, entry.gid) = (mode, owner.0, owner.1);
            if let Some(value) = xattr {
                entry
                    .xattrs
                    .insert(b"security.capability".to_vec(), value.to_vec());
            }
            archive.append(&entry, std::io::empty()).expect("an entry");
        };
    let us = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    add("closed", EntryKind::Directory, 0o555, us, None);
    add("closed/mine", EntryKind::File { size: 0 }, 0o444, us, None);
    add(
        "closed/su",
        EntryKind::File { size: 0 },
        0o4755,
        (0, 0),
        None,
    );
    add(
        "closed/also",
        EntryKind::HardLink {
            target: "closed/su".into(),
        },
        0o4755,
        (0, 0),
        None,
    );
    add(
        "ping",
        EntryKind::File { size: 0 },
        0o755,
        us,
        Some(&CAPABILITY),
    );
    add(
        "null",
        EntryKind::CharDevice(Device { major: 1, minor: 3 }),
        0o666,
        us,
        None,
    );
    archive.finish().expect("an archive")
}

fn unpack(
    root: &Path,
    bytes: &[u8],
    ownership: Ownership,
    ledger: Vec<LedgerEntry>,
) -> Result<Applied, ApplyError> {
    apply(
        &open(root),
        bytes,
        &ApplyOptions {
            ownership,
            ledger,
            ..ApplyOptions::default()
        },
    )
}

#[test]
fn what_a_plain_user_may_not_set_goes_into_the_ledger() {
    if rustix::process::geteuid().is_root() {
        return as_nobody("rules::what_a_plain_user_may_not_set_goes_into_the_ledger");
    }
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = scratch.path();
    let error = unpack(root, &privileged_layer(), Ownership::Exact, Vec::new())
        .expect_err("not ours to give");
    assert!(
        error.to_string().contains("\"closed/su\" to 0:0"),
        "{error}"
    );

    let scratch = tempfile::tempdir().expect("a temporary directory");
    let root = scratch.path();
    let applied = unpack(
        root,
        &privileged_layer(),
        Ownership::AsFarAsAllowed,
        Vec::new(),
    )
    .expect("as far as allowed");
    let paths: Vec<_> = applied
        .ledger
        .iter()
        .map(|entry| entry.path.clone())
        .collect();
    assert_eq!(
        paths,
        ["closed/also", "closed/su", "null", "ping"].map(PathBuf::from)
    );
    assert_eq!((applied.ledger[1].uid, applied.ledger[1].mode), (0, 0o4755));
    assert_eq!(applied.ledger[2].dev, Some(LedgerDevice::Char(1, 3)));
    assert_eq!(
        applied.ledger[3].xattrs[&b"security.capability"[..]],
        CAPABILITY
    );
    assert_eq!(
        root.join("closed").metadata().expect("there").mode() & 0o7777,
        0o555
    );
    assert_eq!(
        root.join("null").metadata().expect("there").mode() & 0o7777,
        0
    );

    let second = archive(&["closed/su=mine now", "closed/new", ".wh.null"]);
    let applied =
        unpack(root, &second, Ownership::AsFarAsAllowed, applied.ledger).expect("a second layer");
    let paths: Vec<_> = applied
        .ledger
        .iter()
        .map(|entry| entry.path.clone())
        .collect();
    assert_eq!(paths, ["closed/also", "ping"].map(PathBuf::from));
    assert_eq!(
        root.join("closed").metadata().expect("there").mode() & 0o7777,
        0o555
    );
    // For the removal of the scratch directory.
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o755)).expect("ours");
}

/// Runs one test of this program again as an ordinary user.
fn as_nobody(test: &str) {
    let program = std::env::current_exe().expect("this program");
    let probe = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("--list")
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("skipped: cannot become an ordinary user with `setpriv`");
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["--exact", test]);
    let output = command.output().expect("a program to run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}
