//! What steps take from outside the base, and how it counts in the step cache: by content.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::error::Result;
use crate::framework::{self, Framework};
use crate::kernel_file::KernelFile;
use crate::provider::{self, Configs, Program};
use crate::step::{Action, Step};

/// Inputs that are had when first needed; whoever needs them first waits for them.
pub(super) struct Inputs<'a> {
    /// The Kairos binaries.
    pub(super) framework: &'a (dyn Fn() -> Result<Framework> + Sync),
    /// The programs of Kubernetes distributions.
    pub(super) programs: &'a (dyn Fn() -> Result<Vec<Program>> + Sync),
    /// Configuration files for providers.
    pub(super) configs: &'a Configs,
    /// Gets another image for a platform and returns its flattened tree.
    pub(super) images: &'a ImageTree<'a>,
}

/// Takes the name of an image, and a platform unless it is that of the build.
pub(super) type ImageTree<'a> = dyn Fn(&str, Option<&str>) -> Result<PathBuf> + Sync + 'a;

impl Inputs<'_> {
    /// Returns what names the inputs of `steps` by content, wherever they came from.
    pub(super) fn identity(&self, steps: &[Step]) -> Result<String> {
        let mut text = String::new();
        if steps.iter().any(uses_framework) {
            for file in (self.framework)()?.files {
                text.push_str(&format!("{}={}\n", file.target.display(), file.sha256));
            }
        }
        if steps.iter().any(uses_programs) {
            for program in (self.programs)()? {
                let distribution = program.distribution;
                let services = provider::identity(distribution);
                text.push_str(&format!(
                    "{}={} {services}\n",
                    distribution.target, program.sha256
                ));
            }
        }
        for name in steps.iter().flat_map(configured) {
            if let Some(content) = self.configs.get(name) {
                let sum = framework::hex(&Sha256::digest(content));
                text.push_str(&format!("configuration of {name}={sum}\n"));
            }
        }
        for action in steps.iter().flat_map(|step| &step.actions) {
            if let Action::KernelFile { file } = action {
                let sum = KernelFile::open(file.as_ref())?.digest()?;
                text.push_str(&format!("kernel={sum}\n"));
            }
        }
        Ok(text)
    }
}

/// Tells whether a step installs Kairos binaries.
pub(super) fn uses_framework(step: &Step) -> bool {
    step.actions
        .iter()
        .any(|action| matches!(action, Action::Framework { .. }))
}

/// Tells whether a step installs a Kubernetes distribution.
pub(super) fn uses_programs(step: &Step) -> bool {
    step.actions
        .iter()
        .any(|action| matches!(action, Action::Kubernetes { .. }))
}

/// Returns the providers of a step that have a configuration file.
fn configured(step: &Step) -> impl Iterator<Item = &str> {
    step.actions.iter().filter_map(|action| match action {
        Action::Kubernetes {
            distribution: name,
            config: true,
            ..
        }
        | Action::ProviderInstall {
            provider: name,
            config: true,
            ..
        } => Some(name.as_str()),
        _ => None,
    })
}
