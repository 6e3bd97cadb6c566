//! What a root that is mounted read-only must bring, and what mounts would hide of it.

use std::path::Path;

use super::always;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Rule, Severity, Subject, Violations};

/// Directories that something is mounted on.
const MOUNT_POINTS: [&str; 16] = [
    "dev",
    "efi",
    "home",
    "mnt",
    "oem",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "system",
    "tmp",
    "usr/local",
    "var",
    "var/lock",
];
/// Where a link's target is made at run time.
const MADE_AT_RUN_TIME: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var/run"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "layout-mount-points",
        severity: Severity::Error,
        demand: "every directory that something is mounted on exists",
        remedy: "let the step `miscellaneous` run, or make it in the base: in a read-only root it cannot be made later",
        steps: &[StepName::MISCELLANEOUS],
        when: always,
        check: mount_points,
    },
    Rule {
        id: "layout-hidden",
        severity: Severity::Warning,
        demand: "no files where partitions are mounted over them (/oem, /usr/local)",
        remedy: "put them elsewhere: below /system/oem, /usr/bin or /usr/lib",
        steps: &[],
        when: always,
        check: hidden,
    },
    Rule {
        id: "layout-links",
        severity: Severity::Error,
        demand: "links that the boot follows lead somewhere (/boot, /system, /etc/cos, /etc/kairos, the root)",
        remedy: "remove the link, or bring back what it points at",
        steps: &[],
        when: always,
        check: links,
    },
    Rule {
        id: "layout-dangling",
        severity: Severity::Warning,
        demand: "links among the programs and libraries lead somewhere",
        remedy: "remove the link, or install the package with what it points at",
        steps: &[],
        when: always,
        check: dangling,
    },
];

fn mount_points(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for path in MOUNT_POINTS {
        match subject.tree.node(path) {
            None => found.at(path, "it does not exist"),
            // Where /var/lock leads is made at boot.
            Some(node) if node.target().is_some() => {}
            Some(node) if node.is_dir() => {}
            Some(_) => found.at(path, "it is no directory"),
        }
    }
    Ok(())
}

fn hidden(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for dir in ["oem", "usr/local"] {
        subject.tree.walk(dir, &mut |path, node| {
            if node.file().is_some() {
                found.at(path, format!("the partition mounted on /{dir} hides it"));
            }
        });
    }
    Ok(())
}

/// Returns whether the link at `path` leads to nothing, now and at run time.
fn leads_nowhere(subject: &Subject<'_>, path: &Path, target: &Path) -> bool {
    if subject.tree.has(path) || target == "/dev/null" {
        return false;
    }
    let absolute = match target.strip_prefix("/") {
        Ok(target) => target.to_owned(),
        Err(_) => normal(&path.parent().unwrap_or(Path::new("")).join(target)),
    };
    !MADE_AT_RUN_TIME.iter().any(|dir| absolute.starts_with(dir))
}

fn normal(path: &Path) -> std::path::PathBuf {
    let mut out = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => _ = out.pop(),
            std::path::Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

fn report(subject: &Subject<'_>, path: &Path, target: &Path, found: &mut Violations) {
    if leads_nowhere(subject, path, target) {
        found.at(path, format!("it points at {target:?}, where nothing is"));
    }
}

fn links(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    // These have rules of their own.
    const OTHERS: [&str; 2] = ["boot/vmlinuz", "boot/initrd"];
    for (name, node) in subject.tree.names("") {
        if let Some(target) = node.target() {
            report(subject, Path::new(name), target, found);
        }
    }
    for dir in ["boot", "system", "etc/cos", "etc/kairos"] {
        subject.tree.walk(dir, &mut |path, node| {
            if let Some(target) = node.target()
                && !OTHERS.iter().any(|other| path == Path::new(other))
            {
                report(subject, path, target, found);
            }
        });
    }
    Ok(())
}

fn dangling(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const DIRS: [&str; 6] = ["bin", "sbin", "usr/bin", "usr/sbin", "lib64", "usr/lib64"];
    let mut seen = Vec::new();
    for dir in DIRS {
        let Some(real) = subject.tree.find(dir) else {
            continue;
        };
        if seen.contains(&real.path) {
            continue;
        }
        for (name, node) in subject.tree.names(&real.path) {
            // The init system has a rule of its own.
            if let Some(target) = node.target().filter(|_| name != "init") {
                report(subject, &real.path.join(name), target, found);
            }
        }
        seen.push(real.path);
    }
    Ok(())
}
