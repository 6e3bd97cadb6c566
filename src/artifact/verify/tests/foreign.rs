//! Media that others made are read, and what they lack is a finding.

use std::fs;

use crate::artifact::judge::judge;
use crate::artifact::verify::{Report, verify};

/// Makes a medium with `program` and `args`, in which `@` stands for a directory with the files to be on it and the medium itself.
fn made_by(program: &str, args: &str) -> Option<Report> {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("from");
    fs::create_dir_all(top.join("boot/grub")).unwrap();
    let menu = "menuentry x { linux /boot/vmlinuz root=/dev/sda1\n initrd /boot/initrd.img }";
    fs::write(top.join("boot/grub/grub.cfg"), menu).unwrap();
    fs::write(top.join("boot/vmlinuz"), "no kernel").unwrap();
    let args: Vec<String> = args
        .split_whitespace()
        .map(|word| match word.strip_prefix('@') {
            Some(name) => dir.path().join(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        })
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    judge(program, &args)?;
    Some(verify(&dir.path().join("a.iso"), None).unwrap())
}

fn rules(report: &Report) -> Vec<&str> {
    let mut rules: Vec<&str> = report.findings.iter().map(|it| it.rule.as_str()).collect();
    rules.dedup();
    rules
}

#[test]
fn a_medium_of_grub_mkrescue_boots_but_is_none_of_kairos() {
    if judge("xorriso", &["-version"]).is_none() || judge("mformat", &["--version"]).is_none() {
        return;
    }
    let Some(report) = made_by("grub-mkrescue", "-o @a.iso @from") else {
        return;
    };
    assert_eq!(
        rules(&report),
        [
            "iso-label",
            "menu-files",
            "menu-root",
            "menu-arguments",
            "kernel"
        ]
    );
}

#[test]
fn a_medium_without_boot_loader_starts_nowhere() {
    let Some(report) = made_by(
        "xorriso",
        "-as mkisofs -quiet -R -J -V PLAIN -o @a.iso @from",
    ) else {
        return;
    };
    assert!(
        rules(&report).contains(&"iso-uefi"),
        "{:?}",
        report.findings
    );
    let starts = report.facts.iter().find(|(what, _)| *what == "starts on");
    assert_eq!(starts.unwrap().1, "nothing");
}
