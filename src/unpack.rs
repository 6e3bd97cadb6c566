//! `kfactory unpack`: an image's root filesystem as a directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::image::Image;
use kfactory_layers::ledger::LedgerEntry;
use kfactory_layers::metadata::{FileKind, Xattrs};
use kfactory_layers::root::Root;
use kfactory_sandbox::stage::maps_ids;

use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::store::Store;

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpacked {
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes of file content written.
    pub bytes: u64,
    /// Objects whose owner, device or attributes could not be applied.
    pub not_applied: usize,
    /// Whether owners look different from outside this process's user namespace.
    pub maps_ids: bool,
}

/// Checks that `dir` is missing or empty.
///
/// # Errors
///
/// It holds something, or is no directory.
pub fn check_target(dir: &Path) -> Result<()> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::user(format!("{} is not empty", dir.display()))
                .hint("unpack into a new directory")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(Error::from(error).context(format!("cannot unpack into {}", dir.display())))
        }
    }
}

/// Applies every layer of `image`, whose blobs are in `store`, to `dir`.
///
/// Owners, device nodes and attributes are applied as far as the caller may. What the tree lacks of the image goes to the
/// file `ledger`, one JSON object a line ([`LedgerEntry`]): what could not be applied, and, where this process is in a user
/// namespace that maps IDs, also every owner that looks different from outside. On error `dir` is left half-filled.
///
/// # Errors
///
/// A damaged or hostile layer, or a full disk.
pub fn unpack(image: &Image, dir: &Path, ledger: Option<&Path>, store: &Store) -> Result<Unpacked> {
    std::fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
    let root = Root::open(dir).context(|| format!("opening {}", dir.display()))?;
    // Made before the long work: a place that cannot be written is found at once.
    let ledger = ledger.map(LedgerFile::create).transpose()?;
    let mut done = Unpacked {
        maps_ids: maps_ids(),
        ..Unpacked::default()
    };
    let mut options = ApplyOptions {
        ownership: Ownership::AsFarAsAllowed,
        ..ApplyOptions::default()
    };
    let total = image.layers().len();
    for (index, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
        let doing = || {
            format!(
                "unpacking layer {} of {total} ({})",
                index + 1,
                layer.digest
            )
        };
        let mut changeset = Changeset::open(store, layer, *diff_id, None)
            .map_err(|error| error.context(doing()))?;
        let applied = apply(&root, &mut changeset, &options).context(doing)?;
        changeset.finish().map_err(|error| error.context(doing()))?;
        done.entries += applied.entries;
        done.bytes += applied.bytes;
        options.ledger = applied.ledger;
    }
    done.not_applied = options.ledger.len();
    if let Some(mut file) = ledger {
        let refused = options.ledger.into_iter();
        let mut refused = refused
            .map(|entry| (entry.path.clone(), entry))
            .collect::<BTreeMap<_, _>>();
        if done.maps_ids {
            file.object(&root, PathBuf::new(), FileKind::Directory, &mut refused)?;
        }
        refused.values().try_for_each(|entry| file.write(entry))?;
        file.finish()?;
    }
    Ok(done)
}

/// The ledger being written.
struct LedgerFile {
    out: BufWriter<File>,
    path: PathBuf,
}

impl LedgerFile {
    fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).context(|| format!("creating {}", path.display()))?;
        Ok(Self {
            out: BufWriter::new(file),
            path: path.to_owned(),
        })
    }

    /// Writes the object at `path` and everything below it; what `refused` has of them is taken out and goes into their lines.
    fn object(
        &mut self,
        root: &Root,
        path: PathBuf,
        kind: FileKind,
        refused: &mut BTreeMap<PathBuf, LedgerEntry>,
    ) -> Result<()> {
        let found = root.symlink_metadata_opt(&path)?.ok_or_else(|| {
            Error::user(format!("{} disappeared from the new tree", path.display()))
        })?;
        let mut entry = refused.remove(&path).unwrap_or_else(|| LedgerEntry {
            path: path.clone(),
            uid: found.uid,
            gid: found.gid,
            mode: found.mode & 0o7777,
            dev: None,
            xattrs: Xattrs::new(),
        });
        // The root itself has no name by which its attributes could be read; nobody gives it any.
        if path != Path::new("") {
            let applied = root.xattrs(&path)?.into_iter();
            entry
                .xattrs
                .extend(applied.filter(|(name, _)| holds_an_id(name)));
        }
        self.write(&entry)?;
        if kind == FileKind::Directory {
            for child in root.read_dir(&path)? {
                self.object(root, path.join(&child.name), child.kind, refused)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: &LedgerEntry) -> Result<()> {
        let line = entry
            .to_line()
            .map_err(|error| Error::from_source(&error))?;
        writeln!(self.out, "{line}").context(|| format!("writing {}", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.out
            .flush()
            .context(|| format!("writing {}", self.path.display()))
    }
}

/// Returns whether the kernel stores IDs of the user namespace in this attribute, or drops it when the owner changes.
fn holds_an_id(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}
