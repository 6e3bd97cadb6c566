//! The form of the cloud-configs: names, stages, keys that the engine knows, modes.

use std::collections::BTreeSet;

use kfactory::kairos::CLOUD_CONFIGS;
use serde_json::Value;

use crate::support::{documents, steps};

/// The files that the tools and users of Kairos know by name.
const NAMES: [&str; 31] = [
    "00_datasource.yaml",
    "00_home_dir_owner_fix.yaml",
    "00_rootfs.yaml",
    "01_extra_binds.yaml",
    "02_agent.yaml",
    "02_notify.yaml",
    "03-setupcon.yaml",
    "05_network.yaml",
    "08_efi_assessment.yaml",
    "08_grub.yaml",
    "08_ssh.yaml",
    "09_openrc_services.yaml",
    "09_systemd_services.yaml",
    "10_accounting.yaml",
    "11_RPI.yaml",
    "12_nvidia.yaml",
    "13_nvidia_qspi.yaml",
    "21_kcrypt.yaml",
    "23_c3os.yaml",
    "25_autologin.yaml",
    "26_selinux.yaml",
    "26_vm.yaml",
    "29_blacklist.yaml",
    "30-prepare-l4t-rootfs.yaml",
    "30_ulimit.yaml",
    "31_hosts.yaml",
    "32_profile.yaml",
    "50_recovery.yaml",
    "51_reset.yaml",
    "52_installer.yaml",
    "99_sysext.yaml",
];

/// The stages that something runs.
const STAGES: [&str; 14] = [
    "rootfs",
    "initramfs",
    "fs",
    "boot",
    "network",
    "reconcile",
    "before-install",
    "after-install",
    "after-install-chroot",
    "before-upgrade",
    "after-upgrade",
    "after-upgrade-chroot",
    "before-reset",
    "after-reset",
];

/// The keys that the engine reads, by the path of the mapping they are in. It ignores others without a word.
const KEYS: [(&str, &[&str]); 11] = [
    ("", &["name", "stages"]),
    (
        "step",
        &[
            "name",
            "if",
            "only_os",
            "only_service_manager",
            "directories",
            "files",
            "commands",
            "ensure_entities",
            "users",
            "hostname",
            "sysctl",
            "systemctl",
            "environment",
            "environment_file",
            "datasource",
            "layout",
        ],
    ),
    (
        "files",
        &["path", "permissions", "owner", "group", "content"],
    ),
    ("directories", &["path", "permissions", "owner", "group"]),
    ("ensure_entities", &["path", "entity"]),
    ("users", &["passwd", "shell", "homedir", "groups"]),
    (
        "systemctl",
        &["enable", "disable", "mask", "start", "overrides"],
    ),
    ("overrides", &["service", "name", "content"]),
    ("datasource", &["providers", "path"]),
    ("layout", &["device", "expand_partition"]),
    ("device", &["label"]),
];

fn check_keys(value: &Value, kind: &str, place: &str) {
    let known = KEYS
        .iter()
        .find(|(of, _)| *of == kind)
        .expect("a known kind")
        .1;
    for key in value
        .as_object()
        .unwrap_or_else(|| panic!("{place} is no mapping"))
        .keys()
    {
        assert!(
            known.contains(&key.as_str()),
            "{place} has the unknown key {key:?}"
        );
    }
}

#[test]
fn the_files_have_the_names_that_others_know() {
    let names: Vec<&str> = CLOUD_CONFIGS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NAMES);
}

#[test]
fn every_file_opens_by_saying_what_it_does_and_when() {
    for (name, text) in CLOUD_CONFIGS {
        let comment: String = text
            .lines()
            .take_while(|line| line.starts_with("# "))
            .collect();
        assert!(
            comment.contains("Run") || comment.contains("run"),
            "{name} does not say when it runs"
        );
        assert!(
            !text.starts_with("#cloud-config"),
            "{name} would be read as another dialect"
        );
    }
}

#[test]
fn documents_and_their_steps_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    for (file, document) in documents() {
        check_keys(&document, "", file);
        assert!(
            names.insert(document["name"].to_string()),
            "{file} has the name of another file"
        );
        for (stage, list) in document["stages"].as_object().expect("stages") {
            let mut steps = BTreeSet::new();
            for step in list.as_array().expect("steps") {
                let name = step["name"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{file} {stage}: a step has no name"));
                assert!(
                    steps.insert(name.to_owned()),
                    "{file} {stage}: two steps are named {name:?}"
                );
            }
        }
    }
}

#[test]
fn every_stage_is_run_by_something() {
    for (file, stage, _) in steps() {
        let base = stage
            .strip_suffix(".before")
            .or_else(|| stage.strip_suffix(".after"))
            .unwrap_or(&stage);
        assert!(
            STAGES.contains(&base),
            "{file} has the unknown stage {stage}"
        );
    }
}

#[test]
fn every_key_is_known_to_the_engine() {
    for (file, stage, step) in steps() {
        let place = format!("{file} {stage} {}", step["name"]);
        check_keys(&step, "step", &place);
        for (kind, list) in [
            ("files", &step["files"]),
            ("directories", &step["directories"]),
            ("ensure_entities", &step["ensure_entities"]),
            ("overrides", &step["systemctl"]["overrides"]),
        ] {
            for item in list.as_array().into_iter().flatten() {
                check_keys(item, kind, &place);
            }
        }
        for kind in ["systemctl", "datasource", "layout"] {
            if !step[kind].is_null() {
                check_keys(&step[kind], kind, &place);
            }
        }
        for user in step["users"].as_object().into_iter().flatten() {
            check_keys(user.1, "users", &place);
        }
    }
}

#[test]
fn every_file_and_directory_states_mode_and_owner() {
    for (file, stage, step) in steps() {
        for kind in ["files", "directories"] {
            for item in step[kind].as_array().into_iter().flatten() {
                let place = format!("{file} {stage} {}", item["path"]);
                let mode = item["permissions"]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{place} has no mode"));
                let allowed: &[u64] = if kind == "files" {
                    &[0o600, 0o644, 0o755, 0o440]
                } else {
                    &[0o755, 0o770]
                };
                assert!(allowed.contains(&mode), "{place} has mode {mode:o}");
                assert!(
                    item["path"]
                        .as_str()
                        .is_some_and(|path| path.starts_with('/')),
                    "{place}"
                );
            }
        }
    }
}

#[test]
fn service_managers_are_spelt_as_the_engine_compares_them() {
    for (file, stage, step) in steps() {
        let manager = &step["only_service_manager"];
        assert!(
            manager.is_null() || manager == "systemd" || manager == "openrc",
            "{file} {stage}"
        );
        let has_systemctl = !step["systemctl"].is_null();
        assert!(
            !has_systemctl || manager == "systemd",
            "{file} {stage} {} calls systemctl under OpenRC",
            step["name"]
        );
    }
}

/// The engine renders these texts as templates, and what it cannot render becomes something else.
#[test]
fn only_the_host_name_is_a_template() {
    for (file, stage, mut step) in steps() {
        step["hostname"].take();
        assert!(!step.to_string().contains("{{"), "{file} {stage}");
    }
}
