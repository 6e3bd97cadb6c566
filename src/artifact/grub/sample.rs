//! Images for the tests: files in memory, and the machine's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Files;
use crate::artifact::judge::skip;
use crate::error::Result;

/// Files in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(pub(super) BTreeMap<String, Vec<u8>>);

impl Memory {
    /// Files without content.
    pub(super) fn of(paths: &[&str]) -> Self {
        Self(
            paths
                .iter()
                .map(|&path| (path.to_owned(), Vec::new()))
                .collect(),
        )
    }
}

impl Files for Memory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }

    fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

/// The files of this machine, or of the directory in `KFACTORY_TEST_GRUB`: another distribution's packages, unpacked.
#[derive(Debug)]
pub(super) struct Host;

impl Host {
    /// Returns where `path` is.
    pub(super) fn path(path: &str) -> PathBuf {
        let top = std::env::var_os("KFACTORY_TEST_GRUB").unwrap_or("/".into());
        PathBuf::from(top).join(path)
    }
}

impl Files for Host {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(std::fs::read(Self::path(path)).ok())
    }

    fn has(&self, path: &str) -> bool {
        Self::path(path).is_file()
    }
}

/// Returns whether this machine has GRUB's modules for BIOS machines; says so where not.
pub(super) fn has_grub_pc() -> bool {
    let is_there = Host.has("usr/lib/grub/i386-pc/kernel.img");
    if !is_there {
        skip("grub-pc-bin is not installed");
    }
    is_there
}
