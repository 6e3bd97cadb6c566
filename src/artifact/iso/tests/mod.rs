//! What is laid out, written and read back is what was described.

mod any_tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::reader::{self, Kind as Read, Volume};
use super::tree::Kind;
use super::*;
use crate::artifact::guid::Guid;
use crate::artifact::region::Region;

const TIME: i64 = 1_700_000_000;

/// Returns a disc without boot images.
pub(super) fn plain(tree: Tree) -> Disc {
    Disc {
        identifiers: Identifiers {
            volume: "COS_LIVE".to_owned(),
            publisher: "Somebody, somewhere".to_owned(),
            ..Identifiers::default()
        },
        time_secs: TIME,
        tree,
        bios: None,
        uefi: None,
        hybrid: None,
    }
}

/// Returns a disc that boots in every way, with `tree` beside what it boots.
pub(super) fn bootable(mut tree: Tree) -> Disc {
    let image = Content::Bytes(
        (0..200_001u32)
            .map(|n| (n.wrapping_mul(n) >> 3) as u8)
            .collect(),
    );
    let image = tree.file("boot/eltorito.img", 0o644, image).expect("new");
    let uefi = Content::Later(3 << 20);
    let uefi = tree.file("boot/uefi.img", 0o644, uefi).expect("new");
    Disc {
        bios: Some(image),
        uefi: Some(uefi),
        hybrid: Some(Hybrid {
            boot_code: Some(vec![0x90; 512]),
            disk: Guid::new(1),
            iso: Guid::new(2),
            esp: Guid::new(3),
        }),
        ..plain(tree)
    }
}

/// Writes the disc into a file without a name, with bytes for contents that come later.
pub(super) fn write(disc: &Disc, last_size: u64) -> Region {
    write_into(tempfile::tempfile().expect("a file"), disc, last_size)
}

/// Writes the disc into an empty file.
pub(super) fn write_into(file: File, disc: &Disc, last_size: u64) -> Region {
    let layout = disc.clone().lay_out().expect("laid out");
    let metadata = layout.finish(last_size).expect("finished");
    file.set_len(metadata.len).expect("room for holes");
    let region = Region::of_file(Arc::new(file), metadata.len);
    for (path, id) in layout.files() {
        let size = match disc.tree.content(id.0) {
            Some(Content::Later(size)) => *size,
            Some(Content::Last { .. }) => last_size,
            _ => continue,
        };
        let content = filling(&path, size);
        region
            .write_all_at(&content, layout.offset(id))
            .expect("inside");
    }
    for piece in &metadata.pieces {
        region
            .write_all_at(&piece.bytes, piece.offset)
            .expect("inside");
    }
    region
}

/// Bytes that differ from path to path.
pub(super) fn filling(path: &[u8], size: u64) -> Vec<u8> {
    let seed = path
        .iter()
        .fold(7u64, |sum, byte| sum * 31 % 65_521 + u64::from(*byte));
    (0..size).map(|at| ((at * seed) >> 5) as u8).collect()
}

/// A path as it was described: type bits and permissions, and what it holds or leads to.
pub(super) type Expected = (u32, Option<Vec<u8>>);

/// Returns what a disc holds by path.
pub(super) fn expected(disc: &Disc, last_size: u64) -> BTreeMap<Vec<u8>, Expected> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(Vec::new(), 0)];
    while let Some((path, at)) = todo.pop() {
        let node = &disc.tree.nodes[at];
        let (kind, content) = match &node.kind {
            Kind::Dir(children) => {
                for (name, child) in children {
                    let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    todo.push(([&path[..], separator, name].concat(), *child));
                }
                (0o040_000, None)
            }
            Kind::Link(target) => (0o120_000, Some(target.clone())),
            Kind::File(Content::Bytes(bytes)) => (0o100_000, Some(bytes.clone())),
            Kind::File(Content::Later(size)) => (0o100_000, Some(filling(&path, *size))),
            Kind::File(Content::Last { .. }) => (0o100_000, Some(filling(&path, last_size))),
        };
        found.insert(path, (kind | node.mode, content));
    }
    found
}

fn seen(disc: &Region, volume: &Volume) -> BTreeMap<Vec<u8>, Expected> {
    let entries = volume.entries.iter().map(|entry| {
        let content = match &entry.kind {
            Read::Dir | Read::Other => None,
            Read::Link(target) => Some(target.clone()),
            Read::File(extents) => {
                let mut bytes = vec![0; entry.size() as usize];
                let content = disc.part(extents).expect("on the disc");
                content.read_exact_at(&mut bytes, 0).expect("read");
                Some(bytes)
            }
        };
        assert_eq!(entry.time_secs, TIME);
        let posix = entry.posix.expect("Rock Ridge");
        assert_eq!((posix.uid, posix.gid), (0, 0));
        (entry.path.clone(), (posix.mode, content))
    });
    entries.collect()
}

#[test]
fn a_bootable_disc_reads_back_whole() {
    let mut tree = Tree::new();
    tree.file(
        "rootfs.squashfs",
        0o644,
        Content::Last { at_most: 64 << 30 },
    )
    .expect("new");
    tree.file("boot/kernel", 0o644, Content::Later(100_000))
        .expect("new");
    tree.file("config.yaml", 0o600, Content::Bytes(Vec::new()))
        .expect("new");
    let disc = bootable(tree);
    let region = write(&disc, 1_234_567);
    let image = reader::read(&region).expect("readable");

    let mut wanted = expected(&disc, 1_234_567);
    let mut found = seen(&region, &image.primary);
    // What was patched into the boot image is looked at below.
    for list in [&mut wanted, &mut found] {
        let bytes = list.get_mut(&b"boot/eltorito.img"[..]).expect("there");
        bytes.1.as_mut().expect("a file")[8..64].fill(0);
        bytes.1.as_mut().expect("a file")[2548..2556].fill(0);
    }
    assert!(found == wanted);
    assert_eq!(image.primary.identifiers, disc.identifiers);
    assert_eq!(image.primary.created, "2023111422132000");
    assert_eq!(u64::from(image.primary.blocks) * BLOCK, region.len());

    let place = |path: &str| match &image.primary.entry(path).expect("there").kind {
        Read::File(extents) => extents[0],
        _ => panic!("{path} is no file"),
    };
    let boot = image.boot.expect("a catalog");
    let [bios, uefi] = &boot.entries[..] else {
        panic!("{boot:?}");
    };
    assert_eq!(
        (bios.platform, bios.sectors, bios.is_bootable),
        (0, 4, true)
    );
    assert_eq!(
        u64::from(bios.block) * BLOCK,
        place("boot/eltorito.img").start
    );
    assert!(bios.has_grub2_info);
    let info = bios.info.expect("a boot info table");
    assert_eq!((info.len, info.checksum_holds), (200_001, true));
    assert_eq!((uefi.platform, uefi.sectors), (0xef, 6144));
    assert_eq!(u64::from(uefi.block) * BLOCK, place("boot/uefi.img").start);

    let mbr = image.mbr.expect("an MBR");
    assert!(mbr.has_code);
    assert_eq!(mbr.grub_sector, u64::from(bios.block) * 4 + 4);
    assert!(mbr.partitions.iter().any(|partition| partition.is_active));
    let gpt = image.gpt.expect("a GPT").expect("sound");
    let [esp, iso] = &gpt.partitions[..] else {
        panic!("{gpt:?}");
    };
    assert_eq!(esp.extent(), place("boot/uefi.img"), "stored once");
    assert_eq!(esp.kind, Guid::EFI_SYSTEM);

    let partition = region.part(&[iso.extent()]).expect("on the disk");
    let inner = reader::read(&partition).expect("a disc of its own");
    wanted.remove(&b"boot/uefi.img"[..]);
    let mut found = seen(&partition, &inner.primary);
    let patched = found.get_mut(&b"boot/eltorito.img"[..]).expect("there");
    patched.1 = wanted[&b"boot/eltorito.img"[..]].1.clone();
    assert!(found == wanted, "the partition lacks the UEFI image alone");
    assert_eq!(inner.primary.identifiers.volume, "COS_LIVE");
    assert_eq!(u64::from(inner.primary.blocks) * BLOCK, partition.len());
}

#[test]
fn no_byte_is_written_twice_and_none_where_contents_go() {
    let mut tree = Tree::new();
    for at in 0..300 {
        tree.file(
            format!("dir{}/file{at}", at % 7),
            0o644,
            Content::Later(at * 100),
        )
        .expect("new");
    }
    tree.file("last", 0o644, Content::Last { at_most: 1 << 40 })
        .expect("new");
    let disc = bootable(tree);
    let layout = disc.clone().lay_out().expect("laid out");
    let metadata = layout.finish(5_000_000_000).expect("finished");
    let mut taken: Vec<(u64, u64)> = metadata
        .pieces
        .iter()
        .map(|piece| (piece.offset, piece.bytes.len() as u64))
        .collect();
    for (_, id) in layout.files() {
        taken.push(match disc.tree.content(id.0) {
            Some(Content::Later(size)) => (layout.offset(id), *size),
            Some(Content::Last { .. }) => (layout.offset(id), 5_000_000_000),
            _ => continue,
        });
    }
    taken.retain(|(_, len)| *len > 0);
    taken.sort_unstable();
    for two in taken.windows(2) {
        assert!(two[0].0 + two[0].1 <= two[1].0, "{two:?}");
    }
    let (start, len) = taken.last().expect("not empty");
    assert_eq!(start + len, metadata.len);
}

#[test]
fn the_last_file_may_have_any_size_up_to_what_was_said() {
    const GIB: u64 = 1 << 30;
    let mut tree = Tree::new();
    let last = tree
        .file(
            "rootfs.squashfs",
            0o644,
            Content::Last { at_most: 64 * GIB },
        )
        .expect("new");
    tree.file("zzz", 0o644, Content::Bytes(b"after it".to_vec()))
        .expect("new");
    let layout = bootable(tree).lay_out().expect("laid out");
    for size in [0, 1, 4 * GIB - 2048, 4 * GIB - 2047, 4 * GIB, 64 * GIB] {
        let metadata = layout.finish(size).expect("finished");
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        file.set_len(metadata.len).expect("room for holes");
        let region = Region::of_file(file, metadata.len);
        for piece in &metadata.pieces {
            region
                .write_all_at(&piece.bytes, piece.offset)
                .expect("inside");
        }
        let image = reader::read(&region).expect("readable");
        for volume in [&image.primary, image.joliet.as_ref().expect("Joliet")] {
            let entry = volume.entry("rootfs.squashfs").expect("there");
            assert_eq!(entry.size(), size);
            let Read::File(extents) = &entry.kind else {
                panic!("{entry:?}");
            };
            assert_eq!(extents[0].start, layout.offset(last));
            for two in extents.windows(2) {
                assert_eq!(two[0].start + two[0].len, two[1].start);
            }
            assert_eq!(volume.entry("zzz").expect("there").size(), 8);
        }
    }
    let error = layout.finish(64 * GIB + 1).expect_err("too large");
    assert!(error.to_string().starts_with("\"rootfs.squashfs\" has "));
}

#[test]
fn joliet_names_lead_to_the_same_bytes() {
    let mut tree = Tree::new();
    tree.file("Käse/Über.txt", 0o644, Content::Later(10))
        .expect("new");
    tree.symlink("Käse/link", "Über.txt").expect("new");
    let region = write(&plain(tree), 0);
    let image = reader::read(&region).expect("readable");
    let joliet = image.joliet.expect("Joliet");
    let paths: Vec<_> = joliet
        .entries
        .iter()
        .map(|entry| entry.path.as_slice())
        .collect();
    assert_eq!(
        paths,
        [&b""[..], "Käse".as_bytes(), "Käse/Über.txt".as_bytes()]
    );
    let same = |volume: &Volume| {
        volume
            .entry("Käse/Über.txt")
            .map(|entry| entry.kind.clone())
    };
    assert_eq!(same(&joliet), same(&image.primary));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |disc: Disc, words: &str| {
        let error = disc.lay_out().expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    };
    let mut disc = plain(Tree::new());
    disc.identifiers.volume = "x".repeat(33);
    refused(disc.clone(), "the volume label \"xxx");
    disc.identifiers.volume = "Käse".to_owned();
    refused(disc.clone(), "not printable ASCII");
    disc.identifiers.volume.clear();
    refused(disc, "is empty");
    let mut disc = plain(Tree::new());
    disc.time_secs = 1 << 40;
    refused(disc, "the year of the time 1099511627776");

    let mut disc = bootable(Tree::new());
    disc.bios = None;
    refused(disc, "no BIOS boot image to start");
    let mut disc = bootable(Tree::new());
    disc.hybrid.as_mut().expect("hybrid").boot_code = Some(vec![0; 440]);
    refused(disc, "512 bytes");
    let mut disc = bootable(Tree::new());
    disc.bios = disc.uefi;
    refused(disc, "whose bytes are given");
    let mut disc = bootable(Tree::new());
    disc.uefi = Some(
        disc.tree
            .file("odd", 0o644, Content::Later(1000))
            .expect("new"),
    );
    refused(disc, "multiple of 512");

    let mut tree = Tree::new();
    for name in ["one", "two"] {
        tree.file(name, 0o644, Content::Last { at_most: 1 })
            .expect("new");
    }
    refused(plain(tree), "\"two\" cannot be the last file");
    let mut tree = Tree::new();
    tree.file("huge", 0o644, Content::Later(9 << 40))
        .expect("new");
    refused(plain(tree), "8 TiB");
    let mut tree = Tree::new();
    for at in 0..65_535 {
        tree.dir(at.to_string(), 0o755).expect("new");
    }
    refused(plain(tree), "65535 directories");
}
