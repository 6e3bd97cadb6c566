//! Images read from what real tools write, changed, and refused where their parts do not fit.

use super::*;
use crate::manifest::Descriptor;

/// What Docker and buildkit put into configs, and a key of nobody's.
const CONFIG: &str = r#"{
    "architecture": "arm64", "variant": "v8", "os": "linux", "created": "2024-01-01T00:00:00.123456789Z",
    "config": {
        "Env": ["PATH=/bin", "A=b=c"], "Labels": {"z": "1", "a": "2"}, "Cmd": null, "ArgsEscaped": true,
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000, "StartInterval": 1}, "OnBuild": ["RUN x"],
        "Shell": ["/bin/sh", "-c"], "StopSignal": "SIGRTMIN+3", "Volumes": {"/data": {}}
    },
    "container": "0123", "docker_version": "27.0", "moby.buildkit.buildinfo.v1": "e30=", "com.example": {"n": null},
    "rootfs": {"type": "layers", "diff_ids": ["DIFF_ID"]},
    "history": [{"created_by": "base", "com.example": true}, {"created_by": "ENV", "empty_layer": true}]
}"#;

fn layer(text: &str) -> LayerInfo {
    LayerInfo {
        diff_id: Digest::of(text.as_bytes()),
        digest: Digest::of(format!("{text} compressed").as_bytes()),
        size: 10,
        uncompressed_size: 100,
        media_type: media_type::OCI_LAYER_GZIP.to_owned(),
    }
}

fn config_bytes() -> Vec<u8> {
    CONFIG
        .replace("DIFF_ID", &Digest::of(b"base").to_string())
        .into_bytes()
}

fn manifest_bytes(config: &[u8]) -> Vec<u8> {
    let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    to_json(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": Descriptor::of(media_type::DOCKER_CONFIG, config),
        "layers": [Descriptor::of(layer, b"blob")],
    }))
}

fn docker_image() -> Image {
    let config = config_bytes();
    Image::new(
        manifest_bytes(&config),
        Some(media_type::DOCKER_MANIFEST),
        config,
    )
    .unwrap()
}

fn amd64() -> Platform {
    Platform::parse("amd64").unwrap()
}

#[test]
fn an_unchanged_image_keeps_its_bytes() {
    let image = docker_image();
    assert_eq!(image.config_bytes(), config_bytes());
    assert_eq!(image.manifest_bytes(), manifest_bytes(&config_bytes()));
    assert_eq!(image.descriptor().media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(image.platform().to_string(), "linux/arm64/v8");
    assert_eq!(image.env_var("A"), Some("b=c"));
    assert_eq!(image.labels(), [("z", "1"), ("a", "2")]);
    assert_eq!(image.history().len(), 2);
}

#[test]
fn every_foreign_config_key_survives_a_change_in_its_order() {
    let before: Map<String, Value> = serde_json::from_slice(&config_bytes()).unwrap();
    let image = docker_image().append_layer(&layer("mine"), History::by("packages").at(0));
    let mut after: Map<String, Value> = serde_json::from_slice(image.config_bytes()).unwrap();
    assert!(
        after.keys().eq(before.keys()),
        "the order of the keys changed"
    );
    assert_eq!(after["config"], before["config"]);
    after["rootfs"]["diff_ids"].as_array_mut().unwrap().pop();
    let added = after["history"].as_array_mut().unwrap().pop();
    assert_eq!(after, before);
    let expected = json!({"created": "1970-01-01T00:00:00Z", "created_by": "packages"});
    assert_eq!(added, Some(expected));
}

#[test]
fn a_changed_docker_image_is_an_oci_image_with_the_same_blobs() {
    let image = docker_image().append_layer(&layer("mine"), History::default());
    assert_eq!(image.manifest().media_type(), media_type::OCI_MANIFEST);
    assert_eq!(image.manifest().config.media_type, media_type::OCI_CONFIG);
    let types: Vec<&str> = image
        .layers()
        .iter()
        .map(|layer| layer.media_type.as_str())
        .collect();
    assert_eq!(types, [media_type::OCI_LAYER_GZIP; 2]);
    assert_eq!(image.layers()[0].digest, Digest::of(b"blob"));
    assert_eq!(image.config_digest(), Digest::of(image.config_bytes()));
    assert_eq!(
        image.manifest().config.size,
        image.config_bytes().len() as u64
    );
    let read_again = Image::new(
        image.manifest_bytes().to_vec(),
        None,
        image.config_bytes().to_vec(),
    )
    .unwrap();
    assert_eq!(read_again, image);
}

#[test]
fn to_oci_changes_names_only() {
    let image = docker_image();
    let oci = image.to_oci();
    assert_eq!(oci.config_bytes(), image.config_bytes());
    assert_eq!(oci.manifest().media_type(), media_type::OCI_MANIFEST);
    assert_eq!(oci.to_oci(), oci);
}

#[test]
fn missing_history_is_filled_in_so_that_positions_match() {
    let mut config: Map<String, Value> = serde_json::from_slice(&config_bytes()).unwrap();
    config.remove("history");
    let config = to_json(&config);
    let image = Image::new(manifest_bytes(&config), None, config).unwrap();
    let image = image.append_layer(&layer("mine"), History::by("mine"));
    let history = image.history();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1].created_by.as_deref(), Some("mine"));
}

#[test]
fn the_same_changes_give_the_same_bytes_and_values_stay_as_they_were() {
    let base = Image::from_rootfs_layer(&layer("root"), &amd64());
    let change = || {
        base.append_layer(&layer("a"), History::by("a").comment("b"))
            .append_history(History::by("LABEL"))
            .with_label("k", "v")
            .with_env("PATH", "/x")
            .with_env("NEW", "1")
            .with_created(1_700_000_000)
            .with_annotation("org.example", "x")
    };
    assert_eq!(change().manifest_bytes(), change().manifest_bytes());
    assert_eq!(base, Image::from_rootfs_layer(&layer("root"), &amd64()));
    let image = change();
    assert_eq!(image.label("k"), Some("v"));
    assert_eq!(image.env(), ["PATH=/x", "NEW=1"]);
    assert_eq!(image.created(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(
        image.diff_ids(),
        [layer("root").diff_id, layer("a").diff_id]
    );
    assert_eq!(
        image.history().last().map(|entry| entry.empty_layer),
        Some(true)
    );
    assert_eq!(image.with_runtime("Cmd", Value::Null).runtime("Cmd"), None);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let config = config_bytes();
    let other = [config.clone(), b" ".to_vec()].concat();
    let mismatch = Image::new(manifest_bytes(&config), None, other);
    assert!(matches!(mismatch, Err(ImageError::ConfigMismatch { .. })));

    for (text, check) in [
        (r#"{"rootfs":{"diff_ids":[]}}"#, "layers"),
        (
            r#"{"rootfs":{"diff_ids":["sha512:00"]}}"#,
            "rootfs.diff_ids",
        ),
        (r#"{"config":[],"rootfs":{}}"#, "`config`"),
        (r#"[1]"#, "JSON"),
    ] {
        let config = text.as_bytes().to_vec();
        let error = Image::new(manifest_bytes(&config), None, config).unwrap_err();
        assert!(error.to_string().contains(check), "{text}: {error}");
    }
}

#[test]
fn artifacts_are_no_images() {
    let mut value: Value = serde_json::from_slice(&manifest_bytes(b"{}")).unwrap();
    value["mediaType"] = media_type::OCI_MANIFEST.into();
    value["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    let error = Image::config_of(&to_json(&value), None).unwrap_err();
    assert!(matches!(error, ImageError::NotAnImage { .. }), "{error}");
    let index = Index::new(Vec::new()).to_bytes();
    assert!(matches!(
        Image::config_of(&index, None),
        Err(ImageError::IsIndex)
    ));
}
