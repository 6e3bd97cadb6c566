//! What making a system of one family a Kairos one takes besides its package names: services, files, fixes, left-overs.
//!
//! Plain values, chosen once by detection. Each family has a file of its own beside this one; how its package manager is
//! driven is none of their business. The steps turn these values into actions.

use super::{Arch, Distro, Family, alpine, arch, debian, hadron, redhat, suse};

/// A file of the image, root's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its absolute path.
    pub path: &'static str,
    /// Its whole content.
    pub content: &'static str,
}

/// A package that brings a repository, with another place to take it from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryPackage {
    /// Its name.
    pub name: String,
    /// The package's address where no enabled repository has it.
    pub url: String,
}

/// What has to happen before the base packages can be installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preparation {
    /// Files to write first: repositories, and settings that keep package triggers from doing what steps of ours do.
    pub files: Vec<PolicyFile>,
    /// A package to install, from an address where no repository has it.
    pub repository: Option<RepositoryPackage>,
    /// Whether keys that the repositories state are trusted without asking.
    pub import_keys: bool,
    /// Packages of the base that stand in the way.
    pub remove: Vec<&'static str>,
    /// A file that a package leaves beside the one it wants to replace, and its place.
    pub settle: Option<(&'static str, &'static str)>,
    /// A repository of the base that the kernel comes from and that is not enabled.
    pub kernel_repository: Option<&'static str>,
}

/// Which services run. Names without a dot are services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// To be enabled; one that is not installed is worth a warning.
    pub enable: Vec<&'static str>,
    /// To be enabled where they are installed.
    pub optional: Vec<&'static str>,
    /// To be disabled where they are installed.
    pub disable: Vec<&'static str>,
    /// To be masked, installed or not.
    pub mask: Vec<&'static str>,
    /// Container images mask them; a machine needs them.
    pub unmask: Vec<&'static str>,
    /// OpenRC's run levels and what is added to each. Empty on systemd.
    pub runlevels: Vec<(&'static str, Vec<&'static str>)>,
}

/// What makes the initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InitramfsTool {
    /// dracut.
    Dracut,
    /// mkinitfs, of Alpine.
    Mkinitfs,
}

impl InitramfsTool {
    /// Returns the command's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dracut => "dracut",
            Self::Mkinitfs => "mkinitfs",
        }
    }
}

/// Small corrections to what the distribution ships.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixes {
    /// Files to write.
    pub files: Vec<PolicyFile>,
    /// Existing files that must belong to root with these permission bits.
    pub permissions: Vec<(&'static str, u32)>,
    /// Directories that a read-only root must offer.
    pub directories: Vec<&'static str>,
}

/// Everything above for one base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether the base has a package manager; without one it must come complete.
    pub has_packages: bool,
    /// Names of the secrets that open its repositories; they are mounts, and only while packages are installed.
    pub secrets: &'static [&'static str],
    /// What comes before the base packages.
    pub preparation: Preparation,
    /// The services.
    pub services: Services,
    /// What makes the initramfs.
    pub initramfs: InitramfsTool,
    /// The corrections.
    pub fixes: Fixes,
    /// What the base image may hold of package managers' caches; a star stands for any name.
    pub caches: &'static [&'static str],
}

impl Policy {
    /// Returns the policy for `distro` on `arch`.
    pub fn new(distro: &Distro, arch: Arch) -> Self {
        match distro.family {
            Family::Debian => debian::policy(),
            Family::Redhat => redhat::policy(distro, arch),
            Family::Suse => suse::policy(distro),
            Family::Alpine => alpine::policy(),
            Family::Arch => arch::policy(),
            Family::Hadron => hadron::policy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DISTROS, OsRelease};
    use super::*;

    fn of(id: &str, version: &str, arch: Arch) -> Policy {
        let text = format!("ID={id}\nVERSION_ID={version}\n");
        Policy::new(
            &Distro::detect(&OsRelease::parse(&text)).expect("known"),
            arch,
        )
    }

    #[test]
    fn no_service_is_asked_for_in_two_ways() {
        for known in DISTROS {
            let services = of(known.name, "10.1", Arch::Amd64).services;
            let mut names = [
                &services.enable,
                &services.optional,
                &services.disable,
                &services.mask,
            ]
            .map(|list| list.clone())
            .concat();
            names.retain(|name| *name != "wicked");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", known.name);
        }
    }

    #[test]
    fn every_system_lets_its_owner_in_and_knows_the_time() {
        for known in DISTROS {
            let services = of(known.name, "10.1", Arch::Amd64).services;
            let mut all = [&services.enable[..], &services.optional].concat();
            all.extend(services.runlevels.iter().flat_map(|(_, names)| names));
            let has = |names: &[&str]| names.iter().any(|name| all.contains(name));
            assert!(has(&["ssh", "sshd"]), "{}", known.name);
            assert!(
                has(&["systemd-timesyncd", "chronyd", "ntpd"]),
                "{}",
                known.name
            );
        }
    }

    #[test]
    fn only_what_is_red_hat_itself_gets_its_own_treatment() {
        let rhel = of("rhel", "9.5", Arch::Amd64);
        assert_eq!(rhel.fixes.files[0].path, "/etc/selinux/config");
        assert_eq!(
            rhel.preparation.repository.expect("EPEL").url,
            "https://dl.fedoraproject.org/pub/epel/epel-release-latest-9.noarch.rpm"
        );
        let text = "ID=centos\nID_LIKE='rhel fedora'\nVERSION_ID=9\n";
        let centos = Distro::detect(&OsRelease::parse(text)).expect("known");
        let centos = Policy::new(&centos, Arch::Amd64);
        assert_eq!(centos.preparation.repository, None);
        assert!(centos.fixes.files.is_empty());
        assert!(!centos.services.enable.contains(&"getty@tty1"));
    }

    #[test]
    fn oracle_10_on_arm_finds_its_kernel() {
        let repository = |version, arch| of("ol", version, arch).preparation.kernel_repository;
        assert_eq!(repository("10.0", Arch::Arm64), Some("ol10_UEKR8"));
        assert_eq!(repository("10.0", Arch::Amd64), None);
        assert_eq!(repository("9.5", Arch::Arm64), None);
    }

    #[test]
    fn wicked_goes_where_networkd_would_collide_with_it() {
        let masks = |id, version| {
            of(id, version, Arch::Amd64)
                .services
                .mask
                .contains(&"wicked")
        };
        assert!(masks("opensuse-leap", "15.6") && masks("sles", "15.6"));
        assert!(!masks("opensuse-tumbleweed", "20260101") && !masks("sle-micro-rancher", "5.4"));
    }
}
