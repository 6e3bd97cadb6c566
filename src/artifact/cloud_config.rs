//! The configuration that goes along with an artifact, for the installation and the system: text for the agent, which is read here only as
//! far as it must be one.

use std::io::{self, Read};
use std::path::Path;

use kfactory_layers::input::open_input_or_device;

use crate::error::{Context as _, Error, Result};
use crate::progress::bytes_text;
use crate::{given, yaml};

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
    let header = format!("its first line is `{}`", HEADERS[0]);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Error::user("it is no UTF-8 text").hint(header));
    };
    if text.trim().is_empty() {
        return Err(Error::user("it is empty").hint("leave the option out for none"));
    }
    let first = text.lines().next().unwrap_or_default().trim_end();
    if !HEADERS.contains(&first) {
        return Err(
            Error::user("the agent would pass over it: it does not say that it is one")
                .hint(header),
        );
    }
    yaml::check(text)
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
    fn what_the_agent_would_not_read_is_refused_and_nothing_of_it_is_shown() {
        assert!(check(b"#cloud-config\n").is_ok());
        assert!(check(b"#cloud-config\nusers:\n- name: me\n").is_ok());
        for (text, said) in [
            (&b"\n \n"[..], "it is empty"),
            (b"users: []\n", "first line is `#cloud-config`"),
            (b"#cloud-config\n\xff", "no UTF-8"),
            (b"#cloud-config\npasswd: [secret\n", "line "),
            (b"#cloud-config\n- secret\n", "line 2"),
        ] {
            let error = check(text).unwrap_err().render_text();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
