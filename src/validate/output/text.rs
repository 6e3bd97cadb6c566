//! A report for people.

use crate::printable::counted;
use crate::validate::{Finding, Report, Severity, rules};

pub(super) fn report(report: &Report, name: &str) -> String {
    let image = &report.image;
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let mut text = format!(
        "image     {name}\nsystem    {} family, {}, model {}, variant {}{}{}\nkernel    {}\n\n",
        or(&image.family),
        or(&image.arch),
        image.model,
        image.variant,
        if image.trusted_boot {
            ", Trusted Boot"
        } else {
            ""
        },
        if image.fips { ", FIPS" } else { "" },
        or(&image.kernel),
    );
    text.push_str(&findings(&report.findings, report.checked.len()));
    text
}

/// Prints what was found, and how many rules were held against it.
pub(crate) fn findings(findings: &[Finding], checked: usize) -> String {
    let mut text = String::new();
    // The remedy stands once, after all that broke its rule.
    for found in findings.chunk_by(|one, other| one.rule == other.rule) {
        for finding in found {
            let severity = finding.severity.name();
            text.push_str(&format!("{severity:7}  {}\n", finding.line()));
        }
        text.push_str(&format!("         hint: {}\n", found[0].remedy));
    }
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text.push_str(&format!(
        "{}: {} checked, {}, {}\n",
        if errors == 0 { "passed" } else { "failed" },
        counted(checked, "rule"),
        counted(errors, "error"),
        counted(warnings, "warning"),
    ));
    text
}

pub(super) fn rules() -> String {
    let width = rules::all().map(|rule| rule.id.len()).max().unwrap_or(0);
    let line = |rule: &crate::validate::Rule| {
        format!(
            "{:width$}  {:7}  {}\n",
            rule.id,
            rule.severity.name(),
            rule.demand
        )
    };
    rules::all().map(line).collect()
}
