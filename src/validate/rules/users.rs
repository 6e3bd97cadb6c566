//! Accounts: root can log in at a live medium's console, and nobody else gets in without a key or password.

use super::always;
use crate::error::Result;
use crate::validate::{Rule, Severity, Subject, Violations};

const PASSWD: &str = "etc/passwd";
const SHADOW: &str = "etc/shadow";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "users-root",
        severity: Severity::Error,
        demand: "root exists with user id 0 and a shell that is there",
        remedy: "restore root's line in /etc/passwd, or install its shell: live media log root in",
        steps: &[],
        when: always,
        check: root,
    },
    Rule {
        id: "users-uid0",
        severity: Severity::Error,
        demand: "nobody but root has user id 0",
        remedy: "give the account another user id",
        steps: &[],
        when: always,
        check: uid0,
    },
    Rule {
        id: "users-empty-password",
        severity: Severity::Error,
        demand: "no account can be used with an empty password",
        remedy: "lock it (`passwd -l NAME`): everybody who boots the image has this account",
        steps: &[],
        when: always,
        check: empty_password,
    },
    Rule {
        id: "users-password",
        severity: Severity::Warning,
        demand: "no account brings a password of its own",
        remedy: "set passwords by cloud-config: one in the image is the same on every machine",
        steps: &[],
        when: always,
        check: password,
    },
];

/// Returns the lines of a `:`-separated file as their fields.
fn table(subject: &Subject<'_>, path: &str) -> Result<Vec<Vec<String>>> {
    let text = subject.tree.text(path)?.unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines
        .map(|line| line.split(':').map(str::to_owned).collect())
        .collect())
}

fn field(line: &[String], index: usize) -> &str {
    line.get(index).map_or("", String::as_str)
}

fn root(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let accounts = table(subject, PASSWD)?;
    let Some(root) = accounts.iter().find(|line| field(line, 0) == "root") else {
        found.at(PASSWD, "there is no root");
        return Ok(());
    };
    let shell = match field(root, 6) {
        "" => "/bin/sh",
        shell => shell,
    };
    if field(root, 2) != "0" {
        found.at(PASSWD, format!("root has user id {:?}", field(root, 2)));
    } else if !subject.tree.has_executable(shell) {
        found.at(shell, "root's shell is not there");
    }
    Ok(())
}

fn uid0(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for line in table(subject, PASSWD)? {
        if field(&line, 2) == "0" && field(&line, 0) != "root" {
            found.at(PASSWD, format!("{:?} has user id 0", field(&line, 0)));
        }
    }
    Ok(())
}

/// Returns every account with its password field, wherever that is.
fn passwords(subject: &Subject<'_>) -> Result<Vec<(&'static str, String, String)>> {
    let mut all = Vec::new();
    for path in [PASSWD, SHADOW] {
        for line in table(subject, path)? {
            let password = field(&line, 1).to_owned();
            // In passwd, x means that it is in shadow.
            if path != PASSWD || password != "x" {
                all.push((path, field(&line, 0).to_owned(), password));
            }
        }
    }
    Ok(all)
}

fn empty_password(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, name, password) in passwords(subject)? {
        if password.is_empty() {
            found.at(path, format!("{name:?} has an empty password"));
        }
    }
    Ok(())
}

fn password(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, name, password) in passwords(subject)? {
        // What begins with ! or * is locked.
        if !password.is_empty() && !password.starts_with(['!', '*']) {
            found.at(path, format!("{name:?} has a password"));
        }
    }
    Ok(())
}
