//! Changes from the upper directory of an overlay mount.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::changeset::Inside;
use super::node::{Node, open_dir, open_file, same_content};
use super::{CaptureError, CaptureOptions, Change, open_root};
use crate::handle;
use crate::limits;
use crate::metadata::{Device, FileKind};
use crate::root::Root;

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
    let all: Vec<usize> = (0..layers.len()).collect();
    let top = Level {
        lowers: &all,
        path: Path::new(""),
        opaque: false,
    };
    let reading = Reading {
        root,
        layers,
        options,
    };
    reading.directory(&top)?.into_changes()
}

/// What the lower directories together have under one name.
#[derive(Default)]
struct Below {
    node: Option<Node>,
    /// Which of the open lower directories has it.
    at: usize,
    /// The lower layers whose directories together make it, the topmost first; empty when it is no directory.
    dirs: Vec<usize>,
}

/// One directory of the upper layer and its counterparts below. They are closed while what is in them is read: as many levels as
/// there may be, with as many layers as there may be, would be more than a process may have open.
struct Level<'a> {
    /// The lower layers that show in it, the topmost first.
    lowers: &'a [usize],
    path: &'a Path,
    /// Nothing of the lower directories shows: overlayfs marks only the topmost of nested opaque directories.
    opaque: bool,
}

/// The open directories of one level.
struct Opened {
    dir: OwnedFd,
    /// Each with the number of its layer.
    lowers: Vec<(usize, OwnedFd)>,
}

/// One object of the upper layer.
struct Present {
    name: OsString,
    node: Node,
    changed: bool,
    /// As in [`Below`].
    lowers: Vec<usize>,
}

struct Reading<'a> {
    root: Root,
    /// The lower layers, the topmost first.
    layers: Vec<OwnedFd>,
    options: &'a CaptureOptions<'a>,
}

impl Reading<'_> {
    fn directory(&self, level: &Level<'_>) -> Result<Inside, CaptureError> {
        let (objects, mut inside) = self.read(level)?;
        for object in objects {
            let within = if object.node.meta.is_dir() {
                self.directory(&Level {
                    lowers: &object.lowers,
                    path: &level.path.join(&object.name),
                    opaque: level.opaque || is_opaque(&object.node),
                })?
            } else {
                Inside::default()
            };
            inside.push(object.name, object.node, object.changed, within);
        }
        Ok(inside)
    }

    fn open(&self, level: &Level<'_>) -> Result<Opened, CaptureError> {
        let mut lowers = Vec::with_capacity(level.lowers.len());
        for &layer in level.lowers {
            lowers.push((layer, open_dir(&self.layers[layer], level.path)?));
        }
        let dir = open_dir(&self.root, level.path)?;
        Ok(Opened { dir, lowers })
    }

    /// Reads one directory, but nothing below it: what is there, and, in the second part, what is gone.
    fn read(&self, level: &Level<'_>) -> Result<(Vec<Present>, Inside), CaptureError> {
        let opened = self.open(level)?;
        let names = handle::list(opened.dir.as_fd())
            .map_err(|errno| CaptureError::io("reading", level.path, errno))?;
        let mut objects = Vec::new();
        let mut present = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for (name, _) in names {
            let path = level.path.join(&name);
            if (self.options.exclude)(&path) {
                continue;
            }
            limits::check(&path)?;
            let below = look_below(&opened.lowers, &name, &path)?;
            let node = Node::read(opened.dir.as_fd(), &name)
                .map_err(|errno| CaptureError::io("reading", &path, errno))?;
            match node.filter(|node| !is_whiteout(node)) {
                Some(node) => {
                    check_features(&node, &path)?;
                    present.insert(name.clone());
                    objects.push(Present {
                        changed: is_changed(&opened, &name, &node, &below, &path)?,
                        lowers: below.dirs,
                        name,
                        node,
                    });
                }
                None if below.node.is_some() => _ = gone.insert(name),
                None => {}
            }
        }
        let inside = self.find_gone(level, &opened.lowers, &present, gone)?;
        Ok((objects, inside))
    }

    /// Returns what the upper layer hides. An opaque directory hides every name that it does not have itself.
    fn find_gone(
        &self,
        level: &Level<'_>,
        lowers: &[(usize, OwnedFd)],
        present: &BTreeSet<OsString>,
        mut gone: BTreeSet<OsString>,
    ) -> Result<Inside, CaptureError> {
        let mut inside = Inside::default();
        if !level.opaque && gone.len() < 2 {
            inside.set_gone(gone.into_iter().collect(), false);
            return Ok(inside);
        }
        let mut count = 0;
        for name in names_below(lowers, level.path)? {
            let path = level.path.join(&name);
            if look_below(lowers, &name, &path)?.node.is_none() {
                continue;
            }
            count += 1;
            if level.opaque && !present.contains(&name) && !(self.options.exclude)(&path) {
                gone.insert(name);
            }
        }
        let all = count >= 2 && gone.len() == count;
        inside.set_gone(gone.into_iter().collect(), all);
        Ok(inside)
    }
}

fn is_changed(
    opened: &Opened,
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
    let (_, lower) = &opened.lowers[below.at];
    let mut old = open_file(lower.as_fd(), name).map_err(fail)?;
    let mut new = open_file(opened.dir.as_fd(), name).map_err(fail)?;
    Ok(!same_content(&mut old, &mut new, path)?)
}

/// Returns what `lowers`, the topmost first, together have under `name`.
fn look_below(
    lowers: &[(usize, OwnedFd)],
    name: &OsStr,
    path: &Path,
) -> Result<Below, CaptureError> {
    let fail = |errno| CaptureError::io("reading", path, errno);
    let mut below = Below::default();
    for (at, (layer, lower)) in lowers.iter().enumerate() {
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
            below.dirs.push(*layer);
        }
        if below.node.is_none() {
            below.at = at;
            below.node = Some(node);
        }
        if last {
            break;
        }
    }
    Ok(below)
}

/// Returns all names in the lower directories, those included that one of them hides.
fn names_below(
    lowers: &[(usize, OwnedFd)],
    path: &Path,
) -> Result<BTreeSet<OsString>, CaptureError> {
    let mut names = BTreeSet::new();
    for (_, lower) in lowers {
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
