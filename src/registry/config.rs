//! The containers `registries.conf`: short-name aliases, search registries, mirrors, insecure and blocked registries.
//!
//! Turns what a user typed into a [`Reference`], and a reference into the [`Endpoint`]s to ask for it, in order. Opens
//! no socket.
//!
//! Spec: containers-registries.conf(5), version 2. Version 1 (`[registries.search]`) is not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::env::Env;
use super::error::RegistryError;
use super::reference::{DOCKER_HUB, Parts, Reference, ReferenceError};

const SYSTEM_FILE: &str = "/etc/containers/registries.conf";
const USER_FILE: &str = "containers/registries.conf";

/// What the `registries.conf` files say, merged.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    registries: Vec<Rule>,
}

/// One `[[registry]]` table.
#[derive(Clone, Debug)]
struct Rule {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    insecure: bool,
    pulls: Pulls,
}

/// Which references a mirror serves.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// One place that may hold a manifest or blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host and optional port, as in references.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Plain HTTP and unknown certificates are accepted here.
    pub(super) insecure: bool,
}

/// Why a `registries.conf` was not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is no TOML, or a value has the wrong type.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A `[[registry]]` has neither `prefix` nor `location`.
    #[error("a `[[registry]]` has neither `prefix` nor `location`")]
    NoPrefix,
    /// A `[[registry.mirror]]` has no `location`.
    #[error("a mirror of {prefix:?} has no `location`")]
    NoMirrorLocation {
        /// The prefix of its registry.
        prefix: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct RawFile {
    unqualified_search_registries: Option<Vec<String>>,
    registry: Vec<RawRegistry>,
    aliases: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct RawRegistry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<RawMirror>,
    mirror_by_digest_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct RawMirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<Pulls>,
}

impl RegistriesConf {
    /// Loads the files that apply.
    ///
    /// `explicit`, or else `CONTAINERS_REGISTRIES_CONF`, is read alone and must exist. Otherwise the user's
    /// `registries.conf` replaces the system's, and the `registries.conf.d/*.conf` of the system and then of the user
    /// are laid over it in the order of their names.
    pub(super) fn load(explicit: Option<&Path>, env: &Env) -> Result<Self, RegistryError> {
        let mut conf = Self::default();
        let chosen = explicit
            .map(Path::to_owned)
            .or_else(|| env.path("CONTAINERS_REGISTRIES_CONF"));
        if let Some(path) = chosen {
            conf.add_file(&path)?;
            return Ok(conf);
        }
        let system = PathBuf::from(SYSTEM_FILE);
        let user = env.user_config(USER_FILE);
        let main = user
            .clone()
            .filter(|path| path.exists())
            .unwrap_or_else(|| system.clone());
        if main.exists() {
            conf.add_file(&main)?;
        }
        for base in [Some(system), user].into_iter().flatten() {
            conf.add_drop_ins(&base.with_extension("conf.d"))?;
        }
        Ok(conf)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), RegistryError> {
        let text =
            crate::settings_file::read_to_string(path).map_err(|source| RegistryError::File {
                path: path.to_owned(),
                source,
            })?;
        self.add(&text).map_err(|source| RegistryError::Config {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    fn add_drop_ins(&mut self, dir: &Path) -> Result<(), RegistryError> {
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Ok(());
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        });
        paths.sort();
        paths.iter().try_for_each(|path| self.add_file(path))
    }

    /// Reads one file's text.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; unknown keys are passed over, as newer versions of the format add some.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut conf = Self::default();
        conf.add(text)?;
        Ok(conf)
    }

    /// Lays one file over what is there: a registry replaces the one with its prefix, an empty alias removes one.
    fn add(&mut self, text: &str) -> Result<(), ConfigError> {
        let raw: RawFile = toml::from_str(text)?;
        if let Some(search) = raw.unqualified_search_registries {
            self.search = search;
        }
        for registry in raw.registry {
            let rule = Rule::from_raw(registry)?;
            self.registries.retain(|known| known.prefix != rule.prefix);
            self.registries.push(rule);
        }
        self.aliases.extend(raw.aliases);
        self.aliases.retain(|_, target| !target.is_empty());
        Ok(())
    }

    /// Reads a reference as the user means it: an alias, else the first search registry, else Docker Hub.
    ///
    /// # Errors
    ///
    /// [`ReferenceError`], also when the alias or search registry is the part that is wrong.
    pub fn resolve(&self, text: &str) -> Result<Reference, ReferenceError> {
        let parts = Parts::split(text)?;
        if parts.registry.is_some() {
            return Reference::parse(text);
        }
        if let Some(target) = self.aliases.get(parts.repository) {
            return Reference::parse(&format!("{target}{}", &text[parts.repository.len()..]));
        }
        let registry = self.search.first().map_or(DOCKER_HUB, String::as_str);
        Reference::parse_in(text, registry)
    }

    /// Returns where to pull `reference` from: the mirrors that serve it, then the registry itself.
    pub(super) fn pull_endpoints(
        &self,
        reference: &Reference,
    ) -> Result<Vec<Endpoint>, RegistryError> {
        let Some((rule, matched)) = self.rule(reference) else {
            return Ok(vec![Endpoint::of(reference)]);
        };
        let name = name_of(reference);
        let pinned = reference.digest().is_some();
        let mirrors = rule
            .mirrors
            .iter()
            .filter(|mirror| mirror.pulls.serves(pinned));
        let mut endpoints = mirrors
            .map(|mirror| Endpoint::at(&mirror.location, &name[matched..], mirror.insecure))
            .collect::<Result<Vec<_>, _>>()?;
        endpoints.push(self.push_endpoint(reference)?);
        Ok(endpoints)
    }

    /// Returns where to push `reference` to: never a mirror.
    pub(super) fn push_endpoint(&self, reference: &Reference) -> Result<Endpoint, RegistryError> {
        let Some((rule, matched)) = self.rule(reference) else {
            return Ok(Endpoint::of(reference));
        };
        if rule.blocked {
            return Err(RegistryError::Blocked {
                reference: reference.to_string(),
                prefix: rule.prefix.clone(),
            });
        }
        if rule.location.is_empty() {
            return Ok(Endpoint {
                insecure: rule.insecure,
                ..Endpoint::of(reference)
            });
        }
        Endpoint::at(
            &rule.location,
            &name_of(reference)[matched..],
            rule.insecure,
        )
    }

    /// Returns the rule with the longest prefix of `reference`, and the length of what it matched.
    fn rule(&self, reference: &Reference) -> Option<(&Rule, usize)> {
        let full = reference.to_string();
        let matches = self
            .registries
            .iter()
            .filter_map(|rule| Some((rule, rule.matched(&full)?)));
        // A wildcard's own text is shorter than what it matches; exact prefixes must win over it.
        matches.max_by_key(|(rule, matched)| (!rule.is_wildcard(), rule.prefix.len(), *matched))
    }
}

impl Rule {
    fn from_raw(raw: RawRegistry) -> Result<Self, ConfigError> {
        let prefix = if raw.prefix.is_empty() {
            raw.location.clone()
        } else {
            raw.prefix
        };
        if prefix.is_empty() {
            return Err(ConfigError::NoPrefix);
        }
        let by_digest = raw.mirror_by_digest_only;
        let mirrors = raw
            .mirror
            .into_iter()
            .map(|mirror| Mirror::from_raw(mirror, by_digest));
        let mirrors = mirrors.collect::<Option<_>>();
        let mirrors = mirrors.ok_or_else(|| ConfigError::NoMirrorLocation {
            prefix: prefix.clone(),
        })?;
        Ok(Self {
            prefix,
            location: raw.location,
            insecure: raw.insecure,
            blocked: raw.blocked,
            mirrors,
        })
    }

    fn is_wildcard(&self) -> bool {
        self.prefix.starts_with("*.")
    }

    /// Returns how much of `full` this rule's prefix covers, if it is one.
    fn matched(&self, full: &str) -> Option<usize> {
        let matched = match self.prefix.strip_prefix('*') {
            Some(suffix) => {
                // The wildcard stands for subdomains, so it ends within the host.
                let host = full.split('/').next().unwrap_or_default();
                let (domain, rest) = suffix.split_at(suffix.find('/').unwrap_or(suffix.len()));
                let covered = host.len() + rest.len();
                (host.ends_with(domain) && full[host.len()..].starts_with(rest))
                    .then_some(covered)?
            }
            None => full
                .starts_with(&self.prefix)
                .then_some(self.prefix.len())?,
        };
        let next = full[matched..].chars().next();
        matches!(next, None | Some('/' | ':' | '@')).then_some(matched)
    }
}

impl Mirror {
    fn from_raw(raw: RawMirror, by_digest_only: bool) -> Option<Self> {
        let inherited = if by_digest_only {
            Pulls::DigestOnly
        } else {
            Pulls::All
        };
        let pulls = raw.pull_from_mirror.unwrap_or(inherited);
        (!raw.location.is_empty()).then_some(Self {
            location: raw.location,
            insecure: raw.insecure,
            pulls,
        })
    }
}

impl Pulls {
    fn serves(self, pinned: bool) -> bool {
        match self {
            Self::All => true,
            Self::DigestOnly => pinned,
            Self::TagOnly => !pinned,
        }
    }
}

impl Endpoint {
    fn of(reference: &Reference) -> Self {
        Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            insecure: false,
        }
    }

    /// Puts `rest`, what a prefix left of a name, behind `location`.
    fn at(location: &str, rest: &str, insecure: bool) -> Result<Self, RegistryError> {
        let name = format!("{location}{rest}");
        let (registry, repository) = name.split_once('/').unwrap_or((&name, ""));
        let reference = Reference::parse_in(repository, registry)?;
        // Docker Hub's `library/` belongs to Docker Hub's own names only, and is in `rest` already.
        Ok(Self {
            registry: reference.registry().to_owned(),
            repository: repository.to_owned(),
            insecure,
        })
    }
}

fn name_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["quay.io", "docker.io"]
        [aliases]
        "debian" = "docker.io/library/debian"
        "acme/os" = "registry.example.com/products/os"
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example.com:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.example.com"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/library/secret"
        blocked = true
        [[registry]]
        prefix = "*.corp.example"
        insecure = true
        [[registry]]
        prefix = "*.moved.example/old"
        location = "new.example/team"
        [[registry]]
        location = "127.0.0.1:5000/dev"
    "#;

    fn conf() -> RegistriesConf {
        RegistriesConf::parse(CONF).expect("valid")
    }

    fn endpoints(text: &str) -> Vec<String> {
        let reference = Reference::parse(text).expect(text);
        let endpoints = conf().pull_endpoints(&reference).expect(text);
        let show = |e: &Endpoint| {
            format!(
                "{}/{}{}",
                e.registry,
                e.repository,
                if e.insecure { " insecure" } else { "" }
            )
        };
        endpoints.iter().map(show).collect()
    }

    #[test]
    fn short_names_go_through_aliases_then_the_first_search_registry() {
        for (text, expected) in [
            ("debian:12", "docker.io/library/debian:12"),
            ("acme/os", "registry.example.com/products/os:latest"),
            ("fedora:43", "quay.io/fedora:43"),
            ("localhost/x", "localhost/x:latest"),
        ] {
            assert_eq!(conf().resolve(text).expect(text).to_string(), expected);
        }
        assert_eq!(
            RegistriesConf::default()
                .resolve("fedora")
                .expect("hub")
                .to_string(),
            "docker.io/library/fedora:latest"
        );
    }

    #[test]
    fn mirrors_come_first_in_order_and_only_where_they_serve() {
        assert_eq!(
            endpoints("ubuntu"),
            [
                "mirror.example.com:5000/hub/library/ubuntu insecure",
                "docker.io/library/ubuntu"
            ]
        );
        let pinned = format!("ubuntu@sha256:{}", "0".repeat(64));
        assert_eq!(endpoints(&pinned).len(), 3);
        assert_eq!(endpoints(&pinned)[1], "digests.example.com/library/ubuntu");
    }

    #[test]
    fn the_longest_prefix_decides_and_ends_at_a_separator() {
        let secret = Reference::parse("docker.io/library/secret:1").expect("valid");
        assert!(matches!(
            conf().pull_endpoints(&secret),
            Err(RegistryError::Blocked { .. })
        ));
        assert_eq!(endpoints("docker.io/library/secretive").len(), 2);
        assert_eq!(endpoints("127.0.0.1:5000/dev/x"), ["127.0.0.1:5000/dev/x"]);
    }

    #[test]
    fn a_wildcard_covers_subdomains_only() {
        assert_eq!(
            endpoints("a.b.corp.example/x"),
            ["a.b.corp.example/x insecure"]
        );
        assert_eq!(endpoints("corp.example/x"), ["corp.example/x"]);
        assert_eq!(endpoints("notcorp.example/x"), ["notcorp.example/x"]);
        assert_eq!(endpoints("a.moved.example/old/x"), ["new.example/team/x"]);
    }

    #[test]
    fn later_files_replace_registries_and_remove_aliases() {
        let mut conf = conf();
        conf.add("[aliases]\ndebian = ''\n[[registry]]\nlocation = 'docker.io'")
            .expect("valid");
        assert_eq!(
            conf.resolve("debian").expect("valid").to_string(),
            "quay.io/debian:latest"
        );
        assert_eq!(
            conf.pull_endpoints(&Reference::parse("ubuntu").expect("valid"))
                .expect("open")
                .len(),
            1
        );
    }

    #[test]
    fn wrong_files_are_refused() {
        for text in [
            "[[registry]]\ninsecure = true",
            "x = ",
            "[[registry]]\nlocation='a.b'\n[[registry.mirror]]\ninsecure=true",
        ] {
            assert!(RegistriesConf::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_named_outright_is_read_alone() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("mine.conf");
        std::fs::write(&path, "unqualified-search-registries = ['a.example']").expect("written");
        let conf = RegistriesConf::load(Some(&path), &Env::default()).expect("valid");
        assert_eq!(conf.search, ["a.example"]);
        let env = Env::of(&[("CONTAINERS_REGISTRIES_CONF", "/nonexistent/registries.conf")]);
        assert!(matches!(
            RegistriesConf::load(None, &env),
            Err(RegistryError::File { .. })
        ));
    }

    #[test]
    fn the_users_file_replaces_the_systems() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let containers = dir.path().join("containers");
        std::fs::create_dir_all(containers.join("registries.conf.d")).expect("made");
        std::fs::write(
            containers.join("registries.conf"),
            "unqualified-search-registries = ['a.example']",
        )
        .expect("written");
        std::fs::write(
            containers.join("registries.conf.d/9.conf"),
            "[aliases]\nx = 'b.example/x'",
        )
        .expect("written");
        let env = Env::of(&[("XDG_CONFIG_HOME", dir.path().to_str().expect("UTF-8"))]);
        let conf = RegistriesConf::load(None, &env).expect("valid");
        assert_eq!(conf.resolve("y").expect("valid").registry(), "a.example");
        assert_eq!(conf.resolve("x").expect("valid").registry(), "b.example");
    }
}
