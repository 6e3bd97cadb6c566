//! Disks for Raspberry Pis, started in QEMU's Raspberry Pi 3 as its firmware would: from U-Boot and the device tree on their FAT.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::base::{Bootstrap, MAX_AGE};
use crate::support::bootable::{MENU_TEXT, bootable};
use crate::support::machine::Machine;
use crate::support::program::{Kfactory, Ran};
use crate::support::world::Scratch;
use crate::support::{need, run, skipped, wants_all};

/// Emulation of so little takes seconds, but the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);
/// A kernel of a distribution in that machine takes minutes.
const KERNEL_LIMIT: Duration = Duration::from_secs(900);
/// QEMU's SD cards have a size that is a power of two.
const CARD: &str = "2G";
const RELEASE: &str =
    "KAIROS_FLAVOR=debian\nKAIROS_ARCH=arm64\nKAIROS_MODEL=rpi3\nKAIROS_VERSION=v1.0.0\n";
const PACKAGES: &str = "--include=raspi-firmware,u-boot-rpi,grub-efi-arm64-signed,shim-signed";
const MENU: &str = include_str!("../../../src/kairos/files/grub.cfg");
const ARGUMENTS: &str = include_str!("../../../src/kairos/files/bootargs.cfg");

/// Returns a tar file with packages of Debian's for arm64, taken apart and not set up, of which nothing can run here.
fn packages(name: &str, more: &[&str]) -> Option<PathBuf> {
    let options = [
        &[
            "--variant=extract",
            "--architectures=arm64",
            "--components=main,non-free-firmware",
            PACKAGES,
        ],
        more,
    ];
    let bootstrap = Bootstrap {
        name,
        suite: "bookworm",
        options: &options.concat(),
        sources: &[],
        max_age: MAX_AGE,
    };
    match bootstrap.tar() {
        Ok(tar) => Some(tar),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

/// A directory with a disk of packages, and what it takes to make it.
struct Card {
    dir: Scratch,
    tar: PathBuf,
}

impl Card {
    fn new(name: &str, tar: PathBuf) -> Self {
        let card = Self {
            dir: Scratch::of_user(name),
            tar,
        };
        card.file("etc/kairos-release", RELEASE.as_bytes());
        card.file("boot/initrd", b"initrd");
        card
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// Adds a file to those that are missing in the packages.
    fn file(&self, path: &str, content: &[u8]) {
        let place = self.path("rootfs").join(path);
        std::fs::create_dir_all(place.parent().expect("below the root")).expect("a directory");
        std::fs::write(place, content).expect("written");
    }

    fn raw(&self) -> Kfactory {
        let source = format!("tar:{}", self.tar.display());
        Kfactory::new(["raw", &source, "--platform", "linux/arm64", "--no-validate"])
            .args(["--size", CARD])
            .args([Path::new("--overlay-rootfs"), &self.path("rootfs")])
            .args([Path::new("-o"), &self.path("card.raw")])
            .store(&self.path("store"))
    }

    /// Copies a file of the FAT, which begins after 1 MiB.
    fn fat(&self, name: &str) -> PathBuf {
        let image = format!("{}@@1M", self.path("card.raw").display());
        let place = self.path(name);
        run(Command::new("mcopy")
            .args(["-n", "-i", &image, &format!("::{name}")])
            .arg(&place));
        place
    }

    /// Starts the board with what its firmware finds on the disk.
    fn start(&self) -> Option<Machine> {
        let card = format!("if=sd,format=raw,file={}", self.path("card.raw").display());
        let (u_boot, tree) = (self.fat("u-boot.bin"), self.fat("bcm2837-rpi-3-b.dtb"));
        Machine::raspberry_pi([
            Path::new("-kernel"),
            &u_boot,
            Path::new("-dtb"),
            &tree,
            Path::new("-drive"),
            Path::new(&card),
        ])
    }
}

/// Returns the device tree of the board that its own U-Boot has built in: its magic number, its size, and the rest.
fn device_tree(tar: &Path) -> Vec<u8> {
    let output = Command::new("tar")
        .arg("-xOf")
        .arg(tar)
        .arg("./usr/lib/u-boot/rpi_3/u-boot.bin")
        .output()
        .expect("tar runs");
    let bytes = output.stdout;
    let magic = [0xD0, 0x0D, 0xFE, 0xED];
    let starts = (0..bytes.len().saturating_sub(8)).filter(|at| bytes[*at..].starts_with(&magic));
    let mut trees = starts.filter_map(|at| {
        let size = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
        bytes.get(at..at + size as usize)
    });
    trees.next().expect("a device tree").to_vec()
}

#[test]
fn a_card_leads_a_raspberry_pi_from_u_boot_over_shim_to_the_menu() {
    if !need(&["qemu-system-aarch64", "mcopy", "sgdisk", "sfdisk"]) {
        return;
    }
    let Some(tar) = packages("bookworm-rpi", &[]) else {
        return;
    };
    let card = Card::new("raw-board", tar);
    let menu = format!("echo \"{MENU_TEXT}\"\necho \"its end\"\nsleep 1000\n");
    card.file("etc/cos/grub.cfg", menu.as_bytes());
    card.file("boot/vmlinuz", b"kernel");
    card.raw().fail(1).tells(&[
        "lacks what that starts from: device trees",
        "`--overlay-uefi DIR`",
    ]);
    card.file("boot/vmlinuz-6.1", b"kernel");
    std::fs::remove_file(card.path("rootfs/boot/vmlinuz")).expect("ours");
    std::os::unix::fs::symlink("vmlinuz-6.1", card.path("rootfs/boot/vmlinuz")).expect("a link");
    let tree = "usr/lib/linux-image-6.1/broadcom/bcm2837-rpi-3-b.dtb";
    card.file(tree, &device_tree(&card.tar));
    card.raw().succeed();
    let disk = card.path("card.raw");
    let verified = run(Command::new("sgdisk").arg("-v").arg(&disk));
    assert!(verified.contains("No problems found"), "{verified}");
    let verified = run(Command::new("sfdisk").arg("--verify").arg(&disk));
    assert!(verified.contains("No errors detected"), "{verified}");
    let Some(mut machine) = card.start() else {
        return;
    };
    machine.wait_for(&["U-Boot 20"], LIMIT);
    machine.wait_for(&[MENU_TEXT], LIMIT);
    eprintln!("after {:.0} s", machine.uptime().as_secs_f64());
}

#[test]
fn a_card_leads_a_raspberry_pi_to_the_kernel_of_its_recovery_system() {
    if !wants_all("a board's kernel is downloaded") {
        return;
    }
    if !need(&["qemu-system-aarch64", "mcopy"]) {
        return;
    }
    let Some(tar) = packages("bookworm-rpi-kernel", &["--include=linux-image-arm64"]) else {
        return;
    };
    let listed = run(Command::new("tar").arg("-tf").arg(&tar));
    let kernel = listed
        .lines()
        .find(|line| line.starts_with("./boot/vmlinuz-"));
    let kernel = kernel.expect("a kernel").trim_start_matches("./boot/");
    let card = Card::new("raw-board-kernel", tar);
    card.file("etc/cos/grub.cfg", MENU.as_bytes());
    card.file("etc/cos/bootargs.cfg", ARGUMENTS.as_bytes());
    std::os::unix::fs::symlink(kernel, card.path("rootfs/boot/vmlinuz")).expect("a link");
    card.raw().succeed();
    let Some(mut machine) = card.start() else {
        return;
    };
    machine.wait_for(&["Booting Linux"], KERNEL_LIMIT);
    machine.wait_for(&["cos-img/filename=/cOS/recovery.img"], KERNEL_LIMIT);
    // The serial line that the image's arguments name is that of the board.
    machine.wait_for(&["console [ttyS0] enabled"], KERNEL_LIMIT);
    eprintln!("after {:.0} s", machine.uptime().as_secs_f64());
}

#[test]
fn files_for_the_fat_take_the_places_of_ours_and_need_one() {
    if !need(&["mtype"]) {
        return;
    }
    let Some(tar) = bootable("whole", &[], &[]) else {
        return;
    };
    let dir = Scratch::of_user("raw-overlay-uefi");
    let overlay = dir.0.join("uefi");
    std::fs::create_dir_all(overlay.join("EFI/BOOT")).expect("a directory");
    std::fs::write(overlay.join("EFI/BOOT/grub.cfg"), "mine").expect("written");
    std::fs::write(overlay.join("startup.nsh"), "mine too").expect("written");
    let source = format!("tar:{}", tar.display());
    let raw = |options: &[&str]| {
        Kfactory::new(["raw", &source, "--no-validate"])
            .args([Path::new("--overlay-uefi"), &overlay])
            .args([Path::new("-o"), &dir.0.join("os.raw")])
            .args(options)
            .store(&dir.0.join("store"))
    };
    let refused: Ran = raw(&["--boot", "bios"]).fail(1);
    refused.tells(&[
        "has no file system for UEFI",
        "hint: leave `--overlay-uefi` out",
    ]);
    raw(&[]).succeed();
    let image = format!("{}@@1M", dir.0.join("os.raw").display());
    for (name, text) in [("EFI/BOOT/grub.cfg", "mine"), ("startup.nsh", "mine too")] {
        let found = run(Command::new("mtype").args(["-i", &image, &format!("::{name}")]));
        assert_eq!(found, text, "{name}");
    }
}
