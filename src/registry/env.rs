//! The environment variables and home directory this part looks at, read once.
//!
//! Everything else takes an [`Env`], so that no test depends on the machine it runs on.

use std::collections::HashMap;
use std::path::PathBuf;

/// A snapshot of the variables that matter.
#[derive(Clone, Default)]
pub(super) struct Env {
    vars: HashMap<&'static str, String>,
}

/// Every variable read anywhere in this part.
const NAMES: &[&str] = &[
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "CONTAINERS_REGISTRIES_CONF",
    "KFACTORY_REGISTRY_HOST",
    "KFACTORY_REGISTRY_USER",
    "KFACTORY_REGISTRY_PASSWORD",
];

impl Env {
    pub(super) fn of_process() -> Self {
        // A variable that is set but empty is treated as unset, as the container tools do.
        let read = |name: &&'static str| {
            Some((
                *name,
                std::env::var(name).ok().filter(|value| !value.is_empty())?,
            ))
        };
        Self {
            vars: NAMES.iter().filter_map(read).collect(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(vars: &[(&'static str, &str)]) -> Self {
        Self {
            vars: vars
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Returns `file` in the user's configuration directory.
    pub(super) fn user_config(&self, file: &str) -> Option<PathBuf> {
        let base = self
            .path("XDG_CONFIG_HOME")
            .or_else(|| Some(self.path("HOME")?.join(".config")));
        base.map(|base| base.join(file))
    }
}
