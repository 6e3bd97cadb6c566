//! Parity: the converted image compared with itself, with another way to write it, and with its base.

use crate::support::Kfactory;
use crate::support::conversion::{BASE, conversion};

#[test]
fn an_image_is_at_parity_with_itself_however_it_is_compressed() {
    let Some(made) = conversion() else { return };
    let layout = made.layout();
    let other = format!("oci:{}:v1", layout.display());
    let store = crate::support::world::Scratch::of_caller("parity-store");
    let ran = Kfactory::as_caller(["parity", &made.reference(), "--against", &other])
        .store(&store.0)
        .succeed();
    assert!(
        ran.stdout.ends_with(" 0 differences: 0 intended, 0 not\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn differences_from_the_base_are_told_by_the_step_that_made_them() {
    let Some(made) = conversion() else { return };
    let (image, base) = (made.reference(), made.server.reference(BASE));
    let ran = Kfactory::new(["parity", &image, "--upstream", &base, "--json"])
        .store(&made.store)
        .fail(1);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let all = report["differences"].as_array().expect("a list");
    let step_of = |subject: &str, name: &str| {
        let found = all
            .iter()
            .find(|it| it["subject"] == subject && it["name"] == name);
        let found = found.unwrap_or_else(|| panic!("{subject} {name} does not differ"));
        found["step"].as_str().expect("text").to_owned()
    };
    for (subject, name, step) in [
        ("package", "rsync", "kfactory packages"),
        ("package", "linux-image-amd64", "kfactory kernel"),
        ("file", "/system", "kfactory kairos"),
        ("file", "/boot/initrd", "kfactory init"),
        ("service", "systemd-firstboot.service", "kfactory init"),
        ("release", "KAIROS_VERSION", "kfactory init"),
    ] {
        if name == "linux-image-amd64" && cfg!(not(target_arch = "x86_64")) {
            continue;
        }
        assert_eq!(step_of(subject, name), step, "{subject} {name}");
    }
    let text = Kfactory::new(["parity", &image, "--against", &base, "--all"])
        .store(&made.store)
        .fail(1)
        .stdout;
    for line in [
        "\nkfactory packages\n",
        "  differs   package rsync: only here (",
        " (follows from its package, which differs)\n",
    ] {
        assert!(text.contains(line), "no {line:?} in:\n{text}");
    }
}

#[test]
fn one_other_image_must_be_named() {
    let store = crate::support::world().user_dir("parity-usage");
    for arguments in [
        &["parity", "oci:a"][..],
        &[
            "parity",
            "oci:a",
            "--against",
            "oci:b",
            "--upstream",
            "oci:c",
        ],
    ] {
        Kfactory::new(arguments).store(&store).fail(2);
    }
    Kfactory::new([
        "parity",
        "oci:/nonexistent",
        "--against",
        "oci:/nonexistent",
    ])
    .store(&store)
    .fail(1)
    .tells(&["cannot read `oci:/nonexistent`"]);
}
