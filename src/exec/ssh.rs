//! sshd hardening: only where the installed OpenSSH knows the algorithms, or it would not start.

use super::{CommandOptions, Environment, Target, files};
use crate::error::Result;
use crate::kairos::files as data;

const MODULI: &str = "/etc/ssh/moduli";

pub(super) fn harden(env: &Environment<'_>, target: &Target<'_>, step: &str) -> Result<()> {
    let root = &target.root;
    if !root.exists("/etc/ssh")? {
        return Ok(());
    }
    if !root.exists("/usr/sbin/sshd")? {
        env.reporter
            .warn("/etc/ssh exists but sshd is not installed: it was not hardened");
        return Ok(());
    }
    let options = CommandOptions {
        any_status: true,
        quiet: true,
        answers: true,
        ..CommandOptions::default()
    };
    // No release has an option that asks for its version only; all of them say it when they are used wrongly.
    let usage = env
        .command(target, step, &["/usr/sbin/sshd", "-h"], options)?
        .printed;
    if !data::openssh_supports_hardening(&usage) {
        usage.lines().for_each(|line| env.show(step, line));
        env.reporter.warn("sshd is older than OpenSSH 8.5 and was not hardened: it would not start with the newer algorithms");
        return Ok(());
    }
    let file = data::ssh_hardening(env.request.fips);
    files::file(root, &file.path, file.mode, file.content.as_bytes())?;
    if let Some(moduli) = root.read_to_string_opt(MODULI)? {
        match data::strong_moduli(&moduli) {
            Some(strong) if strong != moduli => {
                files::file(root, MODULI, 0o644, strong.as_bytes())?
            }
            Some(_) => {}
            None => env
                .reporter
                .warn("/etc/ssh/moduli holds no group of 2047 bits or more and was left as it is"),
        }
    }
    Ok(())
}
