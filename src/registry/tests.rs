//! Tests.
use super::*;

#[test]
fn futures_can_be_spawned() {
    fn spawnable<T: Send + 'static>(_: T) {}
    let registry = Registry::new(RegistryOptions::default()).unwrap();
    let reference = Reference::parse("127.0.0.1:1/x").unwrap();
    spawnable(async move {
        let digest = Digest::of(b"");
        let path = std::path::PathBuf::from("x");
        let _ = registry.fetch_manifest(&reference).await;
        let _ = registry
            .fetch_blob(&reference, &digest, 1, &path, &|_| ())
            .await;
        let _ = registry.fetch_blob_bytes(&reference, &digest, 1).await;
        let _ = registry.check_push(&reference).await;
        let _ = registry.has_blob(&reference, &digest).await;
        let _ = registry.mount_blob(&reference, &digest, &reference).await;
        let _ = registry
            .push_blob(&reference, &digest, 1, path.clone(), &|_| ())
            .await;
        let _ = registry
            .ensure_blob(&reference, &digest, 1, path, Some(&reference), &|_| ())
            .await;
        let _ = registry.push_manifest(&reference, vec![], "x").await;
    });
}
