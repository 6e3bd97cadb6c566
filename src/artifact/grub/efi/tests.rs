//! What is taken from samples of each distribution's places, and under which names.

use super::*;
use crate::artifact::grub::sample::Memory;

const CHAIN: &str = "the chain";

/// Returns path and source of each file; a text's source is `chain` where it is that.
fn listed(plan: &EfiPlan) -> Vec<(&str, &str)> {
    let files = plan.files.iter().map(|file| match &file.content {
        EfiContent::Image(source) => (file.path.as_str(), source.as_str()),
        EfiContent::Text(text) if text == CHAIN => (file.path.as_str(), "chain"),
        EfiContent::Text(text) => (file.path.as_str(), text.as_str()),
    });
    files.collect()
}

fn made(arch: Arch, medium: Medium, paths: &[&str]) -> EfiPlan {
    plan(arch, medium, &Memory::of(paths), CHAIN).unwrap()
}

const DEBIAN: [&str; 5] = [
    "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
    "usr/lib/shim/shimx64.efi.signed",
    "usr/lib/shim/shimx64.efi.signed.latest",
];

#[test]
fn live_media_of_debian_get_the_grub_for_cds_by_the_name_that_shim_starts() {
    let plan = made(Arch::Amd64, Medium::Live, &DEBIAN);
    let wanted = [
        ("boot/grub/grub.cfg", "chain"),
        ("EFI/BOOT/bootx64.efi", DEBIAN[4]),
        ("EFI/BOOT/grub.cfg", "chain"),
        ("EFI/BOOT/grubx64.efi", DEBIAN[0]),
        ("EFI/debian/grub.cfg", "chain"),
        ("EFI/ubuntu/grub.cfg", "chain"),
    ];
    assert_eq!(listed(&plan), wanted);
    assert_eq!(plan.shim.as_deref(), Some(DEBIAN[4]));
    assert_eq!(plan.texts().count(), 4);
}

#[test]
fn disks_of_debian_get_the_grub_for_disks_and_shim_by_both_names() {
    let plan = made(Arch::Amd64, Medium::Disk, &DEBIAN);
    let wanted = [
        ("EFI/BOOT/bootx64.efi", DEBIAN[4]),
        ("EFI/BOOT/grub.cfg", "chain"),
        ("EFI/BOOT/grubx64.efi", DEBIAN[1]),
        ("EFI/BOOT/shimx64.efi", DEBIAN[4]),
        ("EFI/debian/grub.cfg", "chain"),
        ("EFI/ubuntu/grub.cfg", "chain"),
    ];
    assert_eq!(listed(&plan), wanted);
}

#[test]
fn ubuntus_shim_with_two_signatures_comes_first() {
    let paths = [&DEBIAN[..], &["usr/lib/shim/shimx64.efi.dualsigned"]].concat();
    let plan = made(Arch::Amd64, Medium::Disk, &paths);
    assert_eq!(
        plan.shim.as_deref(),
        Some("usr/lib/shim/shimx64.efi.dualsigned")
    );
    assert!(
        plan.files
            .iter()
            .any(|file| file.path == "EFI/BOOT/shimx64.efi")
    );
}

#[test]
fn suses_grub_keeps_its_name() {
    let paths = [
        "usr/share/efi/aarch64/shim.efi",
        "usr/share/efi/aarch64/grub.efi",
    ];
    let plan = made(Arch::Arm64, Medium::Live, &paths);
    let wanted = [
        ("boot/grub/grub.cfg", "chain"),
        ("EFI/BOOT/bootaa64.efi", paths[0]),
        ("EFI/BOOT/grub.cfg", "chain"),
        ("EFI/BOOT/grub.efi", paths[1]),
    ];
    assert_eq!(listed(&plan), wanted);
}

#[test]
fn a_vendors_directory_gets_its_chain() {
    let paths = [
        "boot/efi/EFI/rocky/shim.efi",
        "boot/efi/EFI/rocky/grubx64.efi",
    ];
    let plan = made(Arch::Amd64, Medium::Disk, &paths);
    let wanted = [
        ("EFI/BOOT/bootx64.efi", paths[0]),
        ("EFI/BOOT/grub.cfg", "chain"),
        ("EFI/BOOT/grubx64.efi", paths[1]),
        ("EFI/BOOT/shim.efi", paths[0]),
        ("EFI/rocky/grub.cfg", "chain"),
    ];
    assert_eq!(listed(&plan), wanted);
}

#[test]
fn riscv64_starts_grub_itself() {
    let grub = "usr/lib/grub/riscv64-efi/monolithic/grubriscv64.efi";
    let plan = made(Arch::Riscv64, Medium::Live, &[grub]);
    let wanted = [
        ("boot/grub/grub.cfg", "chain"),
        ("EFI/BOOT/bootriscv64.efi", grub),
        ("EFI/BOOT/grub.cfg", "chain"),
        ("EFI/BOOT/grubriscv64.efi", grub),
        ("EFI/debian/grub.cfg", "chain"),
        ("EFI/ubuntu/grub.cfg", "chain"),
        ("startup.nsh", "\\EFI\\BOOT\\bootriscv64.efi\r\n"),
    ];
    assert_eq!(listed(&plan), wanted);
    assert_eq!(plan.shim, None);
}

#[test]
fn without_a_shim_the_firmware_starts_grub() {
    let plan = made(Arch::Amd64, Medium::Live, &DEBIAN[2..3]);
    assert_eq!(plan.shim, None);
    assert!(listed(&plan).contains(&("EFI/BOOT/bootx64.efi", DEBIAN[2])));
}

#[test]
fn no_path_of_a_fat_comes_twice() {
    let plan = made(
        Arch::Riscv64,
        Medium::Live,
        &["boot/efi/EFI/BOOT/BOOTRISCV64.EFI"],
    );
    let mut paths: Vec<String> = plan
        .files
        .iter()
        .map(|file| file.path.to_lowercase())
        .collect();
    let count = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), count, "{paths:?}");
}

#[test]
fn what_has_no_grub_for_efi_is_told_every_place_and_the_packages() {
    for arch in [Arch::Amd64, Arch::Arm64, Arch::Riscv64] {
        let alpine = Memory::of(&[&format!(
            "usr/lib/grub/{}/kernel.img",
            efi_names(arch).modules
        )]);
        for medium in [Medium::Live, Medium::Disk] {
            let error = plan(arch, medium, &alpine, CHAIN).unwrap_err();
            let text = error.to_string();
            for place in grub_places(arch, medium == Medium::Live) {
                assert!(text.contains(&format!("/{place}")), "{place}: {text}");
            }
            assert!(text.contains("modules"), "{text}");
        }
    }
}
