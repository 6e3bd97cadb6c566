//! Why a stage cannot be entered, and what forbids it.

use std::fs;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::idmap::IdMapError;
use crate::sys::ChildStep;

/// Why the stage cannot be entered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StageError {
    /// There are too few IDs to map.
    #[error("mapping user and group IDs")]
    IdMap(#[from] IdMapError),
    /// `newuidmap` or `newgidmap` is not on `PATH`.
    #[error("`{program}` is not installed")]
    HelperMissing {
        /// The program that is missing.
        program: &'static str,
    },
    /// `newuidmap` or `newgidmap` refused the map.
    #[error("`{program}` refused the ID map ({status}): {stderr}")]
    HelperFailed {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The kernel or a security module forbids the user namespace, or what we need to do in it.
    #[error("{doing}")]
    Forbidden {
        /// What was being done.
        doing: &'static str,
        /// The settings that forbid it, as far as they can be told.
        settings: Vec<Setting>,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The map could not be written although we are root here.
    #[error("writing {file:?}")]
    MapWrite {
        /// The file in `/proc`.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A plain system call failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A kernel setting that forbids user namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name for `sysctl`.
    pub name: &'static str,
    /// The value it has.
    pub value: String,
    /// The value that allows user namespaces.
    pub wanted: &'static str,
}

impl StageError {
    /// Returns what the reader can do about it, one command or setting per line.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::IdMap(error) => error.hints(),
            Self::HelperMissing { .. } => {
                vec!["`apt-get install uidmap` (Debian, Ubuntu) or `dnf install shadow-utils` (Fedora, RHEL)".to_owned()]
            }
            Self::HelperFailed { program, .. } => vec![format!(
                "`ls -l $(command -v {program})` shows whether it is setuid root or has file capabilities; inside a container without them it cannot work"
            )],
            Self::Forbidden { settings, .. } if settings.is_empty() => vec![
                "a container's seccomp profile or a security module may forbid it: `podman run --security-opt seccomp=unconfined --security-opt unmask=ALL` or a pod's `hostUsers` and `procMount` allow it".to_owned(),
            ],
            Self::Forbidden { settings, .. } => settings
                .iter()
                .map(|setting| format!("`sysctl -w {}={}` as root allows it (now {})", setting.name, setting.wanted, setting.value))
                .collect(),
            Self::MapWrite { .. } => vec!["uid 0 without CAP_SETUID, CAP_SETGID and CAP_SETFCAP cannot map IDs: run as a plain user with subordinate IDs".to_owned()],
            Self::Io { .. } => Vec::new(),
        }
    }
}

/// Explains why the child failed, by how far it came.
pub(super) fn child_error(reached: Option<ChildStep>, source: io::Error) -> StageError {
    let doing = match reached {
        None => "creating a user namespace",
        Some(ChildStep::Unshared) => "becoming root of the user namespace",
        Some(ChildStep::BecameRoot) => "making the mounts private",
        Some(ChildStep::MountsPrivate | ChildStep::Mounted) => {
            return StageError::Io {
                doing: "starting the program again",
                source,
            };
        }
    };
    let settings = forbidding_settings();
    // EUSERS is what kernels before 4.9 said for ENOSPC; EACCES is AppArmor's.
    let forbidding = [
        libc::EPERM,
        libc::EACCES,
        libc::ENOSPC,
        libc::EUSERS,
        libc::EINVAL,
        libc::ENOSYS,
    ];
    if source
        .raw_os_error()
        .is_some_and(|errno| forbidding.contains(&errno))
    {
        return StageError::Forbidden {
            doing,
            settings,
            source,
        };
    }
    StageError::Io { doing, source }
}

/// Returns the settings of this host that forbid user namespaces.
fn forbidding_settings() -> Vec<Setting> {
    let table = [
        (
            "user.max_user_namespaces",
            "/proc/sys/user/max_user_namespaces",
            "0",
            "15000",
        ),
        (
            "kernel.unprivileged_userns_clone",
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0",
            "1",
        ),
        (
            "kernel.apparmor_restrict_unprivileged_userns",
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "0",
        ),
    ];
    table
        .into_iter()
        .filter_map(|(name, file, bad, wanted)| {
            let value = fs::read_to_string(file).ok()?.trim().to_owned();
            (value == bad).then_some(Setting {
                name,
                value,
                wanted,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_namespace_is_told_from_a_failing_system() {
        let refused = child_error(None, io::Error::from_raw_os_error(libc::EPERM));
        assert!(matches!(refused, StageError::Forbidden { .. }));
        assert!(!refused.hints().is_empty());
        let failed = child_error(None, io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(matches!(
            failed,
            StageError::Io {
                doing: "creating a user namespace",
                ..
            }
        ));
    }

    #[test]
    fn settings_become_commands() {
        let error = StageError::Forbidden {
            doing: "creating a user namespace",
            settings: vec![Setting {
                name: "user.max_user_namespaces",
                value: "0".into(),
                wanted: "15000",
            }],
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert_eq!(
            error.hints(),
            ["`sysctl -w user.max_user_namespaces=15000` as root allows it (now 0)"]
        );
    }
}
