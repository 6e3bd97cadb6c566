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
    let store = Store::open(&args.dir()?, Access::Shared)?;
    let mut text = String::new();
    for (name, record) in store.images() {
        let size = image_blobs(&store, &record.manifest)
            .iter()
            .map(|digest| blob_size(&store, digest))
            .sum();
        text.push_str(&format!(
            "image  {name}  {}  {}\n",
            record.manifest,
            bytes_text(size)
        ));
    }
    for (key, record) in store.steps() {
        let size = record.blobs.values().map(|info| info.size).sum();
        text.push_str(&format!(
            "layer  {}  {}  {}\n",
            record.layer,
            &key[..12],
            bytes_text(size)
        ));
    }
    for name in names(&store.dir().join("trees")) {
        if store.dir().join("trees").join(&name).is_dir() {
            text.push_str(&format!("base   {}\n", &name[..name.len().min(12)]));
        }
    }
    text.push_str(&format!(
        "{} in {}\n",
        bytes_text(disk_usage(store.dir())),
        store.dir().display()
    ));
    print(&text)?;
    Ok(0)
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
    let store = Store::open(&args.dir()?, Access::Exclusive)?;
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
