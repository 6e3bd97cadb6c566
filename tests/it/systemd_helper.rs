//! The stand-in for `deb-systemd-helper` that package scripts get, held against the program itself.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kfactory::distro::apt::Workspace;

use crate::support::{need, run, world};

const REAL: &str = "/usr/bin/deb-systemd-helper";

/// `[Install]` sections, plain ones and those in which only the program itself finds its way.
const SECTIONS: &[(&str, &str)] = &[
    ("a-user-too.service", "[Install]\nWantedBy=default.target\n"),
    ("none.service", "[Service]\nExecStart=/bin/true\n"),
    ("plain.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("no-newline.timer", "[Install]\nWantedBy=timers.target"),
    (
        "several.socket",
        "[Install]\nWantedBy=sockets.target  multi-user.target\nRequiredBy=basic.target\nWantedBy=multi-user.target\n",
    ),
    (
        "alias.service",
        "[Install]\nWantedBy=multi-user.target\nAlias=other.service\n",
    ),
    ("self.service", "[Install]\nAlias=self.service\n"),
    (
        "aliases.service",
        "[Install]\nAlias=one.service two.service\n",
    ),
    (
        "also.service",
        "[Install]\nWantedBy=multi-user.target\nAlso=plain.service alias.service\n",
    ),
    (
        "template@.service",
        "[Install]\nWantedBy=multi-user.target\nDefaultInstance=tty1\n",
    ),
    (
        "quoted.service",
        "[Install]\nWantedBy=\"multi-user.target\"\n",
    ),
    ("case.service", "[Install]\nwantedby=multi-user.target\n"),
    ("space.service", "[Install]\n  WantedBy=multi-user.target\n"),
    (
        "spaced.service",
        "[Install]\nWantedBy = multi-user.target\n",
    ),
    ("tab.service", "[Install]\nWantedBy=a.target\tb.target\n"),
    ("return.service", "[Install]\r\nWantedBy=a.target\r\n"),
    ("empty.service", "[Install]\nWantedBy=\n"),
    (
        "comment.service",
        "[Install]\n#Also=plain.service\nWantedBy=a.target\n",
    ),
    (
        "escaped.mount",
        "[Install]\nRequiredBy=dev-disk-by\\x2dlabel.device\n",
    ),
];

/// What the scripts of a package do when it is installed, upgraded, and installed again after it was taken out.
const SCRIPTS: &str = r#"
for unit; do
    for scope in --system --user; do
        case "$scope $unit" in "--user "[b-z]*) continue ;; esac
        case $scope in --system) set -- ;; *) set -- --user ;; esac
        say() { "$HELPER" "$@" > /dev/null 2>&1; echo "$? $*"; }
        say "$@" unmask "$unit"
        say --quiet "$@" was-enabled "$unit"
        say "$@" enable "$unit"
        say "$@" debian-installed "$unit"
        say --quiet "$@" was-enabled "$unit"
        say "$@" enable "$unit"
        say "$@" update-state "$unit"
        rm -f "/etc/systemd/system/multi-user.target.wants/$unit"
        say --quiet "$@" was-enabled "$unit"
        say "$@" enable "$unit"
        say "$@" update-state "$unit"
    done
done
find /etc/systemd /var/lib/systemd -printf '%p %y %m %l %s\n' | sort
find /var/lib/systemd -type f -name '*.dsh-also' | sort | while read -r record; do echo "$record:"; cat "$record"; done
"#;

/// Runs a shell script with `helper` and `units`, in directories that nobody else sees; `real` is the program itself to it.
fn run_script(script: &str, helper: &Path, real: &Path, units: &[&str], dir: &Path) -> String {
    let (etc, state) = (dir.join("etc"), dir.join("state"));
    for path in [&etc, &state] {
        for instance in ["system", "user"] {
            fs::create_dir_all(path.join(instance)).expect("a directory");
        }
    }
    for (unit, section) in SECTIONS {
        for instance in ["system", "user"] {
            fs::write(etc.join(instance).join(unit), section).expect("written");
        }
    }
    run(Command::new("bwrap")
        .args(["--dev-bind", "/", "/", "--bind"])
        .arg(&etc)
        .args(["/etc/systemd", "--bind"])
        .arg(&state)
        .args(["/var/lib/systemd", "--tmpfs", "/run", "--ro-bind"])
        .arg(helper)
        .args(["/run/helper", "--setenv", "HELPER", "/run/helper"])
        .arg("--ro-bind")
        .arg(real)
        .args([REAL, "--setenv", "DPKG_MAINTSCRIPT_PACKAGE", "some"])
        .args(["sh", "-c", script, "sh"])
        .args(units))
}

/// Writes the stand-in to `dir`.
fn stand_in(dir: &Path) -> PathBuf {
    let script = Workspace::new("/nowhere", 0)
        .files()
        .into_iter()
        .find(|file| file.path.ends_with("/deb-systemd-helper"))
        .expect("one of the workspace's files");
    executable(dir.join("stand-in"), script.content)
}

fn executable(path: PathBuf, content: impl AsRef<[u8]>) -> PathBuf {
    fs::write(&path, content).expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a file of our own");
    path
}

#[test]
fn units_are_enabled_and_recorded_as_by_deb_systemd_helper_itself() {
    if !need(&["bwrap", "systemctl", REAL]) {
        return;
    }
    let dir = world().own_dir("systemd-helper");
    let units: Vec<&str> = SECTIONS.iter().map(|(unit, _)| *unit).collect();
    let real = Path::new(REAL);
    let ours = stand_in(&dir);
    let ours = run_script(SCRIPTS, &ours, real, &units, &dir.join("ours"));
    let theirs = run_script(SCRIPTS, real, real, &units, &dir.join("theirs"));

    let mut differences = String::new();
    for (mine, other) in ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b) {
        let _ = writeln!(differences, "ours:   {mine}\ntheirs: {other}");
    }
    assert!(ours == theirs, "{differences}");
    assert!(ours.contains("multi-user.target.wants/plain.service"));
}

#[test]
fn plain_units_are_enabled_without_deb_systemd_helper() {
    if !need(&["bwrap", "systemctl", REAL]) {
        return;
    }
    let dir = world().own_dir("no-systemd-helper");
    let broken = executable(
        dir.join("broken"),
        "#!/bin/sh\n# calls systemctl --preset-mode=enable-only\nexit 9\n",
    );
    let script = r#"for unit; do "$HELPER" enable "$unit" || echo "$unit"; done"#;
    let ours = stand_in(&dir);
    let units = [
        "plain.service",
        "several.socket",
        "alias.service",
        "also.service",
    ];
    let left_to_it = run_script(script, &ours, &broken, &units, &dir);
    assert_eq!(left_to_it, "also.service\n");
}
