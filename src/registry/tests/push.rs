//! Pushing to registries that refuse, forget and change what they are given.

use super::super::fake::{Fake, Seen, answer, error};
use super::super::transport::lock;
use super::super::{BlobOutcome, Digest, Registry, RegistryError, RegistryOptions};
use super::{client, client_with, reference, sample, silent};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

async fn push(registry: &Registry, fake: &Fake, blob: &[u8]) -> Result<(), RegistryError> {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), blob).expect("written");
    let (digest, size) = (Digest::of(blob), blob.len() as u64);
    registry
        .push_blob(&reference(fake, "a/b"), &digest, size, file.path(), &silent)
        .await
}

fn holds(fake: &Fake, blob: &[u8]) -> bool {
    lock(&fake.state)
        .blobs
        .get(&Digest::of(blob).to_string())
        .is_some_and(|found| found == blob)
}

#[tokio::test]
async fn a_blob_goes_out_in_one_request_with_its_length() {
    let (fake, blob) = (Fake::honest().await, sample(2_000_000));
    push(&client(), &fake, &blob).await.expect("pushed");
    assert!(holds(&fake, &blob));
    let puts = fake.seen("PUT", "/uploads/");
    assert_eq!(
        (puts.len(), puts[0].header("content-length")),
        (1, "2000000")
    );
    assert!(
        puts[0].target.contains("_state=secret-state&digest=sha256"),
        "{}",
        puts[0].target
    );
    assert!(fake.seen("PATCH", "").is_empty());
}

#[tokio::test]
async fn an_empty_blob_and_bytes_in_memory_can_be_pushed() {
    let fake = Fake::honest().await;
    for blob in [vec![], sample(100)] {
        let digest = Digest::of(&blob);
        let to = reference(&fake, "a");
        client()
            .push_blob(&to, &digest, blob.len() as u64, blob.clone(), &silent)
            .await
            .expect("pushed");
        assert!(holds(&fake, &blob));
    }
}

#[tokio::test]
async fn pieces_are_sent_where_one_request_is_refused_or_they_are_asked_for() {
    let blob = sample(10_000_000);
    let refusing = |seen: &Seen, _| {
        (seen.is("PUT", "/uploads/") && !seen.body.is_empty()).then(|| answer(413))
    };
    for (fake, chunk_size, pieces) in [
        (Fake::scripted(refusing).await, None, 3),
        (Fake::honest().await, Some(1_000_000), 10),
    ] {
        let registry = client_with(RegistryOptions {
            chunk_size,
            ..Default::default()
        });
        push(&registry, &fake, &blob).await.expect("pushed");
        assert!(holds(&fake, &blob));
        let ranges: Vec<_> = fake
            .seen("PATCH", "")
            .iter()
            .map(|seen| seen.header("content-range").to_owned())
            .collect();
        assert_eq!(ranges.len(), pieces);
        assert_eq!(
            ranges[0],
            format!("0-{}", chunk_size.unwrap_or(4 * 1024 * 1024) - 1)
        );
    }
}

#[tokio::test]
async fn pieces_are_as_large_as_the_registry_demands() {
    let fake = Fake::scripted(|seen, _| {
        opens_upload(seen).then(|| {
            answer(202)
                .header("location", "mine")
                .header("oci-chunk-min-length", "6000")
        })
    })
    .await;
    lock(&fake.state)
        .uploads
        .insert("mine".to_owned(), Vec::new());
    let registry = client_with(RegistryOptions {
        chunk_size: Some(1000),
        ..Default::default()
    });
    push(&registry, &fake, &sample(10_000))
        .await
        .expect("pushed");
    assert_eq!(fake.seen("PATCH", "").len(), 2);
}

fn opens_upload(seen: &Seen) -> bool {
    seen.method == "POST"
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_the_registry_says_it_stopped() {
    let (fake, blob) = (Fake::honest().await, sample(3_000_000));
    lock(&fake.state).break_upload = Some(1_234_567);
    push(&client(), &fake, &blob).await.expect("resumed");
    assert!(holds(&fake, &blob));
    assert_eq!(fake.seen("POST", "").len(), 1);
    assert_eq!(
        fake.seen("PATCH", "")[0].header("content-range"),
        "1234567-2999999"
    );
}

#[tokio::test]
async fn a_forgotten_upload_starts_anew() {
    let blob = sample(3_000_000);
    let fake = Fake::scripted(|seen, _| {
        seen.is("GET", "/uploads/")
            .then(|| error(404, "BLOB_UPLOAD_UNKNOWN"))
    })
    .await;
    lock(&fake.state).break_upload = Some(1_000);
    push(&client(), &fake, &blob).await.expect("started anew");
    assert!(holds(&fake, &blob));
    assert_eq!(fake.seen("POST", "").len(), 2);
}

#[tokio::test]
async fn a_way_that_lets_no_large_body_pass_is_used_in_pieces() {
    let (fake, blob) = (Fake::honest().await, sample(6_000_000));
    lock(&fake.state).max_body = Some(5_000_000);
    push(&client(), &fake, &blob).await.expect("in pieces");
    assert!(holds(&fake, &blob));
    assert_eq!(fake.seen("PATCH", "").len(), 2);
}

#[tokio::test]
async fn a_registry_that_breaks_every_upload_is_given_up() {
    let fake = Fake::scripted(|seen, _| seen.is("PUT", "/uploads/").then(|| answer(502))).await;
    let error = push(&client(), &fake, &sample(1_000))
        .await
        .expect_err("never");
    assert!(error.to_string().contains("502"), "{error}");
    assert!(!error.to_string().contains("secret-state"), "{error}");
    assert_eq!(fake.seen("DELETE", "/uploads/").len(), 1);
}

#[tokio::test]
async fn answers_without_a_location_or_with_another_digest_are_refused() {
    let fake = Fake::scripted(|seen, _| opens_upload(seen).then(|| answer(202))).await;
    let error = push(&client(), &fake, b"x").await.expect_err("refused");
    assert!(error.to_string().contains("has no `location`"), "{error}");

    let lie = Digest::of(b"lie").to_string();
    let fake = Fake::scripted(move |seen, _| {
        seen.is("PUT", "/uploads/")
            .then(|| answer(201).header("docker-content-digest", lie.clone()))
    })
    .await;
    let error = push(&client(), &fake, b"x").await.expect_err("refused");
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_source_of_another_size_or_digest_is_refused() {
    let fake = Fake::honest().await;
    let to = reference(&fake, "a");
    let sized = client()
        .push_blob(&to, &Digest::of(b"x"), 2, b"x".to_vec(), &silent)
        .await;
    assert!(matches!(
        sized,
        Err(RegistryError::SizeMismatch {
            expected: 2,
            found: 1,
            ..
        })
    ));
    assert!(fake.seen("POST", "").is_empty());
    let named = client()
        .push_blob(&to, &Digest::of(b"y"), 1, b"x".to_vec(), &silent)
        .await;
    assert!(
        named
            .expect_err("refused")
            .to_string()
            .contains("DIGEST_INVALID")
    );
}

#[tokio::test]
async fn an_upload_elsewhere_carries_no_credentials() {
    let elsewhere = Fake::honest().await;
    lock(&elsewhere.state)
        .uploads
        .insert("there".to_owned(), Vec::new());
    let location = format!(
        "http://{}/v2/x/blobs/uploads/there?signature=secret",
        elsewhere.name
    );
    let fake = Fake::scripted(move |seen, _| {
        let known = seen.header("authorization") == "Basic dTpw";
        let challenge = || answer(401).header("www-authenticate", "Basic realm=x");
        let accepted = || answer(202).header("location", location.clone());
        opens_upload(seen).then(|| if known { accepted() } else { challenge() })
    })
    .await;
    let registry = client_with(RegistryOptions {
        creds: super::super::Credentials::parse("u:p"),
        ..Default::default()
    });
    push(&registry, &fake, b"bytes").await.expect("pushed");
    assert!(holds(&elsewhere, b"bytes"));
    assert_eq!(elsewhere.seen("PUT", "")[0].header("authorization"), "");
}

#[tokio::test]
async fn a_mount_is_taken_when_granted_and_its_upload_used_when_not() {
    let fake = Fake::honest().await;
    let (to, from, there) = (
        reference(&fake, "to"),
        reference(&fake, "from"),
        fake.add_blob(b"there"),
    );
    assert!(
        client()
            .mount_blob(&to, &there, &from)
            .await
            .expect("asked")
    );
    assert!(
        fake.seen("POST", "mount=sha256")
            .iter()
            .all(|seen| seen.target.ends_with("&from=from"))
    );
    assert!(
        !client()
            .mount_blob(&to, &Digest::of(b"absent"), &from)
            .await
            .expect("asked")
    );
    assert_eq!(fake.seen("DELETE", "/uploads/").len(), 1);

    let ensure = async |blob: &'static [u8]| {
        let (digest, size) = (Digest::of(blob), blob.len() as u64);
        client()
            .ensure_blob(&to, &digest, size, blob.to_vec(), Some(&from), &silent)
            .await
            .expect("pushed")
    };
    assert_eq!(ensure(b"there").await, BlobOutcome::Present);
    let before = fake.seen("POST", "").len();
    assert_eq!(ensure(b"new").await, BlobOutcome::Uploaded);
    assert_eq!(fake.seen("POST", "").len(), before + 1);
    assert!(holds(&fake, b"new"));
}

#[tokio::test]
async fn a_refused_mount_and_another_registry_mean_not_mounted() {
    let fake = Fake::scripted(|seen, _| opens_upload(seen).then(|| error(403, "DENIED"))).await;
    let (to, digest) = (reference(&fake, "to"), Digest::of(b"x"));
    assert!(
        !client()
            .mount_blob(&to, &digest, &reference(&fake, "from"))
            .await
            .expect("asked")
    );
    let elsewhere = super::Reference::parse("quay.io/x").expect("valid");
    assert!(
        !client()
            .mount_blob(&to, &digest, &elsewhere)
            .await
            .expect("not asked")
    );
}

#[tokio::test]
async fn a_pushed_manifest_is_read_back_by_digest_and_by_tag() {
    let fake = Fake::honest().await;
    let digest = client()
        .push_manifest(&reference(&fake, "a:1"), "{}", INDEX)
        .await
        .expect("pushed");
    assert_eq!(digest, Digest::of(b"{}"));
    assert_eq!(
        fake.seen("PUT", "/manifests/1")[0].header("content-type"),
        INDEX
    );
    assert_eq!(fake.seen("GET", &format!("/manifests/{digest}")).len(), 1);
    assert_eq!(fake.seen("GET", "/manifests/1").len(), 1);

    let pinned = reference(&fake, &format!("a@{digest}"));
    client()
        .push_manifest(&pinned, "{}", INDEX)
        .await
        .expect("pushed by digest");
    let other = client().push_manifest(&pinned, "{ }", INDEX).await;
    assert!(matches!(other, Err(RegistryError::DigestMismatch { .. })));
}

#[tokio::test]
async fn a_manifest_that_changes_on_the_way_is_noticed() {
    let fake = Fake::scripted(|seen, _| {
        seen.is("GET", "/manifests/1")
            .then(|| answer(200).body("{ }"))
    })
    .await;
    let error = client()
        .push_manifest(&reference(&fake, "a:1"), "{}", INDEX)
        .await
        .expect_err("changed");
    assert!(matches!(error, RegistryError::ReadBack { .. }), "{error}");
}

#[tokio::test]
async fn a_tag_that_shows_late_is_waited_for() {
    let fake = Fake::scripted(|seen, before| {
        (seen.is("GET", "/manifests/1") && before == 0).then(|| error(404, "MANIFEST_UNKNOWN"))
    })
    .await;
    client()
        .push_manifest(&reference(&fake, "a:1"), "{}", INDEX)
        .await
        .expect("seen in the end");
}

#[tokio::test]
async fn the_right_to_push_is_proven_and_nothing_left_behind() {
    let fake = Fake::honest().await;
    client()
        .check_push(&reference(&fake, "a:1"))
        .await
        .expect("allowed");
    assert_eq!(
        (fake.seen("POST", "").len(), fake.seen("DELETE", "").len()),
        (1, 1)
    );
    assert!(lock(&fake.state).uploads.is_empty());
}
