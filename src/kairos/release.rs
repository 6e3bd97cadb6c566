//! `/etc/kairos-release`: which keys it has, what they say, and how they are written.
//!
//! The file is read by dotenv parsers, by `sh`, by GRUB's script language and by a tool that looks for `^KAIROS_RELEASE="(.*)"`.
//! One narrow form satisfies all four. Pure text in, text out.

use std::collections::BTreeMap;

use super::dotenv;
pub use super::dotenv::DotenvError;
use super::version::Version;

/// Where the file is in the image.
pub const RELEASE_PATH: &str = "/etc/kairos-release";
/// The mode of the file.
pub const RELEASE_MODE: u32 = 0o644;

const BUG_REPORT_URL: &str = "https://github.com/kairos-io/kairos/issues";
const HOME_URL: &str = "https://github.com/kairos-io/kairos";

/// The Kubernetes distribution in the image, as its provider plugin reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Software<'a> {
    /// The provider's name, for example `k3s`.
    pub provider: &'a str,
    /// Its version, for example `v1.30.4+k3s1`.
    pub version: &'a str,
}

/// What the release file says about an image.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseFacts<'a> {
    /// The distribution as detected (`ubuntu`, `opensuse-leap`), not yet split into flavor and release.
    pub distro: &'a str,
    /// The distribution's version (`VERSION_ID`).
    pub distro_version: &'a str,
    /// The distribution's family (`debian`, `redhat`, `suse`, `alpine`, `arch`, `hadron`).
    pub family: &'a str,
    /// The architecture as Go names it: `amd64`, `arm64`, `riscv64`.
    pub arch: &'a str,
    /// The board model; GRUB chooses the console by it.
    pub model: &'a str,
    /// Whether providers were asked for: variant `standard`, otherwise `core`.
    pub standard: bool,
    /// The version of the produced system.
    pub version: &'a Version,
    /// Whether FIPS builds were asked for.
    pub fips: bool,
    /// Whether the image is for Trusted Boot.
    pub trusted_boot: bool,
    /// The version of the tool that makes the image.
    pub tool_version: &'a str,
    /// The Kubernetes distribution; both of its keys are left out where there is none.
    pub software: Option<Software<'a>>,
}

impl ReleaseFacts<'_> {
    /// Returns every key with its unquoted value.
    pub fn keys(&self) -> BTreeMap<String, String> {
        let variant = if self.standard { "standard" } else { "core" };
        let name = format!("kairos-{variant}-{}-{}", self.distro, self.distro_version);
        let version = self.version.to_string();
        let (flavor, flavor_release) = self.flavor();
        let mut keys = BTreeMap::from(
            [
                ("KAIROS_ARCH", self.arch),
                ("KAIROS_BUG_REPORT_URL", BUG_REPORT_URL),
                ("KAIROS_FAMILY", self.family),
                ("KAIROS_FIPS", truth(self.fips)),
                ("KAIROS_FLAVOR", flavor),
                ("KAIROS_FLAVOR_RELEASE", &flavor_release),
                ("KAIROS_HOME_URL", HOME_URL),
                ("KAIROS_ID", "kairos"),
                ("KAIROS_ID_LIKE", &name),
                ("KAIROS_INIT_VERSION", self.tool_version),
                ("KAIROS_MODEL", self.model),
                ("KAIROS_NAME", &name),
                ("KAIROS_RELEASE", &version),
                ("KAIROS_TARGETARCH", self.arch),
                ("KAIROS_TRUSTED_BOOT", truth(self.trusted_boot)),
                ("KAIROS_VARIANT", variant),
                ("KAIROS_VERSION", &version),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        if let Some(software) = self
            .software
            .filter(|it| !it.provider.is_empty() && !it.version.is_empty())
        {
            keys.insert(
                "KAIROS_SOFTWARE_VERSION".to_owned(),
                software.version.to_owned(),
            );
            keys.insert(
                "KAIROS_SOFTWARE_VERSION_PREFIX".to_owned(),
                software.provider.to_owned(),
            );
        }
        keys
    }

    /// Splits the openSUSE distributions (`opensuse-leap` 15.6) into a flavor (`opensuse`) and its release (`leap-15.6`), as the
    /// names of the artifacts expect it. All others stay as they are.
    fn flavor(&self) -> (&str, String) {
        match self.distro.split_once('-') {
            Some((flavor, edition))
                if self.distro.contains("opensuse") && !edition.contains('-') =>
            {
                (flavor, format!("{edition}-{}", self.distro_version))
            }
            _ => (self.distro, self.distro_version.to_owned()),
        }
    }
}

/// Returns the text of the release file: `facts` merged over the keys of `existing`, the file that is there already (empty if there
/// is none). One `KEY=value` line each, sorted, with a final newline.
///
/// Keys of `existing` that the facts do not set are kept with their value, but written in our form; its comments are lost.
///
/// # Errors
///
/// [`DotenvError`] where `existing` is not a file of assignments.
pub fn render(facts: &ReleaseFacts<'_>, existing: &str) -> Result<String, DotenvError> {
    let mut keys = dotenv::parse(existing)?;
    keys.extend(facts.keys());
    Ok(dotenv::render(&keys))
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(version: &Version) -> ReleaseFacts<'_> {
        ReleaseFacts {
            distro: "ubuntu",
            distro_version: "24.04",
            family: "debian",
            arch: "amd64",
            model: "generic",
            standard: false,
            version,
            fips: false,
            trusted_boot: false,
            tool_version: "v0.17.3",
            software: None,
        }
    }

    #[test]
    fn an_ubuntu_core_image_has_exactly_these_lines() {
        let version = Version::parse("1.0.0").expect("a version");
        let expected = r#"KAIROS_ARCH="amd64"
KAIROS_BUG_REPORT_URL="https://github.com/kairos-io/kairos/issues"
KAIROS_FAMILY="debian"
KAIROS_FIPS="false"
KAIROS_FLAVOR="ubuntu"
KAIROS_FLAVOR_RELEASE="24.04"
KAIROS_HOME_URL="https://github.com/kairos-io/kairos"
KAIROS_ID="kairos"
KAIROS_ID_LIKE="kairos-core-ubuntu-24.04"
KAIROS_INIT_VERSION="v0.17.3"
KAIROS_MODEL="generic"
KAIROS_NAME="kairos-core-ubuntu-24.04"
KAIROS_RELEASE="v1.0.0"
KAIROS_TARGETARCH="amd64"
KAIROS_TRUSTED_BOOT="false"
KAIROS_VARIANT="core"
KAIROS_VERSION="v1.0.0"
"#;
        assert_eq!(render(&facts(&version), "").as_deref(), Ok(expected));
    }

    #[test]
    fn opensuse_is_split_into_flavor_and_release() {
        let version = Version::parse("1").expect("a version");
        for (distro, release, flavor, flavor_release) in [
            ("opensuse-leap", "15.6", "opensuse", "leap-15.6"),
            (
                "opensuse-tumbleweed",
                "20250101",
                "opensuse",
                "tumbleweed-20250101",
            ),
            ("sle-micro-rancher", "5.4", "sle-micro-rancher", "5.4"),
            ("debian", "12", "debian", "12"),
        ] {
            let keys = ReleaseFacts {
                distro,
                distro_version: release,
                ..facts(&version)
            }
            .keys();
            assert_eq!(keys["KAIROS_FLAVOR"], flavor);
            assert_eq!(keys["KAIROS_FLAVOR_RELEASE"], flavor_release);
            assert_eq!(
                keys["KAIROS_NAME"],
                format!("kairos-core-{distro}-{release}")
            );
        }
    }

    #[test]
    fn a_number_is_written_bare_and_the_release_never_is() {
        let version = Version::parse("7").expect("a version");
        let text = render(
            &ReleaseFacts {
                distro: "debian",
                distro_version: "12",
                ..facts(&version)
            },
            "",
        )
        .expect("text");
        assert!(text.contains("\nKAIROS_FLAVOR_RELEASE=12\n"));
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("KAIROS_RELEASE=\"") && line.ends_with('"'))
                .count(),
            1
        );
    }

    #[test]
    fn software_keys_need_a_provider_and_a_version() {
        let version = Version::parse("1").expect("a version");
        let with = |provider, version_of| {
            let software = Some(Software {
                provider,
                version: version_of,
            });
            ReleaseFacts {
                standard: true,
                software,
                ..facts(&version)
            }
            .keys()
        };
        let keys = with("k3s", "v1.30.4+k3s1");
        assert_eq!(keys["KAIROS_SOFTWARE_VERSION"], "v1.30.4+k3s1");
        assert_eq!(keys["KAIROS_SOFTWARE_VERSION_PREFIX"], "k3s");
        assert_eq!(keys["KAIROS_VARIANT"], "standard");
        assert!(!with("", "v1").contains_key("KAIROS_SOFTWARE_VERSION"));
        assert!(!with("k3s", "").contains_key("KAIROS_SOFTWARE_VERSION_PREFIX"));
    }

    #[test]
    fn keys_that_are_there_stay_unless_we_know_better() {
        let version = Version::parse("2.0.0").expect("a version");
        let existing = "# ours\nGRUB_ENTRY_NAME='My OS'\nKAIROS_VERSION=\"v1.0.0\"\nAAA=1\n";
        let text = render(&facts(&version), existing).expect("text");
        assert!(text.starts_with("AAA=1\nGRUB_ENTRY_NAME=\"My OS\"\nKAIROS_ARCH="));
        assert!(text.contains("KAIROS_VERSION=\"v2.0.0\"\n"));
        assert_eq!(
            render(&facts(&version), &text).as_deref(),
            Ok(text.as_str()),
            "a second run changes nothing"
        );
    }
}
