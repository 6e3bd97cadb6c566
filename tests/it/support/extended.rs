//! Conversions in which nothing runs but stage extensions.

use std::fs;
use std::path::{Path, PathBuf};

use super::base::shell_tar;
use super::program::Ran;
use super::tree::Tree;
use super::{Kfactory, need, world};

pub(crate) const DEBIAN: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\n";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
/// Every step of our own.
const BUILT_IN: &str = "installPackages,installKernel,branding,grub,miscellaneous,cloudconfigs,kairosBinaries,kairosRelease,kernel,initramfsConfigs,initrd,services,sshHardening,workarounds,cleanup";

/// A base, a store, and a directory of extensions.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) base: String,
    pub(crate) dir: PathBuf,
    pub(crate) store: PathBuf,
    name: &'static str,
}

impl Rig {
    /// Makes one with little more than a shell; `None` where that cannot be done.
    pub(crate) fn new(name: &'static str) -> Option<Self> {
        let tar = shell_tar(
            "extensions",
            &[
                ("etc/os-release", 0o644, DEBIAN),
                ("etc/passwd", 0o644, PASSWD),
                ("etc/shadow", 0o640, "root:*:19000::::::\n"),
                ("etc/group", 0o644, "root:x:0:\n"),
                ("tmp/.keep", 0o644, ""),
            ],
        )?;
        Self::of(name, &tar)
    }

    /// Makes one with the base in `tar`.
    pub(crate) fn of(name: &'static str, tar: &Path) -> Option<Self> {
        need(&["bwrap", "newuidmap"]).then(|| Self {
            base: format!("tar:{}", tar.display()),
            dir: world().own_dir(&format!("extensions-{name}")),
            store: world().user_dir(&format!("extensions-{name}")),
            name,
        })
    }

    /// Writes an extension file.
    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        fs::write(self.dir.join(name), text).expect("our directory");
        self
    }

    /// Returns where the result goes.
    pub(crate) fn archive(&self) -> PathBuf {
        self.store.join("image.tar")
    }

    /// Prepares a conversion in which nothing runs but extensions.
    pub(crate) fn convert(&self) -> Kfactory {
        let _ = fs::remove_file(self.archive());
        let dest = format!("oci-archive:{}", self.archive().display());
        let dir = self.dir.display().to_string();
        let arguments = [
            "convert",
            &self.base,
            &dest,
            "-v",
            "v1.0.0",
            "-x",
            &dir,
            "--skip-step",
            BUILT_IN,
            // A shell and a few files are no system, whatever extensions do to them.
            "--no-validate",
            "--progress",
            "plain",
        ];
        Kfactory::new(arguments).store(&self.store).dated()
    }

    /// Converts, and returns what was said and the tree that was made.
    #[track_caller]
    pub(crate) fn made(&self) -> (Ran, Tree) {
        let ran = self.convert().succeed();
        let dir = tempfile::Builder::new()
            .prefix(self.name)
            .tempdir_in(&world().dir)
            .expect("a directory")
            .keep();
        let target = dir.join("tree");
        let archive = format!("oci-archive:{}", self.archive().display());
        let place = target.display().to_string();
        Kfactory::as_caller(["unpack", &archive, &place])
            .store(&dir.join("store"))
            .succeed();
        (ran, Tree::new(target))
    }
}

/// Makes a [`Rig`], or ends the test.
macro_rules! rig {
    ($name:literal) => {
        match crate::support::extended::Rig::new($name) {
            Some(rig) => rig,
            None => return,
        }
    };
}

pub(crate) use rig;
