//! Live media, as CD and as disk.

use std::fs;
use std::path::Path;

use super::machine::{drive, firmware, has_qemu, serial};
use super::{fat, write};
use crate::artifact::grub::bios::{CoreSpec, Modules};
use crate::artifact::grub::efi::Medium;
use crate::artifact::grub::menu::{LiveMenu, chain_to_live};
use crate::artifact::grub::sample::{Host, has_grub_pc};
use crate::artifact::guid::Guid;
use crate::artifact::iso::{Content, Disc, Hybrid, Identifiers, Tree};
use crate::distro::Arch;

#[test]
fn a_live_medium_boots_by_bios_from_cd_and_from_disk_into_its_menu() {
    if !has_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(file) = medium(dir.path()) else {
        return;
    };
    let last = "boot to RAM";
    shows_the_menu(&serial(&["-cdrom", &file, "-boot", "d"], last));
    shows_the_menu(&serial(&["-drive", &drive(&file)], last));
}

#[test]
fn a_live_medium_boots_by_efi_from_cd_into_its_menu() {
    let Some(firmware) = firmware() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(file) = medium(dir.path()) else {
        return;
    };
    shows_the_menu(&serial(
        &["-drive", &firmware, "-cdrom", &file],
        "Text mode",
    ));
}

#[test]
fn a_live_medium_boots_by_efi_from_disk_into_its_menu() {
    let Some(firmware) = firmware() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(file) = medium(dir.path()) else {
        return;
    };
    let args = ["-drive", &firmware, "-drive", &drive(&file)];
    shows_the_menu(&serial(&args, "Text mode"));
}

#[track_caller]
fn shows_the_menu(text: &str) {
    for wrong in ["error:", "Press any key"] {
        assert!(!text.contains(wrong), "{text}");
    }
    assert!(text.contains("Kairos (manual)"), "{text}");
}

/// Makes a medium with an empty kernel, of this machine's GRUB. A system is on it as well, behind all that GRUB reads: GRUB 2.12
/// reads 32 KiB at a time, and takes what it has from before for what there is not behind the end of a CD.
fn medium(dir: &Path) -> Option<String> {
    if !has_grub_pc() {
        return None;
    }
    let (fat, texts) = fat(dir, Medium::Live, &chain_to_live())?;
    let modules = Modules::find(&Host).unwrap();
    let mut tree = Tree::new();
    let mut add =
        |path: &str, bytes: Vec<u8>| tree.file(path, 0o644, Content::Bytes(bytes)).unwrap();
    add("boot/kernel", Vec::new());
    add(
        "boot/grub2/grub.cfg",
        LiveMenu::new(Arch::Amd64).text().unwrap().into_bytes(),
    );
    add("rootfs.squashfs", vec![0; 64 << 10]);
    for (path, text) in texts {
        add(&path, text.into_bytes());
    }
    let uefi = add("boot/uefi.img", fs::read(fat).unwrap());
    let image = add(
        "boot/eltorito.img",
        modules.el_torito(&CoreSpec::live()).unwrap(),
    );
    let disc = Disc {
        identifiers: Identifiers {
            volume: "COS_LIVE".to_owned(),
            ..Identifiers::default()
        },
        time_secs: 0,
        tree,
        bios: Some(image),
        uefi: Some(uefi),
        hybrid: Some(Hybrid {
            boot_code: Some(modules.hybrid_mbr().unwrap().to_vec()),
            disk: Guid::new(1),
            iso: Guid::new(2),
            esp: Guid::new(3),
        }),
    };
    let metadata = disc.lay_out().unwrap().finish(0).unwrap();
    let mut bytes = vec![0; metadata.len as usize];
    for piece in metadata.pieces {
        let at = piece.offset as usize;
        bytes[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
    }
    write(dir, "live.iso", &bytes);
    Some(dir.join("live.iso").display().to_string())
}
