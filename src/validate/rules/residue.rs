//! What a build leaves behind and no machine may share: identity, secrets, caches.

use super::always;
use crate::error::Result;
use crate::progress::bytes_text;
use crate::step::StepName;
use crate::tree::Node;
use crate::validate::{Rule, Severity, Subject, Violations};

const CLEANED: &[StepName] = &[StepName::CLEANUP];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "residue-machine-id",
        severity: Severity::Error,
        demand: "the image has no machine ID: each machine makes its own",
        remedy: "let the step `cleanup` run, or empty /etc/machine-id and remove /var/lib/dbus/machine-id",
        steps: CLEANED,
        when: always,
        check: machine_id,
    },
    Rule {
        id: "residue-host-keys",
        severity: Severity::Error,
        demand: "the image has no SSH host keys: each machine makes its own",
        remedy: "let the step `cleanup` run, or remove /etc/ssh/ssh_host_*",
        steps: CLEANED,
        when: always,
        check: host_keys,
    },
    Rule {
        id: "residue-random-seed",
        severity: Severity::Error,
        demand: "the image has no random seed and no credential key",
        remedy: "let the step `cleanup` run, or remove the file: it is to differ on each machine",
        steps: CLEANED,
        when: always,
        check: random_seed,
    },
    Rule {
        id: "residue-initiator-name",
        severity: Severity::Warning,
        demand: "the image has no iSCSI name: each machine makes its own",
        remedy: "replace the line by `GenerateName=yes`",
        steps: CLEANED,
        when: always,
        check: initiator_name,
    },
    Rule {
        id: "residue-hostname",
        severity: Severity::Warning,
        demand: "the image has no host name",
        remedy: "let the step `cleanup` run, or empty /etc/hostname",
        steps: CLEANED,
        when: always,
        check: hostname,
    },
    Rule {
        id: "residue-secrets",
        severity: Severity::Error,
        demand: "the image holds no credentials of its builder",
        remedy: "pass credentials as mounts of the build, and remove these files from the layer that has them",
        steps: &[],
        when: always,
        check: secrets,
    },
    Rule {
        id: "residue-package-cache",
        severity: Severity::Warning,
        demand: "the package manager's caches are empty",
        remedy: "let the step `cleanup` run, or clean the package manager's caches in the layer that fills them",
        steps: CLEANED,
        when: always,
        check: package_cache,
    },
    Rule {
        id: "residue-temporary",
        severity: Severity::Warning,
        demand: "/tmp, /var/tmp and /run are empty",
        remedy: "let the step `cleanup` run, or remove what the build left there",
        steps: CLEANED,
        when: always,
        check: temporary,
    },
    Rule {
        id: "residue-build",
        severity: Severity::Warning,
        demand: "no file makes programs behave as in a container build",
        remedy: "remove the file at the end of the build",
        steps: &[],
        when: always,
        check: build,
    },
];

fn machine_id(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let text = subject.tree.text("etc/machine-id")?.unwrap_or_default();
    if !matches!(text.trim(), "" | "uninitialized") {
        found.at("etc/machine-id", "it is not empty");
    }
    // Usually a link to the other one.
    const OF_DBUS: &str = "var/lib/dbus/machine-id";
    let node = subject.tree.node(OF_DBUS);
    if node.is_some_and(|node| node.file().is_some_and(|file| file.size > 0)) {
        found.at(OF_DBUS, "it is not empty");
    }
    Ok(())
}

fn host_keys(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in subject.names("etc/ssh") {
        if name.starts_with("ssh_host_") {
            found.at(format!("etc/ssh/{name}"), "it is there");
        }
    }
    Ok(())
}

fn there(subject: &Subject<'_>, paths: &[&str], found: &mut Violations) {
    for path in paths {
        if subject.tree.node(path).is_some() {
            found.at(path, "it is there");
        }
    }
}

fn random_seed(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const SEEDS: [&str; 4] = [
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
        "var/lib/urandom/random-seed",
        "var/lib/misc/random-seed",
    ];
    there(subject, &SEEDS, found);
    Ok(())
}

fn initiator_name(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "etc/iscsi/initiatorname.iscsi";
    let text = subject.tree.text(PATH)?.unwrap_or_default();
    if text.lines().any(|line| line.starts_with("InitiatorName=")) {
        found.at(PATH, "it names an initiator");
    }
    Ok(())
}

fn hostname(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let text = subject.tree.text("etc/hostname")?.unwrap_or_default();
    let name = text.trim();
    if !name.is_empty() && name != "localhost" {
        found.at("etc/hostname", format!("it says {name:?}"));
    }
    Ok(())
}

fn secrets(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const FILES: [&str; 7] = [
        "root/.docker/config.json",
        "root/.config/containers/auth.json",
        "root/.netrc",
        "root/.aws/credentials",
        "root/.kube/config",
        "run/containers/0/auth.json",
        "var/lib/ubuntu-advantage/private/machine-token.json",
    ];
    there(subject, &FILES, found);
    for name in subject.names("root/.ssh") {
        let is_private = name.starts_with("id_") && !name.ends_with(".pub");
        if is_private {
            found.at(format!("root/.ssh/{name}"), "it is a private key");
        }
    }
    for dir in ["etc/pki/entitlement", "etc/pki/consumer"] {
        for name in subject.names(dir) {
            if name.ends_with("key.pem") {
                found.at(format!("{dir}/{name}"), "it is the key of a subscription");
            }
        }
    }
    Ok(())
}

fn content_size(subject: &Subject<'_>, dir: &str, counts: impl Fn(&str, &Node) -> bool) -> u64 {
    let mut bytes = 0;
    subject.tree.walk(dir, &mut |path, node| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if let Some(file) = node.file().filter(|_| counts(name, node)) {
            bytes += file.size;
        }
    });
    bytes
}

fn package_cache(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const DIRS: [&str; 10] = [
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/cache/dnf",
        "var/cache/libdnf5",
        "var/cache/yum",
        "var/cache/zypp",
        "var/cache/apk",
        "var/cache/pacman/pkg",
        "var/lib/pacman/sync",
        "root/.cache",
    ];
    for dir in DIRS {
        let bytes = content_size(subject, dir, |name, _| name != "lock");
        if bytes > 0 {
            found.at(dir, format!("it holds {}", bytes_text(bytes)));
        }
    }
    Ok(())
}

fn temporary(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for dir in ["tmp", "var/tmp", "run"] {
        let bytes = content_size(subject, dir, |_, node| node.file().is_some());
        if bytes > 0 {
            found.at(dir, format!("it holds {}", bytes_text(bytes)));
        }
    }
    Ok(())
}

fn build(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    there(subject, &["usr/sbin/policy-rc.d", ".dockerenv"], found);
    Ok(())
}
