//! The cloud-configs in the image: there, and in a form that the boot can use.

use serde_json::Value;

use super::always;
use crate::error::Result;
use crate::kairos::CLOUD_CONFIG_DIR;
use crate::step::StepName;
use crate::tree::Node;
use crate::validate::{Rule, Severity, Subject, Violations};

/// Directories of an image that the stage runner reads.
const DIRS: [&str; 3] = ["system/oem", "oem", "usr/local/cloud-config"];
/// Stages that something runs; each also exists as `X.before` and `X.after`.
const STAGES: [&str; 22] = [
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
    "after-reset-chroot",
    "kairos-install.pre",
    "kairos-install.after",
    "kairos-upgrade.pre",
    "kairos-upgrade.after",
    "kairos-reset.after",
    "kairos-uki-install.after",
    "provider-kairos.bootstrap",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "oem-missing",
        severity: Severity::Error,
        demand: "/system/oem holds the cloud-configs that set up the system at boot",
        remedy: "let the step `cloudconfigs` run",
        steps: &[StepName::CLOUDCONFIGS],
        when: always,
        check: missing,
    },
    Rule {
        id: "oem-syntax",
        severity: Severity::Error,
        demand: "every cloud-config in the image is a YAML mapping",
        remedy: "correct the file: the boot passes over what it cannot read, without stopping",
        steps: &[],
        when: always,
        check: syntax,
    },
    Rule {
        id: "oem-stages",
        severity: Severity::Warning,
        demand: "every stage in a cloud-config is one that something runs",
        remedy: "correct the stage's name: steps of an unknown stage never run",
        steps: &[],
        when: always,
        check: stages,
    },
    Rule {
        id: "oem-modes",
        severity: Severity::Error,
        demand: "files and directories that a cloud-config makes have permissions",
        remedy: "add `permissions`: without them the boot makes the file with mode 0000",
        steps: &[],
        when: always,
        check: modes,
    },
    Rule {
        id: "oem-readable",
        severity: Severity::Error,
        demand: "cloud-configs can be read, and only root can change them",
        remedy: "`chmod 0644` the file and give it to root in the layer that writes it",
        steps: &[],
        when: always,
        check: readable,
    },
];

fn is_config(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}

/// Returns every cloud-config with its path, sorted.
fn configs<'a>(subject: &Subject<'a>) -> Vec<(String, &'a Node)> {
    let mut found = Vec::new();
    for dir in DIRS {
        subject.tree.walk(dir, &mut |path, node| {
            let path = path.display().to_string();
            if is_config(&path) && node.file().is_some() {
                found.push((path, node));
            }
        });
    }
    found
}

/// Returns every cloud-config that can be read as YAML.
fn parsed(subject: &Subject<'_>) -> Result<Vec<(String, Value)>> {
    let mut out = Vec::new();
    for (path, _) in configs(subject) {
        let text = subject.tree.text(&path)?.unwrap_or_default();
        if let Ok(value) = serde_saphyr::from_str::<Value>(&text) {
            out.push((path, value));
        }
    }
    Ok(out)
}

fn missing(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let is_there = subject
        .names(CLOUD_CONFIG_DIR)
        .iter()
        .any(|name| is_config(name));
    if !is_there {
        found.at(CLOUD_CONFIG_DIR, "there are no cloud-configs");
    }
    Ok(())
}

fn syntax(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, _) in configs(subject) {
        let text = subject.tree.text(&path)?.unwrap_or_default();
        match serde_saphyr::from_str::<Value>(&text) {
            Ok(Value::Object(_) | Value::Null) => {}
            Ok(_) => found.at(&path, "it is no mapping"),
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                found.at(&path, first.trim_end_matches(':'));
            }
        }
    }
    Ok(())
}

fn stages_of(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value
        .get("stages")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn stages(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, value) in parsed(subject)? {
        for (name, _) in stages_of(&value) {
            let plain = name
                .strip_suffix(".before")
                .or_else(|| name.strip_suffix(".after"))
                .unwrap_or(name);
            if !STAGES.contains(&plain) && !STAGES.contains(&name.as_str()) {
                found.at(&path, format!("nothing runs a stage called {name:?}"));
            }
        }
    }
    Ok(())
}

fn modes(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, value) in parsed(subject)? {
        let steps = stages_of(&value).flat_map(|(_, steps)| steps.as_array().into_iter().flatten());
        for step in steps {
            for kind in ["files", "directories"] {
                let made = step.get(kind).and_then(Value::as_array);
                for object in made.into_iter().flatten() {
                    let has_mode = object
                        .get("permissions")
                        .is_some_and(|mode| !mode.is_null() && *mode != 0);
                    if !has_mode {
                        let name = object.get("path").and_then(Value::as_str).unwrap_or("?");
                        found.at(&path, format!("{name:?} is made without permissions"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn readable(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, node) in configs(subject) {
        if node.mode & 0o400 == 0 || node.mode & 0o022 != 0 {
            found.at(&path, format!("its mode is {:04o}", node.mode));
        } else if node.uid != 0 {
            found.at(&path, format!("it belongs to user {}", node.uid));
        }
    }
    Ok(())
}
