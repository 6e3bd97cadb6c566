//! Runs a spec: starts bubblewrap, streams the command's lines, waits until every process of the sandbox is gone.
//!
//! It must not know what the command is for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use crate::bwrap::{self, Descriptors, SpecError};
use crate::cancel::CancelToken;
use crate::lines::{LineBuffer, Tail};
use crate::mountpoint::{self, MountPointError, Stubs, Targets};
use crate::spec::{Mount, SandboxSpec, Stdin};
use crate::sys::{self, Ended};

/// How long bubblewrap gets to report the sandbox's first process when it is to be killed; it takes milliseconds unless a bind mount's
/// source hangs.
const REPORT_WAIT: Duration = Duration::from_secs(10);

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
    /// Its last 30 lines of both streams, fit to print.
    pub tail: Vec<String>,
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
/// are removed. Call it on a stage, from a thread that lives until it returns; any number may run at once, in different roots.
///
/// It makes this process the reaper of orphaned descendants (`PR_SET_CHILD_SUBREAPER`), to reap the sandbox's first process.
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
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(io_error("becoming a subreaper"))?;
    let inputs = Inputs::open(spec, &targets)?;
    let mut sandbox = Sandbox::start(Command::new(program), spec, inputs)?;
    let mut output = Output {
        tail: Tail::default(),
        on_line,
    };
    sandbox.pump(cancel, &mut output)?;
    let ended = sandbox.reap()?;
    outcome(spec, ended, output.tail.into_lines())
}

/// What bubblewrap reads and writes beside the command's streams.
#[derive(Debug)]
struct Inputs {
    args: OwnedFd,
    others: Vec<OwnedFd>,
    status_read: OwnedFd,
    stdin: Stdio,
}

impl Inputs {
    fn open(spec: &SandboxSpec, targets: &Targets) -> Result<Self, LaunchError> {
        let memory = |content: &[u8]| {
            sys::memory_file("sandbox", content).map_err(io_error("making a memory file"))
        };
        let seccomp =
            crate::seccomp::memory_file().map_err(io_error("making the seccomp filter"))?;
        let (status_read, status_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(io_error("making a pipe"))?;
        let mut files = Vec::new();
        for mount in &spec.mounts {
            if let Mount::File { content, .. } = mount {
                files.push(memory(content)?);
            }
        }
        let fds = Descriptors {
            seccomp: sys::raw(&seccomp),
            status: sys::raw(&status_write),
            files: files.iter().map(sys::raw).collect(),
        };
        let args = memory(&bwrap::nul_terminated(&bwrap::options(spec, targets, &fds)))?;
        let stdin = match &spec.stdin {
            Stdin::Closed => Stdio::null(),
            Stdin::Bytes(bytes) => memory(bytes)?.into(),
        };
        let others = [seccomp, status_write].into_iter().chain(files).collect();
        Ok(Self {
            args,
            others,
            status_read,
            stdin,
        })
    }
}

/// A process and a handle that names it even after its number is used again.
#[derive(Debug)]
struct Process {
    pid: Pid,
    handle: OwnedFd,
    exited: bool,
}

impl Process {
    fn open(pid: Pid) -> rustix::io::Result<Self> {
        Ok(Self {
            pid,
            handle: pidfd_open(pid, PidfdFlags::empty())?,
            exited: false,
        })
    }

    fn kill(&self) {
        // It can only be gone already.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

/// A running sandbox; its processes are killed and reaped when it is dropped.
#[derive(Debug)]
struct Sandbox {
    /// bubblewrap outside the sandbox.
    monitor: Process,
    /// The first process inside, our descendant; known once bubblewrap has reported it.
    init: Option<Process>,
    streams: [Source; 2],
    status: Source,
    reported: Vec<u8>,
    reaped: bool,
}

/// The reading end of a pipe.
#[derive(Debug)]
struct Source {
    pipe: Option<File>,
    lines: LineBuffer,
}

impl Source {
    fn new(fd: impl Into<OwnedFd>) -> Result<Self, LaunchError> {
        let fd = fd.into();
        rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK).map_err(io_error("preparing a pipe"))?;
        Ok(Self {
            pipe: Some(File::from(fd)),
            lines: LineBuffer::default(),
        })
    }
}

/// Where lines go.
struct Output<'a> {
    tail: Tail,
    on_line: &'a mut dyn FnMut(Stream, &[u8]),
}

impl Output<'_> {
    fn line(&mut self, stream: Stream, line: &[u8]) {
        self.tail.push(line);
        (self.on_line)(stream, line);
    }
}

/// What bubblewrap and the command ended with.
#[derive(Debug)]
struct AllEnded {
    monitor: Ended,
    init: Option<Ended>,
    /// The command's exit code; there is none unless it was executed.
    code: Option<i32>,
}

impl Sandbox {
    fn start(
        mut command: Command,
        spec: &SandboxSpec,
        inputs: Inputs,
    ) -> Result<Self, LaunchError> {
        let Inputs {
            args,
            others,
            status_read,
            stdin,
        } = inputs;
        command
            .arg("--args")
            .arg(sys::raw(&args).to_string())
            .arg("--")
            .args(&spec.argv);
        command
            .env_clear()
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A terminal's Ctrl-C goes to this program alone, which decides what becomes of the sandbox.
        command.process_group(0);
        sys::inherit_only(
            &mut command,
            others.iter().chain([&args]).map(sys::raw).collect(),
        );
        let child = command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LaunchError::BwrapMissing,
            _ => LaunchError::Io {
                doing: "starting bwrap",
                source,
            },
        })?;
        // Our copy of the status pipe's other end goes here, so that its end can be seen.
        drop(others);
        Self::adopt(child, status_read)
    }

    fn adopt(mut child: Child, status: OwnedFd) -> Result<Self, LaunchError> {
        let monitor =
            pid_of(&child).and_then(|pid| Process::open(pid).map_err(io_error("watching bwrap")));
        let monitor = match monitor {
            Ok(monitor) => monitor,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let mut sandbox = Self {
            monitor,
            init: None,
            streams: [
                Source {
                    pipe: None,
                    lines: LineBuffer::default(),
                },
                Source {
                    pipe: None,
                    lines: LineBuffer::default(),
                },
            ],
            status: Source {
                pipe: None,
                lines: LineBuffer::default(),
            },
            reported: Vec::new(),
            reaped: false,
        };
        sandbox.status = Source::new(status)?;
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            sandbox.streams = [Source::new(stdout)?, Source::new(stderr)?];
        }
        Ok(sandbox)
    }

    /// Passes lines on until bubblewrap and the sandbox's first process have ended.
    fn pump(&mut self, cancel: &CancelToken, output: &mut Output<'_>) -> Result<(), LaunchError> {
        while !(self.monitor.exited && self.init.as_ref().is_none_or(|init| init.exited)) {
            self.wait_for_something(cancel)?;
            if cancel.is_cancelled() {
                return Err(LaunchError::Cancelled);
            }
            self.read_status()?;
            self.read_streams(output)?;
        }
        // Everything that could write is gone.
        self.read_streams(output)?;
        for (source, stream) in self
            .streams
            .iter_mut()
            .zip([Stream::Stdout, Stream::Stderr])
        {
            source.lines.end(&mut |line| output.line(stream, line));
        }
        Ok(())
    }

    fn wait_for_something(&mut self, cancel: &CancelToken) -> Result<(), LaunchError> {
        let mut watched: Vec<BorrowedFd<'_>> = vec![cancel.wake()];
        watched.extend(
            self.streams
                .iter()
                .chain([&self.status])
                .filter_map(|source| source.pipe.as_ref())
                .map(AsFd::as_fd),
        );
        let processes = [Some(&self.monitor), self.init.as_ref()];
        watched.extend(
            processes
                .into_iter()
                .flatten()
                .filter(|process| !process.exited)
                .map(|process| process.handle.as_fd()),
        );
        let mut polled: Vec<PollFd<'_>> = watched
            .into_iter()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(io_error("waiting for the sandbox")(errno)),
        }
        drop(polled);
        // Before the last read of the status: an init that ends after this is seen in the next turn.
        for process in [Some(&mut self.monitor), self.init.as_mut()]
            .into_iter()
            .flatten()
        {
            process.exited = process.exited || has_exited(process.handle.as_fd());
        }
        Ok(())
    }

    fn read_status(&mut self) -> Result<(), LaunchError> {
        let reported = &mut self.reported;
        drain(&mut self.status.pipe, &mut |bytes| {
            reported.extend_from_slice(bytes)
        })?;
        if self.init.is_none()
            && let Some(pid) = json_number(&self.reported, "child-pid").and_then(Pid::from_raw)
        {
            // Gone without a trace only where somebody else reaped it.
            self.init = Process::open(pid).ok();
        }
        Ok(())
    }

    fn read_streams(&mut self, output: &mut Output<'_>) -> Result<(), LaunchError> {
        for (source, stream) in self
            .streams
            .iter_mut()
            .zip([Stream::Stdout, Stream::Stderr])
        {
            let lines = &mut source.lines;
            drain(&mut source.pipe, &mut |bytes| {
                lines.push(bytes, &mut |line| output.line(stream, line))
            })?;
        }
        Ok(())
    }

    /// Waits until the first process inside is known, so that it can be killed.
    ///
    /// bubblewrap reports it before it lets it run, but a process inside that has not run yet has not asked to die with
    /// bubblewrap either, and would stay.
    fn wait_for_report(&mut self) {
        let end = Instant::now() + REPORT_WAIT;
        while self.read_status().is_ok()
            && self.init.is_none()
            && !has_exited(self.monitor.handle.as_fd())
        {
            let left = end.saturating_duration_since(Instant::now());
            let Some(pipe) = self.status.pipe.as_ref().filter(|_| !left.is_zero()) else {
                return;
            };
            let mut polled = [
                PollFd::new(pipe, PollFlags::IN),
                PollFd::new(&self.monitor.handle, PollFlags::IN),
            ];
            let timeout = rustix::time::Timespec {
                tv_sec: left.as_secs() as _,
                tv_nsec: left.subsec_nanos() as _,
            };
            // What happened is looked at in the next turn.
            let _ = poll(&mut polled, Some(&timeout));
        }
        // It may have reported between the last look and its end.
        let _ = self.read_status();
    }

    /// Reaps both processes.
    fn reap(mut self) -> Result<AllEnded, LaunchError> {
        let ended = self.wait_for_both()?;
        Ok(ended)
    }

    fn wait_for_both(&mut self) -> Result<AllEnded, LaunchError> {
        self.reaped = true;
        let monitor =
            sys::wait_with_usage(self.monitor.pid).map_err(io_error("waiting for bwrap"))?;
        // Where another part of this program reaped it first, its usage is unknown.
        let init = self
            .init
            .as_ref()
            .and_then(|init| sys::wait_with_usage(init.pid).ok());
        Ok(AllEnded {
            monitor,
            init,
            code: json_number(&self.reported, "exit-code"),
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.wait_for_report();
        self.monitor.kill();
        if let Some(init) = &self.init {
            init.kill();
        }
        let _ = self.wait_for_both();
    }
}

fn pid_of(child: &Child) -> Result<Pid, LaunchError> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io_error("watching bwrap")(io::Error::from(io::ErrorKind::InvalidData)))
}

fn has_exited(handle: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Reads what is there; closes `pipe` at its end.
fn drain(pipe: &mut Option<File>, on_bytes: &mut dyn FnMut(&[u8])) -> Result<(), LaunchError> {
    let mut buffer = [0u8; 16 * 1024];
    while let Some(file) = pipe {
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => on_bytes(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("reading the sandbox's output")(error)),
        }
    }
    Ok(())
}

/// Returns the number after `"key":` in the documents bubblewrap reports: flat, and without strings.
fn json_number(report: &[u8], key: &str) -> Option<i32> {
    let text = std::str::from_utf8(report).ok()?;
    let (_, after) = text.split_once(&format!("\"{key}\":"))?;
    let after = after.trim_start();
    // A number that is not followed by anything may not have arrived as a whole.
    let (number, _) = after.split_once(|c: char| !c.is_ascii_digit())?;
    number.parse().ok()
}

fn outcome(spec: &SandboxSpec, ended: AllEnded, tail: Vec<String>) -> Result<Outcome, LaunchError> {
    let AllEnded {
        monitor,
        init,
        code,
    } = ended;
    let Some(code) = code else {
        return Err(setup_error(spec, monitor.status, tail));
    };
    // The first process inside has waited for the command; bubblewrap outside has waited for nobody.
    let usage = init.unwrap_or(monitor);
    Ok(Outcome {
        status: Status::from_code(code),
        tail,
        max_rss_bytes: usage.max_rss_bytes,
        user_time: usage.user_time,
        system_time: usage.system_time,
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
    if status.signal().is_some() {
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
    fn numbers_are_found_in_whole_documents_only() {
        let report = b"{ \"child-pid\": 1234, \"mnt-namespace\": 99 }\n{ \"exit-code\": 7 }\n";
        assert_eq!(json_number(report, "child-pid"), Some(1234));
        assert_eq!(json_number(report, "exit-code"), Some(7));
        assert_eq!(json_number(b"{ \"child-pid\": 12", "child-pid"), None);
        assert_eq!(json_number(b"", "exit-code"), None);
    }

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
