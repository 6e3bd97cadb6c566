//! Secrets: values that a step may read while it runs and that no layer ever holds.
//!
//! A secret comes from a file or from a variable of the environment (`--secret id=NAME,src=FILE`) and is mounted at
//! [`DIR`]`/NAME` for the commands that ask for it by name, and for no other. It is part of no plan, no cache key and no message.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Context as _, Error, Result};
use crate::given;
use kfactory_layers::input::open_input_or_device;

/// Where a command finds its secrets, each in a file with the secret's name (mode 0400).
pub const DIR: &str = "/run/secrets";

/// A token or a key is a line or two; more is a wrong file.
const MAX_BYTES: u64 = 64 << 10;

/// A secret that a step knows how to use.
#[derive(Debug)]
pub struct KnownSecret {
    /// Its name.
    pub id: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Whether it is a directory of files rather than one value.
    is_directory: bool,
}

const fn value(id: &'static str, what: &'static str) -> KnownSecret {
    KnownSecret {
        id,
        what,
        is_directory: false,
    }
}

const fn directory(id: &'static str, what: &'static str) -> KnownSecret {
    KnownSecret {
        id,
        what,
        is_directory: true,
    }
}

/// The token of an Ubuntu Pro subscription.
pub const UBUNTU_PRO_TOKEN: &str = "ubuntu-pro-token";

/// Every secret that a step of ours uses. Others are refused: a misspelt name would be one that nobody reads.
pub const KNOWN: &[KnownSecret] = &[
    value(
        UBUNTU_PRO_TOKEN,
        "the token of an Ubuntu Pro subscription, for its FIPS packages",
    ),
    directory(
        "etc-pki-entitlement",
        "the certificates of a Red Hat subscription, for its repositories: a copy of /etc/pki/entitlement",
    ),
    directory(
        "rhsm",
        "the settings of a Red Hat subscription: a copy of /etc/rhsm",
    ),
    value(
        "SCCcredentials",
        "the credentials of a SUSE registration, for its repositories: /etc/zypp/credentials.d/SCCcredentials",
    ),
    value(
        "SUSEConnect",
        "where a SUSE registration server is: /etc/SUSEConnect",
    ),
];

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
}

/// A secret as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: String,
    source: Source,
}

impl FromStr for Secret {
    type Err = Error;

    /// Reads `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`, as podman and buildah take it.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("cannot read secret `{text}`: {why}"))
                .hint("write it as `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`")
        };
        let (mut id, mut source) = (None, None);
        for part in text.split(',') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| wrong(&format!("`{part}` is not KEY=VALUE")))?;
            if value.is_empty() {
                return Err(wrong(&format!("`{key}` is empty")));
            }
            let found = match key {
                "id" if id.is_none() => {
                    id = Some(value.to_owned());
                    continue;
                }
                "src" | "source" => Source::File(value.into()),
                "env" => Source::Variable(value.into()),
                "type" if matches!(value, "file" | "env") => continue,
                "id" | "type" => return Err(wrong(&format!("`{part}` cannot stand there"))),
                _ => return Err(wrong(&format!("unknown key `{key}`"))),
            };
            if source.replace(found).is_some() {
                return Err(wrong("it has two sources"));
            }
        }
        let id = id.ok_or_else(|| wrong("it has no `id`"))?;
        if !KNOWN.iter().any(|known| known.id == id) {
            let known = KNOWN
                .iter()
                .map(|known| format!("`{}`: {}", known.id, known.what));
            return Err(Error::usage(format!("no step uses a secret `{id}`"))
                .hints(known.collect::<Vec<_>>()));
        }
        let source = source.ok_or_else(|| wrong("it has no `src`"))?;
        Ok(Self { id, source })
    }
}

impl Secret {
    /// Returns the directory of the secret; `None` if it is a single value.
    ///
    /// # Errors
    ///
    /// It should be a directory and is none that can be read.
    pub fn directory(&self) -> Result<Option<PathBuf>> {
        if !KNOWN
            .iter()
            .any(|known| known.id == self.id && known.is_directory)
        {
            return Ok(None);
        }
        let doing = || format!("cannot read the secret `{}`", self.id);
        let Source::File(path) = &self.source else {
            return Err(Error::usage(format!("`{}` is a directory", self.id))
                .hint(format!("write it as `--secret id={},src=DIR`", self.id)));
        };
        given::directory(path).context(doing)?;
        std::fs::read_dir(path)
            .context(|| format!("opening {}", path.display()))
            .map_err(|error| error.context(doing()))?;
        Ok(Some(path.clone()))
    }

    /// Makes sure that the secret can be read.
    ///
    /// # Errors
    ///
    /// As for [`Secret::read`] and [`Secret::directory`].
    pub fn check(&self) -> Result<()> {
        match self.directory()? {
            Some(_) => Ok(()),
            None => self.read().map(|_| ()),
        }
    }

    /// Reads the value, without the line feed that editors put at the end of a file.
    ///
    /// # Errors
    ///
    /// The file or the variable is missing, empty, or too large to be a secret.
    pub fn read(&self) -> Result<Vec<u8>> {
        use std::io::Read as _;
        let doing = || format!("cannot read the secret `{}`", self.id);
        let mut value = match &self.source {
            Source::Variable(name) => {
                use std::os::unix::ffi::OsStringExt as _;
                std::env::var_os(name)
                    .ok_or_else(|| {
                        Error::user(format!("the variable `{name}` is not set")).context(doing())
                    })?
                    .into_vec()
            }
            Source::File(path) => {
                given::file(path).context(doing)?;
                let named = || format!("opening {}", path.display());
                let file = open_input_or_device(path)
                    .context(named)
                    .map_err(|error| error.context(doing()))?;
                let mut value = Vec::new();
                file.take(MAX_BYTES + 1)
                    .read_to_end(&mut value)
                    .context(named)
                    .map_err(|error| error.context(doing()))?;
                value
            }
        };
        while value.last() == Some(&b'\n') {
            value.pop();
        }
        match value.len() as u64 {
            0 => Err(Error::user("it is empty").context(doing())),
            1..=MAX_BYTES => Ok(value),
            _ => Err(Error::user(format!("it is larger than {MAX_BYTES} bytes")).context(doing())),
        }
    }

    /// Returns where a command finds the value.
    pub fn target(id: &str) -> String {
        format!("{DIR}/{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file_or_variable_without_the_last_line_feed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "C1234\n").unwrap();
        let secret: Secret = format!("id={UBUNTU_PRO_TOKEN},src={}", file.display())
            .parse()
            .unwrap();
        assert_eq!(secret.read().unwrap(), b"C1234");
        let secret: Secret = format!("type=env,id={UBUNTU_PRO_TOKEN},env=PATH")
            .parse()
            .unwrap();
        assert!(!secret.read().unwrap().is_empty());
    }

    #[test]
    fn malformed_and_unknown_secrets_are_usage_errors_that_name_the_part() {
        for (text, word) in [
            ("token", "`token` is not KEY=VALUE"),
            ("src=x", "no `id`"),
            ("id=ubuntu-pro-token", "no `src`"),
            ("id=ubuntu-pro-token,src=", "`src` is empty"),
            ("id=ubuntu-pro-token,src=a,env=B", "two sources"),
            ("id=ubuntu-pro-token,file=a", "unknown key `file`"),
            ("id=ubuntu-pro,src=a", "no step uses a secret `ubuntu-pro`"),
        ] {
            let error = text.parse::<Secret>().unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(
                error.render_text().contains(word),
                "{}",
                error.render_text()
            );
        }
    }

    #[test]
    fn a_subscription_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let secret = |text: String| text.parse::<Secret>().unwrap();
        let entitlement = secret(format!(
            "id=etc-pki-entitlement,src={}",
            dir.path().display()
        ));
        assert_eq!(
            entitlement.directory().unwrap().as_deref(),
            Some(dir.path())
        );
        entitlement.check().unwrap();
        let missing = dir.path().join("missing");
        for text in [
            format!("id=rhsm,src={}", missing.display()),
            "id=rhsm,env=PATH".to_owned(),
        ] {
            let error = secret(text).check().unwrap_err().render_text();
            assert!(error.contains("`rhsm`"), "{error}");
        }
    }

    #[test]
    fn a_missing_or_empty_secret_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let secret: Secret = format!("id={UBUNTU_PRO_TOKEN},src={}", file.display())
            .parse()
            .unwrap();
        assert!(
            secret
                .read()
                .unwrap_err()
                .to_string()
                .contains(UBUNTU_PRO_TOKEN)
        );
        std::fs::write(&file, "\n").unwrap();
        assert!(
            secret
                .read()
                .unwrap_err()
                .to_string()
                .contains("it is empty")
        );
    }
}
