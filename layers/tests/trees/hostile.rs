//! Archives that try to leave the rootfs, to hide what they do, or to exhaust the machine: one test each.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use kfactory_layers::apply::{ApplyError, ApplyOptions, apply};
use kfactory_layers::metadata::{Device, Entry, EntryKind};
use kfactory_layers::tar::{ArchiveReader, ArchiveWriter, ReadError};

use crate::support::{apply_to, open, path, skip, unprivileged};

fn file(path: &str, content: &str) -> (Entry, String) {
    let size = content.len() as u64;
    (
        Entry::new(path, EntryKind::File { size }),
        content.to_owned(),
    )
}

fn other(path: &str, kind: EntryKind) -> (Entry, String) {
    (Entry::new(path, kind), String::new())
}

fn symlink(path: &str, target: &str) -> (Entry, String) {
    other(
        path,
        EntryKind::Symlink {
            target: target.into(),
        },
    )
}

fn link(path: &str, target: &str) -> (Entry, String) {
    other(
        path,
        EntryKind::HardLink {
            target: target.into(),
        },
    )
}

fn dir(path: &str) -> (Entry, String) {
    other(path, EntryKind::Directory)
}

fn owned_by_us(mut entry: Entry) -> Entry {
    entry.uid = rustix::process::geteuid().as_raw();
    entry.gid = rustix::process::getegid().as_raw();
    entry
}

fn archive(entries: Vec<(Entry, String)>) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for (entry, content) in entries {
        archive
            .append(&owned_by_us(entry), content.as_bytes())
            .expect("an entry");
    }
    archive.finish().expect("an archive")
}

/// A rootfs with a neighbour that nothing may touch.
struct Cell {
    scratch: tempfile::TempDir,
}

impl Cell {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(scratch.path().join("root/etc")).expect("a rootfs");
        fs::create_dir(scratch.path().join("outside")).expect("a neighbour");
        fs::write(scratch.path().join("outside/secret"), "secret").expect("a neighbour's file");
        fs::write(scratch.path().join("root/etc/passwd"), "inside").expect("a file");
        Self { scratch }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.scratch.path().join("outside")
    }

    fn apply(&self, entries: Vec<(Entry, String)>) -> Result<(), ApplyError> {
        let outcome = apply_to(&self.root(), &archive(entries)).map(drop);
        let names: Vec<_> = fs::read_dir(self.outside()).expect("a neighbour").collect();
        assert_eq!(names.len(), 1, "something was made outside");
        assert_eq!(
            fs::read_to_string(self.outside().join("secret")).expect("still there"),
            "secret"
        );
        assert_eq!(fs::read_dir(self.scratch.path()).expect("two").count(), 2);
        outcome
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap_or_default()
    }

    fn outside_text(&self) -> String {
        self.outside().display().to_string()
    }
}

#[test]
fn names_with_dot_dot_are_refused() {
    for name in [
        "../outside/secret",
        "usr/lib/../../../outside/secret",
        "..",
        "etc/..",
        "/../outside/secret",
    ] {
        let error = Cell::new().apply(vec![file(name, "evil")]).expect_err(name);
        assert!(
            matches!(error, ApplyError::Escapes { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn absolute_names_stay_inside() {
    let cell = Cell::new();
    cell.apply(vec![file("/etc/passwd", "new")])
        .expect("taken as relative");
    assert_eq!(cell.text("etc/passwd"), "new");
}

#[test]
fn files_written_through_an_absolute_link_stay_inside() {
    let cell = Cell::new();
    let target = cell.outside_text();
    cell.apply(vec![symlink("link", &target), file("link/secret", "evil")])
        .expect("the link resolves inside");
    let inside = cell
        .root()
        .join(target.trim_start_matches('/'))
        .join("secret");
    assert_eq!(fs::read_to_string(inside).expect("made inside"), "evil");
}

#[test]
fn files_written_through_a_climbing_link_stay_inside() {
    let cell = Cell::new();
    cell.apply(vec![
        symlink("link", "../../../outside"),
        file("link/secret", "evil"),
    ])
    .expect("`..` stops at the root");
    assert_eq!(cell.text("outside/secret"), "evil");
}

#[test]
fn a_file_replaces_a_link_and_not_what_it_points_to() {
    let cell = Cell::new();
    let target = cell.outside().join("secret").display().to_string();
    cell.apply(vec![
        symlink("etc/passwd", &target),
        file("etc/passwd", "new"),
    ])
    .expect("replaced");
    assert_eq!(cell.text("etc/passwd"), "new");
}

#[test]
fn a_directory_replaces_a_link_and_does_not_change_what_it_points_to() {
    let cell = Cell::new();
    let target = cell.outside_text();
    cell.apply(vec![
        symlink("d", &target),
        dir("d"),
        file("d/secret", "mine"),
    ])
    .expect("replaced");
    assert!(
        cell.root()
            .join("d")
            .symlink_metadata()
            .expect("there")
            .is_dir()
    );
}

#[test]
fn a_directory_that_becomes_a_link_between_two_files_does_not_redirect_the_second() {
    let cell = Cell::new();
    let target = cell.outside_text();
    cell.apply(vec![
        file("d/one", "1"),
        symlink("d", &target),
        file("d/secret", "evil"),
    ])
    .expect("contained");
    assert!(
        cell.root()
            .join("d")
            .symlink_metadata()
            .expect("there")
            .is_symlink()
    );
}

#[test]
fn hard_links_to_outside_are_refused() {
    for target in ["../outside/secret", "etc/../../outside/secret"] {
        let error = Cell::new()
            .apply(vec![link("mine", target)])
            .expect_err(target);
        assert!(
            matches!(error, ApplyError::Escapes { .. }),
            "{target}: {error}"
        );
    }
}

#[test]
fn hard_links_through_links_do_not_reach_outside() {
    let cell = Cell::new();
    let target = cell.outside_text();
    let entries = vec![
        symlink("out", &target),
        link("mine", "out/secret"),
        file("mine", "evil"),
    ];
    let error = cell
        .apply(entries)
        .expect_err("there is no such file inside");
    assert!(matches!(error, ApplyError::HardLink { .. }), "{error}");
}

#[test]
fn a_hard_link_to_a_symbolic_link_links_the_link_itself() {
    let cell = Cell::new();
    let target = cell.outside().join("secret").display().to_string();
    cell.apply(vec![
        symlink("out", &target),
        link("mine", "out"),
        file("mine", "evil"),
    ])
    .expect("replaced");
    assert_eq!(cell.text("mine"), "evil");
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    let cell = Cell::new();
    cell.apply(vec![link("etc/passwd", "./etc//passwd")])
        .expect("nothing to do");
    assert_eq!(cell.text("etc/passwd"), "inside");
}

#[test]
fn a_hard_link_to_a_directory_is_refused() {
    let error = Cell::new()
        .apply(vec![link("mine", "etc")])
        .expect_err("a directory");
    assert!(matches!(error, ApplyError::HardLink { .. }), "{error}");
}

#[test]
fn whiteouts_through_links_remove_nothing_outside() {
    let cell = Cell::new();
    let target = cell.outside_text();
    cell.apply(vec![
        symlink("out", &target),
        file("out/.wh.secret", ""),
        file("out/.wh..wh..opq", ""),
    ])
    .expect("nothing to hide inside");
}

#[test]
fn whiteouts_that_name_nothing_are_refused() {
    for name in [
        ".wh.",
        "etc/.wh.",
        ".wh..",
        ".wh...",
        "etc/.wh..wh.x",
        ".wh.d/file",
    ] {
        let error = Cell::new().apply(vec![file(name, "")]).expect_err(name);
        assert!(
            matches!(error, ApplyError::InvalidWhiteout { .. }),
            "{name}: {error}"
        );
    }
}

#[test]
fn the_root_cannot_be_replaced() {
    for entry in [
        file(".", "x"),
        symlink("./", "etc"),
        link("/", "etc/passwd"),
    ] {
        let error = Cell::new()
            .apply(vec![entry])
            .expect_err("the root stays a directory");
        assert!(matches!(error, ApplyError::Escapes { .. }), "{error}");
    }
}

#[test]
fn links_in_a_circle_end() {
    let cell = Cell::new();
    let error = cell
        .apply(vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")])
        .expect_err("no such directory");
    assert!(matches!(error, ApplyError::Io { .. }), "{error}");
    let error = cell
        .apply(vec![symlink("c", "c/d"), file("c/x", "")])
        .expect_err("no such directory");
    assert!(matches!(error, ApplyError::Io { .. }), "{error}");
}

#[test]
fn a_parent_that_is_a_device_or_pipe_is_refused_without_opening_it() {
    let error = Cell::new()
        .apply(vec![other("p", EntryKind::Fifo), file("p/x", "")])
        .expect_err("no directory");
    assert!(matches!(error, ApplyError::Io { .. }), "{error}");
}

#[test]
fn writing_over_a_pipe_replaces_it() {
    let cell = Cell::new();
    cell.apply(vec![other("p", EntryKind::Fifo), file("p", "content")])
        .expect("replaced");
    assert_eq!(cell.text("p"), "content");
}

#[test]
fn the_device_that_overlayfs_takes_for_a_whiteout_is_refused() {
    let error = Cell::new()
        .apply(vec![other(
            "etc/passwd",
            EntryKind::CharDevice(Device::WHITEOUT),
        )])
        .expect_err("no device");
    assert!(
        matches!(error, ApplyError::OverlayWhiteout { .. }),
        "{error}"
    );
}

#[test]
fn a_device_that_linux_would_make_another_of_is_refused() {
    for (major, minor) in [(4096, 0), (8, 1 << 20)] {
        let device = EntryKind::BlockDevice(Device { major, minor });
        let error = Cell::new().apply(vec![other("dev/x", device)]);
        let text = error.expect_err("no such device").to_string();
        assert!(text.contains("device number"), "{text}");
    }
}

#[test]
fn attributes_of_overlayfs_are_left_out() {
    let cell = Cell::new();
    let mut entry = owned_by_us(Entry::new("etc", EntryKind::Directory));
    entry
        .xattrs
        .insert(b"user.overlay.redirect".to_vec(), b"/outside".to_vec());
    entry
        .xattrs
        .insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
    let applied = apply_to(&cell.root(), &archive(vec![(entry, String::new())])).expect("left out");
    assert_eq!(applied.dropped_xattrs, 2);
    let names = rustix::fs::llistxattr(cell.root().join("etc"), &mut [0; 256][..]).unwrap_or(0);
    assert_eq!(names, 0);
}

#[test]
fn content_beyond_the_limit_is_refused_before_it_is_written() {
    let cell = Cell::new();
    let options = ApplyOptions {
        max_bytes: 10,
        ..ApplyOptions::default()
    };
    let bytes = archive(vec![file("a", "12345678"), file("b", "123")]);
    let error = apply(&open(&cell.root()), bytes.as_slice(), &options).expect_err("eleven bytes");
    assert!(
        matches!(error, ApplyError::TooLarge { limit: 10, .. }),
        "{error}"
    );
    assert!(!cell.root().join("b").exists());
}

#[test]
fn a_hole_of_exabytes_counts_as_content() {
    let cell = Cell::new();
    let error = apply_to(&cell.root(), &sparse_bomb()).expect_err("larger than any disk");
    assert!(matches!(error, ApplyError::TooLarge { .. }), "{error}");
}

/// A file of four exbibytes in two kilobytes.
fn sparse_bomb() -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "4611686018427387904"),
    ] {
        records.extend_from_slice(record(key, value).as_bytes());
    }
    let mut bytes = header(b'x', "PaxHeaders/bomb", &records);
    bytes.extend(header(b'0', "bomb", &[&b"0\n"[..], &[0; 510]].concat()));
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn entries_beyond_the_limit_are_refused() {
    let cell = Cell::new();
    let options = ApplyOptions {
        max_entries: 2,
        ..ApplyOptions::default()
    };
    let many = archive(vec![file("a", ""), file("b", ""), file("c", "")]);
    let implied = archive(vec![file("d/d/a", "")]);
    for bytes in [many, implied] {
        let error = apply(&open(&cell.root()), bytes.as_slice(), &options);
        let error = error.expect_err("three objects");
        assert!(
            matches!(error, ApplyError::TooManyEntries { limit: 2, .. }),
            "{error}"
        );
    }
}

/// One PAX record; its length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..rest + 10).find(|length| rest + length.to_string().len() == *length);
    format!("{} {key}={value}\n", length.expect("a length"))
}

/// A header block and its padded content, made by hand where the writer would refuse.
fn header(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn read_all(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let mut archive = ArchiveReader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        entries.push(entry);
    }
    Ok(entries)
}

#[test]
fn an_entry_with_two_names_is_refused() {
    let mut bytes = header(b'L', "././@LongLink", b"one\0");
    bytes.extend(header(
        b'x',
        "PaxHeaders/f",
        record("path", "two").as_bytes(),
    ));
    bytes.extend(header(b'0', "three", b""));
    let error = read_all(&bytes).expect_err("every tool would take another name");
    assert!(matches!(error, ReadError::Ambiguous { .. }), "{error}");
}

#[test]
fn two_extended_headers_for_one_entry_are_refused() {
    let mut bytes = header(b'x', "PaxHeaders/f", record("path", "one").as_bytes());
    bytes.extend(header(
        b'x',
        "PaxHeaders/f",
        record("path", "two").as_bytes(),
    ));
    bytes.extend(header(b'0', "three", b""));
    assert!(matches!(read_all(&bytes), Err(ReadError::Ambiguous { .. })));
}

#[test]
fn an_extended_header_cannot_take_all_memory() {
    let mut bytes = header(b'x', "PaxHeaders/f", b"");
    bytes[124..135].copy_from_slice(b"77777777777");
    bytes[148..156].copy_from_slice(b"        ");
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let endless = bytes.as_slice().chain(std::io::repeat(b'x'));
    let error = ArchiveReader::new(endless)
        .next_entry()
        .expect_err("eight gibibytes of header");
    assert!(matches!(error, ReadError::HeaderTooLarge { .. }), "{error}");
}

#[test]
fn records_and_maps_that_make_no_sense_are_refused() {
    let sparse = |map: &str| {
        format!(
            "{}{}{}",
            record("GNU.sparse.size", "100"),
            record("GNU.sparse.map", map),
            record("GNU.sparse.name", "f")
        )
    };
    let cases = [
        "999 path=x\n".to_owned(),
        record("uid", "-1"),
        record("uid", "4294967295"),
        record("size", "1e9"),
        record("mtime", "yesterday"),
        record("path", "a\0b"),
        sparse("0,50,40,10"),
        sparse("0,5,200,5"),
        sparse("0,5,6"),
        sparse("18446744073709551615,5"),
        record("GNU.sparse.numbytes", "5"),
    ];
    for text in cases {
        let mut bytes = header(b'x', "PaxHeaders/f", text.as_bytes());
        bytes.extend(header(b'0', "f", b"12345"));
        let error = read_all(&bytes).expect_err(&text);
        assert!(
            matches!(error, ReadError::InvalidField { .. }),
            "{text}: {error}"
        );
    }
}

#[test]
fn only_sparse_files_have_a_sparse_name() {
    for kind in *b"015" {
        let text = record("GNU.sparse.name", "other");
        let mut bytes = header(b'x', "PaxHeaders/f", text.as_bytes());
        let mut entry = header(kind, "f", b"");
        entry.extend([0; 1024]);
        bytes.extend(entry);
        assert!(read_all(&bytes).is_err(), "type {}", char::from(kind));
    }
}

#[test]
fn unknown_types_of_entries_are_refused_by_name() {
    for kind in *b"MVDNIX" {
        let error = read_all(&header(kind, "strange", b"")).expect_err("not a file object");
        assert!(error.to_string().contains("strange"), "{error}");
    }
}

#[test]
fn every_cut_and_every_flipped_byte_is_an_error_or_harmless() {
    let cell = Cell::new();
    let mut entry = Entry::new("f".repeat(150), EntryKind::File { size: 600 });
    entry.mtime.nanos = 1;
    let bytes = archive(vec![
        dir("d"),
        (entry, "x".repeat(600)),
        symlink("d/s", "../f"),
        file("d/.wh.x", ""),
    ]);
    for cut in (0..bytes.len() - 1024).step_by(7) {
        let outcome = read_all(&bytes[..cut]);
        assert!(outcome.is_err() || cut % 512 == 0, "cut after {cut} bytes");
    }
    for at in (0..bytes.len()).step_by(3) {
        let mut broken = bytes.clone();
        broken[at] ^= 0x15;
        let _ = apply_to(&cell.root(), &broken);
    }
    assert_eq!(
        fs::read_dir(cell.outside()).expect("a neighbour").count(),
        1
    );
}

#[test]
fn hidden_depth_does_not_exhaust_stack_or_open_files() {
    let cell = Cell::new();
    let mut deep = cell.root().join("deep");
    fs::create_dir(&deep).expect("a directory");
    let here = deep.clone();
    // Deeper than any path can say, made step by step as links would allow.
    let mut fd = rustix::fs::open(&deep, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
        .expect("a directory");
    for _ in 0..3000 {
        rustix::fs::mkdirat(&fd, "d", rustix::fs::Mode::RWXU).expect("a directory");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        fd = rustix::fs::openat(&fd, "d", flags, rustix::fs::Mode::empty()).expect("a directory");
        deep.push("d");
    }
    cell.apply(vec![file(".wh.deep", "")]).expect("removed");
    assert!(!here.exists());
}

#[test]
fn set_id_bits_survive_a_foreign_owner() {
    use std::os::unix::fs::MetadataExt;
    if let Some(why) = unprivileged() {
        return skip(why);
    }
    let cell = Cell::new();
    let mut entry = Entry::new("su", EntryKind::File { size: 0 });
    (entry.uid, entry.gid, entry.mode) = (3_000_000, 42, 0o6755);
    let mut archive = ArchiveWriter::new(Vec::new());
    archive.append(&entry, std::io::empty()).expect("an entry");
    apply_to(&cell.root(), &archive.finish().expect("an archive")).expect("applied");
    let meta = cell.root().join("su").metadata().expect("there");
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o6755, 3_000_000, 42)
    );
}

#[test]
fn names_of_any_bytes_survive() {
    let cell = Cell::new();
    let name = path(b"etc/\xff\n\x1b[31m");
    let entry = owned_by_us(Entry::new(&name, EntryKind::File { size: 0 }));
    apply_to(&cell.root(), &archive(vec![(entry, String::new())])).expect("applied");
    assert!(cell.root().join(&name).exists());
    assert!(Path::new(&name).file_name().is_some());
}
