//! `kfactory store`: what the store holds, and freeing it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kfactory_layers::digest::Digest;
use kfactory_layers::manifest::Document;

use super::args::StoreArgs;
use super::print;
use crate::error::{Error, Result};
use crate::progress::bytes_text;
use crate::store::{Access, Store, remove_tree};

pub(super) fn ls(args: &StoreArgs) -> Result<i32> {
    let dir = args.dir()?;
    if !Store::exists(&dir) {
        return no_store(&dir);
    }
    let store = Store::open(&dir, Access::Shared)?;
    let mut rows = vec![["KIND", "NAME", "SIZE", "DIGEST"].map(str::to_owned)];
    for (name, record) in store.images() {
        let size = image_blobs(&store, &record.manifest)
            .iter()
            .map(|digest| blob_size(&store, digest))
            .sum();
        rows.push(row("image", name, bytes_text(size), &record.manifest));
    }
    for (_, record) in store.steps() {
        // One row for each compression that the layer has been asked for in.
        for info in record.blobs.values() {
            let size = bytes_text(info.size);
            rows.push(row("layer", record.layer.clone(), size, &info.digest));
        }
    }
    for name in names(&store.dir().join("trees")) {
        let unpacked = store.dir().join("trees").join(&name).is_dir();
        if let Some(chain) = Digest::from_hex(&name).filter(|_| unpacked) {
            rows.push(row("base", "(unpacked)".into(), "-".into(), &chain));
        }
    }
    let used = bytes_text(disk_usage(store.dir()));
    print(&format!("{}{used} in {}\n", table(&rows), dir.display()))?;
    Ok(0)
}

fn no_store(dir: &Path) -> Result<i32> {
    print(&format!("there is no store in {} yet\n", dir.display()))?;
    Ok(0)
}

fn row(kind: &str, name: String, size: String, digest: &Digest) -> [String; 4] {
    [kind.to_owned(), name, size, digest.to_string()]
}

/// Lines the cells of each column up on the left.
fn table(rows: &[[String; 4]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    rows.iter()
        .map(|[kind, name, size, digest]| {
            let [first, second, third] = widths;
            format!("{kind:first$}  {name:second$}  {size:third$}  {digest}\n")
        })
        .collect()
}

pub(super) fn rm(args: &StoreArgs, names: &[String]) -> Result<i32> {
    let store = Store::open(&args.dir()?, Access::Shared)?;
    let known = store.images();
    for name in names {
        let name = name.strip_prefix("store:").unwrap_or(name);
        if !known.iter().any(|(image, _)| image == name) {
            return Err(
                Error::user(format!("the store holds no image called `{name}`"))
                    .hint("`kfactory store ls` lists them"),
            );
        }
        store.remove_image(name)?;
    }
    print("forgotten; `kfactory store gc` frees the space\n")?;
    Ok(0)
}

pub(super) fn gc(args: &StoreArgs, all: bool) -> Result<i32> {
    let dir = args.dir()?;
    if !Store::exists(&dir) {
        return no_store(&dir);
    }
    let store = Store::open(&dir, Access::Exclusive)?;
    let before = disk_usage(store.dir());
    if all {
        for kind in [
            "images",
            "steps",
            "changes",
            "trees",
            "cache",
            "blobs/sha256",
        ] {
            empty(&store.dir().join(kind));
        }
    } else {
        collect(&store);
    }
    let after = disk_usage(store.dir());
    print(&format!(
        "freed {}, {} left\n",
        bytes_text(before.saturating_sub(after)),
        bytes_text(after)
    ))?;
    Ok(0)
}

/// Removes cached layers that no image uses, unpacked bases, and blobs that nothing names.
fn collect(store: &Store) {
    let kept: BTreeSet<Digest> = store
        .images()
        .iter()
        .flat_map(|(_, record)| image_blobs(store, &record.manifest))
        .collect();
    let mut changes = BTreeSet::new();
    for (key, record) in store.steps() {
        if record
            .blobs
            .values()
            .any(|info| kept.contains(&info.digest))
        {
            changes.insert(record.changes);
        } else {
            let _ = fs::remove_file(store.dir().join("steps").join(format!("{key}.json")));
        }
    }
    for name in names(&store.dir().join("changes")) {
        if !changes.contains(&name) {
            remove_tree(&store.dir().join("changes").join(name));
        }
    }
    // A base is unpacked again in a second or two; its blobs stay as long as an image needs them.
    empty(&store.dir().join("trees"));
    for name in names(&store.dir().join("blobs/sha256")) {
        if Digest::from_hex(&name).is_none_or(|digest| !kept.contains(&digest)) {
            let _ = fs::remove_file(store.dir().join("blobs/sha256").join(name));
        }
    }
}

/// Returns the manifest, config and layers of an image in the store.
fn image_blobs(store: &Store, manifest: &Digest) -> Vec<Digest> {
    let mut out = vec![*manifest];
    let document = fs::read(store.blobs().path(manifest))
        .ok()
        .and_then(|bytes| Document::parse(&bytes, None).ok());
    if let Some(Document::Manifest(manifest)) = document {
        out.push(manifest.config.digest);
        out.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    out
}

fn blob_size(store: &Store, digest: &Digest) -> u64 {
    fs::metadata(store.blobs().path(digest)).map_or(0, |metadata| metadata.len())
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(std::result::Result::ok)
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Removes what `dir` holds: files first, because a tree counts as whole as long as the file beside it says so.
fn empty(dir: &Path) {
    let (trees, files): (Vec<_>, Vec<_>) = names(dir)
        .into_iter()
        .map(|name| dir.join(name))
        .partition(|path| path.is_dir() && !path.is_symlink());
    for path in files {
        let _ = fs::remove_file(path);
    }
    for path in trees {
        remove_tree(&path);
    }
}

/// Returns the bytes on disk below `dir`, as far as they can be read; every inode counts once.
fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut seen = BTreeSet::new();
    let mut total = 0;
    for entry in walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(std::result::Result::ok)
    {
        if let Ok(metadata) = entry.metadata()
            && (metadata.nlink() < 2 || metadata.is_dir() || seen.insert(metadata.ino()))
        {
            total += metadata.blocks() * 512;
        }
    }
    total
}
