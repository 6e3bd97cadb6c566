//! The programs of the framework as a table: where each goes, its release archives, its Go module.
//!
//! Facts only. Versions and checksums are in [`super::pins`].

pub use crate::distro::Arch;

/// What kind of image the framework is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Variant {
    /// An image without Kubernetes.
    #[default]
    Core,
    /// An image with a Kubernetes provider and its mesh.
    Standard,
}

/// One program of the framework.
#[derive(Debug, PartialEq, Eq)]
pub struct Component {
    /// The name users write: that of its releases.
    pub name: &'static str,
    /// Other names users may write, those of kairos-init's version file among them.
    pub aliases: &'static [&'static str],
    /// Absolute path in the image; the mode is always 0755.
    pub target: &'static str,
    /// Whether no image boots without it.
    pub required: bool,
    /// What is lost in an image without it, to stand after `without it`.
    pub loss: &'static str,
    /// Whether only [`Variant::Standard`] has it.
    pub standard_only: bool,
    /// Whether upstream releases FIPS builds of it. A build from the module can always be one.
    pub has_fips: bool,
    /// Owner of the repository with its releases, whose name is the component's.
    pub(super) owner: &'static str,
    /// What releases call amd64.
    pub(super) amd64: &'static str,
    /// How it is built from its module.
    pub(super) go: GoSource,
}

/// How a component is built with the Go tool, as upstream's own release does it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GoSource {
    /// Module path; not always the repository's.
    pub(super) module: &'static str,
    /// The main package inside the module.
    pub(super) package: &'static str,
    /// Build tags.
    pub(super) tags: &'static str,
    /// The variable that holds the version, or nothing.
    pub(super) version_variable: Option<&'static str>,
}

/// Every component, the core ones first.
pub const COMPONENTS: &[Component] = &[
    Component {
        name: "kairos-agent",
        aliases: &["agent"],
        target: "/usr/bin/kairos-agent",
        required: true,
        loss: "nothing installs, upgrades or resets the system",
        standard_only: false,
        has_fips: true,
        owner: "kairos-io",
        amd64: "amd64",
        go: GoSource {
            module: "github.com/kairos-io/kairos-agent/v2",
            package: ".",
            tags: "nogit",
            version_variable: Some("github.com/kairos-io/kairos-agent/v2/internal/common.VERSION"),
        },
    },
    Component {
        name: "immucore",
        aliases: &[],
        target: "/usr/bin/immucore",
        required: true,
        loss: "no initrd mounts the system",
        standard_only: false,
        has_fips: true,
        owner: "kairos-io",
        amd64: "amd64",
        go: GoSource {
            module: "github.com/kairos-io/immucore",
            package: ".",
            tags: "nogit,nounpack",
            version_variable: Some("github.com/kairos-io/immucore/internal/version.version"),
        },
    },
    Component {
        name: "kcrypt-discovery-challenger",
        aliases: &["kcrypt_challenger", "kcrypt-challenger", "kcrypt"],
        target: "/system/discovery/kcrypt-discovery-challenger",
        required: false,
        loss: "disks cannot be encrypted with a server's key",
        standard_only: false,
        has_fips: true,
        owner: "kairos-io",
        amd64: "amd64",
        go: GoSource {
            // The module kept the repository's first name.
            module: "github.com/kairos-io/kairos-challenger",
            package: "./cmd/discovery",
            tags: "",
            version_variable: None,
        },
    },
    Component {
        name: "kairos-installer",
        aliases: &["installer"],
        target: "/system/installer/kairos-installer",
        required: false,
        loss: "live media cannot install interactively",
        standard_only: false,
        has_fips: false,
        owner: "kairos-io",
        amd64: "amd64",
        go: GoSource {
            module: "github.com/kairos-io/kairos-installer",
            package: ".",
            tags: "",
            version_variable: None,
        },
    },
    Component {
        name: "provider-kairos",
        aliases: &["provider", "agent-provider-kairos"],
        target: "/system/providers/agent-provider-kairos",
        required: false,
        loss: "nothing starts Kubernetes from the cloud-config",
        standard_only: true,
        has_fips: true,
        owner: "kairos-io",
        amd64: "amd64",
        go: GoSource {
            module: "github.com/kairos-io/provider-kairos/v2",
            package: ".",
            tags: "",
            version_variable: Some("github.com/kairos-io/provider-kairos/v2/internal/cli.VERSION"),
        },
    },
    Component {
        name: "edgevpn",
        aliases: &[],
        target: "/usr/bin/edgevpn",
        required: false,
        loss: "nodes cannot find each other in a peer-to-peer network",
        standard_only: true,
        has_fips: false,
        owner: "mudler",
        amd64: "x86_64",
        go: GoSource {
            module: "github.com/mudler/edgevpn",
            package: ".",
            tags: "",
            version_variable: Some("github.com/mudler/edgevpn/internal.Version"),
        },
    },
];

impl Component {
    /// Returns the component called `name`, an alias included.
    pub fn find(name: &str) -> Option<&'static Self> {
        COMPONENTS
            .iter()
            .find(|c| c.name == name || c.aliases.contains(&name))
    }

    /// Returns whether the FIPS build is the one to take.
    pub(super) fn wants_fips(&self, fips: bool) -> bool {
        fips && self.has_fips
    }
}

/// Returns the components of an image of `variant`.
pub(super) fn of_variant(variant: Variant) -> impl Iterator<Item = &'static Component> {
    COMPONENTS
        .iter()
        .filter(move |c| variant == Variant::Standard || !c.standard_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_image_has_the_agent_the_initramfs_program_the_challenger_and_the_installer() {
        let names: Vec<_> = of_variant(Variant::Core).map(|c| c.name).collect();
        assert_eq!(
            names,
            [
                "kairos-agent",
                "immucore",
                "kcrypt-discovery-challenger",
                "kairos-installer"
            ]
        );
    }

    #[test]
    fn no_name_or_alias_or_target_is_used_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for c in COMPONENTS {
            for word in c.aliases.iter().chain([&c.name, &c.target]) {
                assert!(seen.insert(*word), "{word} is there twice");
            }
        }
    }

    #[test]
    fn the_keys_of_the_version_file_find_their_components() {
        for (key, name) in [
            ("agent", "kairos-agent"),
            ("immucore", "immucore"),
            ("kcrypt_challenger", "kcrypt-discovery-challenger"),
            ("provider", "provider-kairos"),
            ("edgevpn", "edgevpn"),
        ] {
            assert_eq!(Component::find(key).map(|c| c.name), Some(name));
        }
    }
}
