//! Bad input: each is refused with what is wrong, where, and what to do; nothing is pushed and nothing half-made is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::base::{os_release_tar, shell_tar, small_tar};
use crate::support::framework::stand_ins;
use crate::support::program::Ran;
use crate::support::registry::{PASSWORD, USER};
use crate::support::user::{User, is_root};
use crate::support::{Kfactory, Server, need, skipped, world};

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

#[test]
fn registries_that_say_no_are_quoted_with_what_was_tried() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let (open, closed) = (Server::open(), Server::with_password());
    open.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let out = "oci:out-refused:v1.0.0";
    refuse(
        &open.reference("nothing/here:1"),
        out,
        &["nothing/here:1", "404", "hint: "],
    );
    refuse(
        &open.reference("debian:99"),
        out,
        &[
            "debian:99",
            "404 MANIFEST_UNKNOWN",
            "hint: check the repository and the tag",
        ],
    );
    refuse(
        &closed.reference("debian:12"),
        out,
        &[
            "401 UNAUTHORIZED",
            "hint: `podman login ",
            "hint: credentials: ",
            "auth.json` does not exist",
        ],
    );
    let (_, program) = convert(&closed.reference("debian:12"), out);
    let ran = program
        .args(["--creds", &format!("{USER}:wrong-password")])
        .fail(1);
    ran.tells(&["401", "`--creds` as user \"keeper\""]);
    assert!(!ran.stderr().contains("wrong-password"), "{}", ran.stderr());
    refuse(
        "127.0.0.1:1/debian:12",
        out,
        &["127.0.0.1:1", "Connection refused", "hint: "],
    );
    refuse(
        "nowhere.invalid/debian:12",
        out,
        &["nowhere.invalid", "hint: "],
    );
}

#[test]
fn a_registry_that_forbids_is_quoted_for_the_base_and_for_the_destination() {
    let name = crate::support::registry::forbidding();
    let words = [
        "403 DENIED: requested access is denied",
        "hint: `podman login ",
        "hint: credentials: ",
    ];
    refuse(
        &format!("{name}/secret/base:12"),
        "oci:out-forbidden:v1.0.0",
        &words,
    );
    let ran = refuse(&debian_base(), &format!("{name}/secret/os:v1.0.0"), &words);
    ran.tells(&["cannot push to"]);
}

#[test]
fn a_blob_that_a_registry_damaged_is_refused_and_not_kept() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let server = Server::open();
    server.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let damaged = server.damage_layers();
    assert_eq!(damaged.len(), 1, "one layer");
    let (store, program) = convert(&server.reference("debian:12"), "oci:out-damaged:v1.0.0");
    let ran = program.fail(1);
    ran.tells(&["cannot read `127.0.0.1:", &damaged[0], "expected", "found"]);
    assert!(
        !store.join("blobs/sha256").join(&damaged[0]).exists(),
        "the damaged blob was kept"
    );
    nothing_made(&store);
}

#[test]
fn a_certificate_that_nobody_knows_is_refused_with_the_ways_to_trust_it() {
    if !need(&["docker-registry", "openssl", "bwrap", "newuidmap"]) {
        return;
    }
    let server = Server::with_tls();
    let base = server.reference("debian:12");
    refuse(
        &base,
        "oci:out-tls:v1.0.0",
        &[
            "certificate",
            "hint: `--registry-ca FILE`",
            "--tls-verify=false",
        ],
    );
    let (_, program) = convert(&base, "oci:out-tls:v1.0.0");
    program.args(["--tls-verify=false"]).fail(1).tells(&["404"]);
    assert!(server.file("server.pem").is_file());
}

#[test]
fn a_missing_push_right_is_found_before_the_long_work() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let (open, closed) = (Server::open(), Server::with_password());
    open.push(&debian_base().replace("tar:", "tarball:"), "debian:12");
    let read_only = Server::read_only(&open);
    for (dest, words) in [
        (
            closed.reference("me/os:v1.0.0"),
            &["cannot push to", "401", "hint: credentials: "][..],
        ),
        (
            read_only.reference("me/os:v1.0.0"),
            &["cannot push to", "405"][..],
        ),
        (
            "127.0.0.1:1/me/os:v1.0.0".to_owned(),
            &["cannot push to", "Connection refused"][..],
        ),
    ] {
        let (store, program) = convert(&open.reference("debian:12"), &dest);
        let ran = program.fail(1);
        ran.tells(words);
        assert!(
            !ran.says("unpack ") && !ran.says("started"),
            "too late:\n{}",
            ran.stderr()
        );
        let when = ran.when("cannot push to").expect("said");
        assert!(when < EARLY, "found after {when:?}");
        assert_eq!(
            fs::read_dir(store.join("trees"))
                .into_iter()
                .flatten()
                .count(),
            0,
            "the base was unpacked"
        );
        nothing_made(&store);
    }
    let (_, program) = convert(
        &open.reference("debian:99"),
        &closed.reference("me/os:v1.0.0"),
    );
    program
        .args(["--creds", &format!("{USER}:{PASSWORD}")])
        .fail(1)
        .tells(&["404"]);
}

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
fn a_bad_version_is_refused_before_anything_is_pulled() {
    for version in ["latest", "1.0.0rc1", "1.0.0_1", ""] {
        let (_, program) = convert("127.0.0.1:1/debian:12", "oci:out-version:v1.0.0");
        let ran = program.args(["--version", version]).run();
        assert_eq!(ran.code, Some(2), "{version}: {}", ran.stderr());
        ran.tells(&[&format!("`{version}`"), "hint: "]);
        assert!(!ran.says("127.0.0.1:1"), "{}", ran.stderr());
    }
}

#[test]
fn too_little_space_is_found_first() {
    if !is_root() {
        return skipped("only root can mount a small file system for the store");
    }
    let dir = world().user_dir("small");
    let (_, program) = convert(&debian_base(), "oci:out-small:v1.0.0");
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
        "4.0 GiB",
        "hint: `kfactory store gc`",
    ]);
    assert!(ran.took < EARLY, "{:?}", ran.took);
    assert!(!ran.says("unpack"), "{}", ran.stderr());
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

/// Makes a layout of the small Debian base, changes its layer's blob with `damage`, and returns the layout and the blob's name.
fn damaged_layout(name: &str, damage: impl Fn(&mut Vec<u8>)) -> (String, String) {
    let dir = world().own_dir(&format!("bases/{name}"));
    let layout = format!("oci:{}:12", dir.join("layout").display());
    Kfactory::as_caller(["copy", &debian_base(), &layout])
        .store(&world().own_dir("bases/store"))
        .succeed();
    let blobs = dir.join("layout/blobs/sha256");
    let of_layer = |path: &PathBuf| fs::read(path).expect("readable").starts_with(&[0x1f, 0x8b]);
    let blob = fs::read_dir(blobs)
        .expect("there")
        .map(|entry| entry.expect("there").path())
        .find(of_layer)
        .expect("a layer");
    let mut bytes = fs::read(&blob).expect("readable");
    damage(&mut bytes);
    // The store and the layout may share the file; a new one leaves the store's as it is.
    fs::remove_file(&blob).expect("ours");
    fs::write(&blob, bytes).expect("ours");
    (
        layout,
        blob.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
    )
}

#[test]
fn a_blob_that_does_not_match_its_digest_or_size_is_refused_and_not_kept() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("short", |bytes| bytes.truncate(bytes.len() - 1)),
        ("long", |bytes| bytes.push(0)),
    ];
    for (name, damage) in damages {
        let (layout, digest) = damaged_layout(name, damage);
        let (store, program) = convert(&layout, "oci:out-damaged:v1.0.0");
        let ran = program.fail(1);
        ran.tells(&["cannot read `oci:", &digest]);
        let names: Vec<String> = fs::read_dir(store.join("blobs/sha256"))
            .expect("the store is there")
            .map(|entry| {
                entry
                    .expect("there")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert!(
            !names.contains(&digest),
            "{name}: the damaged blob was kept"
        );
        assert_eq!(
            fs::read_dir(store.join("trees")).expect("there").count(),
            0,
            "{name}"
        );
        nothing_made(&store);
        let copy = Kfactory::new(["copy", &layout, "oci:out-damaged:v1"])
            .store(&store)
            .fail(1);
        copy.tells(&[&digest]);
    }
}

#[test]
fn a_layer_that_tries_to_leave_the_rootfs_is_refused_or_kept_inside() {
    let outside = world().own_dir("outside");
    let outside = outside.to_str().expect("UTF-8");
    let file = |path: &str| (path.to_owned(), b'0', String::new());
    let link = |path: &str, kind: u8, to: &str| (path.to_owned(), kind, to.to_owned());
    let up = "../".repeat(20);
    let cases = [
        ("climbs", vec![file("../../etc/kfactory-was-here")], true),
        (
            "climbs-inside",
            vec![file("usr/../../../etc/kfactory-was-here")],
            true,
        ),
        (
            "hard-link",
            vec![link("stolen", b'1', &format!("{up}etc/passwd"))],
            true,
        ),
        (
            "absolute",
            vec![file(&format!("{outside}/kfactory-was-here"))],
            false,
        ),
        (
            "absolute-link",
            vec![link("out", b'2', outside), file("out/kfactory-was-here")],
            false,
        ),
        (
            "relative-link",
            vec![
                link("out", b'2', &format!("{up}{outside}")),
                file("out/kfactory-was-here"),
            ],
            false,
        ),
        (
            "link-chain",
            vec![
                link("a", b'2', "b"),
                link("b", b'2', outside),
                file("a/kfactory-was-here"),
            ],
            false,
        ),
        (
            "whiteout",
            vec![link("out", b'2', outside), file("out/.wh.keep")],
            false,
        ),
    ];
    fs::write(format!("{outside}/keep"), "still here").expect("ours");
    for (name, entries, refused) in cases {
        let tar = hostile_tar(name, &entries);
        let store = world().user_dir(&format!("refused/hostile-{name}"));
        let dir = store.join("rootfs");
        let source = format!("tar:{}", tar.display());
        let ran = Kfactory::new(["unpack", &source, dir.to_str().expect("UTF-8")])
            .store(&store)
            .run();
        assert_eq!(
            ran.code,
            Some(i32::from(refused)),
            "{name}: {}",
            ran.stderr()
        );
        if refused {
            ran.tells(&["layer entry \"", "outside the rootfs"]);
            let (store, program) = convert(&source, "oci:out-hostile:v1.0.0");
            program
                .fail(1)
                .tells(&["layer entry \"", "outside the rootfs"]);
            assert_eq!(
                fs::read_dir(store.join("trees")).expect("there").count(),
                0,
                "{name}"
            );
            nothing_made(&store);
        }
        let kept = fs::read_to_string(format!("{outside}/keep")).unwrap_or_default();
        assert_eq!(kept, "still here", "{name} reached a file outside");
        for place in [
            format!("{outside}/kfactory-was-here"),
            "/etc/kfactory-was-here".into(),
        ] {
            assert!(
                !Path::new(&place).exists(),
                "{name} left the rootfs: {place}"
            );
        }
    }
}

/// Writes a tar file with `/etc/os-release` and `entries`: path, type flag, link target. `tar` itself would not make these.
fn hostile_tar(name: &str, entries: &[(String, u8, String)]) -> PathBuf {
    let mut out = header("etc/os-release", b'0', "", DEBIAN.len());
    out.extend(DEBIAN.as_bytes());
    out.resize(out.len().next_multiple_of(512), 0);
    for (path, kind, target) in entries {
        out.extend(header(path, *kind, target, 0));
    }
    out.resize(out.len() + 1024, 0);
    let path = world().own_dir("bases").join(format!("hostile-{name}.tar"));
    fs::write(&path, out).expect("written");
    path
}

fn header(path: &str, kind: u8, target: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..path.len()].copy_from_slice(path.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn a_failing_command_is_shown_with_its_step_and_last_lines_and_what_was_done_is_kept() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let depmod = "#!/bin/sh\ni=0\nwhile [ $i -lt 50 ]; do i=$((i + 1)); echo \"line $i of depmod\"; done\nprintf '\\033[31mno good\\n' >&2\nexit 7\n";
    let Some(tar) = shell_tar(
        "failing",
        &[
            ("etc/os-release", 0o644, DEBIAN),
            ("usr/sbin/depmod", 0o755, depmod),
            ("usr/bin/dracut", 0o755, "#!/bin/sh\n"),
            ("boot/vmlinuz-6.1.0-9-amd64", 0o644, "kernel"),
            ("usr/lib/modules/6.1.0-9-amd64/modules.builtin", 0o644, ""),
            ("lib/modules/6.1.0-9-amd64/modules.builtin", 0o644, ""),
        ],
    ) else {
        return;
    };
    let server = Server::open();
    let (store, _) = convert("unused", "unused");
    let framework = format!(
        "dir:{}",
        stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
    );
    let (base, dest) = (
        format!("tar:{}", tar.display()),
        server.reference("me/os:v1.0.0"),
    );
    let again = || {
        let arguments = [
            "convert",
            &base,
            &dest,
            "--framework",
            &framework,
            "--progress",
            "plain",
            "--layers",
            "step",
        ];
        Kfactory::new(arguments)
            .args(["--skip-step", "installPackages,installKernel"])
            .store(&store)
            .fail(3)
    };
    let first = again();
    let layers = fs::read_dir(store.join("changes")).expect("there").count();
    let records = fs::read_dir(store.join("steps")).expect("there").count();
    assert_eq!(layers, records, "the changes of the failed step were kept");
    first.tells(&[
        "error: cannot finish step `initrd`",
        "`depmod -a 6.1.0-9-amd64` exited with status 7",
        "last 30 lines of its output:",
        "  | line 50 of depmod",
        "  | ",
        "no good",
    ]);
    let shown: Vec<&String> = first
        .lines
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line.starts_with("  | "))
        .collect();
    assert_eq!(shown.len(), 30, "{shown:?}");
    assert!(
        !first.stderr().contains('\u{1b}'),
        "a control character of a package reached the terminal"
    );
    assert_eq!(
        server.digest_opt("me/os:v1.0.0"),
        None,
        "a failed conversion was pushed"
    );
    assert!(first.says("branding: started") && !first.says(": cached"));
    let second = again();
    for layer in [
        "branding",
        "cloudconfigs",
        "kairosBinaries",
        "kairosRelease",
        "initramfsConfigs",
    ] {
        assert!(
            second.says(&format!("layer {layer}: cached")),
            "{layer}\n{}",
            second.stderr()
        );
    }
    assert!(!second.says("branding: started"), "{}", second.stderr());
    assert!(second.says("initrd: started"));
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
    ran.tells(&[
        &format!("/bin/sh is a program for {here}, not for linux/{other}"),
        &format!("hint: `--platform linux/{here}`"),
    ]);
    assert!(!ran.says(": started"), "{}", ran.stderr());
    nothing_made(&store);
}
