//! How large packages are where nobody has the distribution's index at hand: a table of what it said once (`sizes.toml`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::DistroId;
use super::facts::{Arch, Facts};

/// Release -> package -> KiB.
type Table = BTreeMap<String, BTreeMap<String, u64>>;

static DEBIAN: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("sizes.toml"))
        .expect("sizes.toml is part of the program and tested")
});

/// Returns what the package takes on the disk, in bytes, without what it depends on; `None` where the table does not know.
pub fn installed_bytes(facts: &Facts, package: &str) -> Option<u64> {
    if facts.distro != DistroId::Debian || facts.arch != Arch::Amd64 {
        return None;
    }
    let kib = DEBIAN.get(facts.version.as_deref()?)?.get(package)?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distro::{Family, Model};

    #[test]
    fn sizes_are_known_for_debian_on_amd64_and_for_nothing_else() {
        let debian = Facts {
            distro: DistroId::Debian,
            family: Family::Debian,
            version: Some("12".into()),
            arch: Arch::Amd64,
            model: Model::Generic,
            trusted: false,
        };
        assert!(installed_bytes(&debian, "fail2ban").is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(installed_bytes(&debian, "no-such-package"), None);
        let arm = Facts {
            arch: Arch::Arm64,
            ..debian.clone()
        };
        assert_eq!(installed_bytes(&arm, "fail2ban"), None);
        let ubuntu = Facts {
            distro: DistroId::Ubuntu,
            ..debian
        };
        assert_eq!(installed_bytes(&ubuntu, "fail2ban"), None);
    }
}
