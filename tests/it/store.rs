//! The store: what is damaged in it is found before it is used, and what a run that did not end leaves in it goes away.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::base::small_tar;
use crate::support::program::Running;
use crate::support::small::Small;
use crate::support::user::is_root;
use crate::support::{Kfactory, run, skipped, world};

/// Returns the blob files of a store or a layout, the largest first.
fn blobs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("blobs/sha256")).expect("blobs");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a name").path()).collect();
    files.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |it| it.len())));
    files
}

fn partial_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = blobs(dir);
    files.retain(|path| path.to_string_lossy().contains(".kfactory-partial-"));
    files
}

/// Changes one byte of a file in place.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(path, bytes).expect("writable");
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).expect("there");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("writable");
}

/// Returns the blob that the only layer made here is in.
fn layer_blob(store: &Path) -> PathBuf {
    let steps = fs::read_dir(store.join("steps")).expect("steps");
    let record = steps.map(|it| it.expect("a name").path()).next();
    let text = fs::read_to_string(record.expect("a record")).expect("there");
    let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let blobs = record["blobs"].as_object().expect("blobs by compression");
    let digest = blobs.values().next().expect("one")["digest"].as_str();
    let hex = digest.expect("text").trim_start_matches("sha256:");
    store.join("blobs/sha256").join(hex)
}

#[test]
fn a_layer_damaged_in_the_store_is_made_again_by_the_next_conversion() {
    let Some(small) = Small::new("healed", &[]) else {
        return;
    };
    let first = small.convert(&[]).succeed().digest();
    for damage in [flip, truncate] {
        let blob = layer_blob(&small.store);
        damage(&blob);
        fs::remove_dir_all(small.dir.join("out")).expect("ours");
        let ran = small.convert(&[]).succeed();
        ran.tells(&[
            "warning: the store is damaged: in ",
            &blob.display().to_string(),
            "and the layer is made again",
        ]);
        assert_eq!(ran.digest(), first);
        let again = small.convert(&[]).succeed();
        assert!(!again.says("damaged"), "{}", again.stderr());
        assert!(again.says(": cached"), "{}", again.stderr());
    }
}

#[test]
fn a_base_damaged_in_the_store_is_fetched_again() {
    let Some(small) = Small::new("healed-base", &[]) else {
        return;
    };
    let layout = small.dir.join("base");
    let copied = format!("oci:{}:v1", layout.display());
    Kfactory::new(["copy", &small.base, &copied])
        .store(&small.store.join("other"))
        .succeed();
    let small = Small {
        base: copied,
        ..small
    };
    let first = small.convert(&[]).succeed().digest();
    for damage in [flip, truncate] {
        let blob = small
            .store
            .join("blobs/sha256")
            .join(blobs(&layout)[0].file_name().expect("a name"));
        damage(&blob);
        let ran = small.convert(&[]).succeed();
        ran.tells(&["the store is damaged", "and is fetched again"]);
        assert_eq!(ran.digest(), first);
    }
}

#[test]
fn a_copy_of_a_damaged_image_names_the_store_and_writes_nothing() {
    let dir = world().user_dir("store-damaged");
    let (store, out) = (dir.join("store"), dir.join("out"));
    let base = small_tar("damaged", &[("etc/motd", 0o644, &"hello\n".repeat(9000))]);
    let copy = |from: &str, to: &str| Kfactory::new(["copy", from, to]).store(&store);
    copy(&format!("tar:{}", base.display()), "store:it:v1").succeed();
    let blob = &blobs(&store)[0];
    // Config and manifest are larger than so short a layer.
    let blob = match fs::read(blob).expect("there").starts_with(&[0x1f, 0x8b]) {
        true => blob.clone(),
        false => blobs(&store)
            .into_iter()
            .find(|path| fs::read(path).expect("there").starts_with(&[0x1f, 0x8b]))
            .expect("a layer"),
    };
    flip(&blob);
    let to = format!("oci:{}:v1", out.display());
    let ran = copy("store:it:v1", &to).fail(1);
    ran.tells(&[
        "cannot read `store:it:v1`",
        "layer 1 of 1",
        &format!("the store is damaged: in {}", blob.display()),
        "it has been dropped",
        "hint: convert or copy the image into the store again",
    ]);
    assert!(!out.exists() && !blob.exists());
    copy("store:it:v1", &to)
        .fail(1)
        .tells(&["layer 1 of 1", "is lost"]);
    copy(&format!("tar:{}", base.display()), "store:it:v1").succeed();
    copy("store:it:v1", &to).succeed();
}

#[test]
fn a_layout_that_lacks_a_layer_is_not_inspected_as_if_it_were_whole() {
    let dir = world().user_dir("store-inspect");
    let base = small_tar("inspected", &[("etc/motd", 0o644, "hello\n")]);
    let layout = dir.join("layout");
    let place = format!("oci:{}:v1", layout.display());
    let program = |words: &[&str]| Kfactory::new(words).store(&dir.join("store"));
    program(&["copy", &format!("tar:{}", base.display()), &place]).succeed();
    program(&["inspect", &place]).succeed();
    let layer = blobs(&layout)
        .into_iter()
        .find(|path| fs::read(path).expect("there").starts_with(&[0x1f, 0x8b]))
        .expect("a layer");
    // The store still has it, which says nothing about the layout.
    flip(&layer);
    let words = ["lacks 1 of its 1 layers", "layer 1 of 1", "hint: "];
    let ran = program(&["inspect", &place]).fail(1);
    ran.tells(&words);
    ran.tells(&["has the digest"]);
    fs::remove_file(&layer).expect("ours");
    let ran = program(&["inspect", "--json", &place]).fail(1);
    ran.tells(&words);
    ran.tells(&["is not here"]);
}

/// Starts a copy that takes a while to compress what it reads, and waits until it is at it.
fn long_copy(dir: &Path) -> Running {
    let tar = world().own_dir("bases/long").join("base.tar");
    if !tar.exists() {
        let files = tar.with_extension("files");
        fs::create_dir_all(&files).expect("ours");
        let mut random = fs::File::open("/dev/urandom").expect("there");
        let mut file = fs::File::create(files.join("random")).expect("ours");
        std::io::copy(&mut std::io::Read::take(&mut random, 400 << 20), &mut file).expect("room");
        file.flush().expect("room");
        let part = tar.with_extension("part");
        run(Command::new("tar")
            .arg("-C")
            .arg(&files)
            .arg("-cf")
            .arg(&part)
            .arg("."));
        fs::remove_dir_all(&files).expect("ours");
        fs::rename(&part, &tar).expect("ours");
    }
    let (from, to) = (format!("tar:{}", tar.display()), dir.join("out"));
    let to = format!("oci:{}:v1", to.display());
    let store = dir.join("store");
    let running = Kfactory::new(["copy", &from, &to]).store(&store).start();
    let end = Instant::now() + Duration::from_secs(60);
    let is_at_it = || {
        store.join("blobs/sha256").is_dir()
            && partial_files(&store)
                .iter()
                .any(|path| fs::metadata(path).is_ok_and(|it| it.len() > 1 << 20))
    };
    while !is_at_it() {
        assert!(Instant::now() < end, "nothing is being compressed");
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[test]
fn a_run_that_does_not_end_leaves_nothing_half_written() {
    let dir = world().user_dir("store-stopped-copy");
    let store = dir.join("store");
    for signal in ["INT", "TERM"] {
        let running = long_copy(&dir);
        let start = Instant::now();
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(ran.code, Some(130), "{}", ran.stderr());
        // Far less than what is left to do; the program itself gives up after five seconds.
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(
            ran.last_lines(1),
            "interrupted: what was fetched whole is kept in the store, nothing else is left\n"
        );
        assert_eq!(partial_files(&store), Vec::<PathBuf>::new());
        assert!(!dir.join("out").exists());
    }
    let running = long_copy(&dir);
    running.signal("KILL");
    running.wait();
    assert_eq!(partial_files(&store).len(), 1);

    let live = long_copy(&dir);
    assert_eq!(partial_files(&store).len(), 1, "what the killed run left");
    Kfactory::new(["store", "ls"]).store(&store).succeed();
    assert_eq!(
        partial_files(&store).len(),
        1,
        "what a live run writes stays"
    );
    live.signal("INT");
    live.wait();
}

/// Returns the bytes on disk below `dir`, as another program counts them.
fn du(dir: &Path) -> u64 {
    let words: &[&str] = match is_root() {
        true => &["du"],
        false => &["unshare", "--map-root-user", "--map-auto", "du"],
    };
    let mut command = Command::new(words[0]);
    let text = run(command
        .args(&words[1..])
        .args(["-s", "--block-size=1"])
        .arg(dir));
    let bytes = text.split_whitespace().next().expect("a number");
    bytes.parse().expect("a number")
}

#[test]
fn the_parts_of_the_store_add_up_to_what_it_takes() {
    let Some(small) = Small::new("listed", &[("usr/share/text", 0o644, &"x".repeat(90_000))])
    else {
        return;
    };
    small.convert(&[]).succeed();
    let ls = |words: &[&str]| {
        Kfactory::new(["store", "ls"])
            .args(words)
            .store(&small.store)
            .succeed()
            .stdout
    };
    let found: serde_json::Value = serde_json::from_str(&ls(&["--json"])).expect("JSON");
    let parts = found["space"]["parts"].as_array().expect("a list");
    let sum: u64 = parts.iter().filter_map(|part| part["bytes"].as_u64()).sum();
    assert_eq!(found["space"]["bytes"].as_u64(), Some(sum));
    assert_eq!(sum, du(&small.store), "{found:#}");
    assert_eq!(found["space"]["unreadable"], 0);
    let bytes = |kind: &str, name: &str| {
        let mut parts = parts.iter();
        let part = parts.find(|part| {
            part["kind"] == kind && part["name"].as_str().is_some_and(|it| it.contains(name))
        });
        part.unwrap_or_else(|| panic!("no {kind} in {found:#}"))["bytes"]
            .as_u64()
            .expect("a number")
    };
    assert!(bytes("unpacked-base", "sha256:") > 90_000);
    assert!(bytes("changes", "init") > 0 && bytes("image-blobs", "") > 0);
    let text = ls(&[]);
    for words in [
        "unpacked base sha256:",
        "changes of layer init",
        "blobs of images",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_store_of_another_user_is_refused_by_name() {
    if !is_root() {
        skipped("only root can make a store that this user may not write to");
        return;
    }
    let store = world().own_dir("store-of-root");
    let ls = |run: Kfactory| run.store(&store);
    let words = ["store", "ls"];
    let base = small_tar("owned", &[("etc/motd", 0o644, "hello\n")]);
    let base = format!("tar:{}", base.display());
    ls(Kfactory::as_caller(["copy", &base, "store:it:v1"])).succeed();
    let user = &world().user;
    for words in [&words[..], &["convert", &base, "--version", "v1.0.0"]] {
        ls(Kfactory::new(words)).fail(1).tells(&[
            &format!(
                "error: the store in {} belongs to user root (0)",
                store.display()
            ),
            &format!("this is user {} ({})", user.name, user.uid),
            "hint: `--store DIR` or the variable `KFACTORY_STORE`",
        ]);
    }
    // As after `sudo kfactory` in one's own store.
    let own = world().user_dir("store-half-of-root");
    let ls = |run: Kfactory| run.store(&own);
    ls(Kfactory::new(["copy", &base, "store:it:v1"])).succeed();
    let blobs = own.join("blobs/sha256");
    std::os::unix::fs::chown(&blobs, Some(0), Some(0)).expect("root may");
    ls(Kfactory::new(words)).fail(1).tells(&[
        &format!(
            "{}, a part of the store, belongs to user root (0)",
            blobs.display()
        ),
        &format!(
            "`sudo chown {} {}` gives it back",
            user.uid,
            blobs.display()
        ),
    ]);
}

#[test]
fn root_does_not_work_in_a_plain_users_store() {
    if !is_root() {
        return skipped("only root can be root");
    }
    let own = world().user_dir("store-of-user");
    let base = small_tar("of-user", &[("etc/motd", 0o644, "hello\n")]);
    let base = format!("tar:{}", base.display());
    let copy = ["copy", &base, "store:it:v1"];
    Kfactory::new(copy).store(&own).succeed();
    let user = &world().user;
    for words in [&copy[..], &["store", "ls"], &["store", "gc"]] {
        Kfactory::as_caller(words).store(&own).fail(1).tells(&[
            &format!("belongs to user {} ({})", user.name, user.uid),
            &format!("hint: run the command as user {}", user.name),
            "hint: `--store DIR`",
        ]);
    }
    let is_roots =
        |entry: &walkdir::DirEntry| fs::symlink_metadata(entry.path()).expect("there").uid() == 0;
    let entries = walkdir::WalkDir::new(&own)
        .into_iter()
        .map(|it| it.expect("readable"));
    let left: Vec<_> = entries.filter(is_roots).collect();
    assert!(left.is_empty(), "{left:?}");
    // Whoever made a user namespace is root in it.
    let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
    let as_user = [
        "setpriv",
        "--reuid",
        &uid,
        "--regid",
        &gid,
        "--clear-groups",
    ];
    let words = [&as_user[..], &["unshare", "--map-root-user"]].concat();
    Kfactory::as_caller(["store", "ls"])
        .store(&own)
        .wrapped_by(&words)
        .succeed();
}

#[test]
fn waiting_for_a_run_that_cleans_the_store_is_told_and_ends_at_once() {
    let store = world().user_dir("store-being-cleaned");
    let base = small_tar("waiting", &[("etc/motd", 0o644, "hello\n")]);
    let base = format!("tar:{}", base.display());
    let copy = || Kfactory::new(["copy", &base, "store:it"]).store(&store);
    copy().succeed();
    let lock = fs::File::open(store.join("lock")).expect("there");
    lock.lock().expect("free");
    let mut waiting = copy().start();
    let told = waiting.wait_for("waiting for another run", Duration::from_secs(20));
    assert!(told, "it waits in silence");
    waiting.signal("INT");
    let sent = Instant::now();
    let ran = waiting.wait();
    assert_eq!(ran.code, Some(130));
    assert!(sent.elapsed() < Duration::from_secs(3));
    assert!(!ran.says("did not end"));
    drop(lock);
    copy().succeed();
}

#[test]
fn a_collection_shows_what_it_removes_and_says_what_it_freed() {
    let store = world().user_dir("store-to-clean");
    let base = small_tar("to-clean", &[("etc/motd", 0o644, "hello\n")]);
    let base = format!("tar:{}", base.display());
    Kfactory::new(["copy", &base, "store:it"])
        .store(&store)
        .succeed();
    let big = store.join("cache/of-test/inner");
    fs::create_dir_all(&big).expect("there");
    fs::write(big.join("file"), vec![1; 2 << 20]).expect("there");
    let user = &world().user;
    for dir in [big.parent().expect("of-test"), &big] {
        std::os::unix::fs::chown(dir, Some(user.uid), Some(user.gid)).expect("root or ours");
    }
    let collect = |words: &[&str]| {
        let words = [&["store", "gc"], words].concat();
        Kfactory::new(words).store(&store).succeed()
    };
    let ran = collect(&["--progress", "plain"]);
    assert!(!ran.says("remove "), "{}", ran.stderr());
    let ran = collect(&["--all", "--progress", "plain"]);
    ran.tells(&["remove caches (2.0 MiB)"]);
    assert!(ran.stdout.starts_with("freed 2."), "{}", ran.stdout);
    assert!(!store.join("cache/of-test").exists());
}

#[test]
fn root_makes_no_store_in_a_plain_users_directory() {
    if !is_root() {
        return skipped("only root can be root");
    }
    let home = world().user_dir("home-of-user");
    let store = home.join(".local/share/kfactory");
    let base = small_tar("of-user", &[("etc/motd", 0o644, "hello\n")]);
    let base = format!("tar:{}", base.display());
    let user = &world().user;
    let as_root = |words: &[&str]| {
        let run = Kfactory::as_caller(words).env("HOME", &home);
        run.env("XDG_DATA_HOME", "")
    };
    let layout = format!("oci:{}:v1", home.join("layout").display());
    for words in [
        &["copy", &base, &layout][..],
        &["convert", &base, "--version", "v1.0.0"],
        &["store", "rm", "it"],
    ] {
        as_root(words).fail(1).tells(&[
            &format!("error: the store in {}", store.display()),
            &format!("{} of user {} ({})", home.display(), user.name, user.uid),
            &format!("hint: run the command as user {}", user.name),
            "hint: `--store DIR`",
        ]);
    }
    as_root(&["store", "ls"]).succeed();
    let text = as_root(&["doctor"]).fail(1).stdout;
    for words in [
        &format!("FAIL  the store in {}", store.display()),
        &format!("remedy: run the command as user {}", user.name),
        "FAIL  conversions cannot run here",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert_eq!(fs::read_dir(&home).expect("there").count(), 0);
    // What root made for the store is root's own.
    fs::create_dir_all(&store).expect("root may");
    as_root(&["copy", &base, "store:it"]).succeed();
}

#[test]
fn a_store_that_cannot_be_looked_at_is_not_said_to_be_missing() {
    if !is_root() {
        return skipped("only root can close a directory to this user");
    }
    let above = world().own_dir("closed");
    let store = above.join("store");
    fs::create_dir_all(&store).expect("ours");
    fs::set_permissions(&above, fs::Permissions::from_mode(0o700)).expect("ours");
    let strange = world().user_dir("store-with-strange-lock");
    world().user_dir("store-with-strange-lock/lock");
    let file = world().user_dir("store-is-a-file").join("file");
    fs::write(&file, "").expect("ours");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    for (store, words) in [
        (&store, &["Permission denied", "hint: `namei -l "][..]),
        (&strange, &["lock is a directory, not a file"]),
        (
            &file,
            &["is a file, where a directory is meant", "in the way"],
        ),
    ] {
        for command in [
            &["store", "ls"][..],
            &["store", "gc"],
            &["store", "ls", "--json"],
        ] {
            let ran = Kfactory::new(command).store(store).fail(1);
            ran.tells(words);
            ran.tells(&[&store.display().to_string(), "hint: "]);
            assert_eq!(ran.stdout, "");
        }
    }
}

#[test]
fn what_cannot_be_cleaned_up_is_told_once() {
    if !is_root() {
        return skipped("only root can make what this user cannot remove");
    }
    let store = world().user_dir("store-with-leftovers");
    let collect = || Kfactory::new(["store", "gc"]).store(&store);
    let base = small_tar("leftovers", &[("etc/motd", 0o644, "hello\n")]);
    Kfactory::new(["copy", &format!("tar:{}", base.display()), "store:x"])
        .store(&store)
        .succeed();
    // As a run that died left them, with files of another user.
    for name in ["1-dead", "2-dead"] {
        let dead = store.join("runs").join(name);
        fs::create_dir_all(dead.join("work")).expect("root may");
        fs::write(dead.join("work/file"), "").expect("root may");
        fs::write(dead.join("lock"), "").expect("root may");
    }
    let ran = collect().succeed();
    ran.tells(&[
        "warning: ",
        "runs/1-dead could not be removed (and 1 more): ",
        "`podman unshare rm -rf '",
    ]);
    let told = ran
        .lines
        .iter()
        .filter(|(_, line)| line.contains("could not be removed"));
    assert_eq!(told.count(), 1, "{}", ran.stderr());
}

#[test]
fn images_that_cannot_be_read_keep_no_others_from_being_listed() {
    let store = world().user_dir("store-with-bad-records");
    for name in ["bad", "good", "worse"] {
        let base = small_tar(&format!("{name}-records"), &[("etc/motd", 0o644, name)]);
        let base = format!("tar:{}", base.display());
        Kfactory::new(["copy", &base, &format!("store:{name}")])
            .store(&store)
            .succeed();
    }
    let spoil = |name: &str| fs::write(store.join(format!("images/{name}.json")), "{");
    for (name, others) in [("bad", 2), ("worse", 1)] {
        spoil(name).expect("root or owner");
        let ran = Kfactory::new(["store", "ls"]).store(&store).fail(1);
        assert!(ran.stdout.contains("good"), "{}", ran.stdout);
        let rows = ran.stdout.lines().filter(|line| line.starts_with("image"));
        assert_eq!(rows.count(), others, "{}", ran.stdout);
        ran.tells(&[
            &format!("record of image `{name}`"),
            &format!("hint: `kfactory store rm '{name}'` forgets the image"),
            "`kfactory store gc` frees nothing",
        ]);
        // As a collection would: it refuses, and keeps what may be needed.
        assert!(!ran.stdout.contains("  frees"), "{}", ran.stdout);
        assert!(ran.stdout.contains("blobs that nothing readable names"));
    }
}

#[test]
fn a_collection_frees_nothing_while_a_record_or_manifest_cannot_be_read() {
    let dir = world().user_dir("unreadable-records");
    let store = dir.join("store");
    let tar = small_tar("unreadable-records", &[("etc/os-release", 0o644, "ID=x\n")]);
    let from = format!("tar:{}", tar.display());
    Kfactory::new(["copy", &from, "store:good"])
        .store(&store)
        .succeed();
    let record = store.join("images/good.json");
    let text = fs::read_to_string(&record).expect("a record");
    let collect = || Kfactory::new(["store", "gc"]).store(&store);
    let kept = collect().succeed().stdout;
    assert!(
        kept.contains("  images  ") && kept.contains("`kfactory store gc --all`"),
        "{kept}"
    );
    let before = blobs(&store);
    let forget = "hint: `kfactory store rm 'good'` forgets the image";

    fs::write(&record, "{").expect("writable");
    collect().fail(1).tells(&["images/good.json", forget]);
    assert_eq!(blobs(&store), before);

    fs::write(&record, &text).expect("writable");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let manifest = json["manifest"].as_str().expect("a digest");
    let manifest = store.join("blobs").join(manifest.replace(':', "/"));
    fs::write(manifest, "").expect("writable");
    collect()
        .fail(1)
        .tells(&["the manifest of image `good`", forget]);
    assert_eq!(blobs(&store).len(), before.len());

    Kfactory::new(["store", "rm", "good"])
        .store(&store)
        .succeed();
    collect().succeed();
    assert!(blobs(&store).is_empty());
}

#[test]
fn a_link_that_leads_nowhere_is_named_where_the_store_is_to_be() {
    let dir = world().user_dir("store-link");
    let (link, gone) = (dir.join("link"), dir.join("gone"));
    std::os::unix::fs::symlink(&gone, &link).expect("made");
    let words = format!("{} is a link to {}", link.display(), gone.display());
    let tar = small_tar("store-link", &[("etc/motd", 0o644, "hello\n")]);
    let source = format!("tar:{}", tar.display());
    for store in [link.clone(), link.join("below")] {
        Kfactory::new(["copy", &source, "store:x"])
            .store(&store)
            .fail(1)
            .tells(&[&words, "hint: "]);
    }
    assert!(!gone.exists());
}

#[test]
fn a_relative_directory_for_data_is_ignored() {
    let home = world().dir.join("home/.local/share/kfactory");
    let ran = Kfactory::new(["store", "ls"]).env("XDG_DATA_HOME", "relative");
    let told = ran.succeed().stdout;
    assert!(told.contains(&home.display().to_string()), "{told}");
}
