//! Runs a package manager other than apt on a tree, as its data says.
//!
//! What it needs stands in a scratch directory that is mounted over the tree while it runs, and so are its caches; what it
//! writes there never becomes part of the image.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kfactory_sandbox::spec::Mount;

use super::Site;
use super::workspace::{self, bind};
use crate::distro::Policy;
use crate::distro::manager::{Manager, Operation, Setup, WORKSPACE};
use crate::error::{Context as _, Error, Kind, Result};
use crate::exec::{CommandOptions, Environment, Target};

/// Where rpm keeps its database: first what it is moving away from.
const RPM_DATABASES: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// A manager, ready to run on one tree.
pub(super) struct Native<'a> {
    env: &'a Environment<'a>,
    target: &'a Target<'a>,
    step: &'a str,
    manager: &'static Manager,
    setup: Setup,
    /// The workspace on this machine.
    dir: PathBuf,
    /// The base's cache, locked while this value lives.
    cache: PathBuf,
    _lock: File,
}

impl<'a> Native<'a> {
    /// Prepares workspace and caches, and waits for other runs that use the same ones.
    pub(super) fn open(site: Site<'a>, manager: &'static Manager) -> Result<Self> {
        let Site { env, target, step } = site;
        // The manager keeps archives and metadata in one place, to which it writes by itself.
        let cache = env.base_cache.clone();
        let wanted: Vec<PathBuf> = manager
            .caches
            .iter()
            .map(|shared| cache.join(shared.name))
            .collect();
        let lock = workspace::open_cache(env, &cache, &wanted)?;
        let (setup, dir) = (manager.setup(), env.scratch.join("packages"));
        workspace::write(&setup, &dir)?;
        workspace::mirror(&setup, &target.root, &dir)?;
        Ok(Self {
            env,
            target,
            step,
            manager,
            setup,
            dir,
            cache,
            _lock: lock,
        })
    }

    /// Does `operation`, where the manager has it.
    pub(super) fn run(&self, operation: Operation<'_>) -> Result<()> {
        self.operate(operation, false).map(drop)
    }

    /// Does `operation` and returns what the manager printed; nothing where it has no such operation.
    pub(super) fn ask(&self, operation: Operation<'_>) -> Result<String> {
        self.operate(operation, true)
    }

    fn operate(&self, operation: Operation<'_>, answers: bool) -> Result<String> {
        let words = self
            .manager
            .command(operation)
            .map_err(|error| Error::from_source(&error))?;
        let Some(words) = words else {
            return Ok(String::new());
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.command(&words, answers)
    }

    /// Runs a text for the shell that calls the manager, with its caches and with what is held back.
    pub(super) fn shell(&self, text: &str) -> Result<()> {
        self.command(&["sh", "-c", text], false).map(drop)
    }

    fn command(&self, words: &[&str], answers: bool) -> Result<String> {
        let variables = self.setup.environment.iter();
        let facts = self.env.facts;
        let options = CommandOptions {
            network: true,
            mounts: self.mounts(),
            env: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            secrets: Policy::new(&facts.distro, facts.arch)
                .secrets
                .iter()
                .map(|id| (*id).to_owned())
                .collect(),
            answers,
            ..CommandOptions::default()
        };
        let result = self.env.command(self.target, self.step, words, options)?;
        Ok(result.printed)
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts = vec![bind(self.dir.clone(), WORKSPACE)];
        let caches = self.manager.caches.iter();
        mounts.extend(caches.map(|cache| bind(self.cache.join(cache.name), cache.path)));
        mounts
    }

    /// Brings the metadata up to date once in a run.
    pub(super) fn refresh(&self) -> Result<()> {
        let refresh = Operation::Refresh { import_keys: false };
        self.env.packages.refresh_once(|| self.run(refresh))
    }

    /// Fetches what this step and the later ones install, all at once, so that the mirrors' answers overlap.
    ///
    /// Only saves time: what cannot be fetched now fails again, and is told, where it is needed.
    pub(super) fn fetch(&self, names: &[&str]) -> Result<()> {
        if names.is_empty() || !self.env.has_network() {
            return Ok(());
        }
        self.restore_kept()?;
        let mut all = names.to_vec();
        let later = self.env.later_packages.iter().map(String::as_str);
        all.extend(later.filter(|name| !names.contains(name)));
        match self.run(Operation::Download(&all)) {
            Err(error) if error.kind() == Kind::Step => self
                .env
                .reporter
                .note("not every package could be fetched ahead"),
            outcome => drop(outcome?),
        }
        self.keep()
    }

    /// Sets packages aside that the manager is going to remove from its cache.
    fn keep(&self) -> Result<()> {
        match self.manager.forgets {
            Some(name) => link_tree(&self.cache.join(name), &self.cache.join("kept")),
            None => Ok(()),
        }
    }

    fn restore_kept(&self) -> Result<()> {
        match self.manager.forgets {
            Some(name) => link_tree(&self.cache.join("kept"), &self.cache.join(name)),
            None => Ok(()),
        }
    }

    /// Takes the database's empty journal out of the tree: whether there is one depends on who had it open last.
    pub(super) fn settle(&self) -> Result<()> {
        let root = &self.target.root;
        for dir in RPM_DATABASES {
            let journal = format!("{dir}/rpmdb.sqlite-wal");
            let metadata = root.symlink_metadata_opt(&journal)?;
            if metadata.is_some_and(|metadata| metadata.size == 0) {
                root.remove_file(&journal)?;
                root.remove_file(format!("{dir}/rpmdb.sqlite-shm"))?;
            }
        }
        Ok(())
    }
}

/// Gives every file below `from` a second name at the same place below `to`, unless that is taken. Links are left out.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("keeping packages in {}", to.display());
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to).context(doing)?;
    for entry in fs::read_dir(from).context(doing)? {
        let entry = entry.context(doing)?;
        let (kind, place) = (
            entry.file_type().context(doing)?,
            to.join(entry.file_name()),
        );
        if kind.is_dir() {
            link_tree(&entry.path(), &place)?;
        } else if kind.is_file() && place.symlink_metadata().is_err() {
            fs::hard_link(entry.path(), &place).context(doing)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_the_manager_forgets_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("packages"), dir.path().join("kept"));
        fs::create_dir_all(from.join("repo/noarch")).unwrap();
        fs::write(from.join("repo/noarch/a.rpm"), "a").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("repo/link")).unwrap();
        link_tree(&from, &to).unwrap();
        fs::remove_dir_all(&from).unwrap();
        link_tree(&to, &from).unwrap();
        assert_eq!(fs::read(from.join("repo/noarch/a.rpm")).unwrap(), b"a");
        assert!(from.join("repo/link").symlink_metadata().is_err());
        assert!(!dir.path().join("missing").exists());
        link_tree(&dir.path().join("missing"), &to).unwrap();
    }
}
