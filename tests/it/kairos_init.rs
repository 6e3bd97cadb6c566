//! The program under the name of kairos-init.

use crate::support::base::os_release_tar;
use crate::support::{Kfactory, need, run, world};

const DEBIAN: &str =
    "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";

/// Prepares a run of the program, called as a Dockerfile calls it.
fn kairos_init<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Kfactory {
    Kfactory::as_caller(arguments).wrapped_by(&[
        "bash",
        "-c",
        "exec -a /kairos-init \"$@\"",
        "bash",
    ])
}

#[test]
fn its_name_decides_which_command_line_it_understands() {
    let text = kairos_init(["version"]).succeed().stdout;
    for word in ["kairos-init version v", "kairos-agent: v", "immucore: v"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let text = kairos_init(["steps-info"]).succeed().stdout;
    assert!(text.contains("installPackages"), "{text}");
    kairos_init(["convert", "debian:12"])
        .fail(2)
        .tells(&["unrecognized subcommand"]);
}

#[test]
fn a_dry_run_prints_the_steps_and_changes_nothing() {
    if !need(&["tar"]) {
        return;
    }
    let tar = os_release_tar("kairos-init-dry", DEBIAN);
    let tree = world().own_dir("kairos-init-dry");
    run(std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-xf")
        .arg(&tar));
    let names = || std::fs::read_dir(&tree).expect("there").count();
    let before = names();
    let root = tree.to_str().expect("UTF-8");
    let words = ["--dry-run", "--root", root, "-t", "false", "-m", "generic"];
    let ran = kairos_init(words).args(["--version", "v1.0.0"]).succeed();
    assert!(
        ran.stdout.contains("stages:") && ran.stdout.contains("installPackages"),
        "{}",
        ran.stdout
    );
    assert_eq!(names(), before);
}
