//! Debian, Ubuntu and what derives from them.

use super::policy::{Fixes, InitramfsTool, Policy, Preparation, Services};

/// Changes to forget, as for [`super::residue`].
pub const RESIDUE: &[&str] = &[
    // Package manager: downloads, indexes, their binary caches, locks, backups of the previous state.
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/**",
    "var/lib/apt/lists/**",
    "var/lib/apt/daily_lock",
    "var/lib/apt/periodic/**",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/dpkg/*-old",
    "var/cache/debconf/*-old",
    // Logs of the build.
    "var/log/alternatives.log",
    "var/log/apt/**",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/unattended-upgrades/**",
];

const CACHES: &[&str] = &["/var/cache/apt/*", "/var/lib/apt/lists/*"];

pub(super) fn policy() -> Policy {
    Policy {
        has_packages: true,
        secrets: &[],
        preparation: Preparation::default(),
        services: Services {
            enable: vec!["fail2ban", "systemd-timesyncd", "ssh", "systemd-networkd"],
            mask: vec!["systemd-firstboot.service"],
            ..Services::default()
        },
        initramfs: InitramfsTool::Dracut,
        fixes: Fixes {
            permissions: vec![("/usr/bin/sudo", 0o4755)],
            // snapd's mount point must exist in a read-only root.
            directories: vec!["/snap"],
            ..Fixes::default()
        },
        caches: CACHES,
    }
}
