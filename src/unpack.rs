//! `kfactory unpack`: an image's root filesystem as a directory.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::image::Image;
use kfactory_layers::root::Root;

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
    /// Entries whose owner, device or attributes could not be applied.
    pub not_applied: usize,
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
/// Owners, device nodes and attributes are applied as far as the caller may; the rest goes to `ledger`, one JSON object
/// a line. On error `dir` is left half-filled.
///
/// # Errors
///
/// A damaged or hostile layer, or a full disk.
pub fn unpack(image: &Image, dir: &Path, ledger: Option<&Path>, store: &Store) -> Result<Unpacked> {
    std::fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
    let root = Root::open(dir).context(|| format!("opening {}", dir.display()))?;
    let mut out = match ledger {
        Some(path) => Some(BufWriter::new(
            File::create(path).context(|| format!("creating {}", path.display()))?,
        )),
        None => None,
    };
    let mut done = Unpacked::default();
    let options = ApplyOptions {
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
        done.not_applied += applied.ledger.len();
        if let Some(out) = &mut out {
            for entry in &applied.ledger {
                writeln!(
                    out,
                    "{}",
                    entry
                        .to_line()
                        .map_err(|error| Error::from_source(&error))?
                )
                .context(|| "writing the ledger".into())?;
            }
        }
    }
    if let Some(mut out) = out {
        out.flush().context(|| "writing the ledger".into())?;
    }
    Ok(done)
}
