//! Judges a converted image of any family by what is in it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use kfactory::installed;

use super::base::{Database, Family};
use crate::support::cpio;
use crate::support::tree::Tree;
use crate::support::user::is_root;
use crate::support::world::remove_tree;
use crate::support::{Kfactory, run, world};

/// What no image is to hold, relative to the root; a star stands for a part of a name.
const RESIDUE: &[(&str, &str)] = &[
    ("run", "kfactory*"),
    ("tmp", "*"),
    ("var/tmp", "*"),
    ("boot", "do_purge_kernels"),
    ("boot", "initramfs*"),
    ("etc/apk", "cache"),
    ("root", "*rpm*"),
    ("usr/lib/sysimage/rpm", "*-shm"),
    ("usr/lib/sysimage/rpm", "*.lock"),
    ("var/cache/dnf", "*"),
    ("var/cache/libdnf5", "*"),
    ("var/cache/pacman/pkg", "*"),
    ("var/cache/zypp", "*"),
    ("var/lib/dnf", "history*"),
    ("var/lib/pacman", "db.lck"),
    ("var/lib/rpm", "*-shm"),
    ("var/lib/rpm", "*.lock"),
    ("var/lib/zypp", "AnonymousUniqueId"),
    ("var/log", "dnf*"),
    ("var/log", "hawkey*"),
    ("var/log", "pacman*"),
    ("var/log", "zypper*"),
    ("var/log/zypp", "*"),
];

/// Rules that an image of small packages cannot keep: its kernel is a text, and no package brings a boot loader or programs.
const STAND_INS: &[&str] = &[
    "kernel-format",
    "initrd-modules",
    "grub-efi",
    "grub-shim",
    "grub-modules",
    "grub-editenv",
    "programs-tools",
];

/// An unpacked image.
#[derive(Debug)]
pub(super) struct Judged {
    tree: Tree,
    packages: Vec<String>,
    /// How many rules of `kfactory validate` it keeps.
    pub(super) rules: usize,
}

/// Unpacks the image and checks what holds for every family.
pub(super) fn judge(family: &Family, location: &str) -> Judged {
    let place = if is_root() {
        "families-trees"
    } else {
        "home/families-trees"
    };
    let dir = world().own_dir(place).join(family.name);
    let store = dir.with_extension("store");
    let ledger = dir.with_extension("ledger");
    let arguments = [
        "unpack",
        location,
        dir.to_str().expect("UTF-8"),
        "--ledger",
        ledger.to_str().expect("UTF-8"),
    ];
    Kfactory::as_caller(arguments).store(&store).succeed();
    let tree = Tree::new(dir);
    let judged = Judged {
        packages: installed(family, &tree),
        // The stand-in for Alpine is a Debian with another name, which its rules tell.
        rules: match family.manager {
            "none" => 0,
            _ => kept_rules(location, &store),
        },
        tree,
    };
    judged.has_packages(
        &family
            .packages
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    judged.boots(family);
    judged.has_no_residue();
    remove_tree(&store);
    judged
}

impl Drop for Judged {
    fn drop(&mut self) {
        remove_tree(&self.tree.dir);
    }
}

impl Judged {
    #[track_caller]
    pub(super) fn has_packages(&self, names: &[&str]) {
        if self.packages.is_empty() {
            return;
        }
        for name in names {
            assert!(
                self.packages.iter().any(|found| found == name),
                "{name} is not installed"
            );
        }
    }

    #[track_caller]
    pub(super) fn enables(&self, services: &[&str]) {
        for service in services {
            let link = |target: &str| {
                format!("etc/systemd/system/{target}.target.wants/{service}.service")
            };
            let found = ["multi-user", "sysinit", "network-online"]
                .iter()
                .any(|target| self.tree.dir.join(link(target)).symlink_metadata().is_ok());
            assert!(found, "{service} is not enabled");
        }
    }

    #[track_caller]
    pub(super) fn masks(&self, services: &[&str]) {
        for service in services {
            let link = self
                .tree
                .dir
                .join(format!("etc/systemd/system/{service}.service"));
            assert_eq!(
                std::fs::read_link(link).ok().as_deref(),
                Some(Path::new("/dev/null")),
                "{service}"
            );
        }
    }

    #[track_caller]
    pub(super) fn says(&self, line: &str) {
        let release = self.tree.read("etc/kairos-release");
        assert!(
            release.lines().any(|found| found == line),
            "no {line} in\n{release}"
        );
    }

    #[track_caller]
    pub(super) fn holds(&self, path: &str, content: &str) {
        assert_eq!(self.tree.read(path), content);
    }

    #[track_caller]
    pub(super) fn runs_at(&self, level: &str, services: &[&str]) {
        assert_eq!(self.tree.names(&format!("etc/runlevels/{level}")), services);
    }

    #[track_caller]
    pub(super) fn lacks(&self, path: &str) {
        assert!(!self.tree.has(path), "{path} is in the image");
    }

    fn boots(&self, family: &Family) {
        let link = std::fs::read_link(self.tree.dir.join("boot/vmlinuz")).expect("a link");
        assert_eq!(
            link,
            Path::new("/boot").join(format!("vmlinuz-{}", family.kernel))
        );
        assert_eq!(self.tree.read("boot/vmlinuz"), "stub kernel\n");
        let initrd = std::fs::read(self.tree.dir.join("boot/initrd")).expect("an initrd");
        let entries = cpio::entries(&initrd);
        for name in family.initrd {
            assert!(
                entries.iter().any(|entry| entry.name == *name),
                "the initrd has no {name}"
            );
        }
        // One step of ours builds the initrd; what a package script found where it looked for dracut did nothing.
        if self.tree.has("usr/share/stubs/dracut") {
            assert_eq!(
                self.tree.read("usr/share/stubs/dracut"),
                "/run/kfactory/bin/dracut\n"
            );
        }
        if self.tree.has("usr/share/stubs/dracut-variable") {
            assert_eq!(
                self.tree.read("usr/share/stubs/dracut-variable"),
                "/run/kfactory/bin/dracut\n"
            );
        }
        assert!(!self.tree.names("system/oem").is_empty() && self.tree.has("etc/cos/grub.cfg"));
    }

    fn has_no_residue(&self) {
        for (dir, pattern) in RESIDUE {
            let found: Vec<String> = self
                .tree
                .names(dir)
                .into_iter()
                .filter(|name| matches(pattern, name))
                .collect();
            assert!(found.is_empty(), "{dir} holds {found:?}");
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    for part in parts {
        match rest.find(part) {
            Some(at) if !part.is_empty() => rest = &rest[at + part.len()..],
            Some(_) => rest = "",
            None => return false,
        }
    }
    rest.is_empty()
}

/// Returns how many of the program's own rules the image keeps; only those may break that stand-ins cannot keep.
fn kept_rules(location: &str, store: &Path) -> usize {
    let ran = Kfactory::as_caller(["validate", location, "--output", "json"])
        .store(store)
        .run();
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("a list");
    let mut broken = BTreeSet::new();
    for finding in findings.iter().filter(|it| it["severity"] == "error") {
        let rule = finding["rule"].as_str().expect("a name");
        assert!(STAND_INS.contains(&rule), "{location}: {finding:#}");
        broken.insert(rule);
    }
    report["checked"].as_array().map_or(0, Vec::len) - broken.len()
}

/// Returns the names in the image's own package database, as its manager reads it; empty where this machine cannot ask one.
///
/// What the program reads there itself, without the manager, has to be the same.
fn installed(family: &Family, tree: &Tree) -> Vec<String> {
    let (manager, lines) = match family.database {
        None => return Vec::new(),
        Some(Database::Rpm(place)) => {
            let copy = Copy::new(tree, place);
            let ask = |format: &str| copy.ask(&["rpm", "-qa", "--qf", format, "--dbpath"]);
            let versions = "%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n";
            ("rpm", (ask(versions), ask("[%{=NAME} %{FILENAMES}\\n]")))
        }
        Some(Database::Pacman(place)) => {
            let copy = Copy::new(tree, place);
            let ask = |option: &str| copy.ask(&["pacman", option, "--dbpath"]);
            ("pacman", (ask("-Q"), ask("-Ql")))
        }
    };
    let (packages, files) = &lines;
    let theirs: BTreeSet<&str> = packages
        .lines()
        .filter(|line| !line.starts_with("gpg-pubkey "))
        .collect();
    let read = kfactory::tree::of_dir(&tree.dir).expect("a tree");
    let read = installed::read(&read, installed::Depth::Files).expect("readable");
    let read = read.whole().expect("no damage");
    let ours = read.packages.iter().filter(|it| it.manager == manager);
    let ours: BTreeSet<String> = ours
        .map(|package| format!("{} {}", package.name, package.version))
        .collect();
    assert_eq!(
        ours.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        theirs
    );
    for line in files.lines() {
        let (package, path) = line.split_once(' ').expect("a package and a file");
        // Directories belong to many.
        if !path.ends_with('/') && !tree.dir.join(&path[1..]).is_dir() {
            assert_eq!(read.owner(path), Some(package), "{path}");
        }
    }
    let names = theirs.iter().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// A copy of a package database in the tree it is of: reading one writes beside it.
struct Copy<'a> {
    tree: &'a Tree,
    name: &'static str,
}

impl<'a> Copy<'a> {
    fn new(tree: &'a Tree, place: &str) -> Self {
        let name = "copy-of-the-package-database";
        let (from, to) = (tree.dir.join(place), tree.dir.join(name));
        run(as_owner("cp").arg("-r").arg(from).arg(to));
        Self { tree, name }
    }

    /// Runs the tree's own program with the copy's place as its last word.
    fn ask(&self, words: &[&str]) -> String {
        run(as_owner("chroot")
            .arg(&self.tree.dir)
            .args(words)
            .arg(format!("/{}", self.name)))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        let copy = self.tree.dir.join(self.name);
        let _ = as_owner("rm").arg("-rf").arg(copy).status();
    }
}

/// Returns a command that may do everything with a tree that this user unpacked.
fn as_owner(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--map-auto", program]);
    command
}
