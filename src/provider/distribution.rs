//! The Kubernetes distributions that we install from their releases, as a table: facts only.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::distro::Arch;

/// One Kubernetes distribution: a single program, with services for the roles of a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The name users write; also the program's.
    pub name: &'static str,
    /// Where the program goes in the image. Not below `/usr/local`, which the persistent partition hides.
    pub target: &'static str,
    /// Where the program looks for a configuration by itself.
    pub config: &'static str,
    /// Commands that are links to the program, unless the image has them from elsewhere.
    pub links: &'static [&'static str],
    /// The roles of a node, each with a service.
    pub roles: &'static [Role],
    /// The arguments that make the program print its version.
    pub version_arguments: &'static [&'static str],
    /// What stands in every version between Kubernetes' own and the distribution's, as in `v1.34.3+k3s1`.
    version_mark: &'static str,
    /// `owner/name` of the repository with the releases.
    pub(super) repository: &'static str,
}

/// A role of a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Role {
    /// The service's name. Kairos starts it by that name.
    pub service: &'static str,
    /// The sub-command of the program.
    pub command: &'static str,
    /// The role in a sentence.
    pub name: &'static str,
    /// How systemd learns that it is up.
    pub systemd_type: &'static str,
}

/// Every distribution.
pub const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        name: "k3s",
        target: "/usr/bin/k3s",
        config: "/etc/rancher/k3s/config.yaml",
        links: &["kubectl", "crictl", "ctr"],
        roles: &[
            Role {
                service: "k3s",
                command: "server",
                name: "server",
                systemd_type: "notify",
            },
            Role {
                service: "k3s-agent",
                command: "agent",
                name: "worker",
                systemd_type: "exec",
            },
        ],
        version_arguments: &["--version"],
        version_mark: "+k3s",
        repository: "k3s-io/k3s",
    },
    Distribution {
        name: "k0s",
        target: "/usr/bin/k0s",
        config: "/etc/k0s/k0s.yaml",
        links: &[],
        roles: &[
            Role {
                service: "k0scontroller",
                command: "controller",
                name: "controller",
                systemd_type: "simple",
            },
            Role {
                service: "k0sworker",
                command: "worker",
                name: "worker",
                systemd_type: "simple",
            },
        ],
        version_arguments: &["version"],
        version_mark: "+k0s.",
        repository: "k0sproject/k0s",
    },
];

static VERSIONS: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    toml::from_str(include_str!("versions.toml"))
        .expect("versions.toml is part of the program and tested")
});

impl Distribution {
    /// Returns the distribution called `name`.
    pub fn find(name: &str) -> Option<&'static Self> {
        DISTRIBUTIONS.iter().find(|it| it.name == name)
    }

    /// Returns the version that is installed when none is asked for.
    pub fn default_version(&self) -> &'static str {
        VERSIONS
            .get(self.name)
            .expect("every distribution has a version, which a test checks")
    }

    /// Returns `text` as the distribution spells it, with its `v`; `None` where it is not the version of one release.
    ///
    /// The result is safe in a path.
    pub fn version(&self, text: &str) -> Option<String> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (kubernetes, own) = bare.split_once(self.version_mark)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (numbers, prerelease) = match kubernetes.split_once('-') {
            Some((numbers, prerelease)) => (numbers, Some(prerelease)),
            None => (kubernetes, None),
        };
        let sound = numbers.split('.').count() == 3
            && numbers.split('.').all(digits)
            && digits(own)
            && prerelease.is_none_or(|it| {
                it.split('.')
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
            });
        sound.then(|| format!("v{bare}"))
    }

    /// Returns the version that the program printed when it was run with [`Self::version_arguments`].
    pub fn version_in(&self, printed: &str) -> Option<String> {
        printed
            .split_whitespace()
            .filter(|word| word.starts_with('v'))
            .find_map(|word| self.version(word))
    }

    /// Returns the name of the program's file in the release of `version`; `None` where there are none for `arch`.
    pub(super) fn asset(&self, version: &str, arch: Arch) -> Option<String> {
        match (self.name, arch) {
            ("k3s", Arch::Amd64) => Some("k3s".into()),
            ("k3s", Arch::Arm64) => Some("k3s-arm64".into()),
            ("k3s", _) => None,
            _ => Some(format!("{}-{version}-{arch}", self.name)),
        }
    }

    /// Returns the name of the file with the release's checksums.
    pub(super) fn checksums(&self, arch: Arch) -> String {
        match self.name {
            "k3s" => format!("sha256sum-{arch}.txt"),
            _ => "sha256sums.txt".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_distribution_has_a_default_version_of_its_own_form() {
        let names: Vec<_> = DISTRIBUTIONS.iter().map(|it| it.name).collect();
        assert_eq!(VERSIONS.len(), names.len());
        for it in DISTRIBUTIONS {
            assert_eq!(
                it.version(it.default_version()).as_deref(),
                Some(it.default_version())
            );
        }
    }

    #[test]
    fn a_version_names_one_release() {
        let (k3s, k0s) = (&DISTRIBUTIONS[0], &DISTRIBUTIONS[1]);
        for (it, text, version) in [
            (k3s, "v1.34.3+k3s1", Some("v1.34.3+k3s1")),
            (k3s, "1.34.3+k3s1", Some("v1.34.3+k3s1")),
            (k3s, "v1.35.0-rc1+k3s2", Some("v1.35.0-rc1+k3s2")),
            (k3s, "v1.34.3", None),
            (k3s, "v1.34+k3s1", None),
            (k3s, "v1.34.3-k3s1", None),
            (k3s, "v1.34.3+k0s.0", None),
            (k3s, "latest", None),
            (k3s, "", None),
            (k3s, "v1.34.3+k3s1/../..", None),
            (k3s, "v1.34.3+k3s", None),
            (k0s, "v1.34.3+k0s.0", Some("v1.34.3+k0s.0")),
            (k0s, "1.35.0-alpha.1+k0s.0", Some("v1.35.0-alpha.1+k0s.0")),
            (k0s, "v1.34.3+k0s0", None),
            (k0s, "v1.34.3-+k0s.0", None),
        ] {
            assert_eq!(it.version(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn the_version_is_found_in_what_the_programs_print() {
        let (k3s, k0s) = (&DISTRIBUTIONS[0], &DISTRIBUTIONS[1]);
        let printed = "k3s version v1.21.4+k3s1 (3781f4b7)\ngo version go1.16.5\n";
        assert_eq!(k3s.version_in(printed).as_deref(), Some("v1.21.4+k3s1"));
        assert_eq!(
            k0s.version_in("v1.34.3+k0s.0\n").as_deref(),
            Some("v1.34.3+k0s.0")
        );
        assert_eq!(k3s.version_in("sh: not found"), None);
    }
}
