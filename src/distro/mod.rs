//! Distributions: which one a base image holds, and what making it a Kairos system takes there.
//!
//! Everything here is pure: text and values in, values out. [`os_release`] reads the file, [`detect`] decides what
//! it means, [`packages`] chooses what to install; this file is the table of what is known. There is one detection,
//! and every later decision follows from it: a derivative is either treated as the distribution it derives from
//! everywhere, or refused at once.

pub mod alpine;
pub mod apt;
pub mod arch;
pub mod debian;
pub mod detect;
pub mod facts;
pub mod hadron;
pub mod kinds;
pub mod manager;
pub mod os_release;
pub mod packages;
pub mod policy;
pub mod redhat;
pub mod residue;
pub mod sizes;
pub mod suse;
pub mod version;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use detect::{DetectError, Distro};
pub use facts::{Arch, Facts, Model, UnknownName};
pub use os_release::OsRelease;
pub use packages::{Chosen, Selection, select};
pub use policy::Policy;

/// Lists the distributions that are recognised, in the order of the table.
pub fn known_ids() -> String {
    DISTROS
        .iter()
        .map(|distro| distro.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Distributions that share a package manager and a layout of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// apt and dpkg.
    Debian,
    /// dnf and rpm.
    Redhat,
    /// zypper and rpm.
    Suse,
    /// apk.
    Alpine,
    /// pacman.
    Arch,
    /// No package manager: images come complete.
    Hadron,
}

const FAMILIES: &[(Family, &str)] = &[
    (Family::Debian, "debian"),
    (Family::Redhat, "redhat"),
    (Family::Suse, "suse"),
    (Family::Alpine, "alpine"),
    (Family::Arch, "arch"),
    (Family::Hadron, "hadron"),
];

impl Family {
    /// Returns the name used in `/etc/kairos-release`.
    pub fn as_str(self) -> &'static str {
        facts::name_of(FAMILIES, &self)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A distribution whose packages are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistroId {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
    /// Fedora.
    Fedora,
    /// Rocky Linux.
    Rocky,
    /// AlmaLinux.
    Almalinux,
    /// Oracle Linux.
    Ol,
    /// Red Hat Enterprise Linux, and CentOS Stream, which says that it is like it.
    Rhel,
    /// Arch Linux.
    Arch,
    /// Alpine Linux.
    Alpine,
    /// openSUSE Leap.
    OpensuseLeap,
    /// openSUSE Tumbleweed.
    OpensuseTumbleweed,
    /// SUSE Linux Enterprise Server.
    Sles,
    /// SUSE Linux Enterprise Micro for Rancher.
    SleMicroRancher,
    /// Hadron, Kairos' own base.
    Hadron,
}

struct Known {
    id: DistroId,
    name: &'static str,
    family: Family,
    /// Whether a base without a release number is a development branch or rolling, not a broken file.
    unnumbered: bool,
}

const fn known(id: DistroId, name: &'static str, family: Family) -> Known {
    Known {
        id,
        name,
        family,
        unnumbered: false,
    }
}

const fn unnumbered(id: DistroId, name: &'static str, family: Family) -> Known {
    Known {
        id,
        name,
        family,
        unnumbered: true,
    }
}

const DISTROS: &[Known] = &[
    unnumbered(DistroId::Debian, "debian", Family::Debian),
    known(DistroId::Ubuntu, "ubuntu", Family::Debian),
    known(DistroId::Fedora, "fedora", Family::Redhat),
    known(DistroId::Rocky, "rocky", Family::Redhat),
    known(DistroId::Almalinux, "almalinux", Family::Redhat),
    known(DistroId::Ol, "ol", Family::Redhat),
    known(DistroId::Rhel, "rhel", Family::Redhat),
    unnumbered(DistroId::Arch, "arch", Family::Arch),
    known(DistroId::Alpine, "alpine", Family::Alpine),
    known(DistroId::OpensuseLeap, "opensuse-leap", Family::Suse),
    known(
        DistroId::OpensuseTumbleweed,
        "opensuse-tumbleweed",
        Family::Suse,
    ),
    known(DistroId::Sles, "sles", Family::Suse),
    known(DistroId::SleMicroRancher, "sle-micro-rancher", Family::Suse),
    known(DistroId::Hadron, "hadron", Family::Hadron),
];

impl DistroId {
    /// Returns the distribution's `ID` in os-release.
    pub fn as_str(self) -> &'static str {
        DISTROS
            .iter()
            .find(|known| known.id == self)
            .map_or("", |known| known.name)
    }
}

impl FromStr for DistroId {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let table: Vec<_> = DISTROS.iter().map(|known| (known.id, known.name)).collect();
        facts::by_name("distribution", &table, name)
    }
}

impl fmt::Display for DistroId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
