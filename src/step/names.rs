//! The names of the steps, as `--skip-step` takes them.

use serde::{Serialize, Serializer};

use super::Phase;
use crate::error::{Error, Result};
use crate::suggest::nearest;

/// The name of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepName(&'static str);

impl StepName {
    /// Returns the name as the user writes it.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns whether the step of this name belongs to the init phase.
    pub fn is_of_init(self) -> bool {
        let info = NAMES.iter().find(|info| info.name == self);
        info.is_some_and(|info| info.phase == Some(Phase::Init))
    }

    /// Tells whether `word` names the step; case does not matter.
    pub fn is_named(self, word: &str) -> bool {
        let is = |name: StepName| name.0.eq_ignore_ascii_case(word.trim());
        is(self) || (self == StepName::BUILD_PROVIDER && is(StepName::KUBERNETES))
    }
}

impl Serialize for StepName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// One row of the table of names.
#[derive(Debug, Clone, Copy)]
pub struct NameInfo {
    /// The name.
    pub name: StepName,
    /// The phase it runs in; `None` when nothing of that name runs in this version.
    pub phase: Option<Phase>,
    /// What it does, in one line.
    pub description: &'static str,
}

macro_rules! names {
    ($($constant:ident $name:literal $phase:expr, $description:literal;)*) => {
        impl StepName {
            $(#[doc = concat!("The step `", $name, "`.")] pub const $constant: StepName = StepName($name);)*
        }
        /// Every name that `--skip-step` takes, phases first, then in the order the steps run.
        pub const NAMES: &[NameInfo] = &[
            $(NameInfo { name: StepName($name), phase: $phase, description: $description },)*
        ];
    };
}

names! {
    INSTALL_PHASE "install" Some(Phase::Install), "the whole install phase";
    INIT_PHASE "init" Some(Phase::Init), "the whole init phase";
    INSTALL_PACKAGES "installPackages" Some(Phase::Install), "refresh, upgrade once and install the base packages";
    INSTALL_KERNEL "installKernel" Some(Phase::Install), "install the kernel package";
    BRANDING "branding" Some(Phase::Install), "remote recovery menu entry and the texts of the installer";
    GRUB "grub" Some(Phase::Install), "/etc/cos/grub.cfg and /etc/cos/bootargs.cfg";
    MISCELLANEOUS "miscellaneous" Some(Phase::Install), "login banner, motd, suc-upgrade, log rotation";
    CLOUDCONFIGS "cloudconfigs" Some(Phase::Install), "the bundled cloud-configs in /system/oem";
    KAIROS_BINARIES "kairosBinaries" Some(Phase::Install), "kairos-agent, immucore, the disk-encryption challenger and the installer";
    PROVIDER_BINARIES "providerBinaries" Some(Phase::Install), "the Kairos provider and edgevpn (nothing for the core variant)";
    BUILD_PROVIDER "buildProvider" Some(Phase::Install), "install every `--provider` (nothing for the core variant)";
    KUBERNETES "kubernetes" Some(Phase::Install), "another spelling of buildProvider";
    KAIROS_RELEASE "kairosRelease" Some(Phase::Init), "/etc/kairos-release";
    KERNEL "kernel" Some(Phase::Init), "/boot/vmlinuz names the newest kernel";
    INITRAMFS_CONFIGS "initramfsConfigs" Some(Phase::Init), "dracut configuration and the immucore module";
    INITRD "initrd" Some(Phase::Init), "/boot/initrd";
    SERVICES "services" Some(Phase::Init), "enable, disable and mask services";
    SSH_HARDENING "sshHardening" Some(Phase::Init), "sshd hardening";
    WORKAROUNDS "workarounds" Some(Phase::Init), "small fixes to what the distribution ships";
    CLEANUP "cleanup" Some(Phase::Init), "machine identity, host keys, caches, logs";
    STAGE_EXTENSIONS "stageExtensions" None, "the steps of stage extensions, in every stage";
}

/// Checks one value of `--skip-step`; case does not matter.
///
/// # Errors
///
/// A usage error that lists the known names.
pub fn check_skip_name(name: &str) -> Result<()> {
    if NAMES
        .iter()
        .any(|info| info.name.as_str().eq_ignore_ascii_case(name.trim()))
    {
        return Ok(());
    }
    let known: Vec<&str> = NAMES.iter().map(|info| info.name.as_str()).collect();
    let error = Error::usage(format!("unknown step `{name}`"));
    Err(match nearest(name.trim(), known.iter().copied()) {
        Some(near) => error
            .hint(format!("did you mean `{near}`?"))
            .hint("`kfactory steps-info` lists all"),
        None => error.hint(format!("known steps: {}", known.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_is_another_name_of_the_step_that_installs_it() {
        assert!(StepName::BUILD_PROVIDER.is_named(" Kubernetes"));
        assert!(StepName::BUILD_PROVIDER.is_named("buildprovider"));
        assert!(!StepName::PROVIDER_BINARIES.is_named("kubernetes"));
    }

    #[test]
    fn names_are_compared_without_case_and_unknown_ones_are_refused() {
        assert!(check_skip_name("INITRD").is_ok());
        assert!(check_skip_name(" cleanup ").is_ok());
        assert!(
            check_skip_name("pakages")
                .unwrap_err()
                .render_text()
                .contains("installPackages")
        );
    }
}
