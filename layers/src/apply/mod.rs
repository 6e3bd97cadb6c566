//! Applies a layer changeset to a root filesystem.
//!
//! The archive is hostile until shown otherwise. Names are checked before use, and every system call works on a directory handle that the
//! kernel opened inside the root, so that neither a name nor a link in the tree, whoever put it there, leads out of it.

mod dirs;
mod entry;
mod nodes;
mod owner;
mod whiteout;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::ledger::LedgerEntry;
use crate::limits::{self, LimitError};
use crate::metadata::{Entry, EntryKind};
use crate::root::Root;
use crate::tar::{ArchiveReader, ReadError};
use crate::whiteout::Special;

pub use entry::{clean_path, link_target, meaning};

use dirs::{Parent, TouchedDir};

/// What to do about metadata that this process may not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// Stop with an error that names path and owner.
    #[default]
    Exact,
    /// Go on, and write it into [`Applied::ledger`]. For device nodes an empty file takes the place.
    AsFarAsAllowed,
}

/// How to apply a changeset.
#[derive(Debug, Clone)]
pub struct ApplyOptions {
    /// What to do about metadata that this process may not set.
    pub ownership: Ownership,
    /// The most file content to make, in bytes, holes included: a hole costs no space here but does wherever the file is copied.
    pub max_bytes: u64,
    /// The most entries and directories that they only imply, of which each takes some memory until the end.
    pub max_entries: u64,
    /// The ledger of the layers below, from which entries go when this layer replaces or removes their path.
    pub ledger: Vec<LedgerEntry>,
}

impl ApplyOptions {
    /// 128 GiB: far above any operating system image, far below what a bomb of a few megabytes holds.
    pub const MAX_BYTES: u64 = 128 << 30;
    /// Ten million: forty times a large desktop system.
    pub const MAX_ENTRIES: u64 = 10_000_000;
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            ownership: Ownership::Exact,
            max_bytes: Self::MAX_BYTES,
            max_entries: Self::MAX_ENTRIES,
            ledger: Vec::new(),
        }
    }
}

/// What a changeset did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Entries in the archive, whiteouts included.
    pub entries: u64,
    /// Regular files made.
    pub files: u64,
    /// Directories made or changed, those included that the archive only implied.
    pub directories: u64,
    /// Symbolic links made.
    pub symlinks: u64,
    /// Further names given to files.
    pub hard_links: u64,
    /// Device nodes and named pipes made.
    pub devices: u64,
    /// Whiteouts, opaque ones included, whether or not there was something to hide.
    pub whiteouts: u64,
    /// File content, in bytes, holes included.
    pub bytes: u64,
    /// Extended attributes left out because only overlayfs itself may set them.
    pub dropped_xattrs: u64,
    /// What could not be set, sorted by path: the entries of [`ApplyOptions::ledger`] that still hold, and those of this layer.
    pub ledger: Vec<LedgerEntry>,
}

/// Why a changeset was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A name in the archive leads out of the rootfs, or would replace the rootfs itself.
    #[error("layer entry {path:?}: {name:?} points outside the rootfs")]
    Escapes {
        /// Path of the entry.
        path: PathBuf,
        /// The name: the path itself, or the target of a hard link.
        name: PathBuf,
    },
    /// An entry has a whiteout's name that names nothing to hide, or stands below one.
    #[error("layer entry {path:?} is not a valid whiteout")]
    InvalidWhiteout {
        /// Path of the entry.
        path: PathBuf,
    },
    /// The content is more than the caller allows.
    #[error("layer entry {path:?}: file content exceeds {limit} bytes")]
    TooLarge {
        /// Path of the entry that passed the limit.
        path: PathBuf,
        /// [`ApplyOptions::max_bytes`].
        limit: u64,
    },
    /// There are more entries, or directories that they imply, than the caller allows.
    #[error("layer entry {path:?} is one more than {limit} entries")]
    TooManyEntries {
        /// Path of the entry that passed the limit.
        path: PathBuf,
        /// [`ApplyOptions::max_entries`].
        limit: u64,
    },
    /// A character device 0:0, which in a lower directory would make overlayfs hide a file.
    #[error("layer entry {path:?} is the device node by which overlayfs marks a removed file")]
    OverlayWhiteout {
        /// Path of the entry.
        path: PathBuf,
    },
    /// The owner may not be set. With [`Ownership::Exact`] only.
    #[error("setting the owner of {path:?} to {uid}:{gid}")]
    Owner {
        /// Path of the entry.
        path: PathBuf,
        /// Owner in the archive.
        uid: u32,
        /// Group in the archive.
        gid: u32,
        /// The system's reason: `EINVAL` for an ID outside the ID map.
        #[source]
        source: io::Error,
    },
    /// An extended attribute may not be set. With [`Ownership::Exact`] only.
    #[error("setting the attribute {name:?} of {path:?}")]
    Xattr {
        /// Path of the entry.
        path: PathBuf,
        /// Name of the attribute.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A hard link could not be made, mostly because its target is missing or a directory.
    #[error("linking {path:?} to {target:?}")]
    HardLink {
        /// Path of the entry.
        path: PathBuf,
        /// What it should be another name of.
        target: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The rootfs could not be changed.
    #[error("{op} {path:?}")]
    Io {
        /// What was being done, as a gerund.
        op: &'static str,
        /// Path of the entry.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The tree would be too deep, or a name too long.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The archive could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl ApplyError {
    pub(crate) fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            op,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Applies one layer changeset to `root` and returns what it did.
///
/// `tar` is the *uncompressed* stream, and is read to its end. A whiteout hides only what lower layers put there, wherever in the stream it
/// stands. Missing parents are made: mode 0755, owner 0:0, time 0. Directories that the archive does not describe keep the
/// times they had. Attributes of overlayfs (`user.overlay.*`, `trusted.overlay.*`) are left out, since the tree may become a lower directory.
///
/// # Errors
///
/// - [`ApplyError::Escapes`]: an entry or hard-link target names something outside `root`.
/// - [`ApplyError::InvalidWhiteout`], [`ApplyError::OverlayWhiteout`]: a name or device node that only pretends to be an entry.
/// - [`ApplyError::TooLarge`], [`ApplyError::TooManyEntries`]: a limit of `options` was passed.
/// - [`ApplyError::Limit`]: the tree would be too deep, or a name too long.
/// - [`ApplyError::Owner`], [`ApplyError::Xattr`]: this process may not, and `options` ask for [`Ownership::Exact`].
/// - [`ApplyError::HardLink`], [`ApplyError::Io`]: the system refused.
/// - [`ApplyError::Read`]: the archive is broken, cut off, or ambiguous.
///
/// On error `root` is left half-changed: discard it, do not retry into it.
///
/// Spec: image-spec `layer.md`, "Applying Changesets" and "Whiteouts".
pub fn apply(root: &Root, tar: impl Read, options: &ApplyOptions) -> Result<Applied, ApplyError> {
    let mut archive = ArchiveReader::new(tar);
    let mut applying = Applying::new(root, options);
    while let Some(entry) = archive.next_entry()? {
        applying.entry(&entry, &mut archive)?;
    }
    applying.finish()
}

/// Identifies a directory while it exists.
type DirId = (u64, u64);

/// One changeset on its way into the tree.
struct Applying<'a> {
    root: &'a Root,
    options: &'a ApplyOptions,
    /// The directory that the last entry was in; entries come in directory order, so the next one mostly is too.
    parent: Option<Rc<Parent>>,
    /// What this layer made, by directory and name: what its whiteouts do not hide.
    made: HashSet<(DirId, Box<[u8]>)>,
    /// What its whiteouts have hidden, in the same way; `.` for everything in the directory.
    hidden: HashSet<(DirId, Box<[u8]>)>,
    /// Directories whose final times, modes and inherited ACLs are set at the end, when nothing is created in them any more.
    touched: HashMap<DirId, TouchedDir>,
    ledger: BTreeMap<PathBuf, LedgerEntry>,
    done: Applied,
    /// Entries, and directories that they only imply.
    objects: u64,
    /// Owner and group that this process gives to what it makes.
    own: (u32, u32),
}

impl<'a> Applying<'a> {
    fn new(root: &'a Root, options: &'a ApplyOptions) -> Self {
        let ledger = options
            .ledger
            .iter()
            .map(|entry| (entry.path.clone(), entry.clone()));
        Self {
            root,
            options,
            parent: None,
            made: HashSet::new(),
            hidden: HashSet::new(),
            touched: HashMap::new(),
            ledger: ledger.collect(),
            done: Applied::default(),
            objects: 0,
            own: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        }
    }

    fn entry(
        &mut self,
        entry: &Entry,
        archive: &mut ArchiveReader<impl Read>,
    ) -> Result<(), ApplyError> {
        self.count(entry)?;
        let path = clean_path(entry)?;
        match meaning(&path, entry)? {
            Special::None => self.object(&path, entry, archive),
            Special::Whiteout(hidden) => self.whiteout(&path, hidden),
            Special::Opaque => self.opaque(&path),
            Special::Ignored => Ok(()),
        }
    }

    fn count(&mut self, entry: &Entry) -> Result<(), ApplyError> {
        self.done.entries += 1;
        self.count_object(&entry.path)?;
        self.done.bytes = self.done.bytes.saturating_add(entry.content_size());
        if self.done.bytes > self.options.max_bytes {
            return Err(ApplyError::TooLarge {
                path: entry.path.clone(),
                limit: self.options.max_bytes,
            });
        }
        Ok(())
    }

    fn count_object(&mut self, path: &Path) -> Result<(), ApplyError> {
        self.objects += 1;
        if self.objects > self.options.max_entries {
            return Err(ApplyError::TooManyEntries {
                path: path.to_owned(),
                limit: self.options.max_entries,
            });
        }
        Ok(())
    }

    fn object(
        &mut self,
        path: &Path,
        entry: &Entry,
        archive: &mut ArchiveReader<impl Read>,
    ) -> Result<(), ApplyError> {
        let Some(name) = path.file_name() else {
            return self.root_directory(entry);
        };
        let parent = self.parent(path.parent().unwrap_or(Path::new("")))?;
        limits::check(&parent.real.join(name))?;
        let place = Place {
            path,
            parent: &parent,
            name,
        };
        match &entry.kind {
            EntryKind::File { size } => self.file(&place, entry, *size, archive)?,
            EntryKind::Directory => self.directory(&place, entry)?,
            EntryKind::Symlink { target } => self.symlink(&place, entry, target)?,
            EntryKind::HardLink { target } => {
                let target = link_target(target, entry)?;
                self.hard_link(&place, &target)?;
            }
            EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) | EntryKind::Fifo => {
                self.device(&place, entry)?
            }
        }
        self.made.insert((parent.id, name.as_bytes().into()));
        Ok(())
    }
}

/// Where an entry goes.
struct Place<'a> {
    /// Clean path, for messages.
    path: &'a Path,
    parent: &'a Rc<Parent>,
    name: &'a OsStr,
}
