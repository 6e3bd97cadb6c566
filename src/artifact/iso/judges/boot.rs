//! Firmware starts GRUB from the disc, as CD and as disk, and GRUB reads what is on it.

use std::fs::{self, File};
use std::path::Path;

use tempfile::TempDir;

use crate::artifact::guid::Guid;
use crate::artifact::iso::tests::write_into;
use crate::artifact::iso::{Content, Disc, Hybrid, Tree, tests};
use crate::artifact::judge::{judge, plain, skip};

/// Where Debian has GRUB for BIOS, and firmware for UEFI.
const GRUB: &str = "/usr/lib/grub/i386-pc";
const OVMF: &str = "/usr/share/OVMF/OVMF_CODE.fd";
/// What GRUB does with the disc: read a file with a long name, and say where it is. Firmware shows both on the serial console.
const MENU: &str = "cat $prefix/long/NAME\necho \"prefix is $prefix\"\nhalt\n";
const MODULES: &str =
    "iso9660 part_gpt part_msdos normal configfile echo cat halt search search_fs_file test";

/// Runs a program of the tests' own machine that makes `file`, and returns that; none where the program is not installed.
fn made(program: &str, args: &[&str], file: &Path) -> Option<Vec<u8>> {
    judge(program, args)?;
    Some(fs::read(file).expect("made"))
}

/// Returns GRUB for `platform`, which looks for its menu on the disc; none without `grub-mkimage`.
fn grub(dir: &Path, platform: &str, more: &str) -> Option<Vec<u8>> {
    let (out, early) = (dir.join("grub.img"), dir.join("early.cfg"));
    let search = "search --set=root --file /boot/grub2/grub.cfg\nset prefix=($root)/boot/grub2\n";
    fs::write(&early, search).expect("written");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (out_text, early) = (text(&out), text(&early));
    let mut args = vec!["-O", platform, "-o", &out_text, "-p", "/boot/grub2"];
    if platform != "i386-pc-eltorito" {
        args.extend(["-c", &early]);
    }
    args.extend(MODULES.split(' ').chain(more.split(' ')));
    made("grub-mkimage", &args, &out)
}

/// Returns a FAT image that starts `program`; none without mtools.
fn esp(dir: &Path, program: &[u8]) -> Option<Vec<u8>> {
    let (image, file) = (dir.join("esp.img"), dir.join("program.efi"));
    fs::write(&file, program).expect("written");
    let image_text = image.to_str().expect("UTF-8");
    judge("mkfs.vfat", &["-C", image_text, "4096"])?;
    for path in ["::EFI", "::EFI/BOOT"] {
        judge("mmd", &["-i", image_text, path])?;
    }
    let file = file.to_str().expect("UTF-8");
    let args = ["-i", image_text, file, "::EFI/BOOT/BOOTX64.EFI"];
    made("mcopy", &args, &image)
}

/// Makes a disc whose GRUB says that it started; none where something for that is not installed.
fn disc() -> Option<(TempDir, String)> {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path();
    let code = Path::new(GRUB).join("boot_hybrid.img");
    if !code.exists() {
        skip("GRUB for BIOS (grub-pc-bin) is not installed");
        return None;
    }
    let bios = grub(at, "i386-pc-eltorito", "biosdisk")?;
    let efi = grub(at, "x86_64-efi", "efi_gop")?;
    let esp = esp(at, &efi)?;
    let name = "n".repeat(230);
    let mut tree = Tree::new();
    let mut file =
        |path: &str, bytes: Vec<u8>| tree.file(path, 0o644, Content::Bytes(bytes)).expect("new");
    file("boot/grub2/grub.cfg", MENU.replace("NAME", &name).into());
    file(&format!("boot/grub2/long/{name}"), b"read by GRUB\n".into());
    let (image, uefi) = (file("boot/eltorito.img", bios), file("boot/uefi.img", esp));
    let disc = Disc {
        bios: Some(image),
        uefi: Some(uefi),
        hybrid: Some(Hybrid {
            boot_code: Some(fs::read(code).expect("readable")),
            disk: Guid::new(1),
            iso: Guid::new(2),
            esp: Guid::new(3),
        }),
        ..tests::plain(tree)
    };
    let path = at.join("disc.iso");
    write_into(File::create_new(&path).expect("made"), &disc, 0);
    Some((dir, path.to_str().expect("UTF-8").to_owned()))
}

/// Starts a machine with `drive`, which must have GRUB say what it read.
#[track_caller]
fn boots(more: &[&str], drive: impl Fn(&str) -> Vec<String>, prefix: &str) {
    let Some((_dir, iso)) = disc() else { return };
    let mut args: Vec<String> = "240 qemu-system-x86_64 -machine q35 -m 256 -nic none -nographic -no-reboot -monitor none -accel tcg"
        .split(' ')
        .map(str::to_owned)
        .collect();
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    args.extend(drive(&iso));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let Some(said) = judge("timeout", &args) else {
        return;
    };
    let said = plain(said.as_bytes());
    assert!(said.contains("read by GRUB"), "{said}");
    assert!(said.contains(prefix), "{said}");
}

fn as_cd(iso: &str) -> Vec<String> {
    vec!["-cdrom".to_owned(), iso.to_owned()]
}

fn as_disk(iso: &str) -> Vec<String> {
    let drive = format!("if=virtio,format=raw,readonly=on,file={iso}");
    vec!["-drive".to_owned(), drive]
}

#[test]
fn a_bios_starts_the_cd() {
    boots(&[], as_cd, "prefix is (");
}

#[test]
fn a_bios_starts_the_disk() {
    boots(&[], as_disk, "prefix is (hd0)/boot/grub");
}

#[test]
fn uefi_starts_the_cd() {
    boots(&["-bios", OVMF], as_cd, "prefix is (cd0");
}

#[test]
fn uefi_starts_the_disk() {
    boots(&["-bios", OVMF], as_disk, "prefix is (hd0");
}
