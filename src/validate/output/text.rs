//! A report for people.

use crate::printable::counted;
use crate::validate::{Report, Severity, rules};

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
    let mut last = None;
    for finding in &report.findings {
        if last.is_some_and(|rule| rule != finding.rule.as_str()) {
            text.push_str(&remedy_of(report, last));
        }
        last = Some(finding.rule.as_str());
        text.push_str(&format!(
            "{:7}  {}\n",
            finding.severity.name(),
            finding.line()
        ));
    }
    text.push_str(&remedy_of(report, last));
    text.push_str(&format!(
        "{}: {} checked, {}, {}\n",
        if report.passes() { "passed" } else { "failed" },
        counted(report.checked.len(), "rule"),
        counted(report.count(Severity::Error), "error"),
        counted(report.count(Severity::Warning), "warning"),
    ));
    text
}

/// The remedy stands once, after all that broke its rule.
fn remedy_of(report: &Report, rule: Option<&str>) -> String {
    let found = report
        .findings
        .iter()
        .find(|finding| Some(finding.rule.as_str()) == rule);
    found.map_or(String::new(), |finding| {
        format!("         hint: {}\n", finding.remedy)
    })
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
