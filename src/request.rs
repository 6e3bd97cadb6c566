//! The request: everything a conversion is asked to do, as one serialisable value.
//!
//! The command line and the recipe file both produce this value. Every word of it is checked in [`Request::validate`],
//! before anything is read or pulled.

mod artifacts;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::build_args::{Expected, Recipe};
use crate::choice::{self, FirmwareChoice, KernelChoice};
use crate::distro::Model;
use crate::error::{Error, Kind, Result};
use crate::kairos::version::Version;
use crate::location::Location;
use crate::provider::{self, Provider, ProviderOptions, ProviderSource};
use crate::secret::Secret;
use crate::step::{self, Phase};
use crate::validate::Scope;
use crate::yaml;

/// Which phases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Packages, kernel, files and binaries; needs the network.
    Install,
    /// Release file, initramfs, services, cleanup; needs no network.
    Init,
    /// Both.
    #[default]
    All,
}

impl Stage {
    /// Returns whether `phase` belongs to this choice.
    pub fn includes(self, phase: Phase) -> bool {
        match self {
            Stage::All => true,
            Stage::Install => phase == Phase::Install,
            Stage::Init => phase == Phase::Init,
        }
    }
}

/// How steps are gathered into layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Layers {
    /// One layer for packages, kernel, kairos and init each.
    #[default]
    Group,
    /// One layer per step.
    Step,
    /// One layer per phase.
    Phase,
    /// One layer for everything.
    One,
}

/// What network the steps that ask for one get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// The host's network; steps that need none still get none.
    #[default]
    Host,
    /// No step gets a network.
    None,
}

/// Seconds that a provider plugin may take unless the request says otherwise: it may download some hundred MB.
pub const PLUGIN_SECS: u64 = 30 * 60;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads a list, or the one value that stands in its place.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, or one value")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(List)
}

/// Keys that a recipe may name by their option too.
pub(crate) const TWO_NAMES: [(&str, &str); 4] = [
    ("destinations", "dest"),
    ("skip-steps", "skip-step"),
    ("providers", "provider"),
    ("secrets", "secret"),
];

/// A conversion, as asked for. Its keys in a recipe are these names, or those of the command line's options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Request {
    /// The image to start from.
    pub base: String,
    /// Where the result goes; empty: it stays in the store.
    #[serde(
        alias = "dest",
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub destinations: Vec<String>,
    /// The version of the produced system; `None`: taken from a destination's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The board.
    pub model: String,
    /// Which phases run.
    pub stage: Stage,
    /// Names of steps or phases to leave out.
    #[serde(
        alias = "skip-step",
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub skip_steps: Vec<String>,
    /// The platform to convert, as `os/architecture[/variant]`; `None`: this machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Where the Kairos binaries come from.
    pub framework: String,
    /// How steps are gathered into layers.
    pub layers: Layers,
    /// Compression of new layers: `gzip[:LEVEL]`, `zstd[:LEVEL]` or `none`.
    pub compression: String,
    /// The network for steps that ask for one.
    pub network: Network,
    /// Rules that the result is not checked against before it is pushed; `all` for none.
    #[serde(
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub no_validate: Vec<String>,
    /// Kubernetes providers, by name; any makes the variant `standard`.
    #[serde(
        alias = "provider",
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub providers: Vec<String>,
    /// Options of single providers, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_options: BTreeMap<String, ProviderOptions>,
    /// Who installs `k3s` and `k0s`.
    #[serde(skip_serializing_if = "is_default")]
    pub provider_source: ProviderSource,
    /// The most seconds a provider plugin may take; `None`: [`PLUGIN_SECS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_timeout: Option<u64>,
    /// What the base is said to be; a base that is something else is refused.
    #[serde(skip_serializing_if = "is_default")]
    pub expected: Expected,
    /// Whether the image is for Trusted Boot.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// Whether the image is to run in FIPS mode.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fips: bool,
    /// Packages to install beside those that the rules choose.
    #[serde(
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub with: Vec<String>,
    /// Packages to leave out of those that the rules choose.
    #[serde(
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub without: Vec<String>,
    /// The kernel: `PACKAGE[=VERSION]`, `none` or a file; empty: the one that the rules choose.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel: String,
    /// Firmware for devices: `all`, `none` or vendors; empty: what the rules choose.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub firmware: String,
    /// The release of NVIDIA's Jetson repositories; `None`: the newest that is known to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4t: Option<String>,
    /// Secrets that steps may read, as `id=NAME,src=FILE`; their values are nowhere in the request.
    #[serde(
        alias = "secret",
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub secrets: Vec<String>,
    /// Directories of stage extensions, read in this order.
    #[serde(
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub stage_extensions: Vec<String>,
    /// A medium to make of the result in the same run: a file, or a directory for one; `None`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iso: Option<String>,
    /// Disks to make of the result in the same run; the ending of each file says in which form.
    #[serde(
        deserialize_with = "one_or_more",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub raw: Vec<String>,
    /// How large the disks are at least: MiB, or with a unit; `None`: as large as their partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_size: Option<String>,
    /// A file with the configuration that goes along with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_config: Option<String>,
    /// How the root filesystem on a medium is compressed: `NAME[:LEVEL]`; `None`: as the image's kernel reads best.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub squash_compression: Option<String>,
}

/// A request whose every word has been checked.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
    /// The image to start from.
    pub base: Location,
    /// Where the result goes.
    pub destinations: Vec<Location>,
    /// The normalised version.
    pub version: Version,
    /// The request as it was given.
    pub request: Request,
}

const IS_YAML: &str = "a recipe is YAML, as `--print-recipe` writes it";

/// Tells characters that no editor puts into a text.
fn is_no_text(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}')
}

impl Request {
    /// Returns a request with every default filled in.
    pub fn new(base: impl Into<String>) -> Self {
        Self {
            base: base.into(),
            ..Self::defaults()
        }
    }

    /// Returns the defaults of every option.
    pub fn defaults() -> Self {
        Self {
            model: "generic".into(),
            framework: "release".into(),
            compression: "gzip".into(),
            ..Self::default()
        }
    }

    /// Reads a recipe file's bytes; `name` is used in errors only.
    ///
    /// # Errors
    ///
    /// As for [`Request::from_yaml`]; and what is not UTF-8, with its line.
    pub fn from_recipe(bytes: &[u8], name: &str) -> Result<Self> {
        let (good, what) = match std::str::from_utf8(bytes) {
            Ok(text) => match text.find(is_no_text) {
                None => return Self::from_yaml(text, name),
                Some(at) => (&bytes[..at], "this is no text"),
            },
            Err(error) => (&bytes[..error.valid_up_to()], "this is not UTF-8 text"),
        };
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Err(Error::usage(format!("cannot read recipe `{name}`"))
            .context_below(format!("line {line}: {what}"))
            .hint(IS_YAML))
    }

    /// Reads a recipe file's text; `name` is used in errors only.
    ///
    /// # Errors
    ///
    /// A usage error with the line of the first mistake: bad YAML, an unknown key, a value of the wrong kind.
    pub fn from_yaml(text: &str, name: &str) -> Result<Self> {
        let recipe: Recipe = yaml::read(text, &format!("recipe `{name}`")).map_err(|error| {
            match error.hint_texts().is_empty() {
                true => error.hint(IS_YAML),
                false => error,
            }
        })?;
        let mut request = recipe
            .into_request()
            .map_err(|error| error.context(format!("cannot use recipe `{name}`")))?;
        let defaults = Self::defaults();
        for (value, default) in [
            (&mut request.model, defaults.model),
            (&mut request.framework, defaults.framework),
            (&mut request.compression, defaults.compression),
        ] {
            if value.is_empty() {
                *value = default;
            }
        }
        Ok(request)
    }

    /// Returns the request as a recipe that [`Request::from_yaml`] reads back.
    ///
    /// # Errors
    ///
    /// An internal error if the value cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self)
            .map_err(|error| Error::internal(format!("writing a recipe: {error}")))
    }

    /// Checks every word and returns the request in a form that needs no further checks.
    ///
    /// # Errors
    ///
    /// Usage errors only; nothing has been read, pulled or written when this returns.
    pub fn validate(&self) -> Result<CheckedRequest> {
        if self.base.is_empty() {
            return Err(Error::usage("no base image given")
                .hint("name one on the command line, or by `base:` in the recipe"));
        }
        let base: Location = self.base.parse()?;
        let destinations: Vec<Location> = self
            .destinations
            .iter()
            .map(|d| d.parse())
            .collect::<Result<_>>()?;
        destinations
            .iter()
            .try_for_each(Location::check_destination)?;
        self.compression
            .parse::<kfactory_layers::compress::Compression>()
            .map_err(|error| Error::from_source(&error).kind_is(Kind::Usage))?;
        for (index, destination) in destinations.iter().enumerate() {
            if let Some(file) = destination.file()
                && destinations[..index]
                    .iter()
                    .any(|other| other.file() == Some(file))
            {
                return Err(Error::usage(format!("{} is written twice", file.display()))
                    .hint("an archive holds one image; name another file"));
            }
        }
        if self.stage_extensions.iter().any(String::is_empty) {
            return Err(Error::usage("a directory of stage extensions is named ``")
                .hint("`stage-extensions:` lists directories; leave out what is empty"));
        }
        for step in &self.skip_steps {
            step::check_skip_name(step)?;
        }
        self.framework
            .parse::<crate::framework::FrameworkSpec>()
            .map_err(|error| {
                Error::from_source(&error)
                    .hints(error.hints())
                    .kind_is(Kind::Usage)
            })?;
        self.check_rules()?;
        self.check_providers()?;
        self.check_choices()?;
        self.check_board()?;
        self.check_secrets()?;
        self.check_artifacts()?;
        Ok(CheckedRequest {
            version: self.resolve_version(&destinations)?,
            base,
            destinations,
            request: self.clone(),
        })
    }

    /// Returns whether the image is to have no kernel.
    pub fn has_no_kernel(&self) -> bool {
        self.kernel == "none"
    }

    /// Returns whether the result is pushed without being checked.
    pub fn skips_validation(&self) -> bool {
        self.no_validate.iter().any(|rule| rule == "all")
    }

    fn check_rules(&self) -> Result<()> {
        let ignored = self.no_validate.iter().filter(|rule| *rule != "all");
        Scope {
            ignored: ignored.cloned().collect(),
            ..Scope::default()
        }
        .check_ignored()
    }

    /// Returns the model.
    ///
    /// # Errors
    ///
    /// A usage error that lists the known ones.
    pub fn model(&self) -> Result<Model> {
        self.model
            .parse()
            .map_err(|error| Error::from_source(&error).kind_is(Kind::Usage))
    }

    /// Returns the providers that the image gets.
    ///
    /// # Errors
    ///
    /// As [`provider::resolve`].
    pub fn providers(&self) -> Result<Vec<Provider>> {
        provider::resolve(
            &self.providers,
            &self.provider_options,
            self.provider_source,
        )
    }

    fn check_providers(&self) -> Result<()> {
        self.providers()?;
        let asked = self.is_standard();
        let stray = [
            ("--provider-source", !is_default(&self.provider_source)),
            ("--provider-timeout", self.provider_timeout.is_some()),
        ];
        if let Some((option, _)) = stray.iter().find(|(_, given)| *given && !asked) {
            return Err(
                Error::usage(format!("`{option}` is given, but no provider"))
                    .hint("`--provider NAME` asks for one"),
            );
        }
        if self.provider_timeout == Some(0) {
            return Err(Error::usage("no plugin answers within 0 seconds")
                .hint("`provider-timeout` is a number of seconds above 0"));
        }
        Ok(())
    }

    /// Tells whether the variant is `standard` rather than `core`.
    pub fn is_standard(&self) -> bool {
        self.providers.iter().any(|name| !name.trim().is_empty())
    }

    /// Returns the secret `id`, if it was given.
    ///
    /// # Errors
    ///
    /// A usage error for a malformed `--secret`.
    pub fn secret(&self, id: &str) -> Result<Option<Secret>> {
        for text in &self.secrets {
            let secret: Secret = text.parse()?;
            if secret.id == id {
                return Ok(Some(secret));
            }
        }
        Ok(None)
    }

    fn check_choices(&self) -> Result<()> {
        for (option, names) in [("--with", &self.with), ("--without", &self.without)] {
            names
                .iter()
                .try_for_each(|name| choice::check_package(option, name))?;
        }
        crate::plan::check_choices(self)?;
        self.firmware.parse::<FirmwareChoice>()?;
        if let KernelChoice::File(path) = self.kernel.parse()? {
            crate::kernel_file::KernelFile::open(&path)?;
        }
        Ok(())
    }

    /// Refuses a board that does not go with what else is asked for: known before anything is pulled.
    fn check_board(&self) -> Result<()> {
        let model = self.model()?;
        crate::plan::check_trusted(model, self.trusted)?;
        if let Some(release) = &self.l4t
            && (release.is_empty() || !release.chars().all(|c| c.is_ascii_digit() || c == '.'))
        {
            return Err(
                Error::usage(format!("`--l4t {release}`: that is no release"))
                    .hint("write it as `36.4`"),
            );
        }
        crate::plan::check_l4t(model, self.l4t.as_deref())?;
        let platform = match &self.platform {
            Some(text) => kfactory_layers::platform::Platform::parse(text)
                .map_err(|error| Error::from_source(&error).kind_is(Kind::Usage))?,
            None => kfactory_layers::platform::Platform::host(),
        };
        crate::plan::check_arch(model, &platform.architecture)
    }

    /// Reads every secret once: a missing file is better found now than after minutes of installing.
    fn check_secrets(&self) -> Result<()> {
        let mut seen = Vec::new();
        for text in &self.secrets {
            let secret: Secret = text.parse()?;
            secret.check()?;
            if seen.contains(&secret.id) {
                return Err(Error::usage(format!(
                    "secret `{}` is given twice",
                    secret.id
                )));
            }
            seen.push(secret.id);
        }
        Ok(())
    }

    fn resolve_version(&self, destinations: &[Location]) -> Result<Version> {
        if let Some(text) = &self.version {
            return Version::parse(text).map_err(|error| {
                Error::from_source(&error)
                    .context(format!("cannot use `{text}` as the version"))
                    .kind_is(Kind::Usage)
                    .hint("write it as `v1.2.3`, optionally `-prerelease` and `+metadata`")
            });
        }
        let tags: Vec<&str> = destinations.iter().filter_map(Location::tag).collect();
        if let Some(version) = tags.iter().find_map(|tag| Version::from_tag(tag)) {
            return Ok(version);
        }
        let why = match tags.first() {
            Some(tag) => format!(
                "tag `{tag}` of the destination is no version: that is `v1`, `v1.2.3` or `1.2.3`"
            ),
            None => "the destination has no tag to take it from".to_owned(),
        };
        Err(Error::usage("the produced system needs a version")
            .context_below(why)
            .hint("`--version v1.0.0` says it outright")
            .hint("or give the destination a version as its tag: `ghcr.io/me/os:v1.0.0`"))
    }
}

#[cfg(test)]
mod tests;
