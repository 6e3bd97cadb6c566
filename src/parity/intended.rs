//! What kfactory does otherwise than kairos-init on purpose, each with its reason.

use super::{Change, Difference, Subject};
use crate::distro::residue;

/// One difference that is meant.
#[derive(Debug)]
pub struct Intended {
    /// What kind of thing.
    pub subject: Subject,
    /// Names or absolute paths, patterns as in [`residue`]: one `*` in a name, `**` at the end.
    pub patterns: &'static [&'static str],
    /// The ways in which it may differ.
    pub changes: &'static [Change],
    /// Why.
    pub reason: &'static str,
}

use Change::{Added, Content, Missing, Mode};

/// What is meant, the first row that fits counting.
pub const INTENDED: &[Intended] = &[
    Intended {
        subject: Subject::File,
        patterns: &["/boot/initrd"],
        changes: &[Content, Mode],
        reason: "times are clamped and the compression is one that all cores work on",
    },
    Intended {
        subject: Subject::File,
        patterns: &["/boot"],
        changes: &[Mode],
        reason: "kairos-init makes /boot 0644, which nobody can search",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/boot/initrd.img*",
            "/initrd.img",
            "/initrd.img.old",
            "/vmlinuz.old",
        ],
        changes: &[Missing],
        reason: "only one initrd is kept: others can be taken for it, and their links dangle",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/system/oem/*",
            "/etc/kairos/branding/*",
            "/etc/cos/*",
            "/etc/motd",
            "/etc/issue.d/01-KAIROS",
        ],
        changes: &[Content],
        reason: "written afresh to the same requirements",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/usr/sbin/suc-upgrade",
            "/etc/logrotate.d/kairos",
            "/etc/dracut.conf.d/*",
            "/usr/lib/dracut/modules.d/28immucore/*",
            "/etc/ssh/sshd_config.d/05-kairos-hardening.conf",
            "/usr/sbin/kairos-jetson-qspi-update",
            "/usr/share/mkinitfs/initramfs-init",
            "/usr/sbin/cos-setup-reconcile",
        ],
        changes: &[Content],
        reason: "written afresh to the same requirements",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/usr/bin/immucore",
            "/usr/bin/kairos-agent",
            "/usr/bin/kairos",
            "/usr/bin/edgevpn",
            "/system/discovery/*",
            "/system/installer/*",
            "/system/providers/*",
        ],
        changes: &[Content],
        reason: "the programs of the releases as they are, not packed again",
    },
    Intended {
        subject: Subject::File,
        patterns: &["/etc/selinux/config"],
        changes: &[Mode],
        reason: "kairos-init leaves the file with mode 0000",
    },
    Intended {
        subject: Subject::File,
        patterns: &["/etc/ssh/moduli"],
        changes: &[Content],
        reason: "comments are kept where small primes are dropped",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/etc/kairos/.init_versions.yaml",
            "/etc/kairos-init",
            "/kairos-init",
        ],
        changes: &[Missing],
        reason: "kairos-init's own files",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/tmp/**",
            "/var/tmp/**",
            "/run/**",
            "/var/log/**",
            "/root/.cache",
        ],
        changes: &[Missing, Content],
        reason: "residue of the build",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/oem",
            "/efi",
            "/snap",
            "/system",
            "/var/lock",
            "/mnt",
            "/srv",
            "/opt",
        ],
        changes: &[Added],
        reason: "mount points are made where the base lacks them",
    },
    Intended {
        subject: Subject::File,
        patterns: &[
            "/var/cache/debconf/*",
            "/etc/ld.so.cache",
            "/var/lib/dpkg/**",
            "/var/lib/systemd/deb-systemd-helper-enabled/**",
            "/usr/lib/udev/hwdb.bin",
            "/var/lib/apt/extended_states",
            "/lib/apk/db/**",
            "/usr/lib/apk/db/**",
            "/var/lib/rpm/*",
            "/usr/lib/sysimage/rpm/*",
            "/usr/lib/sysimage/libdnf5/*.toml",
            "/var/lib/pacman/local/**",
        ],
        changes: &[Content],
        reason: "databases that hold times or the order of installation; what they say is compared as packages and services",
    },
    Intended {
        subject: Subject::Release,
        patterns: &["KAIROS_INIT_VERSION"],
        changes: &[Added, Content, Missing],
        reason: "names the tool that made the image",
    },
    Intended {
        subject: Subject::Release,
        patterns: &[
            "KAIROS_VERSION_ID",
            "KAIROS_GITHUB_REPO",
            "KAIROS_IMAGE_REPO",
            "KAIROS_IMAGE_LABEL",
            "KAIROS_ARTIFACT",
            "KAIROS_PRETTY_NAME",
            "KAIROS_REGISTRY_AND_ORG",
        ],
        changes: &[Missing],
        reason: "keys of older images, which nothing reads any more",
    },
    Intended {
        subject: Subject::Service,
        patterns: &["systemd-timesyncd.service", "fail2ban.service"],
        changes: &[Added],
        reason: "kairos-init forgets both on SLES",
    },
];

/// Returns why a difference is meant; `None` when no row fits.
pub(super) fn reason(difference: &Difference) -> Option<&'static str> {
    let relative = difference.name.trim_start_matches('/').as_bytes();
    if difference.subject == Subject::File
        && matches!(difference.change, Missing | Content)
        && residue::is_residue(relative)
    {
        return Some("residue of the build, or what is to differ on each machine");
    }
    let fits = |row: &&Intended| {
        row.subject == difference.subject
            && row.changes.contains(&difference.change)
            && row.patterns.iter().any(|pattern| {
                let pattern = pattern.trim_start_matches('/').as_bytes();
                residue::matches(pattern, relative)
            })
    };
    INTENDED.iter().find(fits).map(|row| row.reason)
}
