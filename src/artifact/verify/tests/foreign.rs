//! Media that others made are read, and what they lack is a finding.

use std::fs;
use std::path::Path;

use super::assert_clean;
use super::disk_sample::DiskSample;
use super::sample::{Files, Medium, fat, files};
use crate::artifact::judge::judge;
use crate::artifact::verify::{Report, verify};

/// Makes a medium with `program` and `args`, in which `@` stands for a directory with the files to be on it and the medium itself.
fn made_by(program: &str, args: &str) -> Option<Report> {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("from");
    fs::create_dir_all(top.join("boot/grub")).unwrap();
    let menu = "menuentry x { linux /boot/vmlinuz root=/dev/sda1\n initrd /boot/initrd.img }";
    fs::write(top.join("boot/grub/grub.cfg"), menu).unwrap();
    fs::write(top.join("boot/vmlinuz"), "no kernel").unwrap();
    let args: Vec<String> = args
        .split_whitespace()
        .map(|word| match word.strip_prefix('@') {
            Some(name) => dir.path().join(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        })
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    judge(program, &args)?;
    Some(verify(&dir.path().join("a.iso"), None).unwrap())
}

fn rules(report: &Report) -> Vec<&str> {
    let mut rules: Vec<&str> = report.findings.iter().map(|it| it.rule.as_str()).collect();
    rules.dedup();
    rules
}

#[test]
fn a_medium_of_grub_mkrescue_boots_but_is_none_of_kairos() {
    if judge("xorriso", &["-version"]).is_none() || judge("mformat", &["--version"]).is_none() {
        return;
    }
    let Some(report) = made_by("grub-mkrescue", "-o @a.iso @from") else {
        return;
    };
    assert_eq!(
        rules(&report),
        [
            "iso-label",
            "menu-files",
            "menu-root",
            "menu-arguments",
            "kernel"
        ]
    );
}

#[test]
fn a_medium_without_boot_loader_starts_nowhere() {
    let Some(report) = made_by(
        "xorriso",
        "-as mkisofs -quiet -R -J -V PLAIN -o @a.iso @from",
    ) else {
        return;
    };
    assert!(
        rules(&report).contains(&"iso-uefi"),
        "{:?}",
        report.findings
    );
    let starts = report.facts.iter().find(|(what, _)| *what == "starts on");
    assert_eq!(starts.unwrap().1, "nothing");
}

#[test]
fn a_medium_made_as_upstream_makes_them_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let medium = Medium::new();
    let top = dir.path().join("from");
    put(&top, &medium.files);
    let image: Vec<u8> = (0..30_000u32).map(|n| (n >> 3) as u8).collect();
    put(
        &top,
        &files(&[
            ("boot/eltorito.img", &image),
            (
                "boot/uefi.img",
                &fat("EFI_LIVE", &medium.efi.unwrap(), None),
            ),
        ]),
    );
    fs::write(path("mbr.img"), [0x90; 512]).unwrap();
    // With AuroraBoot's arguments; what UEFI starts from is on the medium twice.
    let words = format!(
        "-volid COS_LIVE -joliet on -padding 0 -outdev {iso} -map {top} / -chmod 0755 -- \
         -boot_image grub bin_path=/boot/eltorito.img -boot_image grub grub2_mbr={mbr} \
         -boot_image grub grub2_boot_info=on -boot_image any partition_offset=16 \
         -boot_image any cat_path=/boot/boot.catalog -boot_image any cat_hidden=on \
         -boot_image any boot_info_table=on -boot_image any platform_id=0x00 \
         -boot_image any emul_type=no_emulation -boot_image any load_size=2048 \
         -append_partition 2 0xef {uefi} -boot_image any next \
         -boot_image any efi_path=--interval:appended_partition_2:all:: \
         -boot_image any platform_id=0xef -boot_image any emul_type=no_emulation \
         -boot_image any appended_part_as=gpt -boot_image any mbr_force_bootable=on",
        iso = path("a.iso"),
        top = path("from"),
        mbr = path("mbr.img"),
        uefi = path("from/boot/uefi.img"),
    );
    let words: Vec<&str> = words.split_whitespace().collect();
    if judge("xorriso", &words).is_some() {
        let report = verify(&dir.path().join("a.iso"), None).unwrap();
        // xorriso writes more behind the second partition table, to which sgdisk objects, too.
        let known = ["partition-table-backup"];
        assert!(
            rules(&report).iter().all(|rule| known.contains(rule)),
            "{:#?}",
            report.findings
        );
    }
}

/// Makes an ext2 file system of `bytes` with `program` out of a directory.
fn ext2(label: &str, from: &Path, to: &Path, bytes: u64) -> Option<String> {
    let words = [
        "-q",
        "-F",
        "-t",
        "ext2",
        "-b",
        "4096",
        "-L",
        label,
        "-d",
        from.to_str().unwrap(),
        to.to_str().unwrap(),
        &format!("{}k", bytes >> 10),
    ];
    judge("mke2fs", &words)
}

fn put(dir: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_disk_with_upstreams_file_systems_is_read() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut sample = DiskSample::new();
    // Larger than what its inode has room for, and than what one block of addresses has.
    let kernel = sample.system.get_mut("boot/vmlinuz").unwrap();
    kernel.resize(6 << 20, 1);
    // Absolute, as in every image.
    let kernel = sample.system.remove("boot/vmlinuz").unwrap();
    sample.system.insert("boot/vmlinuz-test".to_owned(), kernel);
    put(&dir.join("system"), &sample.system);
    std::os::unix::fs::symlink("/boot/vmlinuz-test", dir.join("system/boot/vmlinuz")).unwrap();
    put(&dir.join("recovery"), &sample.recovery);
    put(&dir.join("oem"), &sample.oem);
    let image = dir.join("recovery/cOS/recovery.img");
    fs::create_dir_all(image.parent().unwrap()).unwrap();
    let made = ext2("COS_SYSTEM", &dir.join("system"), &image, 16 * MIB)
        .and_then(|_| {
            ext2(
                "COS_RECOVERY",
                &dir.join("recovery"),
                &dir.join("r"),
                48 * MIB,
            )
        })
        .and_then(|_| ext2("COS_OEM", &dir.join("oem"), &dir.join("o"), 16 * MIB));
    if made.is_none() {
        return;
    }
    sample.system.clear();
    let report = sample.verified(|disk| {
        for (name, file) in [("recovery", "r"), ("oem", "o")] {
            let bytes = fs::read(dir.join(file)).unwrap();
            disk.write_all_at(&bytes, sample.start(name)).unwrap();
        }
    });
    assert_clean(&report);
}
