//! A base of a few files, converted by nothing but the steps that belong to providers.

use std::path::PathBuf;

use super::base::shell_tar;
use super::framework::stand_ins;
use super::program::Ran;
use super::tree::Tree;
use super::{Kfactory, need, world};

const DEBIAN: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
/// Every step that has nothing to do with providers.
const OTHER_STEPS: &str = "installPackages,installKernel,branding,grub,miscellaneous,cloudconfigs,kairosBinaries,providerBinaries,\
                           kernel,initramfsConfigs,initrd,services,sshHardening,workarounds,cleanup";

/// A base with a shell and these plugins, and what a conversion of it needs.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) base: String,
    pub(crate) store: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Small {
    /// Makes the base; `None` where that cannot be done.
    pub(crate) fn new(name: &str, files: &[(&str, u32, &str)]) -> Option<Self> {
        if !need(&["bwrap", "newuidmap"]) {
            return None;
        }
        let mut all = vec![("etc/os-release", 0o644, DEBIAN)];
        all.extend(files);
        let tar = shell_tar(&format!("provider-{name}"), &all)?;
        Some(Self {
            base: format!("tar:{}", tar.display()),
            store: world().user_dir(&format!("provider-{name}-store")),
            dir: world().user_dir(&format!("provider-{name}")),
        })
    }

    /// Prepares a conversion that does nothing but what belongs to providers.
    pub(crate) fn convert(&self, options: &[&str]) -> Kfactory {
        let dest = format!("oci:{}:v1.0.0", self.dir.join("out").display());
        let framework = format!(
            "dir:{}",
            stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
        );
        Kfactory::new(["convert", &self.base, &dest, "--framework", &framework])
            // What is left without all other steps is no system.
            .args([
                "--progress",
                "plain",
                "--no-validate",
                "--skip-step",
                OTHER_STEPS,
            ])
            .args(options)
            .store(&self.store)
            .dated()
    }

    /// Unpacks what was converted.
    pub(crate) fn tree(&self, name: &str) -> Tree {
        let dir = self.dir.join(name);
        let image = format!("oci:{}:v1.0.0", self.dir.join("out").display());
        Kfactory::new(["unpack", &image, dir.to_str().expect("UTF-8")])
            .store(&self.store)
            .succeed();
        Tree::new(dir)
    }

    /// Converts what must fail with `code`, and asserts that nothing was written.
    #[track_caller]
    pub(crate) fn fail(&self, code: i32, options: &[&str], words: &[&str]) -> Ran {
        let ran = self.convert(options).fail(code);
        ran.tells(words);
        assert!(!self.dir.join("out").exists(), "something was written");
        ran
    }
}

/// Says what k3s says of itself.
pub(crate) fn k3s_program(version: &str) -> String {
    format!("#!/bin/sh\necho 'k3s version {version} (0a1b2c3d)'\necho 'go version go1.24.5'\n")
}
