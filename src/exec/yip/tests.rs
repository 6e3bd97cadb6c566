//! Conditions on a tree, row by row of the dialect's fact sheet.

use std::collections::BTreeMap;

use kfactory_layers::root::Root;

use super::*;
use crate::distro::Arch;

const UBUNTU: &str = "ID=ubuntu\nVERSION_ID=\"24.04\"\nPRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\n";

fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for path in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    std::fs::create_dir_all(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/os-release"), UBUNTU).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

/// Returns why the condition does not hold on a tree with `files`.
fn why(files: &[&str], condition: &Condition) -> Option<String> {
    let (_dir, root) = tree(files);
    let system = System::read(&root, Arch::Amd64).unwrap();
    unmet_by(&system, &root, condition).unwrap()
}

fn os(pattern: &str) -> Condition {
    Condition::Os {
        pattern: pattern.into(),
    }
}

fn manager(name: &str) -> Condition {
    Condition::ServiceManager { name: name.into() }
}

fn files(checks: &[(&str, &[&str])]) -> Condition {
    let checks: BTreeMap<String, Vec<String>> = checks
        .iter()
        .map(|(kind, paths)| {
            (
                (*kind).to_owned(),
                paths.iter().map(|path| (*path).to_owned()).collect(),
            )
        })
        .collect();
    Condition::Files { checks }
}

#[test]
fn row_26_and_38_the_os_name_is_matched_with_its_case() {
    assert!(
        why(&[], &os("weird"))
            .unwrap()
            .contains("does not match the OS name")
    );
    assert!(why(&[], &os("ubuntu")).is_some());
    assert_eq!(why(&[], &os("Ubuntu.*")), None);
    assert_eq!(
        why(
            &[],
            &Condition::OsVersion {
                pattern: "24.04".into()
            }
        ),
        None
    );
    let unnamed = unmet_by(&System::default(), &tree(&[]).1, &os(".*")).unwrap();
    assert!(unnamed.is_some(), "an empty name matches nothing");
}

#[test]
fn row_27_the_architecture_is_that_of_the_image() {
    assert_eq!(
        why(
            &[],
            &Condition::Arch {
                pattern: "amd64".into()
            }
        ),
        None
    );
    assert!(
        why(
            &[],
            &Condition::Arch {
                pattern: "weird".into()
            }
        )
        .is_some()
    );
}

#[test]
fn row_28_to_31_there_is_one_service_manager_or_none() {
    assert!(
        why(&[], &manager("weird"))
            .unwrap()
            .contains("not supported")
    );
    assert!(
        why(&[], &manager("openrc"))
            .unwrap()
            .contains("does not have openrc")
    );
    let both = ["sbin/systemctl", "sbin/openrc"];
    assert!(why(&both, &manager("systemd")).unwrap().contains("both"));
    assert_eq!(why(&["sbin/systemctl"], &manager("systemd")), None);
    assert_eq!(why(&["usr/bin/openrc"], &manager("openrc")), None);
    assert!(why(&["sbin/systemctl"], &manager("openrc")).is_some());
}

#[test]
fn row_32_to_36_files_are_looked_up_in_the_image() {
    let there = ["a", "b"];
    assert_eq!(why(&there, &files(&[("all", &["/a", "/b"])])), None);
    assert!(
        why(&there, &files(&[("all", &["/a", "/c"])]))
            .unwrap()
            .contains("/c")
    );
    assert_eq!(why(&there, &files(&[("any", &["/c", "/b"])])), None);
    assert!(why(&there, &files(&[("any", &["/c", "/d"])])).is_some());
    assert!(
        why(&there, &files(&[("none", &["/c", "/b"])]))
            .unwrap()
            .contains("/b")
    );
    assert_eq!(
        why(&there, &files(&[("all", &[]), ("any", &[]), ("none", &[])])),
        None
    );
    assert_eq!(why(&there, &files(&[("all", &[]), ("any", &["/c"])])), None);
}
