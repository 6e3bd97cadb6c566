//! Network boot files, and the checksum beside a file.

use std::fs;

use super::sample::{Files, Medium, netboot, reword, verify_files};
use super::{Case, assert_clean};
use crate::artifact::verify::{Report, verify};

fn of(change: impl FnOnce(&mut Files)) -> Report {
    let mut files = netboot();
    change(&mut files);
    verify_files(&files)
}

fn without(name: &str) -> Report {
    of(|files| {
        files.remove(name).unwrap();
    })
}

fn reworded(from: &str, to: &str) -> Report {
    of(|files| reword(files.get_mut("boot.ipxe").unwrap(), from, to))
}

/// Verifies a medium with `text` as what is beside it.
fn beside(text: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.iso");
    fs::write(&path, Medium::new().bytes()).unwrap();
    fs::write(dir.path().join("a.iso.sha256"), text).unwrap();
    verify(&path, None).unwrap()
}

#[test]
fn good_files_pass_with_and_without_a_script() {
    assert_clean(&verify_files(&netboot()));
    let rules: Vec<String> = without("boot.ipxe")
        .findings
        .into_iter()
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(rules, ["netboot-script"]);
}

pub(super) fn cases() -> Vec<Case> {
    let zeros = "0".repeat(64);
    vec![
        ("netboot-script", without("boot.ipxe")),
        ("netboot-boot", reworded("kernel k-kernel", "echo k-kernel")),
        ("netboot-boot", reworded("\nboot", "\nexit")),
        ("netboot-files initrd-format", without("k-initrd")),
        ("netboot-files", without("k.squashfs")),
        ("netboot-files netboot-script", verify_files(&Files::new())),
        ("menu-arguments", reworded("rd.live.overlay.overlayfs", "")),
        ("netboot-root", reworded("root=live:", "root=")),
        ("netboot-initrd", reworded("initrd=k-initrd", "")),
        (
            "kernel",
            of(|files| files.get_mut("k-kernel").unwrap().clear()),
        ),
        (
            "squashfs",
            of(|files| files.get_mut("k.squashfs").unwrap().truncate(99)),
        ),
        ("checksum", beside(&format!("{zeros}  a.iso\n"))),
        ("checksum", beside(&format!("{zeros}  b.iso\n"))),
    ]
}
