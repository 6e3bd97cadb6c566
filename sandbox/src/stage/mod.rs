//! The stage: the program re-executes itself once into its own user and mount namespace and does all its work there.
//!
//! Inside it is uid 0 and may mount, chown within the mapped IDs and start sandboxes; its mounts end with it. A plain user gets
//! there through `newuidmap` and `newgidmap`; root (uid 0 with `CAP_SETUID`) writes an identity map of everything it has.
//!
//! It must not know what the program does on the stage.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::idmap::{self, IdMap, IdRange, MapWriter};
use crate::sys::{
    BlockedSignals, ChildStep, SignalSet, StageChild, TrialMount, default_child_signal,
};

mod error;

use error::child_error;
pub use error::{Setting, StageError};

/// Set for the re-executed program to the namespaces it came from, `<user inode>:<mount inode>`.
const STAGE_VAR: &str = "KFACTORY_STAGE_FROM";

/// The inode number of the initial user namespace, the same on every Linux (`PROC_USER_INIT_INO`).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Signals that ask the program to end, or to stand still: passed on to the stage.
const FORWARDED: [libc::c_int; 5] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGTSTP,
];

/// Tells whether this process is on a stage.
///
/// The environment variable the re-execution sets is believed only where the process is uid 0 of a user namespace other than the
/// initial one and other than the one the variable names, in another mount namespace, with enough IDs mapped: who sets the
/// variable by hand cannot make the program mount things over the host's.
pub fn in_stage() -> bool {
    let Some(from) = std::env::var_os(STAGE_VAR) else {
        return false;
    };
    let Some((user, mount)) = from.to_str().and_then(|text| text.split_once(':')) else {
        return false;
    };
    let (Ok(user), Ok(mount)) = (user.parse::<u64>(), mount.parse::<u64>()) else {
        return false;
    };
    let (Ok(user_here), Ok(mount_here)) = (namespace("user"), namespace("mnt")) else {
        return false;
    };
    let mapped = |file| {
        fs::read_to_string(file)
            .map(|text| idmap::total(&idmap::parse_id_map(&text)))
            .unwrap_or(0)
    };
    rustix::process::geteuid().is_root()
        && user_here != INITIAL_USER_NAMESPACE
        && user_here != user
        && mount_here != mount
        && mapped("/proc/self/uid_map") >= idmap::MIN_IDS
        && mapped("/proc/self/gid_map") >= idmap::MIN_IDS
}

/// Returns whether what belongs to one ID here belongs to another outside this process's user namespace.
///
/// Root's stage maps every ID to itself; that of a plain user gives the user's own ID as 0, and subordinate IDs above it.
pub fn maps_ids() -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .any(|text| {
            idmap::parse_id_map(&text)
                .iter()
                .any(|range| range.inside != range.host)
        })
}

/// Runs this program again on a stage, with the same arguments, environment, directory and standard streams, and returns its exit
/// code: 128 plus the signal's number where a signal ended it.
///
/// Call it first thing in `main`, where [`in_stage`] is false: it takes over the process's signals until the stage has ended.
/// SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; with SIGTSTP (a terminal's Ctrl-Z) the stage stands still until this process goes on.
/// When this process dies, the stage is killed.
///
/// The stage is a session of its own, without a terminal. No command of it can ask for one or write into its input; and the kernel shares
/// out processor time among sessions first (sched(7), autogroups), so that priorities count only between processes of one.
///
/// # Errors
///
/// Each is found before the program does anything; see [`StageError`] and [`StageError::hints`].
pub fn enter() -> Result<i32, StageError> {
    let plan = Plan::for_this_process()?;
    let mut args = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args);
    default_child_signal();
    let mut watched = FORWARDED.to_vec();
    watched.push(libc::SIGCHLD);
    let signals = BlockedSignals::block(&watched).map_err(io_error("blocking signals"))?;
    let mut child = plan.spawn(command, Some(signals.before()), None)?.child?;
    wait_forwarding(&mut child, &signals)
}

fn wait_forwarding(child: &mut Child, signals: &BlockedSignals) -> Result<i32, StageError> {
    loop {
        if let Some(status) = child
            .try_wait()
            .map_err(io_error("waiting for the stage"))?
        {
            return Ok(status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        let taken = signals.wait().map_err(io_error("waiting for a signal"))?;
        let (Some(pid), Some(signal)) = (pid_of(child), Signal::from_named_raw(taken)) else {
            continue;
        };
        match signal {
            Signal::CHILD => {}
            Signal::TSTP => stand_still(pid),
            _ => send(pid, signal),
        }
    }
}

/// Stops the stage, and this process until somebody lets it go on.
fn stand_still(stage: Pid) {
    send(stage, Signal::STOP);
    send(rustix::process::getpid(), Signal::STOP);
    send(stage, Signal::CONT);
}

fn send(pid: Pid, signal: Signal) {
    // It can only have ended meanwhile, which its SIGCHLD says.
    let _ = rustix::process::kill_process(pid, signal);
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// How this process would enter a stage; made without changing anything.
#[derive(Debug)]
pub(crate) struct Plan {
    map: IdMap,
    helpers: Option<Helpers>,
}

#[derive(Debug)]
struct Helpers {
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

impl Helpers {
    fn find() -> Result<Self, StageError> {
        let find = |program| find_program(program).ok_or(StageError::HelperMissing { program });
        Ok(Self {
            newuidmap: find("newuidmap")?,
            newgidmap: find("newgidmap")?,
        })
    }
}

/// Returns the ID map this process may have, by its IDs and grants.
pub(crate) fn map_of_this_process() -> Result<IdMap, StageError> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(IdMap::identity(
            &read("/proc/self/uid_map")?,
            &read("/proc/self/gid_map")?,
        )?);
    }
    let uid = uid.as_raw();
    let gid = rustix::process::getegid().as_raw();
    Ok(IdMap::for_user(
        uid,
        gid,
        &user_name(uid),
        &read_opt("/etc/subuid"),
        &read_opt("/etc/subgid"),
    )?)
}

/// A stage's first process, and how far it came.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The running child, or why there is none.
    pub(crate) child: Result<Child, StageError>,
    /// The last step the child reported.
    pub(crate) reached: Option<ChildStep>,
}

impl Plan {
    /// Reads the caller's IDs and grants and finds the helper programs.
    pub(crate) fn for_this_process() -> Result<Self, StageError> {
        let map = map_of_this_process()?;
        let helpers = match map.writer {
            MapWriter::Ourselves => None,
            MapWriter::Helpers => Some(Helpers::find()?),
        };
        Ok(Self { map, helpers })
    }

    /// Starts `command` on a stage with the signals `blocked`, where given; with `trial`, after that mount was made there.
    pub(crate) fn spawn(
        &self,
        mut command: Command,
        blocked: Option<SignalSet>,
        trial: Option<TrialMount>,
    ) -> Result<Staged, StageError> {
        let from = format!(
            "{}:{}",
            namespace("user").map_err(io_error("reading /proc/self/ns/user"))?,
            namespace("mnt").map_err(io_error("reading /proc/self/ns/mnt"))?
        );
        command.env(STAGE_VAR, from);
        let pipe = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map_err(|e| io_error("making a pipe")(e.into()))
        };
        let (ready_read, ready_write) = pipe()?;
        let (go_read, go_write) = pipe()?;
        StageChild {
            ready: ready_write,
            go: go_read,
            parent: rustix::process::getpid(),
            blocked,
            trial,
        }
        .install(&mut command);
        let (spawned, reached, mapped) = std::thread::scope(|scope| {
            // `spawn` returns only after exec, which waits for the map: somebody else must write it meanwhile.
            let mapper = scope.spawn(|| {
                let mut ready = fs::File::from(ready_read);
                let mut go = fs::File::from(go_write);
                let hello = read_hello(&mut ready);
                let mapped = hello.map_or(Ok(()), |pid| self.write_maps(pid));
                if hello.is_some() && mapped.is_ok() {
                    // A child that is gone is reported by `spawn`.
                    let _ = io::Write::write_all(&mut go, &[1]);
                }
                drop(go);
                let mut steps = Vec::new();
                let _ = ready.read_to_end(&mut steps);
                (hello, mapped, steps)
            });
            let spawned = command.spawn();
            // Closes our copies of the child's ends of the pipes, or the mapper would wait for ever.
            drop(command);
            let (hello, mapped, steps) = mapper.join().unwrap_or((None, Ok(()), Vec::new()));
            let last = steps.into_iter().filter_map(ChildStep::from_byte).max();
            (spawned, last.or(hello.map(|_| ChildStep::Unshared)), mapped)
        });
        let child = mapped.and_then(|()| spawned.map_err(|source| child_error(reached, source)));
        Ok(Staged { child, reached })
    }

    fn write_maps(&self, pid: Pid) -> Result<(), StageError> {
        debug_assert_eq!(
            self.helpers.is_some(),
            self.map.writer == MapWriter::Helpers
        );
        let Some(helpers) = &self.helpers else {
            write_map(pid, "gid_map", &self.map.gids)?;
            return write_map(pid, "uid_map", &self.map.uids);
        };
        // Both at once: each is a process of its own.
        let uids = start_helper(&helpers.newuidmap, "newuidmap", pid, &self.map.uids)?;
        let gids = start_helper(&helpers.newgidmap, "newgidmap", pid, &self.map.gids)?;
        let uids = end_helper("newuidmap", uids);
        let gids = end_helper("newgidmap", gids);
        uids.and(gids)
    }
}

fn read_hello(ready: &mut fs::File) -> Option<Pid> {
    let mut hello = [0u8; 5];
    ready.read_exact(&mut hello).ok()?;
    let [_, a, b, c, d] = hello;
    Pid::from_raw(i32::from_ne_bytes([a, b, c, d]))
}

fn write_map(pid: Pid, name: &str, ranges: &[IdRange]) -> Result<(), StageError> {
    let text = idmap::format_id_map(ranges)?;
    let file = PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_pid()));
    fs::write(&file, text).map_err(|source| StageError::MapWrite { file, source })
}

fn start_helper(
    path: &Path,
    program: &'static str,
    pid: Pid,
    ranges: &[IdRange],
) -> Result<Child, StageError> {
    idmap::format_id_map(ranges)?;
    let numbers = ranges
        .iter()
        .flat_map(|range| [range.inside, range.host, range.count]);
    Command::new(path)
        .arg(pid.as_raw_pid().to_string())
        .args(numbers.map(|number| number.to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StageError::HelperMissing { program },
            _ => StageError::Io {
                doing: "starting the ID map helper",
                source,
            },
        })
}

fn end_helper(program: &'static str, child: Child) -> Result<(), StageError> {
    let output = child
        .wait_with_output()
        .map_err(io_error("waiting for the ID map helper"))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = crate::lines::printable(output.stderr.trim_ascii());
    Err(StageError::HelperFailed {
        program,
        status: output.status,
        stderr,
    })
}

/// Returns the inode number of one of this process's namespaces.
fn namespace(name: &str) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/self/ns/{name}"))?.ino())
}

/// Returns the user's name, or nothing where it has none; `newuidmap` judges it anyway.
pub(crate) fn user_name(uid: u32) -> String {
    if let Some(name) = name_in_passwd(&read_opt("/etc/passwd"), uid) {
        return name;
    }
    // Users from a directory service.
    let output = Command::new("id")
        .arg("-un")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(output.stdout.trim_ascii()).into_owned())
        .unwrap_or_default()
}

fn name_in_passwd(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Returns the first executable file `program` on `PATH`.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    // Helpers live in sbin on some systems, which is not on every user's PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|directory| directory.as_os_str().as_bytes().starts_with(b"/"))
        .chain(extra)
        .map(|directory| directory.join(program))
        .find(|file| {
            file.metadata().is_ok_and(|metadata| metadata.is_file())
                && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
        })
}

fn read(file: &'static str) -> Result<String, StageError> {
    fs::read_to_string(file).map_err(io_error(file))
}

fn read_opt(file: &str) -> String {
    // Names in other encodings may stand beside ours.
    fs::read(file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> StageError {
    move |source| StageError::Io { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_runs_on_no_stage() {
        assert!(!in_stage());
    }

    #[test]
    fn names_come_from_the_third_field_of_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(name_in_passwd(text, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in_passwd(text, 1001), None);
    }
}
