//! What was composed boots in QEMU, on plain emulation, until its menu is on the serial console.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Files as _;
use super::bios::{CoreSpec, ElTorito, Modules};
use super::efi::{EfiContent, Medium, plan};
use super::menu::{LiveMenu, chain_to_live};
use super::sample::{Host, has_grub_pc};
use crate::artifact::judge::{judge, skip};
use crate::distro::Arch;

/// Some ten seconds; a busy machine may stand still for a while in between.
const LIMIT: Duration = Duration::from_secs(240);
const BLOCK: usize = 2048;

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

/// Leaves out escape sequences (`ESC [ ... letter`) and control characters.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    let shown = String::from_utf8_lossy(bytes);
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.find(char::is_ascii_alphabetic);
        } else if c == '\n' || !c.is_control() {
            text.push(c);
        }
    }
    text
}

/// Makes an ISO of `tree` with `xorriso` and its options `more`; `None`, with a line that says so, where it is not installed.
fn iso(tree: &Path, more: &[&str]) -> Option<Vec<u8>> {
    let file = tree.with_extension("iso");
    let (tree, out) = (tree.to_str().unwrap(), file.to_str().unwrap());
    let fixed = [
        "-as", "mkisofs", "-quiet", "-R", "-V", "COS_LIVE", "-o", out,
    ];
    judge("xorriso", &[&fixed, more, &[tree]].concat())?;
    Some(fs::read(file).expect("an ISO"))
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
    let image = modules.el_torito(&CoreSpec::live()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    write(&tree, "boot/kernel", "");
    write(&tree, "boot/eltorito.img", image.bytes());
    write(
        &tree,
        "boot/grub2/grub.cfg",
        LiveMenu::new(Arch::Amd64).text().unwrap(),
    );
    let options = [
        "-b",
        "boot/eltorito.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
    ];
    let Some(mut iso) = iso(&tree, &options) else {
        return;
    };

    let block = (0..iso.len() / BLOCK)
        .find(|block| iso[block * BLOCK..].starts_with(image.bytes()))
        .expect("the image lies in one piece");
    let block = u32::try_from(block).unwrap();
    let placed = image.at(block);
    let at = block as usize * BLOCK;
    iso[at..at + placed.len()].copy_from_slice(&placed);
    let mbr = ElTorito::hybrid_mbr_at(modules.hybrid_mbr().unwrap(), block);
    iso[..mbr.len()].copy_from_slice(&mbr);
    write(dir.path(), "live.iso", &iso);
    let file = dir.path().join("live.iso").display().to_string();

    let last = "boot to RAM";
    shows_the_live_menu(&serial(&["-cdrom", &file, "-boot", "d"], last));
    let drive = format!("file={file},format=raw,if=ide,snapshot=on");
    shows_the_live_menu(&serial(&["-drive", &drive], last));
}

#[test]
fn a_disk_boots_by_bios_from_its_mbr_and_a_core_between_partitions() {
    if !has_grub_pc() || !has_qemu() {
        return;
    }
    const CORE: u64 = 34;
    const PARTITION: u32 = 2048;
    let modules = Modules::find(&Host).unwrap();
    let spec = CoreSpec {
        prefix: "(,msdos1)/grub2".to_owned(),
        config: "echo the commands of the core\n".to_owned(),
        ..CoreSpec::disk(3)
    };
    let core = modules.core(&spec).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    write(
        &tree,
        "grub2/grub.cfg",
        "echo \"the menu at ${root}\"\necho \"its end\"\nsleep 1000\n",
    );
    let Some(system) = iso(&tree, &[]) else {
        return;
    };

    let mut disk = vec![0; PARTITION as usize * 512];
    disk[..440].copy_from_slice(&modules.mbr(CORE).unwrap()[..440]);
    // One partition of type 0x83.
    let mut entry = [0; 16];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&PARTITION.to_le_bytes());
    entry[12..].copy_from_slice(&((system.len() / 512) as u32).to_le_bytes());
    disk[446..462].copy_from_slice(&entry);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let placed = core.at(CORE);
    let at = CORE as usize * 512;
    disk[at..at + placed.len()].copy_from_slice(&placed);
    disk.extend(system);
    write(dir.path(), "disk", &disk);
    let drive = format!(
        "file={},format=raw,if=ide",
        dir.path().join("disk").display()
    );
    let text = serial(&["-drive", &drive], "the menu at hd0,msdos1");
    assert!(text.contains("the commands of the core"), "{text:?}");
}

#[test]
fn a_live_medium_boots_by_efi_into_its_menu() {
    const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
    if !has_qemu() {
        return;
    }
    if !Path::new(FIRMWARE).is_file() {
        return skip("ovmf is not installed");
    }
    let Ok(plan) = plan(Arch::Amd64, Medium::Live, &Host, &chain_to_live()) else {
        return skip("grub-efi-amd64-bin is not installed");
    };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    write(&tree, "boot/kernel", "");
    write(
        &tree,
        "boot/grub2/grub.cfg",
        LiveMenu::new(Arch::Amd64).text().unwrap(),
    );
    let Some(iso) = iso(&tree, &[]) else { return };
    write(dir.path(), "live.iso", iso);
    let fat = dir.path().join("fat");
    for file in &plan.files {
        let content = match &file.content {
            EfiContent::Image(path) => Host.read(path).unwrap().unwrap(),
            EfiContent::Text(text) => text.clone().into_bytes(),
        };
        write(&fat, &file.path, content);
    }
    let firmware = format!("if=pflash,format=raw,readonly=on,file={FIRMWARE}");
    let fat = format!("format=raw,file=fat:rw:{}", fat.display());
    let cd = dir.path().join("live.iso").display().to_string();
    let text = serial(
        &["-drive", &firmware, "-drive", &fat, "-cdrom", &cd],
        "Text mode",
    );
    shows_the_live_menu(&text);
    assert!(text.contains("Text mode"), "{text}");
}
