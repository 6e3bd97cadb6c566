//! What others extract is what was described.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::{LAST, sample, written};
use crate::artifact::iso::tests::{Expected, bootable, expected, filling, plain};
use crate::artifact::iso::{Content, Disc, Tree, reader};
use crate::artifact::judge::judge;

/// Returns what is below `dir`, without `dir` itself.
fn on_disk(dir: &Path) -> BTreeMap<Vec<u8>, Expected> {
    let below = walkdir::WalkDir::new(dir).min_depth(1);
    let entries = below.into_iter().map(|entry| {
        let entry = entry.expect("readable");
        let path = entry.path();
        let kind = entry.file_type();
        let content = if kind.is_symlink() {
            let target = fs::read_link(path).expect("a link");
            Some(target.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            Some(fs::read(path).expect("readable"))
        } else {
            None
        };
        let mode = entry.metadata().expect("there").permissions().mode();
        let relative = path.strip_prefix(dir).expect("below");
        (relative.as_os_str().as_bytes().to_vec(), (mode, content))
    });
    entries.collect()
}

/// Checks that `dir` holds what `disc` describes; the boot image, which was patched, by its length.
#[track_caller]
fn assert_extracted(dir: &Path, disc: &Disc) {
    let mut wanted = expected(disc, LAST);
    wanted.remove(&b""[..]);
    let mut found = on_disk(dir);
    for list in [&mut wanted, &mut found] {
        if let Some((_, Some(bytes))) = list.get_mut(&b"boot/eltorito.img"[..]) {
            let len = bytes.len();
            *bytes = vec![0; len];
        }
    }
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>()
    );
    for (path, (mode, content)) in wanted {
        let path_text = String::from_utf8_lossy(&path).into_owned();
        let (found_mode, found_content) = &found[&path];
        assert_eq!(
            format!("{found_mode:o}"),
            format!("{mode:o}"),
            "{path_text}"
        );
        assert!(*found_content == content, "{path_text} differs");
    }
}

/// Extracts `iso` with xorriso; none where that is not installed.
fn xorriso_extracts(iso: &str, dir: &Path) -> Option<String> {
    let dir = dir.to_str().expect("UTF-8");
    let args = ["-osirrox", "on", "-indev", iso, "-extract", "/", dir];
    judge("xorriso", &args)
}

#[test]
fn xorriso_extracts_what_was_described() {
    let disc = sample();
    let (dir, iso, _) = written(&disc);
    let out = dir.path().join("out");
    if xorriso_extracts(&iso, &out).is_some() {
        assert_extracted(&out, &disc);
    }
}

#[test]
fn xorriso_extracts_the_partition_without_the_uefi_image() {
    let disc = sample();
    let (dir, _, region) = written(&disc);
    let gpt = reader::read(&region).expect("readable").gpt;
    let extent = gpt.expect("a GPT").expect("sound").partitions[1].extent();
    let mut bytes = vec![0; extent.len as usize];
    region
        .read_exact_at(&mut bytes, extent.start)
        .expect("inside");
    let inner = dir.path().join("partition.iso");
    fs::write(&inner, bytes).expect("written");
    let out = dir.path().join("out");
    if xorriso_extracts(inner.to_str().expect("UTF-8"), &out).is_some() {
        let uefi = out.join("boot/uefi.img");
        assert!(!uefi.exists());
        fs::write(&uefi, filling(b"boot/uefi.img", 3 << 20)).expect("written");
        fs::set_permissions(&uefi, fs::Permissions::from_mode(0o644)).expect("set");
        assert_extracted(&out, &disc);
    }
}

#[test]
fn libarchive_extracts_what_was_described() {
    let disc = sample();
    let (dir, iso, _) = written(&disc);
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("made");
    let args = ["-xpf", &iso, "-C", out.to_str().expect("UTF-8")];
    if judge("bsdtar", &args).is_some() {
        // It loses the slash where the target of a link goes on in another field.
        let far = out.join("far");
        fs::remove_file(&far).expect("there");
        std::os::unix::fs::symlink(format!("{}end", "../x/".repeat(190)), far).expect("made");
        assert_extracted(&out, &disc);
    }
}

#[test]
fn a_file_of_more_than_4_gib_is_one_file_for_others_too() {
    const SIZE: u64 = (9 << 30) + 12_345;
    let mut tree = Tree::new();
    let last = Content::Last { at_most: 64 << 30 };
    tree.file("big", 0o644, last).expect("new");
    tree.file("small", 0o644, Content::Bytes(vec![7; 10]))
        .expect("new");
    let layout = bootable(tree).lay_out().expect("laid out");
    let metadata = layout.finish(SIZE).expect("finished");
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("big.iso");
    let file = File::create(&path).expect("made");
    file.set_len(metadata.len).expect("room for holes");
    for piece in &metadata.pieces {
        std::os::unix::fs::FileExt::write_all_at(&file, &piece.bytes, piece.offset)
            .expect("written");
    }
    let iso = path.to_str().expect("UTF-8");
    let args = ["-indev", iso, "-find", "/big", "-exec", "report_sections"];
    if let Some(said) = judge("xorriso", &args) {
        let sections: Vec<&str> = said
            .lines()
            .filter(|line| line.ends_with("'/big'"))
            .collect();
        assert_eq!(sections.len(), 3, "{said}");
        let sizes = sections
            .iter()
            .filter_map(|line| line.split(',').nth(3)?.trim().parse::<u64>().ok());
        assert_eq!(sizes.sum::<u64>(), SIZE, "{said}");
    }
    if let Some(said) = judge("bsdtar", &["-tvf", iso]) {
        let big = said.lines().find(|line| line.ends_with(" big"));
        assert!(
            big.is_some_and(|line| line.contains(&SIZE.to_string())),
            "{said}"
        );
        assert!(said.lines().any(|line| line.ends_with(" small")), "{said}");
    }
}

/// Names that a path on disk can have and that programs take as text.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abAB][-_.+ab]{0,3}",
        "[a-z]{1,8}\\.[a-z]{0,4}",
        "[a-zäÖ☃ %]{1,30}x",
        "[a-z]{60,120}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn xorriso_extracts_whatever_tree_was_described(
        paths in prop::collection::vec(
            (prop::collection::vec(name(), 1..5), 0..0o200u32, 0..4usize),
            0..50,
        ),
    ) {
        let mut tree = Tree::new();
        for (names, mode, kind) in paths {
            let path = names.join("/");
            // What is taken already is left as it is; all can be read and removed again.
            let _ = match kind {
                0 => tree.dir(path, mode | 0o700),
                1 => tree.symlink(path, names.concat()),
                2 => tree.file(path, mode | 0o400, Content::Bytes(vec![1; 3000])).map(drop),
                _ => tree.file(path, mode | 0o600, Content::Later(5000)).map(drop),
            };
        }
        let disc = plain(tree);
        let (dir, iso, _) = written(&disc);
        let out = dir.path().join("out");
        if xorriso_extracts(&iso, &out).is_some() {
            assert_extracted(&out, &disc);
        }
    }
}
