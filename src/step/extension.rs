//! What a step of a stage extension has besides its actions: where it hooks in, where it was written, when it runs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Phase;

/// A stage that extensions can add steps to.
///
/// Spec: kairos-init, "stage extensions". `install` and `init` run after the built-in yip steps of the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Before the first step of the install phase.
    BeforeInstall,
    /// After packages, branding and small files; before cloud-configs and binaries.
    Install,
    /// After the extensions of `install`, in the same place.
    AfterInstall,
    /// Before the first step of the init phase.
    BeforeInit,
    /// After the last step of the init phase, the cleanup included.
    Init,
    /// At the very end.
    AfterInit,
}

impl Hook {
    /// Every stage, in the order they run.
    pub const ALL: [Hook; 6] = [
        Hook::BeforeInstall,
        Hook::Install,
        Hook::AfterInstall,
        Hook::BeforeInit,
        Hook::Init,
        Hook::AfterInit,
    ];

    /// Returns the name of the stage in an extension file.
    pub fn name(self) -> &'static str {
        match self {
            Hook::BeforeInstall => "before-install",
            Hook::Install => "install",
            Hook::AfterInstall => "after-install",
            Hook::BeforeInit => "before-init",
            Hook::Init => "init",
            Hook::AfterInit => "after-init",
        }
    }

    /// Returns the stage of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// Returns the half of the conversion it belongs to.
    pub fn phase(self) -> Phase {
        match self {
            Hook::BeforeInstall | Hook::Install | Hook::AfterInstall => Phase::Install,
            Hook::BeforeInit | Hook::Init | Hook::AfterInit => Phase::Init,
        }
    }
}

/// A place in a file. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Source {
    /// The file, as the user would name it.
    pub file: String,
    /// The line.
    pub line: usize,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The part of a step that only steps of extensions have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extension {
    /// Its name for people: `after-install.0`, or what the file calls it.
    pub label: String,
    /// Where it hooks in.
    pub stage: Hook,
    /// Where it was written; `None` in a cache key, which a moved line must not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// All of these must hold, tried in this order, or the step is passed over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The step as a yip document has it.
    #[serde(skip)]
    pub yip: serde_json::Value,
}

/// What must hold when the step's turn comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum Condition {
    /// The shell text, a template, ends with status 0.
    Shell {
        /// The text.
        script: String,
    },
    /// The pattern is found in os-release's `PRETTY_NAME`.
    Os {
        /// A regular expression.
        pattern: String,
    },
    /// The pattern is found in the version of the distribution.
    OsVersion {
        /// A regular expression.
        pattern: String,
    },
    /// The pattern is found in the architecture's name (`amd64`).
    Arch {
        /// A regular expression.
        pattern: String,
    },
    /// The image has this service manager and no other.
    ServiceManager {
        /// `systemd` or `openrc`.
        name: String,
    },
    /// Files are there, or not; keys are `all`, `any`, `none`.
    Files {
        /// Absolute paths by kind of check. An empty list makes all of them pass.
        checks: BTreeMap<String, Vec<String>>,
    },
}

impl Condition {
    /// Returns one line that says what must hold.
    pub fn describe(&self) -> String {
        match self {
            Condition::Shell { script } => format!("if `{}` succeeds", first_line(script)),
            Condition::Os { pattern } => format!("only where PRETTY_NAME matches `{pattern}`"),
            Condition::OsVersion { pattern } => {
                format!("only where the distribution's version matches `{pattern}`")
            }
            Condition::Arch { pattern } => {
                format!("only where the architecture matches `{pattern}`")
            }
            Condition::ServiceManager { name } => format!("only with {name}"),
            Condition::Files { checks } => {
                let parts: Vec<String> = checks
                    .iter()
                    .map(|(kind, paths)| format!("{kind} of {}", paths.join(" ")))
                    .collect();
                format!("only where there is {}", parts.join(", "))
            }
        }
    }
}

/// Returns the first line of a script, marked where there is more.
pub(super) fn first_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default().trim_end();
    match lines.next() {
        Some(_) => format!("{first} ..."),
        None => first.to_owned(),
    }
}
