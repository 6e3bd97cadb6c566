//! Clones files for commands on file systems that cannot.
//!
//! dracut-install asks for a clone of each of some four thousand files (`FICLONE`, ioctl_ficlone(2)) and starts `cp` wherever the file
//! system has none, which takes most of its time. Here that one request is held by a seccomp filter, and answered when this
//! program has copied the file through the caller's own descriptors: the caller gets no access that it does not have.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{seccomp, sys};

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 18;

/// Will answer the requests of one sandbox.
#[derive(Debug)]
pub(crate) struct Requested {
    socket: OwnedFd,
}

/// Answers the requests of one sandbox until it is dropped.
#[derive(Debug)]
pub(crate) struct Cloner {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Requested {
    /// Arranges that the requests of `command` and all it starts wait for answers.
    pub(crate) fn install(command: &mut Command) -> io::Result<Self> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sys::notify(command, seccomp::clone_requests(), theirs);
        Ok(Self { socket })
    }

    /// Begins to answer, once the command has been spawned and dropped. `None` where the kernel does not let anybody.
    pub(crate) fn start(self) -> io::Result<Option<Cloner>> {
        let Some(listener) = receive(&self.socket)? else {
            return Ok(None);
        };
        let (stopped, stop) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new()
            .name("clones".to_owned())
            .spawn(move || serve(&listener, &stopped))?;
        Ok(Some(Cloner {
            stop: Some(stop),
            thread: Some(thread),
        }))
    }
}

impl Drop for Cloner {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    match recvmsg(
        socket,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut control,
        flags,
    ) {
        Ok(_) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().next())
}

fn serve(listener: &OwnedFd, stopped: &OwnedFd) {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let mut sources = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let [request, stop] = sources.map(|source| source.revents());
        if !stop.is_empty() || !request.contains(PollFlags::IN) {
            return;
        }
        // Its caller may be gone by now, which is nobody's loss.
        let Ok(call) = sys::next_notification(listener) else {
            continue;
        };
        let errno = match copy(listener, &call, &mut buffer) {
            Ok(()) => 0,
            // What a file system without clones says: the caller knows what to do then.
            Err(_) => Errno::OPNOTSUPP.raw_os_error(),
        };
        let _ = sys::answer(listener, &call, errno);
    }
}

/// Copies the whole file behind the caller's third argument into that behind its first.
fn copy(listener: &OwnedFd, call: &sys::Notification, buffer: &mut [u8]) -> io::Result<()> {
    let caller = pidfd_open(call.pid, PidfdFlags::empty())?;
    if !sys::still_waits(listener, call) {
        return Err(Errno::SRCH.into());
    }
    let file = |argument: u64| -> io::Result<File> {
        let number = i32::try_from(argument).map_err(|_| Errno::BADF)?;
        let file = File::from(pidfd_getfd(&caller, number, PidfdGetfdFlags::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(Errno::INVAL.into())
        }
    };
    let (to, from) = (file(call.arguments[0])?, file(call.arguments[2])?);
    let mut offset = 0;
    loop {
        let count = from.read_at(buffer, offset)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..count], offset)?;
        offset += count as u64;
    }
}
