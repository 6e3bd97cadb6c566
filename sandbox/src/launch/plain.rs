//! Runs a spec in the root filesystem of this process, without namespaces: inside a container build, which is a sandbox already
//! and allows no second one.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::places::Places;
use super::running::{
    Amount, Output, Source, end_streams, read_streams, wait_for_something, watch,
};
use super::{LaunchError, Outcome, Status, Stream, io_error};
use crate::bwrap;
use crate::cancel::CancelToken;
use crate::spec::{SandboxSpec, Stdin};

/// Runs `spec` as a child of this process and returns how it ended. A command that fails is no error.
///
/// The environment, the working directory, the streams and the time limit are those of the spec. Everything else is what this
/// process has: its root filesystem, which [`SandboxSpec::root`] must name, its network, its `/proc`, `/dev`, `/run` and `/tmp`, its
/// capabilities. Mounts are imitated with links and files that are taken back when the command has ended, so that no trace of them
/// stays: a target in use is used as it is, a file that is right already is left alone, and anything else is moved aside and back.
/// Two commands with the same targets must not run at once.
///
/// When the command has ended, been cancelled or run out of time, its process group is killed; a process that left the group lives
/// on until the container ends. Its use of memory and processors is not measured: those numbers are 0.
///
/// # Errors
///
/// See [`LaunchError`]; [`LaunchError::Place`] where a mount cannot be imitated.
pub fn run_plain(
    spec: &SandboxSpec,
    cancel: &CancelToken,
    on_line: &mut dyn FnMut(Stream, &[u8]),
) -> Result<Outcome, LaunchError> {
    if cancel.is_cancelled() {
        return Err(LaunchError::Cancelled);
    }
    bwrap::check(spec)?;
    let places = Places::make(&spec.mounts)?;
    let outcome = Running::start(spec)?.wait(spec, cancel, on_line);
    let taken_back = places.take_back();
    let outcome = outcome?;
    taken_back.map(|()| outcome)
}

/// The command; its process group is killed when this is dropped.
struct Running {
    child: Child,
    streams: [Source; 2],
}

impl Running {
    fn start(spec: &SandboxSpec) -> Result<Self, LaunchError> {
        let mut argv = spec.argv.iter();
        let program = argv.next().cloned().unwrap_or_default();
        let stdin = match &spec.stdin {
            Stdin::Closed => Stdio::null(),
            Stdin::Bytes(bytes) => crate::sys::memory_file("stdin", bytes)
                .map_err(io_error("making a memory file"))?
                .into(),
        };
        let mut child = Command::new(&program)
            .args(argv)
            .env_clear()
            .envs(spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&spec.cwd)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| LaunchError::Exec {
                program,
                reason: error.to_string(),
            })?;
        let streams = Source::new(child.stdout.take())
            .and_then(|stdout| Ok([stdout, Source::new(child.stderr.take())?]));
        match streams {
            Ok(streams) => Ok(Self { child, streams }),
            Err(error) => {
                end_group(&mut child);
                Err(error)
            }
        }
    }

    fn wait(
        mut self,
        spec: &SandboxSpec,
        cancel: &CancelToken,
        on_line: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, LaunchError> {
        let ended = watch(&self.child)?;
        let deadline = spec.time_limit.map(|limit| Instant::now() + limit);
        let mut output = Output::new(spec, on_line);
        loop {
            let [stdout, stderr] = &self.streams;
            let is_over = wait_for_something(&ended, &[stdout, stderr], cancel, deadline)?;
            if cancel.is_cancelled() {
                return Err(LaunchError::Cancelled);
            }
            if is_over {
                break;
            }
            read_streams(&mut self.streams, Amount::Turn, &mut output)?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(LaunchError::TimedOut {
                    limit: spec.time_limit.unwrap_or_default(),
                    tail: output.tail.into_lines(),
                });
            }
        }
        // Whoever still holds the pipes is no part of the command: only what is there by now is read.
        end_streams(&mut self.streams, &mut output)?;
        let status = self
            .child
            .wait()
            .map_err(io_error("waiting for the command"))?;
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => Status::from_code(code),
            (None, signal) => Status::Signal(signal.unwrap_or_default()),
        };
        Ok(Outcome {
            status,
            tail: output.tail.into_lines(),
            stdout: output.captured,
            max_rss_bytes: 0,
            user_time: Duration::ZERO,
            system_time: Duration::ZERO,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// Kills what is left of the command's process group, and reaps the command.
fn end_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An error: nobody is left.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Stdout;

    fn sh(script: &str) -> SandboxSpec {
        let mut spec = SandboxSpec::new("/", ["sh", "-c", script]);
        spec.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        spec
    }

    fn run(spec: &SandboxSpec) -> (Result<Outcome, LaunchError>, Vec<String>) {
        let mut lines = Vec::new();
        let token = CancelToken::new().unwrap();
        let outcome = run_plain(spec, &token, &mut |_, line| {
            lines.push(String::from_utf8_lossy(line).into_owned())
        });
        (outcome, lines)
    }

    #[test]
    fn lines_status_and_environment_are_those_of_the_command() {
        let (outcome, lines) = run(&sh(
            "echo out; echo err >&2; env | sort; printf end; exit 7",
        ));
        assert_eq!(outcome.unwrap().status, Status::Exit(7));
        assert!(lines.contains(&"out".into()) && lines.contains(&"err".into()));
        assert_eq!(lines.last().map(String::as_str), Some("end"));
        assert!(
            !lines.iter().any(|line| line.starts_with("CARGO")),
            "{lines:?}"
        );
    }

    #[test]
    fn a_process_that_the_command_leaves_does_not_hold_it_up() {
        let start = Instant::now();
        let (outcome, _) = run(&sh("sleep 60 & echo started"));
        assert!(outcome.unwrap().status.is_success());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn input_is_read_and_answers_are_kept() {
        let mut spec = sh("cat");
        spec.stdin = Stdin::Bytes(b"question".to_vec());
        spec.stdout = Stdout::Captured { limit_bytes: 64 };
        assert_eq!(run(&spec).0.unwrap().stdout, b"question");
    }

    #[test]
    fn commands_that_are_missing_slow_or_cancelled_are_told_apart() {
        let missing = SandboxSpec::new("/", ["/nowhere/to/be/found"]);
        assert!(matches!(run(&missing).0, Err(LaunchError::Exec { .. })));
        let mut slow = sh("sleep 60");
        slow.time_limit = Some(Duration::from_millis(50));
        assert!(matches!(run(&slow).0, Err(LaunchError::TimedOut { .. })));
        let token = CancelToken::new().unwrap();
        token.cancel();
        let outcome = run_plain(&sh("true"), &token, &mut |_, _| {});
        assert!(matches!(outcome, Err(LaunchError::Cancelled)));
    }

    /// Prints faster than anybody reads.
    const TALKER: &str = "timeout 20 yes";

    #[test]
    fn a_command_that_never_stops_printing_is_ended_in_time() {
        let start = Instant::now();
        let mut spec = sh(TALKER);
        spec.time_limit = Some(Duration::from_millis(200));
        let token = CancelToken::new().unwrap();
        let outcome = run_plain(&spec, &token, &mut |_, _| slow_reader());
        assert!(matches!(outcome, Err(LaunchError::TimedOut { .. })));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_that_never_stops_printing_is_cancelled() {
        let start = Instant::now();
        let token = CancelToken::new().unwrap();
        let mut lines = 0;
        let outcome = run_plain(&sh(TALKER), &token, &mut |_, _| {
            slow_reader();
            lines += 1;
            if lines == 10 {
                token.cancel();
            }
        });
        assert!(matches!(outcome, Err(LaunchError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_that_prints_more_than_it_may_is_ended() {
        let mut spec = sh(TALKER);
        spec.printed_limit_bytes = Some(1000);
        let (outcome, lines) = run(&spec);
        assert!(
            matches!(
                outcome,
                Err(LaunchError::TooMuchOutput { limit_bytes: 1000 })
            ),
            "{outcome:?}"
        );
        assert!(lines.len() < 50_000, "{}", lines.len());
    }

    fn slow_reader() {
        std::thread::sleep(Duration::from_micros(20));
    }
}
