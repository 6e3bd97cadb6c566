//! What changed in a root filesystem, as a layer changeset.
//!
//! There are two ways to find out: reading the upper directory of an overlay mount ([`capture_upper`]), and comparing a tree with a
//! [`Snapshot`] taken before ([`capture_walk`]). Both compare the state before with the state after, so the same change gives the same
//! changeset, byte for byte; how it came about leaves no trace. The rules:
//!
//! * An object is a change when its kind, mode, owner, extended attributes, target, device number, size, content or time differ. A file that
//!   was copied up, or written again with what it had, is none.
//! * A directory is a change when its mode, owner or attributes differ. Its time alone is no change: every temporary file in it alters that.
//! * All directories above a change are part of the changeset, except the root directory itself, which never is.
//! * What is gone becomes a whiteout. Where none of a directory's two or more old names is left, one opaque whiteout stands for all.
//! * Names of one file are changes together: when one of them is, so are the others that are found with it. The first in order carries the
//!   content, the others are hard links to it.
//! * Excluded paths do not exist, before or after.
//! * Sockets do not exist, since no archive holds them. Security labels (`security.selinux`), `trusted.*` attributes and the notes of overlayfs
//!   belong to the machine, not to the image.

mod changeset;
mod node;
mod upper;
mod walk;
mod write;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::limits::LimitError;
use crate::metadata::Entry;
use crate::root::Root;
use crate::tar::WriteError;

pub use upper::diff_upper;
pub use walk::{Snapshot, diff_walk};
pub use write::write_changeset;

/// One difference between two states of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The object at the entry's path is new or different. Times are as found, not clamped.
    Upsert(Box<Entry>),
    /// The object at this path is gone.
    Whiteout(PathBuf),
    /// Everything that was in the directory at this path is gone.
    OpaqueWhiteout(PathBuf),
}

impl Change {
    /// Returns the path of the object that changed.
    pub fn path(&self) -> &Path {
        match self {
            Self::Upsert(entry) => &entry.path,
            Self::Whiteout(path) | Self::OpaqueWhiteout(path) => path,
        }
    }
}

/// How to capture a changeset.
#[derive(Clone, Copy)]
pub struct CaptureOptions<'a> {
    /// The latest time that an entry may have, in seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub clamp_mtime: Option<i64>,
    /// Says which paths, relative to the root, are residue of the build. What is below an excluded directory is never asked for.
    pub exclude: &'a dyn Fn(&Path) -> bool,
    /// For [`capture_walk`]: an untouched copy of the tree before, to tell files that were written again from those with new content.
    /// Without it, a file that was touched in any way is a change.
    pub reference: Option<&'a Root>,
}

impl Default for CaptureOptions<'_> {
    fn default() -> Self {
        Self {
            clamp_mtime: None,
            exclude: &|_| false,
            reference: None,
        }
    }
}

impl fmt::Debug for CaptureOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureOptions")
            .field("clamp_mtime", &self.clamp_mtime)
            .field("reference", &self.reference)
            .finish_non_exhaustive()
    }
}

/// What a captured changeset holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    /// Entries in the archive; 0 when nothing changed.
    pub entries: u64,
    /// Regular files among them, hard links not counted.
    pub files: u64,
    /// Content of these files, in bytes.
    pub bytes: u64,
    /// Whiteouts among them, opaque ones included.
    pub whiteouts: u64,
}

/// Why a changeset could not be captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The tree could not be read.
    #[error("{op} {path:?}")]
    Io {
        /// What was being done, as a gerund.
        op: &'static str,
        /// Path inside the tree, or of the tree itself.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A name begins with `.wh.`, which in a layer says that something is gone.
    #[error("no layer can hold {path:?}: names that begin with `.wh.` are whiteouts")]
    WhiteoutName {
        /// Path inside the tree.
        path: PathBuf,
    },
    /// The upper directory is only understood together with features of overlayfs that must be off.
    #[error("{path:?} depends on the overlayfs feature `{feature}`")]
    OverlayFeature {
        /// Path inside the upper directory.
        path: PathBuf,
        /// Mount option that would have to be off.
        feature: &'static str,
    },
    /// The tree is deeper than one may be to be applied.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The changeset could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl CaptureError {
    fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Writes what an overlay mount changed, from its upper directory alone where nothing below has to be asked.
///
/// `lowers` are the lower directories, the topmost first, as overlayfs was given them; they may hold whiteouts themselves. The mount should use
/// `userxattr`, and neither `redirect_dir` nor `metacopy`; nothing may write to it any more.
///
/// # Errors
///
/// Every variant of [`CaptureError`]. What was written until then is no archive.
///
/// Spec: image-spec `layer.md`, "Representing Changes"; kernel `overlayfs.rst`, "whiteouts and opaque directories".
pub fn capture_upper(
    upper: &Path,
    lowers: &[PathBuf],
    options: &CaptureOptions<'_>,
    out: impl Write,
) -> Result<Captured, CaptureError> {
    let changes = diff_upper(upper, lowers, options)?;
    let root = open_root(upper)?;
    write_changeset(&changes, &root, options, out)
}

/// Writes what changed in `root` since `before` was taken.
///
/// # Errors
///
/// Every variant of [`CaptureError`] but [`CaptureError::OverlayFeature`]. What was written until then is no archive.
///
/// Spec: image-spec `layer.md`, "Representing Changes".
pub fn capture_walk(
    before: &Snapshot,
    root: &Root,
    options: &CaptureOptions<'_>,
    out: impl Write,
) -> Result<Captured, CaptureError> {
    let changes = diff_walk(before, root, options)?;
    write_changeset(&changes, root, options, out)
}

fn open_root(path: &Path) -> Result<Root, CaptureError> {
    Root::open(path).map_err(|error| CaptureError::io("opening", path, io::Error::other(error)))
}
