//! From what was found in a tree to the ordered list of changes: directories above changes, hard links, whiteouts.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::node::Node;
use super::{CaptureError, Change};
use crate::metadata::EntryKind;
use crate::overlay::WHITEOUT_PREFIX;

/// What was found in one directory that is there now.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Names that are gone, sorted.
    gone: Vec<OsString>,
    /// Whether they are all names there were.
    all_gone: bool,
    /// Names that are there, sorted; those left out that no change can concern.
    children: Vec<Found>,
}

/// One object that is there now.
#[derive(Debug)]
pub(super) struct Found {
    name: OsString,
    node: Node,
    changed: bool,
    inside: Inside,
}

impl Inside {
    /// Adds an object; call in the order of the names.
    pub(super) fn push(&mut self, name: OsString, node: Node, changed: bool, inside: Self) {
        // An unchanged name still counts while another name of the same file may have changed.
        let is_linked = node.meta.nlink > 1 && !node.meta.is_dir();
        if changed || is_linked || !inside.is_empty() {
            self.children.push(Found {
                name,
                node,
                changed,
                inside,
            });
        }
    }

    /// Sets the names that are gone. `all`: whether there were two or more, and none of them is left.
    pub(super) fn set_gone(&mut self, mut gone: Vec<OsString>, all: bool) {
        gone.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        self.gone = gone;
        self.all_gone = all;
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.children.is_empty()
    }

    /// Returns the changes in the order of the archive: in each directory the whiteouts first, then the names by their bytes, and what
    /// is in a directory right after it.
    pub(super) fn into_changes(self) -> Result<Vec<Change>, CaptureError> {
        let mut linked = HashSet::new();
        self.collect_linked(&mut linked);
        let mut listing = Listing {
            linked,
            first_names: HashMap::new(),
            changes: Vec::new(),
        };
        listing.directory(self, &PathBuf::new())?;
        Ok(listing.changes)
    }

    /// Collects the files with several names of which one is a change.
    fn collect_linked(&self, linked: &mut HashSet<(u64, u64)>) {
        for child in &self.children {
            if child.changed && child.node.meta.nlink > 1 && !child.node.meta.is_dir() {
                linked.insert(child.node.meta.id());
            }
            child.inside.collect_linked(linked);
        }
    }
}

struct Listing {
    linked: HashSet<(u64, u64)>,
    first_names: HashMap<(u64, u64), PathBuf>,
    changes: Vec<Change>,
}

impl Listing {
    fn directory(&mut self, inside: Inside, path: &Path) -> Result<(), CaptureError> {
        for name in &inside.gone {
            check_name(path, name)?;
        }
        if inside.all_gone {
            self.changes.push(Change::OpaqueWhiteout(path.to_owned()));
        } else {
            let whiteouts = inside
                .gone
                .iter()
                .map(|name| Change::Whiteout(path.join(name)));
            self.changes.extend(whiteouts);
        }
        for child in inside.children {
            self.object(child, path)?;
        }
        Ok(())
    }

    fn object(&mut self, found: Found, above: &Path) -> Result<(), CaptureError> {
        let path = above.join(&found.name);
        let before = self.changes.len();
        let id = found.node.meta.id();
        let is_linked = self.linked.contains(&id);
        let mut entry = found.node.entry(path.clone());
        if is_linked {
            if let Some(target) = self.first_names.get(&id) {
                entry.kind = EntryKind::HardLink {
                    target: target.clone(),
                };
            } else {
                self.first_names.insert(id, path.clone());
            }
        }
        self.changes.push(Change::Upsert(Box::new(entry)));
        self.directory(found.inside, &path)?;
        if !found.changed && !is_linked && self.changes.len() == before + 1 {
            // A directory in which nothing turned out to be a change, or a file whose other names did not change either.
            self.changes.pop();
            return Ok(());
        }
        check_name(above, &found.name)
    }
}

fn check_name(above: &Path, name: &OsString) -> Result<(), CaptureError> {
    if name.as_bytes().starts_with(WHITEOUT_PREFIX) {
        return Err(CaptureError::WhiteoutName {
            path: above.join(name),
        });
    }
    Ok(())
}
