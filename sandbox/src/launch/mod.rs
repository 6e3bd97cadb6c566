//! Runs a spec: starts bubblewrap, streams the command's lines, waits until every process of the sandbox is gone.
//!
//! It must not know what the command is for.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bwrap::{self, SpecError};
use crate::cancel::CancelToken;
use crate::mountpoint::{self, MountPointError, Stubs, Targets};
use crate::spec::SandboxSpec;

mod places;
mod plain;
mod running;

pub use plain::run_plain;

use running::{Ended, Inputs, Output, Sandbox};

/// Which output of the command a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exit(i32),
    /// This signal ended it. Exit codes 129 to 159 count as 128 plus a signal, as in a shell: bubblewrap reports both alike.
    Signal(i32),
}

impl Status {
    /// Tells whether it exited with 0.
    pub fn is_success(self) -> bool {
        self == Self::Exit(0)
    }

    fn from_code(code: i32) -> Self {
        if (129..160).contains(&code) {
            Self::Signal(code - 128)
        } else {
            Self::Exit(code)
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exited with status {code}"),
            Self::Signal(number) => write!(f, "was ended by signal {number}"),
        }
    }
}

/// A command that ran, whether it succeeded or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Its last 30 lines of both streams, fit to print; of standard error alone where standard output was captured.
    pub tail: Vec<String>,
    /// Its standard output; empty unless [`crate::spec::Stdout::Captured`].
    pub stdout: Vec<u8>,
    /// The most memory one of its processes had resident, in bytes.
    pub max_rss_bytes: u64,
    /// Processor time in user mode of the command and all it waited for.
    pub user_time: Duration,
    /// Processor time in the kernel of the command and all it waited for.
    pub system_time: Duration,
}

/// Why a command did not run to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// `bwrap` is not on `PATH`.
    #[error("`bwrap` is not installed")]
    BwrapMissing,
    /// The spec makes no sense.
    #[error("reading the sandbox's description")]
    Spec(#[from] SpecError),
    /// A mount point cannot be found or made.
    #[error("preparing the sandbox's mount points")]
    MountPoint(#[from] MountPointError),
    /// The command is not there or cannot be executed.
    #[error("executing {program:?} in the sandbox: {reason}")]
    Exec {
        /// The command.
        program: std::ffi::OsString,
        /// What the kernel said.
        reason: String,
    },
    /// What a mount stands for cannot be put in place where nothing can be mounted; see [`run_plain`].
    #[error("putting {target:?} in place for a command")]
    Place {
        /// The path inside.
        target: std::path::PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// bubblewrap failed before the command started.
    #[error("setting up the sandbox: {}", .lines.join("; "))]
    Setup {
        /// What bubblewrap said.
        lines: Vec<String>,
        /// How it ended.
        status: ExitStatus,
    },
    /// Somebody ended the sandbox from outside.
    #[error("the sandbox was ended from outside ({status})")]
    Killed {
        /// How bubblewrap ended.
        status: ExitStatus,
    },
    /// The command took longer than the spec allows; all processes of the sandbox are gone.
    #[error("it was ended after {} seconds", .limit.as_secs_f64())]
    TimedOut {
        /// The time it had.
        limit: Duration,
        /// The last lines it printed, fit to print.
        tail: Vec<String>,
    },
    /// The command wrote more than the spec allows, to its captured standard output or as lines; all processes of the sandbox are
    /// gone.
    #[error("it was ended: it printed more than {limit_bytes} bytes")]
    TooMuchOutput {
        /// The most that was allowed.
        limit_bytes: usize,
    },
    /// The [`CancelToken`] was cancelled; all processes of the sandbox are gone.
    #[error("cancelled")]
    Cancelled,
    /// A system call failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl LaunchError {
    /// Returns what the reader can do about it, one command or setting per line.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::BwrapMissing => {
                vec!["`apt-get install bubblewrap` or `dnf install bubblewrap`".to_owned()]
            }
            Self::Setup { lines, .. }
                if lines.iter().any(|line| line.contains("Can't mount proc")) =>
            {
                vec!["a container masks parts of /proc, and the kernel then allows no new one: `podman run --security-opt unmask=ALL`, or a pod's `procMount: Unmasked`".to_owned()]
            }
            Self::Setup { lines, .. }
                if lines.iter().any(|line| line.contains("Unknown option")) =>
            {
                let (major, minor, patch) = bwrap::MIN_VERSION;
                vec![format!(
                    "`bwrap --version` must be {major}.{minor}.{patch} or later"
                )]
            }
            _ => Vec::new(),
        }
    }
}

fn io_error<E: Into<io::Error>>(doing: &'static str) -> impl Fn(E) -> LaunchError {
    move |error| LaunchError::Io {
        doing,
        source: error.into(),
    }
}

/// Runs `spec` to its end and returns how it ended; see [`run_with`].
///
/// # Errors
///
/// As [`run_with`], but never [`LaunchError::Cancelled`].
pub fn run(
    spec: &SandboxSpec,
    on_line: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Outcome, LaunchError> {
    let token = CancelToken::new().map_err(io_error("making a cancel token"))?;
    run_with(spec, &token, on_line)
}

/// Runs `spec` to its end and returns how it ended. A command that fails is no error.
///
/// Each line is passed to `on_line` when it is whole: without its end, raw bytes, at most 16 KiB at a time (see
/// [`crate::printable`]). On return, error or panic in `on_line` no process of the sandbox is left and the mount points made for it
/// are removed; when this program is killed, they are killed. Call it on a stage; any number may run at once, in different roots.
///
/// # Errors
///
/// See [`LaunchError`].
pub fn run_with(
    spec: &SandboxSpec,
    cancel: &CancelToken,
    on_line: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Outcome, LaunchError> {
    if cancel.is_cancelled() {
        return Err(LaunchError::Cancelled);
    }
    bwrap::check(spec)?;
    let program = crate::stage::find_program("bwrap").ok_or(LaunchError::BwrapMissing)?;
    let targets = Targets::resolve(spec)?;
    // Dropped last, when nothing is mounted on them any more.
    let _stubs = Stubs::make(&spec.root, &mountpoint::missing(spec, &targets)?)?;
    let inputs = Inputs::open(spec, &targets)?;
    let mut sandbox = Sandbox::start(Command::new(program), spec, inputs)?;
    let mut output = Output::new(spec, on_line);
    let deadline = spec.time_limit.map(|limit| Instant::now() + limit);
    if !sandbox.pump(cancel, deadline, &mut output)? {
        return Err(LaunchError::TimedOut {
            limit: spec.time_limit.unwrap_or_default(),
            tail: output.tail.into_lines(),
        });
    }
    let ended = sandbox.reap()?;
    outcome(spec, ended, output)
}

fn outcome(spec: &SandboxSpec, ended: Ended, output: Output<'_>) -> Result<Outcome, LaunchError> {
    let Ended {
        status,
        code,
        usage,
    } = ended;
    let tail = output.tail.into_lines();
    let Some(code) = code else {
        return Err(setup_error(spec, status, tail));
    };
    Ok(Outcome {
        status: Status::from_code(code),
        tail,
        stdout: output.captured,
        max_rss_bytes: usage.max_rss_bytes,
        user_time: Duration::from_micros(usage.user_micros),
        system_time: Duration::from_micros(usage.system_micros),
    })
}

/// Returns the error for what bubblewrap `said` in a trial.
pub(crate) fn refused_setup(said: &str) -> LaunchError {
    LaunchError::Setup {
        lines: said.lines().map(str::to_owned).collect(),
        status: ExitStatus::from_raw(1 << 8),
    }
}

/// Explains why the command was not executed.
fn setup_error(spec: &SandboxSpec, status: ExitStatus, tail: Vec<String>) -> LaunchError {
    // The supervisor adds 128 to the signal that ended bubblewrap.
    if status.code().is_none_or(|code| code > 128) {
        return LaunchError::Killed { status };
    }
    let lines: Vec<String> = tail
        .iter()
        .filter_map(|line| line.strip_prefix("bwrap: "))
        .map(str::to_owned)
        .collect();
    if let Some(rest) = lines.last().and_then(|line| line.strip_prefix("execvp ")) {
        let reason = rest
            .rsplit_once(": ")
            .map_or(rest, |(_, reason)| reason)
            .to_owned();
        let program = spec.argv.first().cloned().unwrap_or_default();
        return LaunchError::Exec { program, reason };
    }
    LaunchError::Setup {
        lines: if lines.is_empty() { tail } else { lines },
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_exit_codes_are_signals() {
        assert_eq!(Status::from_code(0), Status::Exit(0));
        assert_eq!(Status::from_code(127), Status::Exit(127));
        assert_eq!(Status::from_code(137), Status::Signal(9));
        assert_eq!(Status::from_code(255), Status::Exit(255));
    }

    #[test]
    fn a_command_that_is_not_there_is_told_from_a_failing_sandbox() {
        let spec = SandboxSpec::new("/r", ["/bin/nothing"]);
        let status = ExitStatus::from_raw(256);
        let error = setup_error(
            &spec,
            status,
            vec!["bwrap: execvp /bin/nothing: No such file or directory".into()],
        );
        assert_eq!(
            error.to_string(),
            "executing \"/bin/nothing\" in the sandbox: No such file or directory"
        );
        let error = setup_error(
            &spec,
            status,
            vec!["bwrap: Can't mount proc on /newroot/proc: Operation not permitted".into()],
        );
        assert!(matches!(&error, LaunchError::Setup { .. }));
        assert_eq!(error.hints().len(), 1);
        let error = setup_error(&spec, ExitStatus::from_raw(9), vec![]);
        assert!(matches!(error, LaunchError::Killed { .. }));
    }
}
