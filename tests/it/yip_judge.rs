//! Upstream's executor does the same steps to the same root, and the trees are compared.
//!
//! A row is a file, or a directory of files, in `testdata/yip/judge/rows`. Its comments say what is meant to differ: `# differs:
//! PATH: REASON`, or `# refused: REASON` for what upstream takes and we do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::extended::{Rig, rig};
use crate::support::tools::find;
use crate::support::tree::{Listing, Tree};
use crate::support::user::is_root;
use crate::support::world::cache_dir;
use crate::support::{need, run, skipped, world};

const STAGES: [&str; 6] = [
    "before-install",
    "install",
    "after-install",
    "before-init",
    "init",
    "after-init",
];

#[test]
fn upstreams_executor_makes_the_same_trees() {
    if std::env::var_os("KFACTORY_TEST_GO").is_none() {
        return skipped("KFACTORY_TEST_GO is not set, so upstream's executor is not built");
    }
    if !need(&["go", "tar", "bwrap"]) {
        return;
    }
    if !is_root() {
        return skipped("only root can compare owners");
    }
    let rig = rig!("judged");
    let judge = build();
    let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/yip/judge/rows");
    let mut wrong = Vec::new();
    for row in entries(&rows) {
        wrong.extend(judged(&rig, &judge, &row));
    }
    assert!(wrong.is_empty(), "ours | upstream\n{}", wrong.join("\n"));
}

/// Builds the executor, which Go's own cache makes quick the second time.
fn build() -> PathBuf {
    let program = cache_dir().join("yip-judge");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/yip/judge");
    let go = find("go").expect("looked for");
    run(Command::new(go)
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(source)
        .env("CGO_ENABLED", "0"));
    program
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("in the repository");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths
}

/// Does one row on both sides, and returns what is not as it should be.
fn judged(rig: &Rig, judge: &Path, row: &Path) -> Vec<String> {
    for old in entries(&rig.dir) {
        fs::remove_file(old).expect("ours");
    }
    let files = match row.is_dir() {
        true => entries(row),
        false => vec![row.to_owned()],
    };
    let mut text = String::new();
    for file in &files {
        let name = file.file_name().expect("a file").to_string_lossy();
        let content = fs::read_to_string(file).expect("text");
        rig.file(&name, &content);
        text.push_str(&content);
    }
    let name = row.file_name().expect("a name").to_string_lossy();
    let said = |mark: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(mark));
        let words = lines.filter_map(|line| line.split(':').next());
        words.map(|word| word.trim().to_owned()).collect()
    };
    let theirs = upstream(rig, judge, &name);
    if !said("# refused:").is_empty() {
        rig.convert().fail(2);
        return Vec::new();
    }
    let ours = compared(&rig.made().1);
    let found = differing(&ours, &theirs);
    let expected = said("# differs:");
    let mut wrong: Vec<String> = found
        .iter()
        .filter(|(path, _)| !expected.contains(path))
        .map(|(path, lines)| format!("{name}: {path}: {lines}"))
        .collect();
    let stale = expected
        .iter()
        .filter(|path| !found.iter().any(|(found, _)| found == *path));
    wrong.extend(stale.map(|path| format!("{name}: {path} does not differ any more")));
    wrong
}

/// Runs upstream's executor in the base and returns what it made of it; that it may fail shows in the tree.
fn upstream(rig: &Rig, judge: &Path, name: &str) -> Listing {
    let dir = world().own_dir(&format!("judged-{name}"));
    let tar = rig.base.strip_prefix("tar:").expect("a tar file");
    run(Command::new("tar").arg("-C").arg(&dir).args(["-xpf", tar]));
    let output = Command::new("bwrap")
        .arg("--bind")
        .arg(&dir)
        .args(["/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"])
        .arg("--ro-bind")
        .arg(&rig.dir)
        .args(["/run/rows", "--ro-bind"])
        .arg(judge)
        .args(["/run/judge", "--unshare-uts", "--hostname", "localhost"])
        .args(["--unshare-pid", "--cap-add", "ALL", "--clearenv"])
        .args(["--setenv", "PATH", "/usr/bin:/bin", "--chdir", "/"])
        .args(["/run/judge", "/run/rows"])
        .args(STAGES)
        .output()
        .expect("bwrap starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !said.contains("bwrap: ") && !said.contains("panic"),
        "{said}"
    );
    compared(&Tree::new(dir))
}

/// The day of the base's own passwords; later ones are the day of the run.
const LAST_DAY: u32 = 19_000;

/// Lists a tree without times, days of password changes, and what only one side mounts.
fn compared(tree: &Tree) -> Listing {
    let undated = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.get(2).and_then(|day| day.parse().ok()) > Some(LAST_DAY) {
            fields[2] = "today";
        }
        fields.join(":")
    };
    let lines: Vec<String> = tree.read("etc/shadow").lines().map(undated).collect();
    fs::write(tree.dir.join("etc/shadow"), lines.join("\n")).expect("ours");
    let listing = tree.listing();
    let mounted = ["proc", "dev", "run"];
    let kept = listing
        .into_iter()
        .filter(|(path, _)| !mounted.iter().any(|dir| path.starts_with(dir)));
    kept.map(|(path, line)| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.remove(2);
        (path, words.join(" "))
    })
    .collect()
}

fn differing(ours: &Listing, theirs: &Listing) -> Vec<(String, String)> {
    let paths: std::collections::BTreeSet<&PathBuf> = ours.keys().chain(theirs.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path));
    differ
        .map(|path| {
            let show = |side: &Listing| {
                side.get(path)
                    .map_or("(missing)", String::as_str)
                    .to_owned()
            };
            let lines = format!("{} | {}", show(ours), show(theirs));
            (path.display().to_string(), lines)
        })
        .collect()
}
