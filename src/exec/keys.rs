//! Fetches the key that a repository is signed with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kfactory_layers::root::Root;

use super::{Environment, files};
use crate::error::{Context as _, Error, Result};
use crate::framework::HttpError;
use crate::framework::http::Client;

/// A key with many signatures has some 20 KiB.
const MAX_BYTES: u64 = 1 << 20;
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Writes the key at `url` to `path`, as apt reads it on every release: binary.
pub(super) fn fetch(env: &Environment<'_>, root: &Root, url: &str, path: &str) -> Result<()> {
    let doing = || format!("fetching the key of a repository from {url}");
    if !env.has_network() {
        return Err(Error::user("the run has no network (`--network none`)").context(doing()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(doing)?;
    let content = runtime.block_on(get(url)).context(doing)?;
    let key = dearmored(&content)
        .ok_or_else(|| Error::user("what the server sent is no OpenPGP key").context(doing()))?;
    files::file(root, path, 0o644, &key)
}

async fn get(url: &str) -> Result<Vec<u8>, HttpError> {
    let content = std::cell::RefCell::new(Vec::new());
    Client::new(url)?
        .fetch(
            url,
            MAX_BYTES,
            || {
                content.borrow_mut().clear();
                Ok(())
            },
            |bytes, _| {
                content.borrow_mut().extend_from_slice(bytes);
                Ok(())
            },
        )
        .await?;
    Ok(content.into_inner())
}

/// Takes every key of an armoured text out of its armour; binary keys come back as they are. `None` for anything else.
///
/// Spec: RFC 9580, section 6.2.
fn dearmored(content: &[u8]) -> Option<Vec<u8>> {
    let is_key_packet = |byte: u8| matches!(byte, 0x98..=0x9b | 0xc6);
    if content.first().copied().is_some_and(is_key_packet) {
        return Some(content.to_vec());
    }
    let text = std::str::from_utf8(content).ok()?;
    let mut keys = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let (body, _) = block.split_once(END)?;
        let lines: Vec<&str> = body.lines().map(str::trim).collect();
        // Headers end with an empty line; the line that begins with `=` is a checksum that nobody needs.
        let start = lines.iter().skip(1).position(|line| line.is_empty())? + 2;
        let encoded: String = lines[start..]
            .iter()
            .copied()
            .filter(|line| !line.starts_with('='))
            .collect();
        let key = STANDARD.decode(encoded).ok()?;
        if !key.first().copied().is_some_and(is_key_packet) {
            return None;
        }
        keys.extend(key);
    }
    (!keys.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armour_headers_and_checksum_come_off_and_everything_else_is_no_key() {
        let key = [0x99, 0x01, 0x0d, 0x04, 1, 2, 3, 4, 5];
        let armoured = format!(
            "{BEGIN}\nVersion: GnuPG v2\nComment: x\n\n{}\n=AbCd\n{END}\n",
            STANDARD.encode(key)
        );
        assert_eq!(dearmored(armoured.as_bytes()).as_deref(), Some(&key[..]));
        let bare = format!("{BEGIN}\n\n{}\n{END}\n", STANDARD.encode(key));
        assert_eq!(dearmored(bare.as_bytes()).as_deref(), Some(&key[..]));
        let two = [key, key].concat();
        assert_eq!(dearmored((bare.clone() + &bare).as_bytes()), Some(two));
        assert_eq!(dearmored(&key).as_deref(), Some(&key[..]));
        for bad in [
            "",
            "<html>not found</html>",
            BEGIN,
            "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n",
        ] {
            assert_eq!(dearmored(bad.as_bytes()), None, "{bad}");
        }
    }
}
