//! `kfactory unpack` and `restore`: a tree appears whole or not at all, and root makes a plain user's tree what its own would be.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::base::{os_release_tar, small_tar};
use crate::support::tree::{Tree, differences};
use crate::support::user::is_root;
use crate::support::{Kfactory, need, run, skipped, world};

/// Returns every name in a directory, hidden ones too.
fn names(dir: &Path) -> Vec<String> {
    Tree::new(dir.to_owned()).names("")
}

fn good() -> String {
    let tar = os_release_tar("unpacked", "ID=debian\n");
    format!("tar:{}", tar.display())
}

/// Returns an archive with a file and then an entry that no tree can take: a hard link to what is not there.
fn bad() -> String {
    let file = world().own_dir("bases/unpacked-bad").join("bad.tar");
    fs::copy(os_release_tar("unpacked", "ID=debian\n"), &file).expect("written");
    add_hard_link(&file, "link", "missing");
    format!("tar:{}", file.display())
}

/// Adds an entry to an archive that `tar` itself would not write.
fn add_hard_link(tar: &Path, name: &str, target: &str) {
    let mut bytes = fs::read(tar).expect("readable");
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    bytes.truncate(end.next_multiple_of(512));
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(b"00000000000\0");
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'1';
    header[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend(header);
    bytes.resize(bytes.len() + 1024, 0);
    fs::write(tar, bytes).expect("written");
}

#[test]
fn an_unpack_that_fails_leaves_neither_tree_nor_ledger() {
    let dir = world().user_dir("unpack-fails");
    let existing = world().user_dir("unpack-fails/existing");
    let before = fs::metadata(&existing).expect("there");
    let store = world().user_dir("unpack-store");
    for tree in [dir.join("above/tree"), existing.clone()] {
        let ledger = dir.join("ledger");
        Kfactory::new(["unpack", &bad(), tree.to_str().expect("UTF-8"), "--ledger"])
            .args([&ledger])
            .store(&store)
            .fail(1)
            .tells(&["unpacking layer 1 of 1", "missing"]);
        assert_eq!(names(&dir), ["existing"]);
        assert!(names(&existing).is_empty());
    }
    let tree = existing.to_str().expect("UTF-8");
    Kfactory::new(["unpack", &good(), tree])
        .store(&store)
        .succeed();
    assert_eq!(names(&existing), ["etc"]);
    let after = fs::metadata(&existing).expect("there");
    assert_eq!(after.ino(), before.ino(), "another directory");
}

#[test]
fn a_stopped_unpack_leaves_nothing_and_a_killed_one_nothing_in_the_way() {
    let files: Vec<String> = (0..20_000).map(|n| format!("usr/share/{n}")).collect();
    let files: Vec<(&str, u32, &str)> = files
        .iter()
        .map(|name| (name.as_str(), 0o644, ""))
        .collect();
    let tar = small_tar("many", &files);
    let dir = world().user_dir("unpack-stopped");
    let store = world().user_dir("unpack-stopped-store");
    let tree = dir.join("tree");
    let source = format!("tar:{}", tar.display());
    let unpack = |source: &str| {
        Kfactory::new(["unpack", source, tree.to_str().expect("UTF-8")])
            .args([Path::new("--ledger"), &dir.join("ledger")])
            .store(&store)
    };
    for (signal, code) in [("TERM", Some(130)), ("KILL", None)] {
        let running = unpack(&source).start();
        let end = Instant::now() + Duration::from_secs(60);
        // Under way once something is in the directory that is being made.
        let is_under_way = || {
            names(&dir)
                .iter()
                .any(|name| fs::read_dir(dir.join(name)).is_ok_and(|mut it| it.next().is_some()))
        };
        while !is_under_way() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!tree.exists(), "it was done already");
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(ran.code, code, "{signal}: {}", ran.stderr());
        assert!(!tree.exists(), "{signal}");
        if signal == "TERM" {
            assert!(names(&dir).is_empty(), "{:?}", names(&dir));
        }
    }
    // The stage dies with its parent, but not at the same moment.
    std::thread::sleep(Duration::from_millis(500));
    unpack(&good()).succeed();
    assert_eq!(names(&dir), ["ledger", "tree"]);
}

#[test]
fn the_working_directory_can_be_unpacked_into() {
    let dir = world().user_dir("unpack-here");
    let before = fs::metadata(&dir).expect("there").ino();
    let script = format!("cd {} && exec \"$@\"", dir.display());
    Kfactory::as_caller(["unpack", &good(), "."])
        .store(&world().own_dir("unpack-here-store"))
        .wrapped_by(&["sh", "-c", &script, "sh"])
        .succeed();
    assert_eq!(names(&dir), ["etc"]);
    assert_eq!(fs::metadata(&dir).expect("there").ino(), before);
}

#[test]
fn a_fresh_file_system_can_be_unpacked_into() {
    if !is_root() {
        return skipped("only root can mount a file system");
    }
    let dir = world().own_dir("unpack-mounted");
    let script = format!(
        "mount -t tmpfs none {0} && mkdir {0}/lost+found && \"$@\" && ls -A {0}",
        dir.display()
    );
    let ran = Kfactory::as_caller(["unpack", &good(), dir.to_str().expect("UTF-8")])
        .store(&world().own_dir("unpack-mounted-store"))
        .wrapped_by(&["unshare", "--mount", "sh", "-c", &script, "sh"])
        .succeed();
    assert!(ran.stdout.ends_with("etc\nlost+found\n"), "{}", ran.stdout);
}

#[test]
fn a_file_that_is_no_ledger_is_not_replaced_by_one() {
    let dir = world().user_dir("unpack-no-ledger");
    let (tree, notes) = (dir.join("tree"), dir.join("notes"));
    fs::write(&notes, "mine").expect("written");
    Kfactory::new(["unpack", &good(), tree.to_str().expect("UTF-8"), "--ledger"])
        .args([&notes])
        .fail(1)
        .tells(&["notes is there and is no ledger", "hint: "]);
    assert_eq!(fs::read_to_string(&notes).expect("still there"), "mine");
    assert!(!tree.exists());
}

#[test]
fn unpack_and_its_ledger_count_every_path_of_the_tree_once() {
    if !need(&["tar", "newuidmap"]) {
        return;
    }
    let dir = world().user_dir("unpack-counts");
    let tar = small_tar(
        "counted",
        &[("a/b", 0o644, "x"), ("a/c", 0o644, "y"), ("d", 0o644, "z")],
    );
    let (tree, ledger) = (dir.join("tree"), dir.join("ledger"));
    let ran = Kfactory::new(["unpack", &format!("tar:{}", tar.display())])
        .args([&tree])
        .args(["--ledger".as_ref(), ledger.as_os_str()])
        .store(&world().user_dir("unpack-store"))
        .succeed();
    // The top, `a` and the three files.
    assert!(ran.stdout.contains(": 5 entries, "), "{}", ran.stdout);
    let text = fs::read_to_string(&ledger).expect("ours");
    let paths = text.lines().filter(|line| line.contains("\"path\":"));
    assert_eq!(paths.count(), 5, "{text}");
}

#[test]
fn a_ledger_is_no_part_of_its_tree() {
    let dir = world().user_dir("unpack-ledger-inside");
    for tree in [dir.clone(), dir.join("new")] {
        let ledger = tree.join("ledger");
        Kfactory::new(["unpack", &good(), tree.to_str().expect("UTF-8"), "--ledger"])
            .args([&ledger])
            .store(&world().user_dir("unpack-store"))
            .fail(2)
            .tells(&["would be a part of the tree", "hint: "]);
        assert!(names(&dir).is_empty());
    }
}

/// Makes an archive of everything that only root can unpack; `None` where this machine's file systems cannot hold it.
fn everything() -> Option<String> {
    let dir = world().own_dir("bases/everything");
    let tree = dir.join("rootfs");
    let file = |path: &str, mode: u32, owner: u32| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(&path, "content").expect("written");
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).expect("root may");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    };
    file("usr/bin/plain", 0o755, 0);
    file("usr/bin/setuid", 0o4755, 0);
    file("usr/bin/setgid", 0o2755, 42);
    file("home/user/file", 0o600, 1000);
    let ping = file("usr/bin/ping", 0o755, 0);
    let labelled = file("etc/labelled", 0o644, 0);
    fs::hard_link(tree.join("usr/bin/setuid"), tree.join("usr/bin/setuid-too")).expect("made");
    std::os::unix::fs::symlink("usr/bin", tree.join("bin")).expect("made");
    let shared = tree.join("var/tmp");
    fs::create_dir_all(&shared).expect("made");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("ours");
    let script = format!(
        "cd {} && mkdir -p dev && mknod dev/null c 1 3 && chmod 666 dev/null && \
         mknod dev/sda b 8 0 && chown 0:6 dev/sda && chmod 660 dev/sda && mkfifo dev/pipe && mknod console c 5 1 && \
         find . -exec touch -h -d @1600000000.5 {{}} +",
        tree.display()
    );
    run(Command::new("sh").args(["-ec", &script]));
    // `cap_net_raw+ep`, in the second revision of the format.
    let capability = [
        &[1, 0, 0, 2][..],
        &[0, 0x20, 0, 0],
        &[0; 4],
        &[0; 4],
        &[0; 4],
    ]
    .concat();
    for (path, name, value) in [
        (&ping, "security.capability", &capability[..]),
        (&labelled, "trusted.label", b"kept"),
        (&labelled, "user.comment", b"kept too"),
        (&tree, "trusted.root", b"the top"),
    ] {
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(error) = rustix::fs::setxattr(path, name, value, flags) {
            skipped(&format!("{name} cannot be set here: {error}"));
            return None;
        }
    }
    let tar = dir.join("everything.tar");
    run(Command::new("tar")
        .args(["--numeric-owner", "--format=posix", "--sort=name"])
        .args(["--xattrs", "--xattrs-include=*", "-C"])
        .arg(&tree)
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    // Of a device node `tar` writes every name as a node of its own.
    let dev = tree.join("dev");
    let time = fs::metadata(&dev)
        .and_then(|it| it.modified())
        .expect("known");
    fs::hard_link(dev.join("null"), dev.join("null-too")).expect("made");
    let times = fs::FileTimes::new().set_modified(time);
    fs::File::open(&dev)
        .and_then(|dir| dir.set_times(times))
        .expect("ours");
    add_hard_link(&tar, "dev/null-too", "dev/null");
    Some(format!("tar:{}", tar.display()))
}

#[test]
fn a_plain_users_tree_restored_is_the_tree_that_root_unpacks() {
    if !need(&["tar", "mkfifo"]) {
        return;
    }
    if !is_root() {
        return skipped("only root can make device nodes and set owners");
    }
    let Some(source) = everything() else { return };
    let unpack = |kfactory: fn([&str; 5]) -> Kfactory, dir: &Path, store: &Path| {
        let ledger = dir.with_extension("ledger");
        let arguments = [
            "unpack",
            &source,
            dir.to_str().expect("UTF-8"),
            "--ledger",
            ledger.to_str().expect("UTF-8"),
        ];
        let ran = kfactory(arguments).store(store).succeed();
        (ran, ledger)
    };
    let (of_root, of_user) = (
        world().own_dir("restored").join("root"),
        world().user_dir("restored").join("user"),
    );
    let (ran, ledger) = unpack(
        |it| Kfactory::as_caller(it),
        &of_root,
        &world().own_dir("restored-store"),
    );
    if fs::read_to_string(&ledger)
        .expect("written")
        .contains("dev")
    {
        return skipped("root of this machine may not make device nodes");
    }
    assert!(!ran.says("keep another owner"), "{}", ran.stderr());
    assert_eq!(
        fs::read_to_string(&ledger).expect("written"),
        "{\"entries\":0}\n"
    );
    // The archive's own tree judges what root made.
    let made = world().own_dir("bases/everything").join("rootfs");
    let expected = Tree::new(made.clone()).listing();
    let theirs = Tree::new(of_root.clone()).listing();
    assert_eq!(differences(&theirs, &expected, 20), Vec::<String>::new());

    let (_, ledger) = unpack(
        |it| Kfactory::new(it),
        &of_user,
        &world().user_dir("restored-store"),
    );
    let restore = |kfactory: fn([&str; 4]) -> Kfactory| {
        let ledger = ledger.to_str().expect("UTF-8");
        kfactory([
            "restore",
            of_user.to_str().expect("UTF-8"),
            "--ledger",
            ledger,
        ])
    };
    restore(|it| Kfactory::new(it))
        .fail(1)
        .tells(&["only root", "hint: `sudo kfactory restore "]);
    // Twice: what is restored already stays as it is.
    for _ in 0..2 {
        restore(|it| Kfactory::as_caller(it)).succeed();
        let restored = Tree::new(of_user.clone()).listing();
        assert_eq!(differences(&restored, &theirs, 20), Vec::<String>::new());
        for tree in [&of_root, &of_user] {
            let (top, wanted) = (fs::metadata(tree).expect("there"), fs::metadata(&made));
            let wanted = wanted.expect("there");
            let facts = |it: &fs::Metadata| (it.mode(), it.uid(), it.gid(), it.mtime());
            assert_eq!(facts(&top), facts(&wanted), "{}", tree.display());
            let mut value = [0; 16];
            let count = rustix::fs::getxattr(tree, "trusted.root", &mut value).expect("set");
            assert_eq!(&value[..count], b"the top", "{}", tree.display());
        }
    }
}

#[test]
fn a_ledger_that_is_not_the_trees_is_refused_before_anything_is_changed() {
    if !is_root() {
        return skipped("only root can restore");
    }
    let tar = small_tar("refused-ledger", &[("etc/motd", 0o644, "hello\n")]);
    let dir = world().own_dir("refused-ledger");
    let tree = dir.join("tree");
    Kfactory::as_caller([
        "unpack",
        &format!("tar:{}", tar.display()),
        tree.to_str().expect("UTF-8"),
    ])
    .store(&world().own_dir("restored-store"))
    .succeed();
    let entry = |path: &str, more: &str| {
        format!("{{\"path\":\"{path}\",\"uid\":7,\"gid\":7,\"mode\":420{more}}}\n")
    };
    let end = "{\"entries\":2}\n";
    for (name, text, words) in [
        (
            "other",
            entry("etc/motd", "") + &entry("etc/other", "") + end,
            &["\"etc/other\"", "does not hold", "hint: "][..],
        ),
        (
            "device",
            entry("etc", "") + &entry("etc/motd", ",\"dev\":{\"char\":[1,3]}") + end,
            &["\"etc/motd\"", "not the empty file"],
        ),
        (
            "half",
            entry("etc", "") + &entry("etc/motd", ""),
            &["half", "cut short: after 2 entries", "hint: copy it again"],
        ),
        (
            "short",
            entry("etc", "") + end,
            &["short", "1 entries, and its last line says 2"],
        ),
        (
            "broken",
            entry("etc", "") + "owner\n",
            &["line 2", "hint: "],
        ),
    ] {
        let ledger: PathBuf = dir.join(name);
        fs::write(&ledger, text).expect("written");
        let restore = |tree: &str| {
            Kfactory::as_caller(["restore", tree, "--ledger", ledger.to_str().expect("UTF-8")])
        };
        restore(tree.to_str().expect("UTF-8")).fail(1).tells(words);
        let owner = fs::metadata(tree.join("etc")).expect("there").uid();
        assert_eq!(owner, 0, "{name}: something was changed");
        restore("/").fail(2).tells(&["this machine's own"]);
    }
}
