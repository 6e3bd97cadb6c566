//! Chooses packages. The knowledge is data (`packages.toml` beside this file); this file only evaluates its rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::facts::{Arch, Facts, Model};
use super::version::{Constraint, Release};
use super::{DistroId, Family};

/// A package and the rule that put it on the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// The package's name, as the distribution's package manager takes it.
    pub name: String,
    /// The rule, in words: its conditions and its purpose. Of several that name the package, the first in the data.
    pub rule: &'static str,
}

/// What to install, in this order; each list is sorted by name and holds each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Packages that bring the repositories the others come from. They need an installation of their own, first.
    pub repository: Vec<Chosen>,
    /// Everything besides the kernel.
    pub base: Vec<Chosen>,
    /// The kernel and its firmware. Empty where no rule gives one: the base brings it, or nobody packages it.
    pub kernel: Vec<Chosen>,
}

impl Selection {
    /// Returns the names of `chosen`, for a command line.
    pub fn names(chosen: &[Chosen]) -> Vec<&str> {
        chosen.iter().map(|package| package.name.as_str()).collect()
    }
}

/// Selects the packages for `facts`.
///
/// A release that cannot be read as a number satisfies no version condition and every rule without one;
/// [`super::Distro::detect`] lets none pass.
pub fn select(facts: &Facts) -> Selection {
    if DATA.complete.contains(&facts.distro) {
        return Selection::default();
    }
    let release = match &facts.version {
        Some(text) => Release::parse(text).ok(),
        None => Some(Release::Newest),
    };
    let chosen = |step| choose(step, facts, release.as_ref());
    Selection {
        repository: chosen(Step::Repository),
        base: chosen(Step::Base),
        kernel: chosen(Step::Kernel),
    }
}

/// Lists the distributions for which a rule names a kernel, or board packages that hold one, for `model` and no other.
pub fn distros_of(model: Model) -> Vec<DistroId> {
    let of_model = |rule: &&Rule| rule.raw.step == Step::Kernel && rule.raw.model.contains(&model);
    let mut found = Vec::new();
    for rule in DATA.rules.iter().filter(of_model) {
        let fits = |known: &&super::Known| {
            rule.raw.distro.is_none_or(|distro| distro == known.id)
                && rule.raw.family.is_none_or(|family| family == known.family)
        };
        for known in super::DISTROS.iter().filter(fits) {
            if !found.contains(&known.id) {
                found.push(known.id);
            }
        }
    }
    found
}

fn choose(step: Step, facts: &Facts, release: Option<&Release>) -> Vec<Chosen> {
    let apply = |fallback| {
        DATA.rules.iter().filter(move |rule| {
            rule.raw.step == step
                && rule.raw.fallback == fallback
                && rule.raw.applies(facts, release)
        })
    };
    let regular = collect(apply(false), facts);
    if regular.is_empty() {
        collect(apply(true), facts)
    } else {
        regular
    }
}

fn collect<'a>(rules: impl Iterator<Item = &'a Rule>, facts: &Facts) -> Vec<Chosen> {
    let mut found: BTreeMap<String, &'static str> = BTreeMap::new();
    for rule in rules {
        for name in &rule.raw.packages {
            found.entry(fill_in(name, facts)).or_insert(rule.text);
        }
    }
    found
        .into_iter()
        .map(|(name, rule)| Chosen { name, rule })
        .collect()
}

/// Puts the release into a package name. Rules that need it state a version condition, so it is there.
fn fill_in(name: &str, facts: &Facts) -> String {
    let version = facts.version.as_deref().unwrap_or_default();
    let major = version.split('.').next().unwrap_or_default();
    name.replace("%version%", version).replace("%major%", major)
}

struct Data {
    complete: Vec<DistroId>,
    rules: Vec<Rule>,
}

struct Rule {
    raw: RawRule,
    /// For [`Chosen::rule`]; leaked once per program, so that selections can be copied about freely.
    text: &'static str,
}

static DATA: LazyLock<Data> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("packages.toml"))
        .expect("packages.toml is part of the program and tested");
    let rule = |raw: RawRule| Rule {
        text: raw.describe().leak(),
        raw,
    };
    Data {
        complete: file.complete,
        rules: file.rule.into_iter().map(rule).collect(),
    }
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    complete: Vec<DistroId>,
    rule: Vec<RawRule>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Step {
    Repository,
    Base,
    Kernel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    step: Step,
    distro: Option<DistroId>,
    family: Option<Family>,
    #[serde(default)]
    except: Vec<DistroId>,
    #[serde(default)]
    arch: Vec<Arch>,
    #[serde(default)]
    model: Vec<Model>,
    trusted: Option<bool>,
    version: Option<Constraint>,
    #[serde(default)]
    fallback: bool,
    why: String,
    packages: Vec<String>,
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl RawRule {
    fn applies(&self, facts: &Facts, release: Option<&Release>) -> bool {
        let version =
            |constraint: &Constraint| release.is_some_and(|release| constraint.accepts(release));
        self.distro.is_none_or(|distro| distro == facts.distro)
            && self.family.is_none_or(|family| family == facts.family)
            && !self.except.contains(&facts.distro)
            && (self.arch.is_empty() || self.arch.contains(&facts.arch))
            && (self.model.is_empty() || self.model.contains(&facts.model))
            && self.trusted.is_none_or(|trusted| trusted == facts.trusted)
            && self.version.as_ref().is_none_or(version)
    }

    /// Says in words when the rule applies and what for: `debian family, amd64, no trusted boot: boot loaders`.
    fn describe(&self) -> String {
        let mut when = match (self.distro, self.family) {
            (Some(distro), _) => vec![distro.to_string()],
            (None, Some(family)) => vec![format!("{family} family")],
            (None, None) => vec!["every distribution".to_owned()],
        };
        when.extend(
            self.version
                .as_ref()
                .map(|version| format!("release {version}")),
        );
        when.extend(self.except.iter().map(|distro| format!("not {distro}")));
        when.extend((!self.arch.is_empty()).then(|| join(&self.arch)));
        when.extend((!self.model.is_empty()).then(|| join(&self.model)));
        when.extend(self.trusted.map(|trusted| {
            if trusted {
                "trusted boot"
            } else {
                "no trusted boot"
            }
            .to_owned()
        }));
        format!("{}: {}", when.join(", "), self.why)
    }
}

fn join<T: ToString>(values: &[T]) -> String {
    values
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    const VECTORS: &str = include_str!("../../testdata/packages/vectors.toml");

    #[derive(Deserialize)]
    struct Vectors {
        row: Vec<Row>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Row {
        system: String,
        count: usize,
        sha256: String,
        kernel: Vec<String>,
        differs: Option<Vec<String>>,
    }

    fn facts(system: &str) -> Facts {
        let mut words = system.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let distro: DistroId = word().parse().expect("a distribution");
        let version = word().to_owned();
        let family = super::super::DISTROS
            .iter()
            .find(|known| known.id == distro)
            .expect("known")
            .family;
        let arch = word().parse().expect("an architecture");
        let model = word().parse().expect("a model");
        Facts {
            distro,
            family,
            version: Some(version),
            arch,
            model,
            trusted: word() == "trusted",
        }
    }

    fn names(chosen: &[Chosen]) -> Vec<&str> {
        Selection::names(chosen)
    }

    #[test]
    fn selections_are_those_of_the_reference_but_for_stated_kernels() {
        let vectors: Vectors = toml::from_str(VECTORS).expect("vectors.toml");
        assert_eq!(vectors.row.len(), 45);
        for row in vectors.row {
            let selection = select(&facts(&row.system));
            let list: String = names(&selection.base)
                .iter()
                .map(|name| format!("{name}\n"))
                .collect();
            let digest: String = Sha256::digest(&list)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(
                (selection.base.len(), digest),
                (row.count, row.sha256),
                "{}:\n{list}",
                row.system
            );
            assert_eq!(
                names(&selection.kernel),
                row.differs.unwrap_or(row.kernel),
                "{}",
                row.system
            );
        }
    }

    #[test]
    fn every_ubuntu_release_gets_a_kernel() {
        for version in ["22.10", "23.04", "23.10", "26.10", "27.04", "30.04"] {
            for arch in ["amd64", "arm64"] {
                let selection = select(&facts(&format!("ubuntu {version} {arch} generic")));
                assert_eq!(
                    names(&selection.kernel),
                    ["linux-image-generic"],
                    "{version} {arch}"
                );
                assert!(
                    selection.kernel[0]
                        .rule
                        .ends_with("kernel of a release no other rule names")
                );
            }
        }
    }

    #[test]
    fn a_debian_without_a_number_gets_what_the_newest_gets() {
        let testing = Facts {
            version: None,
            ..facts("debian 13 amd64 generic")
        };
        assert_eq!(select(&testing), select(&facts("debian 13 amd64 generic")));
    }

    #[test]
    fn each_package_says_which_rule_chose_it() {
        let selection = select(&facts("debian 13 amd64 generic"));
        let rule = |name: &str| {
            selection
                .base
                .iter()
                .find(|package| package.name == name)
                .expect(name)
                .rule
        };
        assert_eq!(
            rule("rsync"),
            "every distribution: tools every Kairos system uses at boot and during installation"
        );
        assert_eq!(
            rule("systemd-cryptsetup"),
            "debian, release >=13: split from systemd in Debian 13"
        );
        assert_eq!(
            rule("shim-signed"),
            "debian family, amd64, no trusted boot: boot loaders, which the installer copies out of the image"
        );
    }

    #[test]
    fn lists_are_sorted_and_hold_no_name_twice() {
        for system in [
            "ubuntu 24.04 amd64 generic",
            "alpine 3.21 amd64 generic",
            "ubuntu 22.04 arm64 nvidia-jetson-orin-nx",
        ] {
            let selection = select(&facts(system));
            for list in [&selection.base, &selection.kernel] {
                assert!(
                    names(list).windows(2).all(|pair| pair[0] < pair[1]),
                    "{system}"
                );
            }
        }
    }

    #[test]
    fn the_red_hat_family_gets_its_extra_repository_first() {
        for (system, expected) in [
            ("rocky 9.5 amd64 generic", &["epel-release"][..]),
            ("almalinux 10.0 amd64 generic", &["epel-release"]),
            ("rhel 9 amd64 generic", &["epel-release"]),
            ("ol 9.5 amd64 generic", &["oracle-epel-release-el9"]),
            ("fedora 42 amd64 generic", &[]),
            ("debian 12 amd64 generic", &[]),
        ] {
            assert_eq!(
                names(&select(&facts(system)).repository),
                expected,
                "{system}"
            );
        }
    }

    #[test]
    fn a_complete_image_gets_nothing() {
        assert_eq!(
            select(&facts("hadron 1.0 amd64 generic")),
            Selection::default()
        );
    }

    #[test]
    fn rules_can_fire_and_placeholders_are_filled() {
        for rule in &DATA.rules {
            let raw = &rule.raw;
            assert!(
                !raw.packages.is_empty() && !raw.why.is_empty(),
                "{}",
                rule.text
            );
            let needs_version = raw.packages.iter().any(|name| name.contains("%version%"));
            assert!(!needs_version || raw.version.is_some(), "{}", rule.text);
            let boards_on_arm = raw
                .model
                .iter()
                .filter_map(|model| model.required_arch())
                .all(|arch| raw.arch == [arch]);
            assert!(boards_on_arm, "{}", rule.text);
        }
    }
}
