//! Installed packages, and the files that belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Change, Difference, Found, Side, Subject};
use crate::error::Result;
use crate::installed::{self, Depth, Installed};
use crate::tree::Tree;

/// What is installed.
#[derive(Debug)]
pub(super) struct Packages {
    /// Versions by name; a kernel may be there more than once.
    versions: BTreeMap<String, String>,
    installed: Installed,
}

pub(super) fn read(tree: &Tree) -> Result<Packages> {
    let installed = installed::read(tree, Depth::Files)?.whole()?;
    let mut versions: BTreeMap<String, String> = BTreeMap::new();
    for package in &installed.packages {
        let known = versions.entry(package.name.clone()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(&package.version);
    }
    Ok(Packages {
        versions,
        installed,
    })
}

impl Packages {
    /// Returns the file that says that the package is installed.
    fn origin(&self, name: &str) -> Option<&Path> {
        let packages = &self.installed.packages;
        let found = packages.iter().find(|package| package.name == name)?;
        Some(&found.origin)
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
        let (side, origin) = match ours.origin(name) {
            Some(origin) => (here, Some(origin)),
            None => (there, theirs.origin(name)),
        };
        side.step_of(origin.unwrap_or(Path::new(""))).to_owned()
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
        let (ours, theirs) = (&self.ours.installed, &self.theirs.installed);
        let owner = ours.owner(name).or_else(|| theirs.owner(name))?;
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
