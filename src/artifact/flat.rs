//! The root filesystem of an image as one archive, flattened on the way: every object once, as the layers together leave it.
//!
//! Nothing is unpacked. Directories, links and devices come first, sorted by path; files follow in the order in which the layers hold
//! their contents, so that each layer is read once. Whoever reads the archive gets owners, devices and attributes from it and needs
//! no privilege to keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kfactory_layers::image::Image;
use kfactory_layers::metadata::{Entry, EntryKind};
use kfactory_layers::tar::ArchiveWriter;

use super::rootfs_overlay::kind;
use crate::error::{Context as _, Error, Result};
use crate::progress::Transfer;
use crate::store::Store;
use crate::tree::{self, Node, Sink, Tree};

/// An image whose blobs are in the store, with the tree that its layers make.
#[derive(Debug, Clone, Copy)]
pub struct Flat<'a> {
    /// The image.
    pub image: &'a Image,
    /// Where its blobs are.
    pub store: &'a Store,
    /// Its files, read from it by [`tree::of_image`].
    pub tree: &'a Tree,
    /// Shows how much of the layers has been read.
    pub progress: Option<&'a Transfer>,
}

/// The names of every file, sorted, by its [`id`](tree::FileNode::id).
type FileNames<'a> = BTreeMap<u64, Vec<(PathBuf, &'a Node)>>;

/// Files that are also written somewhere else on the way, by their [`id`](tree::FileNode::id).
pub type Copies<'a> = BTreeMap<u64, &'a mut dyn Write>;

impl Flat<'_> {
    /// Hands over the contents of the files in `wanted`, as [`tree::contents`].
    ///
    /// # Errors
    ///
    /// A damaged layer, or what `sink` says.
    pub fn contents(&self, wanted: &BTreeSet<u64>, sink: &mut Sink<'_>) -> Result<()> {
        tree::contents(self.image, self.store, wanted, self.progress, sink)
    }

    /// Writes the archive; the root directory itself is not in it. The files of `copies` are written there too.
    ///
    /// # Errors
    ///
    /// A damaged layer, or one of the places cannot be written.
    pub fn write_tar(&self, out: impl Write, copies: &mut Copies<'_>) -> Result<()> {
        let mut archive = ArchiveWriter::new(out);
        let mut files = FileNames::new();
        let mut written = Ok(());
        self.tree.walk("", &mut |path, node| {
            if let Some(file) = node.file() {
                let names = files.entry(file.id).or_default();
                names.push((path.to_owned(), node));
            } else if written.is_ok() {
                written = append(&mut archive, path, node, kind(node), &mut io::empty());
            }
        });
        written?;
        let ids: BTreeSet<u64> = files.keys().copied().collect();
        self.contents(&ids, &mut |id, size, content| {
            let [(path, node), more @ ..] = files[&id].as_slice() else {
                return Ok(());
            };
            let mut content = Tee {
                content,
                copy: copies.get_mut(&id),
            };
            append(
                &mut archive,
                path,
                node,
                EntryKind::File { size },
                &mut content,
            )?;
            for (name, node) in more {
                let target = path.clone();
                let link = EntryKind::HardLink { target };
                append(&mut archive, name, node, link, &mut io::empty())?;
            }
            Ok(())
        })?;
        let mut out = archive
            .finish()
            .map_err(|error| Error::from_source(&error))?;
        out.flush().context(|| "writing the archive".into())
    }
}

/// A reader that writes what it reads to another place too.
struct Tee<'a, 'b> {
    content: &'a mut dyn io::Read,
    copy: Option<&'a mut &'b mut dyn Write>,
}

impl io::Read for Tee<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

fn append(
    archive: &mut ArchiveWriter<impl Write>,
    path: &Path,
    node: &Node,
    kind: EntryKind,
    content: &mut dyn io::Read,
) -> Result<()> {
    let entry = Entry {
        path: path.to_owned(),
        kind,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime,
        xattrs: node.xattrs.as_deref().cloned().unwrap_or_default(),
    };
    archive
        .append(&entry, content)
        .map_err(|error| Error::from_source(&error))
}
