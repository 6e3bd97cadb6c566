//! Layouts written, shared with other tools' entries, damaged, and written by several at once.

use super::*;
use crate::compress::Compression;
use crate::image::History;
use crate::layer::LayerWriter;
use crate::source::read_blob;

fn amd64() -> Platform {
    Platform::parse("amd64").unwrap()
}

fn image_for(layout: &Layout, text: &str, platform: &str) -> Image {
    let mut writer =
        LayerWriter::new(layout.blobs().writer().unwrap(), Compression::GZIP, 1).unwrap();
    writer.write_all(&[0; 1024]).unwrap();
    let (blob, info) = writer.finish().unwrap();
    blob.commit_as(&info.digest, info.size).unwrap();
    Image::from_rootfs_layer(&info, &Platform::parse(platform).unwrap())
        .append_history(History::by(text))
}

fn new_layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path()).unwrap();
    (dir, layout)
}

#[test]
fn an_image_comes_back_by_tag_by_digest_and_as_the_only_one() {
    let (dir, layout) = new_layout();
    let image = image_for(&layout, "a", "amd64");
    let descriptor = layout.put_image(&image, Some("v1.0")).unwrap();
    let layout = Layout::open(dir.path()).unwrap();
    for name in [
        None,
        Some("v1.0"),
        Some(descriptor.digest.to_string().as_str()),
    ] {
        let found = layout.resolve(name, &amd64()).unwrap();
        assert_eq!(found.image(), &image, "{name:?}");
        let layer = &found.image().layers()[0];
        assert_eq!(
            read_blob(&found, layer, 1000).unwrap().len() as u64,
            layer.size
        );
    }
}

#[test]
fn a_tag_moves_and_the_others_stay_as_they_were() {
    let (dir, layout) = new_layout();
    let foreign = json!({
        "schemaVersion": 2, "com.example": 1,
        "manifests": [{"mediaType": "application/x-other", "digest": "md5:00", "size": 1.5}],
    });
    let path = dir.path().join(INDEX_FILE);
    let first = image_for(&layout, "first", "amd64");
    layout.put_image(&first, Some("a")).unwrap();
    layout.put_image(&first, Some("b")).unwrap();
    layout
        .put_image(&image_for(&layout, "second", "amd64"), Some("a"))
        .unwrap();
    let names: Vec<String> = layout
        .names()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(layout.resolve(Some("b"), &amd64()).unwrap().image(), &first);
    let Err(LayoutError::Resolve(ResolveError::NameNeeded { present })) =
        layout.resolve(None, &amd64())
    else {
        panic!("two images need a name")
    };
    assert_eq!(present, ["a", "b"]);

    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    value["com.example"] = foreign["com.example"].clone();
    value["manifests"][0]["com.example"] = json!(["kept"]);
    fs::write(&path, to_json(&value)).unwrap();
    layout.put_image(&first, Some("c")).unwrap();
    let after: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(after["com.example"], 1);
    assert_eq!(after["manifests"][0], value["manifests"][0]);
}

#[test]
fn an_index_gives_each_platform_its_image() {
    let (_dir, layout) = new_layout();
    let images =
        ["linux/amd64", "linux/arm64"].map(|platform| image_for(&layout, platform, platform));
    let entries = images.each_ref().map(|image| {
        layout.blobs().put(image.config_bytes()).unwrap();
        layout.blobs().put(image.manifest_bytes()).unwrap();
        image.descriptor()
    });
    layout
        .put_manifest(&Index::new(entries.to_vec()).to_bytes(), Some("multi"))
        .unwrap();
    let arm64 = Platform::parse("arm64").unwrap();
    assert_eq!(
        layout.resolve(Some("multi"), &arm64).unwrap().image(),
        &images[1]
    );
    let riscv = Platform::parse("riscv64").unwrap();
    let error = layout.resolve(None, &riscv).unwrap_err().to_string();
    assert_eq!(
        error,
        "no image for linux/riscv64, the index has linux/amd64, linux/arm64"
    );
}

#[test]
fn nothing_is_named_before_all_of_it_is_there() {
    let (_dir, layout) = new_layout();
    let image = image_for(&layout, "a", "amd64");
    layout.blobs().remove(&image.layers()[0].digest).unwrap();
    for result in [
        layout.put_image(&image, Some("x")),
        layout.put_manifest(image.manifest_bytes(), None),
    ] {
        assert!(
            matches!(result, Err(LayoutError::MissingBlob { .. })),
            "{result:?}"
        );
    }
    assert!(layout.index().unwrap().manifests.is_empty());
}

#[test]
fn flipping_any_document_is_noticed() {
    let (_dir, layout) = new_layout();
    let image = image_for(&layout, "a", "amd64");
    layout.put_image(&image, None).unwrap();
    for digest in [image.manifest_digest(), image.config_digest()] {
        let path = layout.blobs().path(&digest);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[10] ^= 1;
        fs::write(&path, &bad).unwrap();
        let result = layout.resolve(None, &amd64());
        assert!(
            matches!(result, Err(LayoutError::Resolve(ResolveError::Blob { .. }))),
            "{result:?}"
        );
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn unknown_names_are_answered_with_those_there_are() {
    let (_dir, layout) = new_layout();
    assert!(matches!(
        layout.resolve(None, &amd64()),
        Err(LayoutError::Resolve(ResolveError::Empty))
    ));
    layout
        .put_image(&image_for(&layout, "a", "amd64"), Some("v1"))
        .unwrap();
    let error = layout
        .resolve(Some("v2\u{1b}"), &amd64())
        .unwrap_err()
        .to_string();
    assert_eq!(error, "nothing is named `v2\\u{1b}` here, there is `v1`");
}

#[test]
fn bad_names_are_refused() {
    let (_dir, layout) = new_layout();
    let image = image_for(&layout, "a", "amd64");
    let long = "a".repeat(256);
    for name in ["", "../x", "a b", "-a", "a\n", &long] {
        let result = layout.put_image(&image, Some(name));
        assert!(
            matches!(result, Err(LayoutError::InvalidName { .. })),
            "{name:?}"
        );
    }
    layout
        .put_image(&image, Some("quay.io/me/os:v1.0_x+y"))
        .unwrap();
}

#[test]
fn other_directories_are_not_taken_for_layouts() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Layout::open(dir.path()),
        Err(LayoutError::NotALayout { .. })
    ));
    fs::write(dir.path().join("file"), b"").unwrap();
    assert!(matches!(
        Layout::ensure(dir.path()),
        Err(LayoutError::NotEmpty { .. })
    ));
    fs::write(
        dir.path().join(LAYOUT_FILE),
        br#"{"imageLayoutVersion":"2.0.0"}"#,
    )
    .unwrap();
    assert!(matches!(
        Layout::open(dir.path()),
        Err(LayoutError::Version { .. })
    ));
    let new = dir.path().join("deep/new");
    Layout::ensure(&new).unwrap();
    assert!(
        Layout::ensure(&new)
            .unwrap()
            .index()
            .unwrap()
            .manifests
            .is_empty()
    );
}

#[test]
fn writers_at_the_same_time_lose_no_name() {
    let (_dir, layout) = new_layout();
    let image = image_for(&layout, "a", "amd64");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (layout, image) = (&layout, &image);
            scope.spawn(move || layout.put_image(image, Some(&format!("tag{n}"))).unwrap());
        }
    });
    assert_eq!(layout.names().unwrap().len(), 8);
}
