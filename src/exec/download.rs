//! Fetches package archives in parallel, each checked against the size and hash that apt names for it.

use std::path::Path;

use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::distro::apt::PackageUri;
use crate::error::{Context as _, Error, Result};

/// Connections at a time: mirrors answer one request in a round trip, so several hide it; more are impolite.
const CONNECTIONS: usize = 8;
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// A mirror that sends nothing for this long is left to apt, which may know another.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Fetches every archive into `dir`; one that cannot be fetched is left to apt, which knows more transports and mirrors.
///
/// # Errors
///
/// The directory cannot be written.
pub(super) fn fetch(uris: &[PackageUri], dir: &Path, jobs: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Another part of the program may have chosen the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("kfactory/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| Error::from_source(&error))?;
    runtime.block_on(async {
        futures_util::stream::iter(uris.iter().filter(|uri| is_http(uri)).map(|uri| one(&client, uri, dir, progress)))
            .buffer_unordered(CONNECTIONS.max(jobs))
            .try_collect::<Vec<()>>()
            .await
            .map(|_| ())
    })
}

fn is_http(uri: &PackageUri) -> bool {
    let safe_name = !uri.filename.is_empty() && !uri.filename.starts_with('.') && !uri.filename.contains('/');
    safe_name && (uri.url.starts_with("http://") || uri.url.starts_with("https://"))
}

async fn one(client: &reqwest::Client, uri: &PackageUri, dir: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let Some(hash) = uri.sha256() else {
        return Ok(());
    };
    let Ok(response) = client.get(&uri.url).send().await.and_then(reqwest::Response::error_for_status) else {
        return Ok(());
    };
    let doing = || format!("writing into the package cache {}", dir.display());
    let partial = tempfile::NamedTempFile::new_in(dir).context(doing)?;
    let mut file = tokio::fs::File::from_std(partial.as_file().try_clone().context(doing)?);
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            return Ok(());
        };
        hasher.update(&chunk);
        size += chunk.len() as u64;
        progress(chunk.len() as u64);
        file.write_all(&chunk).await.context(doing)?;
    }
    file.flush().await.context(doing)?;
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if size == uri.size && found == hash {
        use std::os::unix::fs::PermissionsExt as _;
        partial.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).context(doing)?;
        partial.persist(dir.join(&uri.filename)).map_err(|error| error.error).context(doing)?;
    }
    Ok(())
}
