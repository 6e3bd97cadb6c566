//! `kfactory store`: what the store holds, and freeing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::digest::Digest;
use kfactory_layers::manifest::Document;
use kfactory_sandbox::CancelToken;
use serde::Serialize;

use super::args::{ProgressArgs, StoreArgs};
use super::{print, removal};
use crate::error::{Context as _, Error, Result};
use crate::progress::{Mode, Reporter, bytes_text};
use crate::screen;
use crate::store::{PartKind, Store, Usage, entries, forgettable};

pub(super) fn ls(args: &StoreArgs, json: bool) -> Result<i32> {
    let dir = args.dir()?;
    if !Store::exists(&dir)? {
        return match json {
            true => print("null\n").map(|()| 0),
            false => no_store(&dir),
        };
    }
    let store = open_beside(&dir)?;
    let (listing, unreadable) = Listing::read(&store)?;
    print(&match json {
        true => format!("{}\n", serde_json::to_string_pretty(&listing)?),
        false => listing.to_text(screen::columns().is_some()),
    })?;
    match unreadable.len() {
        0 => Ok(0),
        1 => Err(unreadable.into_iter().next().expect("one")),
        count => Err(all_of(
            unreadable,
            &format!("{count} images of the store cannot be read"),
        )),
    }
    .map_err(|error| error.hint(STUCK))
}

fn open_beside(dir: &Path) -> Result<Store> {
    Store::open_beside(dir, &CancelToken::new()?, &Reporter::new(Mode::Plain))
}

/// What an image that cannot be read means for the others.
const STUCK: &str = "until it can be read or is forgotten, `kfactory store gc` frees nothing: any blob may be its own";

/// Makes one error of several.
fn all_of(errors: Vec<Error>, message: &str) -> Error {
    errors
        .into_iter()
        .fold(Error::user(message), |all, error| all.and(error))
}

/// What `ls` shows.
#[derive(Serialize)]
struct Listing {
    dir: PathBuf,
    images: Vec<Row>,
    /// Cached layers, one for each compression they have been asked for in.
    layers: Vec<Layer>,
    space: Usage,
}

#[derive(Serialize)]
struct Row {
    name: String,
    digest: Digest,
    /// The sum of its blobs.
    bytes: u64,
}

#[derive(Serialize)]
struct Layer {
    #[serde(flatten)]
    row: Row,
    /// The images that it is a layer of.
    images: Vec<String>,
}

impl Layer {
    /// Says which images it is a layer of, on one line.
    fn used_by(&self) -> String {
        match self.images.as_slice() {
            [] => "no image".to_owned(),
            [name] => name.clone(),
            [name, more @ ..] => format!("{name} and {} more", more.len()),
        }
    }
}

impl Listing {
    /// Returns the listing, and why images are not in it.
    fn read(store: &Store) -> Result<(Self, Vec<Error>)> {
        let mut named = BTreeSet::new();
        let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        let (mut images, mut unreadable) = (Vec::new(), Vec::new());
        for name in store.image_names()? {
            let found = store.read_image(&name).and_then(|record| {
                let blobs = image_blobs(store, &name, &record.manifest)?;
                Ok((record.manifest, blobs))
            });
            match found {
                Ok((digest, blobs)) => {
                    let bytes = blobs.iter().map(|digest| blob_size(store, digest)).sum();
                    for blob in &blobs {
                        users.entry(*blob).or_default().push(name.clone());
                    }
                    named.extend(blobs);
                    images.push(Row {
                        name,
                        digest,
                        bytes,
                    });
                }
                Err(error) => unreadable.push(error),
            }
        }
        let steps = store.steps();
        let layers = steps.iter().flat_map(|(_, record)| {
            record.blobs.values().map(|info| Layer {
                row: Row {
                    name: record.layer.clone(),
                    digest: info.digest,
                    bytes: info.size,
                },
                images: users.get(&info.digest).cloned().unwrap_or_default(),
            })
        });
        let listing = Self {
            dir: store.dir().to_owned(),
            images,
            layers: layers.collect(),
            space: store.usage(&named, unreadable.is_empty()),
        };
        Ok((listing, unreadable))
    }

    /// Returns the listing for people; on a terminal digests are cut to what people look at.
    fn to_text(&self, on_terminal: bool) -> String {
        let digest = |text: &str| match on_terminal {
            true => short(text).trim_start_matches("sha256:").to_owned(),
            false => text.to_owned(),
        };
        let mut rows = vec![
            ["KIND", "NAME", "SIZE", "DIGEST", "USED BY"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let images = self.images.iter().map(|row| ("image", row, String::new()));
        let layers = self
            .layers
            .iter()
            .map(|it| ("layer", &it.row, it.used_by()));
        for (kind, it, used_by) in images.chain(layers) {
            rows.push(vec![
                kind.into(),
                it.name.clone(),
                bytes_text(it.bytes),
                digest(&it.digest.to_string()),
                used_by,
            ]);
        }
        let bases = self.space.parts.iter();
        for part in bases.filter(|part| part.kind == PartKind::UnpackedBase) {
            let size = bytes_text(part.bytes);
            let unpacked = "(unpacked)".to_owned();
            rows.push(vec![
                "base".into(),
                unpacked,
                size,
                digest(&part.name),
                String::new(),
            ]);
        }
        let mut parts = vec![["ON DISK", "SIZE", "`gc`"].map(str::to_owned).to_vec()];
        for part in &self.space.parts {
            let name = format!("{} {}", part.kind.text(), short(&part.name));
            let kept = if part.kept { "keeps" } else { "frees" };
            parts.push(vec![
                name.trim_end().to_owned(),
                bytes_text(part.bytes),
                kept.to_owned(),
            ]);
        }
        let unreadable = match self.space.unreadable {
            0 => String::new(),
            count => format!("{count} directories cannot be read and are not counted\n"),
        };
        format!(
            "{}\n{}{} in {}\n{unreadable}",
            table(&rows),
            table(&parts),
            bytes_text(self.space.bytes),
            self.dir.display()
        )
    }
}

/// Shortens a digest to as much of it as people look at.
fn short(name: &str) -> &str {
    match name.starts_with("sha256:") {
        true => &name[..19],
        false => name,
    }
}

fn no_store(dir: &Path) -> Result<i32> {
    print(&format!("there is no store in {} yet\n", dir.display()))?;
    Ok(0)
}

/// Lines the cells of each column up on the left.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| screen::width(&row[column]));
        cells.max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate();
        let cells: Vec<String> = cells
            .map(|(column, cell)| screen::pad(cell, width(column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn rm(args: &StoreArgs, names: &[String]) -> Result<i32> {
    let store = open_beside(&args.dir()?)?;
    let known = store.image_names()?;
    for name in names {
        let name = name.strip_prefix("store:").unwrap_or(name);
        if !known.iter().any(|image| image == name) {
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

/// What `gc --all` empties, and what it is called.
const ALL: &[(&str, &str)] = &[
    ("images", "names of images"),
    ("steps", "records of layers"),
    ("changes", "changes of layers"),
    ("trees", "unpacked bases"),
    ("cache", "caches"),
    ("blobs/sha256", "blobs"),
];

pub(super) fn gc(args: &StoreArgs, all: bool, progress: &ProgressArgs) -> Result<i32> {
    let dir = args.dir()?;
    if !Store::exists(&dir)? {
        return no_store(&dir);
    }
    let store = Store::open_alone(&dir)?;
    let reporter = Arc::new(progress.reporter());
    let before = store.disk_usage();
    if all {
        for (kind, what) in ALL {
            removal::empty(&store.dir().join(kind), what, &reporter)?;
        }
        report(&store, before, None)
    } else {
        let kept = collect(&store, &reporter)?;
        report(&store, before, Some(&kept))
    }
}

/// Says what was freed and, where images or what is `kept` for them stayed, what of it is for what and how to lose it.
fn report(store: &Store, before: u64, kept: Option<&BTreeSet<Digest>>) -> Result<i32> {
    let none = BTreeSet::new();
    let usage = store.usage(kept.unwrap_or(&none), true);
    let mut text = format!(
        "freed {}, {} left\n",
        bytes_text(before.saturating_sub(usage.bytes)),
        bytes_text(usage.bytes)
    );
    let of = |kind| {
        let parts = usage.parts.iter().filter(|part| part.kind == kind);
        parts.map(|part| part.bytes).sum::<u64>()
    };
    let rows: Vec<Vec<String>> = [
        ("images", of(PartKind::ImageBlobs)),
        (
            "changes and caches for later runs",
            of(PartKind::Changes) + of(PartKind::Cache),
        ),
    ]
    .into_iter()
    // Empty directories and locks are nothing to free.
    .filter(|(_, bytes)| *bytes > 4096)
    .map(|(what, bytes)| vec![format!("  {what}"), bytes_text(bytes)])
    .collect();
    if kept.is_some() && !rows.is_empty() {
        text.push_str(&table(&rows));
        text.push_str("`kfactory store rm NAME` forgets an image, for the next `gc`; `kfactory store gc --all` frees all of it\n");
    }
    print(&text)?;
    Ok(0)
}

/// Removes cached layers that no image uses, unpacked bases, and blobs that nothing names; returns the blobs of images.
fn collect(store: &Store, reporter: &Arc<Reporter>) -> Result<BTreeSet<Digest>> {
    let mut kept = BTreeSet::new();
    for (name, record) in store.images()? {
        kept.extend(image_blobs(store, &name, &record.manifest)?);
    }
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
    let needless = |dir: &str, is_kept: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let all = entries(&store.dir().join(dir)).into_iter();
        let gone = all.filter(|(name, _)| !is_kept(name));
        gone.map(|(_, path)| path).collect()
    };
    let found = needless("changes", &|name| changes.contains(name));
    removal::remove(&found, "changes of layers", reporter)?;
    // A base is unpacked again in a second or two; its blobs stay as long as an image needs them.
    removal::empty(&store.dir().join("trees"), "unpacked bases", reporter)?;
    let found = needless("blobs/sha256", &|name| {
        Digest::from_hex(name).is_some_and(|digest| kept.contains(&digest))
    });
    removal::remove(&found, "blobs", reporter)?;
    Ok(kept)
}

/// Returns the manifest, config and layers of the image called `name`; the manifest alone where that is not in the store any more.
///
/// # Errors
///
/// The manifest cannot be read: what it names is not known, and must not be taken for needless.
fn image_blobs(store: &Store, name: &str, manifest: &Digest) -> Result<Vec<Digest>> {
    let path = store.blobs().path(manifest);
    let doing = || format!("reading the manifest of image `{name}`, {}", path.display());
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![*manifest]),
        bytes => bytes
            .context(doing)
            .map_err(|error| forgettable(error, name))?,
    };
    let document = Document::parse(&bytes, None)
        .map_err(|error| forgettable(Error::from_source(&error).context(doing()), name))?;
    let mut out = vec![*manifest];
    if let Document::Manifest(manifest) = document {
        out.push(manifest.config.digest);
        out.extend(manifest.layers.iter().map(|layer| layer.digest));
    }
    Ok(out)
}

fn blob_size(store: &Store, digest: &Digest) -> u64 {
    fs::metadata(store.blobs().path(digest)).map_or(0, |metadata| metadata.len())
}
