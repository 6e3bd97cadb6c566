//! openSUSE and SUSE Linux Enterprise.

use super::policy::{Fixes, InitramfsTool, Policy, PolicyFile, Preparation, Services};
use super::{Distro, DistroId};

/// Changes to forget, as for [`super::residue`].
pub const RESIDUE: &[&str] = &[
    // Package manager: metadata, solver caches, packages, logs, what identifies one installation.
    "var/cache/zypp/**",
    "var/cache/zypper/**",
    "var/log/zypper.log",
    "var/log/zypp/**",
    "var/lib/YaST2/cookies",
    "var/lib/zypp/AnonymousUniqueId",
    "var/lib/zypp/LastDistributionFlavor",
    // A kernel package asks for old kernels to be purged at the next boot; an image has one.
    "boot/do_purge_kernels",
];

const CACHES: &[&str] = &["/var/cache/zypp/*"];

/// What the zypper plugin of SUSE's images reads below `/run/secrets`.
const REGISTRATION: &[&str] = &["SCCcredentials", "SUSEConnect"];

/// Where SLE Micro for Rancher finds what its own repositories lack; Leap 15.5 is built from the same sources.
const LEAP_FOR_MICRO: PolicyFile = PolicyFile {
    path: "/etc/zypp/repos.d/oss.repo",
    content: "[opensuse-oss]\nname=openSUSE Leap 15.5 OSS\nenabled=1\nautorefresh=0\n\
        baseurl=https://download.opensuse.org/distribution/leap/15.5/repo/oss/\n",
};

pub(super) fn policy(distro: &Distro) -> Policy {
    let is_micro = distro.base == DistroId::SleMicroRancher;
    let preparation = if is_micro {
        Preparation {
            files: vec![LEAP_FOR_MICRO],
            import_keys: true,
            // The base brings an older one, and one kernel is enough.
            remove: vec!["kernel-default"],
            ..Preparation::default()
        }
    } else {
        Preparation::default()
    };
    Policy {
        has_packages: true,
        secrets: match distro.base {
            DistroId::Sles | DistroId::SleMicroRancher => REGISTRATION,
            _ => &[],
        },
        preparation,
        services: services(distro.base),
        initramfs: InitramfsTool::Dracut,
        fixes: Fixes::default(),
        caches: CACHES,
    }
}

fn services(distro: DistroId) -> Services {
    let network = ["sshd", "systemd-networkd", "systemd-resolved"];
    let optional = ["fail2ban", "systemd-timesyncd"];
    let mut services = Services {
        enable: [&optional[..], &network].concat(),
        mask: vec!["systemd-firstboot.service"],
        ..Services::default()
    };
    match distro {
        DistroId::SleMicroRancher => {
            services.enable = network.into();
            services.optional = optional.into();
            services.disable = vec!["NetworkManager"];
        }
        DistroId::OpensuseLeap | DistroId::Sles => {
            // It would collide with networkd.
            services.disable.push("wicked");
            services.mask.push("wicked");
        }
        _ => {}
    }
    services
}
