//! In which order the steps of one stage run, across files.
//!
//! Steps run one after the other, as the files and their lists have them. `after` moves a step behind others; a name
//! that nothing has, and a circle, are errors. Spec: yip, "ordering across steps and files".

use super::problem::Problems;
use super::schema::{Document, Stage, Step};

/// The root of names where steps come from one document without a file, as they do when kairos-init runs them.
const WITHOUT_FILE: &str = "<STDIN>";

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
                let others: Vec<&str> = known
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != index)
                    .map(|(_, name)| name.as_str())
                    .collect();
                let hint = match others.is_empty() {
                    true => "no other step of this stage exists".to_owned(),
                    false => format!("steps of this stage are {}", others.join(", ")),
                };
                let message = format!("`after` names no step of this stage: `{}`", wanted.value);
                problems.error_in(&file, wanted.line, message, Some(hint));
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

fn circle(ops: &[Op<'_>], done: &[bool], problems: &mut Problems) {
    let stuck: Vec<&Op<'_>> = ops
        .iter()
        .zip(done)
        .filter(|(_, done)| !**done)
        .map(|(op, _)| op)
        .collect();
    let names: Vec<&str> = stuck.iter().map(|op| op.name.as_str()).collect();
    let Some(op) = stuck.iter().find(|op| !op.step.after.is_empty()) else {
        return;
    };
    let message = format!("`after` goes round in a circle: {}", names.join(", "));
    let hint = "a step without `after` waits for the one before it in its file".to_owned();
    problems.error_in(
        &op.document.file,
        op.step.after[0].line,
        message,
        Some(hint),
    );
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
