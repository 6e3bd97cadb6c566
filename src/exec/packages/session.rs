//! What the package steps of one run share.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};

use crate::error::Result;
use crate::exec::unpacked::Unpacked;

/// What the package steps of one run share, whatever the manager.
#[derive(Debug, Default)]
pub struct Session {
    /// Whether the lists have been refreshed in this run.
    refreshed: Mutex<bool>,
    /// Packages whose archives, and those they depend on, are in apt's workspace.
    at_hand: Mutex<BTreeSet<String>>,
    /// Archives of apt's that need no decompression any more.
    pub(in crate::exec) unpacked: OnceLock<Unpacked>,
}

impl Session {
    /// Brings the lists up to date with `refresh`, unless that was done in this run.
    pub(super) fn refresh_once(&self, refresh: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut refreshed = self.refreshed.lock().expect("no panic while held");
        if !*refreshed {
            refresh()?;
            *refreshed = true;
        }
        Ok(())
    }

    /// Says that the lists are up to date.
    pub(super) fn set_refreshed(&self) {
        *self.refreshed.lock().expect("no panic while held") = true;
    }

    /// Says that the sources are others now: the lists are brought up to date before the next installation.
    pub(in crate::exec) fn sources_changed(&self) {
        *self.refreshed.lock().expect("no panic while held") = false;
        self.at_hand.lock().expect("no panic while held").clear();
    }

    /// Returns whether everything that `names` need is in the workspace.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        let at_hand = self.at_hand.lock().expect("no panic while held");
        names.iter().all(|name| at_hand.contains(*name))
    }

    /// Says that everything that `names` need is in the workspace.
    pub(super) fn add(&self, names: &[&str]) {
        let mut at_hand = self.at_hand.lock().expect("no panic while held");
        at_hand.extend(names.iter().map(|name| (*name).to_owned()));
    }
}
