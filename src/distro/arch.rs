//! Arch Linux. Kairos has no packages of its own for it: the base brings kernel, dracut and boot loader.

use super::policy::{Fixes, InitramfsTool, Policy, Preparation, Services};

/// Changes to forget, as for [`super::residue`].
pub const RESIDUE: &[&str] = &[
    "var/cache/pacman/pkg/**",
    "var/lib/pacman/sync/**",
    "var/lib/pacman/db.lck",
    "var/log/pacman.log",
];

const CACHES: &[&str] = &["/var/cache/pacman/pkg/*", "/var/lib/pacman/sync/*"];

pub(super) fn policy() -> Policy {
    Policy {
        has_packages: true,
        secrets: &[],
        preparation: Preparation::default(),
        services: Services {
            // None of them is on a list of packages, so that none is missed.
            optional: vec![
                "sshd",
                "systemd-networkd",
                "systemd-resolved",
                "systemd-timesyncd",
            ],
            mask: vec!["systemd-firstboot.service"],
            ..Services::default()
        },
        initramfs: InitramfsTool::Dracut,
        fixes: Fixes::default(),
        caches: CACHES,
    }
}
