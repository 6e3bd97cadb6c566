//! The steps of the install phase: packages, kernel, and the files and binaries that make a system a Kairos one.

use super::{Action, Group, Phase, Step, StepName};
use crate::distro::packages::{Chosen, Selection};
use crate::distro::policy::{Policy, PolicyFile, Preparation};
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
pub fn steps(policy: &Policy, selection: &Selection) -> Vec<Step> {
    let mut steps = Vec::new();
    if policy.has_packages {
        steps.push(base_packages(&policy.preparation, selection));
        steps.push(kernel_packages(&policy.preparation, &selection.kernel));
    }
    steps.extend([
        files(StepName::BRANDING, data::branding_files()),
        files(StepName::GRUB, data::grub_files()),
        miscellaneous(),
        cloud_configs(),
        binaries(),
    ]);
    steps
}

fn base_packages(preparation: &Preparation, selection: &Selection) -> Step {
    let mut actions: Vec<Action> = preparation.files.iter().map(Action::from).collect();
    if preparation.import_keys {
        actions.push(Action::ImportKeys);
    }
    actions.extend(prerequisites(preparation, &selection.repository));
    if !preparation.remove.is_empty() {
        let names = preparation.remove.iter().map(|name| (*name).to_owned());
        actions.push(Action::RemovePackages {
            names: names.collect(),
        });
    }
    actions.push(Action::Packages {
        upgrade: true,
        install: names(&selection.base),
    });
    if let Some((from, to)) = preparation.settle {
        actions.push(Action::Move {
            from: from.into(),
            to: to.into(),
        });
    }
    package_step(StepName::INSTALL_PACKAGES, Group::Packages, actions)
}

/// Returns what brings the repositories: from an address of its own where the preparation knows one, then the others.
fn prerequisites(preparation: &Preparation, chosen: &[Chosen]) -> Vec<Action> {
    let special = preparation.repository.as_ref();
    let rest: Vec<String> = names(chosen)
        .into_iter()
        .filter(|name| special.is_none_or(|package| package.name != *name))
        .collect();
    let mut actions = Vec::new();
    if let Some(package) = special {
        actions.push(Action::Prerequisites {
            install: vec![package.name.clone()],
            url: Some(package.url.clone()),
            replace: false,
        });
    }
    if !rest.is_empty() {
        actions.push(Action::Prerequisites {
            install: rest,
            url: None,
            // A foreign repository, whose keys had to be imported, is built of other versions than the base.
            replace: preparation.import_keys,
        });
    }
    actions
}

fn kernel_packages(preparation: &Preparation, chosen: &[Chosen]) -> Step {
    let mut actions = Vec::new();
    if let Some(id) = preparation.kernel_repository {
        actions.push(Action::EnableRepository { id: id.into() });
    }
    actions.push(Action::Packages {
        upgrade: false,
        install: names(chosen),
    });
    package_step(StepName::INSTALL_KERNEL, Group::Kernel, actions)
}

fn names(chosen: &[Chosen]) -> Vec<String> {
    chosen.iter().map(|package| package.name.clone()).collect()
}

fn package_step(name: StepName, group: Group, actions: Vec<Action>) -> Step {
    Step::new(name, Phase::Install, group, actions)
}

pub(super) fn kairos_step(name: StepName, actions: Vec<Action>) -> Step {
    Step::new(name, Phase::Install, Group::Kairos, actions)
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

impl From<&PolicyFile> for Action {
    fn from(file: &PolicyFile) -> Self {
        Action::File {
            path: file.path.into(),
            mode: 0o644,
            content: file.content.into(),
        }
    }
}
