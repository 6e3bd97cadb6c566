//! Programs that know nothing of the writer read its discs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{Expected, bootable, expected, plain, write_into};
use super::{BLOCK, Content, Disc, Tree, reader};
use crate::artifact::guid::Guid;
use crate::artifact::judge::judge;
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
fn xorriso_sees_both_boot_images_and_the_partitions() {
    let (_dir, iso, region) = written(&sample());
    let args = [
        "-indev",
        &iso,
        "-report_el_torito",
        "plain",
        "-report_system_area",
        "plain",
    ];
    let Some(said) = judge("xorriso", &args) else {
        return;
    };
    let image = reader::read(&region).expect("readable");
    let boot = image.boot.expect("a catalog");
    let [bios, uefi] = [boot.entries[0].block, boot.entries[1].block];
    let [esp, iso] = &image.gpt.expect("a GPT").partitions[..] else {
        panic!("two partitions");
    };
    // Words of one line each, whose columns may be set otherwise.
    for words in [
        "Volume id : 'COS_LIVE'".to_owned(),
        format!("El Torito boot img : 1 BIOS y none 0x0000 0x00 4 {bios}"),
        format!("El Torito boot img : 2 UEFI y none 0x0000 0x00 6144 {uefi}"),
        "El Torito img path : 1 /boot/eltorito.img".to_owned(),
        "El Torito img opts : 1 boot-info-table grub2-boot-info".to_owned(),
        "El Torito img path : 2 /boot/uefi.img".to_owned(),
        "System area summary: MBR protective-msdos-label grub2-mbr cyl-align-off GPT".to_owned(),
        format!("ISO image size/512 : {}", region.len() / 512),
        "MBR partition : 2 0x80 0x00 0 1".to_owned(),
        "GPT entry array : 2 128 separated".to_owned(),
        "GPT partname local : 1 EFI system".to_owned(),
        format!("GPT start and size : 1 {} 6144", esp.first),
        "GPT partition path : 1 /boot/uefi.img".to_owned(),
        "GPT partname local : 2 ISO9660".to_owned(),
        format!("GPT start and size : 2 {} {}", iso.first, iso.sectors),
    ] {
        let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = said.lines().any(|line| plain(line) == words);
        assert!(found, "{words:?} is not in\n{said}");
    }
}

#[test]
fn xorriso_finds_every_file_where_it_was_laid_out() {
    let disc = sample();
    let (_dir, iso, _) = written(&disc);
    let args = ["-indev", &iso, "-find", "/", "-exec", "report_lba"];
    let Some(said) = judge("xorriso", &args) else {
        return;
    };
    let layout = disc.lay_out().expect("laid out");
    for (path, id) in layout.files() {
        let path = format!("'/{}'", String::from_utf8_lossy(&path));
        let line = said.lines().find(|line| line.ends_with(&path));
        let numbers = line.expect(&path).split(',').nth(1).expect("a block");
        let block: u64 = numbers.trim().parse().expect("a number");
        assert_eq!(block * BLOCK, layout.offset(id), "{path}");
    }
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
    let extent = gpt.expect("a GPT").partitions[1].extent();
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
        fs::write(&uefi, super::tests::filling(b"boot/uefi.img", 3 << 20)).expect("written");
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

/// Returns lines or paths in order, without a slash in front or at the end.
fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let trimmed = lines.map(|line| line.trim_matches('/').to_owned());
    let mut lines: Vec<String> = trimmed.filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

fn paths(volume: &reader::Volume) -> Vec<String> {
    let paths = volume.entries.iter().map(|entry| entry.path.clone());
    let paths = paths.map(|path| String::from_utf8(path).expect("UTF-8"));
    sorted(paths.collect::<Vec<_>>().iter().map(String::as_str))
}

#[test]
fn isoinfo_lists_the_tree_and_its_path_table() {
    let (_dir, iso, region) = written(&sample());
    let Some(said) = judge("isoinfo", &["-R", "-f", "-i", &iso]) else {
        return;
    };
    let primary = reader::read(&region).expect("readable").primary;
    assert_eq!(sorted(said.lines()), paths(&primary));
    let table = judge("isoinfo", &["-p", "-i", &iso]).expect("it is there");
    let dirs = primary.entries.iter();
    let dirs = dirs.filter(|entry| entry.kind == reader::Kind::Dir).count();
    // One line says where the table is.
    assert_eq!(table.lines().count(), dirs + 1, "{table}");
}

#[test]
fn libarchive_lists_the_joliet_tree() {
    let (_dir, iso, region) = written(&sample());
    let args = ["--options", "!rockridge", "-tf", &iso];
    if let Some(said) = judge("bsdtar", &args) {
        let joliet = reader::read(&region).expect("readable").joliet;
        let listed = said.lines().filter(|line| *line != ".");
        assert_eq!(sorted(listed), paths(&joliet.expect("Joliet")));
    }
}

#[test]
fn partition_programs_find_no_fault() {
    let (_dir, iso, _) = written(&sample());
    if let Some(said) = judge("sgdisk", &["-v", &iso]) {
        assert!(said.contains("No problems found"), "{said}");
    }
    if let Some(said) = judge("sfdisk", &["--verify", &iso]) {
        assert!(said.contains("No errors detected"), "{said}");
    }
    if let Some(said) = judge("fdisk", &["-l", &iso]) {
        assert!(said.contains("Disklabel type: gpt"), "{said}");
        assert!(said.contains("EFI System"), "{said}");
        assert!(said.contains("Microsoft basic data"), "{said}");
        assert!(!said.contains("not in disk order"), "{said}");
    }
}

#[test]
fn the_label_is_found_on_the_disk_and_on_its_partition() {
    let (_dir, iso, region) = written(&sample());
    let gpt = reader::read(&region).expect("readable").gpt;
    let start = gpt.expect("a GPT").partitions[1].extent().start;
    for offset in [0, start] {
        let offset = offset.to_string();
        let Some(said) = judge("blkid", &["-p", "-O", &offset, "-o", "export", &iso]) else {
            return;
        };
        let lines: Vec<&str> = said.lines().collect();
        for line in [
            "LABEL=COS_LIVE",
            "TYPE=iso9660",
            "UUID=2023-11-14-22-13-20-00",
        ] {
            assert!(lines.contains(&line), "{offset}: {said}");
        }
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

/// Makes a directory that others make discs of.
fn sources() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let from = dir.path().join("from");
    let deep = from.join("1/2/3/4/5/6/7/8/9");
    for path in [&from.join("boot"), &deep] {
        fs::create_dir_all(path).expect("made");
    }
    let write = |path: &str, bytes: Vec<u8>| fs::write(from.join(path), bytes).expect("written");
    write("boot/eltorito.img", vec![9; 30_000]);
    write("boot/uefi.img", vec![9; 1 << 20]);
    write("mbr.img", vec![0x90; 512]);
    write("empty", Vec::new());
    fs::write(deep.join("file"), b"deep").expect("written");
    std::os::unix::fs::symlink("/boot/../b", from.join("link")).expect("made");
    dir
}

/// Runs `program` in the directory of [`sources`] with `args` for one that makes `disc.iso` there, and reads that.
fn made_by(program: &str, args: &str) -> Option<reader::Image> {
    let dir = sources();
    let in_dir = |word: &str| match word.strip_prefix('@') {
        Some(path) => dir.path().join(path).to_str().expect("UTF-8").to_owned(),
        None => word.to_owned(),
    };
    let args: Vec<String> = args.split_whitespace().map(in_dir).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    judge(program, &args)?;
    let file = File::open(dir.path().join("disc.iso")).expect("there");
    let len = file.metadata().expect("there").len();
    let image = reader::read(&Region::of_file(file.into(), len)).expect("readable");
    assert_eq!(image.primary.identifiers.volume, "COS_LIVE");
    let deep = image
        .primary
        .entry("1/2/3/4/5/6/7/8/9/file")
        .expect("there");
    assert_eq!(deep.size(), 4);
    let link = &image.primary.entry("link").expect("there").kind;
    assert_eq!(*link, reader::Kind::Link(b"/boot/../b".to_vec()));
    Some(image)
}

#[test]
fn a_disc_that_xorriso_made_as_kairos_does_reads_back() {
    let args = "-as mkisofs -quiet -V COS_LIVE -R -J -partition_offset 16 --grub2-mbr @from/mbr.img --mbr-force-bootable
        -b boot/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info
        -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot
        -append_partition 2 0xef @from/boot/uefi.img -appended_part_as_gpt -o @disc.iso @from";
    let Some(image) = made_by("xorriso", args) else {
        return;
    };
    let [bios, uefi] = &image.boot.expect("a catalog").entries[..] else {
        panic!("two entries");
    };
    assert!(bios.has_grub2_info);
    let info = bios.info.expect("a boot info table");
    assert!(info.checksum_holds && info.len == 30_000);
    assert_eq!(uefi.platform, 0xef);
    let mbr = image.mbr.expect("an MBR");
    assert_eq!(mbr.grub_sector, u64::from(bios.block) * 4 + 4);
    let partitions = image.gpt.expect("a GPT").partitions;
    let mut kinds = partitions.iter().map(|partition| partition.kind);
    assert!(kinds.any(|kind| kind == Guid::EFI_SYSTEM));
    assert!(image.joliet.expect("Joliet").entry("empty").is_some());
}

#[test]
fn directories_that_genisoimage_moved_are_where_they_belong() {
    let args = "-quiet -V COS_LIVE -R -J -o @disc.iso @from";
    if let Some(image) = made_by("genisoimage", args) {
        assert!(image.boot.is_none() && image.gpt.is_none());
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
