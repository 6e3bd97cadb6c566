//! What an image says of itself is found again: its digest where it was written, its layers by name, its steps by layer.

use std::fs;

use serde_json::Value;

use crate::support::base::small_tar;
use crate::support::small::Small;
use crate::support::{Kfactory, need, world};

#[test]
fn a_copy_prints_the_digest_by_which_the_image_is_found_again() {
    let base = small_tar("found-again", &[("etc/motd", 0o644, "hello\n")]);
    let dir = world().user_dir("found-again");
    let store = dir.join("store");
    for (kind, name) in [
        ("oci", ":v1"),
        ("oci-archive", ":v1"),
        ("docker-archive", ":me/os:v1"),
    ] {
        let place = format!("{kind}:{}{name}", dir.join(kind).display());
        let ran = Kfactory::new(["copy", &format!("tar:{}", base.display()), &place])
            .store(&store)
            .succeed();
        let shown = Kfactory::new(["inspect", "--json", &place])
            .store(&store)
            .succeed();
        let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
        assert_eq!(ran.digest(), shown["digest"], "{kind}: {}", ran.stdout);
        let says_which = ran.stdout.contains("in the archive");
        assert_eq!(says_which, kind == "docker-archive", "{}", ran.stdout);
    }
}

#[test]
fn inspecting_a_root_filesystem_names_the_digest_that_a_copy_of_it_has() {
    if !need(&["newuidmap"]) {
        return;
    }
    let dir = world().user_dir("digest-of-tree");
    let store = dir.join("store");
    // The user's own files: root's, to whoever makes a layer of them.
    let base = format!("dir:{}", dir.join("tree").display());
    Kfactory::new([
        "unpack",
        &format!(
            "tar:{}",
            small_tar("of-tree", &[("etc/motd", 0o644, "hi")]).display()
        ),
    ])
    .args([dir.join("tree")])
    .store(&store)
    .succeed();
    let copied = Kfactory::new(["copy", &base, &format!("oci:{}", dir.join("out").display())])
        .store(&store)
        .succeed();
    let shown = Kfactory::new(["inspect", "--json", &base])
        .store(&store)
        .succeed();
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(copied.digest(), shown["digest"]);
}

#[test]
fn every_layer_has_a_name_of_its_own_and_names_its_steps() {
    let Some(small) = Small::new("inspected", &[]) else {
        return;
    };
    let extensions = small.dir.join("extensions");
    fs::create_dir(&extensions).expect("ours");
    let text = "stages:\n  install:\n    - name: note\n      files:\n        - path: /etc/note\n          content: hi\n";
    fs::write(extensions.join("note.yaml"), text).expect("written");
    let extensions = extensions.to_str().expect("UTF-8");
    // All steps that can be planned, and those few that can be run on a base of nothing.
    let plan = Kfactory::new(["plan", &small.base, "--version=v1", "--output=json", "-x"])
        .args([extensions])
        .store(&small.store)
        .succeed();
    let plan: Value = serde_json::from_str(&plan.stdout).expect("JSON");
    let mut names: Vec<&str> = plan["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|layer| layer["name"].as_str().expect("text"))
        .collect();
    let count = names.len();
    assert!(names.contains(&"kairos-2"), "{names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two layers have one name: {names:?}");

    small.convert(&["-x", extensions]).succeed();
    let image = format!("oci:{}:v1.0.0", small.dir.join("out").display());
    let inspect = |options: &[&str]| {
        Kfactory::new(["inspect", &image])
            .args(options)
            .store(&small.store)
            .succeed()
            .stdout
    };
    let report: Value = serde_json::from_str(&inspect(&["--json"])).expect("JSON");
    let steps: Vec<&Value> = report["layers"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|layer| layer["steps"].as_array().into_iter().flatten())
        .collect();
    assert!(
        steps.iter().any(|step| **step == "kairosRelease"),
        "{steps:?}"
    );
    assert!(inspect(&[]).contains("kairosRelease"));
}

#[test]
fn packages_says_what_several_options_save_together() {
    let base = small_tar(
        "saved-together",
        &[("etc/os-release", 0o644, "ID=debian\nVERSION_ID=\"12\"\n")],
    );
    let packages = |options: &[&str]| {
        Kfactory::new(["packages", &format!("tar:{}", base.display())])
            .args(["--platform", "linux/amd64"])
            .args(options)
            .store(&world().user_dir("saved-together"))
            .succeed()
            .stdout
    };
    let two = ["--without", "fail2ban", "--without", "snmpd"];
    assert!(
        packages(&two).contains("\ntogether they save "),
        "{}",
        packages(&two)
    );
    assert!(!packages(&two[..2]).contains("together"));
    let report: Value =
        serde_json::from_str(&packages(&[&two[..], &["--output=json"]].concat())).expect("JSON");
    let parts = report["left_out"].as_array().expect("a list").iter();
    let sum: u64 = parts.filter_map(|part| part["bytes"].as_u64()).sum();
    assert_eq!(report["left_out_bytes"], sum);
}
