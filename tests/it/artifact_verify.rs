//! `kfactory artifact verify` on what the other commands make of the converted image.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::support::conversion::conversion;
use crate::support::need;
use crate::support::program::{Kfactory, Ran};
use crate::support::world::Scratch;

fn verify(path: &str, more: &[&str]) -> Kfactory {
    Kfactory::as_caller(["artifact", "verify", path]).args(more)
}

fn rules_of(ran: &Ran) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    let rule = |finding: &serde_json::Value| finding["rule"].as_str().expect("text").to_owned();
    findings.iter().map(rule).collect()
}

/// Changes a byte of a file.
fn damage(file: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is so long");
    file.write_all_at(&[!byte[0]], at).expect("written");
}

#[test]
fn what_is_made_of_an_image_passes_until_a_byte_is_another() {
    if !need(&["mksquashfs"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    let dir = Scratch::of_caller("artifact-verify");
    std::fs::create_dir_all(&dir.0).expect("it can be made");
    let place = |name: &str| dir.0.join(name).to_str().expect("UTF-8").to_owned();
    let (iso, raw, boot) = (place("os.iso"), place("os.raw"), place("boot"));
    let reference = made.reference();
    let medium = format!("iso:{iso}");
    for arguments in [
        &[
            "iso",
            &reference,
            "-o",
            &iso,
            "--squash-compression",
            "zstd:1",
        ][..],
        &["raw", &reference, "-o", &raw],
        &["netboot", &medium, "-o", &boot],
    ] {
        let store = dir.0.join("store");
        Kfactory::as_caller(arguments)
            .store(&store)
            .dated()
            .succeed();
    }
    for (path, kind) in [
        (&iso, "ISO 9660 medium"),
        (&raw, "disk"),
        (&boot, "network boot files"),
    ] {
        let ran = verify(path, &["--strict"]).succeed();
        assert!(
            ran.stdout.contains(&format!("kind       {kind}\n")),
            "{}",
            ran.stdout
        );
        assert!(ran.stdout.contains("kernel     "), "{}", ran.stdout);
    }
    std::fs::remove_file(place("os.iso.sha256")).expect("it was there");
    // The header of the partition table.
    damage(Path::new(&iso), 512 + 20);
    let ran = verify(&iso, &["--output", "json"]).fail(1);
    assert_eq!(rules_of(&ran), ["partition-table"]);
    // The end, where the other one is, which is a warning.
    let len = std::fs::metadata(&raw).expect("it is there").len();
    std::fs::remove_file(place("os.raw.sha256")).expect("it was there");
    damage(Path::new(&raw), len - 500);
    let ran = verify(&raw, &["--output", "json"]).succeed();
    assert_eq!(rules_of(&ran), ["partition-table-backup"]);
    verify(&raw, &["--strict"]).fail(1);
    let ignored = ["--strict", "--ignore", "partition-table-backup"];
    verify(&raw, &ignored).succeed();
    let junit = verify(&boot, &["--output", "junit"]).succeed().stdout;
    assert!(
        junit.contains("<testsuites name=\"kfactory artifact verify\" "),
        "{junit}"
    );
    // What was written is changed: the checksum beside it knows.
    std::fs::write(
        place("os.raw.sha256"),
        format!("{}  os.raw\n", "0".repeat(64)),
    )
    .expect("written");
    let ran = verify(&raw, &["--output", "sarif"]).fail(1);
    assert!(
        ran.stdout.contains("\"ruleId\": \"checksum\""),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_disk_passes_in_every_form_until_a_byte_is_another() {
    let Some(made) = conversion() else { return };
    let dir = Scratch::of_caller("artifact-verify-forms");
    std::fs::create_dir_all(&dir.0).expect("it can be made");
    let store = dir.0.join("store");
    for (name, format, rule) in [
        ("os.qcow2", "qcow2", "qcow2"),
        ("os.vmdk", "VMDK", "vmdk"),
        ("os.vhd", "VHD", "vhd-footer"),
        ("os.tar.gz", "disk.raw", "gzip"),
        ("os.img.gz", "gzip", "gzip"),
    ] {
        let file = dir.0.join(name);
        let path = file.to_str().expect("UTF-8");
        Kfactory::as_caller(["raw", &made.reference(), "-o", path])
            .store(&store)
            .dated()
            .succeed();
        let ran = verify(path, &["--strict"]).succeed();
        let told = format!("format     {format}");
        assert!(ran.stdout.contains(&told), "{}", ran.stdout);
        std::fs::remove_file(format!("{path}.sha256")).expect("it was there");
        let len = file.metadata().expect("made").len();
        let place = match rule {
            // The pointer to the first table, the end, the size in it, and what is unpacked.
            "qcow2" => (1 << 16) + 3,
            "vmdk" => len - 1024,
            "vhd-footer" => len - 512 + 52,
            _ => len / 2,
        };
        damage(&file, place);
        let ran = verify(path, &["--output", "json"]).fail(1);
        assert_eq!(rules_of(&ran), [rule], "{}", ran.stdout);
        std::fs::remove_file(file).expect("ours");
    }
}

#[test]
fn what_is_no_artifact_is_refused_by_name() {
    let dir = Scratch::of_caller("artifact-verify-no");
    std::fs::create_dir_all(&dir.0).expect("it can be made");
    let path = dir.0.join("file").to_str().expect("UTF-8").to_owned();
    verify(&path, &[])
        .fail(1)
        .tells(&["file", "does not exist"]);
    std::fs::write(&path, "QFI\u{fb} and so on").expect("written");
    verify(&path, &[]).fail(1).tells(&["neither", "hint:"]);
    let ran = Kfactory::as_caller(["artifact", "verify", "--rules"]).succeed();
    assert!(ran.stdout.contains("initrd-kernel"), "{}", ran.stdout);
    Kfactory::as_caller(["artifact", "verify"]).fail(2);
    let unknown = verify(&path, &["--ignore", "kernal"]).fail(2);
    unknown.tells(&["unknown rule `kernal`", "`kernel`"]);
}
