//! What a converted image receives from Kairos: small files, cloud-configs, the release file, and the rules behind them.
//!
//! Only data and pure functions: which file, with which mode, with which content, for which facts. Writing the files into a
//! rootfs, looking at that rootfs and running commands in it is the business of the steps.
//!
//! * [`CLOUD_CONFIGS`] · what happens on the booted system, stage by stage
//! * [`files`] · grub, branding, small files, sshd
//! * [`dracut`] · the initramfs configuration and the `28immucore` module
//! * [`release`] and [`version`] · `/etc/kairos-release`
//! * [`kernel`] · which of the installed kernels the image boots

pub mod dotenv;
pub mod dracut;
pub mod files;
pub mod kernel;
pub mod mkinitfs;
pub mod release;
pub mod version;

use std::borrow::Cow;

/// The directory of the cloud-configs that belong to the image; every upgrade replaces it.
pub const CLOUD_CONFIG_DIR: &str = "/system/oem";
/// The mode of [`CLOUD_CONFIG_DIR`] and of every directory that the files of this module need.
pub const DIRECTORY_MODE: u32 = 0o755;
/// The mode of each cloud-config.
pub const CLOUD_CONFIG_MODE: u32 = 0o644;

/// A file that the image gets. It belongs to root:root; missing directories above it get [`DIRECTORY_MODE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticFile {
    /// The absolute path in the image, free of links and dots.
    pub path: Cow<'static, str>,
    /// The permission bits.
    pub mode: u32,
    /// The whole content.
    pub content: Cow<'static, str>,
}

impl StaticFile {
    /// A file whose path and content are known when the program is compiled.
    pub const fn new(path: &'static str, mode: u32, content: &'static str) -> Self {
        Self {
            path: Cow::Borrowed(path),
            mode,
            content: Cow::Borrowed(content),
        }
    }
}

macro_rules! cloud_configs {
    ($($name:literal),+ $(,)?) => {
        /// The cloud-configs by file name, in lexical order. Every image gets all of them; conditions inside select at boot.
        ///
        /// What the engine does not check, so that the files have to keep to it:
        ///
        /// * Steps of different files may run at the same time, whatever the names of the files. What must come first is in the
        ///   same file or in an earlier stage (`X.before`, `X`, `X.after`).
        /// * A file or directory without `permissions` gets none at all, and an unknown key is ignored.
        /// * Conditions are POSIX sh, and look for whole words on the command line with the shell alone: `rootfs` stages run in the
        ///   initramfs, which has few programs.
        /// * A reset boot has the sentinel `autoreset_mode` and not `recovery_mode`.
        pub const CLOUD_CONFIGS: &[(&str, &str)] = &[$(($name, include_str!(concat!("cloudconfigs/", $name)))),+];
    };
}

cloud_configs![
    "00_datasource.yaml",
    "00_home_dir_owner_fix.yaml",
    "00_rootfs.yaml",
    "01_extra_binds.yaml",
    "02_agent.yaml",
    "02_notify.yaml",
    "03-setupcon.yaml",
    "05_network.yaml",
    "08_efi_assessment.yaml",
    "08_grub.yaml",
    "08_ssh.yaml",
    "09_openrc_services.yaml",
    "09_systemd_services.yaml",
    "10_accounting.yaml",
    "11_RPI.yaml",
    "12_nvidia.yaml",
    "13_nvidia_qspi.yaml",
    "21_kcrypt.yaml",
    "23_c3os.yaml",
    "25_autologin.yaml",
    "26_selinux.yaml",
    "26_vm.yaml",
    "29_blacklist.yaml",
    "30-prepare-l4t-rootfs.yaml",
    "30_ulimit.yaml",
    "31_hosts.yaml",
    "32_profile.yaml",
    "50_recovery.yaml",
    "51_reset.yaml",
    "52_installer.yaml",
    "99_sysext.yaml",
];

/// Returns the cloud-configs as files of the image.
pub fn cloud_config_files() -> Vec<StaticFile> {
    CLOUD_CONFIGS
        .iter()
        .map(|(name, content)| StaticFile {
            path: format!("{CLOUD_CONFIG_DIR}/{name}").into(),
            mode: CLOUD_CONFIG_MODE,
            content: Cow::Borrowed(content),
        })
        .collect()
}

#[cfg(test)]
mod tests;
