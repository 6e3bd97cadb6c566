//! The converted image keeps the boot contract: what Kairos, its installer and its boot loader look for, and nothing left over.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use std::process::Command;

use crate::support::conversion::conversion;
use crate::support::cpio::{self, Entry};
use crate::support::framework::framework;
use crate::support::program::EPOCH;
use crate::support::run;
use crate::support::tree::Tree;
use crate::support::user::is_root;

/// Returns the tree of the converted image.
macro_rules! tree {
    () => {
        match conversion() {
            Some(made) => made.tree(),
            None => return,
        }
    };
}

#[test]
fn the_release_file_has_every_key_in_a_form_that_all_its_readers_take() {
    let tree = tree!();
    let text = tree.read("etc/kairos-release");
    let expected = [
        ("ARCH", "amd64"),
        ("BUG_REPORT_URL", ""),
        ("FAMILY", "debian"),
        ("FIPS", "false"),
        ("FLAVOR", "debian"),
        ("FLAVOR_RELEASE", "12"),
        ("HOME_URL", ""),
        ("ID", "kairos"),
        ("ID_LIKE", "kairos-core-debian-12"),
        ("INIT_VERSION", "v"),
        ("MODEL", "generic"),
        ("NAME", "kairos-core-debian-12"),
        ("RELEASE", "v1.0.0"),
        ("TARGETARCH", "amd64"),
        ("TRUSTED_BOOT", "false"),
        ("VARIANT", "core"),
        ("VERSION", "v1.0.0"),
    ];
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    for (key, value) in expected {
        let value = if value == "amd64" {
            architecture
        } else {
            value
        };
        let bare = format!("KAIROS_{key}={value}");
        if value == "12" && text.lines().any(|line| line == bare) {
            // A number stands bare, as dotenv writers do it.
            continue;
        }
        let start = format!("KAIROS_{key}=\"{value}");
        assert!(
            text.lines()
                .any(|line| line.starts_with(&start) && line.ends_with('"')),
            "no {start} in:\n{text}"
        );
    }
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    assert_eq!(tree.metadata("etc/kairos-release").mode() & 0o7777, 0o644);
}

#[test]
fn the_kernel_resolves_and_belongs_to_the_modules_and_the_initrd() {
    let tree = tree!();
    let kernel = tree
        .resolve("/boot/vmlinuz")
        .expect("/boot/vmlinuz resolves");
    let name = kernel
        .file_name()
        .and_then(|name| name.to_str())
        .expect("text");
    let version = name
        .strip_prefix("vmlinuz-")
        .expect("a kernel with its version");
    assert!(
        tree.has(&format!("/lib/modules/{version}/modules.dep")),
        "no modules of {version}"
    );
    assert_eq!(
        tree.names("lib/modules")
            .len()
            .max(tree.names("usr/lib/modules").len()),
        1,
        "one kernel"
    );
    let initrds: Vec<String> = tree
        .names("boot")
        .into_iter()
        .filter(|name| name.starts_with("initr"))
        .collect();
    assert_eq!(initrds, ["initrd"]);
    let entries = initrd(tree);
    let modules = format!("usr/lib/modules/{version}/");
    assert!(
        entries.iter().any(|entry| entry.name.starts_with(&modules)),
        "the initrd is for another kernel"
    );
}

fn initrd(tree: &Tree) -> Vec<Entry> {
    let place = tree.resolve("/boot/initrd").expect("/boot/initrd is there");
    cpio::entries(&std::fs::read(place).expect("readable"))
}

#[test]
fn the_initrd_can_mount_a_kairos_system() {
    let tree = tree!();
    let entries = initrd(tree);
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let holds = |end: &str| names.iter().any(|name| name.ends_with(end));
    for end in [
        "usr/bin/immucore",
        "usr/bin/kairos-agent",
        "systemd/system/immucore.service",
        "/squashfs.ko",
        "/overlay.ko",
        "/loop.ko",
        "/isofs.ko",
        "/sr_mod.ko",
        "sbin/dmsquash-live-root",
        "usr/lib/systemd/systemd",
        "dev/console",
        "dev/null",
    ] {
        let compressed = format!("{end}.xz");
        assert!(holds(end) || holds(&compressed), "no {end} in the initrd");
    }
    if framework().is_real {
        let mut sizes = entries
            .iter()
            .filter(|entry| entry.name.ends_with("bin/immucore"))
            .map(|entry| entry.content.len());
        assert!(sizes.any(|size| size > 1 << 20), "immucore is no program");
    }
    let epoch: u32 = EPOCH.parse().expect("a number");
    let late: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.mtime > epoch)
        .map(|entry| entry.name.as_str())
        .collect();
    assert!(late.is_empty(), "later than SOURCE_DATE_EPOCH: {late:?}");
}

#[test]
fn the_files_that_kairos_reads_are_there() {
    let tree = tree!();
    let oem = tree.names("system/oem");
    assert!(oem.len() >= 29, "{} cloud-configs: {oem:?}", oem.len());
    for name in [
        "00_rootfs.yaml",
        "08_grub.yaml",
        "09_systemd_services.yaml",
        "52_installer.yaml",
    ] {
        assert!(
            oem.iter().any(|found| found == name),
            "no {name} in {oem:?}"
        );
    }
    for path in [
        "etc/cos/grub.cfg",
        "etc/cos/bootargs.cfg",
        "etc/kairos/branding/grubmenu.cfg",
        "usr/bin/kairos-agent",
        "usr/bin/immucore",
        "usr/lib/dracut/modules.d/28immucore/module-setup.sh",
        "usr/bin/grub2-editenv",
        "usr/bin/sudo",
        "usr/sbin/sshd",
        "usr/bin/systemctl",
    ] {
        assert!(tree.has(path), "{path} is missing");
    }
    for path in [
        "oem",
        "efi",
        "usr/local",
        "home",
        "opt",
        "srv",
        "mnt",
        "system",
        "snap",
    ] {
        assert!(tree.metadata(path).is_dir(), "/{path} is no mount point");
    }
    assert_eq!(tree.metadata("usr/bin/sudo").mode() & 0o7777, 0o4755);
}

#[test]
fn services_are_enabled_and_masked() {
    let tree = tree!();
    let wanted = |name: &str| {
        tree.walk_links("etc/systemd/system")
            .into_iter()
            .any(|(path, _)| path.ends_with(&format!(".wants/{name}.service")))
    };
    for name in ["fail2ban", "systemd-timesyncd", "ssh", "systemd-networkd"] {
        assert!(wanted(name), "{name} is not enabled");
    }
    let masked = tree
        .walk_links("etc/systemd/system")
        .into_iter()
        .any(|(path, to)| path.ends_with("systemd-firstboot.service") && to == "/dev/null");
    assert!(masked, "systemd-firstboot is not masked");
}

#[test]
fn nothing_in_the_image_identifies_one_machine() {
    let tree = tree!();
    assert_eq!(tree.read("etc/machine-id"), "", "a machine makes its own");
    assert!(
        !tree.has("var/lib/dbus/machine-id")
            || tree.metadata("var/lib/dbus/machine-id").is_symlink()
    );
    let keys: Vec<String> = tree
        .names("etc/ssh")
        .into_iter()
        .filter(|name| name.starts_with("ssh_host_"))
        .collect();
    assert!(keys.is_empty(), "{keys:?}");
    for path in [
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
    ] {
        assert!(!tree.has(path), "{path}");
    }
    if tree.has("etc/hostname") {
        assert_eq!(tree.read("etc/hostname"), "");
    }
    if tree.has("etc/iscsi/initiatorname.iscsi") {
        assert!(
            !tree
                .read("etc/iscsi/initiatorname.iscsi")
                .lines()
                .any(|line| line.starts_with("InitiatorName="))
        );
    }
}

/// Returns what the base holds, relative to the root: what stands there is not ours to remove.
fn base_paths() -> BTreeSet<String> {
    let tar = crate::support::base::debian_tar().expect("there is a converted image");
    let text = run(Command::new("tar").arg("-tf").arg(tar));
    text.lines()
        .map(|line| {
            line.trim_start_matches("./")
                .trim_end_matches('/')
                .to_owned()
        })
        .collect()
}

#[test]
fn the_build_leaves_nothing_behind() {
    let tree = tree!();
    let base = base_paths();
    let mut left = Vec::new();
    for dir in [
        "run",
        "tmp",
        "var/tmp",
        "var/log/apt",
        "var/lib/dpkg/updates",
        "proc",
        "sys",
        "var/cache/ldconfig",
    ] {
        let names = tree
            .names(dir)
            .into_iter()
            .map(|name| format!("{dir}/{name}"));
        left.extend(names.filter(|path| !base.contains(path)));
    }
    // These the cleanup empties, whatever the base had there.
    for dir in ["tmp", "var/tmp", "var/lib/apt/lists", "var/cache/apt"] {
        left.extend(
            tree.names(dir)
                .into_iter()
                .map(|name| format!("{dir}/{name}")),
        );
    }
    for path in [
        "usr/sbin/policy-rc.d",
        "var/lib/dpkg/lock",
        "var/lib/dpkg/lock-frontend",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/triggers/Lock",
        "var/log/dpkg.log",
        "var/log/alternatives.log",
        "etc/passwd-",
        "etc/shadow-",
        "etc/group-",
        "etc/gshadow-",
        "etc/.pwd.lock",
        "initrd.img",
        "initrd.img.old",
        // Bound in while packages install.
        "etc/hosts",
        "etc/resolv.conf",
    ] {
        let is_there = tree
            .dir
            .join(path)
            .symlink_metadata()
            .is_ok_and(|found| !found.is_symlink());
        if is_there && !base.contains(path) {
            left.push(path.to_owned());
        }
    }
    // Names that package managers give to files for a moment, and ours.
    let endings = [
        ".dpkg-new",
        ".dpkg-tmp",
        ".dpkg-old",
        ".kfactory",
        ".REAL",
        ".wh..wh..opq",
    ];
    let odd = tree
        .walk()
        .into_iter()
        .map(|(path, _)| path.display().to_string());
    left.extend(
        odd.filter(|path| {
            endings.iter().any(|end| path.ends_with(end)) || path.contains("kfactory")
        }),
    );
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn packages_are_configured_and_the_triggers_have_run() {
    let tree = tree!();
    let status = tree.read("var/lib/dpkg/status");
    let mut installed = 0;
    for line in status.lines().filter(|line| line.starts_with("Status: ")) {
        assert!(
            line == "Status: install ok installed" || line.ends_with("config-files"),
            "{line}"
        );
        installed += 1;
    }
    assert!(installed > 250, "{installed} packages");
    assert!(!status.contains("Triggers-Pending") && !status.contains("Triggers-Awaited"));
    for command in ["update-initramfs", "ldconfig", "dracut"] {
        for dir in ["usr/sbin", "sbin", "usr/bin"] {
            let path = format!("{dir}/{command}");
            if let Some(place) = tree.resolve(&path).filter(|place| place.is_file()) {
                let size = place.metadata().expect("there").len();
                assert!(size > 300, "/{path} is a stand-in of {size} bytes");
            }
        }
    }
}

#[test]
fn modes_are_sane_everywhere() {
    let tree = tree!();
    assert_eq!(tree.metadata("boot").mode() & 0o7777, 0o755);
    assert_eq!(
        tree.dir.metadata().expect("the root").mode() & 0o7777,
        0o755
    );
    for (path, mode) in [
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("root", 0o700),
        ("etc", 0o755),
        ("usr", 0o755),
        ("etc/shadow", 0o640),
    ] {
        assert_eq!(tree.metadata(path).mode() & 0o7777, mode, "/{path}");
    }
    for (path, metadata) in tree.walk() {
        let kind = metadata.file_type();
        let mode = metadata.mode() & 0o7777;
        // Where device nodes cannot be made, empty files stand for them.
        let is_device = path.starts_with("dev") || kind.is_char_device() || kind.is_block_device();
        if kind.is_symlink() || is_device {
            continue;
        }
        assert!(
            mode & 0o700 != 0 || path.starts_with("etc"),
            "{path:?} has mode {mode:o}"
        );
        assert!(
            mode & 0o002 == 0 || mode & 0o1000 != 0,
            "{path:?} may be written by everybody: {mode:o}"
        );
        if is_root() && (path.starts_with("system") || path.starts_with("boot")) {
            assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{path:?}");
            assert_eq!(mode & 0o022, 0, "{path:?}: {mode:o}");
        }
    }
}

#[test]
fn links_of_our_making_lead_somewhere() {
    let tree = tree!();
    for path in [
        "boot/vmlinuz",
        "usr/bin/grub2-editenv",
        "usr/bin/nvidia-smi",
        "vmlinuz",
        "initrd.img",
    ] {
        let Ok(metadata) = tree.dir.join(path).symlink_metadata() else {
            continue;
        };
        assert!(
            !metadata.is_symlink() || tree.resolve(path).is_some_and(|place| place.exists()),
            "/{path} dangles"
        );
    }
    for (path, to) in tree
        .walk_links("boot")
        .into_iter()
        .chain(tree.walk_links("system"))
        .chain(tree.walk_links("etc/systemd/system"))
    {
        assert!(
            to == "/dev/null" || tree.resolve(&path).is_some_and(|place| place.exists()),
            "/{path} -> {to} dangles"
        );
    }
}
