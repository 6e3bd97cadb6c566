//! Files of a release: downloaded, and compared with the checksums that are published beside them.

use std::cell::RefCell;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::FrameworkError;
use super::cache::hex;
use super::http::{self, Client};

/// Most bytes of a checksums file; they have some ten lines, where container images are listed too some hundred.
const MAX_CHECKSUMS_BYTES: u64 = 1 << 20;

/// Returns the SHA-256 that the checksums file at `url` gives for `file`, in lower-case hex.
///
/// # Errors
///
/// What `unverifiable` makes of the reason where `url` does not prove who answers; [`FrameworkError::Http`];
/// [`FrameworkError::NotListed`] where the file does not speak of `file`.
pub(crate) async fn checksum(
    client: &Client,
    url: &str,
    file: &str,
    unverifiable: impl FnOnce(String) -> FrameworkError,
) -> Result<String, FrameworkError> {
    if !http::is_authenticated(url) {
        let why = format!("{} is not reached over TLS", http::redact(url));
        return Err(unverifiable(why));
    }
    let text = RefCell::new(Vec::new());
    let begin = || {
        text.borrow_mut().clear();
        Ok(())
    };
    let sink = |bytes: &[u8], _| {
        text.borrow_mut().extend_from_slice(bytes);
        Ok(())
    };
    client.fetch(url, MAX_CHECKSUMS_BYTES, begin, sink).await?;
    let text = text.into_inner();
    sum_of(&String::from_utf8_lossy(&text), file).ok_or_else(|| FrameworkError::NotListed {
        url: http::redact(url),
        file: file.into(),
    })
}

/// Returns the SHA-256 that a checksums file gives for `file`, in lower case.
///
/// Lines are those of `sha256sum`: the sum, blanks, the name, which a `*` may precede.
pub(super) fn sum_of(text: &str, file: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (sum, name) = line.trim().split_once(char::is_whitespace)?;
        let good = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        let name = name.trim_start();
        (good && name.strip_prefix('*').unwrap_or(name) == file).then(|| sum.to_ascii_lowercase())
    })
}

/// Downloads `url` into the new file `path` and returns the SHA-256 of what came.
///
/// `progress` is told `None` when a try begins, then bytes so far and, if the server said, in all.
///
/// # Errors
///
/// [`FrameworkError::Http`], also for more than `limit_bytes`; [`FrameworkError::Io`].
pub(crate) async fn download(
    client: &Client,
    url: &str,
    limit_bytes: u64,
    path: &Path,
    progress: &dyn Fn(Option<(u64, Option<u64>)>),
) -> Result<String, FrameworkError> {
    let file = std::fs::File::create_new(path).map_err(FrameworkError::io("creating", path))?;
    // Both closures write; they never run at the same time.
    let state = RefCell::new((file, Sha256::new(), 0));
    let begin = || {
        let (file, hash, bytes) = &mut *state.borrow_mut();
        progress(None);
        (*hash, *bytes) = (Sha256::new(), 0);
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0)).map(drop)
    };
    let sink = |piece: &[u8], total_bytes| {
        let (file, hash, bytes) = &mut *state.borrow_mut();
        hash.update(piece);
        *bytes += piece.len() as u64;
        progress(Some((*bytes, total_bytes)));
        file.write_all(piece)
    };
    client.fetch(url, limit_bytes, begin, sink).await?;
    let (_, hash, _) = state.into_inner();
    Ok(hex(&hash.finalize()))
}

/// What a download must be.
#[derive(Debug)]
pub(crate) struct Expected {
    /// SHA-256, lower-case hex.
    pub(crate) sha256: String,
    /// Who says so.
    pub(crate) origin: String,
}

/// Downloads as [`download`], and compares what came with what was expected.
///
/// # Errors
///
/// Those of [`download`], and [`FrameworkError::Checksum`]; then `path` holds what came.
pub(crate) async fn download_verified(
    client: &Client,
    url: &str,
    limit_bytes: u64,
    path: &Path,
    expected: Expected,
    progress: &dyn Fn(Option<(u64, Option<u64>)>),
) -> Result<(), FrameworkError> {
    let found = download(client, url, limit_bytes, path, progress).await?;
    if found == expected.sha256 {
        return Ok(());
    }
    Err(FrameworkError::Checksum {
        what: http::redact(url),
        expected: expected.sha256,
        origin: expected.origin,
        found,
    })
}

/// Does downloads into `cache_dir` on a thread of their own, because the caller may be inside an async runtime.
///
/// # Errors
///
/// [`FrameworkError::Io`] where no runtime can be started.
pub(crate) fn on_own_thread<T: Send, F: Future<Output = T>>(
    cache_dir: &Path,
    downloads: impl FnOnce() -> F + Send,
) -> Result<T, FrameworkError> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(FrameworkError::io("starting downloads into", cache_dir))?;
            Ok(runtime.block_on(downloads()))
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_and_whole_sums_count_in_a_checksums_file() {
        let sum = "a".repeat(64);
        let text = format!(
            "{sum}  x.tar.gz.sig\nabc  x.tar.gz\n{}  x.tar.gz\n{sum} *y.tar.gz\n",
            "g".repeat(64)
        );
        assert_eq!(sum_of(&text, "x.tar.gz"), None);
        assert_eq!(sum_of(&text, "y.tar.gz"), Some(sum));
        assert_eq!(sum_of("", ""), None);
    }
}
