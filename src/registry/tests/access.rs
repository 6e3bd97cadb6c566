//! Challenges, tokens and refusals.

use super::super::fake::{Answer, Fake, Seen, answer, error};
use super::super::pull::MANIFEST_TYPES;
use super::super::{Credentials, Digest, Registry, RegistryError, RegistryOptions};
use super::{client, client_with, reference};

const IMAGE: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// A registry that is its own token server and takes tokens with `good` in their text.
fn guarded(seen: &Seen, grant: impl Fn(&Seen) -> Answer) -> Option<Answer> {
    if seen.target.starts_with("/token") {
        return Some(grant(seen));
    }
    let known = seen.header("authorization").starts_with("Bearer good");
    let challenge = r#"Bearer realm="/token",service="fake",scope="repository:a:pull""#;
    (!known && seen.target != "/v2/")
        .then(|| error(401, "UNAUTHORIZED").header("www-authenticate", challenge))
}

fn granted(token: &str) -> Answer {
    answer(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#))
}

fn with_authfile(json: &str) -> (tempfile::NamedTempFile, Registry) {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), json).expect("written");
    let registry = client_with(RegistryOptions {
        authfile: Some(file.path().into()),
        ..Default::default()
    });
    (file, registry)
}

#[tokio::test]
async fn one_token_serves_all_requests_of_its_scope() {
    let fake = Fake::scripted(|seen, _| guarded(seen, |_| granted("good"))).await;
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    let registry = client();
    let to = reference(&fake, "a:1");
    let (one, two) = tokio::join!(registry.fetch_manifest(&to), registry.fetch_manifest(&to));
    one.and(two).expect("anonymous");
    registry.fetch_manifest(&to).await.expect("anonymous");
    let asked = fake.seen("GET", "/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].target,
        "/token?service=fake&scope=repository%3Aa%3Apull"
    );
    assert_eq!(asked[0].header("authorization"), "");
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_renewed_once() {
    let fake = Fake::scripted(|seen, before| {
        let stale = seen.is("GET", "/manifests/2") && before == 0;
        let tokens = |_: &Seen| granted(&format!("good{before}"));
        if stale {
            guarded(&Seen::default(), tokens)
        } else {
            guarded(seen, tokens)
        }
    })
    .await;
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    fake.add_manifest("2", MANIFEST_TYPES[1], IMAGE);
    let registry = client();
    for tag in ["a:1", "a:2"] {
        registry
            .fetch_manifest(&reference(&fake, tag))
            .await
            .expect(tag);
    }
    assert_eq!(fake.seen("GET", "/token").len(), 2);
}

#[tokio::test]
async fn a_password_goes_to_the_token_server_only() {
    let fake = Fake::scripted(|seen, _| guarded(seen, |_| granted("good"))).await;
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    let registry = client_with(RegistryOptions {
        creds: Credentials::parse("u:p"),
        ..Default::default()
    });
    registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect("known");
    assert_eq!(
        fake.seen("GET", "/token")[0].header("authorization"),
        "Basic dTpw"
    );
    assert!(fake.seen("GET", "account=u").len() == 1);
    assert!(
        fake.seen("GET", "/manifests/")
            .iter()
            .all(|seen| !seen.header("authorization").starts_with("Basic"))
    );
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_never_sent_to_the_registry() {
    let fake = Fake::scripted(|seen, _| {
        guarded(seen, |_| {
            answer(200).body(r#"{"access_token":"good","refresh_token":"x"}"#)
        })
    })
    .await;
    fake.add_manifest("1", MANIFEST_TYPES[1], IMAGE);
    let (_file, registry) = with_authfile(&format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"id&t"}}}}}}"#,
        fake.name
    ));
    registry
        .fetch_manifest(&reference(&fake, "a:1"))
        .await
        .expect("known");
    let form = String::from_utf8(fake.seen("POST", "/token")[0].body.clone()).expect("text");
    for part in [
        "grant_type=refresh_token",
        "refresh_token=id%26t",
        "scope=repository%3Aa%3Apull",
        "service=fake",
    ] {
        assert!(form.contains(part), "{form}");
    }
}

#[tokio::test]
async fn a_mount_asks_for_both_scopes() {
    let fake = Fake::scripted(|seen, _| guarded(seen, |_| granted("good"))).await;
    let digest = fake.add_blob(b"x");
    client()
        .mount_blob(&reference(&fake, "to"), &digest, &reference(&fake, "from"))
        .await
        .expect("asked");
    let asked = fake.seen("GET", "/token")[0].target.clone();
    for scope in [
        "scope=repository%3Ato%3Apull%2Cpush",
        "scope=repository%3Afrom%3Apull",
    ] {
        assert!(asked.contains(scope), "{asked}");
    }
}

#[tokio::test]
async fn a_refusal_names_where_credentials_were_looked_for() {
    let fake =
        Fake::scripted(|seen, _| guarded(seen, |_| answer(401).body(r#"{"details":"incorrect"}"#)))
            .await;
    let (file, registry) = with_authfile(r#"{"auths":{}}"#);
    let error = registry
        .check_push(&reference(&fake, "a"))
        .await
        .expect_err("refused");
    let hints = error.hints().join("\n");
    assert!(
        matches!(error, RegistryError::Unauthorized { .. })
            && error.to_string().ends_with("incorrect"),
        "{error}"
    );
    assert!(
        hints.contains(&format!("podman login {}", fake.name)),
        "{hints}"
    );
    assert!(
        hints.contains(&file.path().display().to_string()),
        "{hints}"
    );
}

#[tokio::test]
async fn credentials_that_are_refused_and_rights_that_lack_are_told_apart() {
    let basic = |seen: &Seen, _| {
        (seen.target != "/v2/")
            .then(|| error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=x"))
    };
    let denied = |seen: &Seen, _| (seen.target != "/v2/").then(|| error(403, "DENIED"));
    for (fake, status) in [
        (Fake::scripted(basic).await, 401),
        (Fake::scripted(denied).await, 403),
    ] {
        let creds = Credentials::parse("me:hunter2");
        let registry = client_with(RegistryOptions {
            creds,
            ..Default::default()
        });
        let error = registry
            .check_push(&reference(&fake, "a"))
            .await
            .expect_err("refused");
        let shown = format!(
            "{error} {error:?} {} {registry:?}",
            error.hints().join("\n")
        );
        assert!(
            shown.contains("`--creds` as user \"me\"") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(
            matches!(error, RegistryError::Unauthorized { .. }),
            status == 401
        );
        assert_eq!(
            matches!(error, RegistryError::Forbidden { .. }),
            status == 403
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_fails_at_once() {
    let name = Fake::honest().await.name.clone();
    let gone = super::Reference::parse(&format!("{name}/a:1")).expect("valid");
    let error = client().fetch_manifest(&gone).await.expect_err("gone");
    assert!(matches!(error, RegistryError::Connect { .. }), "{error:?}");
    let hints = error.hints().join("\n");
    assert!(
        hints.contains("its port") && !hints.contains("PROXY"),
        "no proxy is asked for this machine: {hints}"
    );
}

#[tokio::test]
async fn a_loopback_registry_must_speak_https_when_that_is_demanded() {
    let fake = Fake::honest().await;
    let registry = client_with(RegistryOptions {
        tls_verify: Some(true),
        ..Default::default()
    });
    let error = registry
        .has_blob(&reference(&fake, "a"), &Digest::of(b""))
        .await
        .expect_err("plain");
    assert!(error.to_string().contains("https://"), "{error}");
}
