//! Carries out the actions of a step on a mounted tree.
//!
//! File actions go through [`Root`], a directory handle that cannot be left. Only commands run in the sandbox.

mod apt;
mod apt_sources;
mod aside;
mod cpio;
mod cpio_twins;
mod download;
mod files;
mod fips;
mod firmware;
mod gzip;
mod harmless;
mod initrd;
mod kernel;
mod kernel_file;
mod keys;
mod kubernetes;
mod nvdimm;
mod packages;
mod plugins;
mod run;
mod savings;
mod services;
mod ssh;
mod tidy;
mod uki;
mod unpacked;
mod yip;

pub use apt::Session as PackageSession;
pub use packages::Session as RepositorySession;
pub use plugins::{Plugins, plugins_of};
pub use tidy::{normalize, prune};

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kfactory_layers::root::Root;
use kfactory_sandbox::spec::{self, Mount, SandboxSpec};
use kfactory_sandbox::{CancelToken, LaunchError, Outcome, Status, Stream, launch};

use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::Framework;
use crate::plan::Facts;
use crate::progress::Reporter;
use crate::provider::{Configs, Program};
use crate::request::{Network, Request};
use crate::secret::Secret;
use crate::step::{Action, Hook, Step};

/// The search path that every command gets, whatever the base image says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command line longer than this is cut in errors: eighty package names say nothing that the output does not say better.
const COMMAND_BYTES: usize = 160;

/// Of a failed command's captured output this much stands in its error.
const CAPTURED_LINES: usize = 10;
const CAPTURED_LINE_BYTES: usize = 400;

/// How the commands of a run are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runner {
    /// Each in a sandbox of its own.
    #[default]
    Sandbox,
    /// As children of this process, in its own root filesystem; see [`launch::run_plain`] for what mounts are there. For container
    /// builds, where no sandbox can be made. A network cannot be kept from them.
    Plain,
}

impl Runner {
    fn run(
        self,
        spec: &SandboxSpec,
        cancel: &CancelToken,
        on_line: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, LaunchError> {
        match self {
            Self::Sandbox => launch::run_with(spec, cancel, on_line),
            Self::Plain => launch::run_plain(spec, cancel, on_line),
        }
    }
}

/// What every step of a run shares.
pub struct Environment<'a> {
    /// The request.
    pub request: &'a Request,
    /// What is known of the base.
    pub facts: &'a Facts,
    /// How commands are run.
    pub runner: Runner,
    /// Variables of the base image's config, `NAME=VALUE`.
    pub image_env: Vec<String>,
    /// The Kairos binaries, resolved when first needed.
    pub framework: &'a (dyn Fn() -> Result<Framework> + Sync),
    /// Gets an image for a platform, the build's own where none is named, and returns its flattened tree.
    pub images: &'a (dyn Fn(&str, Option<&str>) -> Result<PathBuf> + Sync),
    /// The programs of Kubernetes distributions, fetched when first needed.
    pub programs: &'a (dyn Fn() -> Result<Vec<Program>> + Sync),
    /// Configuration files for providers.
    pub configs: &'a Configs,
    /// The package cache's directory, shared between runs of all bases of a release: no command may write to it.
    pub package_cache: PathBuf,
    /// What commands of this base write and later runs of the same base read.
    pub base_cache: PathBuf,
    /// A scratch directory of this run, outside every layer.
    pub scratch: PathBuf,
    /// The highest modification time that new files may have, in seconds since 1970; `None`: as they come.
    pub clamp_mtime: Option<i64>,
    /// The moment the run is dated with, in seconds since 1970.
    pub created: i64,
    /// Names that later steps install, to be fetched ahead.
    pub later_packages: Vec<String>,
    /// What the package steps share.
    pub packages: PackageSession,
    /// What steps found out since it was last [taken](Self::take_findings).
    pub findings: std::sync::Mutex<Vec<String>>,
    /// What the package steps share where the manager is not apt.
    pub repositories: RepositorySession,
    /// Cores to use for compression, transfers at a time.
    pub jobs: usize,
    /// Shows what happens.
    pub reporter: &'a Arc<Reporter>,
    /// Set when the user stops the run.
    pub cancel: CancelToken,
}

/// Writes a command for an error: whole where it fits on two lines, else with its first words and how many are left out.
fn shown(argv: &[&str]) -> String {
    let whole = argv.join(" ");
    if whole.len() <= COMMAND_BYTES {
        return whole;
    }
    let mut text = String::new();
    for (index, word) in argv.iter().enumerate() {
        if text.len() + word.len() > COMMAND_BYTES {
            return format!("{text}... ({} more words)", argv.len() - index);
        }
        text.push_str(word);
        text.push(' ');
    }
    text
}

/// Says why a command did not run to its end; where it was the command's own doing, with what it printed.
fn launch_error(error: &LaunchError, secrets: &[Hidden]) -> Error {
    let shown = Error::from_source(error).hints(error.hints());
    match error {
        LaunchError::TimedOut { tail, .. } => {
            let tail = tail.iter().cloned();
            let tail = tail.map(|line| Hidden::mask(secrets, line)).collect();
            shown.kind_is(Kind::Step).output(tail)
        }
        LaunchError::TooMuchOutput { .. } => shown.kind_is(Kind::Step),
        _ => shown,
    }
}

/// Returns the last lines of a captured output, fit to print.
fn tail_of(stdout: &[u8]) -> Vec<String> {
    let lines: Vec<&[u8]> = stdout.split(|byte| *byte == b'\n').collect();
    let last = &lines[lines.len().saturating_sub(CAPTURED_LINES)..];
    last.iter()
        .filter(|line| !line.is_empty())
        .map(|line| kfactory_sandbox::printable(&line[..line.len().min(CAPTURED_LINE_BYTES)]))
        .collect()
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The image's variables may hold secrets, and the rest says little.
        f.debug_struct("Environment")
            .field("facts", &self.facts)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

/// A tree that steps may change.
#[derive(Debug)]
pub struct Target<'a> {
    /// The tree, for file actions.
    pub root: Root,
    /// The same tree's path, for the sandbox.
    pub path: &'a Path,
    /// What the tree stood on when its layer began, topmost first; nothing where it is changed in place.
    pub lowers: &'a [PathBuf],
    /// Where in the tree something else is mounted: a file or directory of somebody else's, of which nothing is removed.
    pub mounts: &'a [PathBuf],
}

impl Target<'_> {
    /// Tells whether something is mounted at `path`, above it (the tree itself aside) or below it.
    pub fn is_mounted(&self, path: &Path) -> bool {
        self.mounts
            .iter()
            .any(|mount| mount.starts_with(path) || path.starts_with(mount))
    }
}

/// How a command runs.
#[derive(Debug, Default)]
pub(crate) struct CommandOptions {
    /// Whether it asks for a network.
    pub(crate) network: bool,
    /// Mounts beside the usual ones.
    pub(crate) mounts: Vec<Mount>,
    /// Variables beside the usual ones.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Names of the secrets it may read; those that were not given are left out.
    pub(crate) secrets: Vec<String>,
    /// Whether a status other than 0 is an answer rather than an error.
    pub(crate) any_status: bool,
    /// Whether what it prints is an answer that whoever asked reads, and nobody else needs to.
    pub(crate) quiet: bool,
    /// Whether it asks for clones of many files.
    pub(crate) clones: bool,
    /// What it reads.
    pub(crate) stdin: spec::Stdin,
    /// What becomes of its standard output.
    pub(crate) stdout: spec::Stdout,
    /// The longest it may take.
    pub(crate) time_limit: Option<Duration>,
}

/// A secret, while a command may read it.
struct Hidden {
    id: String,
    content: HiddenContent,
}

enum HiddenContent {
    Value(Vec<u8>),
    Directory(PathBuf),
}

impl Hidden {
    fn read(secret: Secret) -> Result<Self> {
        let content = match secret.directory()? {
            Some(path) => HiddenContent::Directory(path),
            None => HiddenContent::Value(secret.read()?),
        };
        Ok(Self {
            id: secret.id,
            content,
        })
    }

    fn mount(&self) -> Mount {
        let target = Secret::target(&self.id).into();
        match &self.content {
            HiddenContent::Value(value) => Mount::File {
                target,
                content: value.clone(),
                mode: 0o400,
            },
            HiddenContent::Directory(path) => Mount::Bind {
                source: path.clone(),
                target,
                read_only: true,
            },
        }
    }

    /// Takes every secret's value out of a line that a command printed.
    fn mask(secrets: &[Self], line: String) -> String {
        secrets.iter().fold(line, |line, secret| {
            let text = match &secret.content {
                HiddenContent::Value(value) => std::str::from_utf8(value).ok(),
                HiddenContent::Directory(_) => None,
            };
            text.map_or_else(|| line.clone(), |text| line.replace(text, "[secret]"))
        })
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct CommandResult {
    /// Every line it printed, on both streams.
    pub(crate) lines: Vec<String>,
    /// Its standard output, where that was captured.
    pub(crate) stdout: Vec<u8>,
}

/// Runs one step on `target`.
///
/// # Errors
///
/// The first action that fails; the actions after it are not tried. A failed command carries the last lines it printed.
pub fn run_step(
    env: &Environment<'_>,
    target: &Target<'_>,
    layer: &str,
    step: &Step,
) -> Result<()> {
    let name = step.label();
    env.reporter.step_started(layer, name);
    let start = Instant::now();
    let place = step.place();
    if let Some(extension) = &step.extension
        && let Some(why) = yip::unmet(env, target, extension).map_err(|error| {
            error.context(format!("cannot tell whether step `{name}`{place} runs"))
        })?
    {
        env.reporter
            .note(&format!("step `{name}` is passed over: {why}"));
        return Ok(());
    }
    for action in &step.actions {
        env.check_cancelled()?;
        run_action(env, target, name, action).map_err(|error| match error.kind() {
            Kind::Interrupted => Error::new(
                Kind::Interrupted,
                format!("stopped during step `{name}`; nothing was published"),
            ),
            _ => error.context(format!("cannot finish step `{name}`{place}")),
        })?;
    }
    if let Some(extension) = &step.extension
        && extension.stage == Hook::BeforeInstall
    {
        // It may have added a repository, which the base packages are to come from as well.
        env.packages.sources_changed();
    }
    env.reporter.step_done(name, start.elapsed());
    Ok(())
}

fn run_action(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    action: &Action,
) -> Result<()> {
    let root = &target.root;
    match action {
        Action::Directory { path, mode } => files::directory(root, path, *mode),
        Action::File {
            path,
            mode,
            content,
        } => files::file(root, path, *mode, content.as_bytes()),
        Action::Link {
            path,
            target,
            if_exists,
            unless_exists,
        } => files::link(
            root,
            path,
            target,
            if_exists.as_deref(),
            unless_exists.as_deref(),
        ),
        Action::Remove { paths } => files::remove_all(target, paths),
        Action::Truncate { path } => files::truncate(root, path),
        Action::Permissions { path, mode } => files::permissions(root, path, *mode, env.reporter),
        Action::Release { entries } => files::release(root, entries),
        Action::Packages { upgrade, install } => {
            packages::install(env, target, step, *upgrade, install)
        }
        Action::Prerequisites {
            install,
            url,
            replace,
        } => packages::prerequisites(env, target, step, install, url.as_deref(), *replace),
        Action::ImportKeys => packages::import_keys(env, target, step),
        Action::EnableRepository { id } => packages::enable_repository(env, root, id),
        Action::RemovePackages { names } => packages::remove(env, target, step, names),
        Action::Move { from, to } => files::rename(root, from, to),
        Action::ListsChanged => {
            env.packages.sources_changed();
            Ok(())
        }
        Action::RepositoryKey { url, path } => keys::fetch(env, root, url, path),
        Action::Require { path, remedy } => files::require(root, path, remedy),
        Action::NvdimmModules => nvdimm::install(env, target, step),
        Action::MeasureUki => uki::measure(env, root),
        Action::ProveFips => fips::prove(env, root),
        Action::ReportSavings { savings } => savings::report(env, target, step, savings),
        Action::KernelFile { file } => kernel_file::install(env, target, step, file),
        Action::AptComponent { component } => apt_sources::enable(env, root, component),
        Action::KeepFirmware { patterns } => firmware::keep(env, root, patterns),
        Action::Run {
            argv,
            network,
            secrets,
            if_exists,
            may_fail,
        } => run::command(
            env,
            target,
            step,
            &run::Wanted {
                argv,
                network: *network,
                secrets,
                if_exists: if_exists.as_deref(),
                may_fail: *may_fail,
            },
        ),
        Action::Framework {
            name,
            path,
            required,
            unless_exists,
        } => files::framework(env, root, name, path, *required, unless_exists),
        Action::Kubernetes {
            distribution,
            version,
            config,
        } => kubernetes::install(env, root, distribution, version, *config),
        Action::ProviderInstall {
            provider,
            version,
            config,
        } => plugins::install(
            env,
            target,
            step,
            &plugins::Wanted {
                provider,
                version,
                config: *config,
            },
        ),
        Action::ProviderInfo { providers } => plugins::info(env, target, step, providers),
        Action::LinkKernel => kernel::link(env, root),
        Action::InitramfsConfig => initrd::configure(env, root),
        Action::Initrd { tool } => initrd::build(env, target, step, *tool),
        Action::Services {
            unmask,
            enable,
            optional,
            disable,
            mask,
        } => {
            let units = services::Units {
                unmask,
                enable,
                optional,
                disable,
                mask,
            };
            services::apply(env, target, step, &units)
        }
        Action::Runlevel { level, services } => services::add(env, root, level, services),
        Action::SshHardening => ssh::harden(env, target, step),
        Action::CleanPackageCache { paths } => files::remove_all(target, paths),
        Action::Plugin(plugin) => yip::run(env, target, step, plugin),
    }
}

impl Environment<'_> {
    /// Says something that is true of the layer, and therefore said again when it comes from the cache.
    fn finding(&self, text: String) {
        self.reporter.note(&text);
        self.findings
            .lock()
            .expect("no panic while held")
            .push(text);
    }

    /// Returns what steps found out, and forgets it.
    pub fn take_findings(&self) -> Vec<String> {
        std::mem::take(&mut self.findings.lock().expect("no panic while held"))
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(Error::new(Kind::Interrupted, "stopped by the user"))
        } else {
            Ok(())
        }
    }

    /// Returns the configuration file that was given for `provider`.
    fn config(&self, provider: &str) -> Result<&[u8]> {
        let content = self.configs.get(provider).map(Vec::as_slice);
        content
            .ok_or_else(|| Error::internal(format!("the configuration of {provider} was not read")))
    }

    /// Shows a line that a command of `step` printed, with the reason where it sounds like a failure and is none.
    fn show(&self, step: &str, line: &str) {
        match harmless::why(line) {
            Some(why) => self
                .reporter
                .step_output(step, &format!("{line}  [harmless: {why}]")),
            None => self.reporter.step_output(step, line),
        }
    }

    /// Returns whether steps may have a network at all.
    fn has_network(&self) -> bool {
        self.request.network == Network::Host
    }

    /// Runs one command in the sandbox, passing its output on line by line.
    ///
    /// # Errors
    ///
    /// The sandbox cannot be made, the run is stopped, or (unless `any_status`) the command ends with another status than 0.
    pub(crate) fn command(
        &self,
        target: &Target<'_>,
        step: &str,
        argv: &[&str],
        options: CommandOptions,
    ) -> Result<CommandResult> {
        let secrets = self.secrets(&options)?;
        let mut spec = self.sandbox_spec(target, argv, &options)?;
        spec.mounts.extend(secrets.iter().map(Hidden::mount));
        let start = Instant::now();
        let mut lines = Vec::new();
        let quiet = options.quiet;
        let outcome = self.runner.run(&spec, &self.cancel, &mut |_, line| {
            let line = Hidden::mask(&secrets, kfactory_sandbox::printable(line));
            if !quiet {
                self.show(step, &line);
            }
            lines.push(line);
        });
        // A stopped command is no failure of the sandbox: what the user did comes first.
        self.check_cancelled()?;
        let outcome = outcome.map_err(|error| {
            launch_error(&error, &secrets).context(format!("running `{}`", shown(argv)))
        })?;
        self.reporter
            .command_done(step, &argv.join(" "), start.elapsed());
        match outcome.status {
            Status::Exit(code) if code == 0 || options.any_status => Ok(CommandResult {
                lines,
                stdout: outcome.stdout,
            }),
            status => {
                let tail = outcome.tail.into_iter().chain(tail_of(&outcome.stdout));
                let tail = tail.map(|line| Hidden::mask(&secrets, line)).collect();
                Err(Error::new(Kind::Step, format!("`{}` {status}", shown(argv))).output(tail))
            }
        }
    }

    /// Returns the values of the secrets that a command asks for.
    fn secrets(&self, options: &CommandOptions) -> Result<Vec<Hidden>> {
        let mut found = Vec::new();
        for id in &options.secrets {
            if let Some(secret) = self.request.secret(id)? {
                found.push(Hidden::read(secret)?);
            }
        }
        Ok(found)
    }

    fn sandbox_spec(
        &self,
        target: &Target<'_>,
        argv: &[&str],
        options: &CommandOptions,
    ) -> Result<SandboxSpec> {
        let network = options.network && self.has_network();
        let var_tmp = self.scratch.join("var-tmp");
        std::fs::create_dir_all(&var_tmp).context(|| format!("creating {}", var_tmp.display()))?;
        let mut spec = SandboxSpec::new(target.path, argv.iter().map(OsString::from));
        spec.env = self.variables(options);
        spec.clones = options.clones;
        spec.stdin = options.stdin.clone();
        spec.stdout = options.stdout;
        spec.time_limit = options.time_limit;
        spec.network = if network {
            spec::Network::Host
        } else {
            spec::Network::None
        };
        // Left-overs in /var/tmp would end in the layer.
        spec.mounts.push(Mount::Bind {
            source: var_tmp,
            target: "/var/tmp".into(),
            read_only: false,
        });
        // Without a network too: package scripts make these files where they are missing, and `--network` must not decide whether
        // the image has them.
        if options.network {
            for name in ["/etc/resolv.conf", "/etc/hosts"] {
                if let Ok(content) = std::fs::read(name) {
                    spec.mounts.push(Mount::File {
                        target: name.into(),
                        content,
                        mode: 0o644,
                    });
                }
            }
        }
        spec.mounts.extend(options.mounts.iter().cloned());
        Ok(spec)
    }

    fn variables(&self, options: &CommandOptions) -> Vec<(OsString, OsString)> {
        let mut out: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), PATH.into()),
            ("HOME".into(), "/root".into()),
            ("TERM".into(), "dumb".into()),
            ("LC_ALL".into(), "C.UTF-8".into()),
        ];
        let mut set = |name: OsString, value: OsString| {
            out.retain(|(known, _)| *known != name);
            out.push((name, value));
        };
        for variable in &self.image_env {
            if let Some((name, value)) =
                variable.split_once('=').filter(|(name, _)| *name != "PATH")
            {
                set(name.into(), value.into());
            }
        }
        if let Some(clamp) = self.clamp_mtime {
            set("SOURCE_DATE_EPOCH".into(), clamp.to_string().into());
        }
        if options.network {
            for name in [
                "http_proxy",
                "https_proxy",
                "no_proxy",
                "HTTP_PROXY",
                "HTTPS_PROXY",
                "NO_PROXY",
            ] {
                if let Some(value) = std::env::var_os(name) {
                    set(name.into(), value);
                }
            }
        }
        for (name, value) in &options.env {
            set(name.clone(), value.clone());
        }
        out
    }
}
