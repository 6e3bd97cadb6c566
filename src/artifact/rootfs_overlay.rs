//! Files of the user's in the root filesystem of an artifact, as one more layer of the image.
//!
//! A directory that the image has already, or has a link to, stays what it is there: only what is in it is added. So an overlay with
//! `lib/` does no harm to an image whose `/lib` is a link, and the mode of the overlay's own top directory does not matter.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kfactory_layers::compress::Compression;
use kfactory_layers::image::{History, Image};
use kfactory_layers::layer::LayerWriter;
use kfactory_layers::metadata::{Entry, EntryKind, FileKind};
use kfactory_layers::root::Root;
use kfactory_layers::tar::ArchiveWriter;

use crate::error::{Context as _, Error, Result};
use crate::given;
use crate::store::Store;
use crate::tree::{self, Kind, Node, Tree};

/// Returns `image`, whose files are `tree`, with a layer of what `dir` holds; the layer is in `store` afterwards.
///
/// # Errors
///
/// The directory cannot be read, or the store cannot be written to.
pub fn layer(dir: &Path, image: &Image, tree: &Tree, store: &Store, jobs: usize) -> Result<Image> {
    given::directory(dir)?;
    let overlay = tree::of_dir(dir)?;
    let root = Root::open(dir)?;
    let doing = || "writing the layer into the store".to_owned();
    let blob = store.blob_writer().context(doing)?;
    let mut archive = ArchiveWriter::new(LayerWriter::new(blob, Compression::ZSTD, jobs)?);
    let mut places = BTreeMap::from([(PathBuf::new(), PathBuf::new())]);
    let mut written = Ok(());
    overlay.walk("", &mut |path, node| {
        if written.is_ok() {
            written = add(path, node, tree, &overlay, &root, &mut places, &mut archive);
        }
    });
    written?;
    let layer = archive
        .finish()
        .map_err(|error| Error::from_source(&error))?;
    let (blob, info) = layer.finish().context(doing)?;
    blob.into_inner()
        .commit_as(&info.digest, info.size)
        .context(doing)?;
    Ok(image.append_layer(&info, History::by("kfactory overlay")))
}

/// Adds one object; `places` has for each directory above it where that is in the image.
fn add(
    path: &Path,
    node: &Node,
    image: &Tree,
    overlay: &Tree,
    root: &Root,
    places: &mut BTreeMap<PathBuf, PathBuf>,
    archive: &mut ArchiveWriter<impl io::Write>,
) -> Result<()> {
    if matches!(node.kind, Kind::Pipe) {
        refuse_socket(path, root)?;
    }
    let above = path.parent().and_then(|above| places.get(above));
    let (Some(above), Some(name)) = (above, path.file_name()) else {
        return Err(Error::internal(format!(
            "{path:?} came before its directory"
        )));
    };
    let place = above.join(name);
    let found = image.find(&place).filter(|found| found.node.is_dir());
    match (node.is_dir(), found) {
        (true, Some(found)) => {
            places.insert(path.to_owned(), found.path);
            return Ok(());
        }
        (true, None) => {
            places.insert(path.to_owned(), place.clone());
        }
        (false, Some(_)) => {
            return Err(Error::user(format!(
                "{path:?} would take the place of a directory, /{}",
                place.display()
            ))
            .hint("what an overlay has in it is added to directories; leave it out"));
        }
        (false, None) => {}
    }
    let entry = Entry {
        path: place,
        kind: kind(node),
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        xattrs: root.xattrs(path)?,
    };
    let appended = match node.file() {
        None => archive.append(&entry, io::empty()),
        Some(_) => {
            let content = overlay.open(path)?;
            let content = content.ok_or_else(|| Error::user(format!("{path:?} disappeared")))?;
            archive.append(&entry, content)
        }
    };
    appended.map_err(|error| Error::from_source(&error))
}

/// Refuses a socket, which an image has no form for; trees show it as a pipe.
fn refuse_socket(path: &Path, root: &Root) -> Result<()> {
    let found = root.symlink_metadata_opt(path)?;
    if found.is_none_or(|it| it.kind != FileKind::Socket) {
        return Ok(());
    }
    Err(
        Error::user(format!("{path:?} is a socket, which no image holds"))
            .hint("a program makes it where it runs: leave it out"),
    )
}

/// Returns what `node` is in an archive.
pub(super) fn kind(node: &Node) -> EntryKind {
    match &node.kind {
        Kind::Directory(_) => EntryKind::Directory,
        Kind::Symlink(target) => EntryKind::Symlink {
            target: target.clone(),
        },
        Kind::CharDevice(device) => EntryKind::CharDevice(*device),
        Kind::BlockDevice(device) => EntryKind::BlockDevice(*device),
        Kind::Pipe => EntryKind::Fifo,
        Kind::File(file) => EntryKind::File { size: file.size },
    }
}
