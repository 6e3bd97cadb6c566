//! The layers of an image in a layout or a store, entry by entry, to say where two of them differ.

use std::path::Path;

use kfactory_layers::compress::decoder;
use kfactory_layers::digest::Hasher;
use kfactory_layers::metadata::EntryKind;
use kfactory_layers::tar::ArchiveReader;
use serde_json::Value;

use super::tree::{Listing, differences};

/// Reads a blob of the store at `store` as JSON.
fn document(store: &Path, digest: &str) -> Value {
    serde_json::from_slice(&std::fs::read(blob(store, digest)).expect("the blob is there"))
        .expect("JSON")
}

fn blob(store: &Path, digest: &str) -> std::path::PathBuf {
    store.join("blobs").join(digest.replace(':', "/"))
}

/// Says where two images differ, each the manifest digest `0` in the store or layout `1`: layer by layer, entry by entry.
pub(crate) fn image_differences(one: (&str, &Path), other: (&str, &Path), limit: usize) -> String {
    let layers = |(digest, store): (&str, &Path)| -> Vec<String> {
        let manifest = document(store, digest);
        let layers = manifest["layers"].as_array().expect("layers").clone();
        layers
            .iter()
            .map(|layer| layer["digest"].as_str().expect("text").to_owned())
            .collect()
    };
    let mut out = String::new();
    for (index, (left, right)) in layers(one).iter().zip(layers(other)).enumerate() {
        if *left == right {
            continue;
        }
        let (left, right) = (listing(&blob(one.1, left)), listing(&blob(other.1, &right)));
        let found = differences(&left, &right, limit);
        out.push_str(&format!(
            "layer {}: {} entries differ\n",
            index + 1,
            found.len()
        ));
        for line in found {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if out.is_empty() {
        let config = |(digest, store): (&str, &Path)| {
            let manifest = document(store, digest);
            let digest = manifest["config"]["digest"]
                .as_str()
                .expect("text")
                .to_owned();
            (manifest, document(store, &digest))
        };
        out = format!(
            "all layers are the same\n{:#?}\n{:#?}\n",
            config(one),
            config(other)
        );
    }
    out
}

/// Lists a layer: what an entry is, its metadata, and the digest of its content.
fn listing(path: &Path) -> Listing {
    let blob = std::fs::File::open(path).expect("the blob is there");
    let mut archive = ArchiveReader::new(decoder(blob).expect("a known compression"));
    let mut out = Listing::new();
    let mut place = 0;
    while let Some(entry) = archive.next_entry().expect("a whole archive") {
        let mut hasher = Hasher::new();
        if let EntryKind::File { size } = entry.kind {
            let mut buffer = vec![0; 1 << 18];
            let mut content = archive.content(size);
            while let Ok(count @ 1..) = std::io::Read::read(&mut content, &mut buffer) {
                hasher.update(&buffer[..count]);
            }
        }
        place += 1;
        let line = format!(
            "#{place} {:?} {:o} {}:{} {:?} {:?} {}",
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime,
            entry.xattrs,
            hasher.finish()
        );
        out.insert(entry.path, line);
    }
    out
}
