//! Enables, disables and masks units with the image's own `systemctl`, which works offline on links alone.

use kfactory_layers::root::Root;

use super::{CommandOptions, Environment, Target};
use crate::error::Result;

const UNIT_DIRS: &[&str] = &[
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

pub(super) fn apply(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    enable: &[String],
    disable: &[String],
    mask: &[String],
) -> Result<()> {
    if !target.root.exists("/usr/bin/systemctl")? && !target.root.exists("/bin/systemctl")? {
        env.reporter
            .warn("the image has no systemctl: no service was changed");
        return Ok(());
    }
    for (verb, units) in [("enable", enable), ("disable", disable)] {
        let mut present = Vec::new();
        for unit in units {
            if has_unit(&target.root, unit)? {
                present.push(unit.as_str());
            } else {
                env.reporter
                    .warn(&format!("unit {unit} is not installed: it was not {verb}d"));
            }
        }
        systemctl(env, target, step, verb, &present)?;
    }
    // Masking needs no unit: it keeps one that comes later from starting.
    let mask: Vec<&str> = mask.iter().map(String::as_str).collect();
    systemctl(env, target, step, "mask", &mask)
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

fn has_unit(root: &Root, unit: &str) -> Result<bool> {
    let name = if unit.contains('.') {
        unit.to_owned()
    } else {
        format!("{unit}.service")
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
