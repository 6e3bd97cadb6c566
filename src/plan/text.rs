//! The plan as people read it.

use std::fmt::Write as _;

use super::{Chosen, Plan};
use crate::step::Action;

/// Renders the plan: one block per layer, one line per action, packages with the rule behind each.
pub(super) fn render(plan: &Plan) -> String {
    let mut out = String::new();
    let distro = &plan.facts.distro;
    let _ = writeln!(
        out,
        "base       {} ({}, family {}, {})",
        distro.name,
        distro.id,
        distro.family,
        plan.facts.architecture()
    );
    let _ = writeln!(out, "version    {}", plan.version);
    let _ = writeln!(out, "framework  {}", plan.framework);
    for download in &plan.downloads {
        let _ = writeln!(out, "           {download}");
    }
    if !plan.skipped.is_empty() {
        let _ = writeln!(out, "left out   {}", plan.skipped.join(", "));
    }
    super::listing::write_left_out(&mut out, &plan.left_out);
    for note in &plan.notes {
        let _ = writeln!(out, "note       {note}");
    }
    for layer in &plan.layers {
        let _ = writeln!(out, "\nlayer {}", layer.name);
        for &index in &layer.steps {
            let step = &plan.steps[index];
            let _ = writeln!(out, "  {} ({})", step.name.as_str(), step.phase.name());
            for action in &step.actions {
                let _ = writeln!(out, "    {}", action.describe());
                if let Action::Packages { install, .. } | Action::Prerequisites { install, .. } =
                    action
                {
                    write_packages(&mut out, install, plan);
                }
            }
        }
    }
    out
}

fn write_packages(out: &mut String, names: &[String], plan: &Plan) {
    let rule_of = |name: &str| {
        plan.repository
            .iter()
            .chain(&plan.packages)
            .chain(&plan.kernel)
            .find(|chosen: &&Chosen| chosen.name == name)
            .map(|c| c.rule.to_string())
    };
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for name in names {
        let _ = writeln!(
            out,
            "      {name:width$}  {}",
            rule_of(name).unwrap_or_default()
        );
    }
}
