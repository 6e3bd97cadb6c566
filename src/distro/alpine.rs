//! Alpine Linux: OpenRC, mkinitfs, musl.

use super::policy::{Fixes, InitramfsTool, Policy, PolicyFile, Preparation, Services};

/// Changes to forget, as for [`super::residue`].
pub const RESIDUE: &[&str] = &["var/cache/apk/**", "var/log/apk.log", "lib/apk/db/lock"];

const CACHES: &[&str] = &["/var/cache/apk/*"];

/// Package triggers would look for disks to write boot loader entries for, and build an initramfs that ours replaces.
const HELD_BACK: [PolicyFile; 2] = [
    PolicyFile {
        path: "/etc/update-grub.conf",
        content: "disable_trigger=1\n",
    },
    PolicyFile {
        path: "/etc/mkinitfs/mkinitfs.conf",
        content: "disable_trigger=true\n",
    },
];

pub(super) fn policy() -> Policy {
    Policy {
        has_packages: true,
        secrets: &[],
        preparation: Preparation {
            files: HELD_BACK.into(),
            settle: Some((
                "/etc/mkinitfs/mkinitfs.conf.apk-new",
                "/etc/mkinitfs/mkinitfs.conf",
            )),
            ..Preparation::default()
        },
        services: Services {
            runlevels: vec![
                ("sysinit", vec!["udev", "udev-trigger", "cgroups"]),
                (
                    "boot",
                    vec![
                        "sshd", "fail2ban", "connman", "acpid", "hwclock", "syslog", "ntpd",
                    ],
                ),
                ("default", vec!["crond"]),
            ],
            ..Services::default()
        },
        initramfs: InitramfsTool::Mkinitfs,
        fixes: Fixes::default(),
        caches: CACHES,
    }
}
