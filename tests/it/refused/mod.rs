//! Bad input: each is refused with what is wrong, where, and what to do; nothing is pushed and nothing half-made is kept.

mod bases;
mod commands;
mod damaged;
mod hostile;
mod machine;
mod registries;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::base::os_release_tar;
use crate::support::framework::stand_ins;
use crate::support::program::Ran;
use crate::support::{Kfactory, world};

const DEBIAN: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
/// What must fail early does so in a fraction of this; the machine may be busy.
const EARLY: Duration = Duration::from_secs(2);

/// Prepares a conversion with a store of its own.
fn convert(base: &str, dest: &str) -> (PathBuf, Kfactory) {
    let store = tempfile::Builder::new()
        .prefix("refused")
        .tempdir_in(world().user_dir("refused"))
        .expect("a directory")
        .keep();
    world().user.make_dir(&store);
    let framework = format!(
        "dir:{}",
        stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
    );
    let arguments = [
        "convert",
        base,
        dest,
        "--framework",
        &framework,
        "--progress",
        "plain",
    ];
    (store.clone(), Kfactory::new(arguments).store(&store))
}

/// Converts what must be refused with exit code 1 and returns what was said.
#[track_caller]
fn refuse(base: &str, dest: &str, words: &[&str]) -> Ran {
    let (store, program) = convert(base, dest);
    let ran = program.fail(1);
    ran.tells(&["error: "]);
    ran.tells(words);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    nothing_made(&store);
    ran
}

/// Asserts that the store holds no tree that was not whole, no layer, no image and no run.
#[track_caller]
fn nothing_made(store: &Path) {
    for kind in ["steps", "changes", "images", "runs"] {
        let left = fs::read_dir(store.join(kind)).into_iter().flatten().count();
        assert_eq!(left, 0, "{kind} of the store holds something");
    }
}

fn debian_base() -> String {
    static TAR: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let tar = TAR.get_or_init(|| os_release_tar("debian", DEBIAN));
    format!("tar:{}", tar.display())
}
