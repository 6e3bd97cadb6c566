//! What boots of the converted image: its files as other programs see them, and the system they start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::bootable::bootable;
use crate::support::conversion::{Conversion, conversion, convert};
use crate::support::framework::framework;
use crate::support::installed_system::{USER, is_active};
use crate::support::machine::{Machine, firmware};
use crate::support::program::Kfactory;
use crate::support::shared::Shared;
use crate::support::tree::{Tree, differences};
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{need, run, skipped, wants_all, world};

/// Emulation on a busy machine with two cores takes three minutes, and such a machine may stand still for some in between.
const LIMIT: Duration = Duration::from_secs(900);

/// Names a store that no other test has at the same time.
fn store() -> Scratch {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Scratch::of_caller(&format!("artifact-store-{number}"))
}

/// Makes the network boot files of the converted image in `dir`.
fn netboot(made: &Conversion, dir: &Path) {
    let dir = dir.to_str().expect("UTF-8");
    let store = store();
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
    // The one thing of an image that a squashfs has no room for; the command says so.
    let mut listing = made.tree().listing();
    for line in listing.values_mut() {
        let kept = line
            .split(' ')
            .filter(|part| !part.starts_with("system.posix_acl_"));
        *line = kept.collect::<Vec<_>>().join(" ");
    }
    let different = differences(&listing, &found.listing(), 20);
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

/// Makes the live medium of the converted image, with all messages on the serial line.
fn iso(made: &Conversion, file: &Path, arguments: &[&str]) {
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("it can be made");
    let file = file.to_str().expect("UTF-8");
    let store = store();
    let reference = made.reference();
    let mut all = vec![
        "iso",
        &reference,
        "-o",
        file,
        "--squash-compression",
        "zstd:1",
    ];
    all.extend(["--live-console", "console=tty1 console=ttyS0"]);
    all.extend(arguments);
    Kfactory::as_caller(all).store(&store.0).dated().succeed();
}

/// The live medium that several tests look at.
fn medium() -> Option<(&'static Conversion, Arc<Scratch>)> {
    static MEDIUM: Shared<Scratch> = Shared::new(5);
    if !need(&["mksquashfs"]) {
        return None;
    }
    let made = conversion()?;
    let dir = MEDIUM.get(|| {
        let dir = Scratch::of_caller("medium");
        iso(made, &dir.0.join("os.iso"), &[]);
        Some(dir)
    })?;
    Some((made, dir))
}

#[test]
fn a_live_medium_is_the_same_each_time_and_holds_the_images_files() {
    if !need(&["xorriso", "unsquashfs", "mdir"]) {
        return;
    }
    let Some((made, dir)) = medium() else { return };
    let file = dir.0.join("os.iso");
    let again = Scratch::of_caller("medium-again");
    iso(made, &again.0.join("os.iso"), &[]);
    run(Command::new("cmp").arg(&file).arg(again.0.join("os.iso")));
    run(Command::new("sha256sum")
        .args(["-c", "os.iso.sha256"])
        .current_dir(&dir.0));
    let report = run(Command::new("xorriso").arg("-indev").arg(&file).args([
        "-pvd_info",
        "-report_el_torito",
        "plain",
        "-report_system_area",
        "plain",
    ]));
    for part in [
        "Volume Id    : COS_LIVE",
        "El Torito img path :   1  /boot/eltorito.img",
        "El Torito img path :   2  /boot/uefi.img",
        "grub2-mbr",
        "GPT partition path :   1  /boot/uefi.img",
    ] {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
    let out = again.0.join("out");
    run(Command::new("xorriso")
        .args(["-osirrox", "on", "-indev"])
        .arg(&file)
        .args(["-extract", "/"])
        .arg(&out));
    let tree = made.tree();
    for (ours, images) in [
        ("boot/kernel", "/boot/vmlinuz"),
        ("boot/initrd", "/boot/initrd"),
    ] {
        let image = tree.resolve(images).expect("it is there");
        run(Command::new("cmp").arg(out.join(ours)).arg(image));
    }
    let served = again.0.join("served");
    let source = format!("iso:{}", file.display());
    let arguments = ["netboot", &source, "-o", served.to_str().expect("UTF-8")];
    Kfactory::as_caller(arguments).succeed();
    for (name, theirs) in [("kernel", "boot/kernel"), ("initrd", "boot/initrd")] {
        let ours = served.join(format!("kairos-{name}"));
        run(Command::new("cmp").arg(ours).arg(out.join(theirs)));
    }
    let root = served.join("kairos.squashfs");
    run(Command::new("cmp")
        .arg(root)
        .arg(out.join("rootfs.squashfs")));
    let list = run(Command::new("unsquashfs")
        .args(["-lln"])
        .arg(out.join("rootfs.squashfs")));
    assert!(
        list.contains("squashfs-root/usr/bin/immucore"),
        "no immucore"
    );
    run(Command::new("fsck.fat")
        .arg("-n")
        .arg(out.join("boot/uefi.img")));
    let efi = run(Command::new("mdir")
        .arg("-/b")
        .arg("-i")
        .arg(out.join("boot/uefi.img")));
    assert!(
        efi.to_lowercase().contains("/efi/boot/bootx64.efi"),
        "{efi}"
    );
}

#[test]
fn what_is_no_live_medium_serves_no_machine_and_leaves_nothing() {
    let dir = Scratch::of_caller("no-medium");
    std::fs::create_dir_all(&dir.0).expect("it can be made");
    let (file, output) = (dir.0.join("x.iso"), dir.0.join("out"));
    std::fs::write(&file, vec![0; 1 << 16]).expect("it is written");
    let source = format!("iso:{}", file.display());
    let netboot = |more: &[&str]| {
        let arguments = ["netboot", &source, "-o", output.to_str().expect("UTF-8")];
        Kfactory::as_caller(arguments).args(more)
    };
    let error = netboot(&[]).fail(1).stderr();
    assert!(error.contains("no ISO 9660 disc"), "{error}");
    let error = netboot(&["--squash-compression", "xz"]).fail(2).stderr();
    assert!(error.contains("taken as they are"), "{error}");
    assert!(!output.exists(), "it left a directory");
}

#[test]
fn an_overlay_goes_into_the_root_filesystem_as_roots_and_hides_no_directory() {
    if !need(&["mksquashfs", "unsquashfs"]) {
        return;
    }
    let Some(tar) = bootable("overlaid", &[], &[]) else {
        return;
    };
    let dir = Scratch::of_caller("overlaid");
    let overlay = dir.0.join("overlay");
    for (path, text) in [("etc/motd", "hello"), ("boot/initrd", "another")] {
        let place = overlay.join(path);
        std::fs::create_dir_all(place.parent().expect("below the overlay")).expect("a directory");
        std::fs::write(place, text).expect("it is written");
    }
    let store = Scratch::of_caller("overlaid-store");
    let source = format!("tar:{}", tar.display());
    let netboot = |name: &str| {
        let arguments = ["netboot", &source, "--no-validate", "-o", name];
        Kfactory::as_caller(arguments)
            .args([Path::new("--overlay-rootfs"), &overlay])
            .store(&store.0)
            .dated()
    };
    let made = dir.0.join("made");
    netboot(made.to_str().expect("UTF-8")).succeed();
    let initrd = std::fs::read_to_string(made.join("kairos-initrd")).expect("it is there");
    assert_eq!(initrd, "another");
    let list = run(Command::new("unsquashfs")
        .arg("-lln")
        .arg(made.join("kairos.squashfs")));
    let line = |path: &str| {
        let end = format!(" squashfs-root/{path}");
        let line = list.lines().find(|line| line.ends_with(&end));
        line.unwrap_or_else(|| panic!("no {path} in\n{list}"))
            .to_owned()
    };
    let motd = line("etc/motd");
    assert!(motd.split_whitespace().nth(1) == Some("0/0"), "{motd}");
    line("etc/kairos-release");
    std::fs::remove_dir_all(overlay.join("etc")).expect("it is there");
    std::fs::write(overlay.join("etc"), "").expect("it is written");
    let refused = dir.0.join("refused");
    let error = netboot(refused.to_str().expect("UTF-8")).fail(1).stderr();
    assert!(
        error.contains("would take the place of a directory, /etc"),
        "{error}"
    );
    std::fs::remove_file(overlay.join("etc")).expect("it is there");
    let _socket = std::os::unix::net::UnixListener::bind(overlay.join("socket")).expect("bound");
    let error = netboot(refused.to_str().expect("UTF-8")).fail(1).stderr();
    assert!(error.contains("is a socket"), "{error}");
    assert!(!refused.exists(), "it left a directory");
}

#[test]
fn a_conversion_makes_the_media_and_disks_that_the_commands_make_of_its_image() {
    if !need(&["mksquashfs"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    let dir = Scratch::of_user("beside");
    let place = |name: &str| dir.0.join(name).to_str().expect("UTF-8").to_owned();
    let config = place("config.yaml");
    std::fs::write(&config, "#cloud-config\n").expect("it is written");
    let beside = |arguments: &[&str]| {
        let (base, dest) = (made.reference_of_base(), made.reference());
        convert(&base, &dest, &made.store).args(arguments)
    };
    let (iso, raw) = (place("os.iso"), place("os.raw"));
    let mut arguments = vec!["--iso", &iso, "--raw", &raw, "--cloud-config", &config];
    arguments.extend(["--squash-compression", "zstd:1"]);
    let ran = beside(&arguments).succeed();
    let line = format!("\n{} (", made.digest);
    assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    let cached = "4 of 4 new layers cached";
    assert!(ran.stdout.contains(cached), "{}", ran.stdout);
    let error = beside(&arguments).fail(1).stderr();
    assert!(error.contains("os.iso` exists"), "{error}");
    let store = store();
    let reference = made.reference();
    let fast = ["--squash-compression", "zstd:1"];
    for (command, more, file) in [("iso", &fast[..], &iso), ("raw", &[], &raw)] {
        let alone = place(&format!("alone.{command}"));
        let arguments = [command, &reference, "-o", &alone, "-c", &config];
        let arguments = [&arguments[..], more].concat();
        Kfactory::as_caller(arguments)
            .store(&store.0)
            .dated()
            .succeed();
        run(Command::new("cmp").arg(file).arg(&alone));
    }
}

#[test]
fn a_live_medium_starts_from_cd_on_uefi() {
    let Some(firmware) = firmware() else { return };
    let Some((made, dir)) = medium() else { return };
    let file = dir.0.join("os.iso");
    starts(
        made,
        &["-bios", firmware, "-cdrom", file.to_str().expect("UTF-8")],
        true,
    );
}

#[test]
fn a_live_medium_starts_as_a_disk_on_bios() {
    let Some((made, dir)) = medium() else { return };
    starts(made, &["-drive", &disk(&dir.0.join("os.iso"))], false);
}

#[test]
fn a_live_medium_starts_from_cd_on_bios() {
    let Some((made, dir)) = medium() else { return };
    let file = dir.0.join("os.iso");
    starts(made, &["-cdrom", file.to_str().expect("UTF-8")], false);
}

#[test]
fn a_live_medium_starts_as_a_disk_on_uefi() {
    let Some(firmware) = firmware() else { return };
    let Some((made, dir)) = medium() else { return };
    starts(
        made,
        &["-bios", firmware, "-drive", &disk(&dir.0.join("os.iso"))],
        false,
    );
}

#[test]
fn a_medium_installs_itself_on_a_blank_disk_which_starts_on_bios() {
    installs("bios", &[]);
}

#[test]
fn a_medium_installs_itself_on_a_blank_disk_which_starts_on_uefi() {
    let Some(firmware) = firmware() else { return };
    installs("uefi", &["-bios", firmware]);
}

/// Starts a machine with an empty disk from a medium that says to install without asking, and then from the disk alone.
#[track_caller]
fn installs(name: &str, firmware: &[&str]) {
    if !wants_all("an installation takes an emulator a quarter of an hour") {
        return;
    }
    if !need(&["mksquashfs", "qemu-img"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    if !framework().is_real {
        return skipped("an installation needs the real Kairos binaries");
    }
    let dir = Scratch::of_caller(&format!("install-{name}"));
    let (medium, disk) = (dir.0.join("os.iso"), dir.0.join("disk.qcow2"));
    std::fs::create_dir_all(&dir.0).expect("a directory of ours");
    let config = dir.0.join("config.yaml");
    let text = format!(
        "{USER}install:\n  auto: true\n  device: auto\n  reboot: true\n  grub_options:\n    extra_cmdline: console=ttyS0\n"
    );
    std::fs::write(&config, text).expect("it is written");
    iso(made, &medium, &["-c", config.to_str().expect("UTF-8")]);
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .args([disk.as_os_str(), "20G".as_ref()]));
    let drive = format!("if=virtio,format=qcow2,file={}", disk.display());
    // A network that goes nowhere: without one the system waits two minutes for it.
    let devices = [
        "-nic",
        "user,model=virtio-net-pci,restrict=on",
        "-drive",
        &drive,
    ];
    let devices = [&devices, firmware].concat();
    let medium = medium.to_str().expect("UTF-8");
    let from_medium = [&devices[..], &["-cdrom", medium, "-boot", "d"]].concat();
    let Some(mut machine) = Machine::start(4096, from_medium) else {
        return;
    };
    machine.wait_for(&["~# "], LIMIT);
    // It would restart then.
    machine.wait_for_end(LIMIT);
    eprintln!("installed after {:.0} s", machine.uptime().as_secs_f64());
    let Some(mut machine) = Machine::start(4096, devices) else {
        return;
    };
    is_active(&mut machine, made, LIMIT);
}

fn disk(file: &Path) -> String {
    format!("if=virtio,format=raw,readonly=on,file={}", file.display())
}

/// Starts a machine from the medium, to the shell of the live system. Where not `whole`, and not all tests are wanted, until the
/// root filesystem is found: what comes then is the same on all of them.
#[track_caller]
fn starts(made: &Conversion, devices: &[&str], whole: bool) {
    if !framework().is_real {
        return skipped("a live system needs the real Kairos binaries");
    }
    let devices = [&["-nic", "none"], devices].concat();
    let Some(mut machine) = Machine::start(4096, devices) else {
        return;
    };
    machine.wait_for(&["Linux version"], LIMIT);
    machine.wait_for(&["squashfs: version"], LIMIT);
    if whole || wants_all("what comes after the live system's root, on all firmware alike") {
        live(&mut machine, made);
    }
}

/// Waits for the shell of a live system, which must be the converted image's.
#[track_caller]
fn live(machine: &mut Machine, made: &Conversion) {
    machine.wait_for(&["~# "], LIMIT);
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
