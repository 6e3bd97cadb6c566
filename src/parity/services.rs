//! Services: which start, and which are kept from starting.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Found, Side, Subject};
use crate::tree::Tree;

const SYSTEMD: &str = "etc/systemd/system";
const OPENRC: &str = "etc/runlevels";

/// Returns whether the link at `path` (absolute) is nothing but the state of a service.
pub(super) fn is_state(path: &Path, is_link: bool) -> bool {
    is_link
        && [SYSTEMD, OPENRC]
            .iter()
            .any(|dir| path.starts_with(Path::new("/").join(dir)))
}

/// Returns the state of every service that has one: `enabled in X`, `masked`, `alias of X`.
fn states(tree: &Tree) -> BTreeMap<String, String> {
    let mut states: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dir in [SYSTEMD, OPENRC] {
        tree.walk(dir, &mut |path, node| {
            let (Some(target), Some(name)) = (node.target(), path.file_name()) else {
                return;
            };
            let group = path.parent().and_then(Path::file_name);
            let group = group.map_or(String::new(), |group| group.to_string_lossy().into_owned());
            let state = if target == Path::new("/dev/null") {
                "masked".to_owned()
            } else if group == "system" {
                let unit = target.file_name().unwrap_or_default();
                format!("alias of {}", unit.to_string_lossy())
            } else {
                format!("enabled in {group}")
            };
            let name = name.to_string_lossy().into_owned();
            states.entry(name).or_default().push(state);
        });
    }
    let joined = |mut all: Vec<String>| {
        all.sort();
        all.dedup();
        all.join(", ")
    };
    states
        .into_iter()
        .map(|(name, all)| (name, joined(all)))
        .collect()
}

/// Returns what made the last change to a service's links.
fn step<'a>(side: &'a Side, name: &str) -> Option<&'a str> {
    let mut last = None;
    for dir in [SYSTEMD, OPENRC] {
        side.tree.walk(dir, &mut |path, node| {
            if node.target().is_some() && path.file_name() == Some(name.as_ref()) {
                last = last.max(Some(node.layer));
            }
        });
    }
    last.map(|layer| side.step(layer))
}

pub(super) fn compare(here: &Side, there: &Side, found: &mut Found) {
    let (ours, theirs) = (states(&here.tree), states(&there.tree));
    let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let sides = (ours.get(name).cloned(), theirs.get(name).cloned());
        if sides.0 != sides.1 {
            let step = step(here, name).or_else(|| step(there, name));
            found.add(
                step.unwrap_or("(no history)"),
                Subject::Service,
                name,
                sides,
            );
        }
    }
}
