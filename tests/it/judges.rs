//! Other programs look at the converted image: skopeo, umoci and buildah.

use std::process::Command;

use crate::support::buildah::Buildah;
use crate::support::conversion::conversion;
use crate::support::framework::framework;
use crate::support::program::EPOCH;
use crate::support::tree::{Tree, differences};
use crate::support::user::is_root;
use crate::support::{need, run, skipped, world};

#[test]
fn skopeo_copies_and_describes_the_image() {
    let Some(made) = conversion() else { return };
    let layout = format!("oci:{}:v1", made.layout().display());
    let info: serde_json::Value =
        serde_json::from_str(&run(Command::new("skopeo").args(["inspect", &layout])))
            .expect("JSON");
    assert_eq!(info["Digest"], made.digest.as_str());
    assert_eq!(info["Os"], "linux");
    assert_eq!(info["Labels"]["org.opencontainers.image.version"], "v1.0.0");
    assert_eq!(
        info["Created"], "2023-11-14T22:13:20Z",
        "SOURCE_DATE_EPOCH={EPOCH}"
    );
    let config: serde_json::Value = serde_json::from_str(&run(
        Command::new("skopeo").args(["inspect", "--config", "--raw", &layout])
    ))
    .expect("JSON");
    let history = config["history"].as_array().expect("a history");
    let layers = config["rootfs"]["diff_ids"].as_array().expect("layers");
    let with_layer = history
        .iter()
        .filter(|entry| entry["empty_layer"] != true)
        .count();
    assert_eq!(
        with_layer,
        layers.len(),
        "one entry of the history for each layer"
    );
}

#[test]
fn umoci_unpacks_the_same_tree_as_we_do() {
    if !need(&["umoci"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    if !is_root() {
        return skipped("owners of an unpacked image can only be compared by root");
    }
    let bundle = world().dir.join("judges/bundle");
    run(Command::new("umoci")
        .args([
            "unpack",
            "--image",
            &format!("{}:v1", made.layout().display()),
        ])
        .arg(&bundle));
    let theirs = Tree::new(bundle.join("rootfs")).listing();
    let mut ours = made.tree().listing();
    // Root of a container may not make device nodes: there the ledger has them.
    let ledger = std::fs::read(made.tree().dir.with_extension("ledger")).expect("written");
    for entry in kfactory_layers::ledger::read(ledger.as_slice()).expect("a whole ledger") {
        assert!(entry.dev.is_some(), "root could not apply {entry:?}");
        if let Some(line) = theirs.get(&entry.path) {
            ours.insert(entry.path, line.clone());
        }
    }
    let found = differences(&ours, &theirs, 30);
    assert!(found.is_empty(), "ours | theirs\n{}", found.join("\n"));
    let with = |word: &str| theirs.values().filter(|line| line.contains(word)).count();
    assert!(theirs.len() > 10_000, "{} entries", theirs.len());
    assert!(
        with("security.capability") > 0,
        "no file has capabilities, so nothing was compared"
    );
    crate::support::world::remove_tree(&bundle);
}

#[test]
fn buildah_runs_programs_of_the_image() {
    if !need(&["buildah"]) {
        return;
    }
    let Some(made) = conversion() else { return };
    let buildah = Buildah::new("buildah-judge");
    let from = format!("docker://{}", made.reference());
    let container = buildah
        .run(&["from", "--quiet", "--tls-verify=false", &from])
        .trim()
        .to_owned();
    let inside = |script: &str| buildah.run(&["run", &container, "--", "sh", "-ec", script]);
    let listed = inside(
        "ls -l /boot/initrd /usr/bin/immucore; readlink -f /boot/vmlinuz; dpkg --audit; apt-mark showmanual | wc -l",
    );
    assert!(listed.contains("/boot/vmlinuz-"), "{listed}");
    if framework().is_real {
        let version = inside("kairos-agent version; immucore version");
        assert!(
            version.contains("2.31.4") && version.contains("0.20.4"),
            "{version}"
        );
    }
    buildah.run(&["rm", &container]);
}
