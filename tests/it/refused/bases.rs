//! Bases that are not what they should be, and versions that are none.

use super::{DEBIAN, debian_base};
use super::{convert, nothing_made, refuse};
use crate::support::base::{os_release_tar, shell_tar, small_tar};
use crate::support::{Kfactory, need, run, world};

#[test]
fn a_base_that_cannot_be_recognised_is_refused_with_what_is_known() {
    let nothing = small_tar("nothing", &[("etc/motd", 0o644, "hello\n")]);
    let strange = os_release_tar("strange", "ID=templeos\nNAME=TempleOS\n");
    for (tar, words) in [
        (
            nothing,
            &[
                "no /etc/os-release",
                "hint: known distributions",
                "debian, ubuntu",
            ][..],
        ),
        (
            strange,
            &[
                "unknown distribution \"templeos\"",
                "hint: known distributions",
                "debian, ubuntu",
            ][..],
        ),
    ] {
        let base = format!("tar:{}", tar.display());
        refuse(&base, "oci:out-strange:v1.0.0", words);
        let plan = Kfactory::new(["plan", &base, "--version", "v1.0.0"])
            .store(&world().user_dir("refused/plan"));
        plan.fail(1).tells(words);
    }
}

#[test]
fn an_os_release_that_cannot_be_used_is_named_with_its_base() {
    let dir = world().user_dir("os-release");
    let file = dir.join("tree/etc/os-release");
    world()
        .user
        .make_dir(file.parent().expect("below the tree"));
    let base = format!("dir:{}", dir.join("tree").display());
    let is_named = |words: &[&str]| {
        let store = world().user_dir("refused/os-release");
        let ran = Kfactory::new(["plan", &base, "--version", "v1.0.0"]).store(&store);
        let ran = ran.fail(1);
        ran.tells(words);
        ran.tells(&[
            &format!("cannot convert `{base}`"),
            "/etc/os-release cannot be used",
            "hint: known distributions",
        ]);
    };
    std::os::unix::fs::symlink("os-release", &file).expect("made");
    is_named(&["Too many levels of symbolic links"]);
    std::fs::remove_file(&file).expect("there");
    std::fs::create_dir(&file).expect("made");
    is_named(&["is not a regular file"]);
    std::fs::remove_dir(&file).expect("there");
    std::fs::write(&file, "#".repeat(1 << 20)).expect("written");
    is_named(&["is larger than 65536 bytes"]);
    let tar = dir.join("large.tar");
    run(std::process::Command::new("tar")
        .arg("-C")
        .arg(dir.join("tree"))
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    let words = [
        "/etc/os-release cannot be used",
        "is larger than",
        "known distributions",
    ];
    let base = format!("tar:{}", tar.display());
    Kfactory::new(["plan", &base, "--version", "v1.0.0"])
        .store(&world().user_dir("refused/os-release"))
        .fail(1)
        .tells(&words);
}

#[test]
fn a_base_without_its_package_manager_is_named_before_any_step() {
    if !need(&["bwrap", "newuidmap"]) {
        return;
    }
    let base = debian_base();
    let words = [
        &*format!("cannot convert `{base}`"),
        "has no package manager",
        "looked for /usr/bin/apt-get",
        "hint: ",
    ];
    let ran = refuse(&base, "oci:out-managerless:v1.0.0", &words);
    assert!(!ran.says(": started"), "{}", ran.stderr());
}

#[test]
fn a_bad_version_is_refused_before_anything_is_pulled() {
    for version in ["latest", "1.0.0rc1", "1.0.0_1", "v1.0.0-01", ""] {
        let (_, program) = convert("127.0.0.1:1/debian:12", "oci:out-version:v1.0.0");
        let ran = program.args(["--version", version]).run();
        assert_eq!(ran.code, Some(2), "{version}: {}", ran.stderr());
        ran.tells(&[&format!("`{version}`"), "hint: "]);
        assert!(!ran.says("127.0.0.1:1"), "{}", ran.stderr());
    }
}

#[test]
fn a_base_for_another_machine_is_named_before_anything_runs() {
    if !need(&["bwrap", "newuidmap"]) {
        return;
    }
    let Some(tar) = shell_tar("machine", &[("etc/os-release", 0o644, DEBIAN)]) else {
        return;
    };
    let (here, other) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        "riscv64" => ("riscv64", "amd64"),
        _ => ("amd64", "arm64"),
    };
    let (store, program) = convert(&format!("tar:{}", tar.display()), "oci:out-machine:v1.0.0");
    let platform = format!("linux/{other}");
    let ran = program.args(["--platform", &platform]).fail(1);
    let words = [
        &*format!("/bin/sh is a program for {here}, not for linux/{other}"),
        &format!("hint: `--platform linux/{here}`"),
    ];
    ran.tells(&words);
    assert!(!ran.says(": started"), "{}", ran.stderr());
    nothing_made(&store);
    let tree = tar.with_extension("");
    for base in [
        format!("tar:{}", tar.display()),
        format!("dir:{}", tree.display()),
    ] {
        for command in ["plan", "packages"] {
            let ran = Kfactory::new([command, &base, "--version=v1", "--platform", &platform])
                .store(&world().user_dir("refused/plan"))
                .fail(1);
            ran.tells(&words);
            assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        }
    }
}

#[test]
fn a_root_filesystem_that_was_cut_off_or_is_empty_is_refused_and_named() {
    let whole = std::fs::read(os_release_tar("debian", DEBIAN)).expect("readable");
    // Entries end where the two blocks of zeros begin.
    let entries = whole.len() - whole.iter().rev().take_while(|byte| **byte == 0).count();
    let entries = entries.next_multiple_of(512);
    let dir = world().own_dir("bases/cut");
    for (name, length, words) in [
        ("empty.tar", 0, &["the archive holds nothing"][..]),
        ("inside.tar", entries - 100, &["ends inside an entry"]),
        (
            "between.tar",
            entries,
            &["no end mark", "cut off", "hint: "],
        ),
    ] {
        let file = dir.join(name);
        std::fs::write(&file, &whole[..length]).expect("written");
        let base = format!("tar:{}", file.display());
        refuse(&base, "oci:out-cut:v1.0.0", &[words, &[name]].concat());
        let store = world().user_dir("refused/cut");
        let ran = Kfactory::new(["copy", &base, "oci:out-cut"])
            .store(&store)
            .fail(1);
        ran.tells(&[words, &[name]].concat());
    }
}

#[test]
fn a_fifo_is_refused_at_once_and_a_stream_is_read() {
    let dir = world().user_dir("fifo");
    let fifo = dir.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).expect("made");
    // The umask took some of it.
    rustix::fs::chmod(&fifo, mode).expect("ours");
    let shown = fifo.display();
    let good = debian_base();
    let store = dir.join("store");
    let commands = [
        vec!["copy".into(), format!("tar:{shown}"), "store:x".into()],
        vec![
            "copy".into(),
            format!("oci-archive:{shown}"),
            "store:x".into(),
        ],
        vec![
            "copy".into(),
            format!("docker-archive:{shown}"),
            "store:x".into(),
        ],
        vec!["copy".into(), good.clone(), format!("oci-archive:{shown}")],
        vec!["plan".into(), "-f".into(), shown.to_string()],
        vec!["plan".into(), good.clone(), format!("--kernel={shown}")],
    ];
    for command in commands {
        let ran = Kfactory::new(&command).store(&store).run();
        assert!(
            matches!(ran.code, Some(1 | 2)),
            "{command:?}: {:?}",
            ran.code
        );
        ran.tells(&["is a FIFO, not a file", &shown.to_string()]);
    }
    let tree = dir.join("tree");
    Kfactory::new(["unpack", &good, tree.to_str().expect("UTF-8"), "--ledger"])
        .args([&fifo])
        .store(&store)
        .fail(1)
        .tells(&["it is a FIFO that nobody reads"]);
    let pipe = format!("cat {} | \"$@\"", good.trim_start_matches("tar:"));
    Kfactory::as_caller(["copy", "tar:/dev/stdin", "store:piped"])
        .store(&world().own_dir("fifo-store"))
        .wrapped_by(&["sh", "-c", &pipe, "sh"])
        .succeed();
}
