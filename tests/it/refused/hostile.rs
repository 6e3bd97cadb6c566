//! Layers made to write outside the root filesystem.

use std::fs;
use std::path::{Path, PathBuf};

use super::{DEBIAN, convert, nothing_made};
use crate::support::{Kfactory, world};

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
        ("root-link", vec![link(".", b'2', "/")], true),
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
            for reader in ["validate", "inspect"] {
                let ran = Kfactory::new([reader, &source]).store(&store);
                ran.fail(1).tells(&["layer entry \"", "outside the rootfs"]);
            }
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
