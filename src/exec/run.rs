//! Runs a step's own commands: those that a plan names word by word.

use super::{CommandOptions, Environment, Target};
use crate::error::{Kind, Result};

/// A command as a plan names it.
pub(super) struct Wanted<'a> {
    pub(super) argv: &'a [String],
    pub(super) network: bool,
    pub(super) secrets: &'a [String],
    pub(super) if_exists: Option<&'a str>,
    pub(super) may_fail: bool,
}

pub(super) fn command(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    wanted: &Wanted<'_>,
) -> Result<()> {
    if let Some(path) = wanted.if_exists
        && !target.root.exists(path)?
    {
        return Ok(());
    }
    let argv: Vec<&str> = wanted.argv.iter().map(String::as_str).collect();
    let options = CommandOptions {
        network: wanted.network,
        secrets: wanted.secrets.to_vec(),
        ..CommandOptions::default()
    };
    match env.command(target, step, &argv, options) {
        Ok(_) => Ok(()),
        Err(error) if wanted.may_fail && error.kind() == Kind::Step => {
            env.reporter.warn(&error.to_string());
            Ok(())
        }
        Err(error) => Err(error),
    }
}
