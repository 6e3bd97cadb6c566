//! The forms a report is printed in: one on an image, and others of the same kind.

mod junit;
mod sarif;
mod text;

use super::{Finding, Report, Rule, Severity};
use crate::error::Result;

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, which code hosts show beside the source.
    Sarif,
    /// JUnit XML, which CI systems show as tests.
    Junit,
}

/// What a rule says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Its name, which stays the same between versions.
    pub id: &'static str,
    /// How bad it is when it is broken.
    pub severity: Severity,
    /// What is demanded, as a sentence.
    pub demand: &'static str,
    /// What to do when it is broken, in one line.
    pub remedy: &'static str,
}

/// What every form is made of.
#[derive(Debug)]
pub struct Sheet<'a> {
    /// The command that made it.
    pub command: &'static str,
    /// What was looked at: `image`.
    pub object: &'static str,
    /// The name that it was asked for by.
    pub name: &'a str,
    /// What it says of itself, for people: whole lines.
    pub head: String,
    /// The same for programs.
    pub facts: serde_json::Value,
    /// The ids of the rules that were held against it, in order.
    pub checked: Vec<&'a str>,
    /// What is wrong, in the order of the rules.
    pub findings: &'a [Finding],
    /// Returns the rule of an id.
    pub find: fn(&str) -> Option<Demand>,
}

impl Sheet<'_> {
    fn count(&self, severity: Severity) -> usize {
        let all = self.findings.iter();
        all.filter(|finding| finding.severity == severity).count()
    }

    /// Prints it.
    ///
    /// # Errors
    ///
    /// An internal error if a value cannot be written as JSON.
    pub fn render(&self, form: Form) -> Result<String> {
        let json = |value: &serde_json::Value| -> Result<String> {
            Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
        };
        match form {
            Form::Text => Ok(text::sheet(self)),
            Form::Json => json(&serde_json::json!({
                self.object: self.name,
                "passes": self.count(Severity::Error) == 0,
                "facts": self.facts,
                "checked": self.checked,
                "findings": self.findings,
            })),
            Form::Sarif => json(&sarif::sheet(self)),
            Form::Junit => Ok(junit::sheet(self)),
        }
    }
}

/// Prints `report` about the image called `name`.
///
/// # Errors
///
/// An internal error if a value cannot be written as JSON.
pub fn render(report: &Report, name: &str, form: Form) -> Result<String> {
    let sheet = Sheet {
        command: "validate",
        object: "image",
        name,
        head: text::image(report, name),
        facts: serde_json::to_value(&report.image)?,
        checked: report.checked.iter().map(String::as_str).collect(),
        findings: &report.findings,
        find: |id| super::rules::find(id).map(Rule::demanded),
    };
    sheet.render(form)
}

/// Prints every rule of an image with its severity, what it demands and its remedy.
///
/// # Errors
///
/// As for [`render_demands`].
pub fn render_rules(form: Form) -> Result<String> {
    let all: Vec<Demand> = super::rules::all().map(Rule::demanded).collect();
    render_demands(&all, form)
}

/// Prints rules with their severities, what they demand and their remedies.
///
/// # Errors
///
/// As for [`render`]; SARIF and JUnit are forms of reports only, a usage error.
pub fn render_demands(all: &[Demand], form: Form) -> Result<String> {
    match form {
        Form::Text => Ok(text::demands(all)),
        Form::Json => {
            let one = |rule: &Demand| {
                serde_json::json!({
                    "id": rule.id, "severity": rule.severity, "demand": rule.demand, "remedy": rule.remedy,
                })
            };
            let rules: Vec<_> = all.iter().map(one).collect();
            Ok(format!("{}\n", serde_json::to_string_pretty(&rules)?))
        }
        Form::Sarif | Form::Junit => Err(crate::error::Error::usage(
            "the list of rules is printed as text or JSON",
        )),
    }
}
