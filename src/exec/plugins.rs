//! Runs the provider plugins of the image: each gets every event, in the sandbox, and has a time to answer in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::time::{Duration, Instant};

use kfactory_layers::metadata::{FileKind, Metadata};
use kfactory_layers::root::{Root, RootError};
use kfactory_sandbox::spec::{Mount, Stdin, Stdout};
use rustix::io::Errno;

use super::{CommandOptions, Environment, PATH, Target, files, kubernetes};
use crate::error::{Error, Kind, Result};
use crate::provider::bus::{
    self, ClaimError, Event, Installed, MAX_ANSWER_BYTES, Payload, Plugin, Plugins, Reply,
};
use crate::request::PLUGIN_SECS;
use crate::tree::Tree;

/// Where plugins are looked for beside the search path of commands. The last is the working directory.
const DIRS: &[&str] = &["/system/providers", "/usr/local/system/providers", "/"];
/// Where a plugin finds data that is too long for its input, and configuration files: in memory, so in no layer.
const RUN_DIR: &str = "/run/kairos-provider";

/// What is to be installed.
pub(super) struct Wanted<'a> {
    pub(super) provider: &'a str,
    pub(super) version: &'a str,
    pub(super) config: bool,
}

/// Asks every plugin to install a provider; exactly one must do it.
pub(super) fn install(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let (config, mounts) = config(env, wanted)?;
    let event = Event::install(&Payload {
        provider: wanted.provider.to_owned(),
        version: wanted.version.to_owned(),
        log_level: "info".to_owned(),
        config,
        family: env.facts.distro.family.as_str().to_owned(),
    });
    let mut replies = Vec::new();
    for plugin in find(env, &target.root)? {
        let reply = ask(env, target, step, &plugin, &event, mounts.clone())?;
        if let Reply::Done { log, .. } = &reply {
            for line in log.lines() {
                env.reporter
                    .step_output(step, &kfactory_sandbox::printable(line.as_bytes()));
            }
        }
        replies.push((plugin, reply));
    }
    let plugin =
        bus::claimed_by(&replies).map_err(|error| not_installed(wanted.provider, &error))?;
    env.reporter.note(&format!(
        "provider `{}` was installed by {}",
        wanted.provider, plugin.path
    ));
    Ok(())
}

/// Returns the path of the configuration file as the plugin sees it, and the mount that puts it there.
fn config(env: &Environment<'_>, wanted: &Wanted<'_>) -> Result<(String, Vec<Mount>)> {
    if !wanted.config {
        return Ok((String::new(), Vec::new()));
    }
    let path = format!("{RUN_DIR}/{}.config", wanted.provider);
    let mount = Mount::File {
        target: path.clone().into(),
        content: env.config(wanted.provider)?.to_owned(),
        mode: 0o400,
    };
    Ok((path, vec![mount]))
}

fn not_installed(provider: &str, error: &ClaimError) -> Error {
    let error_shown =
        Error::from_source(error).context(format!("nobody installed provider `{provider}`"));
    match error {
        ClaimError::ClaimedTwice(_) => Error::from_source(error)
            .context(format!(
                "provider `{provider}` was installed more than once"
            ))
            .hint("remove all but one of these plugins from the base"),
        _ if crate::provider::Distribution::find(provider).is_some() => error_shown
            .hint("`--provider-source native` installs it from its release, without a plugin"),
        _ => error_shown
            .hint(format!(
                "put an executable `{}{provider}` into /system/providers of the base",
                bus::PREFIX
            ))
            .hint("`k3s` and `k0s` need no plugin: is the name right?"),
    }
}

/// Finds out which provider the image holds and writes it into the release file.
///
/// The plugins are asked first, and the last one that knows wins; then the programs themselves. A plugin that fails is no error: the
/// image is what it is.
pub(super) fn info(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    providers: &[String],
) -> Result<()> {
    let mut found = None;
    for plugin in find(env, &target.root)? {
        match installed(env, target, step, &plugin) {
            Ok(Some(installed)) => found = Some(installed),
            Ok(None) => {}
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => env.reporter.warn(&error.to_string()),
        }
    }
    let found = match found {
        Some(found) => Some(found),
        None => kubernetes::installed(env, target, step)?,
    };
    let Some(Installed { provider, version }) = found else {
        env.reporter.warn(&format!(
            "nothing in the image tells the version of provider {}: /etc/kairos-release has no KAIROS_SOFTWARE_VERSION",
            providers.join(", ")
        ));
        return Ok(());
    };
    let entries = BTreeMap::from([
        ("KAIROS_SOFTWARE_VERSION".to_owned(), version),
        ("KAIROS_SOFTWARE_VERSION_PREFIX".to_owned(), provider),
    ]);
    files::release(&target.root, &entries)
}

fn installed(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    plugin: &Plugin,
) -> Result<Option<Installed>> {
    match ask(env, target, step, plugin, &Event::info(), Vec::new())? {
        Reply::Done { data, .. } => {
            bus::read_info(&data).map_err(|error| bad_answer(plugin, &error))
        }
        Reply::NotApplicable => Ok(None),
    }
}

fn bad_answer(plugin: &Plugin, error: &bus::AnswerError) -> Error {
    let said = error.said().iter();
    Error::from_source(error)
        .context(format!("provider plugin {} failed", plugin.path))
        .kind_is(Kind::Step)
        .output(
            said.map(|line| kfactory_sandbox::printable(line.as_bytes()))
                .collect(),
        )
}

/// Gives `event` to one plugin and returns its reply.
fn ask(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    plugin: &Plugin,
    event: &Event,
    mut mounts: Vec<Mount>,
) -> Result<Reply> {
    let file = format!("{RUN_DIR}/event.json");
    let message = event.message(&file);
    mounts.extend(message.file.map(|content| Mount::File {
        target: file.into(),
        content,
        mode: 0o400,
    }));
    let seconds = env.request.provider_timeout.unwrap_or(PLUGIN_SECS);
    let limit = Duration::from_secs(seconds);
    let options = CommandOptions {
        // Plugins are free to download what they install; what is installed they can tell without.
        network: *event != Event::info(),
        mounts,
        stdin: Stdin::Bytes(message.stdin),
        stdout: Stdout::Captured {
            limit_bytes: MAX_ANSWER_BYTES,
        },
        time_limit: Some(limit),
        ..CommandOptions::default()
    };
    let start = Instant::now();
    let ran = env
        .command(target, step, &[&plugin.path, event.name], options)
        .map_err(|error| match error.kind() {
            Kind::Interrupted => error,
            _ if start.elapsed() >= limit => error
                .context(format!("provider plugin {} gave no answer", plugin.path))
                .hint("`--provider-timeout SECONDS` gives plugins another time"),
            _ => error.context(format!("provider plugin {} failed", plugin.path)),
        })?;
    bus::read_answer(&ran.stdout).map_err(|error| bad_answer(plugin, &error))
}

/// Looks for provider plugins in the image at `root`.
///
/// # Errors
///
/// A directory cannot be read.
pub fn plugins_of(root: &Root) -> Result<Plugins> {
    let names = |dir: &str| {
        let found = found(root, dir)?;
        if found.is_none_or(|it| it.kind != FileKind::Directory) {
            return Ok(Vec::new());
        }
        let entries = root.read_dir(dir)?.into_iter();
        Ok(entries.map(|entry| entry.name).collect())
    };
    let is_program = |path: &str| {
        let found = found(root, path)?;
        Ok(found.is_some_and(|it| it.kind == FileKind::File && it.mode & 0o111 != 0))
    };
    look(&names, &is_program)
}

/// Returns what `path` leads to; nothing where it is a link in a circle, as where it leads nowhere.
fn found(root: &Root, path: &str) -> Result<Option<Metadata>> {
    let is_circle = |source: &io::Error| source.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    match root.metadata_opt(path) {
        Err(RootError::Io { source, .. }) if is_circle(&source) => Ok(None),
        found => Ok(found?),
    }
}

/// As [`plugins_of`], in a tree that is not unpacked.
pub fn plugins_in(tree: &Tree) -> Plugins {
    let names = |dir: &str| Ok(tree.names(dir).map(|(name, _)| name.to_owned()).collect());
    let found = look(&names, &|path| Ok(tree.has_executable(path)));
    found.expect("a tree in memory is read without an error")
}

/// Looks through the directories of plugins; `names` returns what one holds, `is_program` whether a path can be executed.
fn look(
    names: &dyn Fn(&str) -> Result<Vec<OsString>>,
    is_program: &dyn Fn(&str) -> Result<bool>,
) -> Result<Plugins> {
    let mut plugins = Plugins::default();
    for dir in PATH.split(':').chain(DIRS.iter().copied()) {
        let files = names(dir)?.into_iter();
        let mut files: Vec<String> = files.filter_map(|name| name.into_string().ok()).collect();
        files.sort();
        for file in files {
            let Some(name) = file
                .strip_prefix(bus::PREFIX)
                .filter(|name| !name.is_empty())
            else {
                continue;
            };
            let path = format!("{}/{file}", dir.trim_end_matches('/'));
            if plugins.found.iter().any(|known| known.name == name) {
                continue;
            }
            if is_program(&path)? {
                let name = name.to_owned();
                plugins.found.push(Plugin { name, path });
            } else {
                plugins.not_executable.push(path);
            }
        }
    }
    Ok(plugins)
}

/// Returns the plugins of the image, and says which files are none.
fn find(env: &Environment<'_>, root: &Root) -> Result<Vec<Plugin>> {
    let plugins = plugins_of(root)?;
    for path in plugins.not_executable {
        env.reporter.warn(&format!(
            "{path} is no executable file: it is not used as a provider plugin"
        ));
    }
    Ok(plugins.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_a_circle_is_no_plugin_and_no_end_of_the_search() {
        let dir = tempfile::tempdir().unwrap();
        let providers = dir.path().join("system/providers");
        std::fs::create_dir_all(&providers).unwrap();
        let circle = "agent-provider-circle";
        std::os::unix::fs::symlink(circle, providers.join(circle)).unwrap();
        std::os::unix::fs::symlink("local", dir.path().join("usr")).unwrap();
        std::os::unix::fs::symlink("usr", dir.path().join("local")).unwrap();
        let plugins = plugins_of(&Root::open(dir.path()).unwrap()).unwrap();
        assert_eq!(
            plugins.not_executable,
            ["/system/providers/agent-provider-circle"]
        );
    }
}
