//! What boots of the converted image: its files as other programs see them, and the system they start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::conversion::{Conversion, conversion};
use crate::support::framework::framework;
use crate::support::machine::Machine;
use crate::support::program::Kfactory;
use crate::support::tree::{Tree, differences};
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{need, run, skipped, world};

/// Emulation on a busy machine with two cores takes three minutes, and such a machine may stand still for some in between.
const LIMIT: Duration = Duration::from_secs(900);

/// Makes the network boot files of the converted image in `dir`.
fn netboot(made: &Conversion, dir: &Path) {
    let dir = dir.to_str().expect("UTF-8");
    let store = Scratch::of_caller("netboot-store");
    Kfactory::as_caller([
        "netboot",
        &made.reference(),
        "-o",
        dir,
        "--squash-compression",
        "zstd:1",
    ])
    .store(&store.0)
    .dated()
    .succeed();
}

#[test]
fn the_root_filesystem_in_a_squashfs_is_the_images_own() {
    if !need(&["mksquashfs", "unsquashfs"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    if !is_root() {
        return skipped("owners of an unpacked squashfs can only be compared by root");
    }
    let dir = world().own_dir("netboot-files");
    netboot(made, &dir.join("a"));
    netboot(made, &dir.join("b"));
    for name in [
        "kairos.squashfs",
        "kairos-kernel",
        "kairos-initrd",
        "boot.ipxe",
    ] {
        run(Command::new("cmp")
            .arg(dir.join("a").join(name))
            .arg(dir.join("b").join(name)));
    }
    let unpacked = dir.join("tree");
    run(Command::new("unsquashfs")
        .args(["-no-progress", "-dest"])
        .arg(&unpacked)
        .arg(dir.join("a/kairos.squashfs"))
        .stdout(Stdio::null()));
    let found = Tree::new(unpacked);
    let different = differences(&made.tree().listing(), &found.listing(), 20);
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_machine_boots_from_the_network_to_a_live_system() {
    if !need(&["mksquashfs", "qemu-system-x86_64"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    if !framework().is_real {
        return skipped("a live system needs the real Kairos binaries");
    }
    let dir = world().own_dir("netboot");
    netboot(made, &dir.join("boot"));
    let (server, address) = Server::start(&dir.join("boot"));
    let port = address.rsplit(':').next().expect("a port");
    // The firmware's own iPXE, which is older than what it would need to know where the script comes from.
    let net = format!("user,id=n,bootfile=http://10.0.2.2:{port}/boot.ipxe");
    let devices = [
        "-boot",
        "n",
        "-netdev",
        &net,
        "-device",
        "virtio-net-pci,netdev=n",
    ];
    let Some(mut machine) = Machine::start(4096, devices) else {
        return;
    };
    live(&mut machine, made);
    drop(server);
}

/// Waits for the shell of a live system, which must be the converted image's.
#[track_caller]
fn live(machine: &mut Machine, made: &Conversion) {
    machine.wait_for(&["login:", "# "], LIMIT);
    let second = Duration::from_secs(120);
    let release = machine.run("cat /etc/kairos-release", second);
    assert_eq!(release, made.tree().read("/etc/kairos-release").trim());
    let mode = machine.run("ls /run/cos", second);
    assert!(mode.contains("live_mode"), "{mode}");
    let state = machine.run("kairos-agent state get boot", second);
    assert!(state.contains("livecd_boot"), "{state}");
    eprintln!("after {:.0} s", machine.uptime().as_secs_f64());
}

/// `kfactory netboot serve`, which ends with this value.
struct Server(std::process::Child);

impl Server {
    fn start(dir: &Path) -> (Self, String) {
        use std::io::BufRead as _;
        let mut child = Command::new(env!("CARGO_BIN_EXE_kfactory"))
            .args(["netboot", "serve"])
            .arg(dir)
            .args(["--address", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it says where it is");
        let address = line.trim().trim_start_matches("serving http://");
        let address = address.trim_end_matches("/boot.ipxe").to_owned();
        (Self(child), address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
