//! Changes from comparing a tree with what it was, for where there is no overlay.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::changeset::Inside;
use super::node::{Node, open_dir, open_file, same_content};
use super::{CaptureError, CaptureOptions, Change, MAX_DEPTH};
use crate::handle;
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
    /// [`CaptureError::Io`], [`CaptureError::TooDeep`].
    pub fn take(root: &Root, exclude: &dyn Fn(&Path) -> bool) -> Result<Self, CaptureError> {
        let content = record(root.as_fd(), Path::new(""), exclude, 0)?;
        Ok(Self { content })
    }
}

fn record(
    dir: BorrowedFd<'_>,
    path: &Path,
    exclude: &dyn Fn(&Path) -> bool,
    depth: usize,
) -> Result<Listing, CaptureError> {
    if depth > MAX_DEPTH {
        return Err(CaptureError::TooDeep {
            path: path.to_owned(),
        });
    }
    let mut listing = Listing::default();
    for (name, _) in handle::list(dir).map_err(|errno| CaptureError::io("reading", path, errno))? {
        let path = path.join(&name);
        if exclude(&path) {
            listing.excluded = true;
            continue;
        }
        let node =
            Node::read(dir, &name).map_err(|errno| CaptureError::io("reading", &path, errno))?;
        let Some(node) = node else { continue };
        let content = if node.meta.is_dir() {
            record(
                open_dir(dir, &name, &path)?.as_fd(),
                &path,
                exclude,
                depth + 1,
            )?
        } else {
            Listing::default()
        };
        listing.children.push(Recorded {
            name,
            node,
            content,
        });
    }
    Ok(listing)
}

/// Returns what changed in `root` since `before` was taken, in the order of the archive.
///
/// # Errors
///
/// [`CaptureError::Io`], [`CaptureError::WhiteoutName`], [`CaptureError::TooDeep`].
pub fn diff_walk(
    before: &Snapshot,
    root: &Root,
    options: &CaptureOptions<'_>,
) -> Result<Vec<Change>, CaptureError> {
    let walking = Walking { options };
    walking
        .directory(root.as_fd(), &before.content, Path::new(""), 0)?
        .into_changes()
}

struct Walking<'a> {
    options: &'a CaptureOptions<'a>,
}

impl Walking<'_> {
    fn directory(
        &self,
        dir: BorrowedFd<'_>,
        before: &Listing,
        path: &Path,
        depth: usize,
    ) -> Result<Inside, CaptureError> {
        if depth > MAX_DEPTH {
            return Err(CaptureError::TooDeep {
                path: path.to_owned(),
            });
        }
        let old = &before.children;
        let mut inside = Inside::default();
        let mut kept = vec![false; old.len()];
        for (name, _) in
            handle::list(dir).map_err(|errno| CaptureError::io("reading", path, errno))?
        {
            let path = path.join(&name);
            if (self.options.exclude)(&path) {
                continue;
            }
            let node = Node::read(dir, &name)
                .map_err(|errno| CaptureError::io("reading", &path, errno))?;
            let Some(node) = node else { continue };
            let at = old
                .binary_search_by(|old| old.name.as_bytes().cmp(name.as_bytes()))
                .ok();
            if let Some(at) = at {
                kept[at] = true;
            }
            let recorded = at.map(|at| &old[at]);
            let changed = self.is_changed(dir, &name, &node, recorded, &path)?;
            let within = if node.meta.is_dir() {
                let nothing = Listing::default();
                let before = recorded.map_or(&nothing, |recorded| &recorded.content);
                self.directory(
                    open_dir(dir, &name, &path)?.as_fd(),
                    before,
                    &path,
                    depth + 1,
                )?
            } else {
                Inside::default()
            };
            inside.push(name, node, changed, within);
        }
        let gone = old.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let gone: Vec<_> = gone.map(|(old, _)| old.name.clone()).collect();
        let all = gone.len() >= 2 && gone.len() == old.len() && !before.excluded;
        inside.set_gone(gone, all);
        Ok(inside)
    }

    fn is_changed(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsString,
        node: &Node,
        old: Option<&Recorded>,
        path: &Path,
    ) -> Result<bool, CaptureError> {
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
        let fail = |error: io::Error| CaptureError::io("comparing", path, error);
        let Some(mut before) = reference
            .open_file_opt(path)
            .map_err(|error| fail(io::Error::other(error)))?
        else {
            return Ok(true);
        };
        let mut after = open_file(dir, name).map_err(|errno| fail(errno.into()))?;
        Ok(!same_content(&mut before, &mut after, path)?)
    }
}
