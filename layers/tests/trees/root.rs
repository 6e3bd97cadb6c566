//! A root and its operations: what they do, and that none leaves it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kfactory_layers::metadata::{FileKind, Timestamp};
use kfactory_layers::root::{Root, RootError};

use crate::support::open;

/// A root with a neighbour, and links to it of both kinds.
struct Cell {
    scratch: tempfile::TempDir,
    root: Root,
}

impl Cell {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| scratch.path().join(path);
        fs::create_dir_all(at("root/usr/lib")).expect("directories");
        fs::create_dir(at("outside")).expect("a directory");
        fs::write(at("outside/secret"), "secret").expect("a file");
        let link = |target: &Path, path: &str| {
            std::os::unix::fs::symlink(target, at(path)).expect("a link")
        };
        link(Path::new("usr/lib"), "root/lib");
        link(Path::new("/usr/lib"), "root/abs");
        link(Path::new("../../../outside"), "root/climb");
        link(&at("outside/secret"), "root/direct");
        let root = open(&at("root"));
        Self { scratch, root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.scratch.path().join("root").join(path)
    }

    fn us(&self) -> (u32, u32) {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }

    fn write(&self, path: &str, text: &str) -> Result<(), RootError> {
        let (uid, gid) = self.us();
        self.root.write(path, text, 0o640, uid, gid)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let outside = self.scratch.path().join("outside");
        assert_eq!(fs::read_dir(&outside).expect("still there").count(), 1);
        assert_eq!(
            fs::read_to_string(outside.join("secret")).expect("still there"),
            "secret"
        );
    }
}

#[test]
fn reading_follows_links_inside_and_finds_nothing_outside() {
    let cell = Cell::new();
    fs::write(cell.at("usr/lib/os-release"), "ID=x").expect("a file");
    for path in [
        "lib/os-release",
        "/lib/os-release",
        "abs/os-release",
        "abs/../../../usr/lib/os-release",
        "./lib//os-release",
    ] {
        assert_eq!(
            cell.root.read_to_string_opt(path).expect(path).as_deref(),
            Some("ID=x"),
            "{path}"
        );
        assert!(cell.root.exists(path).expect(path));
    }
    for path in [
        "climb/secret",
        "direct",
        "../outside/secret",
        "lib/none",
        "none/none",
        "lib/os-release/x",
    ] {
        assert_eq!(cell.root.read_opt(path).expect(path), None, "{path}");
        assert!(!cell.root.exists(path).expect(path));
    }
}

#[test]
fn reading_is_bounded_and_only_of_regular_files() {
    let cell = Cell::new();
    fs::write(cell.at("f"), b"12\xff").expect("a file");
    assert_eq!(
        cell.root.read_at_most("f", 3).expect("three bytes"),
        Some(b"12\xff".to_vec())
    );
    assert!(matches!(
        cell.root.read_at_most("f", 2),
        Err(RootError::TooLarge { limit: 2, .. })
    ));
    assert!(matches!(
        cell.root.read_to_string_opt("f"),
        Err(RootError::NotUtf8 { .. })
    ));
    assert!(matches!(
        cell.root.read_opt("lib"),
        Err(RootError::NotAFile { .. })
    ));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        cell.at("p"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a pipe");
    assert!(matches!(
        cell.root.read_opt("p"),
        Err(RootError::NotAFile { .. })
    ));
}

#[test]
fn writing_replaces_the_name_and_not_what_it_points_to() {
    let cell = Cell::new();
    cell.write("direct", "mine").expect("replaced");
    assert_eq!(
        fs::read_to_string(cell.at("direct")).expect("a file"),
        "mine"
    );
    cell.write("abs/f", "text")
        .expect("through a directory link");
    assert_eq!(
        fs::metadata(cell.at("usr/lib/f")).expect("there").mode() & 0o7777,
        0o640
    );
    fs::hard_link(cell.at("usr/lib/f"), cell.at("other")).expect("a link");
    cell.write("lib/f", "new").expect("replaced");
    assert_eq!(
        fs::read_to_string(cell.at("other")).expect("the old one"),
        "text"
    );
    let left: Vec<_> = cell
        .root
        .read_dir("lib")
        .expect("a listing")
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(left, ["f"], "no temporary names stay");
}

#[test]
fn errors_name_the_path_and_leave_no_temporary_names() {
    let cell = Cell::new();
    for path in ["climb/f", "none/f", "lib"] {
        let error = cell.write(path, "x").map(drop);
        if path == "lib" {
            // The link itself, which is replaced.
            error.expect("a link is a name like any other");
            continue;
        }
        let error = error.expect_err(path);
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!(
            error.io_kind(),
            Some(std::io::ErrorKind::NotFound),
            "{path}"
        );
    }
    assert!(cell.write("usr", "x").is_err());
    for path in ["", "/", ".", "usr/.."] {
        assert!(
            matches!(cell.write(path, "x"), Err(RootError::NoName { .. })),
            "{path:?}"
        );
        assert!(
            matches!(cell.root.remove_all(path), Err(RootError::NoName { .. })),
            "{path:?}"
        );
    }
    assert!(
        cell.root
            .read_dir("")
            .expect("a listing")
            .iter()
            .all(|entry| !entry.name.to_string_lossy().contains("tmp"))
    );
}

#[test]
fn links_are_made_once_and_replaced_when_they_differ() {
    let cell = Cell::new();
    cell.root.symlink("/etc/x", "usr/l").expect("new");
    let first = fs::symlink_metadata(cell.at("usr/l")).expect("there").ino();
    cell.root.symlink("/etc/x", "usr/l").expect("the same");
    assert_eq!(
        fs::symlink_metadata(cell.at("usr/l")).expect("there").ino(),
        first
    );
    cell.root.symlink("y", "usr/l").expect("another");
    assert_eq!(
        cell.root.read_link_opt("usr/l").expect("a link"),
        Some("y".into())
    );
    assert_eq!(cell.root.read_link_opt("usr").expect("no link"), None);
    assert!(
        cell.root.symlink("y", "usr/lib").is_err(),
        "a directory stays"
    );
    cell.write("usr/f", "f").expect("a file");
    cell.root
        .hard_link("usr/f", "usr/g")
        .expect("a second name");
    cell.root.hard_link("usr/f", "usr/g").expect("again");
    assert_eq!(
        cell.root
            .metadata_opt("usr/g")
            .expect("there")
            .map(|found| found.nlink),
        Some(2)
    );
    assert_eq!(cell.root.read_dir("usr").expect("a listing").len(), 4);
}

#[test]
fn directories_are_made_where_they_are_missing() {
    let cell = Cell::new();
    cell.root
        .create_dir_all("/lib/a/b", 0o750)
        .expect("two new ones");
    cell.root
        .create_dir_all("lib/a/b", 0o700)
        .expect("nothing to do");
    assert_eq!(
        fs::metadata(cell.at("usr/lib/a/b")).expect("there").mode() & 0o7777,
        0o750
    );
    cell.write("f", "").expect("a file");
    assert!(cell.root.create_dir_all("f/x", 0o755).is_err());
    assert!(
        cell.root.create_dir_all("climb", 0o755).is_err(),
        "a dangling link is not replaced"
    );
    cell.root
        .create_dir_all("", 0o755)
        .expect("the root is there");
}

#[test]
fn removing_takes_links_and_never_follows_them() {
    let cell = Cell::new();
    fs::create_dir(cell.at("d")).expect("a directory");
    std::os::unix::fs::symlink(cell.scratch.path().join("outside"), cell.at("d/out"))
        .expect("a link");
    assert!(cell.root.remove_file("d").is_err(), "a directory");
    assert!(cell.root.remove_all("d").expect("a tree"));
    assert!(!cell.root.remove_all("d").expect("nothing left"));
    assert!(cell.root.remove_all("climb").expect("the link"));
    assert!(cell.root.remove_file("direct").expect("the link"));
    assert!(!cell.root.remove_file("none/none").expect("nothing there"));
}

#[test]
fn resolving_says_where_a_path_leads() {
    let cell = Cell::new();
    cell.write("usr/lib/f", "").expect("a file");
    for (path, expected) in [
        ("abs/f", Some("usr/lib/f")),
        ("/lib/../lib/f", Some("usr/lib/f")),
        ("/", Some("")),
        ("../../usr", Some("usr")),
        ("climb", None),
        ("usr/lib/f/x", None),
        ("usr/lib/f/..", None),
    ] {
        assert_eq!(
            cell.root.resolve(path).expect(path),
            expected.map(PathBuf::from),
            "{path}"
        );
    }
    cell.root.symlink("loop", "loop").expect("a link");
    assert!(cell.root.resolve("loop").is_err());
}

#[test]
fn metadata_is_set_on_the_object_that_is_meant() {
    let cell = Cell::new();
    cell.write("usr/f", "content").expect("a file");
    cell.root.symlink("usr/f", "l").expect("a link");
    let (uid, gid) = cell.us();
    cell.root.set_mode("l", 0o4711).expect("through the link");
    cell.root.set_owner("usr/f", uid, gid).expect("our own");
    let time = Timestamp { secs: -2, nanos: 5 };
    cell.root.set_mtime("l", time).expect("the link's own");
    cell.root.truncate("l", 3).expect("through the link");
    let found = cell.root.metadata_opt("l").expect("there").expect("a file");
    assert_eq!((found.size, found.kind), (3, FileKind::File));
    let link = cell
        .root
        .symlink_metadata_opt("l")
        .expect("there")
        .expect("a link");
    assert_eq!((link.mtime, link.kind), (time, FileKind::Symlink));
    cell.root.set_mode("usr/f", 0o4711).expect("a mode");
    cell.root.set_owner("usr/f", uid, gid).expect("our own");
    assert_eq!(
        cell.root
            .metadata_opt("usr/f")
            .expect("there")
            .map(|found| found.mode),
        Some(0o4711)
    );
    assert!(
        cell.root.set_owner("usr/f", u32::MAX, 0).is_err(),
        "no owner but a word for none"
    );
    assert!(cell.root.truncate("usr", 0).is_err());
    cell.root.rename("usr/f", "g").expect("moved");
    assert!(cell.root.exists("g").expect("there"));
}
