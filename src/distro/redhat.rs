//! Fedora, Red Hat Enterprise Linux and what is built from it.

use super::policy::{
    Fixes, InitramfsTool, Policy, PolicyFile, Preparation, RepositoryPackage, Services,
};
use super::{Arch, Distro, DistroId};

/// Changes to forget, as for [`super::residue`].
pub const RESIDUE: &[&str] = &[
    // Package managers: metadata, packages, logs, the history with the moment of each transaction, timers' stamps.
    "var/cache/dnf/**",
    "var/cache/libdnf5/**",
    "var/cache/yum/**",
    "var/lib/dnf/history.sqlite*",
    "var/lib/dnf/repos/**",
    "usr/lib/sysimage/libdnf5/transaction_history.sqlite*",
    "var/log/dnf*",
    "var/log/hawkey.log*",
    "var/log/yum.log",
    "var/log/rhsm/**",
    // What subscription-manager writes for the entitlement it was lent; it is written again wherever it is needed.
    "etc/yum.repos.d/redhat.repo",
    // The build host's own files cover these two while packages are installed.
    "etc/hosts.rpmnew",
    "etc/resolv.conf.rpmnew",
    // Locks and shared memory of the package database.
    "var/lib/rpm/.rpm.lock",
    "var/lib/rpm/.keyring.lock",
    "var/lib/rpm/__db.*",
    "var/lib/rpm/.dbenv.lock",
    "var/lib/rpm/*.sqlite-shm",
    "usr/lib/sysimage/rpm/.rpm.lock",
    "usr/lib/sysimage/rpm/.keyring.lock",
    "usr/lib/sysimage/rpm/*.sqlite-shm",
];

const CACHES: &[&str] = &[
    "/var/cache/dnf/*",
    "/var/cache/libdnf5/*",
    "/var/cache/yum/*",
];

/// Where subscription-manager looks in a container: the images link its own paths to these below `/run/secrets`.
const SUBSCRIPTION: &[&str] = &["etc-pki-entitlement", "rhsm"];

/// The kernel's command line switches SELinux off at every boot, so that relabelling is pointless.
const SELINUX_OFF: PolicyFile = PolicyFile {
    path: "/etc/selinux/config",
    content: "SELINUX=disabled\n",
};

pub(super) fn policy(distro: &Distro, arch: Arch) -> Policy {
    // Rebuilds state that they are like it; what follows is for subscribers' images alone.
    let is_red_hat = distro.base == DistroId::Rhel && !distro.is_derivative();
    Policy {
        has_packages: true,
        secrets: if is_red_hat { SUBSCRIPTION } else { &[] },
        preparation: Preparation {
            repository: is_red_hat.then(|| epel(distro)),
            kernel_repository: kernel_repository(distro, arch),
            ..Preparation::default()
        },
        services: services(distro, is_red_hat),
        initramfs: InitramfsTool::Dracut,
        fixes: Fixes {
            files: if is_red_hat {
                vec![SELINUX_OFF]
            } else {
                Vec::new()
            },
            ..Fixes::default()
        },
        caches: CACHES,
    }
}

fn major(distro: &Distro) -> &str {
    distro.version.split('.').next().unwrap_or_default()
}

/// Red Hat's own repositories lack EPEL's package.
fn epel(distro: &Distro) -> RepositoryPackage {
    RepositoryPackage {
        name: "epel-release".to_owned(),
        url: format!(
            "https://dl.fedoraproject.org/pub/epel/epel-release-latest-{}.noarch.rpm",
            major(distro)
        ),
    }
}

/// Oracle's kernel for ARM is in a repository that its images of release 10 leave off.
fn kernel_repository(distro: &Distro, arch: Arch) -> Option<&'static str> {
    (distro.base == DistroId::Ol && arch == Arch::Arm64 && major(distro) == "10")
        .then_some("ol10_UEKR8")
}

fn services(distro: &Distro, is_red_hat: bool) -> Services {
    let mut services = Services {
        enable: vec!["chronyd", "sshd", "systemd-resolved"],
        optional: vec!["NetworkManager", "systemd-networkd"],
        disable: vec!["dnf-makecache", "dnf-makecache.timer"],
        mask: vec!["systemd-firstboot.service"],
        unmask: vec!["getty.target", "systemd-logind", "systemd-udevd"],
        runlevels: Vec::new(),
    };
    // Outside Fedora it comes from EPEL, and only where somebody wants it.
    match distro.base {
        DistroId::Fedora => services.enable.insert(0, "fail2ban"),
        _ => services.optional.insert(0, "fail2ban"),
    }
    if is_red_hat {
        services.enable.extend([
            "getty@tty1",
            "getty@tty2",
            "getty@tty3",
            "proc-sys-fs-binfmt_misc.mount",
            "tmp.mount",
        ]);
        services.disable.push("selinux-autorelabel-mark");
        services.unmask.extend([
            "console-getty",
            "systemd-random-seed",
            "systemd-remount-fs",
            "systemd-udev-trigger",
        ]);
    }
    services
}
