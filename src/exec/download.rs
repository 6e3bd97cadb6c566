//! Fetches package archives in parallel into the shared cache, each checked against the hash that apt names for it.
//!
//! The cache names archives by hash; a run copies them under the names apt expects.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _};
use kfactory_sandbox::CancelToken;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::distro::apt::{PackageHash, PackageUri};
use crate::error::{Context as _, Error, Result};
use crate::framework::http::redact;
use crate::pace::{self, Fault, Patience, Stalled};
use crate::stop;

/// Connections at a time: mirrors answer one request in a round trip, so several hide it; more are impolite.
const CONNECTIONS: usize = 8;
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes that are hashed and copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// A mirror that sends nothing for this long is left to apt, which may know another.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Copies an archive that the cache has under its name for apt; returns whether it is in place now.
///
/// A copy, and checked again: the command in the sandbox may write to what it gets, and apt itself looks only at the size of an
/// archive that is there already. A damaged one is removed, to be fetched anew.
pub(super) fn take_cached(uri: &PackageUri, cache: &Path, archives: &Path) -> bool {
    let Some(cached) = cached_path(uri, cache) else {
        return false;
    };
    let place = archives.join(&uri.filename);
    if place.exists() {
        return true;
    }
    match copy_checked(uri, &cached, &place, archives) {
        Ok(true) => true,
        Ok(false) => {
            let _ = fs::remove_file(&cached);
            false
        }
        // Not there, or no room: apt tries by itself.
        Err(_) => false,
    }
}

/// Copies `cached` to `place` unless its bytes are not those of `uri`; returns whether they are.
fn copy_checked(
    uri: &PackageUri,
    cached: &Path,
    place: &Path,
    archives: &Path,
) -> std::io::Result<bool> {
    let mut from = fs::File::open(cached)?.take(uri.size_bytes.saturating_add(1));
    let mut partial = tempfile::Builder::new()
        .prefix(".")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(archives)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut size = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        partial.write_all(&buffer[..count])?;
        size += count as u64;
    }
    if size != uri.size_bytes || uri.hash != PackageHash::Sha256(hex(hasher)) {
        return Ok(false);
    }
    partial.persist(place).map_err(|error| error.error)?;
    Ok(true)
}

fn hex(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns the archive's place in the cache; `None` for a hash this program does not compute.
fn cached_path(uri: &PackageUri, cache: &Path) -> Option<PathBuf> {
    match &uri.hash {
        PackageHash::Sha256(digits) => Some(cache.join(format!("{digits}.deb"))),
        PackageHash::Sha512(_) => None,
    }
}

/// Fetches every archive into the cache and calls `cached` for it; one that cannot be fetched is left to apt, which knows more transports and mirrors.
///
/// # Errors
///
/// A directory cannot be written, the run is stopped, or an archive trickles: apt would wait for it without an end.
pub(super) fn fetch(
    uris: &[&PackageUri],
    cache: &Path,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
    cached: &(dyn Fn(&PackageUri) + Sync),
    cancel: &CancelToken,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Another part of the program may have chosen the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = client()?;
    stop::block_on(&runtime, cancel, async {
        futures_util::stream::iter(
            uris.iter()
                .filter(|uri| is_http(uri))
                .map(|uri| one(&client, uri, cache, Patience::default(), progress, cached)),
        )
        .buffer_unordered(CONNECTIONS.max(jobs))
        .try_collect::<Vec<()>>()
        .await
        .map(|_| ())
    })
}

fn client() -> Result<reqwest::Client> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("kfactory/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
    };
    // Inside a container build there may be no certificate authorities yet. Most mirrors need none, and the others are apt's matter.
    let client = builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|error| Error::from_source(&error))
}

fn is_http(uri: &PackageUri) -> bool {
    uri.url.starts_with("http://") || uri.url.starts_with("https://")
}

async fn one(
    client: &reqwest::Client,
    uri: &PackageUri,
    cache: &Path,
    patience: Patience,
    progress: &(dyn Fn(u64) + Sync),
    cached: &(dyn Fn(&PackageUri) + Sync),
) -> Result<()> {
    let Some(place) = cached_path(uri, cache) else {
        return Ok(());
    };
    let Ok(mut answer) = pace::send(client.get(&uri.url), patience).await else {
        return Ok(());
    };
    if !answer.head.status().is_success() {
        return Ok(());
    }
    let doing = || format!("writing into the package cache {}", cache.display());
    let partial = tempfile::NamedTempFile::new_in(cache).context(doing)?;
    let mut file = tokio::fs::File::from_std(partial.as_file().try_clone().context(doing)?);
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let chunk = match answer.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(Fault::Stalled(trickle @ Stalled::TooSlow { .. })) => {
                return Err(trickles(uri, &trickle));
            }
            Err(_) => return Ok(()),
        };
        size += chunk.len() as u64;
        if size > uri.size_bytes {
            return Ok(());
        }
        hasher.update(&chunk);
        progress(chunk.len() as u64);
        file.write_all(&chunk).await.context(doing)?;
    }
    file.flush().await.context(doing)?;
    if uri.hash == PackageHash::Sha256(hex(hasher)) {
        partial
            .as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .context(doing)?;
        partial
            .persist(&place)
            .map_err(|error| error.error)
            .context(doing)?;
        cached(uri);
    }
    Ok(())
}

fn trickles(uri: &PackageUri, how: &Stalled) -> Error {
    Error::from_source(how)
        .context(format!("cannot download {}", redact(&uri.url)))
        .hint("choose another mirror in the base's package sources")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_archive_that_trickles_is_an_error_and_not_left_to_apt() {
        let (base, _) = pace::trickle::server();
        let cache = tempfile::tempdir().unwrap();
        let uri = PackageUri {
            url: format!("{base}/a.deb"),
            size_bytes: 1 << 20,
            ..uri(b"")
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let patience = Patience(std::time::Duration::from_millis(300));
        let fetching = one(&client, &uri, cache.path(), patience, &|_| {}, &|_| {});
        let text = fetching.await.unwrap_err().render_text();
        let words = [
            &*format!("cannot download {base}/a.deb"),
            "no progress, ",
            "hint: ",
        ];
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    }

    fn uri(content: &[u8]) -> PackageUri {
        PackageUri {
            url: "http://mirror/a.deb".into(),
            filename: "a.deb".into(),
            size_bytes: content.len() as u64,
            hash: PackageHash::Sha256(hex(Sha256::new_with_prefix(content))),
        }
    }

    #[test]
    fn a_cached_archive_is_copied_and_a_changed_one_is_removed() {
        let (cache, archives) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let uri = uri(b"good");
        let cached = cached_path(&uri, cache.path()).unwrap();
        let place = archives.path().join("a.deb");

        assert!(!take_cached(&uri, cache.path(), archives.path()));
        fs::write(&cached, b"evil").unwrap();
        assert!(!take_cached(&uri, cache.path(), archives.path()));
        assert!(!cached.exists() && !place.exists());

        fs::write(&cached, b"good").unwrap();
        assert!(take_cached(&uri, cache.path(), archives.path()));
        fs::write(&place, b"evil").unwrap();
        assert_eq!(fs::read(&cached).unwrap(), b"good");
    }
}
