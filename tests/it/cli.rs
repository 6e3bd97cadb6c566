//! Commands that need no conversion: help, recipes, refusals, completions, manual pages, doctor.

use crate::support::{Kfactory, world};

fn kfactory(arguments: &[&str]) -> Kfactory {
    Kfactory::new(arguments).store(&world().user_dir("cli-store"))
}

#[test]
fn every_command_has_help_with_an_explanation_of_each_option() {
    let commands = [
        "convert",
        "plan",
        "copy",
        "unpack",
        "restore",
        "inspect",
        "validate",
        "parity",
        "steps-info",
        "framework build",
        "store ls",
        "store gc",
        "doctor",
        "completions",
        "man",
    ];
    for command in commands {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let text = kfactory(&arguments).succeed().stdout;
        assert!(text.contains("Usage: kfactory"), "{command}: {text}");
        let lines: Vec<&str> = text.lines().collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
            let bare = line.trim_start().starts_with("--")
                && !line.trim().contains("  ")
                && !next.starts_with("          ");
            assert!(!bare, "{command}: `{line}` is not explained");
        }
    }
}

#[test]
fn the_main_commands_show_examples_that_parse() {
    for command in [
        "convert",
        "plan",
        "copy",
        "unpack",
        "restore",
        "inspect",
        "validate",
        "parity",
        "framework build",
    ] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let text = kfactory(&arguments).succeed().stdout;
        let (_, examples) = text.split_once("Examples:").expect(command);
        let lines = examples
            .lines()
            .filter_map(|line| line.strip_prefix("  kfactory "));
        let mut count = 0;
        for line in lines {
            count += 1;
            let words = line
                .split([';', '>', '|'])
                .next()
                .unwrap_or(line)
                .split_whitespace();
            // `--help` at the end: the rest has been understood, and nothing is done.
            kfactory(&words.chain(["--help"]).collect::<Vec<_>>()).succeed();
        }
        assert!(count >= 2, "{command}: {text}");
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_grammar() {
    for shell in ["bash", "zsh", "fish"] {
        let text = kfactory(&["completions", shell]).succeed().stdout;
        assert!(
            text.contains("kfactory") && text.contains("print-recipe"),
            "{shell}"
        );
    }
    assert!(
        kfactory(&["man"]).succeed().stdout.starts_with(".ie"),
        "roff"
    );
    let dir = world().user_dir("man");
    kfactory(&["man", "--dir", dir.to_str().expect("UTF-8")]).succeed();
    for (page, sections) in [
        ("kfactory.1", &["NAME", "ENVIRONMENT", "EXIT STATUS"][..]),
        ("kfactory-convert.1", &["OPTIONS", "EXAMPLES", "SEE ALSO"]),
        ("kfactory-store-gc.1", &["SYNOPSIS", "SEE ALSO"]),
    ] {
        let text = std::fs::read_to_string(dir.join(page)).expect(page);
        for section in sections {
            let heading = text
                .lines()
                .filter_map(|line| line.strip_prefix(".SH "))
                .any(|name| name.trim_matches('"') == *section);
            assert!(heading, "{page} has no section {section}");
        }
    }
}

#[test]
fn the_steps_are_listed_with_their_phase() {
    let text = kfactory(&["steps-info"]).succeed().stdout;
    for step in [
        "installPackages",
        "kernel ",
        "initrd",
        "cloudconfigs",
        "cleanup",
    ] {
        assert!(text.contains(step), "{text}");
    }
}

#[test]
fn a_recipe_makes_the_same_request_as_the_options_it_came_from() {
    let options = [
        "convert",
        "--print-recipe",
        "debian:12",
        "oci:out:v1.2.3",
        "oci-archive:out.tar:v1.2.3",
        "--stage",
        "install",
        "--skip-steps",
        "branding,grub",
        "--skip-step",
        "cleanup",
        "--layers",
        "step",
        "--compression",
        "zstd:5",
        "--network",
        "none",
        "--no-validate=kernel-single,size-disk",
        "--framework",
        "dir:/somewhere",
        "--platform",
        "linux/arm64",
    ];
    let recipe = kfactory(&options).succeed().stdout;
    let file = world().user_dir("recipes").join("recipe.yaml");
    std::fs::write(&file, &recipe).expect("written");
    let again = kfactory(&[
        "convert",
        "--print-recipe",
        "-f",
        file.to_str().expect("UTF-8"),
    ])
    .succeed()
    .stdout;
    assert_eq!(again, recipe);
    let changed = kfactory(&[
        "convert",
        "--print-recipe",
        "-f",
        file.to_str().expect("UTF-8"),
        "--compression",
        "gzip",
    ])
    .succeed()
    .stdout;
    assert!(
        changed.contains("gzip") && !changed.contains("zstd"),
        "an option wins over the recipe: {changed}"
    );
}

#[test]
fn a_recipe_with_a_mistake_is_refused_with_its_place() {
    let file = world().user_dir("recipes").join("bad.yaml");
    std::fs::write(&file, "base: debian:12\nvresion: v1\n").expect("written");
    let ran = kfactory(&["convert", "-f", file.to_str().expect("UTF-8")]).fail(2);
    ran.tells(&["error: cannot read recipe", "bad.yaml", "vresion", "2"]);
}

#[test]
fn mistakes_on_the_command_line_are_usage_errors() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["convert"], &["no base image given"]),
        (
            &["convert", "debian:12", "oci:out"],
            &["needs a version", "--version", "as its tag"],
        ),
        (
            &["convert", "debian:12", "oci:out:latest"],
            &["`latest`", "--version"],
        ),
        (
            &["convert", "debian:12", "oci:out", "--version", "1.0.0rc1"],
            &["`1.0.0rc1`", "v1.2.3"],
        ),
        (
            &["convert", "debian:12", "oci:out", "--version", "latest"],
            &["`latest`"],
        ),
        (
            &["convert", "debian:12", "dir:out", "--version", "v1.0.0"],
            &["`dir:out` cannot be a destination"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--skip-step",
                "pakages",
            ],
            &["unknown step `pakages`", "installPackages"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--compression",
                "lzma",
            ],
            &["lzma", "zstd"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--framework",
                "go:imucore=v1.0.0",
            ],
            &["imucore", "immucore"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--model",
                "toaster",
            ],
            &["toaster", "generic"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--creds",
                "secret",
            ],
            &["`--creds`", "USER:PASSWORD"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1.0.0",
                "--platform",
                "linux",
            ],
            &["linux"],
        ),
        (
            &["plan", "debian:12", "--no-cache"],
            &["unexpected argument '--no-cache'"],
        ),
        (
            &[
                "convert",
                "debian:12",
                "oci:out:v1",
                "--skip-step",
                "initrrd",
            ],
            &["unknown step `initrrd`", "hint: did you mean `initrd`?"],
        ),
        (
            &["plan", "Debian:12", "--version", "v1.0.0"],
            &["cannot read `Debian:12`"],
        ),
        (
            &["copy", "oci:a", "tar:b"],
            &["`tar:b` cannot be a destination"],
        ),
    ];
    for (arguments, words) in cases {
        let ran = kfactory(arguments).fail(2);
        ran.tells(&["error: "]);
        ran.tells(words);
        assert!(
            !ran.stderr().contains("secret"),
            "a password in:\n{}",
            ran.stderr()
        );
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    }
}

#[test]
fn errors_are_json_objects_where_progress_is() {
    let ran = kfactory(&["convert", "debian:12", "oci:out", "--progress", "json"]).fail(2);
    let error: serde_json::Value =
        serde_json::from_str(ran.stderr().trim()).expect("one JSON object");
    assert_eq!(error["kind"], "usage");
    assert!(
        error["hints"]
            .as_array()
            .is_some_and(|hints| hints.len() == 2),
        "{error}"
    );
}

#[test]
fn looking_at_a_store_that_is_not_there_makes_none() {
    let dir = world().user_dir("looks").join("none");
    for command in ["ls", "gc"] {
        let text = Kfactory::new(["store", command])
            .store(&dir)
            .succeed()
            .stdout;
        assert!(
            text.starts_with("there is no store in "),
            "{command}: {text}"
        );
        assert!(!dir.exists(), "{command}");
    }
}

#[test]
fn doctor_leaves_no_directory_behind() {
    let dir = world().user_dir("doctor-home");
    Kfactory::new(["doctor"])
        .store(&dir.join("share/kfactory"))
        .run();
    assert_eq!(std::fs::read_dir(&dir).expect("there").count(), 0);
}

#[test]
fn doctor_finds_what_a_conversion_needs() {
    let text = kfactory(&["doctor"]).run().stdout;
    for word in ["bwrap", "overlayfs", "free in", "conversions can"] {
        assert!(
            text.to_lowercase().contains(word),
            "no {word:?} in:\n{text}"
        );
    }
    let ran = kfactory(&["doctor", "--json"]).run();
    let findings: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    for finding in findings.as_array().expect("a list") {
        let well = finding["level"] == "ok" || finding["remedy"].is_string();
        assert!(well, "no remedy: {finding}");
    }
}
