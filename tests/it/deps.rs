//! The direction of dependencies, and where unsafe code may be.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::run;

/// Returns every crate that `package` is built from, itself excluded.
fn dependencies(package: &str) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--offline",
        "--locked",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{lib} {p}",
        "--package",
        package,
    ]);
    let text = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    let crates = text.lines().skip(1).filter_map(|line| {
        line.trim()
            .split(' ')
            .find(|word| !word.is_empty() && !word.contains('_'))
    });
    let mut names: Vec<String> = crates.map(str::to_owned).collect();
    let more = text
        .lines()
        .skip(1)
        .flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    names.extend(more);
    names
}

#[test]
fn layers_and_sandbox_know_neither_each_other_nor_the_product() {
    for (package, others) in [
        (
            "kfactory-layers",
            &[
                "kfactory",
                "kfactory-sandbox",
                "tokio",
                "reqwest",
                "hyper",
                "clap",
                "indicatif",
            ][..],
        ),
        (
            "kfactory-sandbox",
            &[
                "kfactory",
                "kfactory-layers",
                "tokio",
                "reqwest",
                "hyper",
                "clap",
                "indicatif",
                "oci-spec",
            ][..],
        ),
    ] {
        let found = dependencies(package);
        assert!(
            found.iter().any(|name| name == "rustix"),
            "cargo tree says {found:?}"
        );
        for other in others {
            assert!(
                !found.iter().any(|name| name == other),
                "{package} depends on {other}"
            );
        }
    }
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = walkdir::WalkDir::new(top)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok);
    let paths = entries
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    paths
        .map(|path| {
            (
                path.clone(),
                std::fs::read_to_string(path).expect("our source"),
            )
        })
        .collect()
}

#[test]
fn unsafe_code_is_in_one_file_only() {
    for lib in ["src/lib.rs", "layers/src/lib.rs"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(lib))
            .expect("our source");
        assert!(
            text.contains("#![forbid(unsafe_code)]"),
            "{lib} does not forbid unsafe code"
        );
    }
    for dir in ["src", "layers/src", "sandbox/src"] {
        for (path, text) in sources(dir) {
            let is_home = path.ends_with("sandbox/src/sys.rs")
                || path
                    .parent()
                    .is_some_and(|dir| dir.ends_with("sandbox/src/sys"));
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let found = code
                .filter(|line| {
                    ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]
                        .iter()
                        .any(|word| line.contains(word))
                })
                .count();
            assert!(is_home || found == 0, "unsafe code in {}", path.display());
        }
    }
}

#[test]
fn every_file_opens_with_its_job() {
    for dir in ["src", "layers/src", "sandbox/src", "tests/it"] {
        for (path, text) in sources(dir) {
            assert!(
                text.starts_with("//!"),
                "{} does not say what it is for",
                path.display()
            );
        }
    }
}
