//! Pulling from registries that break, lie and redirect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::fake::{Fake, answer, error};
use super::super::pull::MANIFEST_TYPES;
use super::super::retry::RetryPolicy;
use super::super::{Digest, RegistryError, RegistryOptions};
use super::{Dest, QUICK, client, client_that, client_with, reference, sample, silent};
use crate::pace::Patience;
use kfactory_layers::manifest::Descriptor;

const IMAGE: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest() {
    let fake = Fake::honest().await;
    let digest = fake.add_manifest("1", MANIFEST_TYPES[3], IMAGE);
    for rest in [
        "a/b:1".to_owned(),
        format!("a/b@{digest}"),
        format!("a/b:other@{digest}"),
    ] {
        let found = client()
            .fetch_manifest(&reference(&fake, &rest))
            .await
            .expect("there");
        assert_eq!(
            (&found.bytes[..], found.digest, &*found.media_type),
            (IMAGE, digest, MANIFEST_TYPES[3])
        );
    }
    let accepted = fake.seen("GET", "/manifests/")[0]
        .header("accept")
        .to_owned();
    assert!(
        MANIFEST_TYPES
            .iter()
            .all(|media_type| accepted.contains(media_type)),
        "{accepted}"
    );
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_named_is_refused() {
    let fake = Fake::scripted(|seen, _| {
        let lie = Digest::of(b"lie").to_string();
        seen.is("GET", "/manifests/")
            .then(|| answer(200).header("docker-content-digest", lie).body(IMAGE))
    })
    .await;
    let by_tag = client().fetch_manifest(&reference(&fake, "a:1")).await;
    assert!(
        matches!(by_tag, Err(RegistryError::DigestMismatch { .. })),
        "{by_tag:?}"
    );
    let pinned = format!("a@{}", Digest::of(b"other"));
    let by_digest = client().fetch_manifest(&reference(&fake, &pinned)).await;
    assert!(
        matches!(by_digest, Err(RegistryError::DigestMismatch { .. })),
        "{by_digest:?}"
    );
}

#[tokio::test]
async fn schema_1_is_refused_by_name() {
    let fake = Fake::honest().await;
    fake.add_manifest(
        "1",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        br#"{"schemaVersion":1}"#,
    );
    let error = client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("schema 1"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_at_once() {
    let fake = Fake::honest().await;
    let error = client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("absent");
    assert!(
        error.is_not_found() && error.to_string().contains("404 MANIFEST_UNKNOWN"),
        "{error}"
    );
    assert_eq!(fake.seen("GET", "/manifests/").len(), 1);
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let blob = sample(300_000);
    let bytes = blob.clone();
    let fake = Fake::scripted(move |seen, before| {
        (seen.is("GET", "/blobs/") && before == 0)
            .then(|| answer(200).body(bytes.clone()).cut(100_000))
    })
    .await;
    let (digest, dest) = (fake.add_blob(&blob), Dest::new());
    dest.fetch(&fake, &digest, blob.len())
        .await
        .expect("resumed");
    assert!(dest.bytes() == blob);
    let ranges: Vec<_> = fake
        .seen("GET", "/blobs/")
        .iter()
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert_eq!(ranges, ["", "bytes=100000-"]);
    assert_eq!(dest.progress.lock().expect("whole").last(), Some(&300_000));
}

#[tokio::test]
async fn a_trickle_ends_by_name_after_it_was_asked_once_more() {
    let blob = sample(9_000);
    let bytes = blob.clone();
    let fake = Fake::scripted(move |seen, _| {
        seen.is("GET", "/blobs/").then(|| {
            let slow = answer(200).body(bytes.clone());
            slow.trickle(Duration::from_millis(20))
        })
    })
    .await;
    let (digest, dest) = (fake.add_blob(&blob), Dest::new());
    let policy = RetryPolicy {
        silence: Patience(Duration::from_millis(400)),
        ..QUICK
    };
    let fetching = client_that(policy, RegistryOptions::default())
        .fetch_blob(
            &reference(&fake, "a/b"),
            &digest,
            9_000,
            &dest.path,
            &silent,
        )
        .await;
    let error = fetching.expect_err("it would take three minutes");
    let text = error.to_string();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{text}");
    for word in [fake.name.as_str(), &digest.to_string(), " bytes came in "] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(fake.seen("GET", "/blobs/").len(), 2);
}

#[tokio::test]
async fn an_answer_that_ends_early_without_a_word_is_continued() {
    let blob = sample(9_000);
    let bytes = blob.clone();
    let fake = Fake::scripted(move |seen, before| {
        (seen.is("GET", "/blobs/") && before == 0).then(|| answer(200).body(&bytes[..4_000]))
    })
    .await;
    let (digest, dest) = (fake.add_blob(&blob), Dest::new());
    dest.fetch(&fake, &digest, blob.len())
        .await
        .expect("resumed");
    assert!(dest.bytes() == blob);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_the_whole_again() {
    let blob = sample(9_000);
    let bytes = blob.clone();
    let fake = Fake::scripted(move |seen, before| {
        let whole = answer(200).body(bytes.clone());
        seen.is("GET", "/blobs/")
            .then(|| if before == 0 { whole.cut(4_000) } else { whole })
    })
    .await;
    let (digest, dest) = (fake.add_blob(&blob), Dest::new());
    dest.fetch(&fake, &digest, blob.len())
        .await
        .expect("fetched anew");
    assert!(dest.bytes() == blob);
}

#[tokio::test]
async fn what_the_file_holds_is_not_fetched_again_and_not_trusted() {
    let blob = sample(9_000);
    let fake = Fake::honest().await;
    let digest = fake.add_blob(&blob);
    let mut long = blob.clone();
    long.extend(b"tail");
    for (held, ranges) in [
        (&blob[..5_000], &["bytes=5000-"][..]),
        (&blob[..], &[]),
        (&sample(6_000)[1..], &["bytes=5999-", ""]),
        (&vec![0; 9_000], &[""]),
        (&long, &[""]),
    ] {
        let before = fake.seen("GET", "/blobs/").len();
        let dest = Dest::holding(held);
        dest.fetch(&fake, &digest, blob.len())
            .await
            .expect("completed");
        assert!(dest.bytes() == blob);
        let seen = fake.seen("GET", "/blobs/").split_off(before);
        assert_eq!(
            seen.iter()
                .map(|seen| seen.header("range"))
                .collect::<Vec<_>>(),
            ranges
        );
    }
}

#[tokio::test]
async fn other_bytes_are_refused_and_none_of_them_is_left() {
    let fake =
        Fake::scripted(|seen, _| seen.is("GET", "/blobs/").then(|| answer(200).body("lies!")))
            .await;
    let dest = Dest::new();
    let error = dest
        .fetch(&fake, &Digest::of(b"truth"), 5)
        .await
        .expect_err("refused");
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error}"
    );
    assert_eq!(dest.bytes(), b"");
    assert_eq!(fake.seen("GET", "/blobs/").len(), 1);
}

#[tokio::test]
async fn more_bytes_than_stated_are_refused() {
    let fake = Fake::honest().await;
    let (digest, dest) = (fake.add_blob(b"four+more"), Dest::new());
    let error = dest.fetch(&fake, &digest, 4).await.expect_err("refused");
    assert!(
        matches!(
            error,
            RegistryError::SizeMismatch {
                expected: 4,
                found: 9,
                ..
            }
        ),
        "{error}"
    );
    let error = client()
        .fetch_blob_bytes(&reference(&fake, "a"), &digest, 4)
        .await
        .expect_err("refused");
    assert!(
        matches!(error, RegistryError::SizeMismatch { .. }),
        "{error}"
    );
    assert_eq!(
        client()
            .fetch_blob_bytes(&reference(&fake, "a"), &digest, 9)
            .await
            .expect("right"),
        "four+more"
    );
}

#[tokio::test]
async fn an_empty_blob_needs_no_request() {
    let (fake, dest) = (Fake::honest().await, Dest::new());
    dest.fetch(&fake, &Digest::of(b""), 0)
        .await
        .expect("nothing to fetch");
    assert_eq!(dest.bytes(), b"");
    let error = dest
        .fetch(&fake, &Digest::of(b"x"), 0)
        .await
        .expect_err("not empty");
    assert!(
        matches!(error, RegistryError::DigestMismatch { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_in_trouble_is_asked_again_and_not_for_ever() {
    let fake = Fake::scripted(|seen, before| {
        (seen.is("GET", "/a/manifests/") && before < 2).then(|| answer(503))
    })
    .await;
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect("third time lucky");

    let fake =
        Fake::scripted(|seen, _| seen.is("GET", "/manifests/").then(|| error(500, "UNKNOWN")))
            .await;
    let error = client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("never");
    assert!(
        error.to_string().contains("500 UNKNOWN: said the fake"),
        "{error}"
    );
    assert_eq!(
        fake.seen("GET", "/manifests/").len(),
        super::QUICK.tries as usize
    );
}

#[tokio::test]
async fn retry_after_is_waited_for_when_short_and_reported_when_long() {
    for (wait, requests) in [("0", 2), ("Sun, 06 Nov 1994 08:49:37 GMT", 2), ("3600", 1)] {
        let fake = Fake::scripted(move |seen, before| {
            let limited = || error(429, "TOOMANYREQUESTS").header("retry-after", wait);
            (seen.is("GET", "/manifests/") && before == 0).then(limited)
        })
        .await;
        fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
        let outcome = client().fetch_manifest(&reference(&fake, "a:1")).await;
        assert_eq!(fake.seen("GET", "/manifests/").len(), requests, "{wait}");
        match outcome {
            Ok(_) => assert_eq!(requests, 2),
            Err(error) => {
                assert!(
                    matches!(&error, RegistryError::RateLimited { retry_after: Some(wait), .. } if wait.as_secs() == 3600)
                );
                assert!(error.hints()[0].contains("3600 seconds"));
            }
        }
    }
}

#[tokio::test]
async fn a_huge_error_body_is_not_read_to_its_end() {
    let fake = Fake::scripted(|seen, _| {
        seen.is("GET", "/manifests/")
            .then(|| answer(400).body(vec![b'x'; 50_000_000]))
    })
    .await;
    let error = client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("refused");
    assert!(error.to_string().len() < 700);
}

#[tokio::test]
async fn a_redirect_elsewhere_carries_no_credentials() {
    let blob = sample(500);
    let elsewhere = Fake::honest().await;
    let digest = elsewhere.add_blob(&blob);
    let target = format!(
        "http://{}/v2/cdn/blobs/{digest}?signature=secret",
        elsewhere.name
    );
    let fake = Fake::scripted(move |seen, _| {
        let known = seen.header("authorization") == "Basic dTpw";
        let challenge = || answer(401).header("www-authenticate", "Basic realm=x");
        let redirect = || answer(307).header("location", target.clone());
        (seen.target != "/v2/").then(|| if known { redirect() } else { challenge() })
    })
    .await;
    let registry = client_with(RegistryOptions {
        creds: super::super::Credentials::parse("u:p"),
        ..Default::default()
    });
    let found = registry
        .fetch_blob_bytes(&reference(&fake, "a"), &digest, 500)
        .await
        .expect("followed");
    assert!(found == blob);
    assert_eq!(elsewhere.seen("GET", "/cdn/").len(), 1);
    assert_eq!(
        elsewhere.seen("GET", "/cdn/")[0].header("authorization"),
        ""
    );
}

/// What is said of a registry that answers a pull with this `Location`, and its name.
async fn refused_location(location: &'static str) -> (String, String) {
    let fake = Fake::scripted(move |seen, _| {
        seen.is("GET", "/manifests/")
            .then(|| answer(302).header("location", location))
    })
    .await;
    let error = client().fetch_manifest(&reference(&fake, "a:1")).await;
    (error.expect_err("refused").to_string(), fake.name.clone())
}

#[tokio::test]
async fn who_leads_to_another_scheme_is_named_with_it() {
    let (error, name) = refused_location("file:///etc/passwd").await;
    for word in [
        &*format!("{name} leads to"),
        "file:///etc/passwd",
        "`file:`",
    ] {
        assert!(error.contains(word), "{error}");
    }
    assert!(!error.contains("unencrypted"), "{error}");
}

#[tokio::test]
async fn plain_http_on_this_machine_does_not_lead_to_plain_http_elsewhere() {
    let (error, _) = refused_location("http://192.0.2.1:1/v2/a/manifests/1").await;
    assert!(error.contains("leads to unencrypted"), "{error}");
    assert!(error.contains("192.0.2.1:1"), "{error}");
}

#[tokio::test]
async fn a_manifest_has_the_size_that_its_index_says() {
    let fake = Fake::honest().await;
    let digest = fake.add_manifest("1", MANIFEST_TYPES[3], IMAGE);
    let index = reference(&fake, "a/b:1");
    let size = IMAGE.len() as u64;
    for (stated, is_right) in [(size, true), (size - 1, false), (size + 1, false)] {
        let entry = Descriptor::new(MANIFEST_TYPES[3], digest, stated);
        let found = client().fetch_entry(&index, &entry).await;
        assert_eq!(found.is_ok(), is_right, "{found:?}");
        if let Err(error) = found {
            let text = format!("expected {stated} bytes, found {size}");
            assert!(error.to_string().contains(&text), "{error}");
        }
    }
}

#[tokio::test]
async fn a_manifest_that_is_of_another_type_than_its_index_says_is_refused_with_both() {
    let [oci_index, oci_image, docker_list, docker_image] = MANIFEST_TYPES;
    let typed = |media_type: &str, fields: &str| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{fields}}}"#)
    };
    let (image, index) = (r#""config":{},"layers":[]"#, r#""manifests":[]"#);
    let untyped = format!(r#"{{"schemaVersion":2,{image}}}"#);
    for (document, sent, stated, refused) in [
        (typed(oci_image, image), oci_image, oci_image, None),
        (typed(docker_image, image), docker_image, docker_image, None),
        (untyped.clone(), "text/plain", docker_image, None),
        (
            typed(docker_image, image),
            docker_image,
            oci_image,
            Some(docker_image),
        ),
        (
            typed(oci_image, image),
            oci_image,
            docker_image,
            Some(oci_image),
        ),
        (
            typed(oci_index, index),
            oci_index,
            oci_image,
            Some(oci_index),
        ),
        (
            typed(docker_list, index),
            docker_list,
            docker_image,
            Some(docker_list),
        ),
        (
            typed(oci_image, image),
            oci_image,
            oci_index,
            Some(oci_image),
        ),
        (
            untyped.clone(),
            oci_image,
            oci_index,
            Some("does not fit its fields"),
        ),
        (untyped, oci_image, "text/html", Some("is not read")),
    ] {
        let fake = Fake::honest().await;
        let digest = fake.add_manifest("1", sent, document.as_bytes());
        let entry = Descriptor::new(stated, digest, document.len() as u64);
        let found = client()
            .fetch_entry(&reference(&fake, "a/b:1"), &entry)
            .await;
        let said = found.err().map(|error| error.to_string());
        assert_eq!(said.is_some(), refused.is_some(), "{stated}: {said:?}");
        let said = said.unwrap_or_default();
        assert!(said.contains(refused.unwrap_or_default()), "{said}");
        assert!(refused.is_none() || said.contains(stated), "{said}");
        assert!(refused.is_none() || said.contains("by the index"), "{said}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let fake = Fake::scripted(|seen, _| {
        (seen.target != "/v2/").then(|| answer(302).header("location", "again"))
    })
    .await;
    let error = client()
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("endless");
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_their_failures_remembered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let mirror = Fake::scripted(move |seen, _| {
        count.fetch_add(
            usize::from(seen.target.contains("/hub/")),
            Ordering::Relaxed,
        );
        None
    })
    .await;
    let fake = Fake::honest().await;
    let conf = tempfile::NamedTempFile::new().expect("temporary file");
    let text = format!(
        "[[registry]]\nlocation='{}'\n[[registry.mirror]]\nlocation='{}/hub'",
        fake.name, mirror.name
    );
    std::fs::write(conf.path(), text).expect("written");
    let registry = client_with(RegistryOptions {
        registries_conf: Some(conf.path().into()),
        ..Default::default()
    });

    let error = registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("nowhere");
    let text = error.to_string();
    assert!(
        text.contains(&mirror.name) && text.contains(&fake.name) && error.is_not_found(),
        "{text}"
    );
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect("from the registry");
    mirror.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    let before = fake.seen("GET", "/manifests/").len();
    registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect("from the mirror");
    assert_eq!(fake.seen("GET", "/manifests/").len(), before);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn offline_opens_no_connection() {
    let fake = Fake::honest().await;
    let registry = client_with(RegistryOptions {
        offline: true,
        ..Default::default()
    });
    let error = registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect_err("offline");
    assert!(matches!(error, RegistryError::Offline { .. }), "{error}");
    assert!(fake.seen("GET", "").is_empty());
}
