//! `kfactory unpack`: an image's root filesystem as a directory. `kfactory restore` is in [`restore`].

mod ledger;
pub mod restore;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::image::Image;
use kfactory_layers::ledger::LedgerEntry;
use kfactory_layers::metadata::FileKind;
use kfactory_layers::root::Root;
use kfactory_sandbox::stage::maps_ids;

use crate::changeset::Changeset;
use crate::error::{Context as _, Result};
use crate::staging::{self, Staging};
use crate::store::Store;
use ledger::LedgerFile;

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpacked {
    /// Paths of the tree, its top directory among them: as many as `find` lists, and as a ledger of the whole tree has entries.
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
    staging::check_free(dir).map_err(|error| error.hint("unpack into a new directory"))
}

/// Applies every layer of `image`, whose blobs are in `store`, to `dir`.
///
/// Owners, device nodes and attributes are applied as far as the caller may. What the tree lacks of the image goes to the
/// file `ledger`, one JSON object a line ([`LedgerEntry`]): what could not be applied, and, where this process is in a user
/// namespace that maps IDs, also every owner that looks different from outside. Tree and ledger appear when they are whole.
///
/// # Errors
///
/// A damaged or hostile layer, a full disk, or the end of the run by its user.
pub fn unpack(image: &Image, dir: &Path, ledger: Option<&Path>, store: &Store) -> Result<Unpacked> {
    // Both made before the long work: a place that cannot be written is found at once.
    let staging = Staging::start(dir)?;
    let ledger = ledger
        .map(|path| LedgerFile::create(path, dir))
        .transpose()?;
    let doing = || format!("making {}", dir.display());
    let root = Root::open(staging.path()).context(doing)?;
    let (mut done, refused) = apply_all(image, &root, dir, store)?;
    done.maps_ids = maps_ids();
    done.not_applied = refused.len();
    done.entries = count(&root).context(doing)?;
    let ledger = match ledger {
        Some(file) => Some(write_ledger(file, &root, refused, done.maps_ids)?),
        None => None,
    };
    staging.finish().map_err(|error| {
        if let Some(written) = ledger {
            written.remove();
        }
        error.context(doing())
    })?;
    Ok(done)
}

/// Applies the layers to `root`, which is to become `dir`, and returns what could not be applied.
fn apply_all(
    image: &Image,
    root: &Root,
    dir: &Path,
    store: &Store,
) -> Result<(Unpacked, Vec<LedgerEntry>)> {
    let mut done = Unpacked::default();
    let mut options = ApplyOptions {
        ownership: Ownership::AsFarAsAllowed,
        ..ApplyOptions::default()
    };
    let total = image.layers().len();
    for (index, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
        let doing = || {
            format!(
                "unpacking layer {} of {total} ({}) into {}",
                index + 1,
                layer.digest,
                dir.display()
            )
        };
        let mut changeset = Changeset::open(store, layer, *diff_id, None)
            .map_err(|error| error.context(doing()))?;
        let applied = apply(root, &mut changeset, &options).context(doing)?;
        changeset.finish().map_err(|error| error.context(doing()))?;
        done.bytes += applied.bytes;
        options.ledger = applied.ledger;
    }
    Ok((done, options.ledger))
}

/// Counts the paths of a tree.
fn count(root: &Root) -> Result<u64> {
    let mut paths = 1;
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for child in root.read_dir(&dir)? {
            paths += 1;
            if child.kind == FileKind::Directory {
                todo.push(dir.join(&child.name));
            }
        }
    }
    Ok(paths)
}

fn write_ledger(
    mut file: LedgerFile,
    root: &Root,
    refused: Vec<LedgerEntry>,
    maps_ids: bool,
) -> Result<ledger::Written> {
    let mut refused = refused
        .into_iter()
        .map(|entry| (entry.path.clone(), entry))
        .collect::<BTreeMap<_, _>>();
    if maps_ids {
        file.object(root, PathBuf::new(), FileKind::Directory, &mut refused)?;
    }
    refused.values().try_for_each(|entry| file.write(entry))?;
    file.finish()
}
