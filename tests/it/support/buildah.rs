//! buildah as the plain user, with a storage of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::program::clean_environment;
use super::registry::run;
use super::world;
use super::world::remove_tree;

/// A storage and who uses it; removed when dropped.
#[derive(Debug)]
pub(crate) struct Buildah {
    /// Where it works; context directories may be made here.
    pub(crate) home: PathBuf,
}

impl Buildah {
    /// Makes an empty storage called `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            home: world().user_dir(name),
        }
    }

    /// Runs buildah and returns what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    /// Runs buildah, which may fail.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        output.expect("buildah starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = world().user.command("buildah");
        clean_environment(&mut command, &world().dir.join("home"));
        let storage = |name| self.home.join(name);
        command
            .env("BUILDAH_ISOLATION", "chroot")
            .env("TMPDIR", &self.home)
            .current_dir(&self.home)
            .arg("--root")
            .arg(storage("graph"))
            .arg("--runroot")
            .arg(storage("run"))
            .args(["--storage-driver", "overlay"])
            .args(arguments);
        command
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        remove_tree(&self.home);
    }
}
