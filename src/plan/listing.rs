//! `kfactory packages`: the selection alone, with the rule behind each name, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Chosen, LeftOut, Plan};
use crate::distro::sizes;
use crate::progress::bytes_text;

/// Renders the selection for people.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let distro = &plan.facts.distro;
    let _ = writeln!(
        out,
        "base  {} ({}, family {}, {}), model {}{}",
        distro.name,
        distro.id,
        distro.family,
        plan.facts.architecture(),
        plan.selected_for.model,
        if plan.selected_for.trusted {
            ", trusted boot"
        } else {
            ""
        },
    );
    for (title, list) in lists(plan) {
        if !list.is_empty() {
            let _ = writeln!(out, "\n{title} ({})", list.len());
            write_chosen(&mut out, list);
        }
    }
    write_left_out(&mut out, &plan.left_out);
    for note in &plan.notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

/// Writes what was left out, with what it saves where that is known; nothing where nothing was.
pub(super) fn write_left_out(out: &mut String, left_out: &[LeftOut]) {
    if left_out.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nleft out ({})", left_out.len());
    let width = width(left_out.iter().map(|left| left.name.as_str()));
    for left in left_out {
        let saves = left
            .bytes
            .map(|bytes| format!("; saves {} and what only it depends on", bytes_text(bytes)));
        let _ = writeln!(
            out,
            "  {:width$}  {} ({}){}",
            left.name,
            left.option,
            left.rule,
            saves.unwrap_or_default()
        );
    }
    if let Some((bytes, unknown)) = saved_together(left_out).filter(|_| left_out.len() > 1) {
        let rest = match unknown {
            0 => String::new(),
            count => format!("; the size of {count} of them is not known"),
        };
        let _ = writeln!(
            out,
            "together they save {} and what only they depend on{rest}",
            bytes_text(bytes)
        );
    }
}

/// Returns what leaving these out saves together, as far as it is known, and of how many it is not; `None` where nothing is known.
fn saved_together(left_out: &[LeftOut]) -> Option<(u64, usize)> {
    let unknown = left_out.iter().filter(|left| left.bytes.is_none()).count();
    let known = left_out.iter().filter_map(|left| left.bytes).sum();
    (unknown < left_out.len()).then_some((known, unknown))
}

fn write_chosen(out: &mut String, list: &[Chosen]) {
    let width = width(list.iter().map(|chosen| chosen.name.as_str()));
    for chosen in list {
        let _ = writeln!(out, "  {:width$}  {}", chosen.name, chosen.rule);
    }
}

fn width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(str::len).max().unwrap_or(0)
}

fn lists(plan: &Plan) -> [(&'static str, &[Chosen]); 3] {
    [
        ("repository packages", &plan.repository),
        ("base packages", &plan.packages),
        ("kernel packages", &plan.kernel),
    ]
}

/// Returns the selection as one JSON object.
pub(super) fn json(plan: &Plan) -> Value {
    let list = |list: &[Chosen]| -> Vec<Value> {
        list.iter()
            .map(|chosen| {
                let mut value = json!({ "name": chosen.name, "rule": chosen.rule });
                if let Some(bytes) = sizes::installed_bytes(&plan.selected_for, &chosen.name) {
                    value["bytes"] = bytes.into();
                }
                value
            })
            .collect()
    };
    json!({
        "facts": plan.selected_for,
        "repository": list(&plan.repository),
        "base": list(&plan.packages),
        "kernel": list(&plan.kernel),
        "left_out": plan.left_out,
        "left_out_bytes": saved_together(&plan.left_out).map(|(bytes, _)| bytes),
        "notes": plan.notes,
    })
}
