//! A machine that gets such a disk, from its first boot to the installed system and on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Disk, disk, drive};
use crate::support::framework::framework;
use crate::support::installed_system::is_active;
use crate::support::machine::{Machine, firmware};
use crate::support::{need, run, skipped, wants_all};

/// Emulation on a busy machine with two cores is slow, and such a machine may stand still for minutes.
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn a_disk_becomes_an_installed_system_on_bios() {
    let Some(disk) = disk() else { return };
    installs_itself(&disk, "bios", &[]);
}

#[test]
fn a_disk_becomes_an_installed_system_on_uefi() {
    let Some(disk) = disk() else { return };
    let Some(firmware) = firmware() else { return };
    let arguments = ["-bios", firmware];
    if wants_all("what comes after the recovery system's root, on BIOS and UEFI alike") {
        return installs_itself(&disk, "uefi", &arguments);
    }
    let Some(mut machine) = start(&disk, "uefi", &arguments) else {
        return;
    };
    finds_its_root(&mut machine, "COS_SYSTEM");
}

/// Starts a machine with a copy of the disk that has grown to what the first boot needs.
fn start(disk: &Disk, name: &str, arguments: &[&str]) -> Option<Machine> {
    if !need(&["qemu-img"]) {
        return None;
    }
    if !framework().is_real {
        skipped("a system that installs itself needs the real Kairos binaries");
        return None;
    }
    let file = copy(disk, name);
    if !file.exists() {
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(disk.file())
            .arg(&file)
            .arg(format!("{}M", disk.needed_mib)));
    }
    machine(&file, arguments)
}

fn copy(disk: &Disk, name: &str) -> PathBuf {
    disk.dir.0.join(format!("{name}.qcow2"))
}

fn machine(file: &Path, arguments: &[&str]) -> Option<Machine> {
    // A network that goes nowhere: without one the system waits two minutes for it.
    let drive = drive(file);
    let devices = [
        "-nic",
        "user,model=virtio-net-pci,restrict=on",
        "-drive",
        &drive,
    ];
    Machine::start(4096, [&devices, arguments].concat())
}

/// Waits until the initrd has found the root file system, which has this label.
#[track_caller]
fn finds_its_root(machine: &mut Machine, label: &str) {
    machine.wait_for(&[&format!("root=LABEL={label}")], LIMIT);
    machine.wait_for(&["EXT4-fs (loop0): mounted"], LIMIT);
    eprintln!("{label} after {:.0} s", machine.uptime().as_secs_f64());
}

/// Boots the disk twice: it installs itself, and is the installed system.
#[track_caller]
fn installs_itself(disk: &Disk, name: &str, arguments: &[&str]) {
    let Some(mut machine) = start(disk, name, arguments) else {
        return;
    };
    finds_its_root(&mut machine, "COS_SYSTEM");
    // It would restart then.
    machine.wait_for_end(LIMIT);
    eprintln!("installed after {:.0} s", machine.uptime().as_secs_f64());

    let Some(mut machine) = start(disk, name, arguments) else {
        return;
    };
    finds_its_root(&mut machine, "COS_ACTIVE");
    if wants_all("the login of a disk that installed itself") {
        let oem = is_active(&mut machine, disk.made, LIMIT);
        assert!(oem.contains("90_custom.yaml"), "{oem}");
        assert!(
            !oem.contains("01_reset.yaml"),
            "it would install itself again: {oem}"
        );
    }
}
