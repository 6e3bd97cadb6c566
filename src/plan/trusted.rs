//! Trusted Boot: one signed EFI image holds kernel and root filesystem, so there is no boot loader and no initrd of our own.

use super::step_mut;
use crate::distro::{DistroId, Facts};
use crate::request::Request;
use crate::step::{Action, Step, StepName};

/// Takes out of `steps` what an image for Trusted Boot does not have, and adds what it takes.
pub(super) fn apply(steps: &mut Vec<Step>, facts: &Facts, request: &Request) {
    steps.retain(|step| !matches!(step.name, StepName::GRUB | StepName::INITRAMFS_CONFIGS));
    if let Some(step) = step_mut(steps, StepName::INITRD) {
        // One that came with the base would be packed into the UKI beside everything else.
        step.actions = vec![Action::Remove {
            paths: ["/boot/initrd*", "/boot/initramfs*", "/initrd.img*"]
                .map(str::to_owned)
                .into(),
        }];
    }
    if facts.distro == DistroId::Ubuntu
        && has_extra_modules(facts)
        && !request.has_no_kernel()
        && let Some(step) = step_mut(steps, StepName::WORKAROUNDS)
    {
        step.actions.push(Action::NvdimmModules);
    }
    if let Some(step) = step_mut(steps, StepName::CLEANUP) {
        step.actions.push(Action::MeasureUki);
    }
}

/// Tells whether the release has the drivers that HTTP boot needs in a package of their own, of over 100 MB.
fn has_extra_modules(facts: &Facts) -> bool {
    let major = facts
        .version
        .as_deref()
        .and_then(|version| version.split('.').next());
    major.is_some_and(|major| matches!(major, "20" | "21" | "22" | "23" | "24"))
}
