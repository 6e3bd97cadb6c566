//! The contents of an image's files, each read once, in the order in which the layers hold them.

use std::collections::BTreeSet;
use std::io::Read;

use kfactory_layers::apply::{clean_path, meaning};
use kfactory_layers::image::Image;
use kfactory_layers::metadata::{Entry, EntryKind};
use kfactory_layers::tar::ArchiveReader;
use kfactory_layers::whiteout::Special;

use super::layer_of;
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Result};
use crate::progress::Transfer;
use crate::store::Store;

/// Gets the content of one file: its [`id`](super::FileNode::id), its size in bytes and its bytes, as many of which may be read as are wanted.
pub type Sink<'a> = dyn FnMut(u64, u64, &mut dyn Read) -> Result<()> + 'a;

/// Hands over the content of every file of `image` whose [`id`](super::FileNode::id) is in `wanted`, ordered by that.
///
/// The IDs are those of the tree that [`of_image`](super::of_image) made of the same image. Layers without such a file are not read;
/// each of the others is counted by `progress` as it is read, and checked against its digest, size and diff ID, the last of them after all its files were handed over.
///
/// # Errors
///
/// A damaged layer, or what `sink` says.
pub fn contents(
    image: &Image,
    store: &Store,
    wanted: &BTreeSet<u64>,
    progress: Option<&Transfer>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let total = image.layers().len();
    for (index, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
        let first = super::first_id(index);
        if wanted
            .range(first..super::first_id(index + 1))
            .next()
            .is_none()
        {
            continue;
        }
        let doing = || format!("reading layer {} of {total} ({})", index + 1, layer.digest);
        let mut changeset = Changeset::open(store, layer, *diff_id, progress).context(doing)?;
        files(first, &mut changeset, wanted, sink).context(doing)?;
        changeset.finish().context(doing)?;
    }
    Ok(())
}

/// Goes through one layer, whose first file has the ID `next`.
fn files(
    mut next: u64,
    changeset: &mut Changeset<'_>,
    wanted: &BTreeSet<u64>,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let layer = layer_of(next);
    let mut archive = ArchiveReader::new(changeset);
    while let Some(entry) = archive
        .next_entry()
        .map_err(|error| Error::from_source(&error))?
    {
        let Some(size) = content_size(&entry) else {
            continue;
        };
        if wanted.contains(&next) {
            let mut content = archive.content(size);
            sink(next, size, &mut content)?;
        }
        next += 1;
        debug_assert_eq!(layer_of(next), layer, "as many files as of_image accepts");
    }
    Ok(())
}

/// Returns the size of the file that `entry`, which was found right before, makes; `None` where it makes none.
fn content_size(entry: &Entry) -> Option<u64> {
    let EntryKind::File { size } = entry.kind else {
        return None;
    };
    let path = clean_path(entry).ok()?;
    let makes_a_file = matches!(meaning(&path, entry), Ok(Special::None));
    makes_a_file.then_some(size)
}
