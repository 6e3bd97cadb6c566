//! What the rules found, as one value that every form of output is made of, and that is remembered.

use serde::{Deserialize, Serialize};

use super::{Facts, Rule, Severity, Skipped};
use crate::error::Error;
use crate::printable;

/// What is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: String,
    /// How bad it is: the rule's severity, unless a step that makes it was left out on purpose.
    pub severity: Severity,
    /// Where in the image, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// The step that would have made it and was left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped_step: Option<String>,
    /// The option that left it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub skipped_by: Option<String>,
}

/// What was looked at and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What the image is, as far as it says.
    pub image: Summary,
    /// The rules that were held against it, in order.
    pub checked: Vec<String>,
    /// What is wrong, in the order of the rules.
    pub findings: Vec<Finding>,
}

/// What decided which rules were meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The architecture, in Go's spelling.
    pub arch: Option<String>,
    /// The family of its distribution.
    pub family: Option<String>,
    /// The board.
    pub model: String,
    /// `core` or `standard`.
    pub variant: String,
    /// Whether it is for Trusted Boot.
    pub trusted_boot: bool,
    /// Whether it is a FIPS image.
    pub fips: bool,
    /// The version of its kernel.
    pub kernel: Option<String>,
}

/// Paths named by a broken rule beyond this number are only counted.
const MAX_PER_RULE: usize = 10;

impl Report {
    pub(super) fn new(facts: &Facts) -> Self {
        Self {
            image: Summary {
                arch: facts.arch.map(|arch| arch.to_string()),
                family: facts.family.map(|family| family.to_string()),
                model: facts.model.clone(),
                variant: (if facts.standard { "standard" } else { "core" }).to_owned(),
                trusted_boot: facts.trusted,
                fips: facts.fips,
                kernel: facts.kernel.clone(),
            },
            checked: Vec::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        rule: &Rule,
        found: Vec<(Option<String>, String)>,
        left_out: Option<&Skipped>,
    ) {
        self.checked.push(rule.id.to_owned());
        let more = found.len().saturating_sub(MAX_PER_RULE);
        let mut found: Vec<_> = found.into_iter().take(MAX_PER_RULE).collect();
        if more > 0 {
            found.push((None, format!("and {more} more")));
        }
        for (path, text) in found {
            self.findings.push(Finding {
                rule: rule.id.to_owned(),
                severity: match left_out {
                    Some(_) => Severity::Warning,
                    None => rule.severity,
                },
                path,
                text,
                remedy: rule.remedy.to_owned(),
                skipped_step: left_out.map(|skipped| skipped.step.clone()),
                skipped_by: left_out.map(|skipped| skipped.by.clone()),
            });
        }
    }

    /// Returns how many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.of(severity).count()
    }

    /// Returns whether nothing is wrong that stops the image from working.
    pub fn passes(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn of(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        let all = self.findings.iter();
        all.filter(move |finding| finding.severity == severity)
    }

    /// Returns the first warning of each rule, and how many more there are of it.
    pub fn warnings_by_rule(&self) -> Vec<(&Finding, usize)> {
        let mut rules: Vec<(&Finding, usize)> = Vec::new();
        for finding in self.of(Severity::Warning) {
            match rules
                .iter_mut()
                .find(|(first, _)| first.rule == finding.rule)
            {
                Some((_, more)) => *more += 1,
                None => rules.push((finding, 0)),
            }
        }
        rules
    }

    /// Returns the error that stops what was to be done with an image, or `None` where nothing does. `way_out` says how it is done
    /// all the same.
    pub fn error(&self, message: &str, way_out: &str) -> Option<Error> {
        error(&self.findings, message, way_out)
    }
}

/// Returns the error that the errors among `findings` are, with their remedies and then the `way_out`, or `None` where there are none.
pub fn error(findings: &[Finding], message: &str, way_out: &str) -> Option<Error> {
    let errors: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    if errors.is_empty() {
        return None;
    }
    let mut error = Error::user(message);
    let mut remedies: Vec<&str> = Vec::new();
    for finding in errors {
        error = error.context_below(finding.line());
        if !remedies.contains(&finding.remedy.as_str()) {
            remedies.push(&finding.remedy);
        }
    }
    for remedy in remedies {
        error = error.hint(remedy);
    }
    Some(error.hint(way_out))
}

impl Finding {
    /// Returns the finding without its remedy, on one line.
    pub fn line(&self) -> String {
        let mut line = format!("{}: ", self.rule);
        if let Some(path) = &self.path {
            line.push_str(&format!("{}: ", printable::name(path)));
        }
        line.push_str(&printable::name(&self.text));
        if let (Some(step), Some(option)) = (&self.skipped_step, &self.skipped_by) {
            line.push_str(&format!(" (`{option}` leaves out step `{step}`)"));
        }
        line
    }
}
