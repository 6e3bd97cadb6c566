//! What every step of a run shares, and the tree that steps change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::root::Root;
use kfactory_sandbox::CancelToken;

use super::{PackageSession, Runner};
use crate::error::{Error, Kind, Result};
use crate::framework::Framework;
use crate::plan::Facts;
use crate::progress::Reporter;
use crate::provider::{Configs, Program};
use crate::request::{Network, Request};

/// What every step of a run shares.
pub struct Environment<'a> {
    /// The request.
    pub request: &'a Request,
    /// What is known of the base.
    pub facts: &'a Facts,
    /// How commands are run.
    pub runner: Runner,
    /// Variables of the base image's config, `NAME=VALUE`.
    pub image_env: Vec<String>,
    /// The Kairos binaries, resolved when first needed.
    pub framework: &'a (dyn Fn() -> Result<Framework> + Sync),
    /// Gets an image for a platform, the build's own where none is named, and returns its flattened tree.
    pub images: &'a (dyn Fn(&str, Option<&str>) -> Result<PathBuf> + Sync),
    /// The programs of Kubernetes distributions, fetched when first needed.
    pub programs: &'a (dyn Fn() -> Result<Vec<Program>> + Sync),
    /// Configuration files for providers.
    pub configs: &'a Configs,
    /// The package cache's directory, shared between runs of all bases of a release: no command may write to it.
    pub package_cache: PathBuf,
    /// What commands of this base write and later runs of the same base read.
    pub base_cache: PathBuf,
    /// A scratch directory of this run, outside every layer.
    pub scratch: PathBuf,
    /// The highest modification time that new files may have, in seconds since 1970; `None`: as they come.
    pub clamp_mtime: Option<i64>,
    /// The moment the run is dated with, in seconds since 1970.
    pub created: i64,
    /// Names that later steps install, to be fetched ahead.
    pub later_packages: Vec<String>,
    /// What the package steps share.
    pub packages: PackageSession,
    /// What steps found out since it was last [taken](Self::take_findings).
    pub findings: std::sync::Mutex<Vec<String>>,
    /// Cores to use for compression, transfers at a time.
    pub jobs: usize,
    /// Shows what happens.
    pub reporter: &'a Arc<Reporter>,
    /// Set when the user stops the run.
    pub cancel: CancelToken,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The image's variables may hold secrets, and the rest says little.
        f.debug_struct("Environment")
            .field("facts", &self.facts)
            .field("scratch", &self.scratch)
            .finish_non_exhaustive()
    }
}

impl Environment<'_> {
    /// Says something that is true of the layer, and therefore said again when it comes from the cache.
    pub(super) fn finding(&self, text: String) {
        self.reporter.note(&text);
        self.findings
            .lock()
            .expect("no panic while held")
            .push(text);
    }

    /// Returns what steps found out, and forgets it.
    pub fn take_findings(&self) -> Vec<String> {
        std::mem::take(&mut self.findings.lock().expect("no panic while held"))
    }

    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            Err(Error::new(Kind::Interrupted, "stopped by the user"))
        } else {
            Ok(())
        }
    }

    /// Returns the configuration file that was given for `provider`.
    pub(super) fn config(&self, provider: &str) -> Result<&[u8]> {
        let content = self.configs.get(provider).map(Vec::as_slice);
        content
            .ok_or_else(|| Error::internal(format!("the configuration of {provider} was not read")))
    }

    /// Shows a line that a command of `step` printed, with the reason where it sounds like a failure and is none.
    pub(super) fn show(&self, step: &str, line: &str) {
        match super::harmless::why(line) {
            Some(why) => self
                .reporter
                .step_output(step, &format!("{line}  [harmless: {why}]")),
            None => self.reporter.step_output(step, line),
        }
    }

    /// Returns whether steps may have a network at all.
    pub(super) fn has_network(&self) -> bool {
        self.request.network == Network::Host
    }
}

/// A tree that steps may change.
#[derive(Debug)]
pub struct Target<'a> {
    /// The tree, for file actions.
    pub root: Root,
    /// The same tree's path, for the sandbox.
    pub path: &'a Path,
    /// What the tree stood on when its layer began, topmost first; nothing where it is changed in place.
    pub lowers: &'a [PathBuf],
    /// Where in the tree something else is mounted: a file or directory of somebody else's, of which nothing is removed.
    pub mounts: &'a [PathBuf],
}

impl Target<'_> {
    /// Tells whether something is mounted at `path`, above it (the tree itself aside) or below it.
    pub fn is_mounted(&self, path: &Path) -> bool {
        self.mounts
            .iter()
            .any(|mount| mount.starts_with(path) || path.starts_with(mount))
    }
}
