//! The forms a report is printed in.

mod junit;
mod sarif;
pub(crate) mod text;

use super::Report;
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

/// Prints `report` about the image called `name`.
///
/// # Errors
///
/// An internal error if a value cannot be written as JSON.
pub fn render(report: &Report, name: &str, form: Form) -> Result<String> {
    Ok(match form {
        Form::Text => text::report(report, name),
        Form::Json => {
            let value = serde_json::json!({
                "image": name,
                "passes": report.passes(),
                "facts": report.image,
                "checked": report.checked,
                "findings": report.findings,
            });
            format!("{}\n", serde_json::to_string_pretty(&value)?)
        }
        Form::Sarif => format!(
            "{}\n",
            serde_json::to_string_pretty(&sarif::report(report, name))?
        ),
        Form::Junit => junit::report(report, name),
    })
}

/// Prints every rule with its severity, what it demands and its remedy.
///
/// # Errors
///
/// As for [`render`]; SARIF and JUnit are forms of reports only, a usage error.
pub fn render_rules(form: Form) -> Result<String> {
    match form {
        Form::Text => Ok(text::rules()),
        Form::Json => {
            let rules: Vec<_> = super::rules::all()
                .map(|rule| {
                    serde_json::json!({
                        "id": rule.id, "severity": rule.severity, "demand": rule.demand, "remedy": rule.remedy,
                    })
                })
                .collect();
            Ok(format!("{}\n", serde_json::to_string_pretty(&rules)?))
        }
        Form::Sarif | Form::Junit => Err(crate::error::Error::usage(
            "the list of rules is printed as text or JSON",
        )),
    }
}
