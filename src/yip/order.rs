//! In which order the steps of one stage run, across files.
//!
//! Steps run one after the other, as the files and their lists have them. `after` moves a step behind others; a name
//! that nothing has, and a circle, are errors. Spec: yip, "ordering across steps and files".

use super::problem::Problems;
use super::schema::{Document, Stage, Step};
use crate::suggest::nearest;

/// The root of names where steps come from one document without a file, as they do when kairos-init runs them.
const WITHOUT_FILE: &str = "<STDIN>";

/// The most names that an error lists.
const MAX_NAMES: usize = 10;
/// The most names that a mistyped one is compared with: thousands with thousands would take minutes.
const MAX_COMPARED: usize = 200;

/// A step in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Op<'a> {
    /// The name that `after` takes.
    pub(super) name: String,
    pub(super) document: &'a Document,
    pub(super) step: &'a Step,
    /// Which step of its file's stage it is, counted from 1.
    pub(super) number: usize,
    /// What it waits for, as indices into the list of all steps in the order of the files.
    waits_for: Vec<usize>,
}

/// Returns the steps of `stage` in the order they run.
pub(super) fn arrange<'a>(
    documents: &'a [Document],
    stage: &str,
    problems: &mut Problems,
) -> Vec<Op<'a>> {
    let files: Vec<(&Document, &Stage)> = documents
        .iter()
        .flat_map(|document| {
            let stages = document
                .stages
                .iter()
                .filter(|found| found.name.value == stage);
            stages.map(move |stage| (document, stage))
        })
        .filter(|(_, stage)| !stage.steps.is_empty())
        .collect();
    let mut ops: Vec<Op<'a>> = Vec::new();
    let mut last: Vec<usize> = Vec::new();
    for (document, stage) in files {
        let before = std::mem::take(&mut last);
        for (index, name) in names(document, stage).into_iter().enumerate() {
            let step = &stage.steps[index];
            let mut waits_for = Vec::new();
            if step.after.is_empty() {
                last.push(ops.len());
                waits_for.clone_from(&before);
                if index > 0 {
                    waits_for.push(ops.len() - 1);
                }
            }
            ops.push(Op {
                name,
                document,
                step,
                number: index + 1,
                waits_for,
            });
        }
    }
    resolve_after(&mut ops, problems);
    let order = sorted(&ops, problems);
    tell_apart(&mut ops);
    let mut slots: Vec<Option<Op<'a>>> = ops.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|index| slots[index].take())
        .collect()
}

/// Returns the names of the steps of one file: numbered, all of them, where two would be equal.
fn names(document: &Document, stage: &Stage) -> Vec<String> {
    let root = match document.name.as_str() {
        "" => document.file.as_str(),
        name => name,
    };
    let mut seen: Vec<&str> = stage.steps.iter().map(|step| step.name.as_str()).collect();
    seen.sort_unstable();
    let repeated = seen.windows(2).any(|pair| pair[0] == pair[1]);
    stage
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| match (repeated, step.name.as_str()) {
            (true, name) => format!("{root}.{name}.{index}"),
            (false, "") => format!("{root}.{index}"),
            (false, name) => format!("{root}.{name}"),
        })
        .collect()
}

fn resolve_after(ops: &mut [Op<'_>], problems: &mut Problems) {
    let known: Vec<String> = ops.iter().map(|op| op.name.clone()).collect();
    for (index, op) in ops.iter_mut().enumerate() {
        for wanted in &op.step.after {
            let short = wanted
                .value
                .strip_prefix(WITHOUT_FILE)
                .and_then(|name| name.strip_prefix('.'));
            let mut found: Vec<usize> = Vec::new();
            for (at, name) in known.iter().enumerate() {
                let same_short = short.is_some_and(|short| {
                    name.rsplit_once('.').is_some_and(|(_, last)| last == short)
                });
                if *name == wanted.value || same_short {
                    found.push(at);
                }
            }
            let file = op.document.file.clone();
            if found.contains(&index) {
                problems.error_in(
                    &file,
                    wanted.line,
                    format!("the step waits for itself: `{}`", wanted.value),
                    None,
                );
            } else if found.is_empty() {
                let others = known.iter().enumerate().filter(|(at, _)| *at != index);
                let others: Vec<&str> = others.map(|(_, name)| name.as_str()).collect();
                let message = format!("`after` names no step of this stage: `{}`", wanted.value);
                let hint = Some(instead(&wanted.value, &others));
                problems.error_in(&file, wanted.line, message, hint);
            }
            op.waits_for
                .extend(found.into_iter().filter(|at| *at != index));
        }
    }
}

/// Sorts topologically; among what may run, the first in the files does.
fn sorted(ops: &[Op<'_>], problems: &mut Problems) -> Vec<usize> {
    let mut done = vec![false; ops.len()];
    let mut order = Vec::with_capacity(ops.len());
    while order.len() < ops.len() {
        let ready = (0..ops.len())
            .find(|&at| !done[at] && ops[at].waits_for.iter().all(|&other| done[other]));
        let Some(next) = ready else {
            circle(ops, &done, problems);
            order.extend((0..ops.len()).filter(|&at| !done[at]));
            break;
        };
        done[next] = true;
        order.push(next);
    }
    order
}

/// Says what stands in a stage where `wanted` does not.
fn instead(wanted: &str, others: &[&str]) -> String {
    let ends_so = |name: &&&str| {
        let rest = name.strip_suffix(wanted);
        rest.is_some_and(|rest| rest.ends_with('.'))
    };
    let near = others.iter().find(ends_so).copied();
    if let Some(near) = near.or_else(|| nearest(wanted, others.iter().copied().take(MAX_COMPARED)))
    {
        return format!("did you mean `{near}`? A step's name begins with that of its file");
    }
    let shown = others.iter().take(MAX_NAMES).copied();
    let shown = shown.collect::<Vec<_>>().join(", ");
    match others.len() {
        0 => "no other step of this stage exists".to_owned(),
        count if count > MAX_NAMES => {
            format!(
                "steps of this stage are {shown} and {} more",
                count - MAX_NAMES
            )
        }
        _ => format!("steps of this stage are {shown}"),
    }
}

/// Names each step of a circle with its place and what it waits for; those that only wait for the circle are left out.
fn circle(ops: &[Op<'_>], done: &[bool], problems: &mut Problems) {
    let Some(start) = done.iter().position(|done| !done) else {
        return;
    };
    // Each that is stuck waits for one that is stuck, so this comes back to where it was.
    let mut way = vec![start];
    let members = loop {
        let here = way[way.len() - 1];
        let next = ops[here].waits_for.iter().copied().find(|&at| !done[at]);
        let Some(next) = next else { return };
        if let Some(first) = way.iter().position(|&at| at == next) {
            break way.split_off(first);
        }
        way.push(next);
    };
    let place = |at: usize| {
        let (op, line) = (
            &ops[at],
            ops[at]
                .step
                .after
                .first()
                .map_or(ops[at].step.line, |after| after.line),
        );
        (op.document.file.as_str(), line)
    };
    let shown: Vec<String> = members
        .iter()
        .take(MAX_NAMES)
        .map(|&at| {
            let (file, line) = place(at);
            format!("`{}` ({file}:{line})", ops[at].name)
        })
        .collect();
    let more = match members.len().saturating_sub(MAX_NAMES) {
        0 => format!(" waits for `{}`", ops[members[0]].name),
        more => format!(
            " waits for {more} more, and the last of them for `{}`",
            ops[members[0]].name
        ),
    };
    let message = format!(
        "`after` goes round in a circle: {}{more}",
        shown.join(" waits for ")
    );
    let has_after = |at: &&usize| !ops[**at].step.after.is_empty();
    let (file, line) = place(*members.iter().find(has_after).unwrap_or(&members[0]));
    let without = members.iter().any(|&at| ops[at].step.after.is_empty());
    let hint = without
        .then(|| "a step without `after` waits for the one before it in its file".to_owned());
    problems.error_in(file, line, message, hint);
}

/// Numbers what still has equal names.
fn tell_apart(ops: &mut [Op<'_>]) {
    let names: Vec<String> = ops.iter().map(|op| op.name.clone()).collect();
    for (index, op) in ops.iter_mut().enumerate() {
        let before = names[..index]
            .iter()
            .filter(|name| **name == op.name)
            .count();
        if before > 0 {
            op.name.push_str(&format!(".{before}"));
        }
    }
}

/// Returns in how many rounds the steps could run if those that wait for nothing unfinished ran together.
#[cfg(test)]
pub(super) fn rounds(ops: &[Op<'_>]) -> usize {
    // In the order of the files again, which is what the indices mean.
    let mut level = vec![0; ops.len()];
    for _ in 0..ops.len() {
        for at in 0..ops.len() {
            level[at] = ops[at]
                .waits_for
                .iter()
                .map(|&other| level[other] + 1)
                .max()
                .unwrap_or(0);
        }
    }
    level.into_iter().max().map_or(0, |deepest| deepest + 1)
}
