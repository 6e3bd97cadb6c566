//! The configuration that goes along with an artifact, for the installation and the system: text for the agent, which is read here only as
//! far as it must be one.

use std::io::{self, Read};
use std::path::Path;

use kfactory_layers::input::open_input_or_device;
use serde_json::Value;

use crate::error::{Context as _, Error, Result};
use crate::progress::bytes_text;
use crate::{given, suggest, yaml};

/// The largest one; the agent reads it into memory.
const MAX_BYTES: u64 = 4 << 20;
/// What the first line of one is.
const HEADERS: [&str; 3] = ["#cloud-config", "#kairos-config", "#node-config"];

/// Reads it from `file`; `-` is standard input.
///
/// # Errors
///
/// It cannot be read, is larger than 4 MiB, or is nothing that the agent would take for a configuration.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    let doing = || format!("cannot read the configuration `{}`", file.display());
    let bytes = match file.as_os_str() == "-" {
        true => bounded(&mut io::stdin().lock()).context(doing)?,
        false => {
            given::file(file).context(doing)?;
            bounded(&mut open_input_or_device(file).context(doing)?).context(doing)?
        }
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(
            Error::user(format!("it is larger than {}", bytes_text(MAX_BYTES)))
                .context(doing())
                .hint("the agent reads it into memory: let it name large files by their addresses"),
        );
    }
    check(&bytes).context(doing)?;
    Ok(bytes)
}

/// Checks that the agent would take `bytes` for a configuration.
fn check(bytes: &[u8]) -> Result<()> {
    let header = format!("its first line must be `{}`", HEADERS[0]);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Error::user("it is no UTF-8 text").hint(header));
    };
    if text.starts_with('\u{feff}') {
        return Err(Error::user(
            "it begins with a byte order mark, behind which the agent sees no header",
        )
        .hint("save it as UTF-8 without one"));
    }
    if text.trim().is_empty() {
        return Err(Error::user("it is empty").hint("leave the option out for none"));
    }
    let first = text.lines().next().unwrap_or_default().trim_end();
    if !HEADERS.contains(&first) {
        return Err(Error::user(
            "the agent would pass over it: its first line does not say that it is a configuration",
        )
        .hint(header));
    }
    // A script inside of a value begins with blanks, too.
    if let Some(line) = text
        .lines()
        .position(|line| line.starts_with('\t') && !line.trim().is_empty())
    {
        return Err(
            Error::user(format!("line {}: it begins with a tab", line + 1))
                .hint("YAML is indented with blanks"),
        );
    }
    yaml::check(text)?;
    let config: Value = yaml::read(text, "the configuration").unwrap_or_default();
    for key in ["stages", "install"] {
        if config
            .get(key)
            .is_some_and(|it| !it.is_object() && !it.is_null())
        {
            return Err(Error::user(format!("`{key}` holds no keys with values")));
        }
    }
    let auto = config.pointer("/install/auto");
    if auto.is_some_and(|value| !is_switch(value)) {
        return Err(Error::user("`install.auto` is neither true nor false"));
    }
    Ok(())
}

/// Tells whether the agent, which reads the words of YAML 1.1 too, takes `value` for true or false.
fn is_switch(value: &Value) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    match value {
        Value::Bool(_) | Value::Null => true,
        Value::String(word) => WORDS.contains(&word.to_lowercase().as_str()),
        _ => false,
    }
}

/// Returns whether the agent installs a system with this configuration: it wants a user of the group `admin`, or `install.nousers`.
/// What the configuration fetches from elsewhere may bring one.
pub fn installs(config: &[u8]) -> bool {
    let text = String::from_utf8_lossy(config);
    let config: Value = yaml::read(&text, "the configuration").unwrap_or_default();
    config.get("config_url").is_some()
        || config.pointer("/install/nousers") == Some(&Value::Bool(true))
        || has_admin(&config)
}

/// Returns whether anything in `config` is of the group `admin`, as users of stages and of cloud-init are.
fn has_admin(config: &Value) -> bool {
    let is_admin = |groups: &Value| match groups {
        Value::String(list) => list.split(',').any(|group| group.trim() == "admin"),
        Value::Array(list) => list.iter().any(|group| group == "admin"),
        _ => false,
    };
    match config {
        Value::Object(keys) => {
            keys.get("groups").is_some_and(is_admin) || keys.values().any(has_admin)
        }
        Value::Array(values) => values.iter().any(has_admin),
        _ => false,
    }
}

/// Keys that most configurations are made of.
const KEYS: [&str; 22] = [
    "install",
    "stages",
    "users",
    "hostname",
    "k3s",
    "k3s-agent",
    "k0s",
    "k0s-worker",
    "p2p",
    "reset",
    "upgrade",
    "bundles",
    "config_url",
    "kcrypt",
    "options",
    "write_files",
    "ssh_authorized_keys",
    "runcmd",
    "bootcmd",
    "growpart",
    "strict",
    "debug",
];

/// Returns what its writer may have meant otherwise: keys that are nearly one of those that everybody uses.
pub fn doubts(config: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(config);
    let config: Value = yaml::read(&text, "the configuration").unwrap_or_default();
    let keys = config.as_object().into_iter().flat_map(|keys| keys.keys());
    let unknown = keys.filter(|key| !KEYS.contains(&key.as_str()));
    let near = unknown.filter_map(|key| Some((key, suggest::nearest_name(key, KEYS)?)));
    near.map(|(key, known)| format!("the configuration has the key `{key}`: is `{known}` meant?"))
        .collect()
}

/// Reads at most one byte more than is allowed.
fn bounded(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_installs_with_an_admin_or_where_it_is_told_that_there_is_none() {
        for text in [
            "users:\n- name: me\n  groups: [admin]\n",
            "users:\n- name: me\n  groups: sudo, admin\n",
            "stages:\n  initramfs:\n  - users:\n      me:\n        groups: [admin]\n",
            "install: {nousers: true}\n",
            "config_url: http://192.0.2.1/config\n",
        ] {
            let text = format!("#cloud-config\n{text}");
            assert!(installs(text.as_bytes()), "{text}");
        }
        for text in [
            "hostname: admin\n",
            "users:\n- name: admin\n  groups: [sudo]\n",
            "install: {nousers: false}\n",
        ] {
            let text = format!("#cloud-config\n{text}");
            assert!(!installs(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_nearly_a_known_one_is_doubted() {
        let config = b"#cloud-config\ninstal: {auto: true}\nusers: []\nmy-plugin: {}\nk3: {}\n";
        let doubts = doubts(config);
        assert_eq!(doubts.len(), 2, "{doubts:?}");
        assert!(doubts[0].contains("`instal`: is `install` meant?"));
    }

    #[test]
    fn what_the_agent_would_not_read_is_refused_and_nothing_of_it_is_shown() {
        assert!(check(b"#cloud-config\n").is_ok());
        assert!(check(b"#cloud-config\nusers:\n- name: me\n").is_ok());
        for word in ["true", "no", "On", "\"yes\""] {
            let text = format!("#cloud-config\ninstall:\n  auto: {word}\n");
            assert!(check(text.as_bytes()).is_ok(), "{text}");
        }
        for (text, said) in [
            (&b"\n \n"[..], "it is empty"),
            (b"users: []\n", "first line must be `#cloud-config`"),
            (b"#cloud-config\n\xff", "no UTF-8"),
            (b"#cloud-config\npasswd: [secret\n", "line "),
            (b"#cloud-config\n- secret\n", "line 2"),
            (b"\xef\xbb\xbf#cloud-config\n", "byte order mark"),
            (b"#cloud-config\nstages: secret\n", "`stages` holds no keys"),
            (
                b"#cloud-config\n\tusers: secret\n",
                "line 2: it begins with a tab",
            ),
            (
                b"#cloud-config\ninstall: {auto: secret}\n",
                "`install.auto` is neither",
            ),
            (
                b"#cloud-config\ninstall: [secret]\n",
                "`install` holds no keys",
            ),
        ] {
            let error = check(text).unwrap_err().render_text();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
