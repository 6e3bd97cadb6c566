//! The rows of the dialect's fact sheet that need no tree and no process: what files mean, and what is wrong with them.
//!
//! Numbers in names of tests are those of the rows.

use super::*;
use crate::step::{Condition, Plugin};

fn source(file: &str, text: &str) -> SourceText {
    SourceText {
        file: file.into(),
        text: text.into(),
    }
}

fn load(text: &str) -> Result<Extensions> {
    Extensions::load(&[source("x.yaml", text)], Network::Host)
}

/// Loads one step of the stage `init`, given without its indentation.
fn step(yaml: &str) -> Step {
    let found = load(&in_init(yaml)).unwrap_or_else(|error| panic!("{}", error.render_text()));
    found.steps(Hook::Init)[0].clone()
}

fn in_init(yaml: &str) -> String {
    let body: Vec<String> = yaml.lines().map(|line| format!("      {line}")).collect();
    format!("stages:\n  init:\n    - name: it\n{}\n", body.join("\n"))
}

fn plugins(step: &Step) -> Vec<&Plugin> {
    step.actions
        .iter()
        .filter_map(|action| match action {
            Action::Plugin(plugin) => Some(plugin),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn refused(text: &str, line: usize, word: &str) {
    let error = load(text)
        .err()
        .unwrap_or_else(|| panic!("accepted: {text}"));
    let shown = error.render_text();
    assert!(
        shown.contains(&format!("x.yaml:{line}: ")) && shown.contains(word),
        "no line {line} or `{word}` in:\n{shown}"
    );
}

#[track_caller]
fn warned(text: &str, line: usize, word: &str) -> Extensions {
    let found = load(text).unwrap_or_else(|error| panic!("{}", error.render_text()));
    assert!(
        found
            .warnings
            .iter()
            .any(|warning| warning.line == line && warning.message.contains(word)),
        "no line {line} or `{word}` in {:?}",
        found.warnings
    );
    found
}

fn names(documents: &[schema::Document], stage: &str) -> (Vec<String>, usize) {
    let mut problems = Problems::default();
    let ops = order::arrange(documents, stage, &mut problems);
    assert!(problems.errors().is_empty(), "{problems:?}");
    (
        ops.iter().map(|op| op.name.clone()).collect(),
        order::rounds(&ops),
    )
}

fn documents(texts: &[(&str, &str)]) -> Vec<schema::Document> {
    let texts: Vec<SourceText> = texts
        .iter()
        .map(|(file, text)| source(file, text))
        .collect();
    let (documents, problems) = read(&texts);
    assert!(problems.errors().is_empty(), "{problems:?}");
    documents
}

#[test]
fn row_23_and_24_steps_of_a_file_run_one_after_the_other() {
    for middle in [
        "[{}, {}, {}, {}]",
        "[{name: a}, {name: b}, {name: a}, {name: c}]",
    ] {
        let read = documents(&[("f", &format!("stages: {{init: {middle}}}"))]);
        // The round that upstream counts first is the one of its synthetic start.
        assert_eq!(names(&read, "init").1 + 1, 5);
    }
    let read = documents(&[("f", "stages: {init: [{}, {}]}")]);
    assert_eq!(names(&read, "init").0, ["f..0", "f..1"]);
    let read = documents(&[("f", "stages: {init: [{}]}")]);
    assert_eq!(names(&read, "init").0, ["f.0"]);
}

#[test]
fn row_25_files_run_one_after_the_other_too() {
    let file =
        |name: &str| format!("name: {name}\nstages: {{rootfs: [{{name: s1}}, {{name: s2}}]}}");
    let read = documents(&[("01", &file("f1")), ("02", &file("f2"))]);
    let (names, rounds) = names(&read, "rootfs");
    assert_eq!(names, ["f1.s1", "f1.s2", "f2.s1", "f2.s2"]);
    assert_eq!(rounds + 1, 5);
}

#[test]
fn row_19_and_20_after_moves_a_step_behind_another() {
    let plain = documents(&[
        ("01", "stages: {init: [{name: first}]}"),
        ("02", "stages: {init: [{name: second}]}"),
    ]);
    assert_eq!(names(&plain, "init").0, ["01.first", "02.second"]);
    let moved = documents(&[
        (
            "01",
            "stages: {init: [{name: first, after: [{name: test.test}]}]}",
        ),
        ("02", "name: test\nstages: {init: [{name: test}]}"),
    ]);
    assert_eq!(names(&moved, "init").0, ["test.test", "01.first"]);
}

#[test]
fn a_file_without_the_stage_does_not_break_the_chain() {
    let read = documents(&[
        ("a", "stages: {init: [{name: one}]}"),
        ("b", "stages: {install: [{name: two}]}"),
        ("c", "stages: {init: [{name: three}]}"),
    ]);
    assert_eq!(
        names(&read, "init"),
        (vec!["a.one".into(), "c.three".into()], 2)
    );
}

#[test]
fn after_is_checked() {
    refused(
        "stages:\n  init:\n    - after: [{name: nobody}]\n",
        3,
        "names no step of this stage",
    );
    refused(
        "name: d\nstages:\n  init:\n    - name: a\n      after:\n        - name: d.a\n    - {}\n",
        6,
        "waits for itself",
    );
    refused(
        "name: d\nstages:\n  init:\n    - name: a\n      after: [{name: d.b}]\n    - name: b\n",
        5,
        "in a circle",
    );
    // The name a step has when kairos-init runs it.
    let text = "stages:\n  init:\n    - name: a\n    - name: b\n      after: [{name: <STDIN>.a}]\n";
    assert_eq!(load(text).unwrap().steps(Hook::Init).len(), 2);
}

#[test]
fn conditions_come_in_the_order_they_are_tried() {
    let step = step(
        "if_files: {all: [/a]}\nonly_service_manager: SystemD\nonly_arch: amd64\nonly_os_version: '12'\nonly_os: Debian.*\nif: 'true'",
    );
    let conditions = step.extension.unwrap().conditions;
    assert!(
        matches!(
            conditions.as_slice(),
            [
                Condition::Shell { .. },
                Condition::Os { .. },
                Condition::OsVersion { .. },
                Condition::Arch { .. },
                Condition::ServiceManager { name },
                Condition::Files { .. }
            ] if name == "systemd"
        ),
        "{conditions:?}"
    );
}

#[test]
fn row_08_upgrade_alone_does_nothing() {
    let found = warned(&in_init("packages: {upgrade: true}"), 3, "`upgrade` alone");
    assert!(found.steps(Hook::Init)[0].actions.is_empty());
}

#[test]
fn plugins_run_in_the_order_of_the_dialect_and_not_of_the_file() {
    let step = step(
        "packages: {install: [x]}\nsystemctl: {enable: [u]}\nusers: {a: {lock_passwd: true}}\ncommands: ['true']\nfiles: [{path: /f, permissions: 0644}]\ndirectories: [{path: /d, permissions: 0755}]",
    );
    let lines: Vec<String> = plugins(&step)
        .iter()
        .map(|plugin| plugin.describe())
        .collect();
    assert_eq!(
        lines,
        [
            "ensure directory /d (0:0 0755)",
            "write /f (0:0 0644, 0 bytes)",
            "run true",
            "ensure users a",
            "systemctl enable u",
            "install x",
        ]
    );
}
