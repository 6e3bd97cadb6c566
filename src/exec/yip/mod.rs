//! Carries out the steps of stage extensions: conditions first, then each plugin.
//!
//! Spec: yip. Files go through the tree's handle, commands run in the sandbox.

mod accounts;
mod config;
mod crypt;
mod entities;
mod fetch;
mod git;
mod image;
mod packages;
mod tree;
mod users;

use kfactory_sandbox::spec::Mount;

use super::{CommandOptions, Environment, Runner, Target, packages as managers};
use crate::error::{Error, Kind, Result};
use crate::printable;
use crate::step::{Condition, Content, Extension, Plugin, UserAccount};
use crate::yip::{self, Entity, System};
use accounts::Moment;
use entities::Entry;

/// Where and for what an extension's step works.
pub(super) struct Context<'a> {
    env: &'a Environment<'a>,
    target: &'a Target<'a>,
    step: &'a str,
    system: System,
}

/// Returns why the step is passed over; `None`: it runs.
pub(super) fn unmet(
    env: &Environment<'_>,
    target: &Target<'_>,
    extension: &Extension,
) -> Result<Option<String>> {
    if extension.conditions.is_empty() {
        return Ok(None);
    }
    let context = Context::new(env, target, &extension.label)?;
    for condition in &extension.conditions {
        if let Some(why) = context.unmet(condition)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Does one piece of work.
pub(super) fn run(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    plugin: &Plugin,
) -> Result<()> {
    let context = Context::new(env, target, step)?;
    context.plugin(plugin)
}

impl<'a> Context<'a> {
    fn new(env: &'a Environment<'_>, target: &'a Target<'_>, step: &'a str) -> Result<Self> {
        Ok(Self {
            env,
            target,
            step,
            system: System::read(&target.root, env.facts.arch)?,
        })
    }

    fn moment(&self) -> Moment {
        Moment {
            created: self.env.created,
        }
    }

    fn entry<'b>(&'b self, path: Option<&'b str>, entity: &'b Entity) -> Entry<'b> {
        Entry {
            root: &self.target.root,
            path,
            entity,
            moment: self.moment(),
        }
    }

    fn warn(&self, text: &str) {
        // On one line, whatever the names in it are made of.
        let text = printable::name(&format!("step `{}`: {text}", self.step));
        self.env.reporter.warn(&text);
    }

    /// Renders a template; one that cannot be rendered stays as it is, and that is said.
    fn render(&self, text: &str) -> Result<String> {
        let rendered = self.system.render(text, Some(&self.env.cancel));
        self.env.check_cancelled()?;
        match rendered {
            Ok((text, None)) => Ok(text),
            Ok((text, Some(why))) => {
                self.warn(&format!("a template stays as it is: {why}"));
                Ok(text)
            }
            Err((_, what)) => Err(Error::user(format!(
                "a template cannot be rendered in a build: {what}"
            ))
            .hint("to get the braces themselves, write {{`{{`}}")),
        }
    }

    fn unmet(&self, condition: &Condition) -> Result<Option<String>> {
        if let Condition::Shell { script } = condition {
            let script = self.render(script)?;
            return Ok((!self.succeeds(&script)?).then(|| format!("`{script}` failed")));
        }
        unmet_by(&self.system, &self.target.root, condition)
    }

    fn plugin(&self, plugin: &Plugin) -> Result<()> {
        let root = &self.target.root;
        match plugin {
            Plugin::Download {
                url,
                path,
                mode,
                owner,
                timeout_secs,
            } => fetch::download(self, url, path, *mode, owner, *timeout_secs),
            Plugin::Git {
                url,
                path,
                branch,
                branch_only,
                auth,
            } => git::clone(
                self,
                git::Wanted {
                    url,
                    path,
                    branch: branch.as_deref(),
                    branch_only: *branch_only,
                    auth: auth.as_ref(),
                },
            ),
            Plugin::EnsureEntity { path, entity } => {
                self.entry(path.as_deref(), &self.entity(entity)?).ensure()
            }
            Plugin::DeleteEntity { path, entity } => {
                self.entry(path.as_deref(), &self.entity(entity)?).delete()
            }
            Plugin::MakeDirectory { path, mode, owner } => {
                tree::directory(root, path, *mode, owner)
            }
            Plugin::WriteFile {
                path,
                mode,
                owner,
                parents,
                content,
                template,
            } => {
                let file = tree::NewFile {
                    path,
                    mode: *mode,
                    owner,
                    parents,
                };
                self.write(&file, content, *template)
            }
            Plugin::Shell { script } => self.shell(script),
            Plugin::Hostname { name } => {
                let rendered = self.system.render_hostname(name, Some(&self.env.cancel));
                self.env.check_cancelled()?;
                let name = rendered.map_err(|(_, why)| Error::user(why))?;
                config::hostname(root, &name)
            }
            Plugin::Users { users } => self.users(users),
            Plugin::AuthorizedKeys { user, keys } => fetch::authorize(self, user, keys),
            Plugin::Timesyncd { entries } => config::timesyncd(root, entries),
            Plugin::Systemctl { verb, unit } => self.systemctl(verb.verb(), unit),
            Plugin::Environment { path, entries } => {
                let mut rendered = std::collections::BTreeMap::new();
                for (name, value) in entries {
                    rendered.insert(name.clone(), self.render(value)?);
                }
                config::environment(root, path, &rendered)
            }
            Plugin::SystemdFirstboot { arguments } => {
                self.shell_verbatim(&format!("systemd-firstboot {}", arguments.join(" ")))
            }
            Plugin::PackagePins { pins } => packages::pin(self, root, pins),
            Plugin::InstallPackages {
                refresh,
                upgrade,
                install,
                remove,
            } => packages::apply(
                self,
                packages::Wanted {
                    refresh: *refresh,
                    upgrade: *upgrade,
                    install,
                    remove,
                },
            ),
            Plugin::UnpackImage {
                source,
                target,
                platform,
            } => image::unpack(self, source, target, platform.as_deref()),
        }
    }

    fn write(&self, file: &tree::NewFile<'_>, content: &Content, template: bool) -> Result<()> {
        if tree::is_unusable(file.path) {
            return Err(Error::user(format!("{:?} names no file", file.path)));
        }
        let root = &self.target.root;
        match std::str::from_utf8(&content.0) {
            Ok(text) if template => tree::file(root, file, self.render(text)?.as_bytes()),
            _ => tree::file(root, file, &content.0),
        }
    }

    fn entity(&self, text: &str) -> Result<Entity> {
        Entity::parse(&self.render(text)?).map_err(Error::user)
    }

    /// Makes accounts, and then lets their keys in; an account whose keys cannot be had is made all the same.
    fn users(&self, users: &std::collections::BTreeMap<String, UserAccount>) -> Result<()> {
        users::apply(&self.target.root, users, self.moment())?;
        for (name, account) in users.iter().filter(|(_, account)| !account.keys.is_empty()) {
            if let Err(error) = fetch::authorize(self, name, &account.keys) {
                if error.kind() == Kind::Interrupted {
                    return Err(error);
                }
                self.warn(&format!("{name} got no SSH keys: {error}"));
            }
        }
        Ok(())
    }

    fn systemctl(&self, verb: &str, unit: &str) -> Result<()> {
        // The shell splits it into words, as the dialect has it.
        let env = vec![("SYSTEMD_OFFLINE".into(), "1".into())];
        let options = CommandOptions {
            env,
            ..CommandOptions::default()
        };
        self.run_shell(&format!("systemctl {verb} {unit}"), options)
            .map(drop)
    }

    /// Renders and runs a text of an extension.
    fn shell(&self, script: &str) -> Result<()> {
        self.shell_verbatim(&self.render(script)?)
    }

    fn shell_verbatim(&self, script: &str) -> Result<()> {
        self.run_shell(script, CommandOptions::default()).map(drop)
    }

    /// Returns whether a text ends with status 0.
    fn succeeds(&self, script: &str) -> Result<bool> {
        let answer = self.try_shell(script, CommandOptions::default())?;
        Ok(answer.is_some())
    }

    /// Returns what a text prints; `None` where it fails.
    fn output(&self, script: &str) -> Result<Option<String>> {
        let options = CommandOptions {
            answers: true,
            ..CommandOptions::default()
        };
        self.try_shell(script, options)
    }

    fn try_shell(&self, script: &str, options: CommandOptions) -> Result<Option<String>> {
        match self.run_shell(script, options) {
            Ok(printed) => Ok(Some(printed)),
            Err(error) if error.kind() == Kind::Step => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn run_shell(&self, script: &str, mut options: CommandOptions) -> Result<String> {
        let variable = ("DEBIAN_FRONTEND".into(), "noninteractive".into());
        options.env.push(variable);
        options.network = true;
        options.mounts = self.own_tmp()?;
        let result = self
            .env
            .command(self.target, self.step, &["sh", "-c", script], options)?;
        Ok(result.printed)
    }

    /// Shows commands the image's own /tmp: what `files` put there for them, and one leaves for the next.
    fn own_tmp(&self) -> Result<Vec<Mount>> {
        if self.env.runner == Runner::Plain {
            // They run in the tree itself.
            return Ok(Vec::new());
        }
        let root = &self.target.root;
        let is_dir = root
            .metadata_opt("/tmp")?
            .is_some_and(|found| found.is_dir());
        let Some(inside) = root.resolve("/tmp")?.filter(|_| is_dir) else {
            return Ok(Vec::new());
        };
        Ok(vec![Mount::Bind {
            // Resolved within the root, so that joining it cannot lead out.
            source: self.target.path.join(inside),
            target: "/tmp".into(),
            read_only: false,
        }])
    }
}

/// Says why a condition on files and names does not hold.
fn unmet_by(
    system: &System,
    root: &kfactory_layers::root::Root,
    condition: &Condition,
) -> Result<Option<String>> {
    let pattern = |pattern: &str, value: &str, what: &str| match value {
        "" => Some(format!("the image says nothing of its {what}")),
        value if yip::matches(pattern, value) => None,
        value => Some(format!("`{pattern}` does not match the {what} {value:?}")),
    };
    Ok(match condition {
        Condition::Shell { .. } => None,
        Condition::Os { pattern: wanted } => pattern(wanted, &system.name, "OS name"),
        Condition::OsVersion { pattern: wanted } => pattern(wanted, &system.version, "OS version"),
        Condition::Arch { pattern: wanted } => {
            pattern(wanted, &system.architecture, "architecture")
        }
        Condition::ServiceManager { name } => {
            match (name.as_str(), system.has_systemd, system.has_openrc) {
                (_, true, true) => Some("the image has both systemd and openrc".to_owned()),
                ("systemd", true, false) | ("openrc", false, true) => None,
                ("systemd" | "openrc", _, _) => Some(format!("the image does not have {name}")),
                _ => Some(format!("the service manager {name} is not supported")),
            }
        }
        Condition::Files { checks } => unmet_files(root, checks)?,
    })
}

fn unmet_files(
    root: &kfactory_layers::root::Root,
    checks: &std::collections::BTreeMap<String, Vec<String>>,
) -> Result<Option<String>> {
    if checks.values().any(Vec::is_empty) {
        return Ok(None);
    }
    for (kind, paths) in checks {
        let mut present = Vec::new();
        for path in paths {
            present.push(root.exists(path)?);
        }
        let first = |wanted: bool| {
            paths
                .iter()
                .zip(&present)
                .find(|(_, there)| **there == wanted)
                .map(|(path, _)| path)
        };
        let why = match kind.as_str() {
            "all" => first(false).map(|path| format!("{path} does not exist")),
            "none" => first(true).map(|path| format!("{path} exists")),
            _ if first(true).is_none() => Some(format!("none of {} exists", paths.join(", "))),
            _ => None,
        };
        if why.is_some() {
            return Ok(why);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
