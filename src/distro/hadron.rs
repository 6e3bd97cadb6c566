//! Hadron, Kairos' own base: complete, without a package manager.

use super::policy::{Fixes, InitramfsTool, Policy, Preparation, Services};

pub(super) fn policy() -> Policy {
    Policy {
        has_packages: false,
        secrets: &[],
        preparation: Preparation::default(),
        services: Services {
            enable: vec![
                "systemd-timesyncd",
                "sshd",
                "systemd-networkd",
                "systemd-resolved",
            ],
            mask: vec!["systemd-firstboot.service"],
            ..Services::default()
        },
        initramfs: InitramfsTool::Dracut,
        fixes: Fixes::default(),
        caches: &[],
    }
}
