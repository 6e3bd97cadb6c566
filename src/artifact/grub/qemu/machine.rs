//! An emulated machine whose serial console is read.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::artifact::judge::{judge, plain, skip};

/// Some ten seconds; a busy machine may stand still for a while in between.
const LIMIT: Duration = Duration::from_secs(240);

/// Returns whether there is QEMU; says so where not.
pub(super) fn has_qemu() -> bool {
    judge("qemu-system-x86_64", &["--version"]).is_some()
}

/// Starts QEMU with `args` and returns what the serial console shows, at least until `mark`, without what moves the cursor.
#[track_caller]
pub(super) fn serial(args: &[&str], mark: &str) -> String {
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

/// Returns QEMU's option for EFI firmware.
pub(super) fn firmware() -> Option<String> {
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

/// Returns QEMU's option for a raw disk.
pub(super) fn drive(file: &str) -> String {
    format!("file={file},format=raw,if=ide")
}
