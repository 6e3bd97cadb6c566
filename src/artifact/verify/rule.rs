//! What is demanded, and what was found when it was held against a medium, a disk or a directory.

use std::path::Path;

use serde::Serialize;

use crate::printable::{bounded, name};
use crate::validate::{Finding, Severity};

/// One thing that is demanded of what boots.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which stays the same between versions.
    pub id: &'static str,
    /// How bad it is when it is broken.
    pub severity: Severity,
    /// What is demanded, as a sentence.
    pub demand: &'static str,
    /// What to do when it is broken, in one line.
    pub remedy: &'static str,
}

/// What something that boots is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An ISO 9660 medium.
    Iso,
    /// A directory of files for network boot.
    Netboot,
}

impl Kind {
    /// Returns the words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iso => "ISO 9660 medium",
            Self::Netboot => "network boot files",
        }
    }
}

/// What was looked at and what was found.
#[derive(Debug)]
pub struct Report {
    /// What it is.
    pub kind: Kind,
    /// What it says of itself, each with its name: the label, the kernel's version, ...
    pub facts: Vec<(&'static str, String)>,
    /// The rules that were held against it, in order. What a broken one leaves unreadable is not looked at further.
    pub checked: Vec<&'static str>,
    /// What is wrong, in the order of the rules.
    pub findings: Vec<Finding>,
}

/// What one rule finds beyond this number is not told: the cause is the same.
const MAX_PER_RULE: usize = 10;

impl Report {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            facts: Vec::new(),
            checked: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Returns whether nothing is wrong that keeps it from booting.
    pub fn passes(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    /// Returns how many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        let of_it = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(of_it).count()
    }

    /// Notes what the thing says of itself; once.
    pub(super) fn fact(&mut self, what: &'static str, value: impl Into<String>) {
        if !self.facts.iter().any(|(known, _)| *known == what) {
            self.facts.push((what, value.into()));
        }
    }

    /// Notes that `rule` is held against it, and returns where to say how it is broken.
    pub(super) fn hold(&mut self, rule: &'static Rule) -> Held<'_> {
        if !self.checked.contains(&rule.id) {
            self.checked.push(rule.id);
        }
        Held { report: self, rule }
    }

    /// Puts what belongs to one rule together.
    pub(super) fn finish(mut self) -> Self {
        let order = |finding: &Finding| self.checked.iter().position(|id| *id == finding.rule);
        self.findings.sort_by_key(order);
        self
    }

    /// Prints it for people, with the name it was asked for by.
    pub fn text(&self, path: &Path) -> String {
        let mut text = format!("{:9} {}\n", "file", name(&path.display().to_string()));
        text.push_str(&format!("{:9} {}\n", "kind", self.kind.name()));
        for (what, value) in &self.facts {
            text.push_str(&format!("{what:9} {}\n", name(value)));
        }
        text.push('\n');
        text + &crate::validate::output::text::findings(&self.findings, self.checked.len())
    }

    /// Returns it for programs.
    pub fn json(&self, path: &Path) -> serde_json::Value {
        let facts = self.facts.iter();
        let facts: serde_json::Map<_, _> = facts
            .map(|(what, value)| ((*what).to_owned(), value.as_str().into()))
            .collect();
        serde_json::json!({
            "file": path.display().to_string(),
            "kind": self.kind,
            "passes": self.passes(),
            "facts": facts,
            "checked": self.checked,
            "findings": self.findings,
        })
    }
}

/// A rule that is being held against something.
pub(super) struct Held<'r> {
    report: &'r mut Report,
    rule: &'static Rule,
}

impl Held<'_> {
    /// Notes what is wrong with the object at `path`.
    pub(super) fn at(&mut self, path: &str, text: impl Into<String>) {
        self.push(Some(format!("/{}", path.trim_start_matches('/'))), text);
    }

    /// Notes what is wrong with the whole.
    pub(super) fn add(&mut self, text: impl Into<String>) {
        self.push(None, text);
    }

    fn push(&mut self, path: Option<String>, text: impl Into<String>) {
        let text = bounded(&text.into());
        // What two menus say alike is said once, and nobody reads thousands.
        let findings = &mut self.report.findings;
        let of_it = findings.iter().filter(|it| it.rule == self.rule.id);
        let is_known = |it: &Finding| it.path == path && it.text == text;
        if of_it.clone().count() >= MAX_PER_RULE || of_it.clone().any(is_known) {
            return;
        }
        findings.push(Finding {
            rule: self.rule.id.to_owned(),
            severity: self.rule.severity,
            path,
            text,
            remedy: self.rule.remedy.to_owned(),
            skipped_step: None,
            skipped_by: None,
        });
    }
}

/// Returns an error and its causes on one line.
pub(super) fn telling(error: &(dyn std::error::Error + 'static)) -> String {
    crate::error::telling(error).join(": ")
}
