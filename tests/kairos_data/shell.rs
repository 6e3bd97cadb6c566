//! Every shell text of the cloud-configs is sound POSIX sh, and calls the agent by its path.

use std::process::Command;

use kfactory::kairos::{dracut, files};
use tempfile::TempDir;

use crate::support::{PLAIN, available, steps, strings};

/// What shellcheck cannot know: openrc-run and release files assign and read variables elsewhere.
const NOT_FOR_SNIPPETS: &str = "--exclude=SC2034,SC1090,SC1091,SC2154";

/// A shell text and where it stands.
struct Snippet {
    place: String,
    text: String,
}

fn snippets() -> Vec<Snippet> {
    let mut snippets = Vec::new();
    let mut add = |place: String, text: &str| {
        snippets.push(Snippet {
            place,
            text: text.to_owned(),
        })
    };
    for (file, stage, step) in steps() {
        let place = format!("{file} {stage} {}", step["name"]);
        if let Some(condition) = step["if"].as_str() {
            add(format!("{place} if"), condition);
        }
        for command in strings(&step["commands"]) {
            add(format!("{place} command"), command);
        }
        for item in step["files"].as_array().into_iter().flatten() {
            let content = item["content"].as_str().expect("content");
            let path = item["path"].as_str().expect("a path");
            if content.starts_with("#!") || path.ends_with(".sh") {
                add(format!("{place} {path}"), content);
            }
        }
    }
    for file in files::miscellaneous_files() {
        if file.content.starts_with("#!") {
            add(file.path.into_owned(), &file.content);
        }
    }
    snippets
}

#[test]
fn every_shell_text_parses_in_every_shell_that_may_run_it() {
    for shell in [
        &["sh"][..],
        &["dash"],
        &["busybox", "sh"],
        &["bash", "--posix"],
    ] {
        if !available(shell[0]) {
            continue;
        }
        for snippet in snippets() {
            let output = Command::new(shell[0])
                .args(&shell[1..])
                .args(["-n", "-c", &snippet.text])
                .output()
                .expect("a shell");
            assert!(
                output.status.success(),
                "{}: {}",
                snippet.place,
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

#[test]
fn shellcheck_finds_nothing() {
    if !available("shellcheck") {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let mut files = Vec::new();
    for (index, snippet) in snippets().iter().enumerate() {
        let path = dir.path().join(index.to_string());
        std::fs::write(&path, format!("{}\n# {}\n", snippet.text, snippet.place)).expect("a file");
        files.push(path);
    }
    let output = Command::new("shellcheck")
        .args(["-s", "sh", NOT_FOR_SNIPPETS])
        .args(files)
        .output()
        .expect("shellcheck");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn conditions_do_without_what_dash_lacks() {
    for snippet in snippets() {
        for foreign in ["[[", " == ", "=~", "function ", "$'", "<<<", "&>"] {
            assert!(
                !snippet.text.contains(foreign),
                "{} has {foreign:?}",
                snippet.place
            );
        }
    }
}

#[test]
fn the_agent_is_called_by_its_path() {
    let subcommands = [
        "run-stage",
        "start",
        "notify",
        "state",
        "install",
        "interactive-install",
        "reset",
        "recovery",
        "webui",
        "upgrade",
    ];
    let mut calls = 0;
    for (file, stage, step) in steps() {
        let text = step.to_string();
        for (at, _) in text.match_indices("kairos-agent ") {
            let called = subcommands
                .iter()
                .any(|it| text[at + "kairos-agent ".len()..].starts_with(it));
            let told = text[..at].ends_with(['\'', ' ']);
            let path = text[..at].ends_with("/usr/bin/");
            assert!(
                path || told || !called,
                "{file} {stage} {}: {}",
                step["name"],
                &text[at.saturating_sub(40)..at + 30]
            );
            calls += usize::from(path);
        }
        assert!(
            !text.contains("/usr/sbin/kairos-agent")
                && !text.contains("/usr/local/bin/kairos-agent"),
            "{file}"
        );
    }
    assert!(calls > 20, "the pattern no longer finds the calls");
}

#[test]
fn the_scripts_of_the_dracut_module_pass_shellcheck() {
    let dir = TempDir::new().expect("a directory");
    for file in dracut::dracut_files(&PLAIN)
        .iter()
        .filter(|file| file.path.ends_with(".sh"))
    {
        let path = dir.path().join("script");
        std::fs::write(&path, file.content.as_bytes()).expect("a file");
        let shell = if file.content.starts_with("#!/bin/bash") {
            "bash"
        } else {
            "sh"
        };
        let parsed = Command::new(shell)
            .arg("-n")
            .arg(&path)
            .status()
            .expect("a shell");
        assert!(parsed.success(), "{}", file.path);
        if available("shellcheck") {
            let output = Command::new("shellcheck")
                .args(["-s", shell])
                .arg(&path)
                .output()
                .expect("shellcheck");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}
