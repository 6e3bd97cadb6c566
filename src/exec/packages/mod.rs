//! Installs packages with the package manager of the base.
//!
//! The base's family says which managers it may have, its tree says which one it has.

use kfactory_layers::root::Root;

use super::{Environment, Target, apt, files};
use crate::distro::Family;
use crate::error::{Error, Result};

/// Refreshes the lists, upgrades if `upgrade` is set, and installs `packages`.
pub(super) fn install(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    upgrade: bool,
    packages: &[String],
) -> Result<()> {
    match env.facts.distro.family {
        Family::Debian => apt::install(env, target, step, upgrade, packages),
        _ => Err(refuse(env)),
    }
}

fn refuse(env: &Environment<'_>) -> Error {
    Error::user(format!(
        "{} (family `{}`) is planned, but this version of kfactory installs packages with apt only",
        env.facts.distro.name, env.facts.distro.family
    ))
    .hint("convert a Debian or Ubuntu base")
}

pub(super) fn prerequisites(
    env: &Environment<'_>,
    _target: &Target<'_>,
    _step: &str,
    _install: &[String],
    _url: Option<&str>,
    _replace: bool,
) -> Result<()> {
    Err(refuse(env))
}

pub(super) fn import_keys(env: &Environment<'_>, _target: &Target<'_>, _step: &str) -> Result<()> {
    Err(refuse(env))
}

pub(super) fn remove(
    env: &Environment<'_>,
    _target: &Target<'_>,
    _step: &str,
    _names: &[String],
) -> Result<()> {
    Err(refuse(env))
}

/// Removes what the base has of caches, and temporary files.
pub(super) fn clean(target: &Target<'_>, paths: &[String]) -> Result<()> {
    files::remove_all(target, paths)?;
    files::remove_all(target, &apt::cleanup_paths())
}

/// Switches a repository on in the file that describes it.
pub(super) fn enable_repository(root: &Root, id: &str) -> Result<()> {
    let dir = "/etc/yum.repos.d";
    if root.exists(dir)? {
        for entry in root.read_dir(dir)? {
            let path = format!("{dir}/{}", entry.name.to_string_lossy());
            let Some(text) = root
                .read_to_string_opt(&path)?
                .filter(|_| path.ends_with(".repo"))
            else {
                continue;
            };
            if let Some(changed) = enabled(&text, id) {
                let mode = root
                    .metadata_opt(&path)?
                    .map_or(0o644, |it| it.mode & 0o777);
                root.write(&path, changed.as_bytes(), mode, 0, 0)?;
                return Ok(());
            }
        }
    }
    Err(
        Error::user(format!("no repository `{id}` is described in {dir}"))
            .hint("the kernel comes from it; add it to the base image"),
    )
}

/// Returns `text` with the section `id` switched on; `None` if it has no such section.
fn enabled(text: &str, id: &str) -> Option<String> {
    let header = format!("[{id}]");
    let (mut inside, mut found) = (false, false);
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == header;
            lines.push(line.to_owned());
            if inside {
                found = true;
                lines.push("enabled=1".into());
            }
        } else if !(inside
            && line
                .split('=')
                .next()
                .is_some_and(|key| key.trim() == "enabled"))
        {
            lines.push(line.to_owned());
        }
    }
    lines.push(String::new());
    found.then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_is_switched_on_and_the_others_stay_as_they_are() {
        let text = "[a]\nname=A\nenabled=0\n\n[b]\nname=B\nenabled = 0\ngpgcheck=1\n";
        assert_eq!(
            enabled(text, "b").as_deref(),
            Some("[a]\nname=A\nenabled=0\n\n[b]\nenabled=1\nname=B\ngpgcheck=1\n")
        );
        assert_eq!(enabled(text, "c"), None);
    }
}
