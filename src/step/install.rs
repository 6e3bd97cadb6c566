//! The steps of the install phase: packages, kernel, and the files and binaries that make a system a Kairos one.

use super::{Action, Group, Phase, Step, StepName};
use crate::distro::packages::Selection;
use crate::framework::{COMPONENTS, Component};
use crate::kairos::files as data;
use crate::kairos::{self, StaticFile};

/// Directories that the read-only root must offer as mount points.
///
/// Spec: boot contract section 1, "mount points".
const MOUNT_POINTS: &[&str] = &[
    "/oem",
    "/efi",
    "/usr/local",
    "/home",
    "/opt",
    "/srv",
    "/mnt",
    "/var/lock",
    "/system",
];

/// Returns the steps of the install phase in the order they run.
pub fn steps(selection: &Selection) -> Vec<Step> {
    vec![
        packages(
            StepName::INSTALL_PACKAGES,
            Group::Packages,
            true,
            &selection.base,
        ),
        packages(
            StepName::INSTALL_KERNEL,
            Group::Kernel,
            false,
            &selection.kernel,
        ),
        files(StepName::BRANDING, data::branding_files()),
        files(StepName::GRUB, data::grub_files()),
        miscellaneous(),
        cloud_configs(),
        binaries(),
    ]
}

fn packages(
    name: StepName,
    group: Group,
    upgrade: bool,
    chosen: &[crate::distro::packages::Chosen],
) -> Step {
    let install = chosen.iter().map(|package| package.name.clone()).collect();
    Step {
        name,
        phase: Phase::Install,
        group,
        actions: vec![Action::Packages { upgrade, install }],
    }
}

pub(super) fn kairos_step(name: StepName, actions: Vec<Action>) -> Step {
    Step {
        name,
        phase: Phase::Install,
        group: Group::Kairos,
        actions,
    }
}

fn files(name: StepName, files: impl IntoIterator<Item = StaticFile>) -> Step {
    kairos_step(name, files.into_iter().map(Action::from).collect())
}

fn miscellaneous() -> Step {
    let mut actions: Vec<Action> = data::miscellaneous_files()
        .into_iter()
        .map(Action::from)
        .collect();
    actions.extend(MOUNT_POINTS.iter().map(|path| Action::Directory {
        path: (*path).into(),
        mode: 0o755,
    }));
    kairos_step(StepName::MISCELLANEOUS, actions)
}

fn cloud_configs() -> Step {
    files(StepName::CLOUDCONFIGS, kairos::cloud_config_files())
}

fn binaries() -> Step {
    let core = COMPONENTS
        .iter()
        .filter(|component| !component.standard_only);
    kairos_step(
        StepName::KAIROS_BINARIES,
        core.map(framework_action).collect(),
    )
}

/// Returns the action that puts a program of the framework in its place.
pub(super) fn framework_action(component: &Component) -> Action {
    Action::Framework {
        name: component.name.into(),
        path: component.target.into(),
        required: component.required,
        unless_exists: match component.name {
            // The first is the slot for an installer of the user's own; either one wins over ours.
            "kairos-installer" => vec![
                "/system/installer/installer".into(),
                component.target.into(),
            ],
            _ => Vec::new(),
        },
    }
}

impl From<StaticFile> for Action {
    fn from(file: StaticFile) -> Self {
        Action::File {
            path: file.path.to_string(),
            mode: file.mode,
            content: file.content.into_owned(),
        }
    }
}
