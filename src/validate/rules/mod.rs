//! The rules, one file a subject.

mod cloud_configs;
mod grub;
mod initrd;
mod kernel;
mod layout;
mod model;
mod packages;
mod permissions;
pub(super) mod programs;
mod providers;
mod release;
mod residue;
mod services;
mod size;
mod ssh;
mod trusted;
mod users;

use super::{Facts, Rule};

/// Every rule, by subject, in the order in which they are shown.
const SUBJECTS: &[&[Rule]] = &[
    kernel::RULES,
    initrd::RULES,
    grub::RULES,
    trusted::RULES,
    programs::RULES,
    providers::RULES,
    release::RULES,
    cloud_configs::RULES,
    packages::RULES,
    services::RULES,
    ssh::RULES,
    users::RULES,
    permissions::RULES,
    layout::RULES,
    residue::RULES,
    size::RULES,
    model::RULES,
];

/// Returns every rule.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    SUBJECTS.iter().copied().flatten()
}

/// Returns the rule of this id.
pub fn find(id: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.id == id)
}

fn always(_: &Facts) -> bool {
    true
}
