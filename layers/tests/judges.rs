//! Other tools as judges of what this crate writes, and writers of what it must read.
//!
//! Needs `skopeo` (and `umoci` for one test); a test without its tool prints `skipped:` and passes.
// A skipped test has to say so somewhere.
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use kfactory_layers::archive::{DockerArchive, OciArchive};
use kfactory_layers::compress::{Compression, decoder};
use kfactory_layers::image::{History, Image};
use kfactory_layers::layer::LayerWriter;
use kfactory_layers::layout::Layout;
use kfactory_layers::platform::Platform;
use kfactory_layers::source::ImageSource;
use serde_json::Value;
use tar_core::EntryBuilder;

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

fn run(tool: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(tool).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {errors}");
    output.stdout
}

fn skopeo_copy(from: &str, to: &str) {
    run(
        "skopeo",
        &["--insecure-policy", "copy", "--quiet", from, to],
    );
}

fn platform() -> Platform {
    Platform::parse("amd64").unwrap()
}

fn layer_tar(text: &str) -> Vec<u8> {
    let content = text.repeat(300_000);
    let mut entry = EntryBuilder::new_ustar();
    entry
        .path(format!("file-{text}"))
        .size(content.len() as u64)
        .unwrap();
    entry.mode(0o644).unwrap();
    let mut tar = entry.finish_bytes();
    tar.extend(content.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

/// A layout with one image called `v1`, of three layers, one in each compression.
fn layout_in(dir: &Path) -> (Layout, Image) {
    let layout = Layout::create(&dir.join("layout")).unwrap();
    let mut image = Image::empty(&platform())
        .with_label("org.example.key", "value")
        .with_runtime(
            "Healthcheck",
            serde_json::json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000}),
        )
        .with_created(1_700_000_000);
    for (text, compression) in [("a", "gzip"), ("b", "none"), ("c", "zstd")] {
        let compression: Compression = compression.parse().unwrap();
        let mut writer =
            LayerWriter::new(layout.blobs().writer().unwrap(), compression, 2).unwrap();
        writer.write_all(&layer_tar(text)).unwrap();
        let (blob, info) = writer.finish().unwrap();
        blob.commit_as(&info.digest, info.size).unwrap();
        image = image.append_layer(&info, History::by(text).at(1_700_000_000));
    }
    layout.put_image(&image, Some("v1")).unwrap();
    (layout, image)
}

fn contents(source: &dyn ImageSource) -> Vec<Vec<u8>> {
    let read = |layer| {
        let mut tar = Vec::new();
        let mut reader = decoder(source.open_blob(layer).unwrap()).unwrap();
        reader.read_to_end(&mut tar).unwrap();
        tar
    };
    source.image().layers().iter().map(read).collect()
}

fn expected_contents() -> Vec<Vec<u8>> {
    ["a", "b", "c"].map(layer_tar).to_vec()
}

/// Checks what skopeo says about the image at `transport` and returns the digest of its manifest.
fn inspect(transport: &str, image: &Image) -> String {
    let config: Value =
        serde_json::from_slice(&run("skopeo", &["inspect", "--config", "--raw", transport]))
            .unwrap();
    let ours: Value = serde_json::from_slice(image.config_bytes()).unwrap();
    assert_eq!(config, ours, "{transport}");
    let info: Value = serde_json::from_slice(&run("skopeo", &["inspect", transport])).unwrap();
    assert_eq!(info["Labels"]["org.example.key"], "value");
    assert_eq!(info["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(info["Layers"].as_array().map(Vec::len), Some(3));
    info["Digest"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn skopeo_reads_our_layout_and_our_archives() {
    if !has("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (layout, image) = layout_in(dir.path());
    let oci = dir.path().join("oci.tar");
    let docker = dir.path().join("docker.tar");
    OciArchive::write(&oci, &image, Some("v1"), &layout).unwrap();
    DockerArchive::write(&docker, &image, &["example.com/me/os:v1"], &layout).unwrap();

    let (oci, docker) = (oci.display(), docker.display());
    let digest = image.manifest_digest().to_string();
    assert_eq!(
        inspect(&format!("oci:{}:v1", layout.dir().display()), &image),
        digest
    );
    assert_eq!(inspect(&format!("oci-archive:{oci}:v1"), &image), digest);
    inspect(&format!("docker-archive:{docker}"), &image);
    inspect(
        &format!("docker-archive:{docker}:example.com/me/os:v1"),
        &image,
    );

    // A copy makes it read and check every layer.
    for (n, from) in [
        format!("oci:{}:v1", layout.dir().display()),
        format!("oci-archive:{oci}:v1"),
        format!("docker-archive:{docker}"),
    ]
    .iter()
    .enumerate()
    {
        let to = dir.path().join(format!("copy{n}"));
        skopeo_copy(from, &format!("oci:{}:v1", to.display()));
        let found = Layout::open(&to)
            .unwrap()
            .resolve(Some("v1"), &platform())
            .unwrap();
        assert_eq!(contents(&found), expected_contents(), "{from}");
        assert_eq!(found.image().diff_ids(), image.diff_ids());
    }
}

#[test]
fn we_read_what_skopeo_writes() {
    if !has("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (layout, image) = layout_in(dir.path());
    let from = format!("oci:{}:v1", layout.dir().display());

    let to = dir.path().join("oci.tar");
    // Otherwise it compresses our uncompressed layer.
    let target = format!("oci-archive:{}:v2", to.display());
    run(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            &from,
            &target,
        ],
    );
    let found = OciArchive::open(&to)
        .unwrap()
        .resolve(Some("v2"), &platform())
        .unwrap();
    assert_eq!(found.image().manifest_digest(), image.manifest_digest());
    assert_eq!(contents(&found), expected_contents());

    // Its Docker side refuses zstd layers, so it gets the uncompressed ones of our archive.
    let plain = dir.path().join("plain.tar");
    DockerArchive::write(&plain, &image, &[], &layout).unwrap();
    let from = format!("docker-archive:{}", plain.display());
    let to = dir.path().join("docker.tar");
    let target = format!("docker-archive:{}:example.com/me/os:v2", to.display());
    skopeo_copy(&from, &target);
    let archive = DockerArchive::open(&to).unwrap();
    assert_eq!(archive.tags(), ["example.com/me/os:v2"]);
    let found = archive.resolve(Some("example.com/me/os:v2")).unwrap();
    assert_eq!(contents(&found), expected_contents());
    assert_eq!(found.image().label("org.example.key"), Some("value"));

    // A layout it adds to keeps our image, and one we add to keeps its.
    let shared = layout.dir().display();
    skopeo_copy(
        &format!("docker-archive:{}", to.display()),
        &format!("oci:{shared}:theirs"),
    );
    layout
        .put_image(&image.with_label("more", "1"), Some("ours"))
        .unwrap();
    let names: Vec<String> = layout
        .names()
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["v1", "theirs", "ours"]);
    for name in ["v1", "theirs", "ours"] {
        let found = layout.resolve(Some(name), &platform()).unwrap();
        assert_eq!(contents(&found), expected_contents(), "{name}");
        run("skopeo", &["inspect", &format!("oci:{shared}:{name}")]);
    }
}

#[test]
fn umoci_lists_and_checks_our_layout() {
    if !has("umoci") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (layout, image) = layout_in(dir.path());
    let path = layout.dir().display().to_string();
    assert_eq!(run("umoci", &["ls", "--layout", &path]), b"v1\n");
    let stat = run(
        "umoci",
        &["stat", "--json", "--image", &format!("{path}:v1")],
    );
    let stat: Value = serde_json::from_slice(&stat).unwrap();
    let history = stat["history"].as_array().unwrap();
    let digests: Vec<&str> = history
        .iter()
        .filter_map(|entry| entry["layer"]["digest"].as_str())
        .collect();
    let ours: Vec<String> = image
        .layers()
        .iter()
        .map(|layer| layer.digest.to_string())
        .collect();
    assert_eq!(digests, ours);
}
