//! Changes from the upper directory of an overlay mount.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::changeset::Inside;
use super::node::{Node, open_dir, open_file, same_content};
use super::{CaptureError, CaptureOptions, Change, MAX_DEPTH, open_root};
use crate::handle;
use crate::metadata::{Device, FileKind};

/// Returns what an overlay mount changed, in the order of the archive. Arguments as for [`capture_upper`](super::capture_upper).
///
/// # Errors
///
/// Every variant of [`CaptureError`] but [`CaptureError::Write`].
pub fn diff_upper(
    upper: &Path,
    lowers: &[PathBuf],
    options: &CaptureOptions<'_>,
) -> Result<Vec<Change>, CaptureError> {
    let root = open_root(upper)?;
    let mut layers = Vec::new();
    for lower in lowers {
        let fd = handle::open_dir_in_root(open_root(lower)?.as_fd(), Path::new(""));
        layers.push(fd.map_err(|errno| CaptureError::io("opening", lower, errno))?);
    }
    let top = Level {
        dir: root.as_fd(),
        lowers: &layers,
        path: Path::new(""),
        opaque: false,
        depth: 0,
    };
    Reading { options }.directory(&top)?.into_changes()
}

/// What the lower directories together have under one name.
#[derive(Default)]
struct Below {
    node: Option<Node>,
    /// Which of the directories has it.
    layer: usize,
    /// The directories that together make it, the topmost first; empty when it is no directory.
    dirs: Vec<OwnedFd>,
}

/// One directory of the upper layer and its counterparts below.
struct Level<'a> {
    dir: BorrowedFd<'a>,
    lowers: &'a [OwnedFd],
    path: &'a Path,
    /// Nothing of the lower directories shows: overlayfs marks only the topmost of nested opaque directories.
    opaque: bool,
    depth: usize,
}

struct Reading<'a> {
    options: &'a CaptureOptions<'a>,
}

impl Reading<'_> {
    fn directory(&self, level: &Level<'_>) -> Result<Inside, CaptureError> {
        if level.depth > MAX_DEPTH {
            return Err(CaptureError::TooDeep {
                path: level.path.to_owned(),
            });
        }
        let names = handle::list(level.dir)
            .map_err(|errno| CaptureError::io("reading", level.path, errno))?;
        let mut inside = Inside::default();
        let mut present = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for (name, _) in names {
            let path = level.path.join(&name);
            if (self.options.exclude)(&path) {
                continue;
            }
            let below = look_below(level.lowers, &name, &path)?;
            let node = Node::read(level.dir, &name)
                .map_err(|errno| CaptureError::io("reading", &path, errno))?;
            match node.filter(|node| !is_whiteout(node)) {
                Some(node) => {
                    check_features(&node, &path)?;
                    let changed = is_changed(level, &name, &node, &below, &path)?;
                    let within = self.below(level, &name, &node, &below, &path)?;
                    present.insert(name.clone());
                    inside.push(name, node, changed, within);
                }
                None if below.node.is_some() => _ = gone.insert(name),
                None => {}
            }
        }
        self.find_gone(&mut inside, level, &present, gone)?;
        Ok(inside)
    }

    fn below(
        &self,
        level: &Level<'_>,
        name: &OsStr,
        node: &Node,
        below: &Below,
        path: &Path,
    ) -> Result<Inside, CaptureError> {
        if !node.meta.is_dir() {
            return Ok(Inside::default());
        }
        let child = open_dir(level.dir, name, path)?;
        self.directory(&Level {
            dir: child.as_fd(),
            lowers: &below.dirs,
            path,
            opaque: level.opaque || is_opaque(node),
            depth: level.depth + 1,
        })
    }

    /// Adds what the upper layer hides. An opaque directory hides every name that it does not have itself.
    fn find_gone(
        &self,
        inside: &mut Inside,
        level: &Level<'_>,
        present: &BTreeSet<OsString>,
        mut gone: BTreeSet<OsString>,
    ) -> Result<(), CaptureError> {
        if !level.opaque && gone.len() < 2 {
            inside.set_gone(gone.into_iter().collect(), false);
            return Ok(());
        }
        let mut count = 0;
        for name in names_below(level.lowers, level.path)? {
            let path = level.path.join(&name);
            if look_below(level.lowers, &name, &path)?.node.is_none() {
                continue;
            }
            count += 1;
            if level.opaque && !present.contains(&name) && !(self.options.exclude)(&path) {
                gone.insert(name);
            }
        }
        let all = count >= 2 && gone.len() == count;
        inside.set_gone(gone.into_iter().collect(), all);
        Ok(())
    }
}

fn is_changed(
    level: &Level<'_>,
    name: &OsStr,
    node: &Node,
    below: &Below,
    path: &Path,
) -> Result<bool, CaptureError> {
    let Some(before) = below.node.as_ref().filter(|before| before.is_like(node)) else {
        return Ok(true);
    };
    if !node.meta.is_file() || before.meta.size == 0 {
        return Ok(false);
    }
    let fail = |errno| CaptureError::io("opening", path, errno);
    let mut old = open_file(level.lowers[below.layer].as_fd(), name).map_err(fail)?;
    let mut new = open_file(level.dir, name).map_err(fail)?;
    Ok(!same_content(&mut old, &mut new, path)?)
}

/// Returns what `lowers`, the topmost first, together have under `name`.
fn look_below(lowers: &[OwnedFd], name: &OsStr, path: &Path) -> Result<Below, CaptureError> {
    let fail = |errno| CaptureError::io("reading", path, errno);
    let mut below = Below::default();
    for (layer, lower) in lowers.iter().enumerate() {
        // Only the kind is of interest once the metadata is known.
        let Some(node) = Node::read(lower.as_fd(), name).map_err(fail)? else {
            continue;
        };
        let is_dir = node.meta.is_dir();
        if is_whiteout(&node) || (below.node.is_some() && !is_dir) {
            break;
        }
        check_features(&node, path)?;
        let last = !is_dir || is_opaque(&node);
        if is_dir {
            below.dirs.push(open_dir(lower, name, path)?);
        }
        if below.node.is_none() {
            below.layer = layer;
            below.node = Some(node);
        }
        if last {
            break;
        }
    }
    Ok(below)
}

/// Returns all names in the lower directories, those included that one of them hides.
fn names_below(lowers: &[OwnedFd], path: &Path) -> Result<BTreeSet<OsString>, CaptureError> {
    let mut names = BTreeSet::new();
    for lower in lowers {
        let list = handle::list(lower.as_fd())
            .map_err(|errno| CaptureError::io("reading", path, errno))?;
        names.extend(list.into_iter().map(|(name, _)| name));
    }
    Ok(names)
}

/// Returns overlayfs's note `name`, whichever of the two prefixes the mount used.
fn note<'a>(node: &'a Node, name: &str) -> Option<&'a [u8]> {
    ["user.overlay.", "trusted.overlay."]
        .iter()
        .find_map(|prefix| {
            let key = format!("{prefix}{name}").into_bytes();
            node.overlay.get(&key).map(Vec::as_slice)
        })
}

fn is_opaque(node: &Node) -> bool {
    note(node, "opaque") == Some(b"y")
}

/// A whiteout is a device node, or, where such nodes cannot be made, an empty file with a note.
fn is_whiteout(node: &Node) -> bool {
    match node.meta.kind {
        FileKind::CharDevice => node.meta.rdev == Device::WHITEOUT,
        FileKind::File => node.meta.size == 0 && note(node, "whiteout").is_some(),
        _ => false,
    }
}

/// Refuses objects whose content is elsewhere.
fn check_features(node: &Node, path: &Path) -> Result<(), CaptureError> {
    for (name, feature) in [("metacopy", "metacopy"), ("redirect", "redirect_dir")] {
        if note(node, name).is_some() {
            return Err(CaptureError::OverlayFeature {
                path: path.to_owned(),
                feature,
            });
        }
    }
    Ok(())
}
