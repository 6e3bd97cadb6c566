//! The client against a registry that lies in chosen ways.

mod access;
mod pull;
mod push;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use super::env::Env;
use super::fake::Fake;
use super::retry::RetryPolicy;
use super::{Digest, Reference, Registry, RegistryOptions};
use crate::pace::Patience;

/// Tries as often as users get, without their pauses.
const QUICK: RetryPolicy = RetryPolicy {
    tries: 4,
    base: Duration::from_millis(1),
    cap: Duration::from_millis(2),
    patience: Duration::from_secs(2),
    silence: Patience(Duration::from_secs(60)),
};

fn client_with(options: RegistryOptions) -> Registry {
    client_that(QUICK, options)
}

fn client_that(policy: RetryPolicy, options: RegistryOptions) -> Registry {
    // The configuration of the machine that runs the test must not matter.
    let conf = options
        .registries_conf
        .unwrap_or_else(|| PathBuf::from("/dev/null"));
    let options = RegistryOptions {
        registries_conf: Some(conf),
        ..options
    };
    Registry::build(options, &Env::default(), policy).expect("nothing to read")
}

fn client() -> Registry {
    client_with(RegistryOptions::default())
}

fn reference(fake: &Fake, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", fake.name)).expect("valid")
}

/// Bytes of `len` that differ from place to place.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn silent(_: u64) {}

/// A file that a blob is fetched to.
struct Dest {
    _dir: tempfile::TempDir,
    path: PathBuf,
    progress: Mutex<Vec<u64>>,
}

impl Dest {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self {
            path: dir.path().join("blob"),
            _dir: dir,
            progress: Mutex::default(),
        }
    }

    fn holding(bytes: &[u8]) -> Self {
        let dest = Self::new();
        std::fs::write(&dest.path, bytes).expect("written");
        dest
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("there")
    }

    async fn fetch(
        &self,
        fake: &Fake,
        digest: &Digest,
        size: usize,
    ) -> Result<(), super::RegistryError> {
        let progress = |done| self.progress.lock().expect("whole").push(done);
        client()
            .fetch_blob(
                &reference(fake, "a/b"),
                digest,
                size as u64,
                &self.path,
                &progress,
            )
            .await
    }
}

#[test]
fn every_operation_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: T) {}
    let registry = client();
    let reference = Reference::parse("127.0.0.1:1/x").expect("valid");
    spawnable(async move {
        let digest = Digest::of(b"");
        let path = PathBuf::from("x");
        let _ = registry.fetch_manifest(&reference).await;
        let _ = registry
            .fetch_blob(&reference, &digest, 1, &path, &silent)
            .await;
        let _ = registry.fetch_blob_bytes(&reference, &digest, 1).await;
        let _ = registry.check_push(&reference).await;
        let _ = registry.has_blob(&reference, &digest).await;
        let _ = registry.mount_blob(&reference, &digest, &reference).await;
        let _ = registry
            .push_blob(&reference, &digest, 1, path.clone(), &silent)
            .await;
        let _ = registry
            .ensure_blob(&reference, &digest, 1, path, Some(&reference), &silent)
            .await;
        let _ = registry.push_manifest(&reference, vec![], "x").await;
    });
}
