//! Blobs that are not what their digest says.

use std::fs;
use std::path::PathBuf;

use super::{convert, debian_base, nothing_made};
use crate::support::{Kfactory, world};

/// Makes a layout of the small Debian base, changes its layer's blob with `damage`, and returns the layout and the blob's name.
fn damaged_layout(name: &str, damage: impl Fn(&mut Vec<u8>)) -> (String, String) {
    let dir = world().own_dir(&format!("bases/{name}"));
    let layout = format!("oci:{}:12", dir.join("layout").display());
    Kfactory::as_caller(["copy", &debian_base(), &layout])
        .store(&world().own_dir("bases/store"))
        .succeed();
    let blobs = dir.join("layout/blobs/sha256");
    let of_layer = |path: &PathBuf| fs::read(path).expect("readable").starts_with(&[0x1f, 0x8b]);
    let blob = fs::read_dir(blobs)
        .expect("there")
        .map(|entry| entry.expect("there").path())
        .find(of_layer)
        .expect("a layer");
    let mut bytes = fs::read(&blob).expect("readable");
    damage(&mut bytes);
    // The store and the layout may share the file; a new one leaves the store's as it is.
    fs::remove_file(&blob).expect("ours");
    fs::write(&blob, bytes).expect("ours");
    (
        layout,
        blob.file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
    )
}

#[test]
fn a_blob_that_does_not_match_its_digest_or_size_is_refused_and_not_kept() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("short", |bytes| bytes.truncate(bytes.len() - 1)),
        ("long", |bytes| bytes.push(0)),
    ];
    for (name, damage) in damages {
        let (layout, digest) = damaged_layout(name, damage);
        let (store, program) = convert(&layout, "oci:out-damaged:v1.0.0");
        let ran = program.fail(1);
        ran.tells(&["cannot read `oci:", &digest]);
        let names: Vec<String> = fs::read_dir(store.join("blobs/sha256"))
            .expect("the store is there")
            .map(|entry| {
                entry
                    .expect("there")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert!(
            !names.contains(&digest),
            "{name}: the damaged blob was kept"
        );
        assert_eq!(
            fs::read_dir(store.join("trees")).expect("there").count(),
            0,
            "{name}"
        );
        nothing_made(&store);
        let copy = Kfactory::new(["copy", &layout, "oci:out-damaged:v1"])
            .store(&store)
            .fail(1);
        copy.tells(&[&digest]);
    }
}
