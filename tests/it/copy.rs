//! `kfactory copy`: any source to any destination keeps the config and the changesets.

use std::fs;
use std::path::Path;

use crate::support::base::small_tar;
use crate::support::user::is_root;
use crate::support::{Kfactory, Server, need, run, skipped, world};
use kfactory_layers::digest::Digest;
use serde_json::Value;

/// Returns the layers' diff IDs and the facts of the image at `place`.
fn facts(place: &str) -> (Vec<String>, Value) {
    let ran = Kfactory::new(["inspect", "--json", place])
        .store(&world().user_dir("copy-check"))
        .succeed();
    let report: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let layers = report["layers"].as_array().expect("a list");
    let diff_ids = layers
        .iter()
        .map(|layer| layer["diff_id"].as_str().expect("text").to_owned())
        .collect();
    (diff_ids, report["os"].clone())
}

#[test]
fn a_copy_between_any_two_places_keeps_the_changesets() {
    if !need(&["docker-registry"]) {
        return;
    }
    let server = Server::open();
    let dir = world().user_dir("copies");
    let place = |kind: &str, name: &str| match kind {
        "registry" => server.reference(&format!("copies/{name}:v1")),
        "oci" => format!("oci:{}:v1", dir.join(name).display()),
        archive => format!(
            "{archive}:{}{}",
            dir.join(format!("{name}.{archive}")).display(),
            if archive == "oci-archive" {
                ":v1"
            } else {
                ":me/os:v1"
            }
        ),
    };
    let content = "some text\n".repeat(4000);
    let base = small_tar(
        "copied",
        &[
            ("etc/os-release", 0o644, "ID=debian\nVERSION_ID=12\n"),
            ("usr/share/text", 0o640, &content),
        ],
    );
    let copy = |from: &str, to: &str| {
        // A store of its own each time: the source itself has to be read.
        let store = world().user_dir(&format!("copies/store-{}", to.len() + from.len() * 1000));
        let ran = Kfactory::new(["copy", from, to]).store(&store).succeed();
        fs::remove_dir_all(store).expect("ours");
        assert!(ran.stdout.starts_with(to), "{}", ran.stdout);
    };
    let kinds = ["registry", "oci", "oci-archive", "docker-archive"];
    let mut first = None;
    for from in kinds {
        let source = place(from, &format!("source-{from}"));
        copy(&format!("tar:{}", base.display()), &source);
        for to in kinds {
            let target = place(to, &format!("{from}-to-{to}"));
            copy(&source, &target);
            let found = facts(&target);
            assert_eq!(found.0.len(), 1, "{from} to {to}");
            assert_eq!(
                first.get_or_insert_with(|| found.clone()),
                &found,
                "{from} to {to}"
            );
        }
    }
}

#[test]
fn an_archive_that_holds_other_images_is_not_replaced() {
    let dir = world().user_dir("copies-replaced");
    let base = small_tar("replaced", &[("etc/motd", 0o644, "hello\n")]);
    let copy = |to: &str| {
        Kfactory::new(["copy", &format!("tar:{}", base.display()), to]).store(&dir.join("store"))
    };
    for (kind, one, other) in [
        ("oci-archive", "v1", "v2"),
        ("docker-archive", "me/os:v1", "me/os:v2"),
    ] {
        let file = dir.join(format!("{kind}.tar"));
        let to = |name: &str| format!("{kind}:{}{name}", file.display());
        // What has no name is the older one of itself, under whatever name.
        for name in ["", "", one, one] {
            let name = if name.is_empty() {
                String::new()
            } else {
                format!(":{name}")
            };
            copy(&to(&name)).succeed();
        }
        let before = fs::read(&file).expect("written");
        for name in [format!(":{other}"), String::new()] {
            copy(&to(&name)).fail(1).tells(&[
                &format!("{kind}.tar is replaced as a whole, and `"),
                &format!("{one}` in it would be lost"),
                "hint: name another file",
            ]);
        }
        assert_eq!(fs::read(&file).expect("there"), before);
    }
}

#[test]
fn a_layer_that_is_not_the_one_its_config_promises_is_not_copied() {
    let dir = world().user_dir("copies-false");
    let base = small_tar("false", &[("etc/motd", 0o644, "hello\n")]);
    let (source, dest) = (dir.join("source"), dir.join("dest"));
    let place = |dir: &Path| format!("oci:{}:v1", dir.display());
    let copy =
        |from: &str, to: &Path| Kfactory::new(["copy", from, &place(to)]).store(&dir.join("store"));
    copy(&format!("tar:{}", base.display()), &source).succeed();
    promise_another_layer(&source);
    let ran = copy(&place(&source), &dest).fail(1);
    ran.tells(&[
        "checking layer 1 of 1",
        "the config promises diff ID",
        "hint: ",
    ]);
    assert!(!dest.join("index.json").exists());
}

/// Gives the layout's config another diff ID, and all that names it by digest its new name.
fn promise_another_layer(layout: &Path) {
    let blob = |digest: &str| {
        layout
            .join("blobs/sha256")
            .join(digest.trim_start_matches("sha256:"))
    };
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON")
    };
    let put = |document: &Value| -> (String, usize) {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes).to_string();
        fs::write(blob(&digest), &bytes).expect("written");
        (digest, bytes.len())
    };
    let named = |descriptor: &Value| blob(descriptor["digest"].as_str().expect("text"));
    let index_path = layout.join("index.json");
    let mut index = read(&index_path);
    let mut manifest = read(&named(&index["manifests"][0]));
    let mut config = read(&named(&manifest["config"]));
    config["rootfs"]["diff_ids"][0] = Digest::of(b"another").to_string().into();
    let rename = |descriptor: &mut Value, (digest, size): (String, usize)| {
        descriptor["digest"] = digest.into();
        descriptor["size"] = size.into();
    };
    rename(&mut manifest["config"], put(&config));
    rename(&mut index["manifests"][0], put(&manifest));
    fs::write(index_path, index.to_string()).expect("written");
}

#[test]
fn a_copy_that_fails_leaves_a_layout_as_it_was_and_no_new_one() {
    if !is_root() {
        return skipped("only root can mount a small file system");
    }
    let dir = world().user_dir("copies-full");
    let store = world().own_dir("copies-full-store");
    let mut noise = vec![0; 4_000_000];
    let mut random = fs::File::open("/dev/urandom").expect("there");
    std::io::Read::read_exact(&mut random, &mut noise).expect("endless");
    let source = dir.join("noise.tar");
    fs::write(dir.join("noise"), noise).expect("written");
    run(std::process::Command::new("tar")
        .arg("-cf")
        .arg(&source)
        .arg("-C")
        .arg(&dir)
        .arg("noise"));
    let small = small_tar("copied-full", &[("etc/motd", 0o644, "hello\n")]);
    let small = format!("tar:{}", small.display());
    let full = dir.join("full");
    fs::create_dir(&full).expect("ours");
    let copy = |from: &str, first: &str| {
        let script = format!(
            "mount -t tmpfs -o size=1m,mode=777 none {0} && {first} ; \"$@\"; code=$?; cd {0} && find . | sort && exit $code",
            full.display()
        );
        let place = format!("oci:{}:v2", full.join("above/layout").display());
        Kfactory::as_caller(["copy", from, &place])
            .store(&store)
            .wrapped_by(&["unshare", "--mount", "sh", "-c", &script, "sh"])
    };
    let noise = format!("tar:{}", source.display());
    let ran = copy(&noise, "true").fail(1);
    ran.tells(&["cannot write to `oci:", "No space left on device"]);
    assert_eq!(ran.stdout, ".\n", "something was left");
    // A layout with another image stays what it was, to the last file.
    let before = dir.join("before");
    let place = format!("oci:{}:v1", before.display());
    Kfactory::as_caller(["copy", &small, &place])
        .store(&store)
        .succeed();
    let copied = format!(
        "mkdir {0}/above && cp -a {1} {0}/above/layout",
        full.display(),
        before.display()
    );
    let ran = copy(&noise, &copied).fail(1);
    let mut expected: Vec<String> = walkdir::WalkDir::new(&before)
        .into_iter()
        .map(|entry| {
            let path = entry.expect("readable").into_path();
            let below = path.strip_prefix(&before).expect("below");
            format!("./above/layout/{}", below.display())
                .trim_end_matches('/')
                .to_owned()
        })
        .chain([".".to_owned(), "./above".to_owned()])
        .collect();
    expected.sort();
    let mut left: Vec<&str> = ran.stdout.lines().collect();
    left.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn what_cannot_be_copied_is_named() {
    let store = world().user_dir("copies-bad");
    let missing = store.join("missing");
    for (from, words) in [
        (format!("oci:{}", missing.display()), &["missing"][..]),
        (
            format!("oci-archive:{}", missing.display()),
            &["missing"][..],
        ),
        (
            format!("docker-archive:{}", missing.display()),
            &["missing"][..],
        ),
        (format!("tar:{}", missing.display()), &["missing"][..]),
        (
            "store:nothing".to_owned(),
            &["`nothing`", "hint: `kfactory store ls`"][..],
        ),
    ] {
        let ran = Kfactory::new([
            "copy",
            &from,
            &format!("oci:{}", store.join("out").display()),
        ])
        .store(&store)
        .fail(1);
        ran.tells(&["error: "]);
        ran.tells(words);
    }
}

#[test]
fn a_framework_image_can_be_made_and_carried_along() {
    let dir = world().user_dir("framework-image");
    let stand_ins =
        crate::support::framework::stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]);
    let (source, dest) = (
        format!("dir:{}", stand_ins.display()),
        format!("oci:{}:v1", dir.join("layout").display()),
    );
    let build = || {
        Kfactory::new(["framework", "build", "--framework", &source, "-o", &dest])
            .store(&dir.join("store"))
            .dated()
            .succeed()
    };
    let first = build().digest();
    assert_eq!(
        build().digest(),
        first,
        "equal binaries give an equal image"
    );
    let base = format!(
        "tar:{}",
        crate::support::base::os_release_tar("planned", "ID=debian\nVERSION_ID=12\n").display()
    );
    let plan = |framework: &str| {
        Kfactory::new(["plan", &base, "--version=v1", "--framework", framework])
            .store(&dir.join("store"))
    };
    let lost =
        "the framework has no kairos-installer: without it live media cannot install interactively";
    plan(&dest).succeed().tells(&[lost]);
    plan(&source).succeed().tells(&[lost]);
    plan("go:kairos-installer=none").succeed().tells(&[lost]);
    // An image, but none of binaries.
    let other = format!("oci:{}:v1", dir.join("other").display());
    Kfactory::new(["copy", &base, &other])
        .store(&dir.join("store"))
        .succeed();
    plan(&other)
        .fail(1)
        .tells(&["cannot get the Kairos binaries", "does not hold /usr/bin/"]);
    let empty = world().own_dir("no-framework");
    let none = format!("dir:{}", empty.display());
    let ran = Kfactory::new(["framework", "build", "--framework", &none, "-o", &dest])
        .store(&dir.join("store"))
        .fail(1);
    ran.tells(&["cannot get the Kairos binaries", "kairos-agent"]);
}

#[test]
fn the_store_is_emptied_on_request() {
    let store = world().user_dir("store-gc");
    let base = small_tar(
        "collected",
        &[("etc/os-release", 0o644, "ID=debian\nVERSION_ID=12\n")],
    );
    let run = |arguments: &[&str]| Kfactory::new(arguments).store(&store).succeed().stdout;
    run(&["copy", &format!("tar:{}", base.display()), "store:kept:v1"]);
    assert!(
        run(&["store", "ls"]).contains("image  kept:v1"),
        "{}",
        run(&["store", "ls"])
    );
    run(&["store", "gc"]);
    run(&[
        "copy",
        "store:kept:v1",
        &format!("oci:{}", store.join("out").display()),
    ]);
    assert!(run(&["store", "gc", "--all"]).starts_with("freed "));
    assert!(!run(&["store", "ls"]).contains("kept"));
    for kind in [
        "blobs/sha256",
        "trees",
        "changes",
        "steps",
        "images",
        "runs",
    ] {
        assert_eq!(
            fs::read_dir(store.join(kind)).expect("there").count(),
            0,
            "{kind}"
        );
    }
}

#[test]
fn nothing_is_put_into_a_directory_that_is_read() {
    let base = world().user_dir("read-in-place");
    std::fs::create_dir(base.join("etc")).expect("ours");
    let source = format!("dir:{}", base.display());
    let inside = |name: &str| base.join(name).display().to_string();
    let layout = format!("oci:{}:v1", inside("o"));
    let archive = format!("oci-archive:{}", inside("o.tar"));
    let (store, sub) = (inside("store"), inside("sub"));
    let of_version = ["--version", "v1.0.0"];
    for (words, what) in [
        (
            &["convert", &source, "--store", &store][..],
            "the store in ",
        ),
        (&["convert", &source, &layout], "the destination "),
        (&["copy", &source, &archive], "the destination "),
        (&["inspect", &source, "--store", &store], "the store in "),
        (&["unpack", &source, &sub], "the destination "),
    ] {
        let version = match words[0] {
            "convert" => &of_version[..],
            _ => &[],
        };
        Kfactory::new([words, version].concat()).fail(1).tells(&[
            &format!("error: {what}{}/", base.display()),
            &format!("is inside of `{source}`"),
            "hint: ",
        ]);
    }
    let left: Vec<_> = std::fs::read_dir(&base).expect("ours").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn whoever_finds_a_layout_in_the_making_waits_and_adds_to_it() {
    let source = small_tar("waited", &[("etc/os-release", 0o644, "ID=debian\n")]);
    let source = format!("tar:{}", source.display());
    let dir = world().user_dir("copy-waits");
    let layout = |tag: &str| format!("oci:{}:{tag}", dir.join("out").display());
    // What another run has while it makes the layout.
    let staged = dir.join(".out.kfactory-new.1");
    fs::create_dir(&staged).expect("ours");
    let lock = fs::File::open(&staged).expect("there");
    lock.lock().expect("free");
    let start = |tag: &str| {
        let store = world().user_dir(&format!("copy-waits/store-{tag}"));
        Kfactory::new(["copy", "--progress=plain", &source, &layout(tag)])
            .store(&store)
            .start()
    };
    let mut waiting = ["v1", "v2"].map(start);
    let limit = std::time::Duration::from_secs(60);
    let waits = waiting
        .iter_mut()
        .map(|run| run.wait_for("waiting for another run", limit))
        .collect::<Vec<_>>();
    drop(lock);
    let ran = waiting.map(|run| run.wait());
    assert!(waits.iter().all(|it| *it), "{}", ran[0].stderr());
    assert!(
        ran.iter().all(|ran| ran.code == Some(0)),
        "{}",
        ran[1].stderr()
    );
    for tag in ["v1", "v2"] {
        assert_eq!(facts(&layout(tag)).0.len(), 1, "{tag}");
    }
    assert!(!staged.exists());
}
