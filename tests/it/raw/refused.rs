//! What no disk is made of, and what is left when making one ends early: nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::bootable::{GRUB_BIOS, GRUB_EFI, bootable};
use crate::support::conversion::conversion;
use crate::support::program::Kfactory;
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{skipped, world};

/// Prepares `kfactory raw` of `tar` to `output`, in a store of its own in `dir`.
fn raw(tar: &Path, dir: &Path, output: &Path, options: &[&str]) -> Kfactory {
    let source = format!("tar:{}", tar.display());
    Kfactory::new(["raw", &source, "-o"])
        .args([output])
        .args(options)
        .store(&dir.join("store"))
}

/// Returns the names in `dir`, but that of the store.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    });
    names.filter(|name| name != "store").collect()
}

/// Asserts that no disk is made of an image that lacks `without` and has `files`, for the reason that `words` say.
#[track_caller]
fn refused(name: &str, without: &[&str], files: &[(&str, &str)], options: &[&str], words: &[&str]) {
    let Some(tar) = bootable(name, without, files) else {
        return;
    };
    let dir = Scratch::of_user(&format!("raw-refused-{name}"));
    let ran = raw(&tar, &dir.0, &dir.0.join("os.raw"), options).fail(1);
    ran.tells(words);
    assert_eq!(names(&dir.0), [""; 0], "something was written");
}

const AS_IT_IS: &str = "--no-validate";

#[test]
fn an_image_that_is_not_ready_is_refused_by_the_rules_it_breaks() {
    refused(
        "whole",
        &[],
        &[],
        &[],
        &[
            "error: cannot make `tar:",
            "caused by: the image does not pass validation",
            "caused by: programs-kairos: immucore is nowhere on the PATH",
            "hint: `--no-validate` makes it",
        ],
    );
}

#[test]
fn a_disk_that_would_not_boot_gets_no_name_unless_that_is_meant() {
    let Some(made) = conversion() else { return };
    let dir = Scratch::of_user("raw-refused-menu");
    let overlay = dir.0.join("overlay/etc/cos");
    std::fs::create_dir_all(&overlay).expect("a directory of ours");
    std::fs::write(overlay.join("grub.cfg"), "echo nothing\n").expect("a file of ours");
    let output = dir.0.join("os.qcow2");
    let raw = || {
        Kfactory::new(["raw", &made.reference(), "-o"])
            .args([&output])
            .args([Path::new("--overlay-rootfs"), &dir.0.join("overlay")])
            .store(&dir.0.join("store"))
    };
    raw().fail(1).tells(&[
        "os.qcow2`\n",
        "caused by: what was made does not boot: disk",
        "caused by: menu: /recovery: /etc/cos/grub.cfg starts no kernel",
        "hint: `--no-validate` makes it all the same",
    ]);
    assert_eq!(names(&dir.0), ["overlay"], "something was written");
    raw().args([AS_IT_IS]).succeed();
    assert!(output.exists());
}

#[test]
fn an_image_without_kernel_initrd_or_menu_is_refused() {
    for (name, path, what) in [
        ("no-kernel", "boot/vmlinuz", "no kernel"),
        ("no-initrd", "boot/initrd", "no initrd"),
        ("no-menu", "etc/cos/grub.cfg", "no boot menu"),
    ] {
        let words = [
            "error: cannot make `",
            what,
            &format!("/{path}"),
            "hint: `kfactory convert` makes it",
        ];
        refused(name, &[path], &[], &[AS_IT_IS], &words);
    }
}

#[test]
fn an_image_without_grub_for_what_is_asked_for_is_refused_with_the_packages_and_the_other_way() {
    let (bios, efi) = (
        ["no GRUB for BIOS", "grub-pc-bin"],
        ["no GRUB for EFI on amd64", "grub-efi-amd64-signed"],
    );
    refused(
        "no-bios",
        &[GRUB_BIOS],
        &[],
        &[AS_IT_IS, "--boot", "bios"],
        &bios,
    );
    let both = [bios[0], bios[1], "`--boot uefi` does without"];
    refused(
        "no-bios",
        &[GRUB_BIOS],
        &[],
        &[AS_IT_IS, "--boot", "both"],
        &both,
    );
    let efi = [efi[0], efi[1], "`--boot bios` does without"];
    refused("no-efi", &[GRUB_EFI], &[], &[AS_IT_IS], &efi);
    refused(
        "no-efi",
        &[GRUB_EFI],
        &[],
        &[AS_IT_IS, "--boot", "uefi"],
        &efi,
    );
}

#[test]
fn an_image_of_another_architecture_is_asked_for_its_own_grub() {
    let arm = [AS_IT_IS, "--platform", "linux/arm64"];
    refused(
        "whole",
        &[],
        &[],
        &arm,
        &["no GRUB for EFI on arm64", "grub-efi-arm64-signed"],
    );
    let bios = [arm[0], arm[1], arm[2], "--boot", "bios"];
    refused(
        "whole",
        &[],
        &[],
        &bios,
        &[
            "no machine with arm64 starts by BIOS",
            "hint: leave `--boot` out",
        ],
    );
}

#[test]
fn a_size_too_small_is_refused_with_the_least_that_does() {
    for (option, what) in [
        ("--size", "has no room for the partitions"),
        ("--state-size", "has no room for the installed system"),
        ("--recovery-size", "has no room for the files"),
    ] {
        let large = "x".repeat(20 << 20);
        let Some(tar) = bootable("large", &[], &[("usr/large", &large)]) else {
            return;
        };
        let dir = Scratch::of_user("raw-too-small");
        let output = dir.0.join("os.raw");
        let ran = raw(&tar, &dir.0, &output, &[AS_IT_IS, option, "20M"]).fail(1);
        ran.tells(&["error: cannot make `", what]);
        let said = ran.stderr();
        let start = said
            .find(&format!("`{option} "))
            .unwrap_or_else(|| panic!("{said}"));
        let least = said[start + option.len() + 2..]
            .split('`')
            .next()
            .expect("a number");
        assert_eq!(names(&dir.0), [""; 0], "something was written");
        raw(&tar, &dir.0, &output, &[AS_IT_IS, option, least]).succeed();
    }
    refused(
        "whole",
        &[],
        &[],
        &[AS_IT_IS, "--recovery-size", "1"],
        &["hint: without `--recovery-size`"],
    );
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_work() {
    let Some(tar) = bootable("whole", &[], &[]) else {
        return;
    };
    let dir = Scratch::of_user("raw-output");
    let missing = dir.0.join("no/os.raw");
    raw(&tar, &dir.0, &missing, &[AS_IT_IS]).fail(1).tells(&[
        "error: cannot write `",
        "/no` does not exist",
        "hint: `mkdir -p ",
    ]);
    let closed = PathBuf::from("/proc/os.raw");
    raw(&tar, &dir.0, &closed, &[AS_IT_IS])
        .fail(1)
        .tells(&["error: cannot ", "`/proc/os.raw`"]);

    let output = dir.0.join("os.raw");
    for taken in ["os.raw", "os.raw.sha256"] {
        let taken = dir.0.join(taken);
        std::fs::write(&taken, "mine").expect("ours");
        let ran = raw(&tar, &dir.0, &output, &[AS_IT_IS]).fail(1);
        ran.tells(&[
            &format!("error: `{}` exists", taken.display()),
            "hint: `--force` replaces it",
        ]);
        assert_eq!(std::fs::read_to_string(&taken).expect("kept"), "mine");
        std::fs::remove_file(taken).expect("ours");
    }
    std::fs::write(&output, "mine").expect("ours");
    raw(&tar, &dir.0, &output, &[AS_IT_IS, "--force", "--size", "1"]).fail(1);
    assert_eq!(std::fs::read_to_string(&output).expect("kept"), "mine");
}

#[test]
fn a_disk_that_is_full_leaves_nothing_under_any_name() {
    if !is_root() {
        return skipped("only root can mount a small file system");
    }
    let Some(tar) = bootable("whole", &[], &[]) else {
        return;
    };
    let dir = world().own_dir("raw-full");
    let small = dir.join("small");
    // What is left is listed before the mount goes.
    let mount = format!(
        "mkdir -p {0} && mount -t tmpfs -o size=6m none {0} && \"$@\"; status=$?; ls -A {0}; exit $status",
        small.display()
    );
    for name in ["os.raw", "os.qcow2", "os.gz"] {
        let source = format!("tar:{}", tar.display());
        let output = small.join(name);
        let ran = Kfactory::as_caller(["raw", &source, AS_IT_IS, "-o"])
            .args([&output])
            .store(&dir.join("store"))
            .wrapped_by(&["unshare", "--mount", "sh", "-c", &mount, "sh"])
            .fail(1);
        ran.tells(&[
            &format!("error: cannot make `{}`", output.display()),
            "No space left on device",
            "hint: that file system is full",
        ]);
        assert_eq!(ran.stdout, "", "{name}: something was left");
    }
}

#[test]
fn images_for_another_way_of_booting_are_refused_by_name() {
    let trusted = [("etc/kairos-release", "KAIROS_TRUSTED_BOOT=\"true\"\n")];
    refused(
        "trusted",
        &[],
        &trusted,
        &[AS_IT_IS],
        &[
            "the image is for Trusted Boot",
            "hint: convert the base without `--trusted`",
        ],
    );
}

#[test]
fn an_interrupted_run_leaves_nothing_under_any_name() {
    let Some(made) = conversion() else { return };
    let dir = Scratch::of_user("raw-interrupted");
    let output = dir.0.join("os.raw");
    let running = Kfactory::new(["raw", &made.reference(), "-o"])
        .args([&output])
        .store(&dir.0.join("store"))
        .start();
    // The file has no name of its own before it is whole.
    let is_begun = || {
        names(&dir.0)
            .iter()
            .any(|name| size_of(&dir.0.join(name)) > 0)
    };
    let end = Instant::now() + Duration::from_secs(300);
    while !is_begun() {
        assert!(Instant::now() < end, "nothing was begun");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("INT");
    let ran = running.wait();
    assert_eq!(ran.code, Some(130), "{}", ran.stderr());
    ran.tells(&[
        "interrupted",
        &format!("there is no `{}`", output.display()),
    ]);
    assert_eq!(names(&dir.0), [""; 0], "something was left");
}

fn size_of(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}
