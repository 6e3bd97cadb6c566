//! What one command may see and use, as plain data.
//!
//! A spec is built first, printed and compared in tests, and applied last. It must not know how it is applied.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One command in one root filesystem.
///
/// Beside `root` the command always gets: new `/proc`; a minimal `/dev`; empty `/tmp` (1777), `/run` (with `/run/lock`, 1777) and
/// read-only `/sys`; its own PID, IPC, UTS and cgroup namespaces; the capabilities of a default container; the filter of
/// [`crate::seccomp`]. Nothing of the environment is inherited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The root filesystem: a mounted tree, writable. It keeps what the command changes.
    pub root: PathBuf,
    /// The command and its arguments; a name without `/` is looked up on the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment. Not for secrets: it may be printed with the spec. Secrets are files.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside; it must exist there.
    pub cwd: PathBuf,
    /// What network the command sees.
    pub network: Network,
    /// Further mounts, made in this order after the fixed ones.
    pub mounts: Vec<Mount>,
    /// The host name inside; it ends up in what some packages generate, so it is constant by default.
    pub hostname: String,
    /// What the command reads.
    pub stdin: Stdin,
    /// What becomes of its standard output.
    pub stdout: Stdout,
    /// Whether files are copied for commands that ask for clones, where the file system has none: faster than each of their own ways
    /// to copy. Where the kernel does not allow it, it is as without.
    pub clones: bool,
    /// The most bytes that it may print as lines, on both streams together; then it is killed with all it started. For whoever keeps
    /// the lines. `None`: as much as it likes.
    pub printed_limit_bytes: Option<usize>,
    /// The longest it may take; then it is killed with all it started. `None`: as long as it likes.
    pub time_limit: Option<Duration>,
}

impl SandboxSpec {
    /// Returns the spec of `argv` in `root`: `/` as directory, no environment, no network, no further mounts, closed input, output
    /// as lines, no limit of time or output.
    pub fn new(
        root: impl Into<PathBuf>,
        argv: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            root: root.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            network: Network::None,
            mounts: Vec::new(),
            hostname: "localhost".to_owned(),
            stdin: Stdin::Closed,
            stdout: Stdout::Lines,
            clones: false,
            printed_limit_bytes: None,
            time_limit: None,
        }
    }

    /// Returns the command as one line that a shell would read back, for messages and logs.
    pub fn command_line(&self) -> String {
        self.argv
            .iter()
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn quoted(word: &OsStr) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./=:,+@%".contains(byte);
    let text = word.to_string_lossy();
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return text.into_owned();
    }
    if text.chars().any(char::is_control) {
        // `$'...'` keeps control characters away from the terminal.
        return format!("$'{}'", text.chars().map(escaped).collect::<String>());
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn escaped(character: char) -> String {
    match character {
        '\'' | '\\' => format!("\\{character}"),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    }
}

/// What network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// A network namespace of its own with nothing but `lo`.
    #[default]
    None,
    /// The network of this process, abstract Unix sockets included.
    Host,
}

/// What a command reads from its standard input.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing: end of file at once.
    #[default]
    Closed,
    /// These bytes, then end of file.
    Bytes(Vec<u8>),
}

/// What becomes of a command's standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdout {
    /// It is passed on line by line, as standard error always is.
    #[default]
    Lines,
    /// It is an answer: kept byte for byte in [`crate::launch::Outcome::stdout`] and passed on to nobody.
    Captured {
        /// The most bytes to keep; more is an error, so that memory stays bounded.
        limit_bytes: usize,
    },
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("Closed"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// A mount in a sandbox. Targets are absolute paths inside; symbolic links in them are resolved within the root filesystem.
///
/// A target that does not exist is made for the run and removed afterwards, so that it never ends in a layer.
#[derive(Clone, PartialEq, Eq)]
pub enum Mount {
    /// A file or directory of this process's filesystem.
    Bind {
        /// The path outside.
        source: PathBuf,
        /// The path inside.
        target: PathBuf,
        /// Whether writing through it is refused.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// The path inside.
        target: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A read-only file with this content, owned by root. For secrets and for files such as `/etc/resolv.conf`.
    File {
        /// The path inside.
        target: PathBuf,
        /// What it holds; not printed.
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
    },
}

impl Mount {
    /// Returns the path inside.
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } | Self::File { target, .. } => {
                target
            }
        }
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind {
                source,
                target,
                read_only,
            } => {
                write!(
                    f,
                    "Bind {{ {source:?} on {target:?}{} }}",
                    if *read_only { ", read-only" } else { "" }
                )
            }
            Self::Tmpfs { target, mode } => write!(f, "Tmpfs {{ {target:?}, mode {mode:04o} }}"),
            Self::File {
                target,
                content,
                mode,
            } => {
                write!(
                    f,
                    "File {{ {target:?}, {} bytes, mode {mode:04o} }}",
                    content.len()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_reads_back_in_a_shell() {
        let spec = SandboxSpec::new("/r", ["sh", "-c", "echo 'a b' \"$X\"", "", "tab\there"]);
        assert_eq!(
            spec.command_line(),
            r#"sh -c 'echo '\''a b'\'' "$X"' '' $'tab\there'"#
        );
    }

    #[test]
    fn control_characters_of_a_command_do_not_reach_a_terminal() {
        let line = SandboxSpec::new("/r", ["printf", "\u{1b}[2J"]).command_line();
        assert_eq!(line, r"printf $'\u001b[2J'");
    }

    #[test]
    fn printing_a_spec_shows_no_file_content() {
        let mut spec = SandboxSpec::new("/r", ["true"]);
        spec.mounts.push(Mount::File {
            target: "/run/secrets/key".into(),
            content: b"hunter2".to_vec(),
            mode: 0o400,
        });
        spec.stdin = Stdin::Bytes(b"hunter2".to_vec());
        let text = format!("{spec:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("7 bytes, mode 0400"), "{text}");
    }
}
