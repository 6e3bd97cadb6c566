//! The ext4 writer against `e2fsck`, `debugfs` and `dumpe2fs`, and what it refuses.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::*;
use crate::artifact::judge::judge;
use crate::tree::samples::Sample;

const EPOCH: i64 = 1_709_251_199;

fn volume(label: &str, size: Size) -> Volume {
    Volume {
        label: label.to_owned(),
        uuid: Guid::of_name(Guid::URL, label),
        epoch: EPOCH,
        size,
        journal: Journal::Smallest,
    }
}

fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp::from_secs(EPOCH),
    }
}

/// A disk whose region starts somewhere in its file.
fn disk(size: u64) -> (tempfile::NamedTempFile, Region) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(size).expect("room");
    let handle: File = file.reopen().expect("the file");
    (file, Region::of_file(Arc::new(handle), size))
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("a plain path")
}

/// Has e2fsck find nothing to say about it; tells whether it could be asked.
fn is_sound(image: &str) -> bool {
    let Some(said) = judge("e2fsck", &["-fn", image]) else {
        return false;
    };
    // Its version, five passes, and how much is used: whatever it finds is one line more.
    assert!(said.lines().count() == 7, "{said}");
    true
}

fn debugfs(image: &str, request: &str) -> String {
    judge("debugfs", &["-R", request, image]).expect("it comes with e2fsck")
}

/// Every file's content is its size, as a text, over and over.
fn fill(layout: &Layout, volume: &Region, but: Option<FileId>) {
    for file in layout.files().filter(|file| Some(*file) != but) {
        let content = layout.region(volume, file).expect("inside");
        let text = format!("{} ", content.len());
        let bytes: Vec<u8> = text.bytes().cycle().take(content.len() as usize).collect();
        content.write_all_at(&bytes, 0).expect("written");
    }
}

fn made(builder: Builder) -> (tempfile::NamedTempFile, Layout) {
    let layout = builder.layout().expect("a layout");
    let (file, region) = disk(layout.size());
    layout.write(&region).expect("written");
    fill(&layout, &region, None);
    (file, layout)
}

fn of_tree(tree: &Tree, size: Size) -> (tempfile::NamedTempFile, Layout) {
    let mut builder = Builder::new(volume("COS_SYSTEM", size));
    builder.tree(tree);
    made(builder)
}

#[test]
fn owners_modes_times_devices_links_and_attributes_are_those_of_the_tree() {
    let long = "x/".repeat(1000);
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 0xE8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let device = |major, minor| Device { major, minor };
    let tree = Sample::new()
        .file("usr/bin/su", 0o4755, b"setuid")
        .edit("usr/bin/su", |node| {
            (node.uid, node.gid) = (70_000, 100_001);
            node.mtime = Timestamp {
                secs: 1_600_000_000,
                nanos: 5,
            };
        })
        .file("usr/bin/ping", 0o755, b"capable")
        .edit("usr/bin/ping", |node| {
            let list = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
            let all = [
                list(b"security.capability", &capability),
                list(b"user.long", &[b'v'; 3000]),
                list(b"system.posix_acl_access", &acl),
            ];
            node.xattrs = Some(Box::new(all.into_iter().collect()));
        })
        .link("short", "usr/bin")
        .link("long", &long)
        .link("Größe", "日本語")
        .dir("tmp", 0o1777)
        .dir("lost+found", 0o700)
        .dir("dev/null", 0)
        .edit("dev/null", |node| {
            node.kind = Kind::CharDevice(device(1, 3))
        })
        .dir("dev/vda", 0)
        .edit("dev/vda", |node| {
            node.kind = Kind::BlockDevice(device(259, 70_000))
        })
        .dir("dev/pipe", 0)
        .edit("dev/pipe", |node| node.kind = Kind::Pipe)
        .tree();
    let (file, _) = of_tree(&tree, Size::Margin(0));
    let image = path(&file);
    if !is_sound(image) {
        return;
    }
    let su = debugfs(image, "stat usr/bin/su");
    for text in [
        "Mode:  04755",
        "User: 70000   Group: 100001",
        "Size: 6",
        "0x5f5e1000:00000014",
    ] {
        assert!(su.contains(text), "{text}: {su}");
    }
    let ping = debugfs(image, "ea_list usr/bin/ping");
    for text in [
        "security.capability (20)",
        "user.long (3000)",
        "posix_acl_access (28)",
    ] {
        assert!(ping.contains(text), "{text}: {ping}");
    }
    let seen = debugfs(image, "ea_get -x usr/bin/ping system.posix_acl_access");
    assert!(seen.contains("02 00 07 00 e8 03 00 00"), "{seen}");
    assert!(debugfs(image, "stat short").contains("Fast link dest: \"usr/bin\""));
    assert!(debugfs(image, "cat long").contains(&long));
    assert!(debugfs(image, "stat Größe").contains("日本語"));
    assert!(debugfs(image, "stat tmp").contains("Mode:  01777"));
    assert!(debugfs(image, "stat dev/null").contains("Device major/minor number: 01:03"));
    assert!(debugfs(image, "stat dev/vda").contains("Device major/minor number: 259:70000"));
    assert!(debugfs(image, "stat dev/pipe").contains("Type: FIFO"));
    let said = judge("dumpe2fs", &["-h", image]).expect("it comes with e2fsck");
    let uuid = Guid::of_name(Guid::URL, "COS_SYSTEM").to_string();
    for text in ["COS_SYSTEM", &uuid, "Thu Feb 29 23:59:59 2024", "1024"] {
        assert!(said.contains(text), "{text}: {said}");
    }
}

#[test]
fn names_of_one_file_are_one_inode() {
    let tree = Sample::new().file("a/one", 0o644, b"same").tree();
    let node = tree.top().names().expect("a directory")[OsStr::new("a")].clone();
    let tree = Sample::new()
        .dir("a", 0o755)
        .dir("b", 0o755)
        .edit("a", |a| *a = node.clone())
        .edit("b", |b| *b = node)
        .tree();
    let (file, layout) = of_tree(&tree, Size::Margin(0));
    assert_eq!(layout.files().count(), 1);
    if is_sound(path(&file)) {
        assert!(debugfs(path(&file), "stat a/one").contains("Links: 2"));
        assert!(debugfs(path(&file), "cat b/one").starts_with("4 4 "));
    }
}

#[test]
fn contents_lie_in_the_order_of_the_ids_and_come_out_as_they_went_in() {
    let mut sample = Sample::new();
    for n in [70usize, 3, 4096, 4097, 0, 300_000, 9_000_000] {
        sample = sample.file(&format!("d{n}/{n}"), 0o644, &vec![1; n]);
    }
    let (file, layout) = of_tree(&sample.tree(), Size::Margin(0));
    let starts: Vec<u64> = layout
        .files()
        .filter_map(|file| Some(layout.extents(file).first()?.start))
        .collect();
    assert!(starts.is_sorted() && starts.len() == 6, "{starts:?}");
    if !is_sound(path(&file)) {
        return;
    }
    let out = tempfile::tempdir().expect("a directory");
    debugfs(path(&file), &format!("rdump / {}", out.path().display()));
    for n in [70usize, 3, 4096, 4097, 0, 300_000, 9_000_000] {
        let bytes = fs::read(out.path().join(format!("d{n}/{n}"))).expect("the file");
        assert_eq!(bytes.len(), n);
        assert!(
            bytes
                .iter()
                .eq(format!("{n} ").as_bytes().iter().cycle().take(n)),
            "{n}"
        );
    }
}

#[test]
fn a_directory_of_many_names_has_them_all() {
    let mut sample = Sample::new().dir("many", 0o755);
    let name = |n: usize| format!("{n:05}-{}", "long".repeat(n % 50));
    let mut below = Sample::new();
    for n in 0..12_000 {
        below = below.file(&name(n), 0o644, b"");
    }
    let below = below.tree().top().clone();
    sample = sample.edit("many", |many| *many = below);
    let (file, _) = of_tree(&sample.tree(), Size::Margin(0));
    if is_sound(path(&file)) {
        let listed = debugfs(path(&file), "ls -p many");
        assert_eq!(
            listed.lines().filter(|line| line.starts_with('/')).count(),
            12_002,
            "with `.` and `..`"
        );
    }
}

#[test]
fn what_was_computed_is_large_enough_and_not_much_too_large() {
    for (count, size) in [
        (0, 0),
        (3, 60_000_000),
        (9_000, 100),
        (25_000, 0),
        (5, 300_000_000),
    ] {
        let mut builder = Builder::new(volume("x", Size::Margin(0)));
        for n in 0..count {
            builder
                .file(&format!("dir{}/{n}", n / 100), meta(0o644), size)
                .expect("a file");
        }
        let layout = builder.layout().expect("a layout");
        let (file, region) = disk(layout.size());
        layout.write(&region).expect("written");
        assert!(is_sound(path(&file)) || judge("e2fsck", &["-V"]).is_none());
        let content = count * (size.next_multiple_of(BLOCK_BYTES) + 256);
        let most = content + content / 20 + (32 << 20);
        assert!(
            layout.size() <= most,
            "{count} files of {size}: {} bytes",
            layout.size()
        );
    }
}

#[test]
fn a_margin_is_free_and_a_size_given_is_kept() {
    let layout = |size| {
        let mut builder = Builder::new(volume("x", size));
        builder.file("f", meta(0o644), 20 << 20).expect("a file");
        builder.layout()
    };
    let size = |size| layout(size).expect("a layout").size();
    let more = (size(Size::Margin(300 << 20)) - size(Size::Margin(0))) >> 20;
    assert!(
        (300..310).contains(&more),
        "{more} MiB, with what two more block groups take"
    );
    assert_eq!(size(Size::Exact(64 << 20)), 64 << 20);
    // Four blocks are no block group.
    assert_eq!(size(Size::Exact((128 << 20) + 16_384)), 128 << 20);
    let said = layout(Size::Exact(20 << 20)).expect_err("full").to_string();
    assert!(said.contains("of 20971520 bytes has no room"), "{said}");
    for none in [0, 1 << 20] {
        assert!(
            matches!(layout(Size::Exact(none)), Err(Ext4Error::Size(_))),
            "{none}"
        );
    }
}

#[test]
fn every_size_of_a_last_group_is_sound() {
    for mib in [16, 127, 128, 129, 130, 131, 140, 257, 2049, 2177] {
        for journal in [Journal::Smallest, Journal::Usual] {
            let volume = Volume {
                journal,
                ..volume("x", Size::Exact(mib << 20))
            };
            let (file, layout) = made(Builder::new(volume));
            assert!(
                layout.size() <= mib << 20 && layout.size() >= (mib - 3) << 20,
                "{mib}"
            );
            if !is_sound(path(&file)) {
                return;
            }
        }
    }
}

#[test]
fn a_file_system_in_a_file_of_another_is_written_in_place() {
    let tree = Sample::new()
        .file("etc/os-release", 0o644, &[b'x'; 30_000])
        .tree();
    let mut inner = Builder::new(volume("COS_SYSTEM", Size::Margin(150 << 20)));
    inner.tree(&tree);
    let inner = inner.layout().expect("a layout");
    let mut outer = Builder::new(volume("COS_RECOVERY", Size::Margin(10 << 20)));
    let recovery = outer
        .file("cOS/recovery.img", meta(0o644), inner.size())
        .expect("a file");
    outer
        .file("etc/cos/grub.cfg", meta(0o644), 12)
        .expect("a file");
    let outer = outer.layout().expect("a layout");
    assert!(outer.extents(recovery).len() > 1, "it is in several pieces");
    // As in a partition: not at the start of the disk.
    let (file, region) = disk((1 << 20) + outer.size());
    let partition = Extent {
        start: 1 << 20,
        len: outer.size(),
    };
    let partition = region.part(&[partition]).expect("inside");
    outer.write(&partition).expect("written");
    fill(&outer, &partition, Some(recovery));
    let place = outer.region(&partition, recovery).expect("inside");
    inner.write(&place).expect("written");
    fill(&inner, &place, None);

    let whole = format!("{}?offset={}", path(&file), 1 << 20);
    if judge("e2fsck", &["-fn", &whole]).is_none() {
        return;
    }
    let out = tempfile::NamedTempFile::new().expect("a file");
    debugfs(&whole, &format!("dump cOS/recovery.img {}", path(&out)));
    assert!(is_sound(path(&out)));
    assert!(debugfs(path(&out), "cat etc/os-release").contains("30000 30000 30000"));
}

#[test]
fn grub_reads_it() {
    let tree = Sample::new()
        .file("boot/vmlinuz-6.1", 0o644, &[7; 5_000_000])
        .link("boot/vmlinuz", "vmlinuz-6.1")
        .tree();
    let (file, _) = of_tree(&tree, Size::Margin(1 << 20));
    let Some(listed) = judge("grub-fstest", &[path(&file), "ls", "(loop0)/boot"]) else {
        return;
    };
    assert!(listed.contains("vmlinuz-6.1"), "{listed}");
    let sum = judge("grub-fstest", &[path(&file), "crc", "(loop0)/boot/vmlinuz"])
        .expect("grub-fstest is there");
    let content: Vec<u8> = "5000000 ".bytes().cycle().take(5_000_000).collect();
    let expected = format!("{:08x}", crc32fast::hash(&content));
    assert!(sum.to_lowercase().contains(&expected), "{sum}, {expected}");
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let tree = || {
        Sample::new()
            .file("a", 0o644, b"1")
            .file("b/c", 0o600, b"22")
            .link("l", "a")
            .tree()
    };
    let bytes = || fs::read(of_tree(&tree(), Size::Margin(0)).0.path()).expect("the image");
    assert!(bytes() == bytes());
}

#[test]
fn what_is_added_stands_in_place_of_files_but_not_of_directories() {
    let tree = Sample::new()
        .file("etc/a", 0o644, b"1")
        .file("etc/b", 0o644, b"1")
        .tree();
    let mut builder = Builder::new(volume("x", Size::Margin(0)));
    builder.tree(&tree);
    let added = builder
        .file("/etc/a", meta(0o600), 5)
        .expect("in place of the tree's");
    builder.dir("etc", meta(0o700)).expect("there already");
    builder
        .symlink("new/dir/link", "../x", meta(0o777))
        .expect("parents are made");
    for (path, why) in [
        ("etc", "it is a directory already"),
        ("etc/b/c", "something above it is no directory"),
        ("../x", "its path leads out of it"),
        ("lost+found/x", "that directory is the file system's own"),
    ] {
        let said = builder
            .file(path, meta(0o644), 1)
            .expect_err(why)
            .to_string();
        assert!(said.contains(why) && said.contains(path), "{said}");
    }
    let (file, layout) = made(builder);
    assert_eq!(layout.extents(added)[0].len, 5);
    if is_sound(path(&file)) {
        assert!(debugfs(path(&file), "stat etc/a").contains("Mode:  0600"));
        assert!(debugfs(path(&file), "stat etc").contains("Mode:  0700"));
        assert!(debugfs(path(&file), "ls -p etc").contains("/b/"));
    }
}

#[test]
fn what_ext4_cannot_hold_is_refused_by_name() {
    let said = |sample: Sample| {
        let mut builder = Builder::new(volume("x", Size::Margin(0)));
        builder.tree(&sample.tree());
        builder.layout().expect_err("refused").to_string()
    };
    let strange = OsStr::from_bytes(b"a\xffb");
    let node = Sample::new().file("f", 0o644, b"").tree().top().clone();
    let with_name = Sample::new().dir("d", 0o755).edit("d", |d| {
        let Kind::Directory(names) = &mut d.kind else {
            return;
        };
        names.insert(strange.to_owned(), node);
    });
    let with_attribute = |name: &[u8], value: &[u8]| {
        let list = [(name.to_vec(), value.to_vec())];
        let sample = Sample::new().file("f", 0o644, b"");
        sample.edit("f", |node| {
            node.xattrs = Some(Box::new(list.into_iter().collect()))
        })
    };
    let device = Kind::CharDevice(Device {
        major: 5000,
        minor: 0,
    });
    for (sample, why) in [
        (
            with_name,
            "\"d/a\\xFFb\" cannot be on an ext4 file system: its name is not UTF-8",
        ),
        (
            Sample::new().link("l", &"x".repeat(4096)),
            "\"l\" cannot be",
        ),
        (with_attribute(b"user.x", &[0; 5000]), "have 5026 bytes"),
        (with_attribute(b"odd.x", b""), "\"odd.x\""),
        (
            with_attribute(b"system.posix_acl_access", b"zzz"),
            "is no access list",
        ),
        (
            Sample::new().dir("d", 0).edit("d", |d| d.kind = device),
            "no such device number",
        ),
    ] {
        let said = said(sample);
        assert!(said.contains(why), "{said}");
    }
    let label = volume("seventeen letters", Size::Margin(0));
    assert!(matches!(
        Builder::new(label).layout(),
        Err(Ext4Error::Label(_))
    ));
}
