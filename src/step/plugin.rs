//! The work that only steps of stage extensions ask for, as plain data.
//!
//! Spec: yip. Paths are absolute inside the image; texts marked as templates are rendered when the step runs.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use kfactory_layers::digest::Digest;
use serde::{Serialize, Serializer};

use super::extension::first_line;

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "plugin", rename_all = "kebab-case")]
pub enum Plugin {
    /// Fetches a file.
    Download {
        /// Where from.
        url: String,
        /// Where to; a directory, or a path ending in `/`, gets a file named after the URL.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Who owns it.
        owner: Owner,
        /// The longest the whole transfer may take, in seconds; 0: no limit.
        timeout_secs: u64,
    },
    /// Clones a repository, or brings a clone up to date.
    Git {
        /// Where from.
        url: String,
        /// Where to.
        path: String,
        /// The branch; `None`: the one that the repository itself prefers.
        branch: Option<String>,
        /// Whether no other branch is fetched.
        branch_only: bool,
        /// How to log in.
        #[serde(skip_serializing_if = "Option::is_none")]
        auth: Option<GitAuth>,
    },
    /// Adds or replaces a line of passwd, shadow, group or gshadow.
    EnsureEntity {
        /// The file; `None`: the usual one of the kind.
        path: Option<String>,
        /// The entity's YAML, a template.
        entity: String,
    },
    /// Removes such a line.
    DeleteEntity {
        /// The file; `None`: the usual one of the kind.
        path: Option<String>,
        /// The entity's YAML, a template.
        entity: String,
    },
    /// Makes a directory, or gives mode and owner to one that exists.
    MakeDirectory {
        /// The directory.
        path: String,
        /// Permission bits, for it and for missing parents.
        mode: u32,
        /// User and group, as numbers.
        owner: Owner,
    },
    /// Writes a file as yip does: links are followed, parents get the file's mode and owner.
    WriteFile {
        /// The file.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Who owns the file.
        owner: Owner,
        /// Who owns parents that have to be made.
        parents: Owner,
        /// What to write.
        content: Content,
        /// Whether the content is a template.
        template: bool,
    },
    /// Runs a shell text, a template.
    Shell {
        /// The text.
        script: String,
    },
    /// Writes `/etc/hostname` and the name's line in `/etc/hosts`.
    Hostname {
        /// The name, a template with data of its own.
        name: String,
    },
    /// Makes accounts, or sets the passwords of those that exist.
    Users {
        /// By name; made in this order.
        users: BTreeMap<String, UserAccount>,
    },
    /// Adds keys to a user's `authorized_keys`.
    AuthorizedKeys {
        /// The user.
        user: String,
        /// Keys, or where keys are: `github:NAME`, `gitlab:NAME`, a URL.
        keys: Vec<String>,
    },
    /// Sets keys of `[Time]` in `/etc/systemd/timesyncd.conf.d/10-yip.conf`.
    Timesyncd {
        /// Keys and values.
        entries: BTreeMap<String, String>,
    },
    /// `systemctl VERB UNIT`, one process for each.
    Systemctl {
        /// What to do.
        verb: Unit,
        /// The unit, as the file has it.
        unit: String,
    },
    /// Merges variables into a file of assignments.
    Environment {
        /// The file.
        path: String,
        /// Names and values; values are templates.
        entries: BTreeMap<String, String>,
    },
    /// `systemd-firstboot` with these arguments.
    SystemdFirstboot {
        /// The arguments, sorted.
        arguments: Vec<String>,
    },
    /// Holds packages at a version.
    PackagePins {
        /// Packages and versions.
        pins: BTreeMap<String, String>,
    },
    /// Refreshes, upgrades, installs and removes with the image's package manager, in this order.
    InstallPackages {
        /// Whether to fetch the indexes anew.
        refresh: bool,
        /// Whether to bring everything up to date.
        upgrade: bool,
        /// What to install: words for the shell.
        install: Vec<String>,
        /// What to remove: words for the shell.
        remove: Vec<String>,
    },
    /// Unpacks an image's flattened tree.
    UnpackImage {
        /// The image.
        source: String,
        /// The directory it goes to.
        target: String,
        /// `os/architecture[/variant]`; `None`: that of the image being made.
        #[serde(skip_serializing_if = "Option::is_none")]
        platform: Option<String>,
    },
}

/// A user and a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Owner {
    /// As numbers; `None` leaves what is there.
    Ids {
        /// The user.
        uid: Option<u32>,
        /// The group.
        gid: Option<u32>,
    },
    /// `user` or `user:group`, looked up in the image.
    Name(String),
}

impl Owner {
    /// Owned by root.
    pub const ROOT: Owner = Owner::Ids {
        uid: Some(0),
        gid: Some(0),
    };
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |id: &Option<u32>| id.map_or("-".to_owned(), |id| id.to_string());
        match self {
            Owner::Ids { uid, gid } => write!(f, "{}:{}", number(uid), number(gid)),
            Owner::Name(name) => f.write_str(name),
        }
    }
}

/// Bytes that are text most of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let text = base64::engine::general_purpose::STANDARD.encode(&self.0);
                BTreeMap::from([("base64", text)]).serialize(serializer)
            }
        }
    }
}

/// A text that no output shows. In JSON and in cache keys its digest stands for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Digest::of(self.0.as_bytes()))
    }
}

/// How git logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GitAuth {
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// An SSH private key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
    /// The server's host key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Whether the server may be anybody.
    pub insecure: bool,
}

/// An account, as the `users` plugin has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UserAccount {
    /// The password, plain or hashed; empty: none is needed to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Whether the password is locked instead.
    pub lock_password: bool,
    /// The comment field.
    pub gecos: String,
    /// The home directory; empty: below the usual place.
    pub home: String,
    /// Whether no home directory is made.
    pub no_home: bool,
    /// An existing group to belong to; empty: one of the user's own.
    pub primary_group: String,
    /// More groups, as far as they exist.
    pub groups: Vec<String>,
    /// The login shell; empty: the usual one.
    pub shell: String,
    /// The user's number; `None`: the lowest free one.
    pub uid: Option<u32>,
    /// Keys that may log in.
    pub keys: Vec<String>,
}

/// What `systemctl` does with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Starts it at boot.
    Enable,
    /// No longer starts it at boot.
    Disable,
    /// Keeps it from being started at all.
    Mask,
}

impl Unit {
    /// Returns the verb.
    pub fn verb(self) -> &'static str {
        match self {
            Unit::Enable => "enable",
            Unit::Disable => "disable",
            Unit::Mask => "mask",
        }
    }
}

impl Plugin {
    /// Returns whether it cannot do its work without a network, and what for.
    pub fn needs_network(&self) -> Option<String> {
        let is_remote = |key: &String| {
            key.contains("://") || key.starts_with("github:") || key.starts_with("gitlab:")
        };
        match self {
            Plugin::Download { url, .. } => Some(format!("it downloads {url}")),
            Plugin::Git { url, .. } => Some(format!("it clones {url}")),
            Plugin::UnpackImage { source, .. } => Some(format!("it pulls {source}")),
            Plugin::InstallPackages {
                refresh,
                upgrade,
                install,
                ..
            } if *refresh || *upgrade || !install.is_empty() => {
                Some("it fetches packages".to_owned())
            }
            Plugin::AuthorizedKeys { keys, .. } => keys
                .iter()
                .find(|key| is_remote(key))
                .map(|key| format!("it fetches the keys of {key}")),
            Plugin::Users { users } => users
                .values()
                .flat_map(|user| &user.keys)
                .find(|key| is_remote(key))
                .map(|key| format!("it fetches the keys of {key}")),
            _ => None,
        }
    }

    /// Returns one line that says what it does.
    pub fn describe(&self) -> String {
        let entity_of = |path: &Option<String>| path.clone().unwrap_or("its usual file".into());
        match self {
            Plugin::Download {
                url,
                path,
                mode,
                owner,
                ..
            } => {
                format!("download {url} to {path} ({owner} {mode:04o})")
            }
            Plugin::Git {
                url, path, branch, ..
            } => {
                let what = match branch {
                    Some(branch) => format!("branch {branch} of "),
                    None => String::new(),
                };
                format!("clone {what}{url} into {path}")
            }
            Plugin::EnsureEntity { path, .. } => format!("ensure an entry in {}", entity_of(path)),
            Plugin::DeleteEntity { path, .. } => {
                format!("delete an entry from {}", entity_of(path))
            }
            Plugin::MakeDirectory { path, mode, owner } => {
                format!("ensure directory {path} ({owner} {mode:04o})")
            }
            Plugin::WriteFile {
                path,
                mode,
                owner,
                content,
                ..
            } => {
                format!(
                    "write {path} ({owner} {mode:04o}, {} bytes)",
                    content.0.len()
                )
            }
            Plugin::Shell { script } => format!("run {}", first_line(script)),
            Plugin::Hostname { name } => format!("set the host name to {name}"),
            Plugin::Users { users } => {
                let names: Vec<&str> = users.keys().map(String::as_str).collect();
                format!("ensure users {}", names.join(" "))
            }
            Plugin::AuthorizedKeys { user, keys } => {
                format!("add {} SSH keys for {user}", keys.len())
            }
            Plugin::Timesyncd { entries } => {
                let names: Vec<&str> = entries.keys().map(String::as_str).collect();
                format!("set {} of timesyncd", names.join(" "))
            }
            Plugin::Systemctl { verb, unit } => format!("systemctl {} {unit}", verb.verb()),
            Plugin::Environment { path, entries } => {
                let names: Vec<&str> = entries.keys().map(String::as_str).collect();
                format!("set {} in {path}", names.join(" "))
            }
            Plugin::SystemdFirstboot { arguments } => {
                format!("systemd-firstboot {}", arguments.join(" "))
            }
            Plugin::PackagePins { pins } => {
                let pins: Vec<String> =
                    pins.iter().map(|(name, v)| format!("{name}={v}")).collect();
                format!("pin packages {}", pins.join(" "))
            }
            Plugin::InstallPackages {
                refresh,
                upgrade,
                install,
                remove,
            } => {
                let mut parts = Vec::new();
                if *refresh {
                    parts.push("refresh the package lists".to_owned());
                }
                if *upgrade {
                    parts.push("upgrade all packages".to_owned());
                }
                if !install.is_empty() {
                    parts.push(format!("install {}", install.join(" ")));
                }
                if !remove.is_empty() {
                    parts.push(format!("remove {}", remove.join(" ")));
                }
                parts.join(", ")
            }
            Plugin::UnpackImage { source, target, .. } => {
                format!("unpack the image {source} into {target}")
            }
        }
    }
}
