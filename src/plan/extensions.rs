//! Puts the steps of stage extensions where their stages have their place among the built-in ones.

use super::{Plan, group, is_skipped};
use crate::request::Request;
use crate::step::{Hook, Phase, Step, StepName};
use crate::yip::Extensions;

/// Steps that put finished files in place after every extension of the install phase: none can edit what these bring.
const BRINGERS: [StepName; 4] = [
    StepName::CLOUDCONFIGS,
    StepName::KAIROS_BINARIES,
    StepName::PROVIDER_BINARIES,
    StepName::BUILD_PROVIDER,
];

impl Plan {
    /// Adds the steps of `extensions`, as far as the request wants their phase, and gathers the layers anew.
    #[must_use]
    pub fn with_extensions(mut self, extensions: &Extensions, request: &Request) -> Self {
        self.extensions.clone_from(&extensions.files);
        self.notes.extend(extensions.warnings.iter().cloned());
        let is_wanted =
            |step: &Step| request.stage.includes(step.phase) && !is_skipped(step, request);
        for hook in Hook::ALL {
            let all = extensions.steps(hook);
            let steps: Vec<Step> = all.iter().filter(|step| is_wanted(step)).cloned().collect();
            let at = place(&self.steps, hook);
            self.steps.splice(at..at, steps);
        }
        self.layers = group(&self.steps, request.layers);
        self
    }
}

/// Returns where the steps of a stage go: behind those of earlier stages in the same place.
fn place(steps: &[Step], hook: Hook) -> usize {
    let first =
        |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap_or(steps.len());
    match hook {
        Hook::BeforeInstall => 0,
        Hook::Install | Hook::AfterInstall => {
            first(&|step| step.phase == Phase::Init || BRINGERS.contains(&step.name))
        }
        Hook::BeforeInit => first(&|step| step.phase == Phase::Init),
        Hook::Init | Hook::AfterInit => steps.len(),
    }
}
