//! The plan as people read it.

use std::fmt::Write as _;

use super::{Chosen, Plan};
use crate::step::{Action, Step};

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
    for provider in &plan.providers {
        let version = provider.version.iter().map(|it| format!(" {it}"));
        let name = format!("{}{}", provider.name, version.collect::<String>());
        let from = match (&provider.download, provider.plugins.as_deref()) {
            (Some(url), _) => format!("\n           {url}"),
            (None, None | Some([])) => {
                ", left to the plugins of the image (`agent-provider-*`); `convert` fails if none claims it".to_owned()
            }
            (None, Some(paths)) => format!(
                ", left to the plugins of the image; `convert` fails if none claims it\n           {}",
                paths.join("\n           ")
            ),
        };
        let _ = writeln!(out, "provider   {name}{from}");
    }
    for (index, file) in plan.extensions.iter().enumerate() {
        let title = if index == 0 { "extensions" } else { "" };
        let _ = writeln!(out, "{title:10} {file}");
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
            write_title(&mut out, step);
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

/// Writes a step's name; of an extension's step also its stage, its place in a file, and what must hold.
fn write_title(out: &mut String, step: &Step) {
    let Some(extension) = &step.extension else {
        let _ = writeln!(out, "  {} ({})", step.name.as_str(), step.phase.name());
        return;
    };
    let place = extension
        .source
        .as_ref()
        .map(|source| format!(", {source}"))
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "  {} (extension in {}{place})",
        extension.label,
        extension.stage.name()
    );
    for condition in &extension.conditions {
        let _ = writeln!(out, "    {}", condition.describe());
    }
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
