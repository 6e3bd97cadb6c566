//! The converted image's kernel and initrd start in QEMU, on plain emulation, until the initrd looks for the root device.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::conversion::conversion;
use crate::support::framework::framework;
use crate::support::tree::Tree;
use crate::support::{need, world};

/// Emulation on a busy machine with two cores takes one to two minutes, and such a machine may stand still for some in between.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn the_kernel_and_the_initrd_boot_until_the_root_device_is_looked_for() {
    let Some(made) = conversion() else { return };
    boots(made.tree());
}

/// Starts kernel and initrd of `tree`, which must get to where the root device is looked for. With stand-ins for the Kairos
/// binaries nothing is asked of these. Says so where there is no emulator.
#[track_caller]
pub(crate) fn boots(tree: &Tree) {
    if !need(&["qemu-system-x86_64"]) || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let kernel = tree.resolve("/boot/vmlinuz").expect("a kernel");
    let initrd = tree.resolve("/boot/initrd").expect("an initrd");
    // No device has this label, so the initrd waits for it.
    let append = "console=ttyS0 root=LABEL=NOWHERE cos-img/filename=/cOS/active.img rd.shell=0 systemd.show_status=1 panic=-1";
    // Any word of each; systemd before 252 names the device only in the line that says what is waited for.
    let mut marks = vec![
        &["label-NOWHERE.device", "by-label/NOWHERE"][..],
        &["dracut initqueue hook"],
    ];
    if framework().is_real {
        // The program itself runs in the initrd and names its version.
        marks.push(&["immucore["]);
    }
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg",
            "-m",
            "2048",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", append])
        .current_dir(&world().dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("qemu starts");
    let serial = BufReader::new(qemu.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in serial.split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let start = Instant::now();
    let mut seen = Vec::new();
    while !marks.is_empty() {
        let Ok(line) = lines.recv_timeout(LIMIT.saturating_sub(start.elapsed())) else {
            break;
        };
        marks.retain(|words| !words.iter().any(|word| line.contains(word)));
        seen.push(line);
    }
    let _ = qemu.kill();
    let _ = qemu.wait();
    let tail = &seen[seen.len().saturating_sub(60)..];
    assert!(
        marks.is_empty(),
        "the console did not show {marks:?} within {LIMIT:?}; it ended with\n{}",
        tail.join("\n")
    );
    let text = seen.join("\n");
    assert!(text.contains("Linux version"), "the kernel says nothing");
    assert!(!text.contains("Kernel panic"), "{}", tail.join("\n"));
    eprintln!(
        "after {:.0} s: {}",
        start.elapsed().as_secs_f64(),
        tail.last().map_or("", String::as_str)
    );
}
