//! Installs packages with the package manager of the base.
//!
//! The base's family says which managers it may have, its tree says which one it has. apt has an engine of its own; the others
//! share one that follows their data.

pub(super) mod apt;
mod native;
mod repositories;
mod session;
mod workspace;

use kfactory_layers::root::Root;

use super::{Environment, Target};
use crate::distro::Family;
use crate::distro::manager::{self, Manager, Operation};
use crate::error::{Error, Kind, Result};
use native::Native;
pub(super) use repositories::enable as enable_repository;
pub use session::Session;

/// Refreshes the lists, upgrades if `upgrade` is set, and installs `packages`.
pub(super) fn install(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    upgrade: bool,
    packages: &[String],
) -> Result<()> {
    if env.facts.distro.family == Family::Debian {
        return apt::install(env, target, step, upgrade, packages);
    }
    if packages.is_empty() && !upgrade {
        return Ok(());
    }
    let native = Native::open(env, target, step, find(env, &target.root)?)?;
    let names = words(packages);
    native.refresh()?;
    native.fetch(&names)?;
    if upgrade {
        native.run(Operation::Upgrade)?;
    }
    if !names.is_empty() {
        native.run(Operation::install(&names))?;
    }
    native.settle()
}

/// Installs what brings the repositories that other packages come from.
pub(super) fn prerequisites(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    install: &[String],
    url: Option<&str>,
    replace: bool,
) -> Result<()> {
    if env.facts.distro.family == Family::Debian {
        return apt::install(env, target, step, false, install);
    }
    let native = Native::open(env, target, step, find(env, &target.root)?)?;
    let names = words(install);
    native.refresh()?;
    let wanted = Operation::Install {
        names: &names,
        replace,
    };
    match (native.run(wanted), url) {
        (Err(error), Some(url)) if error.kind() == Kind::Step => {
            env.reporter.note(&format!(
                "no repository has {}: it is taken from {url}",
                install.join(" ")
            ));
            native.run(Operation::install(&[url]))?;
        }
        (outcome, _) => drop(outcome?),
    }
    env.packages.sources_changed();
    native.settle()
}

/// Refreshes the repositories and trusts the keys that they state.
pub(super) fn import_keys(env: &Environment<'_>, target: &Target<'_>, step: &str) -> Result<()> {
    let native = Native::open(env, target, step, find(env, &target.root)?)?;
    native.run(Operation::Refresh { import_keys: true })?;
    env.packages.set_refreshed();
    native.settle()
}

/// Runs command lines of a stage extension that call the package manager; `install` are the words of the one that installs.
pub(super) fn extension(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    refresh: bool,
    lines: &[String],
    install: &[String],
) -> Result<()> {
    if env.facts.distro.family == Family::Debian {
        return apt::extension(env, target, step, refresh, lines, install);
    }
    let native = Native::open(env, target, step, find(env, &target.root)?)?;
    if !refresh {
        native.refresh()?;
    }
    for line in lines {
        native.shell(line)?;
    }
    if refresh {
        // One of the lines did it.
        env.packages.set_refreshed();
    }
    native.settle()
}

/// Removes those of `names` that are installed.
pub(super) fn remove(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    names: &[String],
) -> Result<()> {
    let native = Native::open(env, target, step, find(env, &target.root)?)?;
    let installed = native.run(Operation::List)?;
    let present: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| installed.iter().any(|line| line.trim() == *name))
        .collect();
    if !present.is_empty() {
        native.run(Operation::Remove(&present))?;
    }
    native.settle()
}

fn words(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Finds the manager that the base has.
fn find(env: &Environment<'_>, root: &Root) -> Result<&'static Manager> {
    let managers = manager::of_family(env.facts.distro.family);
    for manager in &managers {
        for program in manager.programs {
            if root.exists(program)? {
                return Ok(manager);
            }
        }
    }
    let names: Vec<&str> = managers.iter().map(|manager| manager.name).collect();
    Err(Error::user(format!(
        "{} has no package manager that packages can be installed with; looked for {}",
        env.facts.distro.name,
        names.join(", ")
    ))
    .hint("take a base image that has one, or pass `--skip-step installPackages,installKernel` for a base with everything in it"))
}
