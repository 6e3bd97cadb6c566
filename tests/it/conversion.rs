//! The conversion itself, as its user sees it: from registry to registry, without root.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use kfactory_layers::ledger::{self, LedgerEntry};

use crate::support::conversion::{Conversion, IMAGE, conversion};
use crate::support::user::is_root;
use crate::support::{Kfactory, world};

#[test]
fn a_plain_user_converts_from_registry_to_registry() {
    let Some(made) = conversion() else { return };
    assert_ne!(world().user.uid, 0, "the conversion is to run without root");
    assert_eq!(
        made.server.digest_opt(IMAGE).as_deref(),
        Some(made.digest.as_str())
    );
    assert!(
        made.ran.stdout.contains(&made.reference()),
        "{}",
        made.ran.stdout
    );
    for step in [
        "installPackages",
        "installKernel",
        "kairosBinaries",
        "initrd",
        "cleanup",
    ] {
        assert!(
            made.ran.says(&format!("{step}: done")),
            "{step} is not reported"
        );
    }
    // What packages say is shown line by line with the step's name.
    assert!(
        made.ran.says("installPackages | "),
        "{}",
        made.ran.last_lines(40)
    );
    eprintln!("the conversion took {:.0} s", made.ran.took.as_secs_f64());
}

#[test]
fn base_layers_are_kept_as_they_are() {
    let Some(made) = conversion() else { return };
    let layers = |reference: &str| -> Vec<String> {
        let ran = Kfactory::new(["inspect", "--json", reference])
            .store(&made.store)
            .succeed();
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let layers = report["layers"].as_array().expect("a list").clone();
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().expect("text").to_owned())
            .collect()
    };
    let base = layers(&made.server.reference("debian:12"));
    let image = layers(&made.reference());
    assert_eq!(image[..base.len()], base);
    assert_eq!(
        image.len(),
        base.len() + 4,
        "packages, kernel, kairos, init"
    );
}

#[test]
fn inspect_tells_layers_by_their_step_and_the_kairos_facts() {
    let Some(made) = conversion() else { return };
    let text = Kfactory::new(["inspect", &made.reference()])
        .store(&made.store)
        .succeed()
        .stdout;
    for word in [
        &made.digest,
        "kfactory packages",
        "kfactory kernel",
        "kfactory kairos",
        "kfactory init",
        "KAIROS_VERSION=v1.0.0",
        "yes  /boot/initrd",
    ] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    let missing: Vec<&str> = text
        .lines()
        .filter(|line| line.trim_start().starts_with("NO "))
        .collect();
    // The framework of the tests has no installer.
    assert!(
        missing
            .iter()
            .all(|line| line.ends_with("/system/installer/kairos-installer")),
        "{text}"
    );
    let ran = Kfactory::new(["inspect", "--json", &made.reference()])
        .store(&made.store)
        .succeed();
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(report["digest"], made.digest.as_str());
    assert_eq!(report["kairos"]["KAIROS_FLAVOR"], "debian");
}

#[test]
fn the_store_lists_what_a_conversion_left() {
    let Some(made) = conversion() else { return };
    let text = Kfactory::new(["store", "ls"])
        .store(&made.store)
        .succeed()
        .stdout;
    assert!(text.starts_with("KIND   NAME  "), "{text}");
    for word in [
        made.digest.as_str(),
        IMAGE,
        "layer  packages",
        "layer  init",
        "base   ",
        "USED BY",
    ] {
        assert!(text.contains(word), "no {word:?} in:\n{text}");
    }
    assert_eq!(
        std::fs::read_dir(made.store.join("runs"))
            .expect("there")
            .count(),
        0,
        "a run left its directory"
    );
}

#[test]
fn a_plain_users_unpack_writes_a_ledger_of_what_it_may_not_do() {
    let Some(made) = conversion() else { return };
    let dir = world().user_dir("unpacked");
    let (tree, ledger) = (dir.join("tree"), dir.join("ledger"));
    let arguments = [
        "unpack",
        &made.reference(),
        tree.to_str().expect("UTF-8"),
        "--ledger",
        ledger.to_str().expect("UTF-8"),
    ];
    Kfactory::new(arguments).store(&made.store).succeed();
    let lines = std::fs::read(&ledger).expect("written");
    let lines = ledger::read(lines.as_slice()).expect("one entry a line, and the end");
    let count = lines.len();
    let entries: BTreeMap<PathBuf, LedgerEntry> = lines
        .into_iter()
        .map(|entry| (entry.path.clone(), entry))
        .collect();
    assert_eq!(entries.len(), count, "one line a path");
    assert!(tree.join("etc/kairos-release").is_file());
    if is_root() {
        owners_are_the_images(&entries, made);
    }
    let again = Kfactory::new(["unpack", &made.reference(), tree.to_str().expect("UTF-8")])
        .store(&made.store)
        .fail(1);
    again.tells(&["is not empty", "hint: unpack into a new directory"]);
    if is_root() {
        crate::support::world::remove_tree(&dir);
    }
}

/// Asserts that a plain user's ledger has the owner, mode and capabilities of everything that root's own unpack made.
fn owners_are_the_images(entries: &BTreeMap<PathBuf, LedgerEntry>, made: &Conversion) {
    let mut capabilities = 0;
    for (path, metadata) in made.tree().walk() {
        let entry = entries
            .get(&path)
            .unwrap_or_else(|| panic!("the ledger lacks {}", path.display()));
        // Where root's tree has a stand-in for a device node, its mode says nothing.
        let mode = if entry.dev.is_some() {
            entry.mode
        } else {
            metadata.mode() & 0o7777
        };
        assert_eq!(
            (entry.uid, entry.gid, entry.mode),
            (metadata.uid(), metadata.gid(), mode),
            "{}",
            path.display()
        );
        capabilities += usize::from(entry.xattrs.contains_key(&b"security.capability"[..]));
    }
    assert!(
        capabilities > 0,
        "no file has capabilities, so nothing was compared"
    );
}
