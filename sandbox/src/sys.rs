//! System calls that have no safe form: the one file with unsafe code.
//!
//! Every function here is safe to call; what each block relies on stands above it. It must not know what the calls are for.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

/// What a stage's child tells its parent over the `ready` pipe: that this step is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ChildStep {
    /// The namespaces exist; followed by the child's PID, four bytes in native order.
    Unshared = 1,
    /// The child is uid 0 and gid 0 of its namespace.
    BecameRoot = 2,
    /// Its mounts no longer reach the parent's namespace.
    MountsPrivate = 3,
    /// The trial mount worked.
    Mounted = 4,
}

impl ChildStep {
    /// Returns the step that `byte` stands for.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Unshared,
            Self::BecameRoot,
            Self::MountsPrivate,
            Self::Mounted,
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }
}

/// An overlay mount to try in the child; strings are made before the fork because the child must not allocate.
#[derive(Debug)]
pub(crate) struct TrialMount {
    /// Where to mount.
    pub(crate) target: CString,
    /// The option string of mount(2).
    pub(crate) options: CString,
    /// The directories, open because the options may name them by descriptor.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) layers: Vec<OwnedFd>,
}

/// What the child of a stage does between fork and exec.
#[derive(Debug)]
pub(crate) struct StageChild {
    /// The child reports its steps here.
    pub(crate) ready: OwnedFd,
    /// The child goes on when one byte arrives here, and gives up at end of file.
    pub(crate) go: OwnedFd,
    /// The process that must stay alive.
    pub(crate) parent: Pid,
    /// The signals the program starts with blocked, where this process blocked others meanwhile.
    pub(crate) blocked: Option<SignalSet>,
    /// An overlay mount to try before exec.
    pub(crate) trial: Option<TrialMount>,
}

impl StageChild {
    /// Arranges that `command` runs in new user and mount namespaces, and in a session without a terminal.
    pub(crate) fn install(self, command: &mut Command) {
        // SAFETY: `enter` runs in the forked child before exec. It makes system calls on values that exist already and neither
        // allocates nor takes locks, which is what async-signal-safety asks of it.
        unsafe {
            command.pre_exec(move || self.enter());
        }
    }

    fn enter(&self) -> io::Result<()> {
        if let Some(blocked) = &self.blocked {
            set_blocked(&blocked.0);
        }
        rustix::process::setsid()?;
        // SAFETY: the flags share nothing that the rest of this process could rely on: the forked child has one thread, and
        // file descriptors stay as they are (CLONE_FILES is not among the flags).
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
        // Now, because it may wait below, and once more when its credentials have changed.
        die_with(self.parent)?;
        let mut hello = [0u8; 5];
        hello[0] = ChildStep::Unshared as u8;
        hello[1..].copy_from_slice(&rustix::process::getpid().as_raw_pid().to_ne_bytes());
        rustix::io::write(&self.ready, &hello)?;
        if rustix::io::read(&self.go, &mut [0u8; 1])? == 0 {
            // The parent has the reason.
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        rustix::thread::set_thread_res_gid(
            rustix::process::Gid::ROOT,
            rustix::process::Gid::ROOT,
            rustix::process::Gid::ROOT,
        )?;
        rustix::thread::set_thread_res_uid(
            rustix::process::Uid::ROOT,
            rustix::process::Uid::ROOT,
            rustix::process::Uid::ROOT,
        )?;
        self.report(ChildStep::BecameRoot)?;
        use rustix::mount::MountPropagationFlags;
        rustix::mount::mount_change(
            c"/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        self.report(ChildStep::MountsPrivate)?;
        if let Some(trial) = &self.trial {
            let options = trial.options.as_c_str();
            rustix::mount::mount(
                c"overlay",
                trial.target.as_c_str(),
                c"overlay",
                rustix::mount::MountFlags::empty(),
                options,
            )?;
            self.report(ChildStep::Mounted)?;
        }
        // Last, because a change of credentials takes it back.
        die_with(self.parent)
    }

    fn report(&self, step: ChildStep) -> io::Result<()> {
        rustix::io::write(&self.ready, &[step as u8])?;
        Ok(())
    }
}

/// Has this process killed when the thread that started it ends, which must belong to `parent`.
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before.
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Arranges that `command` inherits `fds` under their numbers, no other descriptor but its standard streams, no blocked signals
/// and no supplementary groups.
///
/// The descriptors must stay open until `command` is spawned; they stay close-on-exec in this process, so no other command
/// started meanwhile inherits them. Where groups may not be changed they stay.
pub(crate) fn inherit_only(command: &mut Command, fds: Vec<RawFd>) {
    let hook = move || {
        // What this program blocks or not is nothing a command should see.
        set_blocked(&empty_set());
        // Files that a command makes get the modes it asks for, whatever the caller's shell takes away.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        // May be forbidden outside a stage, where there is nothing to hide either.
        let _ = rustix::thread::set_thread_groups(&[]);
        close_others_on_exec()?;
        for &fd in &fds {
            // SAFETY: the caller keeps these descriptors open across the spawn, and the borrow ends with this statement.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the hook makes system calls only, allocates nothing and takes no locks.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Marks every descriptor above the standard streams close-on-exec: one that this program was started with (a directory of the host,
/// say) would be a way out of the sandbox.
fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: close_range takes three integers; with this flag it closes nothing in this process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Mounts the `/proc` of this PID namespace in a mount namespace of its own.
///
/// bubblewrap looks its child up in `/proc` by the number that this namespace gave it. In that of another namespace the number is
/// somebody else's, or nobody's, as on a machine (or in a container) with few processes, and then bubblewrap gives up. Where the
/// mount is refused, so is the one that bubblewrap makes inside, and it says so.
fn see_own_processes() {
    use rustix::mount::MountFlags;
    // SAFETY: the forked child has one thread, and nothing in it relies on mounts that it shares with its parent.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    if unshared.is_ok() {
        let _ = rustix::mount::mount(
            c"proc",
            c"/proc",
            c"proc",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        );
    }
}

/// A system call that waits for an answer (`struct seccomp_notif`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notification {
    /// What an answer names.
    pub(crate) id: u64,
    /// Who called.
    pub(crate) pid: Pid,
    /// The call's arguments.
    pub(crate) arguments: [u64; 6],
}

/// Requests of linux/seccomp.h, as `_IOWR('!', 0, struct seccomp_notif)`, `_IOWR('!', 1, struct seccomp_notif_resp)` and
/// `_IOW('!', 2, __u64)` are encoded.
const NOTIF_RECV: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
const NOTIF_ID_VALID: libc::Ioctl = 0x4008_2102;

/// Arranges that `command`, and all it starts, have their system calls looked at by `program`, a filter that may ask for a listener's
/// answer; the listener arrives on the other end of `socket`. Where the kernel refuses that, nothing arrives and nothing is
/// looked at.
pub(crate) fn notify(command: &mut Command, program: Vec<[u8; 8]>, socket: OwnedFd) {
    let hook = move || {
        let Ok(length) = u16::try_from(program.len()) else {
            return Ok(());
        };
        let filter = libc::sock_fprog {
            len: length,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: `filter` points at `length` instructions of eight bytes each, which live until the call returns; the kernel copies
        // them.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &filter,
            )
        };
        let Ok(listener) = RawFd::try_from(listener) else {
            return Ok(());
        };
        if listener >= 0 {
            // SAFETY: the kernel has just made this descriptor for us alone.
            let listener: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(listener) };
            send_descriptor(&socket, std::os::fd::AsFd::as_fd(&listener))?;
        }
        Ok(())
    };
    // SAFETY: the hook makes system calls only, on values that exist already; it neither allocates nor takes locks.
    unsafe {
        command.pre_exec(hook);
    }
}

fn send_descriptor(socket: &OwnedFd, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        socket,
        &[io::IoSlice::new(b"l")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes the next system call that waits; `ENOENT` where its caller is gone meanwhile.
pub(crate) fn next_notification(listener: &OwnedFd) -> io::Result<Notification> {
    // SAFETY: all-zero bytes are a valid value of this plain struct; the kernel asks for zeros.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif`, which `call` has room for.
    if unsafe { libc::ioctl(raw(listener), NOTIF_RECV, &mut call) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = i32::try_from(call.pid).ok().and_then(Pid::from_raw);
    Ok(Notification {
        id: call.id,
        pid: pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?,
        arguments: call.data.args,
    })
}

/// Tells whether the caller of a system call still waits: its PID may be somebody else's by now.
pub(crate) fn still_waits(listener: &OwnedFd, call: &Notification) -> bool {
    // SAFETY: the request reads one 64-bit number.
    unsafe { libc::ioctl(raw(listener), NOTIF_ID_VALID, &call.id) == 0 }
}

/// Answers a system call: 0, or an error number.
pub(crate) fn answer(listener: &OwnedFd, call: &Notification, errno: i32) -> io::Result<()> {
    let answer = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: -errno,
        flags: 0,
    };
    // SAFETY: the request reads one `seccomp_notif_resp`.
    if unsafe { libc::ioctl(raw(listener), NOTIF_SEND, &answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What the processes of a sandbox used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// The most memory one of them had resident.
    pub(crate) max_rss_bytes: u64,
    /// Processor time in user mode, in microseconds.
    pub(crate) user_micros: u64,
    /// Processor time in the kernel, in microseconds.
    pub(crate) system_micros: u64,
}

impl Usage {
    /// The length of [`Usage::to_bytes`].
    pub(crate) const BYTES: usize = 24;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.max_rss_bytes, self.user_micros, self.system_micros];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// Reads what a supervisor wrote; nothing where it was killed before.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let &[max_rss, user, system] = numbers else {
            return None;
        };
        Some(Self {
            max_rss_bytes: u64::from_ne_bytes(max_rss),
            user_micros: u64::from_ne_bytes(user),
            system_micros: u64::from_ne_bytes(system),
        })
    }

    fn add(&mut self, usage: &libc::rusage) {
        let micros = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
                + u64::try_from(time.tv_usec).unwrap_or(0)
        };
        self.max_rss_bytes = self.max_rss_bytes.max(
            u64::try_from(usage.ru_maxrss)
                .unwrap_or(0)
                .saturating_mul(1024),
        );
        self.user_micros = self.user_micros.saturating_add(micros(usage.ru_utime));
        self.system_micros = self.system_micros.saturating_add(micros(usage.ru_stime));
    }
}

/// Has this thread's next children start in a PID namespace of their own; the first is its process 1.
pub(crate) fn new_pid_namespace_for_children() -> io::Result<()> {
    // SAFETY: NEWPID changes nothing for this thread itself, only where its children start.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    Ok(())
}

/// Process 1 of a PID namespace, put between this program and a command: when it ends, by whatever cause, the kernel ends every
/// process of the namespace, and when this program ends, it does.
///
/// bubblewrap alone does not give that: killed while it starts, it leaves the sandbox running.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// A handle of the program that must stay alive.
    pub(crate) program: OwnedFd,
    /// Where to write the [`Usage`] at the end.
    pub(crate) usage: OwnedFd,
}

impl Supervisor {
    /// Arranges that `command` runs below a supervisor, which exits as it does, or with 128 plus the number of the signal that ended
    /// it. Spawn it in a thread that lives as long, after [`new_pid_namespace_for_children`].
    pub(crate) fn install(self, command: &mut Command) {
        // SAFETY: `split` makes system calls only, on values that exist already; it neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || self.split());
        }
    }

    /// Returns in the process that becomes the command, and never in the supervisor.
    fn split(&self) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The program may have ended before; its PID cannot tell, since it is not of this namespace.
        let mut program = [rustix::event::PollFd::new(
            &self.program,
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut program, Some(&now))? > 0 {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: a plain fork without the C library's handlers, which could take locks. All arguments but the exit signal are zero,
        // so their order, which differs between machines, does not matter.
        let forked = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        match forked {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                see_own_processes();
                Ok(())
            }
            command => self.supervise(command),
        }
    }

    /// Reaps everything until nothing is left.
    fn supervise(&self, command: libc::c_long) -> ! {
        let usage_fd = u32::try_from(self.usage.as_raw_fd()).unwrap_or(0);
        // SAFETY: this process runs nothing but this function, which uses only the descriptor left open; its standard library
        // never runs again.
        unsafe {
            libc::syscall(libc::SYS_close_range, 0u32, usage_fd.wrapping_sub(1), 0u32);
            libc::syscall(libc::SYS_close_range, usage_fd + 1, u32::MAX, 0u32);
        }
        let mut code = 255;
        let (mut own, mut others) = (Usage::default(), None);
        loop {
            let mut status: libc::c_int = 0;
            // SAFETY: `rusage` is plain integers, for which all-zero is a value.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: both pointers are to live locals of the types wait4 writes.
            let pid = unsafe { libc::wait4(-1, &mut status, 0, &mut usage) };
            if pid < 0 {
                if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                break;
            }
            if libc::c_long::from(pid) == command {
                own.add(&usage);
                let status = ExitStatus::from_raw(status);
                code = status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                // SAFETY: every process of this namespace but this one, which is its process 1.
                unsafe { libc::kill(-1, libc::SIGKILL) };
            } else {
                others.get_or_insert(Usage::default()).add(&usage);
            }
        }
        // The command's own peak counts this program's memory from before exec: better without it.
        let mut total = others.unwrap_or(own);
        if others.is_some() {
            total.user_micros = total.user_micros.saturating_add(own.user_micros);
            total.system_micros = total.system_micros.saturating_add(own.system_micros);
        }
        let _ = rustix::io::write(&self.usage, &total.to_bytes());
        // SAFETY: ends this process without running anything of the program it was forked from.
        unsafe { libc::_exit(code) }
    }
}

/// Signals blocked in this thread until dropped.
#[derive(Debug)]
pub(crate) struct BlockedSignals {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

impl BlockedSignals {
    /// Blocks `numbers` in this thread, so that they wait to be taken.
    pub(crate) fn block(numbers: &[libc::c_int]) -> io::Result<Self> {
        let mut set = empty_set();
        let mut before = empty_set();
        for &number in numbers {
            // SAFETY: `set` is an initialised signal set.
            if unsafe { libc::sigaddset(&mut set, number) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: both sets are initialised and live.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        Ok(Self { set, before })
    }

    /// Returns the signals that were blocked before.
    pub(crate) fn before(&self) -> SignalSet {
        SignalSet(self.before)
    }

    /// Waits for one of the signals, takes it, and returns its number.
    pub(crate) fn wait(&self) -> io::Result<libc::c_int> {
        loop {
            // SAFETY: the set is initialised; a null pointer asks for the number alone.
            let number = unsafe { libc::sigwaitinfo(&self.set, std::ptr::null_mut()) };
            if number > 0 {
                return Ok(number);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_blocked(&self.before);
    }
}

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

/// Makes `set` the signals this thread has blocked.
fn set_blocked(set: &libc::sigset_t) {
    // SAFETY: every `sigset_t` of this file comes from sigemptyset or the kernel; the old set is not asked for.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, set, std::ptr::null_mut());
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: all-zero is a value of this integer array, and sigemptyset initialises it for libraries where it is not empty.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        set
    }
}

/// Gives `SIGCHLD` its default action: a caller that ignores it would make every wait fail.
pub(crate) fn default_child_signal() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Returns the raw number of `fd`.
pub(crate) fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}

/// Returns a memory file holding `content`, to be read from its start.
pub(crate) fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(
        name,
        rustix::fs::MemfdFlags::CLOEXEC,
    )?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}
