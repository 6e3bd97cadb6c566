//! The registry client against the registry that Debian ships, with skopeo as the second judge.

mod helper;
mod proxy;
mod support;

use std::process::Command;

use kfactory::registry::{BlobOutcome, Credentials, Digest, RegistryError, RegistryOptions};

use support::{Image, OCI_MANIFEST, PASSWORD, Server, USER, client, missing, run, silent, skip};

/// Ends the test early where a program is not installed.
macro_rules! need {
    ($($program:literal),+) => {
        if let Some(reason) = missing(&[$($program),+]) {
            return skip(&reason);
        }
    };
}

#[tokio::test]
async fn what_is_pushed_can_be_copied_by_skopeo_and_pulled_again() {
    need!("docker-registry", "skopeo");
    let server = Server::open();
    let (registry, to) = (
        client(RegistryOptions::default()),
        server.reference("me/os:1"),
    );
    let image = Image::new(&vec![7; 3_000_000]);
    registry.check_push(&to).await.expect("open to all");
    image.push(&registry, &to).await;

    let copy = server.file("copy");
    let source = format!("docker://{to}");
    run(Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", &source])
        .arg(format!("dir:{}", copy.display())));
    assert_eq!(
        std::fs::read(copy.join("manifest.json")).expect("copied"),
        image.manifest
    );

    let found = registry.fetch_manifest(&to).await.expect("there");
    assert_eq!(
        (&found.bytes[..], &*found.media_type),
        (&image.manifest[..], OCI_MANIFEST)
    );
    let (dest, digest) = (server.file("layer"), Digest::of(&image.layer));
    registry
        .fetch_blob(&to, &digest, image.layer.len() as u64, &dest, &silent)
        .await
        .expect("there");
    assert!(std::fs::read(&dest).expect("written") == image.layer);
}

#[tokio::test]
async fn what_skopeo_pushed_can_be_pulled_as_docker_schema_2() {
    need!("docker-registry", "skopeo");
    let server = Server::open();
    let registry = client(RegistryOptions::default());
    Image::new(b"content")
        .push(&registry, &server.reference("a:1"))
        .await;
    run(Command::new("skopeo")
        .args([
            "copy",
            "--format=v2s2",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ])
        .args([
            format!("docker://{}/a:1", server.name),
            format!("docker://{}/b:1", server.name),
        ]));
    let found = registry
        .fetch_manifest(&server.reference("b:1"))
        .await
        .expect("there");
    assert_eq!(
        found.media_type,
        "application/vnd.docker.distribution.manifest.v2+json"
    );
}

#[tokio::test]
async fn a_download_is_resumed_and_a_blob_mounted() {
    need!("docker-registry");
    let server = Server::open();
    let (registry, from, to) = (
        client(RegistryOptions::default()),
        server.reference("a:1"),
        server.reference("b:1"),
    );
    let image = Image::new(&vec![3; 500_000]);
    image.push(&registry, &from).await;
    let (digest, size, dest) = (
        Digest::of(&image.layer),
        image.layer.len() as u64,
        server.file("layer"),
    );
    std::fs::write(&dest, &image.layer[..123_456]).expect("written");
    registry
        .fetch_blob(&from, &digest, size, &dest, &silent)
        .await
        .expect("resumed");
    assert!(std::fs::read(&dest).expect("written") == image.layer);

    assert!(!registry.has_blob(&to, &digest).await.expect("asked"));
    let outcome = registry
        .ensure_blob(&to, &digest, size, dest, Some(&from), &silent)
        .await
        .expect("mounted");
    assert_eq!(outcome, BlobOutcome::Mounted);
    assert!(registry.has_blob(&to, &digest).await.expect("asked"));
}

#[tokio::test]
async fn pieces_make_the_same_blob() {
    need!("docker-registry");
    let server = Server::open();
    let registry = client(RegistryOptions {
        chunk_size: Some(1_000_000),
        ..Default::default()
    });
    let image = Image::new(&vec![9; 5_500_000]);
    image.push(&registry, &server.reference("a:1")).await;
    let (to, size) = (server.reference("a:1"), image.layer.len() as u64);
    let file = server.file("layer");
    registry
        .fetch_blob(&to, &Digest::of(&image.layer), size, &file, &silent)
        .await
        .expect("whole");
}

#[tokio::test]
async fn a_password_opens_what_is_closed_without() {
    need!("docker-registry");
    let server = Server::with_password();
    let to = server.reference("a:1");
    let error = client(RegistryOptions::default())
        .check_push(&to)
        .await
        .expect_err("closed");
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error}"
    );

    let entry = format!(
        r#"{{"auths":{{"{}":{{"username":"{USER}","password":"{PASSWORD}"}}}}}}"#,
        server.name
    );
    std::fs::write(server.file("auth.json"), entry).expect("written");
    let by_file = client(RegistryOptions {
        authfile: Some(server.file("auth.json")),
        ..Default::default()
    });
    by_file.check_push(&to).await.expect("open");
    let by_option = RegistryOptions {
        creds: Some(Credentials::new(USER, PASSWORD)),
        ..Default::default()
    };
    Image::new(b"x").push(&client(by_option), &to).await;
    let wrong = RegistryOptions {
        creds: Some(Credentials::new(USER, "wrong")),
        ..Default::default()
    };
    let error = client(wrong).fetch_manifest(&to).await.expect_err("closed");
    assert!(
        matches!(error, RegistryError::Unauthorized { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_authority_is_refused_until_it_is_named() {
    need!("docker-registry", "openssl");
    let server = Server::with_tls();
    let to = server.reference("a:1");
    let error = client(RegistryOptions::default())
        .check_push(&to)
        .await
        .expect_err("unknown");
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    assert!(
        error
            .hints()
            .iter()
            .any(|hint| hint.contains("--registry-ca"))
    );

    let trusting = RegistryOptions {
        ca_files: vec![server.file("ca.pem")],
        ..Default::default()
    };
    Image::new(b"x").push(&client(trusting), &to).await;
    for careless in [
        RegistryOptions {
            tls_verify: Some(false),
            ..Default::default()
        },
        RegistryOptions {
            insecure_registries: vec![server.name.clone()],
            ..Default::default()
        },
    ] {
        client(careless)
            .fetch_manifest(&to)
            .await
            .expect("any certificate");
    }
    let key = RegistryOptions {
        ca_files: vec![server.file("server.key")],
        ..Default::default()
    };
    let error = kfactory::registry::Registry::new(key).expect_err("no certificate in it");
    assert!(matches!(error, RegistryError::CaFile { .. }), "{error}");
}
