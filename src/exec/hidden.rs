//! Secrets, while a command may read them.

use std::path::PathBuf;

use kfactory_sandbox::spec::Mount;

use crate::error::Result;
use crate::secret::Secret;

/// A secret, while a command may read it.
pub(super) struct Hidden {
    id: String,
    content: HiddenContent,
}

enum HiddenContent {
    Value(Vec<u8>),
    Directory(PathBuf),
}

impl Hidden {
    pub(super) fn read(secret: Secret) -> Result<Self> {
        let content = match secret.directory()? {
            Some(path) => HiddenContent::Directory(path),
            None => HiddenContent::Value(secret.read()?),
        };
        Ok(Self {
            id: secret.id,
            content,
        })
    }

    pub(super) fn mount(&self) -> Mount {
        let target = Secret::target(&self.id).into();
        match &self.content {
            HiddenContent::Value(value) => Mount::File {
                target,
                content: value.clone(),
                mode: 0o400,
            },
            HiddenContent::Directory(path) => Mount::Bind {
                source: path.clone(),
                target,
                read_only: true,
            },
        }
    }

    /// Takes every secret's value out of a line that a command printed.
    pub(super) fn mask(secrets: &[Self], line: String) -> String {
        secrets.iter().fold(line, |line, secret| {
            let text = match &secret.content {
                HiddenContent::Value(value) => std::str::from_utf8(value).ok(),
                HiddenContent::Directory(_) => None,
            };
            text.map_or_else(|| line.clone(), |text| line.replace(text, "[secret]"))
        })
    }
}
