//! Disks of a few files: every form of them, as the programs see them that take such forms, and their start to the menu.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::drive;
use crate::support::bootable::{MENU_TEXT, bootable};
use crate::support::machine::{Machine, firmware};
use crate::support::program::Kfactory;
use crate::support::world::Scratch;
use crate::support::{need, run};

/// Emulation of so little takes seconds, but the machine may be busy.
const LIMIT: Duration = Duration::from_secs(300);

/// A directory of the plain user, with the archive of an image.
struct Place {
    dir: Scratch,
    tar: PathBuf,
}

impl Place {
    fn new(name: &str) -> Option<Self> {
        let tar = bootable("whole", &[], &[])?;
        let dir = Scratch::of_user(name);
        Some(Self { dir, tar })
    }

    /// Prepares `kfactory raw` of the image, to a file of this directory.
    fn raw(&self, output: &str, options: &[&str]) -> Kfactory {
        let source = format!("tar:{}", self.tar.display());
        let output = self.path(output);
        Kfactory::new(["raw", &source, "--no-validate", "-o"])
            .args([&output])
            .args(options)
            .store(&self.path("store"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// Returns the names of all files but the store.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.expect("an entry").file_name();
            name.to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).filter(|name| name != "store").collect();
        names.sort();
        names
    }
}

fn same(raw: &Path, form: &str, other: &Path) {
    run(Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", form])
        .arg(raw)
        .arg(other));
}

#[test]
fn every_form_holds_the_same_disk_and_has_a_checksum() {
    if !need(&["qemu-img", "gzip", "sha256sum"]) {
        return;
    }
    let Some(place) = Place::new("raw-forms") else {
        return;
    };
    place.raw("os.raw", &[]).succeed();
    let raw = place.path("os.raw");
    for (name, form) in [
        ("os.qcow2", "qcow2"),
        ("os.vmdk", "vmdk"),
        ("os.vhd", "vpc"),
    ] {
        place.raw(name, &[]).succeed();
        same(&raw, form, &place.path(name));
        if form != "vpc" {
            run(Command::new("qemu-img")
                .args(["check", "-f", form])
                .arg(place.path(name)));
        }
    }
    let size = raw.metadata().expect("made").len();
    let vhd = place.path("os.vhd").metadata().expect("made").len();
    assert_eq!(
        (size % (1 << 20), vhd),
        (0, size + 512),
        "a VHD is the disk and its footer"
    );

    place.raw("os.img.gz", &[]).succeed();
    let unpacked = Command::new("sh")
        .args(["-c", "gzip -dc os.img.gz | cmp - os.raw"])
        .current_dir(&place.dir.0)
        .status();
    assert!(
        unpacked.is_ok_and(|status| status.success()),
        "MAAS' form is not the disk"
    );

    place.raw("os.tar.gz", &[]).succeed();
    let listed = run(Command::new("tar")
        .arg("-tvzf")
        .arg(place.path("os.tar.gz")));
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(
        (listed.lines().count(), words.last()),
        (1, Some(&"disk.raw")),
        "{listed}"
    );
    run(Command::new("tar")
        .arg("-xzf")
        .arg(place.path("os.tar.gz"))
        .arg("-C")
        .arg(&place.dir.0));
    let disk = place.path("disk.raw");
    assert_eq!(
        disk.metadata().expect("unpacked").len() % (1 << 30),
        0,
        "Google takes whole GiB"
    );
    run(Command::new("sgdisk").arg("-v").arg(&disk));

    std::fs::remove_file(disk).expect("ours");
    for name in place
        .names(".")
        .iter()
        .filter(|name| name.ends_with(".sha256"))
    {
        run(Command::new("sha256sum")
            .args(["-c", name])
            .current_dir(&place.dir.0));
    }
    assert_eq!(place.names(".").len(), 12, "{:?}", place.names("."));
}

#[test]
fn the_same_image_gives_the_same_bytes_dated_or_not() {
    let Some(place) = Place::new("raw-twice") else {
        return;
    };
    for (first, second, form) in [("a.qcow2", "b.qcow2", "qcow2"), ("a.raw", "b.raw", "raw")] {
        place.raw(first, &["--jobs", "1"]).succeed();
        place.raw(second, &["--jobs", "4"]).succeed();
        run(Command::new("cmp")
            .arg(place.path(first))
            .arg(place.path(second)));
        let dated = |name: &str| place.raw(name, &["--format", form]).dated().succeed();
        dated("c");
        dated("d");
        run(Command::new("cmp")
            .arg(place.path("c"))
            .arg(place.path("d")));
        for name in ["c", "c.sha256", "d", "d.sha256"] {
            std::fs::remove_file(place.path(name)).expect("ours");
        }
    }
}

#[test]
fn in_a_directory_a_disk_has_upstreams_name_and_says_what_it_needs() {
    let Some(place) = Place::new("raw-name") else {
        return;
    };
    std::fs::create_dir(place.path("out")).expect("ours");
    let status = Command::new("chmod")
        .arg("777")
        .arg(place.path("out"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "it is ours");
    let ran = place
        .raw("out", &["--format", "qcow2", "--progress", "json"])
        .succeed();
    let name = "kairos-debian-12-core-amd64-generic-v1.0.0.qcow2";
    assert_eq!(
        place.names("out"),
        [name.to_owned(), format!("{name}.sha256")]
    );
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(
        (&told["format"], &told["bios"], &told["uefi"]),
        (&"qcow2".into(), &true.into(), &true.into())
    );
    let needed = told["first_boot_disk_bytes"].as_u64().expect("a number");
    assert!(
        needed > told["disk_bytes"].as_u64().expect("a number"),
        "{told}"
    );

    let size = format!("{}M", needed.div_ceil(1 << 20));
    let small = place.raw("small.raw", &[]).succeed();
    small.tells(&[
        "when it boots first",
        &format!("`truncate -s {size} FILE`"),
        &format!("--size {size}`"),
        "no default credentials",
    ]);
    std::fs::write(
        place.path("user.yaml"),
        "#cloud-config\ninstall: {nousers: true}\n",
    )
    .expect("ours");
    let config = place.path("user.yaml");
    let large = place.raw(
        "large.raw",
        &[
            "--size",
            &size,
            "--cloud-config",
            config.to_str().expect("UTF-8"),
        ],
    );
    let large = large.succeed();
    assert!(!large.says("warning"), "{}", large.stderr());
    assert_eq!(
        place.path("large.raw").metadata().expect("made").len(),
        needed.next_multiple_of(1 << 20)
    );
    run(Command::new("sgdisk")
        .arg("-v")
        .arg(place.path("large.raw")));
}

#[test]
fn a_disk_leads_bios_and_uefi_to_the_menu_of_its_recovery_partition() {
    let Some(place) = Place::new("raw-menu") else {
        return;
    };
    place.raw("os.qcow2", &[]).succeed();
    let disk = place.path("os.qcow2");
    let machines = [Some(None), firmware().map(Some)];
    for firmware in machines.into_iter().flatten() {
        let mut arguments = vec![
            "-nic".to_owned(),
            "none".to_owned(),
            "-drive".to_owned(),
            drive(&disk),
        ];
        arguments.extend(
            firmware
                .map(|file| ["-bios".to_owned(), file.to_owned()])
                .into_iter()
                .flatten(),
        );
        let Some(mut machine) = Machine::start(512, arguments) else {
            return;
        };
        machine.wait_for(&[MENU_TEXT], LIMIT);
        eprintln!("after {:.0} s", machine.uptime().as_secs_f64());
    }
}
