//! What was composed boots in QEMU, on plain emulation, until its menu is on the serial console.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Files as _;
use super::bios::{CoreSpec, Modules};
use super::efi::{EfiContent, Medium, plan};
use super::menu::{LiveMenu, chain_to_disk, chain_to_live};
use super::sample::{Host, has_grub_pc};
use crate::artifact::gpt::{Partition, SECTOR_BYTES, Table, protective_mbr};
use crate::artifact::guid::Guid;
use crate::artifact::judge::{judge, plain, skip};
use crate::distro::Arch;

/// Some ten seconds; a busy machine may stand still for a while in between.
const LIMIT: Duration = Duration::from_secs(240);

fn has_qemu() -> bool {
    judge("qemu-system-x86_64", &["--version"]).is_some()
}

/// Starts QEMU with `args` and returns what the serial console shows, at least until `mark`, without what moves the cursor.
#[track_caller]
fn serial(args: &[&str], mark: &str) -> String {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg",
            "-m",
            "256",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("qemu starts");
    let mut console = qemu.stdout.take().expect("piped");
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = console.read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut text = String::new();
    while !text.contains(mark) {
        let Ok(piece) = pieces.recv_timeout(LIMIT.saturating_sub(start.elapsed())) else {
            break;
        };
        seen.extend(piece);
        text = plain(&seen);
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    assert!(text.contains(mark), "no {mark:?} within {LIMIT:?}:\n{text}");
    text
}

/// Makes an ISO of `tree` with `xorriso` and its options `more`; `None`, with a line that says so, where it is not installed.
fn iso(tree: &Path, more: &[&str]) -> Option<String> {
    let file = tree.with_extension("iso");
    let (tree, out) = (tree.to_str().unwrap(), file.to_str().unwrap());
    let fixed = [
        "-as", "mkisofs", "-quiet", "-R", "-V", "COS_LIVE", "-o", out,
    ];
    judge("xorriso", &[&fixed, more, &[tree]].concat())?;
    Some(out.to_owned())
}

fn write(top: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[track_caller]
fn shows_the_live_menu(text: &str) {
    for wrong in ["error:", "Press any key"] {
        assert!(!text.contains(wrong), "{text}");
    }
    assert!(text.contains("Kairos (manual)"), "{text}");
}

#[test]
fn a_live_medium_boots_by_bios_from_cd_and_from_disk_into_its_menu() {
    if !has_grub_pc() || !has_qemu() {
        return;
    }
    let modules = Modules::find(&Host).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let menu = LiveMenu::new(Arch::Amd64).text().unwrap();
    let image = modules.el_torito(&CoreSpec::live()).unwrap();
    write(&tree, "boot/kernel", "");
    write(&tree, "boot/eltorito.img", image);
    write(&tree, "boot/grub2/grub.cfg", menu);
    write(dir.path(), "mbr", modules.hybrid_mbr().unwrap());
    let mbr = dir.path().join("mbr").display().to_string();
    let words = "-b boot/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info --grub2-mbr";
    let options: Vec<&str> = words.split(' ').chain([mbr.as_str()]).collect();
    let Some(file) = iso(&tree, &options) else {
        return;
    };
    let last = "boot to RAM";
    shows_the_live_menu(&serial(&["-cdrom", &file, "-boot", "d"], last));
    shows_the_live_menu(&serial(&["-drive", &drive(&file)], last));
}

#[test]
fn a_disk_boots_by_bios_from_its_core_partition_into_the_menu_of_another() {
    if !has_grub_pc() || !has_qemu() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let modules = Modules::find(&Host).unwrap();
    let core = modules.core(&CoreSpec::disk(2)).unwrap();
    let boot = modules.mbr_code(CORE).unwrap();
    let Some(file) = disk(dir.path(), &boot, &core.at(CORE)) else {
        return;
    };
    serial(&["-drive", &drive(&file)], "the menu at hd0,gpt2");
}

#[test]
fn a_disk_boots_by_efi_into_the_menu_of_another_partition() {
    let Some(firmware) = firmware() else { return };
    let Some(fat) = fat(Medium::Disk, &chain_to_disk("SYSTEM")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let Some(file) = disk(dir.path(), &[], &[]) else {
        return;
    };
    let args = [
        "-drive",
        &firmware,
        "-drive",
        &fat_drive(&fat),
        "-drive",
        &drive(&file),
    ];
    serial(&args, "the menu at hd1,gpt2");
}

const CORE: u64 = 2048;
const SYSTEM: u64 = 4096;
const SYSTEM_SECTORS: u64 = 8192;

/// Makes a disk with `boot` in its MBR, `core` in a BIOS boot partition and menus in a file system labelled `SYSTEM`.
fn disk(dir: &Path, boot: &[u8], core: &[u8]) -> Option<String> {
    let tree = dir.join("tree");
    write(&tree, "grub2/grub.cfg", chain_to_disk("SYSTEM"));
    write(
        &tree,
        "etc/cos/grub.cfg",
        "echo \"the menu at ${root}\"\necho \"its end\"\nsleep 1000\n",
    );
    let (tree, system) = (tree.to_str().unwrap(), dir.join("system"));
    let kib = (SYSTEM_SECTORS / 2).to_string();
    let system_path = system.to_str().unwrap();
    judge(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext2",
            "-L",
            "SYSTEM",
            "-d",
            tree,
            system_path,
            &kib,
        ],
    )?;

    let partition = |kind, first, sectors| Partition {
        name: String::new(),
        kind,
        guid: Guid::new(u128::from(first)),
        first,
        sectors,
        attributes: 0,
    };
    let mut table = Table::new(Guid::new(1), SYSTEM + SYSTEM_SECTORS + 2048);
    table.partitions = vec![
        partition(Guid::BIOS_BOOT, CORE, SYSTEM - CORE),
        partition(Guid::LINUX, SYSTEM, SYSTEM_SECTORS),
    ];
    let mut disk = vec![0; (table.sectors * SECTOR_BYTES) as usize];
    let mut put = |sector: u64, bytes: &[u8]| {
        let at = (sector * SECTOR_BYTES) as usize;
        disk[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &protective_mbr(boot, table.sectors).unwrap());
    for (sector, bytes) in table.encode().unwrap() {
        put(sector, &bytes);
    }
    put(CORE, core);
    put(SYSTEM, &fs::read(system).unwrap());
    write(dir, "disk", &disk);
    Some(dir.join("disk").display().to_string())
}

#[test]
fn a_live_medium_boots_by_efi_into_its_menu() {
    let Some(firmware) = firmware() else { return };
    let Some(fat) = fat(Medium::Live, &chain_to_live()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    write(&tree, "boot/kernel", "");
    write(
        &tree,
        "boot/grub2/grub.cfg",
        LiveMenu::new(Arch::Amd64).text().unwrap(),
    );
    let Some(cd) = iso(&tree, &[]) else { return };
    let args = [
        "-drive",
        &firmware,
        "-drive",
        &fat_drive(&fat),
        "-cdrom",
        &cd,
    ];
    shows_the_live_menu(&serial(&args, "Text mode"));
}

/// Returns QEMU's option for EFI firmware.
fn firmware() -> Option<String> {
    const FILE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
    if !has_qemu() {
        return None;
    }
    if !Path::new(FILE).is_file() {
        skip("ovmf is not installed");
        return None;
    }
    Some(format!("if=pflash,format=raw,readonly=on,file={FILE}"))
}

/// Makes a directory with this machine's shim and GRUB, as they are on a FAT.
fn fat(medium: Medium, chain: &str) -> Option<tempfile::TempDir> {
    let Ok(plan) = plan(Arch::Amd64, medium, &Host, chain) else {
        skip("grub-efi-amd64-bin is not installed");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    for file in &plan.files {
        let content = match &file.content {
            EfiContent::Image(path) => Host.read(path).unwrap().unwrap(),
            EfiContent::Text(text) => text.clone().into_bytes(),
        };
        write(dir.path(), &file.path, content);
    }
    Some(dir)
}

/// Returns QEMU's option for a directory as a disk with a FAT.
fn fat_drive(dir: &tempfile::TempDir) -> String {
    format!("format=raw,file=fat:rw:{}", dir.path().display())
}

fn drive(file: &str) -> String {
    format!("file={file},format=raw,if=ide")
}
