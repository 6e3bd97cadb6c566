//! `kfactory parity`: where two images differ, which step made the difference, and whether it is meant.
//!
//! Compared are files (kind, content, target, owner, mode, attributes; not times), packages and their versions, services, and
//! the keys of `/etc/kairos-release`. What is meant stands in a table, [`intended`], each row with its reason.

mod files;
pub mod intended;
mod packages;
mod report;
mod services;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

pub use report::Report;

use crate::error::Result;
use crate::installed::{self, Depth};
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;

/// One of two images, as the comparison sees it.
#[derive(Debug)]
pub struct Side {
    /// How the user names it.
    pub name: String,
    /// What it holds, with a digest of every file.
    pub tree: Tree,
    /// What made each layer, the lowest first.
    pub steps: Vec<String>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// An installed package.
    Package,
    /// A unit or service that starts, or is kept from starting.
    Service,
    /// A key of `/etc/kairos-release`.
    Release,
    /// A file, directory, link or device.
    File,
}

impl Subject {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Service => "service",
            Self::Release => "release",
            Self::File => "file",
        }
    }
}

/// How the two differ in one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the image has it.
    Added,
    /// Only the image it is compared with has it.
    Missing,
    /// One is a file and the other a directory, and so on.
    Kind,
    /// Other bytes, another version, value or state.
    Content,
    /// Another owner or group.
    Owner,
    /// Other permission bits.
    Mode,
    /// Other extended attributes.
    Xattrs,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What made it, from the history of the image that has it; of the first image where both have it.
    pub step: String,
    /// What kind of thing differs.
    pub subject: Subject,
    /// Its path (absolute), or its name.
    pub name: String,
    /// How it differs.
    pub change: Change,
    /// What the image has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here: Option<String>,
    /// What the other one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub there: Option<String>,
    /// The package it follows from, which differs too: that one counts, or does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Why it is meant; `None`: it is not.
    pub intended: Option<&'static str>,
}

/// Differences as they are found, before it is known which are meant.
#[derive(Debug, Default)]
struct Found {
    all: Vec<Difference>,
}

impl Found {
    fn add(
        &mut self,
        step: &str,
        subject: Subject,
        name: impl Into<String>,
        (here, there): (Option<String>, Option<String>),
    ) {
        let change = match (&here, &there) {
            (Some(_), None) => Change::Added,
            (None, _) => Change::Missing,
            _ => Change::Content,
        };
        self.push(step, subject, name.into(), change, (here, there));
    }

    fn push(
        &mut self,
        step: &str,
        subject: Subject,
        name: String,
        change: Change,
        (here, there): (Option<String>, Option<String>),
    ) {
        self.all.push(Difference {
            step: step.to_owned(),
            subject,
            name,
            change,
            here,
            there,
            package: None,
            intended: None,
        });
    }

    /// Adds a difference for each key that the two do not share.
    fn maps(
        &mut self,
        step: &str,
        subject: Subject,
        here: &BTreeMap<String, String>,
        there: &BTreeMap<String, String>,
    ) {
        let mut keys: Vec<&String> = here.keys().chain(there.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (one, other) = (here.get(key).cloned(), there.get(key).cloned());
            if one != other {
                self.add(step, subject, key, (one, other));
            }
        }
    }
}

impl Side {
    /// Returns what made the layer of this index.
    fn step(&self, layer: usize) -> &str {
        self.steps.get(layer).map_or("(no history)", String::as_str)
    }

    /// Returns what made the file at `path`, or the last layer where there is none.
    fn step_of(&self, path: impl AsRef<Path>) -> &str {
        let layer = self.tree.node(path).map(|node| node.layer);
        self.step(layer.unwrap_or(self.steps.len().saturating_sub(1)))
    }

    fn release(&self) -> Result<BTreeMap<String, String>> {
        let text = self.tree.text(RELEASE_PATH)?.unwrap_or_default();
        Ok(dotenv::parse(&text).unwrap_or_default())
    }
}

/// Compares `here` with `there`.
///
/// `upstream` says that `there` was made by kairos-init on another day: then versions of packages, and the files of packages
/// whose versions differ, are what that day had and no difference of the two ways to make an image.
///
/// # Errors
///
/// A content that the comparison looks into cannot be read.
pub fn compare(here: &Side, there: &Side, upstream: bool) -> Result<Report> {
    let mut found = Found::default();
    let (ours, theirs) = (packages::read(&here.tree)?, packages::read(&there.tree)?);
    packages::compare(here, there, &ours, &theirs, &mut found);
    services::compare(here, there, &mut found);
    let step = here.step_of(RELEASE_PATH);
    found.maps(step, Subject::Release, &here.release()?, &there.release()?);
    files::compare(here, there, &mut found);
    let explained = packages::Explained::new(&ours, &theirs);
    let mut differences: Vec<Difference> = found
        .all
        .into_iter()
        .map(|mut difference| {
            difference.package = explained.package(&difference).map(str::to_owned);
            difference.intended = explained
                .reason(&difference, upstream)
                .or_else(|| intended::reason(&difference));
            difference
        })
        .collect();
    differences.sort_by(|a, b| {
        let order = |it: &Difference| (it.subject, it.name.clone(), it.change);
        let place = |it: &Difference| here.steps.iter().position(|step| *step == it.step);
        (place(a), &a.step, order(a)).cmp(&(place(b), &b.step, order(b)))
    });
    Ok(Report {
        image: here.name.clone(),
        against: there.name.clone(),
        compared: files::count(&here.tree),
        differences,
    })
}

/// Tells which files' contents the comparison looks into; see [`crate::tree::Wanted`].
pub fn reads(path: &Path) -> bool {
    let Some(path) = path.to_str() else {
        return false;
    };
    path == RELEASE_PATH.trim_start_matches('/') || installed::reads(path, Depth::Files)
}
