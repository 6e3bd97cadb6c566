//! Runs one command on a tree, in the sandbox or, in a container build, beside it.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use kfactory_sandbox::spec::{self, Mount, SandboxSpec};
use kfactory_sandbox::{CancelToken, LaunchError, Outcome, Status, Stream, launch};

use super::hidden::Hidden;
use super::{Environment, Target, interpreter};
use crate::error::{Context as _, Error, Kind, Result};

/// The search path that every command gets, whatever the base image says.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What this process passes on to whatever asks for a network.
pub(super) const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A command line longer than this is cut in errors: eighty package names say nothing that the output does not say better.
const COMMAND_BYTES: usize = 160;

/// Of a failed command's captured output this much stands in its error.
const CAPTURED_LINES: usize = 10;
const CAPTURED_LINE_BYTES: usize = 400;

/// The most that a command may print where somebody reads it; lists of all packages of a distribution have some megabytes.
const MAX_PRINTED_BYTES: usize = 64 << 20;

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
    /// Whether whoever runs it reads what it prints; of anything else only the last lines are kept.
    pub(crate) answers: bool,
    /// Whether it asks for clones of many files.
    pub(crate) clones: bool,
    /// What it reads.
    pub(crate) stdin: spec::Stdin,
    /// What becomes of its standard output.
    pub(crate) stdout: spec::Stdout,
    /// The longest it may take.
    pub(crate) time_limit: Option<Duration>,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct CommandResult {
    /// What it printed on both streams, fit to print, where it was asked for.
    pub(crate) printed: String,
    /// Its standard output, where that was captured.
    pub(crate) stdout: Vec<u8>,
}

/// Returns what every command gets, and what the base image adds to it.
///
/// The search path and the language are not the base's: sorted lists, and which lines are known to be harmless, depend on them.
/// Nor is how Python hashes strings, at random where nothing is said: before 3.11 the byte code that packages compile has sets of
/// constants in the order of their hashes.
fn base_variables(image_env: &[String]) -> Vec<(OsString, OsString)> {
    let ours = [
        ("PATH", PATH),
        ("LANG", "C"),
        ("LC_CTYPE", "C.UTF-8"),
        ("PYTHONHASHSEED", "0"),
    ];
    let defaults = [("HOME", "/root"), ("TERM", "dumb")];
    let of_base = image_env.iter().filter_map(|it| it.split_once('='));
    let mut out = Vec::new();
    for (name, value) in defaults.into_iter().chain(of_base).chain(ours) {
        set(&mut out, name.into(), value.into());
    }
    out
}

/// Sets a variable, in place of one of the same name.
fn set(variables: &mut Vec<(OsString, OsString)>, name: OsString, value: OsString) {
    variables.retain(|(known, _)| *known != name);
    variables.push((name, value));
}

impl Environment<'_> {
    /// Runs one command in the sandbox, passing its output on line by line.
    ///
    /// # Errors
    ///
    /// The sandbox cannot be made, the run is stopped, an answer has no end, or (unless `any_status`) the command ends with another
    /// status than 0.
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
        let mut printed = String::new();
        let quiet = options.quiet;
        let outcome = self.runner.run(&spec, &self.cancel, &mut |_, line| {
            let line = Hidden::mask(&secrets, kfactory_sandbox::printable(line));
            if !quiet {
                self.show(step, &line);
            }
            if let Some(unpacked) = self.packages.unpacked.get() {
                unpacked.saw(&line);
            }
            if options.answers {
                printed.push_str(&line);
                printed.push('\n');
            }
        });
        // A stopped command is no failure of the sandbox: what the user did comes first.
        self.check_cancelled()?;
        let outcome = outcome.map_err(|error| {
            let told = launch_error(&error, &secrets);
            let told = match &error {
                LaunchError::Exec { program, reason } => {
                    interpreter::explain(told, &target.root, Path::new(program), reason)
                }
                _ => told,
            };
            told.context(format!("running `{}`", shown(argv)))
        })?;
        self.reporter
            .command_done(step, &argv.join(" "), start.elapsed());
        match outcome.status {
            Status::Exit(code) if code == 0 || options.any_status => Ok(CommandResult {
                printed,
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
        spec.printed_limit_bytes = options.answers.then_some(MAX_PRINTED_BYTES);
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
        let mut out = base_variables(&self.image_env);
        let mut set = |name, value| set(&mut out, name, value);
        if let Some(clamp) = self.clamp_mtime {
            set("SOURCE_DATE_EPOCH".into(), clamp.to_string().into());
        }
        if options.network {
            for name in PROXY_VARIABLES {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_sets_variables_but_none_that_the_result_depends_on() {
        let base = [
            "HOME=/home",
            "X=1",
            "PATH=/x",
            "LANG=de_DE.UTF-8",
            "PYTHONHASHSEED=random",
        ]
        .map(str::to_owned);
        let variables = base_variables(&base);
        let value = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.to_str().unwrap())
        };
        let expected = [
            ("HOME", "/home"),
            ("X", "1"),
            ("PATH", PATH),
            ("LANG", "C"),
            ("PYTHONHASHSEED", "0"),
        ];
        for (name, expected) in expected {
            assert_eq!(value(name), Some(expected), "{name}");
        }
    }
}
