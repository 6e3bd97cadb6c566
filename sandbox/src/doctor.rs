//! Says what this host allows, by making the real system calls in short-lived children, and what to do where it does not.
//!
//! Nothing stays behind. It must not know about disk space, registries or the store's content.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bwrap::{self, Descriptors};
use crate::idmap::{self, MapWriter};
use crate::mountpoint::Targets;
use crate::overlay;
use crate::spec::SandboxSpec;
use crate::stage::{self, Plan, StageError};
use crate::sys::{self, ChildStep};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Nothing will work until this is remedied.
    Fail,
}

impl Level {
    /// Returns the word for it in text and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A constant name: `sub-ids`, `user-namespaces`, `overlayfs`, `bubblewrap`, `seccomp` or `conversion`.
    pub id: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do about it; several ways are on lines of their own.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self {
            id,
            level: Level::Ok,
            what: what.into(),
            remedy: None,
        }
    }

    fn fail(id: &'static str, what: impl Into<String>, hints: &[String]) -> Self {
        let remedy = (!hints.is_empty()).then(|| hints.join("\n"));
        Self {
            id,
            level: Level::Fail,
            what: what.into(),
            remedy,
        }
    }

    fn untried(id: &'static str, needs: &str) -> Self {
        Self::fail(id, format!("not tried: it needs {needs}"), &[])
    }
}

/// Tries everything a conversion needs, in the order it needs it. `store` is the directory that will hold the changes; it must exist
/// and be writable, and the overlay is tried on its file system.
///
/// Call it outside a stage, as the user who will convert; it takes some 20 ms.
pub fn probe(store: &Path) -> Vec<Finding> {
    let mut findings = vec![sub_ids()];
    match Plan::for_this_process() {
        Ok(plan) => findings.extend(on_a_stage(&plan, store)),
        Err(error) => {
            if !matches!(error, StageError::IdMap(_)) {
                findings.push(stage_failure(&error));
            }
            findings.extend(
                ["overlayfs", "bubblewrap", "seccomp"]
                    .map(|id| Finding::untried(id, "a user namespace")),
            );
        }
    }
    findings.push(conversion(&findings));
    findings
}

fn sub_ids() -> Finding {
    match stage::map_of_this_process() {
        Ok(map) if map.writer == MapWriter::Ourselves => Finding::ok(
            "sub-ids",
            format!(
                "root here, with {} uids and {} gids",
                idmap::total(&map.uids),
                idmap::total(&map.gids)
            ),
        ),
        Ok(map) => {
            let (uids, gids) = (idmap::total(&map.uids), idmap::total(&map.gids));
            Finding::ok(
                "sub-ids",
                format!(
                    "{} subordinate uids and {} subordinate gids",
                    uids - 1,
                    gids - 1
                ),
            )
        }
        Err(error) => Finding::fail("sub-ids", chain(&error), &error.hints()),
    }
}

fn on_a_stage(plan: &Plan, store: &Path) -> Vec<Finding> {
    if let Err(error) = enter_and_leave(plan) {
        let rest = ["overlayfs", "bubblewrap", "seccomp"]
            .map(|id| Finding::untried(id, "a user namespace"));
        return [stage_failure(&error)].into_iter().chain(rest).collect();
    }
    let mut findings = vec![Finding::ok(
        "user-namespaces",
        "a user and mount namespace with these IDs can be entered",
    )];
    findings.push(overlayfs(plan, store));
    findings.extend(bubblewrap(plan));
    findings
}

fn stage_failure(error: &StageError) -> Finding {
    Finding::fail("user-namespaces", chain(error), &error.hints())
}

/// A command that does nothing.
fn nothing() -> Command {
    let mut command =
        Command::new(stage::find_program("true").unwrap_or_else(|| PathBuf::from("true")));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn enter_and_leave(plan: &Plan) -> Result<(), StageError> {
    let mut child = plan.spawn(nothing(), None, None)?.child?;
    child.wait().map(drop).map_err(|source| StageError::Io {
        doing: "waiting for a trial process",
        source,
    })
}

fn overlayfs(plan: &Plan, store: &Path) -> Finding {
    let directory = store.join(format!(".overlay-trial-{}", std::process::id()));
    let result = try_overlay(plan, &directory);
    remove_trial(&directory);
    match result {
        Ok(()) => Finding::ok(
            "overlayfs",
            format!(
                "overlayfs can be mounted with changes in {}",
                store.display()
            ),
        ),
        Err(error) => {
            let error = overlay::MountError::Mount {
                kind: "overlay",
                target: store.to_owned(),
                detail: String::new(),
                source: error,
            };
            Finding::fail("overlayfs", chain(&error), &error.hints())
        }
    }
}

fn try_overlay(plan: &Plan, directory: &Path) -> io::Result<()> {
    fs::create_dir(directory)?;
    let trial = overlay::trial_mount(directory)?;
    let staged = plan
        .spawn(nothing(), None, Some(trial))
        .map_err(io::Error::other)?;
    match staged.child {
        Ok(mut child) => child.wait().map(drop),
        // Whatever came after the mount is not the overlay's fault.
        Err(_) if staged.reached == Some(ChildStep::Mounted) => Ok(()),
        Err(StageError::Io { source, .. } | StageError::Forbidden { source, .. }) => Err(source),
        Err(other) => Err(io::Error::other(other)),
    }
}

/// Removes a trial's directories, of which the kernel made some that nobody may read.
fn remove_trial(directory: &Path) {
    // Nothing depends on success: the name is our own, and a store holds nothing of that name for good.
    for inner in [
        "work/work",
        "work/work/incompat",
        "work/work/incompat/volatile",
    ] {
        let mode = fs::Permissions::from_mode(0o700);
        let _ = fs::set_permissions(directory.join(inner), mode);
    }
    let _ = fs::remove_dir_all(directory);
}

fn bubblewrap(plan: &Plan) -> Vec<Finding> {
    let Some(program) = stage::find_program("bwrap") else {
        let missing = crate::LaunchError::BwrapMissing;
        let finding = Finding::fail("bubblewrap", missing.to_string(), &missing.hints());
        return vec![finding, Finding::untried("seccomp", "bubblewrap")];
    };
    let version = version_of(&program);
    let (major, minor, patch) = bwrap::MIN_VERSION;
    if version.is_none_or(|version| version < bwrap::MIN_VERSION) {
        let what = format!(
            "{} has version {}, needs {major}.{minor}.{patch}",
            program.display(),
            shown(version)
        );
        let hints = ["install a later bubblewrap and put it first on `PATH`".to_owned()];
        return vec![
            Finding::fail("bubblewrap", what, &hints),
            Finding::untried("seccomp", "bubblewrap"),
        ];
    }
    let Ok(filter) = crate::seccomp::memory_file() else {
        let what = format!(
            "there is no system call filter for {}",
            std::env::consts::ARCH
        );
        return vec![
            Finding::untried("bubblewrap", "a system call filter"),
            Finding::fail("seccomp", what, &[]),
        ];
    };
    match try_bubblewrap(plan, &program, &filter) {
        Ok(()) => vec![
            Finding::ok(
                "bubblewrap",
                format!(
                    "{} {} runs a command in its own namespaces",
                    program.display(),
                    shown(version)
                ),
            ),
            Finding::ok("seccomp", "the system call filter is accepted"),
        ],
        Err(said) if said.contains("seccomp") => vec![
            Finding::ok(
                "bubblewrap",
                format!("{} {} runs", program.display(), shown(version)),
            ),
            Finding::fail(
                "seccomp",
                said,
                &["the kernel needs CONFIG_SECCOMP_FILTER".to_owned()],
            ),
        ],
        Err(said) => {
            let error = crate::launch::refused_setup(&said);
            vec![
                Finding::fail("bubblewrap", error.to_string(), &error.hints()),
                Finding::untried("seccomp", "bubblewrap"),
            ]
        }
    }
}

fn version_of(program: &Path) -> Option<(u32, u32, u32)> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text
        .split_whitespace()
        .last()?
        .split('.')
        .map(|part| part.parse().ok());
    Some((
        numbers.next()??,
        numbers.next()??,
        numbers.next().flatten().unwrap_or(0),
    ))
}

fn shown(version: Option<(u32, u32, u32)>) -> String {
    version.map_or("unknown".to_owned(), |(major, minor, patch)| {
        format!("{major}.{minor}.{patch}")
    })
}

/// Runs a command that does nothing in a sandbox over the host's own root; returns what bubblewrap says where that fails.
fn try_bubblewrap(
    plan: &Plan,
    program: &Path,
    filter: &std::os::fd::OwnedFd,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let spec = SandboxSpec::new("/", [nothing().get_program()]);
    let status = sys::memory_file("status", b"").map_err(text)?;
    let fds = Descriptors {
        seccomp: sys::raw(filter),
        status: sys::raw(&status),
        files: Vec::new(),
    };
    let options = bwrap::nul_terminated(&bwrap::options(&spec, &Targets::unresolved(&spec), &fds));
    let args = sys::memory_file("args", &options).map_err(text)?;
    let mut command = Command::new(program);
    command
        .arg("--args")
        .arg(sys::raw(&args).to_string())
        .arg("--")
        .args(&spec.argv);
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    sys::inherit_only(&mut command, vec![sys::raw(&args), fds.seccomp, fds.status]);
    let child = plan
        .spawn(command, None, None)
        .and_then(|staged| staged.child)
        .map_err(|error| chain(&error))?;
    let output = child.wait_with_output().map_err(text)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(crate::printable(output.stderr.trim_ascii()))
    }
}

/// Says whether the findings together let a conversion run.
fn conversion(findings: &[Finding]) -> Finding {
    if findings.iter().all(|finding| finding.level != Level::Fail) {
        return Finding::ok(
            "conversion",
            "conversions can run here, with a full range of IDs and overlayfs",
        );
    }
    let first = findings.iter().find(|finding| finding.remedy.is_some());
    let what = "conversions cannot run here: this version needs all of the above";
    let mut finding = Finding::fail("conversion", what, &[]);
    finding.remedy = first.and_then(|first| first.remedy.clone());
    finding
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_two_or_three_numbers() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some((0, 8, 0)));
        assert_eq!(parse_version("bubblewrap 0.11\n"), Some((0, 11, 0)));
        assert_eq!(parse_version(""), None);
        assert_eq!(parse_version("bwrap: error"), None);
        assert!(parse_version("bubblewrap 0.4.1") < Some(bwrap::MIN_VERSION));
    }

    #[test]
    fn one_failure_keeps_conversions_from_running_and_lends_its_remedy() {
        let fine = vec![Finding::ok("a", "")];
        assert_eq!(conversion(&fine).level, Level::Ok);
        let broken = vec![
            Finding::ok("a", ""),
            Finding::fail("b", "", &["do this".to_owned()]),
            Finding::untried("c", "b"),
        ];
        assert_eq!(conversion(&broken).level, Level::Fail);
        assert_eq!(conversion(&broken).remedy.as_deref(), Some("do this"));
    }

    #[test]
    fn probing_answers_every_question_and_leaves_nothing() {
        let store = tempfile::tempdir().unwrap();
        let findings = probe(store.path());
        let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
        for id in [
            "sub-ids",
            "overlayfs",
            "bubblewrap",
            "seccomp",
            "conversion",
        ] {
            assert_eq!(
                ids.iter().filter(|other| **other == id).count(),
                1,
                "{id} in {findings:#?}"
            );
        }
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
