//! A sandbox while it runs: its processes, its pipes, its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{LaunchError, Stream, io_error};
use crate::bwrap::{self, Descriptors};
use crate::cancel::CancelToken;
use crate::clones::{Cloner, Requested};
use crate::lines::{LineBuffer, Tail};
use crate::mountpoint::Targets;
use crate::spec::{Mount, SandboxSpec, Stdin, Stdout};
use crate::sys::{self, Supervisor, Usage};

/// What bubblewrap reads and writes beside the command's streams.
#[derive(Debug)]
pub(super) struct Inputs {
    args: OwnedFd,
    others: Vec<OwnedFd>,
    status_read: OwnedFd,
    stdin: Stdio,
}

impl Inputs {
    pub(super) fn open(spec: &SandboxSpec, targets: &Targets) -> Result<Self, LaunchError> {
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

/// A running sandbox; its processes are killed and reaped when it is dropped.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// Process 1 of the PID namespace around bubblewrap. Its end is the end of all of them.
    supervisor: Child,
    /// Becomes readable when the supervisor has ended.
    ended: OwnedFd,
    streams: [Source; 2],
    status: Source,
    reported: Vec<u8>,
    usage: OwnedFd,
    reaped: bool,
    /// Answers what its processes ask; nothing to wait for when they are gone.
    cloner: Option<Cloner>,
    /// Dropped last: the thread that started the supervisor then ends, and the supervisor would be killed with it.
    _keeper: Sender<()>,
}

/// The reading end of a pipe.
#[derive(Debug)]
pub(super) struct Source {
    pipe: Option<File>,
    lines: LineBuffer,
}

impl Source {
    pub(super) fn new(pipe: Option<impl Into<OwnedFd>>) -> Result<Self, LaunchError> {
        let pipe: Option<OwnedFd> = pipe.map(Into::into);
        if let Some(pipe) = &pipe {
            rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK)
                .map_err(io_error("preparing a pipe"))?;
        }
        Ok(Self {
            pipe: pipe.map(File::from),
            lines: LineBuffer::default(),
        })
    }
}

/// Where output goes.
pub(super) struct Output<'a> {
    pub(super) tail: Tail,
    /// Standard output, where it is captured.
    pub(super) captured: Vec<u8>,
    /// Bytes passed on as lines, ends of lines among them.
    printed_bytes: usize,
    printed_limit_bytes: Option<usize>,
    stdout: Stdout,
    on_line: &'a mut dyn FnMut(Stream, &[u8]),
}

impl<'a> Output<'a> {
    pub(super) fn new(spec: &SandboxSpec, on_line: &'a mut dyn FnMut(Stream, &[u8])) -> Self {
        Self {
            tail: Tail::default(),
            captured: Vec::new(),
            printed_bytes: 0,
            printed_limit_bytes: spec.printed_limit_bytes,
            stdout: spec.stdout,
            on_line,
        }
    }

    fn line(&mut self, stream: Stream, line: &[u8]) {
        self.printed_bytes = self.printed_bytes.saturating_add(line.len() + 1);
        self.tail.push(line);
        (self.on_line)(stream, line);
    }

    fn check_printed(&self) -> Result<(), LaunchError> {
        match self.printed_limit_bytes {
            Some(limit_bytes) if self.printed_bytes > limit_bytes => {
                Err(LaunchError::TooMuchOutput { limit_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// What bubblewrap and the command ended with.
#[derive(Debug)]
pub(super) struct Ended {
    /// bubblewrap's exit status.
    pub(super) status: ExitStatus,
    /// The command's exit code; there is none unless it was executed.
    pub(super) code: Option<i32>,
    pub(super) usage: Usage,
}

/// Starts `command` as the first but one process of a new PID namespace, from a thread that lives until the sender is dropped: the
/// supervisor dies with the thread that started it, and only that thread's children are in the new namespace.
fn spawn_supervised(mut command: Command) -> io::Result<(Child, Sender<()>)> {
    let (keeper, kept) = channel::<()>();
    let (answer, answered) = channel();
    std::thread::Builder::new()
        .name("sandbox".to_owned())
        .spawn(move || {
            let spawned = sys::new_pid_namespace_for_children().and_then(|()| command.spawn());
            // Our copies of its pipes' ends go before anybody waits for their end.
            drop(command);
            let _ = answer.send(spawned);
            // An error: the other side is gone.
            let _ = kept.recv();
        })?;
    let child = answered.recv().map_err(io::Error::other)??;
    Ok((child, keeper))
}

impl Sandbox {
    pub(super) fn start(
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
        let program = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(io_error("watching this program"))?;
        let (usage, usage_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(io_error("making a pipe"))?;
        Supervisor {
            program,
            usage: usage_write,
        }
        .install(&mut command);
        let clones = spec
            .clones
            .then(|| Requested::install(&mut command))
            .transpose()
            .map_err(io_error("making a socket"))?;
        let (child, keeper) = spawn_supervised(command).map_err(io_error("starting bwrap"))?;
        // Our copy of the status pipe's other end goes here, so that its end can be seen.
        drop(others);
        let mut sandbox = Self::adopt(child, keeper, status_read, usage)?;
        if let Some(clones) = clones {
            sandbox.cloner = clones.start().map_err(io_error("answering for clones"))?;
        }
        Ok(sandbox)
    }

    fn adopt(
        mut child: Child,
        keeper: Sender<()>,
        status: OwnedFd,
        usage: OwnedFd,
    ) -> Result<Self, LaunchError> {
        let prepared = watch(&child).and_then(|ended| {
            Ok((
                ended,
                Source::new(child.stdout.take())?,
                Source::new(child.stderr.take())?,
                Source::new(Some(status))?,
            ))
        });
        match prepared {
            Ok((ended, stdout, stderr, status)) => Ok(Self {
                supervisor: child,
                ended,
                streams: [stdout, stderr],
                status,
                reported: Vec::new(),
                usage,
                reaped: false,
                cloner: None,
                _keeper: keeper,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Passes output on until every process of the sandbox has ended; `false` when `deadline` came first.
    pub(super) fn pump(
        &mut self,
        cancel: &CancelToken,
        deadline: Option<Instant>,
        output: &mut Output<'_>,
    ) -> Result<bool, LaunchError> {
        let mut ended = false;
        while !ended {
            let [stdout, stderr] = &self.streams;
            let sources = [stdout, stderr, &self.status];
            ended = wait_for_something(&self.ended, &sources, cancel, deadline)?;
            if cancel.is_cancelled() {
                return Err(LaunchError::Cancelled);
            }
            if !ended && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            // After the end nobody writes any more, so this is the last of it.
            let reported = &mut self.reported;
            drain(&mut self.status.pipe, Amount::Pipe, &mut |bytes| {
                reported.extend_from_slice(bytes)
            })?;
            if !ended {
                read_streams(&mut self.streams, Amount::Turn, output)?;
            }
        }
        end_streams(&mut self.streams, output)?;
        Ok(true)
    }

    /// Reaps the supervisor, which has ended.
    pub(super) fn reap(mut self) -> Result<Ended, LaunchError> {
        self.reaped = true;
        let status = self
            .supervisor
            .wait()
            .map_err(io_error("waiting for bwrap"))?;
        let mut bytes = [0u8; Usage::BYTES];
        let length = rustix::io::read(&self.usage, &mut bytes)
            .map_err(io_error("reading the sandbox's usage"))?;
        let usage = Usage::from_bytes(&bytes[..length]).unwrap_or_default();
        Ok(Ended {
            status,
            code: json_number(&self.reported, "exit-code"),
            usage,
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.reaped {
            // The kernel ends every other process of the namespace before it lets the wait return.
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
    }
}

/// Waits for output, cancellation, the deadline or the end, and tells whether it was the end.
pub(super) fn wait_for_something(
    ended: &OwnedFd,
    sources: &[&Source],
    cancel: &CancelToken,
    deadline: Option<Instant>,
) -> Result<bool, LaunchError> {
    let timeout = deadline
        .map(|deadline| deadline.saturating_duration_since(Instant::now()))
        .and_then(|left| Timespec::try_from(left).ok());
    let sources = sources.iter().filter_map(|source| source.pipe.as_ref());
    let watched = [ended.as_fd(), cancel.wake()]
        .into_iter()
        .chain(sources.map(AsFd::as_fd));
    let mut polled: Vec<PollFd<'_>> = watched
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled
            .first()
            .is_some_and(|ended| !ended.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(io_error("waiting for the command")(errno)),
    }
}

/// How much is read from a pipe before its reader looks up. Never all there is: whoever writes faster than it is read would be
/// read for ever, and could be neither cancelled nor ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// One buffer.
    Turn,
    /// What was in it when reading began: as much as it can hold.
    Pipe,
}

/// Passes on what is there of standard output and standard error.
pub(super) fn read_streams(
    streams: &mut [Source; 2],
    amount: Amount,
    output: &mut Output<'_>,
) -> Result<(), LaunchError> {
    for (source, stream) in streams.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
        let lines = &mut source.lines;
        match (stream, output.stdout) {
            (Stream::Stdout, Stdout::Captured { limit_bytes }) => {
                drain(&mut source.pipe, amount, &mut |bytes| {
                    // One byte more than allowed tells that there is more.
                    let room = (limit_bytes + 1).saturating_sub(output.captured.len());
                    output
                        .captured
                        .extend_from_slice(&bytes[..bytes.len().min(room)]);
                })?;
                if output.captured.len() > limit_bytes {
                    return Err(LaunchError::TooMuchOutput { limit_bytes });
                }
            }
            _ => drain(&mut source.pipe, amount, &mut |bytes| {
                lines.push(bytes, &mut |line| output.line(stream, line))
            })?,
        }
        output.check_printed()?;
    }
    Ok(())
}

/// Passes on what is left when the command has ended, and last lines that have no end.
pub(super) fn end_streams(
    streams: &mut [Source; 2],
    output: &mut Output<'_>,
) -> Result<(), LaunchError> {
    read_streams(streams, Amount::Pipe, output)?;
    for (source, stream) in streams.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
        source.lines.end(&mut |line| output.line(stream, line));
    }
    output.check_printed()
}

pub(super) fn watch(child: &Child) -> Result<OwnedFd, LaunchError> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH);
    pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(io_error("watching bwrap"))
}

/// Reads what is there, no more than `amount`; closes `pipe` at its end.
fn drain(
    pipe: &mut Option<File>,
    amount: Amount,
    on_bytes: &mut dyn FnMut(&[u8]),
) -> Result<(), LaunchError> {
    let mut buffer = [0u8; 16 * 1024];
    let mut left = match (amount, &pipe) {
        (Amount::Pipe, Some(file)) => rustix::pipe::fcntl_getpipe_size(file)
            .map_err(io_error("asking for the size of a pipe"))?,
        _ => buffer.len(),
    };
    while let Some(file) = pipe
        && left > 0
    {
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(length) => {
                on_bytes(&buffer[..length]);
                left = left.saturating_sub(length);
            }
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
}
