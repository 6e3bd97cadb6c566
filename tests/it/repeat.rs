//! The same conversion again: from nothing, from the cache, after a kill, after Ctrl-C.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::conversion::{BASE, Conversion, conversion, convert};
use crate::support::layer::image_differences;
use crate::support::program::Ran;
use crate::support::user::is_root;
use crate::support::world::remove_tree;
use crate::support::{Kfactory, run, world};

/// Every layer of a conversion, lowest first.
const LAYERS: [&str; 4] = ["packages", "kernel", "kairos", "init"];
/// Long enough for a step on a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// A store that is empty but for the packages that the first conversion downloaded; removed when dropped.
pub(crate) struct FreshStore(pub(crate) PathBuf);

impl FreshStore {
    pub(crate) fn new(name: &str, made: &Conversion) -> Self {
        let dir = world().user_dir(name);
        let cache = made.store.join("cache/packages");
        let target = dir.join("cache");
        world().user.make_dir(&target);
        // apt's own user has directories there.
        let mut copy = Command::new(if is_root() { "cp" } else { "unshare" });
        if !is_root() {
            copy.args(["--map-root-user", "--map-auto", "cp"]);
        }
        run(copy.arg("-a").arg(&cache).arg(&target));
        Self(dir)
    }
}

impl Drop for FreshStore {
    fn drop(&mut self) {
        remove_tree(&self.0);
    }
}

#[track_caller]
fn same_digest(made: &Conversion, ran: &Ran, store: &Path) {
    let digest = ran.digest();
    if digest != made.digest {
        let text = image_differences((&made.digest, &made.store), (&digest, store), 40);
        panic!("{} became {digest}:\n{text}", made.digest);
    }
}

#[test]
fn the_same_conversion_from_an_empty_store_gives_the_same_digest() {
    let Some(made) = conversion() else { return };
    let store = FreshStore::new("store-again", made);
    let ran = convert(
        &made.server.reference(BASE),
        &made.server.reference("me/again:v1.0.0"),
        &store.0,
    )
    .succeed();
    assert!(!ran.says(": cached"), "the store was not empty");
    same_digest(made, &ran, &store.0);
}

#[test]
fn a_run_with_nothing_changed_runs_no_command() {
    let Some(made) = conversion() else { return };
    let ran = convert(
        &made.server.reference(BASE),
        &made.server.reference("me/cached:v1.0.0"),
        &made.store,
    )
    .succeed();
    for layer in LAYERS {
        assert!(
            ran.says(&format!("layer {layer}: cached")),
            "{layer}\n{}",
            ran.stderr()
        );
    }
    assert!(
        !ran.says(": started") && !ran.says(" | "),
        "{}",
        ran.stderr()
    );
    assert_eq!(ran.digest(), made.digest);
    // A debug build on a busy machine; the release build needs a tenth of it.
    assert!(ran.took < Duration::from_secs(20), "{:?}", ran.took);
    eprintln!(
        "a run with nothing changed took {:.1} s",
        ran.took.as_secs_f64()
    );
}

#[test]
fn another_compression_runs_no_command_and_keeps_every_diff_id() {
    let Some(made) = conversion() else { return };
    let dest = made.server.reference("me/zstd:v1.0.0");
    let zstd = || {
        convert(&made.server.reference(BASE), &dest, &made.store).args(["--compression", "zstd"])
    };
    let ran = zstd().succeed();
    assert!(
        !ran.says(": started") && !ran.says(" | "),
        "{}",
        ran.stderr()
    );
    for layer in LAYERS {
        assert!(ran.says(&format!("layer {layer}: cached")), "{layer}");
        assert!(ran.says(&format!("recompress {layer} ")), "{layer}");
    }
    assert_ne!(ran.digest(), made.digest);
    let facts = |reference: &str| -> Vec<(String, String)> {
        let report = inspected(reference, made);
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let layers = report["layers"].as_array().expect("a list").iter();
        layers
            .map(|layer| (text(&layer["diff_id"]), text(&layer["media_type"])))
            .collect()
    };
    let (before, after) = (facts(&made.reference()), facts(&dest));
    for ((diff_id, _), (same, media_type)) in before.iter().zip(&after).skip(1) {
        assert_eq!(diff_id, same);
        assert!(media_type.ends_with("+zstd"), "{media_type}");
    }
    let again = zstd().succeed();
    assert!(!again.says("recompress"), "{}", again.stderr());
    let pushed: Vec<&String> = again
        .lines
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line.starts_with("push "))
        .collect();
    assert!(
        pushed.len() > LAYERS.len() && pushed.iter().all(|line| line.ends_with(": already there")),
        "{pushed:?}"
    );
    assert_eq!(again.digest(), ran.digest());
}

#[test]
fn a_converted_image_converted_again_gains_next_to_nothing() {
    let Some(made) = conversion() else { return };
    let dest = made.server.reference("me/twice:v1.0.0");
    let ran = convert(&made.reference(), &dest, &made.store).succeed();
    assert!(ran.says("initrd: started"), "{}", ran.last_lines(40));
    let report = inspected(&dest, made);
    let sizes = report["layers"].as_array().expect("a list").iter();
    let sizes: Vec<u64> = sizes
        .map(|layer| layer["size"].as_u64().expect("bytes"))
        .collect();
    let added: u64 = sizes.iter().rev().take(LAYERS.len()).sum();
    // What dracut keeps of the console settings; the initrd alone would be 70 MiB.
    assert!(added < 100_000, "{sizes:?}");
}

fn inspected(reference: &str, made: &Conversion) -> serde_json::Value {
    let ran = Kfactory::new(["inspect", "--json", reference])
        .store(&made.store)
        .succeed();
    serde_json::from_str(&ran.stdout).expect("JSON")
}

#[test]
fn another_version_runs_only_the_init_layer_again() {
    let Some(made) = conversion() else { return };
    let dest = made.server.reference("me/next:v1.0.1");
    let ran = convert(&made.server.reference(BASE), &dest, &made.store).succeed();
    for layer in &LAYERS[..3] {
        assert!(
            ran.says(&format!("layer {layer}: cached")),
            "{layer}\n{}",
            ran.last_lines(40)
        );
    }
    assert!(!ran.says("layer init: cached") && ran.says("initrd: started"));
    assert!(!ran.says("installPackages: started") && !ran.says("kairosBinaries: started"));
    assert_ne!(ran.digest(), made.digest);
    let text = Kfactory::new(["inspect", &dest])
        .store(&made.store)
        .succeed()
        .stdout;
    assert!(text.contains("KAIROS_VERSION=v1.0.1"), "{text}");
}

#[test]
fn after_a_kill_at_any_moment_the_next_run_gives_the_same_digest() {
    let Some(made) = conversion() else { return };
    let store = FreshStore::new("store-killed", made);
    let dest = made.server.reference("me/killed:v1.0.0");
    let start = || convert(&made.server.reference(BASE), &dest, &store.0).start();
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .subsec_nanos();
    // A different moment in every run of the tests, said so that it can be tried again.
    let moment = |salt: u32, most: u32| {
        Duration::from_millis(u64::from((nanos / 1000).wrapping_mul(salt | 1) % most))
    };
    let mut kept = false;
    for (word, delay) in [
        ("", moment(3, 1500)),
        ("installPackages: started", moment(5, 8000)),
        ("installKernel: started", moment(7, 6000)),
        ("initrd: started", moment(11, 9000)),
    ] {
        let mut running = start();
        assert!(
            word.is_empty() || running.wait_for(word, STEP_LIMIT),
            "the run ended before `{word}`\n{}",
            running.wait().last_lines(30)
        );
        std::thread::sleep(delay);
        let family = descendants(running.child.id());
        running.signal("KILL");
        let ran = running.wait();
        eprintln!("killed {} ms after `{word}`", delay.as_millis());
        assert_ne!(ran.code, Some(0), "the run was faster than the kill");
        // How far the background work had come depends on the machine.
        kept |= ran.says("layer packages: ");
        let left = survivors(&family);
        assert!(
            left.is_empty(),
            "killed {delay:?} after `{word}`, these go on: {left:?}"
        );
        assert_eq!(
            made.server.digest_opt("me/killed:v1.0.0"),
            None,
            "an unfinished image was pushed"
        );
    }
    let ran = start().wait();
    assert_eq!(ran.code, Some(0), "{}", ran.last_lines(60));
    assert!(
        !kept || ran.says("layer packages: cached"),
        "what was whole before the last kill is kept"
    );
    same_digest(made, &ran, &store.0);
    assert!(leftovers(&store.0).is_empty(), "{:?}", leftovers(&store.0));
}

#[test]
fn ctrl_c_ends_every_process_and_leaves_no_temporary_file() {
    let Some(made) = conversion() else { return };
    let store = FreshStore::new("store-stopped", made);
    let dest = made.server.reference("me/stopped:v1.0.0");
    let mut running = convert(&made.server.reference(BASE), &dest, &store.0).start();
    assert!(
        running.wait_for("installPackages | ", STEP_LIMIT),
        "no package was installed"
    );
    assert!(
        running.wait_for("Unpacking ", STEP_LIMIT),
        "no package was unpacked"
    );
    let family = descendants(running.child.id());
    assert!(family.len() > 3, "{family:?}");
    let start = Instant::now();
    running.signal("INT");
    let ran = running.wait();
    assert_eq!(ran.code, Some(130), "{}", ran.last_lines(20));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        start.elapsed()
    );
    let left = survivors(&family);
    assert!(left.is_empty(), "still there: {left:?}");
    assert!(leftovers(&store.0).is_empty(), "{:?}", leftovers(&store.0));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    assert!(
        !mounts.contains("store-stopped"),
        "a mount is left:\n{mounts}"
    );
    assert_eq!(made.server.digest_opt("me/stopped:v1.0.0"), None);
}

/// A process, told from a later one with the same number by when it started.
type Process = (u32, String);

/// Returns the fields of `/proc/PID/stat` after the name; `None` when the process is gone.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// Returns a process and all below it.
fn descendants(pid: u32) -> Vec<Process> {
    let pids = || {
        std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
    };
    let mut known = BTreeSet::from([pid]);
    loop {
        let more: Vec<u32> = pids()
            .filter(|pid| !known.contains(pid))
            .filter(|pid| {
                stat(*pid).is_some_and(|fields| {
                    fields[1]
                        .parse()
                        .is_ok_and(|parent| known.contains(&parent))
                })
            })
            .collect();
        if more.is_empty() {
            break;
        }
        known.extend(more);
    }
    known
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?.get(19)?.clone())))
        .collect()
}

/// Returns those of `family` that live on, after giving them a moment to end.
fn survivors(family: &[Process]) -> Vec<String> {
    let lives = |(pid, started): &&Process| {
        stat(*pid).is_some_and(|fields| fields.get(19) == Some(started) && fields[0] != "Z")
    };
    let end = Instant::now() + Duration::from_secs(10);
    while family.iter().any(|process| lives(&process)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let name = |(pid, _): &Process| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .unwrap_or_default()
            .replace('\0', " ")
    };
    family.iter().filter(lives).map(name).collect()
}

/// Returns what a run leaves in the store when it does not clean up: its directory, unfinished blobs, changes without a record.
fn leftovers(store: &Path) -> Vec<String> {
    let script = "cd \"$0\" && find runs -mindepth 1; find . -path ./cache -prune -o -path ./changes/\\*/\\* -prune -o -path ./trees/\\*/\\* -prune \
                  -o \\( -name '.tmp*' -o -name '*.part' -o -name 'tmp*' \\) -print; \
                  for c in changes/*; do [ ! -e \"$c\" ] || grep -qs \"${c#changes/}\" steps/*.json || echo \"$c\"; done";
    let text = run(Command::new("sh").args(["-c", script]).arg(store));
    text.lines().map(str::to_owned).collect()
}
