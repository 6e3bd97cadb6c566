//! Which packages are kernels, which are firmware, and whose firmware is where. The knowledge is data (`kinds.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::facts::{Arch, Facts};
use super::version::{Constraint, Release};
use super::{DistroId, Family};

/// The directory that firmware patterns are relative to.
pub const FIRMWARE_DIR: &str = "/usr/lib/firmware";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    kernel: Vec<String>,
    firmware: Vec<String>,
    system: Vec<FirmwareSystem>,
}

/// How one distribution packages device firmware.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareSystem {
    distro: Option<DistroId>,
    family: Option<Family>,
    version: Option<Constraint>,
    #[serde(default)]
    component: Option<String>,
    #[serde(default)]
    amd64: Vec<String>,
    #[serde(default)]
    none: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    vendor: BTreeMap<String, Vec<String>>,
}

/// What an image gets of firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirmwareSet {
    /// Packages to install.
    pub packages: BTreeSet<String>,
    /// A component of the distribution's sources that the packages are in.
    pub component: Option<&'static str>,
    /// What to keep of [`FIRMWARE_DIR`]; `None` keeps everything.
    pub keep: Option<BTreeSet<String>>,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    toml::from_str(include_str!("kinds.toml"))
        .expect("kinds.toml is part of the program and tested")
});

/// Tells whether a package is a kernel, or modules that belong to one.
pub fn is_kernel(name: &str) -> bool {
    DATA.kernel.iter().any(|pattern| matches(pattern, name))
}

/// Tells whether a package is firmware that devices load when they are found.
pub fn is_firmware(name: &str) -> bool {
    DATA.firmware.iter().any(|pattern| matches(pattern, name))
}

/// Tells whether `name` matches `pattern`, in which at most one `*` stands for any run of characters.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

/// Returns how the distribution packages firmware; `None` where that is not known.
pub fn firmware_of(facts: &Facts) -> Option<&'static FirmwareSystem> {
    let release = match &facts.version {
        Some(text) => Release::parse(text).ok(),
        None => Some(Release::Newest),
    };
    let fits = |constraint: &Constraint| release.as_ref().is_some_and(|it| constraint.accepts(it));
    DATA.system.iter().find(|system| {
        system.distro.is_none_or(|distro| distro == facts.distro)
            && system.family.is_none_or(|family| family == facts.family)
            && system.version.as_ref().is_none_or(fits)
    })
}

impl FirmwareSystem {
    /// Lists the vendors.
    pub fn vendors(&self) -> impl Iterator<Item = &str> {
        self.vendor.keys().map(String::as_str)
    }

    /// Returns the firmware of `vendors`; `None` for one that is not known here.
    pub fn of_vendors(&'static self, vendors: &[String], arch: Arch) -> Option<FirmwareSet> {
        let mut names = BTreeSet::new();
        for vendor in vendors {
            names.extend(self.vendor.get(vendor)?.iter().cloned());
        }
        Some(if self.files.is_empty() {
            self.packages(names, arch)
        } else {
            FirmwareSet {
                packages: self.files.iter().cloned().collect(),
                component: None,
                keep: Some(names),
            }
        })
    }

    /// Returns all firmware there is.
    pub fn all(&'static self, arch: Arch) -> FirmwareSet {
        if self.files.is_empty() {
            self.packages(self.vendor.values().flatten().cloned().collect(), arch)
        } else {
            self.packages(self.files.iter().cloned().collect(), arch)
        }
    }

    /// Returns what stands for no firmware at all.
    pub fn none(&'static self) -> FirmwareSet {
        FirmwareSet {
            packages: self.none.iter().cloned().collect(),
            component: None,
            keep: (!self.files.is_empty()).then(BTreeSet::new),
        }
    }

    fn packages(&'static self, mut names: BTreeSet<String>, arch: Arch) -> FirmwareSet {
        if arch != Arch::Amd64 {
            names.retain(|name| !self.amd64.contains(name));
        }
        // The free ones are in the main component.
        let others = names.iter().any(|name| name != "firmware-linux-free");
        FirmwareSet {
            component: self.component.as_deref().filter(|_| others),
            packages: names,
            keep: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distro::Model;

    fn facts(distro: DistroId, family: Family, version: &str) -> Facts {
        Facts {
            distro,
            family,
            version: Some(version.into()),
            arch: Arch::Amd64,
            model: Model::Generic,
            trusted: false,
        }
    }

    #[test]
    fn kernels_and_firmware_are_told_from_what_a_board_starts_with() {
        for name in [
            "linux-image-amd64",
            "kernel-modules-extra",
            "linux-lts",
            "linux-raspi",
        ] {
            assert!(is_kernel(name) && !is_firmware(name), "{name}");
        }
        for name in [
            "firmware-linux-free",
            "linux-firmware",
            "kernel-firmware-all",
        ] {
            assert!(is_firmware(name) && !is_kernel(name), "{name}");
        }
        for name in [
            "raspi-firmware",
            "linux-firmware-raspi",
            "nvidia-l4t-firmware",
            "nvidia-l4t-kernel",
        ] {
            assert!(!is_firmware(name) && !is_kernel(name), "{name}");
        }
    }

    #[test]
    fn debian_takes_vendors_from_its_own_component_and_microcode_on_amd64_only() {
        let system = firmware_of(&facts(DistroId::Debian, Family::Debian, "12")).unwrap();
        let set = system.of_vendors(&["intel".into()], Arch::Arm64).unwrap();
        assert!(
            set.packages.contains("firmware-iwlwifi") && !set.packages.contains("intel-microcode")
        );
        assert_eq!(set.component, Some("non-free-firmware"));
        let free = system.of_vendors(&["free".into()], Arch::Amd64).unwrap();
        assert_eq!(free.component, None);
        assert_eq!(system.none(), FirmwareSet::default());
        assert!(system.of_vendors(&["acme".into()], Arch::Amd64).is_none());
    }

    #[test]
    fn ubuntu_keeps_files_of_its_one_package() {
        let system = firmware_of(&facts(DistroId::Ubuntu, Family::Debian, "24.04")).unwrap();
        let set = system.of_vendors(&["nvidia".into()], Arch::Amd64).unwrap();
        assert_eq!(set.keep, Some(["nvidia".to_owned()].into()));
        assert_eq!(system.none().keep, Some(BTreeSet::new()));
        assert_eq!(system.all(Arch::Amd64).keep, None);
    }

    #[test]
    fn every_family_with_a_package_manager_but_arch_has_a_table() {
        for (distro, family, version) in [
            (DistroId::Debian, Family::Debian, "13"),
            (DistroId::Fedora, Family::Redhat, "43"),
            (DistroId::Rocky, Family::Redhat, "9.4"),
            (DistroId::OpensuseLeap, Family::Suse, "16.0"),
            (DistroId::Alpine, Family::Alpine, "3.23"),
        ] {
            assert!(
                firmware_of(&facts(distro, family, version)).is_some(),
                "{distro}"
            );
        }
        assert!(firmware_of(&facts(DistroId::Arch, Family::Arch, "1")).is_none());
    }
}
