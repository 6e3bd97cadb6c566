//! A report as SARIF.
//!
//! Spec: OASIS SARIF 2.1.0.

use serde_json::{Value, json};

use super::{Demand, Sheet};
use crate::validate::{Finding, Severity};

pub(super) fn sheet(sheet: &Sheet<'_>) -> Value {
    let (object, name) = (sheet.object, sheet.name);
    let rules = sheet.checked.iter().filter_map(|id| (sheet.find)(id));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kfactory",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules.map(rule).collect::<Vec<_>>(),
            }},
            "artifacts": [{ "location": { "uri": uri(name) }, "description": { "text": format!("the {object}") } }],
            "originalUriBaseIds": { "ROOT": { "description": { "text": format!("the root of the {object}") } } },
            "results": sheet.findings.iter().map(|finding| result(finding, name)).collect::<Vec<_>>(),
            "columnKind": "utf16CodeUnits",
        }],
    })
}

fn rule(rule: Demand) -> Value {
    json!({
        "id": rule.id,
        "shortDescription": { "text": rule.demand },
        "help": { "text": rule.remedy },
        "defaultConfiguration": { "level": level(rule.severity) },
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn result(finding: &Finding, name: &str) -> Value {
    let location = match &finding.path {
        Some(path) => json!({ "uri": uri(path.trim_start_matches('/')), "uriBaseId": "ROOT" }),
        None => json!({ "uri": uri(name), "index": 0 }),
    };
    json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": { "text": format!("{} ({})", finding.text, finding.remedy) },
        "locations": [{ "physicalLocation": { "artifactLocation": location } }],
    })
}

/// Writes what is no character of a URI as `%XX`, so that any path makes a valid one.
fn uri(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
