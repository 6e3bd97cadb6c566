//! A report as JUnit XML: one test case a rule. Warnings pass, and are shown in the case's output.

use super::Sheet;
use crate::validate::{Finding, Severity};

pub(super) fn sheet(sheet: &Sheet<'_>) -> String {
    let failed = |rule: &&&str| {
        let mut all = sheet.findings.iter();
        all.any(|finding| finding.rule == **rule && finding.severity == Severity::Error)
    };
    let failures = sheet.checked.iter().filter(failed).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\"",
        sheet.checked.len()
    );
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text.push_str(&format!(
        "<testsuites name=\"kfactory {}\" {counts}>\n",
        sheet.command
    ));
    text.push_str(&format!(
        "  <testsuite name=\"{}\" {counts} skipped=\"0\">\n",
        escape(sheet.name)
    ));
    for rule in &sheet.checked {
        text.push_str(&case(sheet, rule));
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(sheet: &Sheet<'_>, rule: &str) -> String {
    let demand = (sheet.find)(rule).map_or("", |rule| rule.demand);
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\"",
        escape(rule),
        escape(demand)
    );
    let of = |severity: Severity| -> Vec<&Finding> {
        let all = sheet.findings.iter();
        all.filter(|finding| finding.rule == rule && finding.severity == severity)
            .collect()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let mut inside = String::new();
    if let Some(first) = errors.first() {
        inside.push_str(&format!(
            "      <failure type=\"{}\" message=\"{}\">{}\nhint: {}</failure>\n",
            escape(rule),
            escape(&first.text),
            lines(&errors),
            escape(&first.remedy)
        ));
    }
    if let Some(first) = warnings.first() {
        inside.push_str(&format!(
            "      <system-out>{}\nhint: {}</system-out>\n",
            lines(&warnings),
            escape(&first.remedy)
        ));
    }
    if inside.is_empty() {
        format!("{head}/>\n")
    } else {
        format!("{head}>\n{inside}    </testcase>\n")
    }
}

fn lines(findings: &[&Finding]) -> String {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| escape(&finding.line()))
        .collect();
    lines.join("\n")
}

/// Writes text so that it stands for itself; control characters, which XML cannot hold, become U+FFFD.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
