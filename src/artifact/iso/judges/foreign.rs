//! Discs that others made.

use std::fs::{self, File};

use tempfile::TempDir;

use crate::artifact::guid::Guid;
use crate::artifact::iso::reader;
use crate::artifact::judge::judge;
use crate::artifact::region::Region;

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
    let partitions = image.gpt.expect("a GPT").expect("sound").partitions;
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
