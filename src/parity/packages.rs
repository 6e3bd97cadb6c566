//! Installed packages, by the databases of dpkg and apk, and the files that belong to them.
//!
//! The databases of rpm and pacman are not read: what their packages bring is compared file by file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Difference, Found, Side, Subject};
use crate::error::Result;
use crate::tree::Tree;

const DPKG_STATUS: &str = "var/lib/dpkg/status";
const DPKG_INFO: &str = "var/lib/dpkg/info";
const APK_INSTALLED: &str = "lib/apk/db/installed";

/// What is installed.
#[derive(Debug, Default)]
pub(super) struct Packages {
    /// Version by name.
    versions: BTreeMap<String, String>,
    /// Which package a path (absolute) belongs to.
    owners: BTreeMap<String, String>,
}

pub(super) fn read(tree: &Tree) -> Result<Packages> {
    let mut out = Packages::default();
    if let Some(text) = tree.text(DPKG_STATUS)? {
        out.dpkg(&text, tree)?;
    }
    if let Some(text) = tree.text(APK_INSTALLED)? {
        out.apk(&text);
    }
    Ok(out)
}

impl Packages {
    fn dpkg(&mut self, status: &str, tree: &Tree) -> Result<()> {
        for entry in status.split("\n\n") {
            let field = |name: &str| {
                entry.lines().find_map(|line| {
                    line.strip_prefix(name)
                        .and_then(|rest| rest.strip_prefix(": "))
                })
            };
            let (Some(name), Some(version)) = (field("Package"), field("Version")) else {
                continue;
            };
            if field("Status").is_some_and(|status| status.ends_with(" installed")) {
                self.versions.insert(name.to_owned(), version.to_owned());
            }
        }
        for (file, _) in tree.names(DPKG_INFO) {
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".list")) else {
                continue;
            };
            let list = tree.text(format!("{DPKG_INFO}/{name}.list"))?;
            let package = name.split(':').next().unwrap_or(name);
            for path in list.unwrap_or_default().lines() {
                self.owners.insert(path.to_owned(), package.to_owned());
            }
        }
        Ok(())
    }

    /// Spec: Alpine wiki, "Apk spec": `P:` name, `V:` version, `F:` directory, `R:` file in it.
    fn apk(&mut self, text: &str) {
        let (mut name, mut dir) = (String::new(), String::new());
        for line in text.lines() {
            match line.split_once(':') {
                Some(("P", value)) => name = value.to_owned(),
                Some(("V", value)) => {
                    self.versions.insert(name.clone(), value.to_owned());
                }
                Some(("F", value)) => dir = value.to_owned(),
                Some(("R", value)) => {
                    self.owners.insert(format!("/{dir}/{value}"), name.clone());
                }
                _ => {}
            }
        }
    }

    /// Returns which package a path belongs to; where `/usr` is merged, packages may name it without.
    fn owner(&self, path: &str) -> Option<&str> {
        let short = path.strip_prefix("/usr").filter(|rest| !rest.is_empty());
        self.owners
            .get(path)
            .or_else(|| self.owners.get(short?))
            .map(String::as_str)
    }
}

pub(super) fn compare(
    here: &Side,
    there: &Side,
    ours: &Packages,
    theirs: &Packages,
    found: &mut Found,
) {
    let step = |name: &str| {
        let list = format!("{DPKG_INFO}/{name}.list");
        let side = if ours.versions.contains_key(name) {
            here
        } else {
            there
        };
        let places = [list.as_str(), APK_INSTALLED, DPKG_STATUS];
        let place = places.iter().find(|path| side.tree.node(path).is_some());
        side.step_of(place.unwrap_or(&DPKG_STATUS)).to_owned()
    };
    let mut names: Vec<&String> = ours.versions.keys().chain(theirs.versions.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let sides = (
            ours.versions.get(name).cloned(),
            theirs.versions.get(name).cloned(),
        );
        if sides.0 != sides.1 {
            found.add(&step(name), Subject::Package, name, sides);
        }
    }
}

/// Which differences follow from others.
#[derive(Debug)]
pub(super) struct Explained<'a> {
    ours: &'a Packages,
    theirs: &'a Packages,
    /// Packages that differ.
    differing: BTreeSet<&'a str>,
}

impl<'a> Explained<'a> {
    pub(super) fn new(ours: &'a Packages, theirs: &'a Packages) -> Self {
        let names = ours.versions.keys().chain(theirs.versions.keys());
        let differs = |name: &&String| ours.versions.get(*name) != theirs.versions.get(*name);
        Self {
            ours,
            theirs,
            differing: names.filter(differs).map(String::as_str).collect(),
        }
    }

    /// Returns the package that a file's difference follows from.
    pub(super) fn package(&self, difference: &Difference) -> Option<&'a str> {
        if difference.subject != Subject::File {
            return None;
        }
        let name = &difference.name;
        let owner = self.ours.owner(name).or_else(|| self.theirs.owner(name))?;
        self.differing.contains(owner).then_some(owner)
    }

    /// Returns why a difference is meant, where it follows from another one or from the day.
    pub(super) fn reason(&self, difference: &Difference, upstream: bool) -> Option<&'static str> {
        if difference.package.is_some() {
            // That the package differs is a difference of its own.
            return Some("follows from its package, which differs");
        }
        let is_version =
            difference.subject == Subject::Package && difference.change == Change::Content;
        (upstream && is_version).then_some("made on another day, with the packages of that day")
    }
}
