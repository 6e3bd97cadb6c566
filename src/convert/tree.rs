//! Root filesystems unpacked from layers, kept in the store.

use std::fs;
use std::path::PathBuf;

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::chain::chain_id;
use kfactory_layers::digest::Digest;
use kfactory_layers::manifest::Descriptor;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;

use super::{BaseImage, Engine};
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::progress::Transfer;
use crate::stop;
use crate::store::{Run, Store};

/// A layer that unpacks to more than this is taken for an attack.
const MAX_TREE_BYTES: u64 = 64 << 30;
/// The largest distribution images hold some 400 000 entries.
const MAX_TREE_ENTRIES: u64 = 4_000_000;

/// Unpacks the base into one flattened tree, or finds the tree of an earlier run.
pub(super) fn unpack(base: &BaseImage, engine: Engine<'_>, run: &Run) -> Result<PathBuf> {
    let layers: Vec<(Descriptor, Digest)> = base
        .image
        .layers()
        .iter()
        .cloned()
        .zip(base.image.diff_ids().iter().copied())
        .collect();
    flatten(&layers, engine, run)
}

/// Returns the flattened tree of the image called `source`, for `platform` or else for `own`.
pub(super) fn of_image(
    source: &str,
    platform: Option<&str>,
    own: &Platform,
    engine: Engine<'_>,
    run: &Run,
) -> Result<PathBuf> {
    let location = super::parse_location(source, &engine.options.registry)?;
    let platform = match platform {
        Some(_) => super::parse_platform(platform)?,
        None => own.clone(),
    };
    let image = super::base::open(&location, &platform, engine, run)?;
    unpack(&image, engine, run)
}

/// Applies `layers` in order into one tree named by their chain ID; an empty list gives an empty tree.
pub(super) fn flatten(
    layers: &[(Descriptor, Digest)],
    engine: Engine<'_>,
    run: &Run,
) -> Result<PathBuf> {
    let Engine {
        store,
        options,
        reporter,
        ..
    } = engine;
    let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| *diff_id).collect();
    let chain = chain_id(&diff_ids).unwrap_or_else(|| Digest::of(b""));
    if let Some(tree) = store.trusted_tree(&chain) {
        return Ok(tree);
    }
    let made = run.dir().join(format!("tree-{}", chain.hex()));
    fs::create_dir(&made).context(|| format!("creating {}", made.display()))?;
    let root = Root::open(&made).context(|| format!("opening {}", made.display()))?;
    let total = layers.len();
    for (index, (layer, diff_id)) in layers.iter().enumerate() {
        stop::check(&options.cancel)?;
        let what = format!("layer {} of {total}", index + 1);
        let transfer = reporter.transfer("unpack", &what, layer.size);
        apply_layer(&root, layer, diff_id, store, &transfer).map_err(|error| {
            error.context(format!(
                "unpacking layer {} of {total} ({})",
                index + 1,
                layer.digest
            ))
        })?;
    }
    drop(root);
    store.put_tree(&chain, &made)
}

fn apply_layer(
    root: &Root,
    layer: &Descriptor,
    diff_id: &Digest,
    store: &Store,
    transfer: &Transfer,
) -> Result<()> {
    let mut changeset = Changeset::open(store, layer, *diff_id, Some(transfer))?;
    let options = ApplyOptions {
        max_bytes: MAX_TREE_BYTES,
        max_entries: MAX_TREE_ENTRIES,
        // Device nodes of the base stay in its own layers, which are never rewritten; the tree can do without.
        ownership: Ownership::AsFarAsAllowed,
        ..ApplyOptions::default()
    };
    let applied =
        apply(root, &mut changeset, &options).map_err(|error| Error::from_source(&error))?;
    if let Some(entry) = applied
        .ledger
        .iter()
        .find(|entry| entry.dev.is_none() && entry.xattrs.is_empty())
    {
        return Err(Error::user(format!(
            "{:?} belongs to {}:{}, which this user namespace does not map",
            entry.path, entry.uid, entry.gid
        ))
        .hint("give the user a larger range in /etc/subuid and /etc/subgid"));
    }
    changeset.finish()
}
