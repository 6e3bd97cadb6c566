//! What is installed, by the databases of dpkg, rpm, apk and pacman, read from a [`Tree`] without running any of them.
//!
//! One file a database. A database that cannot be read is no error here but is told ([`Installed::unread`]): whoever asks
//! decides what it means.

mod apk;
mod dpkg;
mod pacman;
mod rpm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::tree::Tree;

/// What names, versions and paths may take in memory, in bytes: two million paths, several times those of the largest systems.
const MAX_BYTES: usize = 512 << 20;
/// What keeping one takes besides its text.
const OVERHEAD_BYTES: usize = 128;

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version as its manager writes it, with epoch and release where it has them.
    pub version: String,
    /// Whose database has it: `dpkg`, `rpm`, `apk` or `pacman`.
    pub manager: &'static str,
    /// What keeps it from being whole, in the manager's word: `unpacked`, `half-configured` and so on.
    pub broken: Option<String>,
    /// The file that says so: of its own, or the database of all.
    pub origin: PathBuf,
}

/// A database that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// What is installed.
#[derive(Debug, Default)]
pub struct Installed {
    /// Every package, sorted by name and version.
    pub packages: Vec<Package>,
    /// Databases that could not be read.
    pub unread: Vec<Unread>,
    /// Which package a path (absolute) belongs to, what the database itself has of that package included; empty unless it was asked
    /// for.
    owners: BTreeMap<String, String>,
    /// What all of that takes in memory, in bytes.
    taken: usize,
}

/// A database holds more than any system has installed.
#[derive(Debug)]
struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = MAX_BYTES >> 20;
        write!(f, "its names and paths take more than {most} MiB")
    }
}

/// What is read of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names and versions.
    Packages,
    /// And the files of each package.
    Files,
}

/// Reads every database that `tree` has.
///
/// # Errors
///
/// The content of a database cannot be reached; a damaged one is told in [`Installed::unread`].
pub fn read(tree: &Tree, depth: Depth) -> Result<Installed> {
    let mut out = Installed::default();
    out.read(tree, depth)?;
    Ok(out)
}

/// Tells which files' contents [`read`] looks into, by their path without a leading slash; see [`crate::tree::Wanted`].
pub fn reads(path: &str, depth: Depth) -> bool {
    dpkg::reads(path, depth) || rpm::reads(path) || apk::reads(path) || pacman::reads(path, depth)
}

impl Installed {
    fn read(&mut self, tree: &Tree, depth: Depth) -> Result<()> {
        dpkg::read(tree, depth, self)?;
        rpm::read(tree, depth, self)?;
        apk::read(tree, depth, self)?;
        pacman::read(tree, depth, self)?;
        self.packages.sort();
        Ok(())
    }

    /// Returns itself.
    ///
    /// # Errors
    ///
    /// A database could not be read.
    pub fn whole(self) -> Result<Self> {
        match self.unread.first() {
            None => Ok(self),
            Some(Unread { path, why }) => Err(Error::user(format!(
                "the package database {path:?} cannot be read: {why}"
            ))),
        }
    }

    /// Returns the packages of this name: several where it can be installed more than once.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(move |it| it.name == name)
    }

    /// Returns which package a path (absolute) belongs to; where `/usr` is merged, packages may name it without.
    pub fn owner(&self, path: &str) -> Option<&str> {
        let short = path.strip_prefix("/usr").filter(|rest| !rest.is_empty());
        self.owners
            .get(path)
            .or_else(|| self.owners.get(short?))
            .map(String::as_str)
    }

    fn add(&mut self, package: Package) -> std::result::Result<(), TooMuch> {
        self.take(package.name.len() + package.version.len())?;
        self.packages.push(package);
        Ok(())
    }

    fn own(&mut self, path: String, package: &str) -> std::result::Result<(), TooMuch> {
        self.take(path.len() + package.len())?;
        self.owners.insert(path, package.to_owned());
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> std::result::Result<(), TooMuch> {
        self.taken = self.taken.saturating_add(bytes + OVERHEAD_BYTES);
        if self.taken > MAX_BYTES {
            return Err(TooMuch);
        }
        Ok(())
    }

    fn unread(&mut self, path: impl AsRef<Path>, why: impl Into<String>) {
        self.unread.push(Unread {
            path: path.as_ref().to_owned(),
            why: why.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::Sample;

    fn package(name: &str, version: &str, broken: Option<&str>, origin: &str) -> Package {
        let manager = match name {
            "bash" => "pacman",
            "musl" | "torn" => "apk",
            _ => "dpkg",
        };
        Package {
            name: name.into(),
            version: version.into(),
            manager,
            broken: broken.map(str::to_owned),
            origin: origin.into(),
        }
    }

    fn every_manager() -> Tree {
        let status = b"Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n\nPackage: gone\n\
            Status: deinstall ok config-files\nVersion: 1\n\nPackage: half\nStatus: install ok half-configured\nVersion: 3\n";
        Sample::new()
            .file("var/lib/dpkg/status", 0o644, status)
            .file(
                "var/lib/dpkg/info/libc6:amd64.list",
                0o644,
                b"/.\n/lib/libc.so.6\n",
            )
            .file(
                "lib/apk/db/installed",
                0o644,
                b"P:musl\nV:1.2.5-r1\nF:lib\nR:ld-musl.so.1\n\nP:torn\nV:2-r0\nf:s\n",
            )
            .file(
                "var/lib/pacman/local/bash-5.3-1/desc",
                0o644,
                b"%NAME%\nbash\n\n%VERSION%\n5.3-1\n\n",
            )
            .file(
                "var/lib/pacman/local/bash-5.3-1/files",
                0o644,
                b"%FILES%\nusr/\nusr/bin/bash\n\n%BACKUP%\netc/bash.bashrc\tabc\n",
            )
            .file("var/lib/pacman/local/ALPM_DB_VERSION", 0o644, b"9\n")
            .tree()
    }

    #[test]
    fn each_manager_is_asked_for_names_versions_and_files() {
        let tree = every_manager();
        let found = read(&tree, Depth::Files).unwrap().whole().unwrap();
        assert_eq!(
            found.packages,
            [
                package(
                    "bash",
                    "5.3-1",
                    None,
                    "var/lib/pacman/local/bash-5.3-1/desc"
                ),
                package("half", "3", Some("half-configured"), "var/lib/dpkg/status"),
                package(
                    "libc6",
                    "2.36-9",
                    None,
                    "var/lib/dpkg/info/libc6:amd64.list"
                ),
                package("musl", "1.2.5-r1", None, "lib/apk/db/installed"),
                package(
                    "torn",
                    "2-r0",
                    Some("a script failed"),
                    "lib/apk/db/installed"
                ),
            ]
        );
        for (path, owner) in [
            ("/usr/lib/libc.so.6", Some("libc6")),
            ("/lib/ld-musl.so.1", Some("musl")),
            ("/usr/bin/bash", Some("bash")),
            ("/etc/bash.bashrc", None),
        ] {
            assert_eq!(found.owner(path), owner, "{path}");
        }
        assert_eq!(found.named("musl").count(), 1);
        let shallow = read(&tree, Depth::Packages).unwrap();
        assert_eq!(shallow.packages.len(), 5);
        assert_eq!(shallow.owner("/usr/bin/bash"), None);
    }

    #[test]
    fn what_is_read_is_what_is_asked_for() {
        for (path, packages, files) in [
            ("var/lib/dpkg/status", true, true),
            ("var/lib/dpkg/info/bash.list", false, true),
            ("var/lib/dpkg/info/bash.postinst", false, false),
            ("usr/lib/sysimage/rpm/rpmdb.sqlite", true, true),
            ("var/lib/rpm/Packages.db", true, true),
            ("lib/apk/db/installed", true, true),
            ("var/lib/pacman/local/bash-5.3-1/desc", true, true),
            ("var/lib/pacman/local/bash-5.3-1/files", false, true),
        ] {
            assert_eq!(reads(path, Depth::Packages), packages, "{path}");
            assert_eq!(reads(path, Depth::Files), files, "{path}");
        }
    }

    #[test]
    fn a_database_that_would_fill_the_memory_is_told() {
        let tree = every_manager();
        let paths = [
            "var/lib/dpkg/info",
            "lib/apk/db/installed",
            "var/lib/pacman/local",
        ];
        // Room for the packages of the first but not for their files; then for nothing. What comes after has no room either.
        for (left, dpkg) in [(300, "var/lib/dpkg/info"), (100, "var/lib/dpkg/status")] {
            let mut found = Installed {
                taken: MAX_BYTES - left,
                ..Installed::default()
            };
            found.read(&tree, Depth::Files).unwrap();
            let told: Vec<_> = found.unread.iter().map(|it| it.path.clone()).collect();
            assert_eq!(told, [dpkg, paths[1], paths[2]].map(PathBuf::from));
            for unread in found.unread {
                assert!(unread.why.contains("more than 512 MiB"), "{unread:?}");
            }
        }
    }

    #[test]
    fn a_damaged_database_is_told_and_stops_whoever_needs_it_whole() {
        let tree = Sample::new()
            .file("var/lib/rpm/rpmdb.sqlite", 0o644, b"no database")
            .tree();
        let found = read(&tree, Depth::Packages).unwrap();
        assert_eq!(found.unread[0].path, Path::new("var/lib/rpm/rpmdb.sqlite"));
        let error = found.whole().unwrap_err().to_string();
        assert!(error.contains("rpmdb.sqlite"), "{error}");
    }
}
