//! What takes the space of a store, part by part, so that the parts add up to what `du` says of the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kfactory_layers::digest::Digest;
use serde::Serialize;

use super::{Store, entries};

/// The space of a store.
#[derive(Debug, Serialize)]
pub struct Usage {
    /// Its parts; nothing is counted in two of them.
    pub parts: Vec<Part>,
    /// Their sum: bytes on disk, every inode once.
    pub bytes: u64,
    /// Directories that could not be read, whose content is in no part.
    pub unreadable: usize,
}

/// One use of the space.
#[derive(Debug, Serialize)]
pub struct Part {
    /// What it is for.
    pub kind: PartKind,
    /// Which one, where there are several of the kind.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether a garbage collection leaves it.
    pub kept: bool,
}

/// What a part of the store is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// Blobs of images.
    ImageBlobs,
    /// Blobs of cached layers that are in no image.
    LayerBlobs,
    /// Blobs that nothing names any more, and unfinished ones.
    OtherBlobs,
    /// Blobs that nothing names as far as can be read, while an image cannot be.
    UnknownBlobs,
    /// What a cached layer changed, to be built upon.
    Changes,
    /// A base, to be built upon.
    UnpackedBase,
    /// Packages, binaries and what else is fetched or computed again when it is missing.
    Cache,
    /// Where live runs work.
    Runs,
    /// Records, locks and the directories themselves.
    Records,
}

impl PartKind {
    /// Returns what it is called in text.
    pub fn text(self) -> &'static str {
        match self {
            Self::ImageBlobs => "blobs of images",
            Self::LayerBlobs => "blobs of cached layers alone",
            Self::OtherBlobs => "blobs that nothing names",
            Self::UnknownBlobs => "blobs that nothing readable names",
            Self::Changes => "changes of layer",
            Self::UnpackedBase => "unpacked base",
            Self::Cache => "cache of",
            Self::Runs => "runs under way",
            Self::Records => "records",
        }
    }
}

impl Store {
    /// Adds up what the store takes, part by part. `image_blobs` are those that its images are made of; where `is_whole` is not true,
    /// those of the images that can be read: then a garbage collection leaves everything.
    pub fn usage(&self, image_blobs: &BTreeSet<Digest>, is_whole: bool) -> Usage {
        let steps = self.steps();
        let layer_blobs: BTreeSet<Digest> = steps
            .iter()
            .flat_map(|(_, record)| record.blobs.values().map(|info| info.digest))
            .collect();
        // As a garbage collection sees it.
        let kept: BTreeMap<&str, (&str, bool)> = steps
            .iter()
            .map(|(_, record)| {
                let mut blobs = record.blobs.values();
                let kept = blobs.any(|info| image_blobs.contains(&info.digest));
                (record.changes.as_str(), (record.layer.as_str(), kept))
            })
            .collect();
        let mut sum = Sum {
            keeps_all: !is_whole,
            ..Sum::default()
        };
        for (name, path) in entries(&self.dir.join("blobs").join(Digest::ALGORITHM)) {
            let digest = Digest::from_hex(&name);
            let is_in = |set: &BTreeSet<_>| digest.is_some_and(|digest| set.contains(&digest));
            let kind = if is_in(image_blobs) {
                PartKind::ImageBlobs
            } else if is_in(&layer_blobs) {
                PartKind::LayerBlobs
            } else if is_whole {
                PartKind::OtherBlobs
            } else {
                PartKind::UnknownBlobs
            };
            sum.add(kind, "", kind == PartKind::ImageBlobs, &path);
        }
        for (name, path) in entries(&self.dir.join("changes")) {
            let (layer, is_kept) = kept.get(name.as_str()).copied().unwrap_or(("", false));
            sum.add(PartKind::Changes, layer, is_kept, &path);
        }
        for (name, path) in entries(&self.dir.join("trees")) {
            if let Some(chain) = Digest::from_hex(&name) {
                sum.add(PartKind::UnpackedBase, &chain.to_string(), false, &path);
            }
        }
        for (name, path) in entries(&self.dir.join("cache")) {
            sum.add(PartKind::Cache, &name, true, &path);
        }
        for (_, path) in entries(&self.dir.join("runs")) {
            sum.add(PartKind::Runs, "", true, &path);
        }
        // All that is left; what has been counted is passed over.
        sum.add(PartKind::Records, "", true, &self.dir);
        sum.finish()
    }

    /// Returns the bytes on disk of the whole store, every inode once.
    pub fn disk_usage(&self) -> u64 {
        size_on_disk(&self.dir)
    }
}

/// Returns the bytes on disk of what is at `path` and below, every inode once.
pub fn size_on_disk(path: &Path) -> u64 {
    let mut sum = Sum::default();
    sum.add(PartKind::Records, "", true, path);
    sum.finish().bytes
}

/// Parts being added up.
#[derive(Default)]
struct Sum {
    parts: BTreeMap<(PartKind, String, bool), u64>,
    /// Inodes that have been counted.
    seen: BTreeSet<(u64, u64)>,
    unreadable: usize,
    keeps_all: bool,
}

impl Sum {
    fn add(&mut self, kind: PartKind, name: &str, kept: bool, path: &Path) {
        let mut bytes = 0;
        for entry in walkdir::WalkDir::new(path) {
            let metadata = match entry {
                Ok(entry) => fs::symlink_metadata(entry.path()),
                Err(error) => {
                    // One that a live run has removed meanwhile takes no space.
                    let io = error.io_error().map(std::io::Error::kind);
                    self.unreadable += usize::from(io != Some(std::io::ErrorKind::NotFound));
                    continue;
                }
            };
            if let Ok(metadata) = metadata
                && self.seen.insert((metadata.dev(), metadata.ino()))
            {
                bytes += metadata.blocks() * 512;
            }
        }
        let key = (kind, name.to_owned(), kept || self.keeps_all);
        *self.parts.entry(key).or_default() += bytes;
    }

    fn finish(self) -> Usage {
        let parts: Vec<Part> = self
            .parts
            .into_iter()
            .map(|((kind, name, kept), bytes)| Part {
                kind,
                name,
                bytes,
                kept,
            })
            .collect();
        Usage {
            bytes: parts.iter().map(|part| part.bytes).sum(),
            parts,
            unreadable: self.unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::store;
    use super::*;

    #[test]
    fn every_inode_is_counted_once_and_the_parts_are_the_whole() {
        let (dir, store) = store();
        let named = store.blobs().put(&[1; 50_000]).unwrap();
        store.blobs().put(&[2; 70_000]).unwrap();
        let tree = store.tree(&Digest::of(b"chain"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), [3; 30_000]).unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        fs::create_dir(store.changes("left")).unwrap();
        let usage = store.usage(&BTreeSet::from([named.digest]), true);
        let of = |kind| {
            let parts = usage.parts.iter().filter(|part| part.kind == kind);
            parts.map(|part| part.bytes).sum::<u64>()
        };
        assert!((50_000..70_000).contains(&of(PartKind::ImageBlobs)));
        assert!((70_000..90_000).contains(&of(PartKind::OtherBlobs)));
        assert!((30_000..60_000).contains(&of(PartKind::UnpackedBase)));
        let du = std::process::Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(dir.path())
            .output()
            .unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(usage.bytes, du);
        assert_eq!(store.disk_usage(), du);
    }
}
