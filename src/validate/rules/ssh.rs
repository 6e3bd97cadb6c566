//! The SSH server's configuration, as far as it can be judged without running it.

use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

const HARDENED: &[StepName] = &[StepName::SSH_HARDENING];
const CONFIG: &str = "etc/ssh/sshd_config";
const DROP_INS: &str = "etc/ssh/sshd_config.d";
const MODULI: &str = "etc/ssh/moduli";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "ssh-drop-ins",
        severity: Severity::Warning,
        demand: "sshd reads the hardening file in /etc/ssh/sshd_config.d",
        remedy: "put `Include /etc/ssh/sshd_config.d/*.conf` at the top of /etc/ssh/sshd_config",
        steps: HARDENED,
        when: any,
        check: drop_ins,
    },
    Rule {
        id: "ssh-syntax",
        severity: Severity::Error,
        demand: "every line of sshd's configuration is a directive with a value",
        remedy: "correct the line: sshd does not start with it, and remote machines are lost",
        steps: &[],
        when: any,
        check: syntax,
    },
    Rule {
        id: "ssh-moduli",
        severity: Severity::Error,
        demand: "/etc/ssh/moduli holds primes, and none below 2047 bits",
        remedy: "let the step `sshHardening` run, or remove the file",
        steps: HARDENED,
        when: any,
        check: moduli,
    },
    Rule {
        id: "ssh-empty-passwords",
        severity: Severity::Error,
        demand: "sshd lets nobody in without a password",
        remedy: "remove `PermitEmptyPasswords yes`",
        steps: &[],
        when: any,
        check: empty_passwords,
    },
];

fn any(facts: &Facts) -> bool {
    super::always(facts)
}

/// Returns the drop-ins that sshd reads, in its order.
fn drop_in_paths(subject: &Subject<'_>) -> Vec<String> {
    subject
        .names(DROP_INS)
        .into_iter()
        .filter(|name| name.ends_with(".conf"))
        .map(|name| format!("{DROP_INS}/{name}"))
        .collect()
}

/// Splits a line into directive and value; `None` for comments and empty lines.
fn directive(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(line.len());
    let (name, value) = line.split_at(end);
    Some((name, value.trim_start_matches(['=', ' ', '\t'])))
}

fn drop_ins(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(config) = subject.tree.text(CONFIG)? else {
        return Ok(());
    };
    let includes = |line: &str| {
        directive(line).is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("Include") && value.contains("sshd_config.d")
        })
    };
    if !drop_in_paths(subject).is_empty() && !config.lines().any(includes) {
        found.at(CONFIG, "it does not include sshd_config.d");
    }
    Ok(())
}

/// Returns every directive with the file and line it stands in.
fn directives(subject: &Subject<'_>) -> Result<Vec<(String, usize, String, String)>> {
    let mut all = Vec::new();
    for path in std::iter::once(CONFIG.to_owned()).chain(drop_in_paths(subject)) {
        let text = subject.tree.text(&path)?.unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            if let Some((name, value)) = directive(line) {
                all.push((path.clone(), index + 1, name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(all)
}

fn syntax(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, line, name, value) in directives(subject)? {
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_word {
            found.at(&path, format!("line {line}: {name:?} is no directive"));
        } else if value.is_empty() {
            found.at(&path, format!("line {line}: {name} has no value"));
        }
    }
    Ok(())
}

fn moduli(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const SMALLEST: u32 = 2047;
    let Some(text) = subject.tree.text(MODULI)? else {
        return Ok(());
    };
    let sizes: Vec<u32> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(4)?.parse().ok())
        .collect();
    if sizes.is_empty() {
        found.at(MODULI, "it holds no primes");
    } else if sizes.iter().any(|bits| *bits < SMALLEST) {
        found.at(MODULI, format!("it holds primes below {SMALLEST} bits"));
    }
    Ok(())
}

fn empty_passwords(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (path, line, name, value) in directives(subject)? {
        if name.eq_ignore_ascii_case("PermitEmptyPasswords") && value.eq_ignore_ascii_case("yes") {
            found.at(&path, format!("line {line}: {name} {value}"));
        }
    }
    Ok(())
}
