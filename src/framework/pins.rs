//! The versions and checksums that ship with kfactory, read from `pins.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::component::Arch;

/// The pins of one component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    version: String,
    go_sum: Option<String>,
    #[serde(default)]
    sha256: BTreeMap<String, String>,
}

static PINS: LazyLock<BTreeMap<String, Pin>> = LazyLock::new(|| {
    toml::from_str(include_str!("pins.toml")).expect("pins.toml is part of the program and tested")
});

fn pin(component: &str) -> &'static Pin {
    PINS.get(component)
        .expect("every component has a pin, which a test checks")
}

/// Returns the default version of `component`.
pub(super) fn version(component: &str) -> &'static str {
    &pin(component).version
}

/// Returns the SHA-256 of the release archive of `component`, if we know the one of this very `version`.
pub(super) fn archive_sha256_opt(
    component: &str,
    version: &str,
    arch: Arch,
    fips: bool,
) -> Option<&'static str> {
    let pin = pin(component);
    let key = format!("{arch}{}", if fips { "-fips" } else { "" });
    (pin.version == version)
        .then(|| pin.sha256.get(&key).map(String::as_str))
        .flatten()
}

/// Returns the `h1:` sum of the Go module of `component`, if we know the one of this very `version`.
pub(super) fn go_sum_opt(component: &str, version: &str) -> Option<&'static str> {
    let pin = pin(component);
    (pin.version == version)
        .then_some(pin.go_sum.as_deref())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::COMPONENTS;

    #[test]
    fn every_component_is_pinned_and_every_pin_is_a_component() {
        let names: std::collections::BTreeSet<_> = COMPONENTS.iter().map(|c| c.name).collect();
        assert_eq!(names, PINS.keys().map(String::as_str).collect());
    }

    #[test]
    fn pins_are_well_formed() {
        for (name, pin) in PINS.iter() {
            assert!(pin.version.starts_with('v'), "{name}");
            assert!(
                pin.go_sum
                    .iter()
                    .all(|s| s.starts_with("h1:") && s.len() == 47),
                "{name}"
            );
            for (key, sum) in &pin.sha256 {
                assert!(
                    key.trim_end_matches("-fips").parse::<Arch>().is_ok(),
                    "{name} {key}"
                );
                assert!(
                    sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                    "{name} {key}"
                );
            }
        }
    }

    #[test]
    fn a_pin_counts_for_its_own_version_only() {
        assert!(go_sum_opt("immucore", version("immucore")).is_some());
        assert_eq!(go_sum_opt("immucore", "v0.0.1"), None);
        assert_eq!(
            archive_sha256_opt("immucore", "v0.0.1", Arch::Amd64, false),
            None
        );
    }
}
