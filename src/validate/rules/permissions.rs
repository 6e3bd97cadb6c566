//! Owners and modes of what a system stands on.

use super::always;
use crate::error::Result;
use crate::step::StepName;
use crate::tree::Kind;
use crate::validate::{Rule, Severity, Subject, Violations};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "permissions-directories",
        severity: Severity::Error,
        demand: "the system's directories belong to root and can be searched by all, and /tmp is sticky",
        remedy: "restore owner and mode in the layer that changed them (mostly root:root 0755; /tmp 1777)",
        steps: &[],
        when: always,
        check: directories,
    },
    Rule {
        id: "permissions-sudo",
        severity: Severity::Error,
        demand: "sudo belongs to root and is set-uid",
        remedy: "let the step `workarounds` run, or `chmod 4755 /usr/bin/sudo`",
        steps: &[StepName::WORKAROUNDS],
        when: always,
        check: sudo,
    },
    Rule {
        id: "permissions-secrets",
        severity: Severity::Error,
        demand: "only root and its groups can read the password hashes",
        remedy: "`chmod o-rwx /etc/shadow /etc/gshadow`",
        steps: &[],
        when: always,
        check: secrets,
    },
    Rule {
        id: "permissions-world-writable",
        severity: Severity::Warning,
        demand: "nothing can be changed by everybody, but in sticky directories",
        remedy: "`chmod o-w` it in the layer that puts it there",
        steps: &[],
        when: always,
        check: world_writable,
    },
];

fn directories(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PLAIN: [&str; 10] = [
        "",
        "boot",
        "etc",
        "usr",
        "usr/bin",
        "usr/lib",
        "var",
        "var/lib",
        "system",
        "system/oem",
    ];
    const STICKY: [&str; 2] = ["tmp", "var/tmp"];
    for path in PLAIN.iter().chain(&STICKY) {
        let Some(dir) = subject.tree.find(path) else {
            continue;
        };
        let mode = dir.node.mode;
        let is_sticky = STICKY.contains(path);
        if dir.node.uid != 0 {
            found.at(path, format!("it belongs to user {}", dir.node.uid));
        } else if mode & 0o555 != 0o555
            || (is_sticky && mode & 0o1777 != 0o1777)
            || (!is_sticky && mode & 0o022 != 0)
        {
            found.at(path, format!("its mode is {mode:04o}"));
        }
    }
    Ok(())
}

fn sudo(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(sudo) = subject.program("sudo") else {
        return Ok(());
    };
    if sudo.node.uid != 0 {
        found.at(&sudo.path, format!("it belongs to user {}", sudo.node.uid));
    } else if sudo.node.mode & 0o4000 == 0 {
        found.at(&sudo.path, format!("its mode is {:04o}", sudo.node.mode));
    }
    Ok(())
}

fn secrets(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for path in ["etc/shadow", "etc/gshadow"] {
        if let Some(file) = subject.tree.find(path)
            && file.node.mode & 0o007 != 0
        {
            found.at(path, format!("its mode is {:04o}", file.node.mode));
        }
    }
    Ok(())
}

fn world_writable(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    // Mounts cover these; what an image has there never shows.
    const COVERED: [&str; 4] = ["dev", "proc", "run", "sys"];
    subject.tree.walk("", &mut |path, node| {
        let is_open = node.mode & 0o002 != 0;
        let may_be = match node.kind {
            Kind::Directory(_) => node.mode & 0o1000 != 0,
            Kind::File(_) => false,
            _ => true,
        };
        let is_covered = COVERED.iter().any(|dir| path.starts_with(dir));
        // Another rule speaks of these two.
        let is_tmp = path == "tmp" || path == "var/tmp";
        if is_open && !may_be && !is_covered && !is_tmp {
            found.at(path, format!("its mode is {:04o}", node.mode));
        }
    });
    Ok(())
}
