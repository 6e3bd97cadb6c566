//! The steps of variant `standard`: the Kairos provider with its mesh, then every provider that was asked for.

use super::install::{framework_action, kairos_step};
use super::{Action, Group, Phase, Step, StepName};
use crate::framework::COMPONENTS;
use crate::provider::{Installer, Provider};

/// Returns the steps of an image with `providers`, in the order they run; none for an image without.
pub fn steps(providers: &[Provider]) -> Vec<Step> {
    if providers.is_empty() {
        return Vec::new();
    }
    let actions = providers.iter().map(install).collect();
    // A layer of its own: another version of Kubernetes leaves all layers below as they are.
    let build = Step::new(
        StepName::BUILD_PROVIDER,
        Phase::Install,
        Group::Provider,
        actions,
    );
    vec![binaries(), build]
}

fn binaries() -> Step {
    let standard = COMPONENTS.iter().filter(|it| it.standard_only);
    let mut actions: Vec<Action> = standard.map(framework_action).collect();
    let provider = "/system/providers/agent-provider-kairos";
    // The provider answers to this name as the command of Kubernetes' operator. Newer systems have a program there.
    actions.push(Action::Link {
        path: "/usr/bin/kairos".into(),
        target: provider.into(),
        if_exists: Some(provider.into()),
        unless_exists: Some("/usr/bin/kairos".into()),
    });
    kairos_step(StepName::PROVIDER_BINARIES, actions)
}

fn install(provider: &Provider) -> Action {
    let config = provider.config.is_some();
    match &provider.by {
        Installer::Native {
            distribution,
            version,
        } => Action::Kubernetes {
            distribution: distribution.name.into(),
            version: version.clone(),
            config,
        },
        Installer::Plugin { version } => Action::ProviderInstall {
            provider: provider.name.clone(),
            version: version.clone().unwrap_or_default(),
            config,
        },
    }
}

/// What is known of the Kubernetes in the image before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Name and version of the provider that the release file names: the last one that we install ourselves.
    pub software: Option<(String, String)>,
    /// The providers whose version only the image knows.
    pub ask: Vec<String>,
}

/// Tells what is known of `providers`; `installed` says whether this run installs them.
pub fn known(providers: &[Provider], installed: bool) -> Known {
    let mut known = Known::default();
    for provider in providers {
        match &provider.by {
            Installer::Native { version, .. } if installed => {
                known.software = Some((provider.name.clone(), version.clone()));
            }
            _ => known.ask.push(provider.name.clone()),
        }
    }
    known
}

impl Known {
    /// Adds the question for what is not known to the step that writes the release file.
    pub fn apply(&self, steps: &mut [Step]) {
        let release = steps
            .iter_mut()
            .find(|step| step.name == StepName::KAIROS_RELEASE);
        if let (Some(step), false) = (release, self.ask.is_empty()) {
            step.actions.push(Action::ProviderInfo {
                providers: self.ask.clone(),
            });
        }
    }
}
