//! Machines that lack what a conversion needs.

use super::{DEBIAN, EARLY, convert, debian_base, nothing_made};
use crate::support::base::small_tar;
use crate::support::user::{User, is_root};
use crate::support::{Kfactory, need, skipped, world};

#[test]
fn too_little_space_is_found_before_anything_runs() {
    if !is_root() {
        return skipped("only root can mount a small file system for the store");
    }
    let dir = world().user_dir("small");
    let files = [
        ("etc/os-release", 0o644, DEBIAN),
        ("usr/bin/apt-get", 0o644, ""),
    ];
    let base = format!("tar:{}", small_tar("small-store", &files).display());
    let (_, program) = convert(&base, "oci:out-small:v1.0.0");
    let mount = format!(
        "mount -t tmpfs -o size=64m,mode=777 none {} && exec \"$@\"",
        dir.display()
    );
    let ran = program
        .store(&dir)
        .wrapped_by(&["unshare", "--mount", "sh", "-c", &mount, "sh"])
        .fail(1);
    ran.tells(&[
        "the store in",
        "MiB free",
        "the packages alone take ",
        "as the distribution's index says",
        "hint: `kfactory store gc`",
    ]);
    assert!(ran.took < EARLY, "{:?}", ran.took);
    // What has to fit is known when the base has been looked at; nothing is installed before.
    assert!(!ran.says(": started"), "{}", ran.stderr());
}

#[test]
fn a_user_without_subordinate_ids_learns_how_to_get_some() {
    if !is_root() {
        return skipped("only root can make a user without subordinate IDs");
    }
    let user = User::create_without_ids(&world().janitor);
    let store = world().dir.join("no-ids");
    user.make_dir(&store);
    let base = debian_base();
    let arguments = ["convert", &base, "oci:out-ids:v1.0.0"];
    let ran = Kfactory::as_user(&user, arguments)
        .store(&store)
        .env("HOME", &store)
        .fail(1);
    ran.tells(&[
        "error: cannot create the sandbox",
        "/etc/subuid",
        "hint: ",
        &user.name,
        "--add-subuids",
    ]);
    assert!(ran.took < EARLY, "{:?}", ran.took);
}

#[test]
fn a_machine_without_bubblewrap_is_told_so_first() {
    if !need(&["newuidmap", "newgidmap"]) {
        return;
    }
    let dir = world().own_dir("few-programs");
    for program in ["newuidmap", "newgidmap"] {
        let found = crate::support::tools::find(program).expect("needed above");
        let _ = std::os::unix::fs::symlink(found, dir.join(program));
    }
    let (store, program) = convert(&debian_base(), "oci:out-bwrap:v1.0.0");
    let ran = program.env("PATH", &dir).fail(1);
    ran.tells(&[
        "`bwrap` is not on the PATH",
        "hint: `apt-get install bubblewrap`",
    ]);
    assert!(ran.took < EARLY, "{:?}", ran.took);
    nothing_made(&store);
}

#[test]
fn a_full_disk_is_named_with_what_could_not_be_written_there() {
    if !is_root() {
        return skipped("only root can mount a small file system");
    }
    let dir = world().own_dir("full");
    let mut noise = vec![0; 12 << 20];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut noise))
        .expect("random bytes");
    let root = dir.join("root");
    std::fs::create_dir_all(&root).expect("a directory");
    std::fs::write(root.join("noise"), noise).expect("written");
    let base = format!("dir:{}", root.display());
    let small = dir.join("small");
    let mount = format!(
        "mkdir -p {0} && mount -t tmpfs -o size=8m none {0} && exec \"$@\"",
        small.display()
    );
    let archive = |kind: &str| format!("{kind}:{}:me:v1", small.join("image.tar").display());
    let (large, tree) = (dir.join("store"), small.join("tree"));
    let tree = tree.to_str().expect("UTF-8");
    let store = small.join("store");
    for (arguments, store, words) in [
        (
            ["copy", &base, &archive("oci-archive")],
            &large,
            ["writing \"", "image.tar"],
        ),
        (
            ["copy", &base, &archive("docker-archive")],
            &large,
            ["writing \"", "image.tar"],
        ),
        (
            ["copy", &base, "oci:never:v1"],
            &store,
            ["writing", "/small/store/"],
        ),
        (
            ["unpack", &base, tree],
            &large,
            ["writing", &format!(" into {tree}")],
        ),
        (
            ["unpack", &base, "never"],
            &store,
            ["writing", "/small/store/"],
        ),
    ] {
        let ran = Kfactory::as_caller(arguments)
            .store(store)
            .wrapped_by(&["unshare", "--mount", "sh", "-c", &mount, "sh"])
            .fail(1);
        ran.tells(&words);
        ran.tells(&[
            "No space left on device",
            "hint: that file system is full",
            "`kfactory store gc`",
        ]);
        for strange in ["reading blob", ".kfactory-"] {
            assert!(!ran.says(strange), "{}", ran.stderr());
        }
    }
}
