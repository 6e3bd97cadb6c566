//! Package managers besides apt: the command lines, configuration and environment that install packages fast and without a trace.
//!
//! Mechanism only, as [`super::apt`]: which packages, and for whom, is decided elsewhere. Nothing here touches a disk. The engine
//! writes a manager's [`Setup`] to a scratch directory, mounts that at [`WORKSPACE`] and its shared caches where the manager looks
//! for them, and runs the commands. To add a manager: a file beside this one with a [`Manager`], and its line in the family's list.
//!
//! # Holding back
//!
//! Packages rebuild the initrd, write boot loader entries or purge kernels when a kernel is installed. One step of ours builds the
//! initrd, once, at the end; an image has no disk to boot from. Each manager is told so in its own words: rpm's scripts search a
//! directory of commands that do nothing first, `kernel-install` and SUSE's triggers read a variable, pacman's hooks are masked,
//! and Alpine's triggers read files that the plan writes.

pub mod apk;
pub mod dnf;
pub mod pacman;
mod rpm;
pub mod zypper;

use super::Family;
pub use super::apt::{InvalidPackage, WorkFile};

/// The directory inside the sandbox that holds a manager's configuration and everything that it must not leave in the image.
pub const WORKSPACE: &str = "/run/kfactory";

/// Packages to fetch at a time: mirrors answer one request in a round trip, so several hide it; more are impolite.
const PARALLEL_DOWNLOADS: u32 = 8;

/// The body of a held-back command.
const NO_OP: &str = "#!/bin/sh\nexit 0\n";

/// A directory that runs share one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Its name in the store's package cache.
    pub name: &'static str,
    /// Where the manager looks for it.
    pub path: &'static str,
}

/// What stands in the workspace before a manager runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// Files below [`WORKSPACE`], with their directories.
    pub files: Vec<WorkFile>,
    /// Symbolic links below [`WORKSPACE`]: path and target.
    pub links: Vec<(String, &'static str)>,
    /// Empty directories below [`WORKSPACE`].
    pub directories: Vec<String>,
    /// Directories of the image, and the ones below [`WORKSPACE`] that get a link to whatever they hold, unless the name is taken.
    pub mirrored: Vec<(&'static str, String)>,
    /// Variables of every command.
    pub environment: Vec<(&'static str, String)>,
}

/// What a manager is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Fetch the repositories' metadata; with `import_keys` trust the keys that they state.
    Refresh {
        /// Whether keys are trusted without asking.
        import_keys: bool,
    },
    /// Bring every installed package up to date.
    Upgrade,
    /// Fetch what installing these packages takes into the cache, many files at a time; install nothing.
    Download(&'a [&'a str]),
    /// Install these packages and what they depend on, without what they only recommend.
    Install {
        /// Their names, or the address of one package.
        names: &'a [&'a str],
        /// Whether installed packages that conflict may be removed.
        replace: bool,
    },
    /// Remove these packages.
    Remove(&'a [&'a str]),
    /// Print the name of every installed package, one a line.
    List,
}

impl<'a> Operation<'a> {
    /// Installs without replacing anything.
    pub fn install(names: &'a [&'a str]) -> Self {
        Self::Install {
            names,
            replace: false,
        }
    }

    fn names(&self) -> &'a [&'a str] {
        match self {
            Self::Download(names) | Self::Install { names, .. } | Self::Remove(names) => names,
            Self::Refresh { .. } | Self::Upgrade | Self::List => &[],
        }
    }
}

/// A package manager.
#[derive(Debug)]
pub struct Manager {
    /// Its name for people; the versions of dnf are managers of their own.
    pub name: &'static str,
    /// The files of which one tells that a base has it.
    pub programs: &'static [&'static str],
    /// The directories it shares with other runs.
    pub caches: &'static [Cache],
    /// A directory of [`Manager::caches`] that it empties of packages once they are installed.
    pub forgets: Option<&'static str>,
    setup: fn() -> Setup,
    /// `None`: it has no such operation of its own, and its installation does the work.
    words: fn(Operation<'_>) -> Option<Vec<String>>,
}

impl Manager {
    /// Returns what must stand in the workspace.
    pub fn setup(&self) -> Setup {
        (self.setup)()
    }

    /// Builds the command line that does `operation`; `None` where the manager has none for it.
    ///
    /// # Errors
    ///
    /// [`InvalidPackage`] for a name that the manager could read as an option, a file or a pattern.
    pub fn command(&self, operation: Operation<'_>) -> Result<Option<Vec<String>>, InvalidPackage> {
        for name in operation.names() {
            check(name)?;
        }
        Ok((self.words)(operation).map(|mut words| {
            words.extend(operation.names().iter().map(|name| (*name).to_owned()));
            words
        }))
    }
}

/// Returns the managers that a base of `family` may have, the preferred one first. None for Debian, which has apt, and for
/// complete bases.
pub fn of_family(family: Family) -> Vec<&'static Manager> {
    match family {
        Family::Redhat => vec![&dnf::DNF5, &dnf::DNF4, &dnf::MICRODNF],
        Family::Suse => vec![&zypper::ZYPPER],
        Family::Alpine => vec![&apk::APK],
        Family::Arch => vec![&pacman::PACMAN],
        Family::Debian | Family::Hadron => Vec::new(),
    }
}

/// Accepts a package name, with a version where the manager takes one, and the address of a package.
fn check(name: &str) -> Result<(), InvalidPackage> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".+-_:=~^".contains(&b);
    let valid = match name.strip_prefix("https://") {
        Some(rest) => rest.bytes().all(|b| plain(b) || b == b'/') && !rest.is_empty(),
        None => name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.bytes().all(plain),
    };
    match valid {
        true => Ok(()),
        false => Err(InvalidPackage {
            name: name.to_owned(),
        }),
    }
}

/// Splits a command line that holds no quotes.
fn words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Returns files that do nothing for `names`, in a directory that is searched first.
fn held_back(names: &[&str]) -> Vec<WorkFile> {
    let no_op = |name: &&str| WorkFile {
        path: format!("{WORKSPACE}/bin/{name}"),
        mode: 0o755,
        content: NO_OP.into(),
    };
    names.iter().map(no_op).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ALL: [&Manager; 6] = [
        &dnf::DNF5,
        &dnf::DNF4,
        &dnf::MICRODNF,
        &zypper::ZYPPER,
        &apk::APK,
        &pacman::PACMAN,
    ];

    fn line(manager: &Manager, operation: Operation<'_>) -> String {
        let words = manager.command(operation).expect("valid names");
        words.map_or_else(|| "(none)".to_owned(), |words| words.join(" "))
    }

    #[test]
    fn command_lines_are_as_the_golden_file_says() {
        let mut found = String::new();
        for manager in ALL {
            found.push_str(&format!("{}\n", manager.name));
            for (what, operation) in [
                ("refresh", Operation::Refresh { import_keys: false }),
                ("trust", Operation::Refresh { import_keys: true }),
                ("upgrade", Operation::Upgrade),
                ("download", Operation::Download(&["jq", "g++"])),
                ("install", Operation::install(&["jq", "kernel=6.1-2"])),
                (
                    "replace",
                    Operation::Install {
                        names: &["vim"],
                        replace: true,
                    },
                ),
                ("remove", Operation::Remove(&["vim"])),
                ("list", Operation::List),
            ] {
                found.push_str(&format!("  {what}: {}\n", line(manager, operation)));
            }
        }
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/packages/managers.txt");
        if std::env::var_os("KFACTORY_UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &found).expect("our source");
        }
        let expected = std::fs::read_to_string(&golden).expect("our source");
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "`just golden` rewrites");
        }
        assert_eq!(found.lines().count(), expected.lines().count());
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for manager in ALL {
            for name in [
                "",
                "-y",
                "--root=/",
                "./x.rpm",
                "/x.rpm",
                "a b",
                "lib*",
                "@core",
                "x;y",
                "!x",
                "~x",
                "https://",
                "https://h/$(id)",
                "http://h/x.rpm",
                "x\n",
            ] {
                let refused = manager.command(Operation::install(&["jq", name]));
                assert_eq!(
                    refused,
                    Err(InvalidPackage {
                        name: name.to_owned()
                    }),
                    "{}",
                    manager.name
                );
            }
        }
    }

    #[test]
    fn everything_of_a_setup_lies_in_the_workspace() {
        for manager in ALL {
            let setup = manager.setup();
            let paths = setup.files.iter().map(|file| &file.path);
            let paths = paths
                .chain(setup.links.iter().map(|(path, _)| path))
                .chain(&setup.directories);
            for path in paths {
                assert!(
                    path.starts_with(&format!("{WORKSPACE}/")) && !path.contains(".."),
                    "{path}"
                );
            }
            for cache in manager.caches {
                assert!(cache.path.starts_with('/') && !cache.name.contains('/'));
            }
        }
    }

    #[test]
    fn scripts_of_rpm_packages_find_the_held_back_commands_first() {
        for manager in [&dnf::DNF5, &dnf::DNF4, &dnf::MICRODNF, &zypper::ZYPPER] {
            let setup = manager.setup();
            let macros = setup
                .files
                .iter()
                .find(|file| file.path == format!("{WORKSPACE}/.rpmmacros"))
                .expect("rpm reads it from the home directory");
            assert!(
                macros
                    .text()
                    .contains("%_install_script_path /run/kfactory/bin:/sbin:")
            );
            let has = |name: &str| {
                let path = format!("{WORKSPACE}/bin/{name}");
                setup.files.iter().any(|file| file.path == path)
            };
            assert!(has("dracut") && has("kernel-install") && has("grub2-mkconfig"));
            assert!(setup.environment.contains(&("HOME", WORKSPACE.to_owned())));
        }
    }
}
