//! What a user may ask for, and what follows from it. Nothing here opens a socket; only [`read_configs`] reads files.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use kfactory_layers::input::open_input;
use serde::{Deserialize, Serialize};

use super::distribution::{DISTRIBUTIONS, Distribution};
use crate::error::{Context as _, Error, Result};
use crate::given;

/// Most bytes of a configuration file; it is kept in memory.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The content of the configuration files, by provider.
pub type Configs = BTreeMap<String, Vec<u8>>;

/// The options of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ProviderOptions {
    /// The version to install; `None`: our default, or the plugin's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// A configuration file on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// Who installs `k3s` and `k0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProviderSource {
    /// This program, from their releases; other names are left to plugins.
    #[default]
    Native,
    /// The provider plugins in the image, whatever the name.
    Plugin,
}

/// A provider to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Who installs it.
    pub by: Installer,
    /// Its configuration file on this machine.
    pub config: Option<PathBuf>,
}

/// Who installs a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installer {
    /// This program.
    Native {
        /// What it installs.
        distribution: &'static Distribution,
        /// The release, with its `v`.
        version: String,
    },
    /// A plugin in the image.
    Plugin {
        /// The version to ask for; `None`: the plugin's own choice.
        version: Option<String>,
    },
}

/// Turns the words of a request into providers, in the order of `names`.
///
/// Empty names and values count as not given: wrappers pass on options that they have no value for.
///
/// # Errors
///
/// Usage errors: a name that cannot be one, a provider named twice, an option of a provider that was not asked for, a version
/// that is not one of the distribution.
pub fn resolve(
    names: &[String],
    options: &BTreeMap<String, ProviderOptions>,
    source: ProviderSource,
) -> Result<Vec<Provider>> {
    let names: Vec<&str> = names
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
        .collect();
    for (index, name) in names.iter().enumerate() {
        check_name(name)?;
        if names[..index].contains(name) {
            return Err(Error::usage(format!("provider `{name}` is given twice")));
        }
    }
    if let Some(stray) = options.keys().find(|it| !names.contains(&it.as_str())) {
        return Err(not_asked_for(stray, &names));
    }
    let none = ProviderOptions::default();
    names
        .into_iter()
        .map(|name| provider(name, options.get(name).unwrap_or(&none), source))
        .collect()
}

fn provider(name: &str, options: &ProviderOptions, source: ProviderSource) -> Result<Provider> {
    let given = |value: &Option<String>| value.clone().filter(|it| !it.is_empty());
    let version = given(&options.version);
    let by = match Distribution::find(name).filter(|_| source == ProviderSource::Native) {
        Some(distribution) => Installer::Native {
            distribution,
            version: release_of(distribution, version.as_deref())?,
        },
        None => Installer::Plugin { version },
    };
    Ok(Provider {
        name: name.to_owned(),
        by,
        config: given(&options.config).map(PathBuf::from),
    })
}

fn release_of(distribution: &Distribution, version: Option<&str>) -> Result<String> {
    let Some(text) = version else {
        return Ok(distribution.default_version().to_owned());
    };
    let name = distribution.name;
    distribution.version(text).ok_or_else(|| {
        Error::usage(format!("`{text}` is not a release of {name}")).hint(format!(
            "a release is named like `--provider-{name}-version {}`; moving names are not accepted, since the same command has to give \
             the same image tomorrow",
            distribution.default_version()
        ))
    })
}

/// Names end up in paths, options and payloads.
fn check_name(name: &str) -> Result<()> {
    let sound = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if sound {
        return Ok(());
    }
    let error = Error::usage(format!("{name:?} cannot be the name of a provider"));
    Err(match name.split_once([':', '=', '@']) {
        Some((provider, version)) => error.hint(format!(
            "`--provider {provider} --provider-{provider}-version {version}`"
        )),
        None => {
            let known: Vec<_> = DISTRIBUTIONS.iter().map(|it| it.name).collect();
            error.hint(format!(
                "{} are installed from their releases; other names are those of plugins, such as `agent-provider-NAME`",
                known.join(" and ")
            ))
        }
    })
}

fn not_asked_for(name: &str, names: &[&str]) -> Error {
    let error = Error::usage(format!(
        "there are options for provider `{name}`, which was not asked for"
    ));
    if names.is_empty() {
        error.hint(format!("`--provider {name}` asks for it"))
    } else {
        error.hint(format!(
            "the providers are {}; `--provider {name}` asks for this one too",
            names.join(", ")
        ))
    }
}

/// Reads the configuration files of `providers`.
///
/// # Errors
///
/// A file cannot be read, is too large, or is none that the distribution could read.
pub fn read_configs(providers: &[Provider]) -> Result<Configs> {
    let mut configs = Configs::new();
    for provider in providers {
        if let Some(content) = read_config(provider).map_err(|error| {
            error.context(format!(
                "cannot use the configuration of provider `{}`",
                provider.name
            ))
        })? {
            configs.insert(provider.name.clone(), content);
        }
    }
    Ok(configs)
}

fn read_config(provider: &Provider) -> Result<Option<Vec<u8>>> {
    let Some(path) = &provider.config else {
        return Ok(None);
    };
    given::file(path)?;
    let mut content = Vec::new();
    open_input(path)
        .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut content))
        .context(|| format!("reading {}", path.display()))?;
    if content.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Error::user(format!(
            "{} is larger than {} MiB",
            path.display(),
            MAX_CONFIG_BYTES >> 20
        )));
    }
    if matches!(provider.by, Installer::Native { .. }) {
        // A node with a broken file does not come up, and nobody sees why before it is installed.
        let text = String::from_utf8_lossy(&content);
        let mapping: Result<BTreeMap<String, serde_json::Value>, _> = serde_saphyr::from_str(&text);
        if let Err(error) = mapping {
            return Err(
                Error::user(format!("{} is not a YAML mapping", path.display()))
                    .context_below(error),
            );
        }
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn version(name: &str, version: &str) -> BTreeMap<String, ProviderOptions> {
        let options = ProviderOptions {
            version: Some(version.into()),
            config: None,
        };
        [(name.to_owned(), options)].into()
    }

    #[track_caller]
    fn refused(
        list: &[&str],
        options: &BTreeMap<String, ProviderOptions>,
        words: &[&str],
    ) -> String {
        let error = resolve(&names(list), options, ProviderSource::Native).expect_err("refused");
        assert_eq!(error.kind(), Kind::Usage);
        let text = error.render_text();
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        text
    }

    #[test]
    fn known_distributions_are_ours_and_all_others_the_plugins() {
        let found = resolve(
            &names(&["k3s", "edge"]),
            &version("k3s", "1.30.4+k3s1"),
            ProviderSource::Native,
        )
        .expect("good");
        let versions: Vec<_> = found
            .iter()
            .map(|it| match &it.by {
                Installer::Native { version, .. } => version.clone(),
                Installer::Plugin { .. } => "plugin".into(),
            })
            .collect();
        assert_eq!(versions, ["v1.30.4+k3s1", "plugin"]);
        let found = resolve(
            &names(&["k3s"]),
            &version("k3s", "any words"),
            ProviderSource::Plugin,
        )
        .expect("the plugin judges the version");
        let asked = Installer::Plugin {
            version: Some("any words".into()),
        };
        assert_eq!(found[0].by, asked);
    }

    #[test]
    fn without_a_version_the_pinned_one_is_taken() {
        for options in [BTreeMap::new(), version("k0s", "")] {
            let found = resolve(&names(&["k0s"]), &options, ProviderSource::Native).expect("good");
            let default = Distribution::find("k0s").expect("known").default_version();
            assert!(
                matches!(&found[0].by, Installer::Native { version, .. } if version == default)
            );
        }
    }

    #[test]
    fn empty_names_are_not_given() {
        assert_eq!(
            resolve(&names(&["", " "]), &BTreeMap::new(), ProviderSource::Native).expect("good"),
            []
        );
    }

    #[test]
    fn options_of_others_bad_names_and_moving_versions_are_refused_by_name() {
        let none = BTreeMap::new();
        refused(
            &["k3s"],
            &version("k0s", "v1"),
            &["`k0s`, which was not asked for", "the providers are k3s"],
        );
        refused(
            &[],
            &version("k0s", "v1"),
            &["`--provider k0s` asks for it"],
        );
        refused(&["k3s", "k3s"], &none, &["given twice"]);
        refused(
            &["k3s:v1.30.4"],
            &none,
            &["`--provider k3s --provider-k3s-version v1.30.4`"],
        );
        refused(&["../x"], &none, &["\"../x\" cannot be the name"]);
        refused(
            &["k3s"],
            &version("k3s", "latest"),
            &[
                "`latest` is not a release of k3s",
                "--provider-k3s-version v1.",
            ],
        );
    }

    #[test]
    fn configurations_are_read_and_must_be_yaml_where_we_know_the_format() {
        let dir = tempfile::tempdir().expect("room");
        let file = dir.path().join("config.yaml");
        let provider = |name: &str| {
            let options = ProviderOptions {
                version: None,
                config: Some(file.display().to_string()),
            };
            let options = [(name.to_owned(), options)].into();
            resolve(&names(&[name]), &options, ProviderSource::Native).expect("good")
        };
        let error = read_configs(&provider("k3s")).expect_err("missing");
        assert!(error.to_string().contains("config.yaml"), "{error}");
        std::fs::write(&file, "tls-san: [a.example]\n").expect("written");
        let configs = read_configs(&provider("k3s")).expect("good");
        assert_eq!(configs["k3s"], b"tls-san: [a.example]\n");
        std::fs::write(&file, "- just\n- a list\n").expect("written");
        let error = read_configs(&provider("k3s")).expect_err("a list");
        assert!(error.to_string().contains("not a YAML mapping"), "{error}");
        assert!(read_configs(&provider("edge")).is_ok(), "its own format");
    }
}
