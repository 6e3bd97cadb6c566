//! Fetches package archives in parallel into the shared cache, each checked against the hash that apt names for it.
//!
//! The cache names archives by hash; a run links them under the names apt expects.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::distro::apt::{PackageHash, PackageUri};
use crate::error::{Context as _, Error, Result};

/// Connections at a time: mirrors answer one request in a round trip, so several hide it; more are impolite.
const CONNECTIONS: usize = 8;
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// A mirror that sends nothing for this long is left to apt, which may know another.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Links an archive that the cache has under its name for apt; returns whether it is in place now.
pub(super) fn link_cached(uri: &PackageUri, cache: &Path, archives: &Path) -> bool {
    let Some(cached) = cached_path(uri, cache) else {
        return false;
    };
    let whole = fs::metadata(&cached).is_ok_and(|metadata| metadata.len() == uri.size_bytes);
    let place = archives.join(&uri.filename);
    whole
        && (place.exists()
            || fs::hard_link(&cached, &place)
                .or_else(|_| fs::copy(&cached, &place).map(|_| ()))
                .is_ok())
}

/// Returns the archive's place in the cache; `None` for a hash this program does not compute.
fn cached_path(uri: &PackageUri, cache: &Path) -> Option<PathBuf> {
    match &uri.hash {
        PackageHash::Sha256(digits) => Some(cache.join(format!("{digits}.deb"))),
        PackageHash::Sha512(_) => None,
    }
}

/// Fetches every archive; one that cannot be fetched is left to apt, which knows more transports and mirrors.
///
/// # Errors
///
/// A directory cannot be written.
pub(super) fn fetch(
    uris: &[PackageUri],
    cache: &Path,
    archives: &Path,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Another part of the program may have chosen the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("kfactory/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| Error::from_source(&error))?;
    runtime.block_on(async {
        futures_util::stream::iter(
            uris.iter()
                .filter(|uri| is_http(uri))
                .map(|uri| one(&client, uri, cache, archives, progress)),
        )
        .buffer_unordered(CONNECTIONS.max(jobs))
        .try_collect::<Vec<()>>()
        .await
        .map(|_| ())
    })
}

fn is_http(uri: &PackageUri) -> bool {
    uri.url.starts_with("http://") || uri.url.starts_with("https://")
}

async fn one(
    client: &reqwest::Client,
    uri: &PackageUri,
    cache: &Path,
    archives: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let Some(place) = cached_path(uri, cache) else {
        return Ok(());
    };
    let Ok(response) = client
        .get(&uri.url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
    else {
        return Ok(());
    };
    let doing = || format!("writing into the package cache {}", cache.display());
    let partial = tempfile::NamedTempFile::new_in(cache).context(doing)?;
    let mut file = tokio::fs::File::from_std(partial.as_file().try_clone().context(doing)?);
    let mut hasher = Sha256::new();
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            return Ok(());
        };
        hasher.update(&chunk);
        progress(chunk.len() as u64);
        file.write_all(&chunk).await.context(doing)?;
    }
    file.flush().await.context(doing)?;
    let found: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if uri.hash == PackageHash::Sha256(found) {
        use std::os::unix::fs::PermissionsExt as _;
        partial
            .as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .context(doing)?;
        partial
            .persist(&place)
            .map_err(|error| error.error)
            .context(doing)?;
        link_cached(uri, cache, archives);
    }
    Ok(())
}
