//! Bad usage: a clear answer, exit code 2, and the same one from every command.

use std::fs;

use super::{DEBIAN, convert, debian_base};
use crate::support::base::os_release_tar;
use crate::support::framework::stand_ins;
use crate::support::{Kfactory, world};

#[test]
fn a_value_that_names_nothing_is_a_usage_error_for_every_option() {
    let base = debian_base();
    for option in [
        "--kernel",
        "--firmware",
        "--provider",
        "--stage-extensions",
        "--model",
        "--platform",
        "--framework",
        "--compression",
        "--version",
        "--l4t",
        "--with",
        "--without",
        "--skip-step",
        "--secret",
        "--set",
        "--no-validate",
        "--creds",
        "--authfile",
        "--insecure-registry",
        "--registry-ca",
        "--store",
        "--file",
    ] {
        let version = (option != "--version").then_some("--version=v1");
        for command in ["convert", "plan", "packages"] {
            let ran = Kfactory::new([command, &base, &format!("{option}=")])
                .args(version)
                .fail(2);
            ran.tells(&["error: "]);
            assert!(!ran.says("No such file"), "{option}: {}", ran.stderr());
        }
    }
    let of_provider = ["plan", &base, "--version=v1", "--provider=k3s"];
    for option in ["--provider-k3s-version", "--provider-k3s-config"] {
        let ran = Kfactory::new(of_provider)
            .args([format!("{option}=")])
            .fail(2);
        ran.tells(&[option, "without a value", "hint: "]);
    }
}

#[test]
fn a_place_that_names_nothing_is_a_usage_error_for_every_command() {
    let base = debian_base();
    let dir = world().user_dir("refused/unpacked");
    let dir = dir.to_str().expect("UTF-8");
    for place in [
        "",
        "oci:",
        "oci::",
        "oci::v1",
        "oci-archive::v1",
        "docker-archive::x:1",
        "store:",
        "store::",
        "tar:",
        "dir:",
    ] {
        let commands: [&[&str]; 8] = [
            &["convert", place, "--version", "v1"],
            &["convert", &base, place, "--version", "v1"],
            &["plan", place, "--version", "v1"],
            &["copy", place, "oci:out-nothing"],
            &["copy", &base, place],
            &["unpack", place, dir],
            &["inspect", place],
            &["validate", place],
        ];
        for command in commands {
            Kfactory::new(command).fail(2).tells(&["error: "]);
        }
    }
    Kfactory::new(["store", "rm", ""])
        .fail(2)
        .tells(&["value is required"]);
}

#[test]
fn a_path_with_a_slip_is_answered_in_plain_words_by_every_option() {
    let base = debian_base();
    let dir = world().user_dir("refused/slips");
    fs::write(dir.join("image.tar"), "x").expect("written");
    let slip = dir.join("imaeg.tar").display().to_string();
    let near = format!("did you mean `{}`?", dir.join("image.tar").display());
    let place = |scheme: &str| format!("{scheme}:{slip}");
    let plan = |option: &str, value: &str| -> Vec<String> {
        [
            "plan",
            &base,
            "--version=v1",
            "--provider=k3s",
            option,
            value,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let mut commands = vec![
        plan("--authfile", &slip),
        plan("--registry-ca", &slip),
        plan("-f", &slip),
        plan("-x", &slip),
        plan("--secret", &format!("id=ubuntu-pro-token,src={slip}")),
        plan("--secret", &format!("id=rhsm,src={slip}")),
        plan("--framework", &place("dir")),
        plan("--framework", &place("tar")),
        plan("--framework", &place("oci")),
        plan("--kernel", &slip),
        plan("--provider-k3s-config", &slip),
        ["restore", &slip, "--ledger", &slip]
            .map(str::to_owned)
            .to_vec(),
    ];
    for scheme in ["dir", "tar", "oci", "oci-archive", "docker-archive"] {
        for command in ["inspect", "validate"] {
            commands.push(vec![command.to_owned(), place(scheme)]);
        }
        commands.push(
            ["plan", &place(scheme), "--version=v1"]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    for command in commands {
        let ran = Kfactory::new(&command)
            .store(&world().user_dir("refused/plan"))
            .fail(1);
        ran.tells(&["does not exist", &near]);
        assert!(!ran.says("os error"), "{command:?}\n{}", ran.stderr());
    }
    let ledger = format!("--ledger={}/no/ledger", dir.display());
    let unpacked = dir.join("new").display().to_string();
    let ran = Kfactory::new(["unpack", &base, &unpacked, &ledger]).fail(1);
    ran.tells(&["/no` does not exist", "hint: `mkdir -p "]);
}

#[test]
fn a_command_without_a_base_shows_its_own_usage() {
    for (command, usage) in [
        ("convert", "`kfactory convert BASE [DEST]`"),
        ("plan", "`kfactory plan BASE`"),
        ("packages", "`kfactory packages BASE`"),
    ] {
        Kfactory::new([command])
            .fail(2)
            .tells(&["no base image given", usage]);
    }
}

#[test]
fn a_recipe_that_is_no_text_is_refused_with_its_line() {
    let file = world().user_dir("refused").join("latin1.yaml");
    fs::write(&file, b"base: debian:12\nversion: v1 # \xe9\n").expect("written");
    let ran = Kfactory::new(["plan", "-f", file.to_str().expect("UTF-8")]).fail(2);
    ran.tells(&["latin1.yaml", "line 2", "not UTF-8", "hint: "]);
}

#[test]
fn a_recipe_that_is_something_else_is_told_to_be_yaml() {
    let file = world().user_dir("refused").join("no-recipe.yaml");
    for (content, what) in [
        (&b"\x7fELF\x02\x01\0\0"[..], "line 1: this is no text"),
        (b"hello world\n", "expected keys, each as `key: value`"),
        (b"{ \"base\": ", "this is no YAML"),
    ] {
        fs::write(&file, content).expect("written");
        Kfactory::new(["plan", "-f", file.to_str().expect("UTF-8")])
            .fail(2)
            .tells(&["no-recipe.yaml", what, "hint: a recipe is YAML"]);
    }
}

#[test]
fn what_no_base_can_make_right_is_said_before_one_is_looked_at() {
    for options in [
        &["--framework=go:nothing=v1"][..],
        &["--l4t=36.4"],
        &["--with=jq", "--without=jq"],
        &["--with=jq", "--skip-step=installPackages"],
        &["--with=a b"],
        &["--model=toaster"],
        &["--skip-step=nothing"],
    ] {
        for command in ["plan", "packages", "convert"] {
            let ran = Kfactory::new([command, "nowhere.invalid/x", "--version=v1"])
                .args(options)
                .store(&world().user_dir("refused/plan"))
                .fail(2);
            assert!(
                !ran.says("nowhere.invalid"),
                "{options:?}: {}",
                ran.stderr()
            );
        }
    }
}

#[test]
fn a_word_beside_a_recipe_is_the_destination_where_it_can_be_no_base() {
    let dir = world().user_dir("refused");
    let file = dir.join("based.yaml");
    fs::write(&file, "base: debian:12\n").expect("written");
    let recipe = |word: &str| {
        let file = file.to_str().expect("UTF-8");
        Kfactory::new(["convert", "--print-recipe", "-f", file, word])
    };
    let printed = recipe("oci:not-yet-there:v1.0.0").succeed().stdout;
    assert!(
        printed.contains("base: debian:12") && printed.contains("oci:not-yet-there:v1.0.0"),
        "{printed}"
    );
    let other = debian_base();
    let printed = recipe(&other).args(["--version=v1"]).succeed().stdout;
    assert!(printed.contains(&format!("base: {other}")), "{printed}");
    let ran = recipe("ghcr.io/me/os:v1.0.0").fail(2);
    ran.tells(&[
        "`ghcr.io/me/os:v1.0.0` may be meant as the base or as the destination",
        "hint: give both to write to it: `debian:12 ghcr.io/me/os:v1.0.0`",
        "hint: `--set BASE_IMAGE=ghcr.io/me/os:v1.0.0`",
    ]);
}

#[test]
fn a_plan_is_refused_where_the_conversion_would_be() {
    let base = debian_base();
    let nowhere = world().user_dir("refused").join("nowhere");
    let nowhere = nowhere.to_str().expect("UTF-8");
    let empty = world().own_dir("plan-without-binaries");
    let no_binaries = format!("dir:{}", empty.display());
    for (option, value, words) in [
        (
            "--framework",
            format!("dir:{nowhere}"),
            &["cannot get the Kairos binaries", "nowhere"][..],
        ),
        (
            "--framework",
            format!("tar:{nowhere}"),
            &["cannot get the Kairos binaries", "nowhere"],
        ),
        (
            "--framework",
            format!("oci:{nowhere}"),
            &["cannot get the Kairos binaries", "nowhere"],
        ),
        (
            "--framework",
            no_binaries,
            &["cannot get the Kairos binaries", "kairos-agent"],
        ),
        (
            "--provider-k3s-config",
            nowhere.to_owned(),
            &["configuration of provider `k3s`", "nowhere"],
        ),
    ] {
        for command in ["plan", "packages"] {
            let ran = Kfactory::new([command, &base, "--provider=k3s", option, &value])
                .args(["--version=v1"])
                .store(&world().user_dir("refused/plan"))
                .fail(1);
            ran.tells(words);
            assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        }
    }
}

#[test]
fn a_date_that_is_none_is_refused_by_every_command_that_works_on_images() {
    let tar = os_release_tar("debian", DEBIAN);
    let base = format!("tar:{}", tar.display());
    let dir = world().user_dir("refused/undated");
    let dir = dir.to_str().expect("UTF-8");
    let binaries = format!("dir:{}", stand_ins(&["usr/bin/kairos-agent"]).display());
    let commands: [&[&str]; 8] = [
        &["plan", &base, "--version=v1"],
        &["packages", &base],
        &["copy", &base, "oci:out-undated"],
        &["unpack", &base, dir],
        &["inspect", &base],
        &["validate", &base],
        &["parity", &base, "--against", &base],
        &[
            "framework",
            "build",
            "--framework",
            &binaries,
            "-o",
            "oci:out-undated",
        ],
    ];
    let (_, conversion) = convert(&base, "oci:out-undated:v1.0.0");
    let runs = commands
        .iter()
        .map(|command| Kfactory::new(*command))
        .chain([conversion]);
    for run in runs {
        let ran = run.env("SOURCE_DATE_EPOCH", "yesterday").fail(2);
        ran.tells(&["SOURCE_DATE_EPOCH is `yesterday`"]);
    }
}
