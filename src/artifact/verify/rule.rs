//! What is demanded, and what was found when it was held against a medium, a disk or a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::rules;
use crate::error::{Error, Result};
use crate::printable::{bounded, name};
use crate::stop::Stopped;
use crate::validate::output::{Demand, Form, Sheet};
use crate::validate::{Finding, Severity, error};

/// What something that boots is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ISO 9660 medium.
    Iso,
    /// A directory of files for network boot.
    Netboot,
    /// A disk with a partition table.
    Disk,
}

impl Kind {
    /// Returns the words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iso => "ISO 9660 medium",
            Self::Netboot => "network boot files",
            Self::Disk => "disk",
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
    /// What one rule found beyond what is told of it.
    more: BTreeMap<&'static str, usize>,
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
            more: BTreeMap::new(),
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
    pub(super) fn hold(&mut self, rule: &'static Demand) -> Held<'_> {
        if !self.checked.contains(&rule.id) {
            self.checked.push(rule.id);
        }
        Held { report: self, rule }
    }

    /// Puts what belongs to one rule together, in the order of the rules.
    pub(super) fn finish(mut self) -> Self {
        let place = |id: &str| rules::ALL.iter().position(|rule| rule.id == id);
        for (id, more) in std::mem::take(&mut self.more) {
            if let Some(rule) = rules::find(id) {
                self.push(&rule, None, format!("and {more} more"));
            }
        }
        self.checked.sort_by_key(|id| place(id));
        self.findings.sort_by_key(|finding| place(&finding.rule));
        self
    }

    /// Demands that nothing keeps it from booting.
    ///
    /// # Errors
    ///
    /// What does, with the remedies.
    pub(super) fn demand(&self) -> Result<()> {
        let message = format!("what was made does not boot: {}", self.kind.name());
        let error = error(
            &self.findings,
            &message,
            "`--no-validate` makes it all the same",
        );
        error.map_or(Ok(()), Err)
    }

    /// Leaves out what belongs to the rules with these ids.
    pub fn ignore(&mut self, ids: &[String]) {
        let is_kept = |id: &str| !ids.iter().any(|it| it == id);
        self.checked.retain(|id| is_kept(id));
        self.findings.retain(|finding| is_kept(&finding.rule));
    }

    /// Prints it, with the name it was asked for by.
    ///
    /// # Errors
    ///
    /// An internal error if a value cannot be written as JSON.
    pub fn render(&self, path: &Path, form: Form) -> Result<String> {
        let path = path.display().to_string();
        let mut head = format!("{:10} {}\n", "file", name(&path));
        let mut facts = serde_json::Map::new();
        let kind = ("kind", self.kind.name().to_owned());
        for (what, value) in std::iter::once(&kind).chain(&self.facts) {
            head.push_str(&format!("{what:10} {}\n", name(value)));
            facts.insert(what.replace(' ', "_"), value.as_str().into());
        }
        let sheet = Sheet {
            command: "artifact verify",
            object: "file",
            name: &path,
            head,
            facts: facts.into(),
            checked: self.checked.clone(),
            findings: &self.findings,
            find: rules::find,
        };
        sheet.render(form)
    }

    fn push(&mut self, rule: &Demand, path: Option<String>, text: String) {
        self.findings.push(Finding {
            rule: rule.id.to_owned(),
            severity: rule.severity,
            path,
            text,
            remedy: rule.remedy.to_owned(),
            skipped_step: None,
            skipped_by: None,
        });
    }
}

/// A rule that is being held against something.
pub(super) struct Held<'r> {
    report: &'r mut Report,
    rule: &'static Demand,
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
        let mut known = 0;
        for finding in self.report.findings.iter() {
            if finding.rule == self.rule.id {
                // What two menus say alike is said once.
                if finding.path == path && finding.text == text {
                    return;
                }
                known += 1;
            }
        }
        match known < MAX_PER_RULE {
            true => self.report.push(self.rule, path, text),
            false => *self.report.more.entry(self.rule.id).or_default() += 1,
        }
    }
}

/// Returns an error and its causes on one line.
pub(super) fn telling(error: &(dyn std::error::Error + 'static)) -> String {
    crate::error::telling(error).join(": ")
}

/// Returns what a finding says of an error that what is checked is to blame for.
///
/// # Errors
///
/// It is not: the machine cannot read the file, or the run is stopped.
pub(super) fn blame(error: io::Error) -> Result<String> {
    if Stopped::is_in(&error) || is_of_system(&error) {
        return Err(error.into());
    }
    // One of these went through somebody else's reader.
    match error.downcast::<Error>() {
        Ok(error) => Err(error),
        Err(error) => Ok(telling(&error)),
    }
}

/// Tells whether an error is one that the kernel gave, whoever wrapped it.
fn is_of_system(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    error.raw_os_error().is_some() || inner.is_some_and(is_of_system)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind as ErrorKind;

    #[test]
    fn what_is_checked_is_not_to_blame_for_a_disk_that_fails_or_a_user_who_stops() {
        const EIO: i32 = 5;
        let of_disk = || io::Error::from_raw_os_error(EIO);
        for error in [of_disk(), io::Error::other(of_disk())] {
            let said = blame(error).unwrap_err().render_text();
            assert!(said.contains("Input/output error"), "{said}");
        }
        let stopped = Error::from(Stopped);
        for error in [Stopped.into(), io::Error::other(stopped)] {
            let error = blame(error).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Interrupted);
        }
        let damaged = io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        assert_eq!(blame(damaged).unwrap(), "it is damaged");
    }
}
