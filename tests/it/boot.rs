//! The converted image's kernel and initrd start in QEMU, on plain emulation, until the initrd looks for the root device.

use std::ffi::OsStr;
use std::time::Duration;

use crate::support::conversion::conversion;
use crate::support::framework::framework;
use crate::support::machine::Machine;
use crate::support::tree::Tree;

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
    let devices = [
        OsStr::new("-nic"),
        OsStr::new("none"),
        OsStr::new("-kernel"),
        kernel.as_os_str(),
        OsStr::new("-initrd"),
        initrd.as_os_str(),
        OsStr::new("-append"),
        OsStr::new(append),
    ];
    let Some(mut machine) = Machine::start(2048, devices) else {
        return;
    };
    while !marks.is_empty() {
        let words: Vec<&str> = marks.iter().copied().flatten().copied().collect();
        let word = machine.wait_for(&words, LIMIT.saturating_sub(machine.uptime()));
        marks.retain(|mark| !mark.contains(&word));
    }
    assert!(
        machine.said().contains("Linux version"),
        "the kernel says nothing"
    );
    assert!(
        !machine.said().contains("Kernel panic"),
        "{}",
        machine.said()
    );
    eprintln!("after {:.0} s", machine.uptime().as_secs_f64());
}
