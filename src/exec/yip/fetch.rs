//! Files from the network, with the transport security that extensions cannot switch off.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::Duration;

use kfactory_layers::root::Root;
use reqwest::header::CONTENT_DISPOSITION;

use super::tree::{self, NewFile};
use super::{Context, accounts};
use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::http::redact;
use crate::pace::{self, Fault, Patience};
use crate::step::Owner;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a transfer is tried in all.
const ATTEMPTS: u32 = 4;
/// How often one that stands still is: each time is a minute in which nobody learns anything.
const ATTEMPTS_IN_SILENCE: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No single file of an extension is larger.
const MAX_BYTES: u64 = 16 << 30;
/// Lists of keys are short.
const MAX_KEY_BYTES: u64 = 1 << 20;
const KEY_FILE_MODE: u32 = 0o600;
const SSH_DIR_MODE: u32 = 0o700;

/// A file that was fetched.
struct Fetched {
    content: File,
    /// What the server calls it.
    name: Option<String>,
}

/// Fetches a file of an extension.
pub(super) fn download(
    context: &Context<'_>,
    url: &str,
    path: &str,
    mode: u32,
    owner: &Owner,
    timeout_secs: u64,
) -> Result<()> {
    let root = &context.target.root;
    let limit = (timeout_secs > 0).then(|| Duration::from_secs(timeout_secs));
    let fetched = get(context, url, MAX_BYTES, limit)
        .map_err(|error| error.context(format!("cannot download {}", redact(url))))?;
    let is_dir =
        path.ends_with('/') || root.metadata_opt(path)?.is_some_and(|found| found.is_dir());
    let path = match is_dir {
        true => format!(
            "{}/{}",
            path.trim_end_matches('/'),
            name_of(url, fetched.name.as_deref())?
        ),
        false => path.to_owned(),
    };
    // Parents can be entered by all: a download says nothing of its own about directories.
    let parent = std::path::Path::new(&path)
        .parent()
        .unwrap_or(std::path::Path::new("/"));
    tree::missing_directories(root, parent, 0o755, (0, 0))?;
    let file = NewFile {
        path: &path,
        mode,
        owner,
        parents: &Owner::ROOT,
    };
    tree::copy(root, &file, fetched.content)
}

/// Names a file as the server or the URL does; never with a slash, which could lead elsewhere.
fn name_of(url: &str, sent: Option<&str>) -> Result<String> {
    let is_name =
        |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    let parsed = reqwest::Url::parse(url).ok();
    let last = parsed
        .as_ref()
        .and_then(|url| url.path_segments()?.next_back());
    sent.filter(|name| is_name(name))
        .or(last.filter(|name| is_name(name)))
        .map(str::to_owned)
        .ok_or_else(|| {
            Error::user(format!("{} names no file", redact(url)))
                .hint("end `path` with the file's name")
        })
}

fn get(
    context: &Context<'_>,
    url: &str,
    max_bytes: u64,
    limit: Option<Duration>,
) -> Result<Fetched> {
    if !context.env.has_network() {
        return Err(Error::user("the build has no network").hint("leave out `--network none`"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Another part of the program may have chosen the same provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("kfactory/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(|error| Error::from_source(&error))?;
    runtime.block_on(async {
        let all = retried(context, &client, url, max_bytes);
        match limit {
            None => all.await,
            Some(limit) => tokio::time::timeout(limit, all).await.map_err(|_| {
                Error::user(format!(
                    "it took longer than its timeout of {} s",
                    limit.as_secs()
                ))
            })?,
        }
    })
}

async fn retried(
    context: &Context<'_>,
    client: &reqwest::Client,
    url: &str,
    max_bytes: u64,
) -> Result<Fetched> {
    let mut wait = FIRST_WAIT;
    for attempt in 1.. {
        match once(context, client, url, max_bytes).await {
            Ok(fetched) => return Ok(fetched),
            Err((error, attempts)) if attempt >= attempts => return Err(error),
            Err(_) => tokio::time::sleep(wait).await,
        }
        wait *= 2;
    }
    Err(Error::internal("a download ended without an answer"))
}

/// Tries once; the number beside an error says how often to try in all what ends so.
async fn once(
    context: &Context<'_>,
    client: &reqwest::Client,
    url: &str,
    max_bytes: u64,
) -> std::result::Result<Fetched, (Error, u32)> {
    let network = |fault: Fault| match fault {
        Fault::Stalled(_) => (Error::from_source(&fault), ATTEMPTS_IN_SILENCE),
        Fault::Http(_) => (Error::from_source(&fault), ATTEMPTS),
    };
    let request = client.get(url);
    let mut answer = pace::send(request, Patience::default())
        .await
        .map_err(network)?;
    let status = answer.head.status();
    if !status.is_success() {
        let may_retry = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
        return Err((
            Error::user(format!(
                "the server answers with status {}",
                status.as_u16()
            )),
            if may_retry { ATTEMPTS } else { 1 },
        ));
    }
    let name = answer
        .head
        .headers()
        .get(CONTENT_DISPOSITION)
        .and_then(|value| value.to_str().ok())
        .and_then(sent_name);
    let local = |error: std::io::Error| (Error::from_source(&error), 1);
    let mut content = tempfile::tempfile_in(&context.env.scratch).map_err(local)?;
    let mut size = 0;
    while let Some(piece) = answer.chunk().await.map_err(network)? {
        if context.env.cancel.is_cancelled() {
            return Err((Error::new(Kind::Interrupted, "stopped by the user"), 1));
        }
        size += piece.len() as u64;
        if size > max_bytes {
            return Err((
                Error::user(format!("it is larger than {max_bytes} bytes")),
                1,
            ));
        }
        content.write_all(&piece).map_err(local)?;
    }
    content.rewind().map_err(local)?;
    Ok(Fetched { content, name })
}

/// Returns the file name of a `Content-Disposition`.
fn sent_name(header: &str) -> Option<String> {
    let value = header.split(';').map(str::trim).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case("filename")
            .then_some(value.trim())
    })?;
    Some(value.trim_matches('"').to_owned())
}

/// Adds keys to those that may log in as `user`.
///
/// Spec: yip, "authorized_keys".
pub(super) fn authorize(context: &Context<'_>, user: &str, keys: &[String]) -> Result<()> {
    let root = &context.target.root;
    let account = accounts::user(root, user)?.ok_or_else(|| {
        Error::user(format!("the image has no user `{user}`")).hint("make it with `users` first")
    })?;
    let is_home = root
        .metadata_opt(&account.home)?
        .is_some_and(|found| found.is_dir());
    if account.home.is_empty() || !is_home {
        return Err(Error::user(format!(
            "the home directory {:?} of {user} does not exist",
            account.home
        )));
    }
    let mut texts = Vec::new();
    for key in keys {
        texts.push(key_text(context, key)?);
    }
    write_keys(root, &account, &texts)
}

fn write_keys(root: &Root, account: &accounts::Account, keys: &[String]) -> Result<()> {
    let ids = (account.uid, account.gid);
    let dir = format!("{}/.ssh", account.home.trim_end_matches('/'));
    if !root.exists(&dir)? {
        tree::missing_directories(root, dir.as_ref(), SSH_DIR_MODE, ids)?;
    }
    let path = format!("{dir}/authorized_keys");
    let before = root.metadata_opt(&path)?;
    let mut text = root.read_to_string_opt(&path)?.unwrap_or_default();
    for key in keys {
        if !text.contains(key.as_str()) {
            text.push_str(key);
            text.push('\n');
        }
    }
    let owner = Owner::Ids {
        uid: Some(account.uid),
        gid: Some(account.gid),
    };
    let mode = before.map_or(KEY_FILE_MODE, |found| found.mode & 0o777);
    tree::file(
        root,
        &NewFile {
            path: &path,
            mode,
            owner: &owner,
            parents: &owner,
        },
        text.as_bytes(),
    )
}

/// Returns a key, fetched where it is only named.
fn key_text(context: &Context<'_>, key: &str) -> Result<String> {
    use std::io::Read as _;
    let Some(url) = key_url(key) else {
        return Ok(key.to_owned());
    };
    let mut fetched = get(context, &url, MAX_KEY_BYTES, None)
        .map_err(|error| error.context(format!("cannot fetch the SSH keys of {}", redact(&url))))?;
    let mut text = String::new();
    fetched
        .content
        .read_to_string(&mut text)
        .context(|| format!("reading the SSH keys of {}", redact(&url)))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn key_url(key: &str) -> Option<String> {
    if let Some(name) = key.strip_prefix("github:") {
        return Some(format!("https://github.com/{name}.keys"));
    }
    if let Some(name) = key.strip_prefix("gitlab:") {
        return Some(format!("https://gitlab.com/{name}.keys"));
    }
    (key.starts_with("http://") || key.starts_with("https://")).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn row_58_a_file_is_named_after_its_url_or_as_the_server_says() {
        assert_eq!(
            name_of("https://x/a/unittest.txt?q=/b", None).unwrap(),
            "unittest.txt"
        );
        assert_eq!(
            name_of("https://x/a", Some("sent.bin")).unwrap(),
            "sent.bin"
        );
        assert_eq!(
            name_of("https://x/a", Some("../../etc/shadow")).unwrap(),
            "a"
        );
        assert!(name_of("https://x/", None).is_err());
        assert_eq!(
            sent_name("attachment; filename=\"a b.txt\"").as_deref(),
            Some("a b.txt")
        );
        assert_eq!(sent_name("inline"), None);
    }

    #[test]
    fn keys_are_added_once_and_only_the_owner_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("home/foo")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let meta = root.metadata_opt("/home/foo").unwrap().unwrap();
        let account = accounts::Account {
            uid: meta.uid,
            gid: meta.gid,
            home: "/home/foo".into(),
        };
        for _ in 0..2 {
            write_keys(
                &root,
                &account,
                &["ssh-ed25519 AAAA a".into(), "ssh-rsa BBBB b".into()],
            )
            .unwrap();
        }
        let path = dir.path().join("home/foo/.ssh/authorized_keys");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "ssh-ed25519 AAAA a\nssh-rsa BBBB b\n"
        );
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn keys_of_a_forge_are_at_its_address() {
        assert_eq!(
            key_url("github:me").as_deref(),
            Some("https://github.com/me.keys")
        );
        assert_eq!(
            key_url("gitlab:me").as_deref(),
            Some("https://gitlab.com/me.keys")
        );
        assert_eq!(key_url("ssh-rsa AAAA"), None);
    }
}
