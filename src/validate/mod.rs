//! `kfactory validate`: does a finished image hold what booting, installing and upgrading a Kairos system takes?
//!
//! The knowledge is a list of [`Rule`]s in [`rules`], one file a subject: an id that stays the same between versions, a
//! severity, what is demanded, one line of remedy, and a small function that looks. They look at a [`Tree`] and at
//! nothing else, so an image is judged without running anything of it, and without any privilege.

mod facts;
pub(crate) mod kernel_image;
pub mod output;
mod report;
pub mod rules;
#[cfg(test)]
mod sample;
mod subject;
#[cfg(test)]
mod tests;

use std::path::Path;

use kfactory_sandbox::CancelToken;
use serde::{Deserialize, Serialize};

pub use facts::Facts;
pub use report::{Finding, Report, error};
pub use subject::Subject;

use crate::distro::{Arch, Model};
use crate::error::{Error, Result};
use crate::installed::{self, Depth};
use crate::request::Stage;
use crate::step::StepName;
use crate::stop;
use crate::tree::Tree;

/// Raised when a rule begins to judge differently: a remembered report of other rules counts for nothing.
pub const RULES_VERSION: u32 = 3;

/// How bad it is when a rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It works, but not as well as it could, or not everywhere.
    Warning,
    /// The image does not boot, install or upgrade, or gives away what it must not.
    Error,
}

impl Severity {
    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is demanded of an image.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which stays the same between versions.
    pub id: &'static str,
    /// How bad it is when it is broken.
    pub severity: Severity,
    /// What is demanded, as a sentence.
    pub demand: &'static str,
    /// What to do when it is broken, in one line.
    pub remedy: &'static str,
    /// The steps that make what is demanded. Where one of them is left out on purpose, a broken rule is only a warning.
    pub steps: &'static [StepName],
    /// Whether it is meant for an image with these facts.
    pub when: fn(&Facts) -> bool,
    /// Looks at the image and says what is wrong with it.
    pub check: fn(&Subject<'_>, &mut Violations) -> Result<()>,
}

impl Rule {
    fn demanded(&self) -> output::Demand {
        output::Demand {
            id: self.id,
            severity: self.severity,
            demand: self.demand,
            remedy: self.remedy,
        }
    }
}

/// Where a rule is broken, and how.
#[derive(Debug, Default)]
pub struct Violations {
    found: Vec<(Option<String>, String)>,
}

impl Violations {
    /// Notes what is wrong with the object at `path`.
    pub fn at(&mut self, path: impl AsRef<Path>, text: impl Into<String>) {
        let path = path.as_ref().display().to_string();
        let path = format!("/{}", path.trim_start_matches('/'));
        self.found.push((Some(path), text.into()));
    }

    /// Notes what is wrong with the image as a whole.
    pub fn add(&mut self, text: impl Into<String>) {
        self.found.push((None, text.into()));
    }
}

/// What is known about an image from elsewhere, and what is to be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scope {
    /// The architecture that the image's config states.
    pub arch: Option<Arch>,
    /// The board it is for, whatever `/etc/kairos-release` says.
    pub model: Option<Model>,
    /// Whether it is for Trusted Boot, whatever `/etc/kairos-release` says.
    pub trusted: Option<bool>,
    /// The version it was made as.
    pub version: Option<String>,
    /// Which phases have run: what a later one makes is not demanded yet.
    pub stage: Stage,
    /// Steps that were left out on purpose.
    pub skipped: Vec<Skipped>,
    /// Ids of rules that do not count.
    pub ignored: Vec<String>,
}

/// A step that was left out on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub step: String,
    /// The option that left it out, as it is typed.
    pub by: String,
}

/// Checks that each of `ids` is one of `all`, which `command --rules` lists.
///
/// # Errors
///
/// A usage error that names the unknown rule.
pub(crate) fn check_ids(ids: &[String], all: &[&str], command: &str) -> Result<()> {
    match ids.iter().find(|id| !all.contains(&id.as_str())) {
        None => Ok(()),
        Some(id) => {
            let error = Error::usage(format!("unknown rule `{id}`"));
            let near = crate::suggest::nearest(id, all.iter().copied());
            Err(match near {
                Some(near) => error.hint(format!("`{near}` is the nearest known rule")),
                None => error.hint(format!("`{command} --rules` lists them")),
            })
        }
    }
}

impl Scope {
    /// Checks that every ignored rule exists.
    ///
    /// # Errors
    ///
    /// A usage error that names the unknown rule.
    pub fn check_ignored(&self) -> Result<()> {
        let all: Vec<&str> = rules::all().map(|rule| rule.id).collect();
        check_ids(&self.ignored, &all, "kfactory validate")
    }

    fn is_due(&self, rule: &Rule) -> bool {
        let comes_later =
            self.stage == Stage::Install && rule.steps.iter().any(|step| step.is_of_init());
        let is_ignored = self.ignored.iter().any(|id| id == rule.id);
        !comes_later && !is_ignored
    }

    /// Returns why nothing makes what `rule` demands, where that is on purpose.
    fn left_out(&self, rule: &Rule) -> Option<&Skipped> {
        let is_of_rule = |skipped: &&Skipped| {
            let mut steps = rule.steps.iter();
            steps.any(|step| step.as_str() == skipped.step)
        };
        self.skipped.iter().find(is_of_rule)
    }
}

/// Holds every rule against `tree`, until the run is stopped.
///
/// # Errors
///
/// The tree cannot be read, or the run is stopped; a broken rule is no error but a finding.
pub fn validate(tree: &Tree, scope: &Scope, stop: Option<&CancelToken>) -> Result<Report> {
    let subject = Subject::new(tree, scope, stop)?;
    let mut report = Report::new(&subject.facts);
    for rule in rules::all() {
        if !scope.is_due(rule) || !(rule.when)(&subject.facts) {
            continue;
        }
        stop.map_or(Ok(()), stop::check)?;
        let mut violations = Violations::default();
        (rule.check)(&subject, &mut violations)
            .map_err(|error| error.context(format!("checking rule `{}`", rule.id)))?;
        report.add(rule, violations.found, scope.left_out(rule));
    }
    Ok(report)
}

/// Tells which files' contents the rules look into, by their path without a leading slash; see [`crate::tree::Wanted`].
pub fn reads(path: &Path) -> bool {
    let Some(path) = path.to_str() else {
        return false;
    };
    if installed::reads(path, Depth::Packages) {
        return true;
    }
    // Distributions differ in which of /lib and /usr/lib is the link.
    let path = path.strip_prefix("usr/").unwrap_or(path);
    const DIRS: &[&str] = &["etc/", "boot/", "system/", "oem/", "local/cloud-config/"];
    const FILES: &[&str] = &["lib/os-release"];
    let is_module_table = || {
        path.strip_prefix("lib/modules/")
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(_, name)| {
                name.starts_with("modules.") || matches!(name, "vmlinuz" | "config")
            })
    };
    DIRS.iter().any(|dir| path.starts_with(dir))
        || FILES.contains(&path)
        || rules::programs::KAIROS.iter().any(|program| {
            path.rsplit_once('/')
                .is_some_and(|(_, name)| name == *program)
        })
        || is_module_table()
}
