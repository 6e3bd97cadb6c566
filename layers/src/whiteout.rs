//! The names in a changeset that are no files but say what of the lower layers is hidden.
//!
//! Whoever reads a changeset goes by the same rule: a name hides what lower layers put there, wherever in the archive it stands, and
//! nothing of what its own layer brings; a directory stays as long as something of its own layer is in it.
//!
//! Spec: image-spec `layer.md`, "Whiteouts" and "Opaque Whiteout".

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::overlay::{WHITEOUT_OPAQUE, WHITEOUT_PREFIX};

/// Directories that the AUFS driver of early Docker left in layers.
const AUFS: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What the name of an entry makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special<'a> {
    /// An ordinary entry.
    None,
    /// Hides this name in the same directory.
    Whiteout(&'a OsStr),
    /// Hides everything in the same directory.
    Opaque,
    /// Bookkeeping of another tool.
    Ignored,
}

/// Reads the name of an entry, a relative path without `.` and `..`; `None` when it has the form of a whiteout but cannot be one.
pub fn special(path: &Path) -> Option<Special<'_>> {
    let mut parts = path.iter().rev();
    let last = parts.next().unwrap_or_default();
    for part in path.iter() {
        if AUFS.contains(&part.as_bytes()) {
            return Some(Special::Ignored);
        }
    }
    if parts.any(|part| part.as_bytes().starts_with(WHITEOUT_PREFIX)) {
        return None;
    }
    match last.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
        None => Some(Special::None),
        Some(_) if last.as_bytes() == WHITEOUT_OPAQUE => Some(Special::Opaque),
        Some(b"" | b"." | b"..") => None,
        Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) => None,
        Some(hidden) => Some(Special::Whiteout(OsStr::from_bytes(hidden))),
    }
}
