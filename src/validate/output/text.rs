//! A report for people.

use super::{Demand, Sheet};
use crate::printable::counted;
use crate::validate::{Report, Severity};

/// Prints what an image says of itself.
pub(super) fn image(report: &Report, name: &str) -> String {
    let image = &report.image;
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    format!(
        "image     {name}\nsystem    {} family, {}, model {}, variant {}{}{}\nkernel    {}\n",
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
    )
}

pub(super) fn sheet(sheet: &Sheet<'_>) -> String {
    let mut text = format!("{}\n", sheet.head);
    // The remedy stands once, after all that broke its rule.
    for found in sheet.findings.chunk_by(|one, other| one.rule == other.rule) {
        for finding in found {
            let severity = finding.severity.name();
            text.push_str(&format!("{severity:7}  {}\n", finding.line()));
        }
        text.push_str(&format!("         hint: {}\n", found[0].remedy));
    }
    let (errors, warnings) = (sheet.count(Severity::Error), sheet.count(Severity::Warning));
    text.push_str(&format!(
        "{}: {} checked, {}, {}\n",
        if errors == 0 { "passed" } else { "failed" },
        counted(sheet.checked.len(), "rule"),
        counted(errors, "error"),
        counted(warnings, "warning"),
    ));
    text
}

pub(super) fn demands(all: &[Demand]) -> String {
    let width = all.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    let line = |rule: &Demand| {
        let severity = rule.severity.name();
        format!("{:width$}  {severity:7}  {}\n", rule.id, rule.demand)
    };
    all.iter().map(line).collect()
}
