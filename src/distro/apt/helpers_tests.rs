//! dpkg's helpers against the programs they stand for.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use super::{HELPER_NAMES, HELPERS, deb};

/// The helpers under their names, and a package that the real tools built; nothing where one of them is not to be had.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    #[allow(clippy::print_stdout, reason = "a test that stays away says so")]
    fn new() -> Option<Self> {
        if HELPERS.is_empty() {
            println!("skipped: no static program can be linked here");
            return None;
        }
        if Command::new("dpkg-deb").arg("--version").output().is_err() {
            println!("skipped: dpkg-deb is not installed");
            return None;
        }
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for name in HELPER_NAMES {
            fs::write(bench.at(name), HELPERS).unwrap();
            set_mode(&bench.at(name), 0o755);
        }
        bench.build_package();
        Some(bench)
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Builds `compressed.deb`, and from it `plain.deb`.
    fn build_package(&self) {
        let tree = self.at("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("usr/share/large")).unwrap();
        let control = "Package: large\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example.org>\nDescription: d\n";
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join("DEBIAN/postinst"), "#!/bin/sh\n").unwrap();
        set_mode(&tree.join("DEBIAN/postinst"), 0o755);
        // More than a pipe holds, and of an odd size.
        fs::write(tree.join("usr/share/large/file"), vec![b'x'; 300_001]).unwrap();
        let build = ["--root-owner-group", "--build", "tree", "compressed.deb"];
        assert!(self.run("dpkg-deb", &build).status.success());
        let mut plain = File::create(self.at("plain.deb")).unwrap();
        deb::decompress(File::open(self.at("compressed.deb")).unwrap(), &mut plain).unwrap();
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(words).current_dir(self.dir.path());
        command.output().unwrap()
    }

    /// Runs the helper and the program it stands for, which must answer the same, and returns that answer.
    fn both(&self, name: &str, words: &[&str]) -> Output {
        let (ours, theirs) = (self.run(self.at(name), words), self.run(name, words));
        assert_eq!(ours, theirs, "{name} {words:?}");
        ours
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Names, modes, times and contents of what a directory holds.
fn listing(dir: &Path) -> Vec<(std::ffi::OsString, u32, std::time::SystemTime, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        .map(|entry| {
            let (meta, content) = (entry.metadata().unwrap(), fs::read(entry.path()).unwrap());
            let modified = meta.modified().unwrap();
            (
                entry.file_name(),
                meta.permissions().mode(),
                modified,
                content,
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn control_files_are_those_that_dpkg_deb_unpacks() {
    let Some(bench) = Bench::new() else { return };
    for package in ["plain.deb", "compressed.deb"] {
        for (program, dir) in [
            (bench.at("dpkg-deb"), "ours"),
            ("dpkg-deb".into(), "theirs"),
        ] {
            let output = bench.run(program, &["--control", package, dir]);
            assert!(output.status.success(), "{output:?}");
        }
        let ours = listing(&bench.at("ours"));
        assert_eq!(ours, listing(&bench.at("theirs")));
        assert_eq!(ours.len(), 2);
        for dir in ["ours", "theirs"] {
            fs::remove_dir_all(bench.at(dir)).unwrap();
        }
    }
}

#[test]
fn files_are_the_bytes_that_dpkg_deb_prints() {
    let Some(bench) = Bench::new() else { return };
    let plain = bench.both("dpkg-deb", &["--fsys-tarfile", "plain.deb"]);
    assert!(plain.stdout.len() > 300_001);
    let output = bench.run(bench.at("dpkg-deb"), &["--fsys-tarfile", "compressed.deb"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn every_other_question_is_answered_by_the_program_itself() {
    let Some(bench) = Bench::new() else { return };
    fs::write(bench.at("nonsense"), "nonsense").unwrap();
    let cut = fs::read(bench.at("plain.deb")).unwrap();
    fs::write(bench.at("cut.deb"), &cut[..cut.len() / 2]).unwrap();
    for words in [
        &["--field", "plain.deb", "Version"][..],
        &["--contents", "plain.deb"],
        &["--control", "plain.deb", "tree"],
        &["--control", "nonsense", "out"],
        &["--fsys-tarfile", "nonsense"],
        &["--fsys-tarfile", "absent.deb"],
        &["--no-such-option"],
    ] {
        bench.both("dpkg-deb", words);
    }
    let cut = bench.run(bench.at("dpkg-deb"), &["--fsys-tarfile", "cut.deb"]);
    assert_eq!(cut.status.code(), Some(2));
}

#[test]
fn a_part_of_an_archive_is_recognized_as_one() {
    let Some(bench) = Bench::new() else { return };
    let split = ["-S", "100", "--split", "plain.deb", "part"];
    assert!(bench.run("dpkg-split", &split).status.success());
    let asked = |archive| {
        bench
            .both("dpkg-split", &["-Qao", "whole.deb", archive])
            .status
            .code()
    };
    assert_eq!(asked("plain.deb"), Some(1));
    assert_eq!(asked("compressed.deb"), Some(1));
    assert_eq!(asked("absent.deb"), Some(2));
    let part = bench.run(bench.at("dpkg-split"), &["--info", "part.1of4.deb"]);
    assert!(part.status.success(), "{part:?}");
}

#[test]
fn a_helper_knows_itself_under_any_name() {
    use std::os::unix::process::CommandExt as _;
    let Some(bench) = Bench::new() else { return };
    for words in [
        &["--fsys-tarfile", "plain.deb"][..],
        &["--field", "plain.deb"],
    ] {
        let mut command = Command::new(bench.at("dpkg-deb"));
        command
            .arg0("other")
            .args(words)
            .current_dir(bench.dir.path());
        let output = command.output().unwrap();
        assert_eq!(output, bench.run("dpkg-deb", words));
    }
}
