//! Archives as several tools and versions write them, whole and damaged.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use tar_core::{EntryBuilder, EntryType};

use super::*;
use crate::blobs::BlobStore;
use crate::compress::{Compression, Encoder};
use crate::digest::VerifyError;
use crate::image::History;
use crate::layer::LayerWriter;
use crate::layout::Layout;
use crate::manifest::to_json;
use crate::platform::Platform;
use crate::source::read_blob;

/// A tar under construction.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, name: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        let mut entry = EntryBuilder::new_ustar();
        entry
            .path(name)
            .entry_type(kind)
            .size(content.len() as u64)
            .unwrap();
        entry.mode(0o644).unwrap();
        if !link.is_empty() {
            entry.link_name(link);
        }
        self.0.extend(entry.finish_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, "", content)
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, target, b"")
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn compressed(tar: &[u8], compression: Compression) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression, 1).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn layer_tar(text: &str) -> Vec<u8> {
    Tar::default().file("etc/file", text.as_bytes()).finish()
}

fn amd64() -> Platform {
    Platform::parse("amd64").unwrap()
}

/// An image of three layers, the third equal to the first, with its blobs.
fn image_in(dir: &Path, compression: Compression) -> (Image, BlobStore) {
    let store = BlobStore::ensure(dir).unwrap();
    let mut image = Image::empty(&amd64()).with_label("k", "v");
    for text in ["one", "two", "one"] {
        let mut writer = LayerWriter::new(store.writer().unwrap(), compression, 1).unwrap();
        writer.write_all(&layer_tar(text)).unwrap();
        let (blob, info) = writer.finish().unwrap();
        blob.commit_as(&info.digest, info.size).unwrap();
        image = image.append_layer(&info, History::by(text));
    }
    (image, store)
}

fn contents(source: &dyn ImageSource) -> Vec<Vec<u8>> {
    let layers = source.image().layers().iter();
    layers
        .map(|layer| {
            let mut tar = Vec::new();
            let blob = source.open_blob(layer).unwrap();
            crate::compress::decoder(blob)
                .unwrap()
                .read_to_end(&mut tar)
                .unwrap();
            tar
        })
        .collect()
}

fn expected_contents() -> Vec<Vec<u8>> {
    ["one", "two", "one"].map(layer_tar).to_vec()
}

#[test]
fn an_oci_archive_gives_back_the_very_image() {
    let dir = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let (image, store) = image_in(dir.path(), compression);
        let path = dir.path().join("image.tar");
        OciArchive::write(&path, &image, Some("v1"), &store).unwrap();
        let first = fs::read(&path).unwrap();
        OciArchive::write(&path, &image, Some("v1"), &store).unwrap();
        assert!(
            first == fs::read(&path).unwrap(),
            "{compression}: not deterministic"
        );
        let archive = OciArchive::open(&path).unwrap();
        for name in [None, Some("v1")] {
            let found = archive.resolve(name, &amd64()).unwrap();
            assert_eq!(found.image(), &image);
            assert_eq!(contents(&found), expected_contents());
        }
        assert!(archive.resolve(Some("v2"), &amd64()).is_err());
    }
}

#[test]
fn a_tar_of_a_layout_made_elsewhere_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(&dir.path().join("layout")).unwrap();
    let (image, _) = image_in(layout.dir(), Compression::GZIP);
    layout.put_image(&image, Some("v1")).unwrap();
    let mut tar = Tar::default().entry("./", EntryType::Directory, "", b"");
    for digest in layout.blobs().digests().unwrap() {
        let bytes = fs::read(layout.blobs().path(&digest)).unwrap();
        tar = tar.file(&format!("./blobs/sha256/{}", digest.hex()), &bytes);
    }
    let index = fs::read(layout.dir().join("index.json")).unwrap();
    let tar = tar.file("./index.json", &index).finish();
    // Plain, without its end marker, and compressed.
    let unterminated = tar[..tar.len() - 1024].to_vec();
    for bytes in [
        unterminated,
        compressed(&tar, Compression::GZIP),
        compressed(&tar, Compression::ZSTD),
        tar,
    ] {
        let path = dir.path().join("layout.tar");
        fs::write(&path, bytes).unwrap();
        let found = OciArchive::open_with_scratch(&path, dir.path()).unwrap();
        let found = found.resolve(None, &amd64()).unwrap();
        assert_eq!(contents(&found), expected_contents());
    }
}

#[test]
fn a_docker_archive_gives_back_the_image_with_plain_layers() {
    let dir = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let (image, store) = image_in(dir.path(), compression);
        let path = dir.path().join("image.tar");
        let tags = ["docker.io/library/debian:12", "example.com:5000/me/os:v1"];
        DockerArchive::write(&path, &image, &tags, &store).unwrap();
        let first = fs::read(&path).unwrap();
        DockerArchive::write(&path, &image, &tags, &store).unwrap();
        assert!(
            first == fs::read(&path).unwrap(),
            "{compression}: not deterministic"
        );

        let archive = DockerArchive::open(&path).unwrap();
        assert_eq!(archive.tags(), tags);
        let id = image.config_digest().to_string();
        for name in [
            None,
            Some("debian:12"),
            Some(tags[0]),
            Some(tags[1]),
            Some(&id),
        ] {
            let found = archive.resolve(name).unwrap();
            assert_eq!(
                found.image().config_bytes(),
                image.config_bytes(),
                "{name:?}"
            );
            assert_eq!(found.image().diff_ids(), image.diff_ids());
            assert_eq!(contents(&found), expected_contents());
        }
        let error = archive.resolve(Some("debian:13")).unwrap_err().to_string();
        assert!(error.contains("`example.com:5000/me/os:v1`"), "{error}");
    }
}

/// The config of [`image_in`], and a `manifest.json` with these layer names.
fn docker_documents(dir: &Path, config: &str, layers: [&str; 3]) -> (Vec<u8>, Vec<u8>) {
    let (image, _) = image_in(dir, Compression::None);
    let manifest = json!([{"Config": config, "RepoTags": null, "Layers": layers}]);
    (image.config_bytes().to_vec(), to_json(&manifest))
}

fn read_docker(dir: &Path, tar: &[u8]) -> Result<ArchiveImage, ArchiveError> {
    let path = dir.join("docker.tar");
    fs::write(&path, tar).unwrap();
    DockerArchive::open_with_scratch(&path, dir)?.resolve(None)
}

#[test]
fn archives_of_old_dockers_with_linked_layers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (config, manifest) = docker_documents(
        dir.path(),
        "c.json",
        ["a/layer.tar", "b/layer.tar", "d/layer.tar"],
    );
    let tar = Tar::default()
        .entry("a/", EntryType::Directory, "", b"")
        .file("a/VERSION", b"1.0")
        .file("a/layer.tar", &layer_tar("one"))
        .file("b/layer.tar", &layer_tar("two"))
        .symlink("d/layer.tar", "../a/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", &manifest)
        .finish();
    for bytes in [tar.clone(), compressed(&tar, Compression::GZIP)] {
        let found = read_docker(dir.path(), &bytes).unwrap();
        assert_eq!(contents(&found), expected_contents());
        assert_eq!(found.image().platform(), amd64());
    }
}

#[test]
fn archives_of_new_dockers_with_compressed_layers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (layer_tar("one"), layer_tar("two"));
    let (one, two) = (
        compressed(&one, Compression::GZIP),
        compressed(&two, Compression::ZSTD),
    );
    let named = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    // The last name says nothing, so that layer has to be read for its digest.
    let names: [&str; 3] = [&named(&one), &named(&two), "third"];
    let (config, manifest) = docker_documents(dir.path(), "blobs/sha256/c", names);
    let tar = Tar::default()
        .file(names[0], &one)
        .file(names[1], &two)
        .file(names[2], &one)
        .file("blobs/sha256/c", &config)
        .file("manifest.json", &manifest)
        .finish();
    let found = read_docker(dir.path(), &tar).unwrap();
    let digests: Vec<Digest> = found
        .image()
        .layers()
        .iter()
        .map(|layer| layer.digest)
        .collect();
    assert_eq!(
        digests,
        [Digest::of(&one), Digest::of(&two), Digest::of(&one)]
    );
    assert_eq!(contents(&found), expected_contents());
}

#[test]
fn a_layer_with_other_content_is_noticed_when_read() {
    let dir = tempfile::tempdir().unwrap();
    let (config, manifest) = docker_documents(dir.path(), "c.json", ["a", "a", "a"]);
    let tar = Tar::default()
        .file("a", &layer_tar("one"))
        .file("c.json", &config)
        .file("manifest.json", &manifest)
        .finish();
    let found = read_docker(dir.path(), &tar).unwrap();
    let second = &found.image().layers()[1];
    let error = read_blob(&found, second, 1 << 20).unwrap_err();
    assert!(VerifyError::in_io(&error).is_some(), "{error}");
}

#[test]
fn names_cannot_lead_out_of_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    for layers in [
        ["../../etc/passwd"; 3],
        ["/etc/passwd"; 3],
        ["loop"; 3],
        ["out"; 3],
    ] {
        let (config, manifest) = docker_documents(dir.path(), "c.json", layers);
        let tar = Tar::default()
            .symlink("loop", "loop")
            .symlink("out", "/etc/passwd")
            .file("../../etc/shadow", b"x")
            .file("c.json", &config)
            .file("manifest.json", &manifest)
            .finish();
        let error = read_docker(dir.path(), &tar).unwrap_err();
        assert!(
            matches!(error, ArchiveError::NoMember { .. }),
            "{layers:?}: {error}"
        );
    }
}

#[test]
fn damaged_archives_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (config, manifest) = docker_documents(dir.path(), "c.json", ["a", "b", "a"]);
    let tar = Tar::default()
        .file("manifest.json", &manifest)
        .file("c.json", &config)
        .file("b", &layer_tar("two"))
        .file("a", &layer_tar("one"))
        .finish();
    assert!(read_docker(dir.path(), &tar).is_ok());
    assert!(matches!(
        read_docker(dir.path(), b""),
        Err(ArchiveError::NotTar { .. })
    ));
    assert!(matches!(
        read_docker(dir.path(), b"#!/bin/sh\n"),
        Err(ArchiveError::NotTar { .. })
    ));
    for cut in [100, 512, 700, 1024, 3000, 6000] {
        assert!(
            read_docker(dir.path(), &tar[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let empty = Tar::default().file("x", b"").finish();
    let error = read_docker(dir.path(), &empty).unwrap_err();
    assert!(matches!(&error, ArchiveError::NoMember { member, .. } if member == "manifest.json"));
    let big = Tar::default()
        .file("manifest.json", &vec![b' '; 5 << 20])
        .finish();
    assert!(matches!(
        read_docker(dir.path(), &big),
        Err(ArchiveError::Member { .. })
    ));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (image, store) = image_in(&dir.path().join("store"), Compression::GZIP);
    store.remove(&image.layers()[1].digest).unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let path = out.join("image.tar");
    fs::write(&path, "old").unwrap();
    let oci = OciArchive::write(&path, &image, None, &store);
    assert!(matches!(oci, Err(ArchiveError::Blob { .. })), "{oci:?}");
    let docker = DockerArchive::write(&path, &image, &[], &store);
    assert!(
        matches!(docker, Err(ArchiveError::Blob { .. })),
        "{docker:?}"
    );
    let bad = DockerArchive::write(&path, &image, &["no-tag"], &store);
    assert!(
        matches!(bad, Err(ArchiveError::InvalidName { .. })),
        "{bad:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}
