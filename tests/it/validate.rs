//! Validation: of the real converted image, of a directory, and by `convert` before it pushes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::base::shell_tar;
use crate::support::conversion::conversion;
use crate::support::framework::stand_ins;
use crate::support::tools::find;
use crate::support::user::is_root;
use crate::support::{Kfactory, Server, need, world};

/// The framework of the tests has neither.
const LEFT_OUT: [&str; 2] = ["programs-challenger", "programs-installer"];

fn validate(arguments: &[&str], store: &Path) -> Kfactory {
    Kfactory::new(["validate"]).args(arguments).store(store)
}

fn rules_of(json: &str) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    let rule = |finding: &serde_json::Value| finding["rule"].as_str().expect("text").to_owned();
    findings.iter().map(rule).collect()
}

#[test]
fn nothing_is_wrong_with_a_converted_image() {
    let Some(made) = conversion() else { return };
    assert!(made.ran.says("validated: "), "{}", made.ran.last_lines(10));
    let reference = made.reference();
    let ran = validate(&[&reference, "--output", "json"], &made.store).succeed();
    assert_eq!(rules_of(&ran.stdout), LEFT_OUT, "{}", ran.stdout);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["facts"]["variant"], "core");
    assert!(report["checked"].as_array().expect("a list").len() > 60);
    let ran = validate(&[&reference, "--strict"], &made.store).fail(1);
    assert!(ran.stdout.contains("passed: "), "{}", ran.stdout);
    validate(
        &[&reference, "--strict", "--ignore", &LEFT_OUT.join(",")],
        &made.store,
    )
    .succeed();
}

#[test]
fn what_the_image_is_taken_for_can_be_said() {
    let Some(made) = conversion() else { return };
    let reference = made.reference();
    let ran = validate(&[&reference, "--trusted", "--output", "json"], &made.store).fail(1);
    let rules = rules_of(&ran.stdout);
    for id in ["release-flags", "trusted-systemd-boot", "initrd-in-trusted"] {
        assert!(rules.iter().any(|rule| rule == id), "no {id} in {rules:?}");
    }
    let board = [&reference, "--model", "rpi4", "--output", "json"];
    let rules = rules_of(&validate(&board, &made.store).fail(1).stdout);
    assert!(
        rules.iter().any(|rule| rule == "release-flags"),
        "{rules:?}"
    );
}

#[test]
fn an_unpacked_image_is_judged_like_the_image() {
    let Some(made) = conversion() else { return };
    if !is_root() {
        // A plain user's unpacked tree belongs to subordinate IDs and lacks set-uid bits.
        return crate::support::skipped(
            "owners of an unpacked tree are as in the image for root only",
        );
    }
    let dir = format!("dir:{}", made.tree().dir.display());
    let store = crate::support::world::Scratch::of_caller("validate-store");
    let ran = Kfactory::as_caller(["validate", &dir, "--output", "json"])
        .store(&store.0)
        .succeed();
    assert_eq!(rules_of(&ran.stdout), LEFT_OUT, "{}", ran.stdout);
}

/// A base that a conversion of the install phase alone makes unbootable: it brings two kernels.
fn two_kernels() -> Option<PathBuf> {
    shell_tar(
        "two-kernels",
        &[
            ("etc/os-release", 0o644, "ID=debian\nVERSION_ID=\"12\"\n"),
            ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"),
            ("boot/vmlinuz-6.1.0-1-amd64", 0o644, "k"),
            ("boot/vmlinuz-6.1.0-2-amd64", 0o644, "k"),
        ],
    )
}

#[test]
fn an_image_that_would_not_boot_is_not_published_and_its_layers_are_kept() {
    if !need(&["docker-registry", "bwrap", "newuidmap"]) {
        return;
    }
    let Some(tar) = two_kernels() else { return };
    let server = Server::open();
    let store = world().user_dir("store-two-kernels");
    let framework = stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]);
    let (base, dest) = (
        format!("tar:{}", tar.display()),
        server.reference("me/os:v1.0.0"),
    );
    let convert = |more: &[&str]| {
        let framework = format!("dir:{}", framework.display());
        Kfactory::new(["convert", &base, &dest, "--framework", &framework])
            .args(["--progress", "plain", "--stage", "install"])
            .args(["--skip-step", "installPackages,installKernel"])
            .args(more)
            .store(&store)
    };
    let first = convert(&[]).fail(1);
    first.tells(&[
        "error: the image does not pass validation: nothing was pushed",
        "caused by: kernel-single: /boot: 2 kernels: 6.1.0-1-amd64, 6.1.0-2-amd64",
        "hint: remove every kernel but the one that is to boot",
        "hint: `--no-validate=RULE` leaves one rule out",
        // What a step makes that was left out on purpose stops nothing.
        "(`--skip-step installPackages` leaves out step `installPackages`)",
    ]);
    assert!(first.stdout.is_empty(), "{}", first.stdout);
    assert_eq!(server.digest_opt("me/os:v1.0.0"), None, "it was pushed");
    let listed = Kfactory::new(["store", "ls"])
        .store(&store)
        .succeed()
        .stdout;
    assert!(!listed.contains("me/os"), "{listed}");

    let again = convert(&[]).fail(1);
    again.tells(&["layer kairos: cached", "caused by: kernel-single: "]);
    assert!(!again.says(": started"), "{}", again.stderr());

    convert(&["--no-validate=no-such-rule"])
        .fail(2)
        .tells(&["unknown rule `no-such-rule`", "kfactory validate --rules"]);
    // A base of five files lacks mount points too.
    let published = convert(&["--no-validate=kernel-single,layout-mount-points"]).succeed();
    assert_eq!(
        server.digest_opt("me/os:v1.0.0").as_deref(),
        Some(published.digest().as_str())
    );
    assert!(published.says("validated: "), "{}", published.stderr());
    let unchecked = convert(&["--no-validate"]).succeed();
    assert!(!unchecked.says("validated: ") && !unchecked.says("warning: grub-efi"));
}

#[test]
fn every_form_of_a_report_is_what_it_says_it_is() {
    let dir = world().user_dir("not-kairos");
    let source = format!("dir:{}", dir.display());
    let store = world().user_dir("validate-store");
    let of = |form: &str| {
        let ran = validate(&[&source, "--output", form], &store).fail(1);
        assert!(ran.lines.is_empty(), "{}", ran.stderr());
        ran.stdout
    };
    assert!(of("text").contains("error    kernel-missing: /boot/vmlinuz: it does not exist\n"));
    assert!(
        rules_of(&of("json"))
            .iter()
            .any(|rule| rule == "release-missing")
    );
    let sarif: serde_json::Value = serde_json::from_str(&of("sarif")).expect("JSON");
    let run = &sarif["runs"][0];
    let known = run["tool"]["driver"]["rules"].as_array().expect("a list");
    for result in run["results"].as_array().expect("a list") {
        assert!(
            known.iter().any(|rule| rule["id"] == result["ruleId"]),
            "{result}"
        );
    }
    let junit = of("junit");
    assert!(junit.starts_with("<?xml "), "{junit}");
    if find("xmllint").is_none() {
        return crate::support::skipped("`xmllint` is not installed: no second judge of the XML");
    }
    let mut judge = Command::new("xmllint")
        .args(["--noout", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("xmllint");
    std::io::Write::write_all(&mut judge.stdin.take().expect("piped"), junit.as_bytes())
        .expect("read");
    assert!(judge.wait().expect("waited once").success());
}

#[test]
fn rules_are_listed_and_mistakes_refused() {
    let store = world().user_dir("validate-store");
    let text = validate(&["--rules"], &store).succeed().stdout;
    assert!(
        text.lines().count() > 80 && text.contains("kernel-single"),
        "{text}"
    );
    let json = validate(&["--rules", "--output", "json"], &store)
        .succeed()
        .stdout;
    let rules: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(rules[0]["remedy"].is_string());
    for (arguments, words) in [
        (
            &["oci:x", "--model", "rpi5"][..],
            &["unknown model \"rpi5\"", "known: generic"][..],
        ),
        (
            &["oci:x", "--ignore", "nothing"],
            &["unknown rule `nothing`"],
        ),
        (
            &["--rules", "--output", "sarif"],
            &["printed as text or JSON"],
        ),
        (&["oci:x", "--trusted=maybe"], &["invalid value 'maybe'"]),
    ] {
        validate(arguments, &store).fail(2).tells(words);
    }
    validate(&["dir:/nonexistent/tree"], &store)
        .fail(1)
        .tells(&["/nonexistent/tree"]);
}
