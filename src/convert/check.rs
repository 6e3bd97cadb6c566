//! Validates the result before it is published, beside the work that is still going on.

use std::path::PathBuf;

use kfactory_layers::digest::Digest;
use kfactory_sandbox::overlay::OverlayMount;
use serde_json::json;

use super::Engine;
use crate::error::{Context as _, Error, Result};
use crate::store::Run;
use crate::tree;
use crate::validate::{self, RULES_VERSION, Report, Scope};

/// Validates one run's result, or remembers what an earlier run found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check<'a> {
    pub(super) engine: Engine<'a>,
    pub(super) run: &'a Run,
    /// What the result is to be; `None`: it is not validated.
    pub(super) scope: Option<&'a Scope>,
}

impl Check<'_> {
    /// Returns whether the result is validated at all.
    pub(super) fn is_wanted(&self) -> bool {
        self.scope.is_some()
    }

    /// Returns what was found in the image of this chain ID, by these rules, before.
    pub(super) fn remembered(&self, chain: &Digest) -> Option<Report> {
        let bytes = std::fs::read(self.place(chain).ok()??).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Remembers what was found.
    ///
    /// # Errors
    ///
    /// The store cannot be written to.
    pub(super) fn remember(&self, chain: &Digest, report: &Report) -> Result<()> {
        let Some(place) = self.place(chain)? else {
            return Ok(());
        };
        let doing = || format!("writing {}", place.display());
        let dir = place.parent().unwrap_or(&place);
        let file = tempfile::NamedTempFile::new_in(dir).context(doing)?;
        serde_json::to_writer(&file, report).context(doing)?;
        file.persist(&place)
            .map_err(|error| error.error)
            .context(doing)?;
        Ok(())
    }

    /// Validates the tree that `lowers`, topmost first, make together. They must not change meanwhile.
    ///
    /// # Errors
    ///
    /// The tree cannot be read; what is wrong with it is in the report.
    pub(super) fn stack(&self, lowers: &[PathBuf]) -> Result<Option<Report>> {
        let Some(scope) = self.scope else {
            return Ok(None);
        };
        let target = self.run.dir().join("validated");
        std::fs::create_dir_all(&target).context(|| format!("creating {}", target.display()))?;
        let mount = OverlayMount::mount_read_only(lowers, &target)
            .map_err(|error| Error::from_source(&error).hints(error.hints()))?;
        let report = tree::of_dir(mount.target())
            .and_then(|tree| validate::validate(&tree, scope, Some(&self.engine.options.stop)))
            .map_err(|error| error.context("validating the result"))?;
        mount
            .unmount()
            .map_err(|error| Error::from_source(&error))?;
        Ok(Some(report))
    }

    /// Returns where the report of a chain ID is kept: a name made of all that it depends on.
    fn place(&self, chain: &Digest) -> Result<Option<PathBuf>> {
        let Some(scope) = self.scope else {
            return Ok(None);
        };
        let key = json!({
            "rules": RULES_VERSION,
            "tool": env!("CARGO_PKG_VERSION"),
            "chain": chain,
            "scope": scope,
        });
        let name = Digest::of(key.to_string().as_bytes()).hex();
        let dir = self.engine.store.cache_dir("validated")?;
        Ok(Some(dir.join(format!("{name}.json"))))
    }
}
