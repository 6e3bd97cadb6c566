//! Enables, disables and masks units with the image's own `systemctl`, which works offline on links alone; fills OpenRC's run
//! levels.

use std::path::Path;

use kfactory_layers::root::Root;

use super::{CommandOptions, Environment, Target, files};
use crate::error::Result;

const UNIT_DIRS: &[&str] = &[
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Units by what becomes of them.
pub(super) struct Units<'a> {
    pub(super) unmask: &'a [String],
    pub(super) enable: &'a [String],
    pub(super) optional: &'a [String],
    pub(super) disable: &'a [String],
    pub(super) mask: &'a [String],
}

pub(super) fn apply(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    units: &Units<'_>,
) -> Result<()> {
    if !target.root.exists("/usr/bin/systemctl")? && !target.root.exists("/bin/systemctl")? {
        env.reporter
            .warn("the image has no systemctl: no service was changed");
        return Ok(());
    }
    for unit in units.enable {
        if !has_unit(&target.root, unit)? {
            env.reporter
                .warn(&format!("unit {unit} is not installed: it was not enabled"));
        }
    }
    systemctl(
        env,
        target,
        step,
        "unmask",
        &masked(&target.root, units.unmask)?,
    )?;
    let enable = [units.enable, units.optional].concat();
    for (verb, units) in [("enable", &enable[..]), ("disable", units.disable)] {
        let mut present = Vec::new();
        for unit in units {
            if has_unit(&target.root, unit)? {
                present.push(unit.as_str());
            }
        }
        systemctl(env, target, step, verb, &present)?;
    }
    // Masking needs no unit: it keeps one that comes later from starting.
    let mask: Vec<&str> = units.mask.iter().map(String::as_str).collect();
    systemctl(env, target, step, "mask", &mask)
}

/// Returns those of `units` that a link to nothing in `/etc` keeps from starting.
fn masked<'a>(root: &Root, units: &'a [String]) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for unit in units {
        let link = root.read_link_opt(format!("{}/{}", UNIT_DIRS[0], file_name(unit)))?;
        if link.is_some_and(|target| target == Path::new("/dev/null")) {
            found.push(unit.as_str());
        }
    }
    Ok(found)
}

/// Adds services to a run level of OpenRC: a link is all that its own command makes.
pub(super) fn add(
    env: &Environment<'_>,
    root: &Root,
    level: &str,
    services: &[String],
) -> Result<()> {
    if !root.exists("/sbin/openrc")? && !root.exists("/usr/sbin/openrc")? {
        env.reporter
            .warn("the image has no openrc: no service was changed");
        return Ok(());
    }
    for service in services {
        let script = format!("/etc/init.d/{service}");
        if root.symlink_metadata_opt(&script)?.is_none() {
            env.reporter.warn(&format!(
                "service {service} is not installed: it was not added to run level {level}"
            ));
            continue;
        }
        let link = format!("/etc/runlevels/{level}/{service}");
        files::make_parents(root, &link)?;
        root.symlink(&script, &link)?;
    }
    Ok(())
}

fn systemctl(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    verb: &str,
    units: &[&str],
) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    let mut argv = vec!["systemctl", verb];
    argv.extend(units);
    let options = CommandOptions {
        env: vec![("SYSTEMD_OFFLINE".into(), "1".into())],
        ..CommandOptions::default()
    };
    env.command(target, step, &argv, options).map(|_| ())
}

fn file_name(unit: &str) -> String {
    if unit.contains('.') {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

fn has_unit(root: &Root, unit: &str) -> Result<bool> {
    // An instance has the file of its template.
    let name = file_name(unit);
    let name = match (name.split_once('@'), name.rsplit_once('.')) {
        (Some((template, _)), Some((_, kind))) => format!("{template}@.{kind}"),
        _ => name,
    };
    for dir in UNIT_DIRS {
        if root
            .symlink_metadata_opt(format!("{dir}/{name}"))?
            .is_some()
        {
            return Ok(true);
        }
    }
    // A SysV script is enabled through the same command.
    Ok(root.exists(format!("/etc/init.d/{}", unit.trim_end_matches(".service")))?)
}
