//! What a configuration of GRUB's looks for, and the menu that it goes to.

use super::grub_menu::{Menu, Search};
use super::rule::Report;
use super::rules;

/// What there is to be found.
pub(super) struct There<'a> {
    /// Tells whether some file system has this file.
    pub(super) has_file: &'a dyn Fn(&str) -> bool,
    /// The labels of all file systems.
    pub(super) labels: &'a [String],
}

/// Checks that what `menu` looks for and goes to is there; `name` is its own, on the file system called `path`.
pub(super) fn check(report: &mut Report, path: &str, name: &str, menu: &Menu, there: &There<'_>) {
    let mut held = report.hold(&rules::MENU_TARGET);
    for search in menu.searches() {
        match search {
            Search::File(file) if !(there.has_file)(&file) => held.at(
                path,
                format!("{name} looks for the device with {file}, which is not there"),
            ),
            Search::Label(label) if !there.labels.contains(&label) => held.at(
                path,
                format!("{name} looks for the label {label}, which nothing here has"),
            ),
            _ => {}
        }
    }
    for target in menu.targets() {
        if !(there.has_file)(&target) {
            held.at(path, format!("{name} goes to {target}, which is not there"));
        }
    }
}
