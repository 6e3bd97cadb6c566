//! The tree of an image is the one that its layers make when they are unpacked, whatever is in them.

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::metadata::Device;
use kfactory_layers::tar::ArchiveWriter;
use proptest::prelude::*;

use super::super::list::{MAX_ENTRIES, MAX_KEPT_BYTES, MAX_NAME_BYTES, MAX_XATTR_BYTES};
use super::*;

/// Returns a layer of these names: one that ends in `/` is a directory, any other an empty file or a whiteout.
fn layer(names: &[String]) -> Vec<u8> {
    let mut archive = ArchiveWriter::new(Vec::new());
    for name in names {
        let kind = match name.ends_with('/') {
            true => EntryKind::Directory,
            false => EntryKind::File { size: 0 },
        };
        let entry = Entry::new(name.trim_end_matches('/'), kind);
        archive.append(&entry, io::empty()).unwrap();
    }
    archive.finish().unwrap()
}

fn reading(kept: fn(&Path) -> bool) -> Reading {
    let wanted = Wanted {
        kept,
        digests: false,
    };
    Reading::new(tempfile::tempfile().unwrap(), wanted).unwrap()
}

/// Returns every path of the tree that the layers make, directories with a slash; `None` where one is refused.
fn read(layers: &[Vec<u8>]) -> Option<Vec<String>> {
    try_read(layers).ok()
}

fn try_read(layers: &[Vec<u8>]) -> Result<Vec<String>> {
    let mut reading = reading(|_| false);
    for (index, bytes) in layers.iter().enumerate() {
        let mut archive = ArchiveReader::new(bytes.as_slice());
        reading.layer(index, &mut archive)?;
    }
    let tree = reading.finish();
    let mut paths = Vec::new();
    tree.walk("", &mut |path, node| {
        let slash = if node.is_dir() { "/" } else { "" };
        paths.push(format!("{}{slash}", path.display()));
    });
    paths.retain(|path| path != "/");
    paths.sort();
    Ok(paths)
}

/// As [`read`], of what applying the layers to a directory makes.
fn applied(layers: &[Vec<u8>]) -> Option<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for bytes in layers {
        try_apply(dir.path(), bytes).ok()?;
    }
    let entries = walkdir::WalkDir::new(dir.path()).min_depth(1);
    let path = |entry: walkdir::Result<walkdir::DirEntry>| {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(dir.path()).unwrap();
        let slash = if entry.file_type().is_dir() { "/" } else { "" };
        format!("{}{slash}", path.display())
    };
    let mut paths: Vec<String> = entries.into_iter().map(path).collect();
    paths.sort();
    Some(paths)
}

fn try_apply(dir: &Path, layer: &[u8]) -> Result<(), ApplyError> {
    let root = kfactory_layers::root::Root::open(dir).unwrap();
    let options = ApplyOptions {
        ownership: Ownership::AsFarAsAllowed,
        ..ApplyOptions::default()
    };
    apply(&root, layer, &options).map(drop)
}

#[test]
fn what_applying_refuses_is_refused_in_the_same_words() {
    let link = |path: &str, target: &str| {
        let target = target.into();
        Entry::new(path, EntryKind::Symlink { target })
    };
    let file = |path: &str| Entry::new(path, EntryKind::File { size: 0 });
    let hard = EntryKind::HardLink {
        target: "etc/../../passwd".into(),
    };
    let deep = "d/".repeat(limits::MAX_DEPTH + 1) + "file";
    let behind = "l/".to_owned() + &"e/".repeat(limits::MAX_DEPTH) + "file";
    let hard_to = |target: &str| {
        let target = target.into();
        Entry::new("./other", EntryKind::HardLink { target })
    };
    let long = "n".repeat(limits::MAX_NAME_BYTES + 1);
    let cases = [
        vec![link(".", "/")],
        vec![link("./", "usr")],
        vec![file(".")],
        vec![file("../passwd")],
        vec![Entry::new("passwd", hard)],
        vec![Entry::new("gone", EntryKind::CharDevice(Device::WHITEOUT))],
        vec![file("etc/.wh.")],
        vec![file(&deep)],
        vec![link("l", "a/b"), file(&behind)],
        vec![file(&(("n".repeat(20) + "/").repeat(200) + "file"))],
        vec![file(&long)],
        vec![file(&format!(".wh.{long}"))],
        vec![link("l", &"t/".repeat(2048))],
        vec![hard_to("none")],
        vec![hard_to("none/none")],
        vec![hard_to(".")],
        vec![hard_to(&deep)],
        vec![file("dir/file"), hard_to("dir")],
        vec![file("file"), hard_to("file/none")],
        vec![file("file"), file("file/none")],
        vec![link("l", "l"), file("l/none")],
        vec![link("l", "l"), hard_to("l/none")],
    ];
    for entries in cases {
        let mut archive = ArchiveWriter::new(Vec::new());
        for entry in &entries {
            archive.append(entry, io::empty()).unwrap();
        }
        let layer = archive.finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let applied = try_apply(dir.path(), &layer).expect_err("refused");
        let read = try_read(&[layer]).expect_err("refused");
        assert_eq!(read.render_text(), refused(applied).render_text());
    }
}

#[test]
fn what_would_fill_the_memory_is_refused() {
    let mut entry = Entry::new("a/b/c", EntryKind::File { size: 0 });
    entry.xattrs.insert(b"user.x".to_vec(), vec![0; 100]);
    let mut archive = ArchiveWriter::new(Vec::new());
    archive.append(&entry, io::empty()).unwrap();
    let layer = archive.finish().unwrap();
    for (entries, directories, xattr_bytes, name_bytes, word) in [
        (MAX_ENTRIES, 0, 0, 0, "more than 4000000 entries"),
        // The first of two that the entry implies is allowed.
        (0, MAX_DIRECTORIES - 1, 0, 0, "more than 500000 directories"),
        (
            0,
            0,
            MAX_XATTR_BYTES - 100,
            0,
            "attributes take more than 256 MiB",
        ),
        (
            0,
            0,
            0,
            MAX_NAME_BYTES - 1,
            "paths and link targets take more than 512 MiB",
        ),
    ] {
        let mut reading = reading(|_| false);
        reading.room.entries = entries.into();
        reading.growing.directories = directories;
        reading.room.xattr_bytes = xattr_bytes.into();
        reading.room.name_bytes = name_bytes.into();
        let error = reading.layer(0, &mut ArchiveReader::new(layer.as_slice()));
        let error = error.unwrap_err().render_text();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_hard_link_is_found_where_links_lead() {
    let target = "usr/lib".into();
    let hard = EntryKind::HardLink {
        target: "lib/file".into(),
    };
    let mut archive = ArchiveWriter::new(Vec::new());
    for entry in [
        Entry::new("lib", EntryKind::Symlink { target }),
        Entry::new("usr/lib/file", EntryKind::File { size: 0 }),
        Entry::new("other", hard),
    ] {
        archive.append(&entry, io::empty()).unwrap();
    }
    let layers = [archive.finish().unwrap()];
    assert!(read(&layers).is_some());
    assert_eq!(read(&layers), applied(&layers));
}

#[test]
fn what_would_fill_the_disk_is_not_kept() {
    let size = MAX_KEPT_BYTES + 1;
    let mut bytes = Vec::new();
    // The header is enough: the content never comes.
    let entry = Entry::new("boot/initrd", EntryKind::File { size });
    let _ = ArchiveWriter::new(&mut bytes).append(&entry, io::empty());
    let mut reading = reading(|_| true);
    let error = reading
        .layer(0, &mut ArchiveReader::new(bytes.as_slice()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"boot/initrd\" has 16.0 GiB: with it, more than 16.0 GiB of files are to be read"
    );
}

#[test]
fn a_whiteout_leaves_what_its_own_layer_brings_wherever_it_stands() {
    let lower = ["etc/old", "etc/conf/old"];
    for upper in [
        ["etc/conf/os-release", "etc/.wh.conf"],
        ["etc/.wh.conf", "etc/conf/os-release"],
        ["etc/conf/os-release", "etc/conf/.wh..wh..opq"],
    ] {
        let layers = [lower, upper].map(|names| layer(&names.map(str::to_owned)));
        let wanted = ["etc/", "etc/conf/", "etc/conf/os-release", "etc/old"];
        assert_eq!(read(&layers).unwrap(), wanted, "{upper:?}");
    }
}

#[test]
fn a_whiteout_where_nothing_is_makes_nothing() {
    let layers = [
        &["file"][..],
        &["none/.wh.x", "file/.wh.x", "no/.wh..wh..opq"],
    ]
    .map(|names| {
        layer(
            &names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>(),
        )
    });
    assert_eq!(read(&layers).unwrap(), ["file"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_tree_read_from_layers_is_the_one_that_applying_them_makes(
        layers in prop::collection::vec(
            prop::collection::vec("(a/|b/){0,2}(a|b|a/|b/|\\.wh\\.a|\\.wh\\.b|\\.wh\\.\\.wh\\.opq|\\.wh\\.)", 1..6),
            1..4,
        )
    ) {
        let layers: Vec<Vec<u8>> = layers.iter().map(|names| layer(names)).collect();
        prop_assert_eq!(read(&layers), applied(&layers));
    }
}
