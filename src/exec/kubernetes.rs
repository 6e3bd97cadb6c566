//! Puts a Kubernetes distribution into the image: the program, its links, its services and its configuration.

use super::{CommandOptions, Environment, PATH, Target, files};
use crate::error::{Context as _, Error, Kind, Result};
use crate::provider::bus::Installed;
use crate::provider::{self, DISTRIBUTIONS, Distribution, Manager};
use kfactory_layers::root::Root;

/// A configuration may hold tokens.
const CONFIG_MODE: u32 = 0o600;

pub(super) fn install(
    env: &Environment<'_>,
    root: &Root,
    name: &str,
    version: &str,
    config: bool,
) -> Result<()> {
    let programs = (env.programs)()?;
    let program = programs
        .iter()
        .find(|it| it.distribution.name == name && it.version == version)
        .ok_or_else(|| Error::internal(format!("{name} {version} was not fetched")))?;
    let distribution = program.distribution;
    let content = std::fs::File::open(&program.source)
        .context(|| format!("opening {}", program.source.display()))?;
    files::make_parents(root, distribution.target)?;
    root.copy_in(content, distribution.target, 0o755, 0, 0)?;
    links(root, distribution)?;
    match manager(root)? {
        Some(manager) => {
            for file in provider::files(distribution, manager) {
                files::file(root, &file.path, file.mode, file.content.as_bytes())?;
            }
        }
        None => env.reporter.warn(&format!(
            "the image has neither systemd nor OpenRC: {name} has no services"
        )),
    }
    if config {
        let content = env.config(name)?;
        files::file(root, distribution.config, CONFIG_MODE, content)?;
    }
    Ok(())
}

/// Makes the commands that the program answers to, where the image does not have them from elsewhere.
fn links(root: &Root, distribution: &Distribution) -> Result<()> {
    for command in distribution.links {
        let mut there = false;
        for dir in PATH.split(':') {
            there |= root
                .symlink_metadata_opt(format!("{dir}/{command}"))?
                .is_some();
        }
        if !there {
            root.symlink(distribution.name, format!("/usr/bin/{command}"))?;
        }
    }
    Ok(())
}

/// Tells what starts services. An image may hold parts of both; the one with OpenRC's runner is started by it.
fn manager(root: &Root) -> Result<Option<Manager>> {
    for (manager, programs) in [
        (
            Manager::OpenRc,
            ["/sbin/openrc-run", "/usr/sbin/openrc-run"],
        ),
        (Manager::Systemd, ["/usr/bin/systemctl", "/bin/systemctl"]),
    ] {
        for program in programs {
            if root.exists(program)? {
                return Ok(Some(manager));
            }
        }
    }
    Ok(None)
}

/// Asks the programs that are there for their version; the last one of the table that answers wins.
pub(super) fn installed(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
) -> Result<Option<Installed>> {
    let mut found = None;
    for distribution in DISTRIBUTIONS {
        if !target.root.exists(distribution.target)? {
            continue;
        }
        let mut argv = vec![distribution.target];
        argv.extend(distribution.version_arguments);
        let options = CommandOptions {
            answers: true,
            ..CommandOptions::default()
        };
        match env.command(target, step, &argv, options) {
            Ok(ran) => {
                let version = ran
                    .printed
                    .lines()
                    .find_map(|line| distribution.version_in(line));
                found = version
                    .map(|version| Installed {
                        provider: distribution.name.to_owned(),
                        version,
                    })
                    .or(found);
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => env.reporter.warn(&error.to_string()),
        }
    }
    Ok(found)
}
