//! Where the package managers of bases keep what they download, between runs.
//!
//! ```text
//! packages/<release>             archives, which are checked against the repository's checksums whenever they are taken
//! packages/<release>/bases/<id>  what the programs of one base have written: lists, metadata, a manager's own cache
//! ```
//!
//! The second is handed to commands that run as root of the base. What one base may write, another must not read: nothing
//! checks a list again once it is there, and it says where packages come from and what their checksums are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kfactory_layers::digest::Digest;

use crate::error::{Context as _, Result};
use crate::plan::Facts;
use crate::store::{Store, discard_tree};

/// A base that was not converted for so long gets its lists anew. Longer than any run, which may be using its own.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The directories that the package managers of a run use.
#[derive(Debug)]
pub(super) struct PackageCache {
    /// Shared by all bases of a release.
    pub(super) shared: PathBuf,
    /// This base's own.
    pub(super) own: PathBuf,
}

/// Returns the part of the cache that all bases of a release share.
pub(super) fn of_release(store: &Store, facts: &Facts) -> Result<PathBuf> {
    store.cache_dir(&format!(
        "packages/{}-{}-{}",
        facts.distro.id,
        facts.distro.version,
        facts.architecture()
    ))
}

/// Returns the cache for the base with this chain ID, and removes those of bases that were not used for a week.
pub(super) fn of_base(store: &Store, facts: &Facts, chain: &Digest) -> Result<PackageCache> {
    let shared = of_release(store, facts)?;
    let bases = shared.join("bases");
    let own = bases.join(&chain.hex()[..16]);
    fs::create_dir_all(&own)
        .and_then(|()| fs::File::open(&own)?.set_modified(SystemTime::now()))
        .context(|| format!("preparing {}", own.display()))?;
    remove_old(&bases, SystemTime::now());
    Ok(PackageCache { shared, own })
}

fn remove_old(bases: &Path, now: SystemTime) {
    for entry in fs::read_dir(bases).into_iter().flatten().flatten() {
        let used = entry.metadata().and_then(|metadata| metadata.modified());
        let age = used.ok().and_then(|used| now.duration_since(used).ok());
        if age.is_some_and(|age| age > KEPT) {
            discard_tree(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distro::os_release::OsRelease;
    use crate::distro::{Arch, Distro};

    #[test]
    fn bases_of_one_release_share_archives_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::for_test(dir.path()).unwrap();
        let facts = Facts {
            distro: Distro::detect(&OsRelease::parse("ID=debian\nVERSION_ID=12\n")).unwrap(),
            arch: Arch::Amd64,
        };
        let [one, other] =
            [b"one", b"two"].map(|base| of_base(&store, &facts, &Digest::of(base)).unwrap());
        assert_eq!(one.shared, other.shared);
        assert_ne!(one.own, other.own);
    }

    #[test]
    fn what_was_not_used_for_a_week_goes_and_what_was_stays() {
        let dir = tempfile::tempdir().unwrap();
        for (name, days) in [("old", 8), ("used", 6)] {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            fs::File::open(&path).unwrap().set_modified(then).unwrap();
        }
        remove_old(dir.path(), SystemTime::now());
        assert!(!dir.path().join("old").exists());
        assert!(dir.path().join("used").exists());
    }
}
