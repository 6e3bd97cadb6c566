//! A spec as bubblewrap arguments. Pure; nothing is looked up or opened here.
//!
//! The options go to bubblewrap through a file descriptor (`--args`), so that the environment never stands on a command line
//! that every user of the host can read. bubblewrap 0.5.0 is the oldest with every option used here.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use thiserror::Error;

use crate::mountpoint::Targets;
use crate::spec::{Mount, Network, SandboxSpec};

/// The oldest bubblewrap that has every option used here.
pub const MIN_VERSION: (u32, u32, u32) = (0, 5, 0);

/// What a default container may do as root: own files of others, change IDs, bind low ports. Not: mount, trace the kernel, load modules,
/// make device nodes, open raw sockets.
const CAPABILITIES: [&str; 12] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Why a spec cannot be turned into arguments.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no command.
    #[error("no command to run")]
    NoCommand,
    /// A string holds a NUL byte, which ends every string the kernel takes.
    #[error("{what} {value:?} holds a NUL byte")]
    Nul {
        /// Which part of the spec.
        what: &'static str,
        /// The string.
        value: OsString,
    },
    /// The name of an environment variable is empty or holds `=`.
    #[error("{name:?} is no name of an environment variable")]
    EnvName {
        /// The name.
        name: OsString,
    },
}

/// The file descriptors that the arguments name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// The seccomp program.
    pub seccomp: RawFd,
    /// Where bubblewrap reports the sandbox's first process and its exit code.
    pub status: RawFd,
    /// The content of each [`Mount::File`] of the spec, in their order.
    pub files: Vec<RawFd>,
}

/// Refuses specs that could be read as other specs.
///
/// # Errors
///
/// See [`SpecError`].
pub fn check(spec: &SandboxSpec) -> Result<(), SpecError> {
    if spec.argv.first().is_none_or(|program| program.is_empty()) {
        return Err(SpecError::NoCommand);
    }
    if let Some((name, _)) = spec
        .env
        .iter()
        .find(|(name, _)| name.is_empty() || name.as_bytes().contains(&b'='))
    {
        return Err(SpecError::EnvName { name: name.clone() });
    }
    let mounts = spec.mounts.iter().flat_map(|mount| match mount {
        Mount::Bind { source, target, .. } => vec![source, target],
        Mount::Tmpfs { target, .. } | Mount::File { target, .. } => vec![target],
    });
    let strings = spec
        .argv
        .iter()
        .map(|argument| ("argument", argument.as_os_str()))
        .chain(spec.env.iter().flat_map(|(name, value)| {
            [
                ("environment variable", name.as_os_str()),
                ("environment value", value.as_os_str()),
            ]
        }))
        .chain(mounts.map(|path| ("mount path", path.as_os_str())))
        .chain([
            ("root", spec.root.as_os_str()),
            ("directory", spec.cwd.as_os_str()),
            ("host name", OsStr::new(&spec.hostname)),
        ]);
    match strings
        .into_iter()
        .find(|(_, text)| text.as_bytes().contains(&0))
    {
        Some((what, value)) => Err(SpecError::Nul {
            what,
            value: value.to_owned(),
        }),
        None => Ok(()),
    }
}

/// Returns the options for `spec`, without the command; its mounts go to `targets`.
pub fn options(spec: &SandboxSpec, targets: &Targets, fds: &Descriptors) -> Vec<OsString> {
    let mut options = Options::default();
    isolation(&mut options, spec, fds);
    options.add(["--bind".as_ref(), spec.root.as_os_str(), "/".as_ref()]);
    fixed_mounts(&mut options, targets);
    own_mounts(&mut options, spec, targets, &fds.files);
    options.add(["--chdir".as_ref(), spec.cwd.as_os_str()]);
    options.add(["--clearenv"]);
    for (name, value) in &spec.env {
        options.add(["--setenv".as_ref(), name.as_os_str(), value.as_os_str()]);
    }
    options.0
}

/// Joins `options` as `--args` reads them: each ended by a NUL byte.
pub fn nul_terminated(options: &[OsString]) -> Vec<u8> {
    options
        .iter()
        .flat_map(|option| [option.as_bytes(), b"\0"])
        .flatten()
        .copied()
        .collect()
}

#[derive(Debug, Default)]
struct Options(Vec<OsString>);

impl Options {
    fn add<const N: usize, S: AsRef<OsStr>>(&mut self, words: [S; N]) {
        self.0.extend(words.map(|word| word.as_ref().to_owned()));
    }

    fn mount(&mut self, option: &str, source: &Path, target: &Path) {
        self.add([option.as_ref(), source.as_os_str(), target.as_os_str()]);
    }

    fn tmpfs(&mut self, mode: u32, target: &Path) {
        self.add([
            "--perms".as_ref(),
            OsStr::new(&format!("{mode:04o}")),
            "--tmpfs".as_ref(),
            target.as_os_str(),
        ]);
    }
}

fn isolation(options: &mut Options, spec: &SandboxSpec, fds: &Descriptors) {
    options.add([
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]);
    if spec.network == Network::None {
        options.add(["--unshare-net"]);
    }
    options.add(["--hostname", &spec.hostname]);
    // The stage's session has no terminal: another one would only set its commands apart from what works beside them.
    options.add(["--die-with-parent"]);
    // Root of the stage would otherwise keep every capability of the stage.
    options.add(["--cap-drop", "ALL"]);
    for capability in CAPABILITIES {
        options.add(["--cap-add", capability]);
    }
    options.add(["--seccomp", &fds.seccomp.to_string()]);
    options.add(["--json-status-fd", &fds.status.to_string()]);
}

fn fixed_mounts(options: &mut Options, targets: &Targets) {
    options.add(["--proc".as_ref(), targets.proc.as_os_str()]);
    options.add(["--dev".as_ref(), targets.dev.as_os_str()]);
    options.tmpfs(0o1777, &targets.dev.join("shm"));
    // Empty, and read-only so that nothing written there is mistaken for a change of the image.
    options.tmpfs(0o555, &targets.sys);
    options.add(["--remount-ro".as_ref(), targets.sys.as_os_str()]);
    options.tmpfs(0o1777, &targets.tmp);
    options.tmpfs(0o755, &targets.run);
    options.add([
        "--perms".as_ref(),
        "1777".as_ref(),
        "--dir".as_ref(),
        targets.run.join("lock").as_os_str(),
    ]);
}

fn own_mounts(options: &mut Options, spec: &SandboxSpec, targets: &Targets, files: &[RawFd]) {
    let mut files = files.iter();
    for (mount, target) in spec.mounts.iter().zip(&targets.mounts) {
        match mount {
            Mount::Bind {
                source,
                read_only: true,
                ..
            } => options.mount("--ro-bind", source, target),
            Mount::Bind {
                source,
                read_only: false,
                ..
            } => options.mount("--bind", source, target),
            Mount::Tmpfs { mode, .. } => options.tmpfs(*mode, target),
            Mount::File { mode, .. } => {
                let Some(fd) = files.next() else { continue };
                options.add(["--perms", &format!("{mode:04o}")]);
                options.add([
                    "--ro-bind-data".as_ref(),
                    OsStr::new(&fd.to_string()),
                    target.as_os_str(),
                ]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        let mut spec = SandboxSpec::new("/store/merged", ["/bin/sh", "-c", "true"]);
        spec.env = vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("TOKEN".into(), "--bind / /".into()),
        ];
        spec.mounts = vec![
            Mount::Bind {
                source: "/cache/apt".into(),
                target: "/var/cache/apt".into(),
                read_only: false,
            },
            Mount::Bind {
                source: "/etc/hosts".into(),
                target: "/etc/hosts".into(),
                read_only: true,
            },
            Mount::File {
                target: "/etc/resolv.conf".into(),
                content: b"nameserver 192.0.2.1\n".to_vec(),
                mode: 0o644,
            },
            Mount::Tmpfs {
                target: "/var/tmp".into(),
                mode: 0o1777,
            },
        ];
        spec
    }

    /// Puts each option on a line of its own, with its values.
    fn listed(options: &[OsString]) -> String {
        let mut text = String::new();
        for word in options {
            let word = word.to_str().unwrap();
            text.push_str(if word.starts_with("--") && !word.contains(' ') {
                "\n"
            } else {
                " "
            });
            text.push_str(word);
        }
        text.trim_start().to_owned()
    }

    #[test]
    fn the_whole_option_list() {
        let fds = Descriptors {
            seccomp: 5,
            status: 6,
            files: vec![7],
        };
        let spec = spec();
        let expected = "\
--unshare-pid
--unshare-ipc
--unshare-uts
--unshare-cgroup-try
--unshare-net
--hostname localhost
--die-with-parent
--cap-drop ALL
--cap-add CAP_AUDIT_WRITE
--cap-add CAP_CHOWN
--cap-add CAP_DAC_OVERRIDE
--cap-add CAP_FOWNER
--cap-add CAP_FSETID
--cap-add CAP_KILL
--cap-add CAP_NET_BIND_SERVICE
--cap-add CAP_SETFCAP
--cap-add CAP_SETGID
--cap-add CAP_SETPCAP
--cap-add CAP_SETUID
--cap-add CAP_SYS_CHROOT
--seccomp 5
--json-status-fd 6
--bind /store/merged /
--proc /proc
--dev /dev
--perms 1777
--tmpfs /dev/shm
--perms 0555
--tmpfs /sys
--remount-ro /sys
--perms 1777
--tmpfs /tmp
--perms 0755
--tmpfs /run
--perms 1777
--dir /run/lock
--bind /cache/apt /var/cache/apt
--ro-bind /etc/hosts /etc/hosts
--perms 0644
--ro-bind-data 7 /etc/resolv.conf
--perms 1777
--tmpfs /var/tmp
--chdir /
--clearenv
--setenv PATH /usr/bin:/bin
--setenv TOKEN --bind / /";
        assert_eq!(
            listed(&options(&spec, &Targets::unresolved(&spec), &fds)),
            expected
        );
    }

    #[test]
    fn the_host_network_is_kept_only_on_request() {
        let fds = Descriptors {
            seccomp: 5,
            status: 6,
            files: vec![],
        };
        let mut spec = SandboxSpec::new("/r", ["true"]);
        let has_net = |spec: &SandboxSpec| {
            options(spec, &Targets::unresolved(spec), &fds).contains(&"--unshare-net".into())
        };
        assert!(has_net(&spec));
        spec.network = Network::Host;
        assert!(!has_net(&spec));
    }

    #[test]
    fn a_nul_byte_cannot_smuggle_an_option_in() {
        let mut spec = spec();
        spec.env.push(("X".into(), "a\0--bind\0/\0/".into()));
        assert!(matches!(
            check(&spec),
            Err(SpecError::Nul {
                what: "environment value",
                ..
            })
        ));
    }

    #[test]
    fn specs_without_a_command_or_with_odd_variables_are_refused() {
        assert_eq!(
            check(&SandboxSpec::new("/r", [""; 0])),
            Err(SpecError::NoCommand)
        );
        assert_eq!(
            check(&SandboxSpec::new("/r", [""])),
            Err(SpecError::NoCommand)
        );
        let mut spec = spec();
        spec.env.push(("A=B".into(), "".into()));
        assert_eq!(check(&spec), Err(SpecError::EnvName { name: "A=B".into() }));
    }

    #[test]
    fn options_are_ended_by_nul_bytes() {
        assert_eq!(nul_terminated(&["--a".into(), "b".into()]), b"--a\0b\0");
    }
}
