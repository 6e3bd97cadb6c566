//! Changes from comparing a tree with what it was, for where there is no overlay.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::changeset::Inside;
use super::node::{Node, open_dir, open_file, same_content};
use super::{CaptureError, CaptureOptions, Change};
use crate::handle;
use crate::limits;
use crate::root::Root;

/// Everything about a tree but the content of its files, as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    content: Listing,
}

#[derive(Debug, Default)]
struct Listing {
    children: Vec<Recorded>,
    /// Whether there are names beside these that the capture must not hide.
    excluded: bool,
}

#[derive(Debug)]
struct Recorded {
    name: OsString,
    node: Node,
    content: Listing,
}

impl Snapshot {
    /// Returns the snapshot of an empty tree: everything that is there later is new.
    pub fn empty() -> Self {
        Self {
            content: Listing::default(),
        }
    }

    /// Records the tree below `root`, without what `exclude` names; give it the same rule as the capture later.
    ///
    /// Takes some 300 bytes of memory for each object.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Io`], [`CaptureError::Limit`].
    pub fn take(root: &Root, exclude: &dyn Fn(&Path) -> bool) -> Result<Self, CaptureError> {
        let content = record(root, Path::new(""), exclude)?;
        Ok(Self { content })
    }
}

fn record(
    root: &Root,
    path: &Path,
    exclude: &dyn Fn(&Path) -> bool,
) -> Result<Listing, CaptureError> {
    let mut listing = list(open_dir(root, path)?.as_fd(), path, exclude)?;
    for child in &mut listing.children {
        if child.node.meta.is_dir() {
            child.content = record(root, &path.join(&child.name), exclude)?;
        }
    }
    Ok(listing)
}

/// Reads what is in the open directory `dir`, which is at `path`, but nothing below that.
fn list(
    dir: BorrowedFd<'_>,
    path: &Path,
    exclude: &dyn Fn(&Path) -> bool,
) -> Result<Listing, CaptureError> {
    let mut listing = Listing::default();
    for (name, _) in handle::list(dir).map_err(|errno| CaptureError::io("reading", path, errno))? {
        let path = path.join(&name);
        if exclude(&path) {
            listing.excluded = true;
            continue;
        }
        limits::check(&path)?;
        let node =
            Node::read(dir, &name).map_err(|errno| CaptureError::io("reading", &path, errno))?;
        let Some(node) = node else { continue };
        listing.children.push(Recorded {
            name,
            node,
            content: Listing::default(),
        });
    }
    Ok(listing)
}

/// Returns what changed in `root` since `before` was taken, in the order of the archive.
///
/// # Errors
///
/// [`CaptureError::Io`], [`CaptureError::WhiteoutName`], [`CaptureError::Limit`].
pub fn diff_walk(
    before: &Snapshot,
    root: &Root,
    options: &CaptureOptions<'_>,
) -> Result<Vec<Change>, CaptureError> {
    let walking = Walking { root, options };
    walking
        .directory(&before.content, Path::new(""))?
        .into_changes()
}

struct Walking<'a> {
    root: &'a Root,
    options: &'a CaptureOptions<'a>,
}

/// One object that is there now.
struct Present<'a> {
    object: Recorded,
    before: Option<&'a Recorded>,
    changed: bool,
}

impl Walking<'_> {
    fn directory(&self, before: &Listing, path: &Path) -> Result<Inside, CaptureError> {
        let (objects, mut inside) = self.read(before, path)?;
        for Present {
            object,
            before,
            changed,
        } in objects
        {
            let within = if object.node.meta.is_dir() {
                let nothing = Listing::default();
                let before = before.map_or(&nothing, |before| &before.content);
                self.directory(before, &path.join(&object.name))?
            } else {
                Inside::default()
            };
            inside.push(object.name, object.node, changed, within);
        }
        Ok(inside)
    }

    /// Compares the directory `path` itself with what it was: what is there, and, in the second part, what is gone.
    fn read<'a>(
        &self,
        before: &'a Listing,
        path: &Path,
    ) -> Result<(Vec<Present<'a>>, Inside), CaptureError> {
        let dir = open_dir(self.root, path)?;
        let old = &before.children;
        let mut kept = vec![false; old.len()];
        let mut objects = Vec::new();
        for object in list(dir.as_fd(), path, self.options.exclude)?.children {
            let at = old
                .binary_search_by(|old| old.name.as_bytes().cmp(object.name.as_bytes()))
                .ok();
            if let Some(at) = at {
                kept[at] = true;
            }
            let before = at.map(|at| &old[at]);
            let changed = self.is_changed(dir.as_fd(), &object, before, path)?;
            objects.push(Present {
                object,
                before,
                changed,
            });
        }
        let gone = old.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let gone: Vec<_> = gone.map(|(old, _)| old.name.clone()).collect();
        let all = gone.len() >= 2 && gone.len() == old.len() && !before.excluded;
        let mut inside = Inside::default();
        inside.set_gone(gone, all);
        Ok((objects, inside))
    }

    fn is_changed(
        &self,
        dir: BorrowedFd<'_>,
        object: &Recorded,
        old: Option<&Recorded>,
        above: &Path,
    ) -> Result<bool, CaptureError> {
        let node = &object.node;
        let Some(old) = old.map(|old| &old.node).filter(|old| old.is_like(node)) else {
            return Ok(true);
        };
        let untouched = (old.meta.id(), old.meta.ctime) == (node.meta.id(), node.meta.ctime);
        if !node.meta.is_file() || node.meta.size == 0 || untouched {
            return Ok(false);
        }
        let Some(reference) = self.options.reference else {
            return Ok(true);
        };
        let path = &above.join(&object.name);
        let fail = |error: io::Error| CaptureError::io("comparing", path, error);
        let Some(mut before) = reference
            .open_file_opt(path)
            .map_err(|error| fail(io::Error::other(error)))?
        else {
            return Ok(true);
        };
        let mut after = open_file(dir, &object.name).map_err(|errno| fail(errno.into()))?;
        Ok(!same_content(&mut before, &mut after, path)?)
    }
}
