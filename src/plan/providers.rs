//! What the plan says of providers.

use serde::Serialize;

use super::Plan;
use crate::distro::Arch;
use crate::error::{Error, Result};
use crate::framework::Variant;
use crate::provider::bus::Plugins;
use crate::provider::{self, Installer, Provider};
use crate::request::Request;
use crate::step::{Step, StepName};

/// A provider that the image gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedProvider {
    /// Its name.
    pub name: String,
    /// Its version; `None` where the plugin decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What is downloaded for it unless it is cached; `None` where a plugin installs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<String>,
    /// Where a plugin is to install it: the plugins of the base, by their paths; `None` where the base has not been looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins: Option<Vec<String>>,
}

impl Plan {
    /// Adds which plugins the base holds for the providers that are left to plugins.
    #[must_use]
    pub fn with_plugins(mut self, plugins: &Plugins) -> Self {
        let paths = plugins.found.iter().map(|plugin| plugin.path.clone());
        let paths: Vec<String> = paths.collect();
        for provider in self.providers.iter_mut().filter(|it| it.download.is_none()) {
            provider.plugins = Some(paths.clone());
            // No error: a package or an extension may bring one. The plugin of k3s and k0s comes with the image's own programs.
            if paths.is_empty() && provider::Distribution::find(&provider.name).is_none() {
                self.notes.push(no_plugin(&provider.name, plugins));
            }
        }
        self
    }
}

fn no_plugin(provider: &str, plugins: &Plugins) -> String {
    let none = match plugins.not_executable.first() {
        Some(path) => format!("the base holds no provider plugin ({path} is no executable file)"),
        None => "the base holds no provider plugin".to_owned(),
    };
    format!(
        "{none}: unless a step brings one that installs `{provider}`, this conversion will fail"
    )
}

/// Says which providers have no FIPS builds, where those were asked for.
pub(super) fn without_fips<'a>(
    providers: &'a [PlannedProvider],
    request: &'a Request,
) -> impl Iterator<Item = String> + 'a {
    providers
        .iter()
        .filter(|provider| request.fips && provider.download.is_some())
        .map(|provider| {
            format!(
                "{} releases no FIPS builds: its own cryptography is not certified",
                provider.name
            )
        })
}

/// Returns the variant whose binaries `steps` install.
pub(crate) fn framework_variant(steps: &[Step]) -> Variant {
    let standard = |step: &Step| step.name == StepName::PROVIDER_BINARIES;
    if steps.iter().any(standard) {
        Variant::Standard
    } else {
        Variant::Core
    }
}

/// Says where each provider that this run installs comes from.
pub(super) fn planned(
    providers: &[Provider],
    runs: &dyn Fn(StepName) -> bool,
    arch: Arch,
) -> Result<Vec<PlannedProvider>> {
    if !runs(StepName::BUILD_PROVIDER) {
        return Ok(Vec::new());
    }
    let planned = |provider: &Provider| {
        let (version, download) = match &provider.by {
            Installer::Native {
                distribution,
                version,
            } => {
                let url = provider::url(distribution, version, arch)
                    .map_err(|error| Error::from_source(&error).hints(error.hints()))?;
                (Some(version.clone()), Some(url))
            }
            Installer::Plugin { version } => (version.clone(), None),
        };
        Ok(PlannedProvider {
            name: provider.name.clone(),
            version,
            download,
            plugins: None,
        })
    };
    providers.iter().map(planned).collect()
}
