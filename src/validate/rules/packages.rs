//! Packages: what is installed is known, and whole.

use super::always;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Rule, Severity, Subject, Violations};

const INSTALLED: &[StepName] = &[StepName::INSTALL_PACKAGES, StepName::INSTALL_KERNEL];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "packages-database",
        severity: Severity::Warning,
        demand: "the database of installed packages can be read",
        remedy: "let its manager rebuild it (`rpmdb --rebuilddb`), or start from a base that is whole",
        steps: &[],
        when: always,
        check: database,
    },
    Rule {
        id: "packages-whole",
        severity: Severity::Warning,
        demand: "every installed package is configured and complete",
        remedy: "see what its script says (`dpkg --configure -a`, `apk fix`), and convert again",
        steps: INSTALLED,
        when: always,
        check: whole,
    },
];

fn database(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for database in &subject.installed()?.unread {
        found.at(&database.path, &database.why);
    }
    Ok(())
}

fn whole(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for package in &subject.installed()?.packages {
        if let Some(what) = &package.broken {
            found.add(format!("{} {}: {what}", package.name, package.version));
        }
    }
    Ok(())
}
