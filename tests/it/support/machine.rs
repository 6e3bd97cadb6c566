//! An emulated machine, and what it says on its serial console.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{need, skipped, world};

/// A running QEMU, which ends with this value. Plain emulation: it needs no privilege and no device.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    keys: ChildStdin,
    console: Receiver<Vec<u8>>,
    /// What was said, without escape sequences.
    said: String,
    /// How much of that was waited for already.
    seen: usize,
    start: Instant,
}

/// Bytes of the console that a failure tells.
const TAIL: usize = 6000;

impl Machine {
    /// Starts a machine with these devices; `None`, and a line that says so, where there is no emulator.
    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(
        memory_mib: u32,
        arguments: impl IntoIterator<Item = S>,
    ) -> Option<Self> {
        if !need(&["qemu-system-x86_64"]) || std::env::consts::ARCH != "x86_64" {
            return None;
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-smp", "2"])
            .args(["-m", &memory_mib.to_string()])
            .args(["-nographic", "-no-reboot"])
            .args(arguments);
        Some(Self::run_it(command))
    }

    /// Starts a Raspberry Pi 3 with these devices; `None`, and a line that says so, where there is no emulator. Its console is the
    /// second serial line, which is the one that its device tree names.
    pub(crate) fn raspberry_pi<S: AsRef<std::ffi::OsStr>>(
        arguments: impl IntoIterator<Item = S>,
    ) -> Option<Self> {
        if !need(&["qemu-system-aarch64"]) {
            return None;
        }
        let mut command = Command::new("qemu-system-aarch64");
        command
            .args(["-M", "raspi3b", "-accel", "tcg,thread=multi"])
            .args(["-display", "none", "-monitor", "none", "-no-reboot"])
            .args(["-serial", "null", "-serial", "stdio"])
            .args(arguments);
        Some(Self::run_it(command))
    }

    fn run_it(mut command: Command) -> Self {
        let mut child = command
            .current_dir(&world().dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("qemu starts");
        let mut serial = child.stdout.take().expect("piped");
        let (sender, console) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = serial.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys: child.stdin.take().expect("piped"),
            child,
            console,
            said: String::new(),
            seen: 0,
            start: Instant::now(),
        }
    }

    /// Waits until the console shows one of `words` after what was waited for last; returns which.
    #[track_caller]
    pub(crate) fn wait_for<'a>(&mut self, words: &[&'a str], limit: Duration) -> &'a str {
        let end = Instant::now() + limit;
        loop {
            let new = &self.said[self.seen..];
            let first = words
                .iter()
                .filter_map(|word| new.find(word).map(|at| (at, *word)))
                .min();
            if let Some((at, word)) = first {
                self.seen += at + word.len();
                return word;
            }
            match self
                .console
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.said.push_str(&plain(&bytes)),
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "the console did not show {words:?} within {limit:?}; {}",
                        self.tail()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!(
                        "the machine ended before it showed {words:?}; {}",
                        self.tail()
                    )
                }
            }
        }
    }

    /// Waits until the machine is switched off, or would restart.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            match self
                .console
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.said.push_str(&plain(&bytes)),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the machine did not end within {limit:?}; {}", self.tail())
                }
            }
        }
    }

    /// Types `text` and the enter key.
    pub(crate) fn send(&mut self, text: &str) {
        let _ = self.keys.write_all(format!("{text}\n").as_bytes());
        let _ = self.keys.flush();
    }

    /// Has the shell at the console run `command`, and returns what it prints.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str, limit: Duration) -> String {
        // Typed in pieces, so that the echo of what is typed does not show the words that are waited for.
        self.send(&format!("echo BEG''IN; {command}; echo E''ND"));
        self.wait_for(&["BEGIN"], limit);
        let start = self.seen;
        self.wait_for(&["END"], limit);
        let text = &self.said[start..self.seen - "END".len()];
        text.trim().replace('\r', "")
    }

    /// Returns everything that was said so far.
    pub(crate) fn said(&self) -> &str {
        &self.said
    }

    /// Returns how long it has been running.
    pub(crate) fn uptime(&self) -> Duration {
        self.start.elapsed()
    }

    fn tail(&self) -> String {
        let mut from = self.said.len().saturating_sub(TAIL);
        while !self.said.is_char_boundary(from) {
            from += 1;
        }
        format!("it ended with\n{}", &self.said[from..])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Debian and Ubuntu have UEFI for QEMU.
pub(crate) fn firmware() -> Option<&'static str> {
    let file = "/usr/share/ovmf/OVMF.fd";
    if Path::new(file).is_file() {
        return Some(file);
    }
    skipped("there is no UEFI firmware for QEMU (the package `ovmf`)");
    None
}

/// Returns text without the sequences that move the cursor and set colours, which may be cut anywhere.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if rest.next() == Some('[') {
            let _ = rest.by_ref().find(|c| c.is_ascii_alphabetic());
        }
    }
    out
}
