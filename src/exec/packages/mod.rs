//! Installs packages with the package manager of the base.
//!
//! The base's family says which managers it may have, its tree says which one it has. apt has an engine of its own; the others
//! share one that follows their data.

pub(super) mod apt;
mod missing;
mod native;
mod repositories;
mod session;
mod workspace;

use kfactory_layers::root::Root;

use super::{Environment, Target};
use crate::distro::Family;
use crate::distro::manager::{self, Manager, Operation};
use crate::error::{Error, Kind, Result};
use crate::plan::Facts;
use crate::step::{Action, Step};
use native::Native;
pub(super) use repositories::enable as enable_repository;
pub use session::Session;

/// Where packages are changed, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) env: &'a Environment<'a>,
    pub(super) target: &'a Target<'a>,
    /// The step that asks for it.
    pub(super) step: &'a str,
}

/// Packages that a step asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Whether everything that is installed is upgraded first.
    pub(super) upgrade: bool,
    pub(super) install: &'a [String],
}

/// Command lines of a stage extension that call the package manager.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines<'a> {
    /// Texts for the shell, in order.
    pub(super) texts: &'a [String],
    /// Whether one of them refreshes the lists; without it they are those of this run.
    pub(super) refresh: bool,
    /// The words of the line that installs.
    pub(super) install: &'a [String],
}

impl<'a> Site<'a> {
    fn has_apt(self) -> bool {
        self.env.facts.distro.family == Family::Debian
    }

    /// Prepares the manager that the base has; it is none of apt's family.
    fn native(self) -> Result<Native<'a>> {
        match find(self.env.facts, &self.target.root)? {
            Some(manager) => Native::open(self, manager),
            None => Err(Error::internal("apt has an engine of its own")),
        }
    }
}

/// Refreshes the lists, and upgrades and installs what is wanted.
pub(super) fn install(site: Site<'_>, wanted: Wanted<'_>) -> Result<()> {
    if site.has_apt() {
        return apt::install(site, wanted);
    }
    if wanted.install.is_empty() && !wanted.upgrade {
        return Ok(());
    }
    let native = site.native()?;
    let names = words(wanted.install);
    native.refresh()?;
    native.fetch(&names)?;
    if wanted.upgrade {
        native.run(Operation::Upgrade)?;
    }
    if !names.is_empty() {
        native
            .run(Operation::install(&names))
            .map_err(|error| missing::explain(error, site.env.request, |_| Vec::new()))?;
    }
    native.settle()
}

/// Installs what brings the repositories that other packages come from.
///
/// `url` is where the one package is taken from when no repository has it; with `replace` packages of the base that conflict may go.
pub(super) fn prerequisites(
    site: Site<'_>,
    install: &[String],
    url: Option<&str>,
    replace: bool,
) -> Result<()> {
    if site.has_apt() {
        let upgrade = false;
        return apt::install(site, Wanted { upgrade, install });
    }
    let native = site.native()?;
    let names = words(install);
    native.refresh()?;
    let wanted = Operation::Install {
        names: &names,
        replace,
    };
    match (native.run(wanted), url) {
        (Err(error), Some(url)) if error.kind() == Kind::Step => {
            site.env.reporter.note(&format!(
                "no repository has {}: it is taken from {url}",
                install.join(" ")
            ));
            native.run(Operation::install(&[url]))?;
        }
        (outcome, _) => outcome?,
    }
    site.env.packages.sources_changed();
    native.settle()
}

/// Refreshes the repositories and trusts the keys that they state.
pub(super) fn import_keys(site: Site<'_>) -> Result<()> {
    let native = site.native()?;
    native.run(Operation::Refresh { import_keys: true })?;
    site.env.packages.set_refreshed();
    native.settle()
}

/// Runs what a stage extension has the package manager do.
pub(super) fn extension(site: Site<'_>, wanted: Lines<'_>) -> Result<()> {
    run_lines(site, wanted).map_err(missing::explain_extension)
}

fn run_lines(site: Site<'_>, wanted: Lines<'_>) -> Result<()> {
    if site.has_apt() {
        return apt::extension(site, wanted);
    }
    let native = site.native()?;
    if !wanted.refresh {
        native.refresh()?;
    }
    for line in wanted.texts {
        native.shell(line)?;
    }
    if wanted.refresh {
        // One of the lines did it.
        site.env.packages.set_refreshed();
    }
    native.settle()
}

/// Removes those of `names` that are installed.
pub(super) fn remove(site: Site<'_>, names: &[String]) -> Result<()> {
    let native = site.native()?;
    let installed = native.ask(Operation::List)?;
    let present: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| installed.lines().any(|line| line.trim() == *name))
        .collect();
    if !present.is_empty() {
        native.run(Operation::Remove(&present))?;
    }
    native.settle()
}

fn words(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Checks that the base can do what `steps` have its package manager do.
///
/// Steps behind one that runs something of the user's are left alone: that may bring a manager.
///
/// # Errors
///
/// A step installs packages, and the base has no manager.
pub fn check_manager(steps: &[Step], facts: &Facts, root: &Root) -> Result<()> {
    let installs = |action: &Action| matches!(action, Action::Packages { install, upgrade } if *upgrade || !install.is_empty());
    let first = steps
        .iter()
        .flat_map(|step| &step.actions)
        .find(|action| installs(action) || matches!(action, Action::Plugin(_)));
    match first {
        Some(action) if installs(action) => find(facts, root).map(drop),
        _ => Ok(()),
    }
}

/// What a base of apt's family has.
const APT: &str = "/usr/bin/apt-get";

/// Finds the manager that the base has; `None` is apt.
fn find(facts: &Facts, root: &Root) -> Result<Option<&'static Manager>> {
    let managers = manager::of_family(facts.distro.family);
    for manager in &managers {
        for program in manager.programs {
            if root.exists(program)? {
                return Ok(Some(manager));
            }
        }
    }
    let has_apt = facts.distro.family == Family::Debian;
    if has_apt && root.exists(APT)? {
        return Ok(None);
    }
    let mut names: Vec<&str> = managers.iter().map(|manager| manager.name).collect();
    if has_apt {
        names.push(APT);
    }
    Err(Error::user(format!(
        "{} has no package manager that packages can be installed with; looked for {}",
        facts.distro.name,
        names.join(", ")
    ))
    .hint("take a base image that has one, or pass `--skip-step installPackages,installKernel` for a base with everything in it"))
}
