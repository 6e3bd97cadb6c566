//! Decides which distribution a base image holds, from its os-release fields.

use serde::Serialize;

use super::os_release::OsRelease;
use super::version::Release;
use super::{DISTROS, DistroId, Family, Known, known_ids};

/// Why a base image's distribution cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// There is no `ID`, or an empty one.
    #[error("os-release names no distribution: ID is missing")]
    NoId,
    /// Neither `ID` nor an `ID_LIKE` token is known.
    #[error("unknown distribution {id:?}{}, known: {}", like(.id_like), known_ids())]
    Unknown {
        /// The `ID` of the base.
        id: String,
        /// Its `ID_LIKE`, empty if absent.
        id_like: String,
    },
    /// There is no `VERSION_ID`, and the distribution is not one that can lack it.
    #[error("os-release of {id:?} names no release: VERSION_ID is missing")]
    NoVersion {
        /// The `ID` of the base.
        id: String,
    },
    /// A field has characters that do not belong into names, tags and file contents made from it.
    #[error("os-release has an unusable {field}: {value:?}")]
    InvalidField {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

fn like(id_like: &str) -> String {
    if id_like.is_empty() {
        String::new()
    } else {
        format!(" (like {id_like:?})")
    }
}

/// `ID_LIKE` tokens that name a family and no distribution, with the member whose packages fit best.
const FAMILY_TOKENS: &[(&str, DistroId)] = &[
    ("suse", DistroId::OpensuseLeap),
    ("redhat", DistroId::Fedora),
];

/// Release names, for derivatives: their `VERSION_ID` counts their own releases, not those they are made from.
const CODENAMES: &[(DistroId, &str, &str)] = &[
    (DistroId::Debian, "bullseye", "11"),
    (DistroId::Debian, "bookworm", "12"),
    (DistroId::Debian, "trixie", "13"),
    (DistroId::Debian, "forky", "14"),
    (DistroId::Debian, "duke", "15"),
    (DistroId::Ubuntu, "focal", "20.04"),
    (DistroId::Ubuntu, "jammy", "22.04"),
    (DistroId::Ubuntu, "kinetic", "22.10"),
    (DistroId::Ubuntu, "lunar", "23.04"),
    (DistroId::Ubuntu, "mantic", "23.10"),
    (DistroId::Ubuntu, "noble", "24.04"),
    (DistroId::Ubuntu, "oracular", "24.10"),
    (DistroId::Ubuntu, "plucky", "25.04"),
    (DistroId::Ubuntu, "questing", "25.10"),
    (DistroId::Ubuntu, "resolute", "26.04"),
];

/// The distribution a base image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Distro {
    /// What the base calls itself (`ID`): `linuxmint`, `centos`, `debian`.
    pub id: String,
    /// What it is treated as: itself if it is known, else the distribution it derives from.
    pub base: DistroId,
    /// The family of `base`.
    pub family: Family,
    /// Its own release, for people and names: `VERSION_ID`, for Alpine without the patch number, and where there is
    /// none the code name of the development branch or `rolling`.
    pub version: String,
    /// The release of `base` it corresponds to, for decisions; `None` is newer than every numbered release.
    pub base_version: Option<String>,
    /// Its name for people (`PRETTY_NAME`), free of control characters.
    pub name: String,
}

impl Distro {
    /// Recognises the distribution by its `ID`, then by its `ID_LIKE`.
    ///
    /// An `ID_LIKE` token that is the `ID` of a known distribution counts before one that only names a family, wherever
    /// it stands: `suse opensuse-tumbleweed` is Tumbleweed.
    ///
    /// # Errors
    ///
    /// Every variant of [`DetectError`]; none of them can be worked around by guessing.
    pub fn detect(os_release: &OsRelease) -> Result<Self, DetectError> {
        let id = word(os_release, "ID")?.ok_or(DetectError::NoId)?;
        let known = lookup(&id, os_release.get("ID_LIKE").unwrap_or_default())?;
        let number =
            word(os_release, "VERSION_ID")?.map(|version| cut_patch_number(known.id, version));
        let codename = word(os_release, "VERSION_CODENAME")?;
        if number.is_none() && codename.is_none() && !known.unnumbered {
            return Err(DetectError::NoVersion { id });
        }
        let base_version = match id == known.name {
            true => number.clone(),
            false => derived_from(known.id, os_release).or_else(|| number.clone()),
        };
        numbered_or_new(&id, known, base_version.as_deref())?;
        Ok(Self {
            name: printable(
                os_release
                    .get("PRETTY_NAME")
                    .or(os_release.get("NAME"))
                    .unwrap_or(&id),
            ),
            version: number.or(codename).unwrap_or_else(|| "rolling".to_owned()),
            base: known.id,
            family: known.family,
            base_version,
            id,
        })
    }

    /// Tells whether the base is treated as another distribution than the one it says it is.
    pub fn is_derivative(&self) -> bool {
        self.id != self.base.as_str()
    }
}

fn lookup(id: &str, id_like: &str) -> Result<&'static Known, DetectError> {
    let by_name = |name: &str| DISTROS.iter().find(|known| known.name == name);
    let by_family = |token: &str| {
        let (_, id) = FAMILY_TOKENS.iter().find(|(name, _)| *name == token)?;
        by_name(id.as_str())
    };
    by_name(id)
        .or_else(|| id_like.split_whitespace().find_map(by_name))
        .or_else(|| id_like.split_whitespace().find_map(by_family))
        .ok_or_else(|| DetectError::Unknown {
            id: id.to_owned(),
            id_like: id_like.to_owned(),
        })
}

/// Finds the release of `base` that a derivative is made from, by the code name it states.
fn derived_from(base: DistroId, os_release: &OsRelease) -> Option<String> {
    let own = match base {
        DistroId::Ubuntu => "UBUNTU_CODENAME",
        _ => "DEBIAN_CODENAME",
    };
    [own, "VERSION_CODENAME"].into_iter().find_map(|field| {
        let codename = os_release.get(field)?;
        let (.., version) = CODENAMES
            .iter()
            .find(|(distro, name, _)| *distro == base && *name == codename)?;
        Some((*version).to_owned())
    })
}

/// Refuses a release that no rule could be compared with, except where a missing one means "the newest".
fn numbered_or_new(id: &str, known: &Known, version: Option<&str>) -> Result<(), DetectError> {
    match version {
        None if known.unnumbered => Ok(()),
        None => Err(DetectError::NoVersion { id: id.to_owned() }),
        Some(text) => match Release::parse(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(DetectError::InvalidField {
                field: "VERSION_ID",
                value: text.to_owned(),
            }),
        },
    }
}

/// Alpine's repositories are named by `major.minor`, its `VERSION_ID` has a patch number behind it.
fn cut_patch_number(distro: DistroId, version: String) -> String {
    let mut parts = version.split('.');
    match (
        distro,
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) {
        (DistroId::Alpine, Some(major), Some(minor), Some(_), None) => format!("{major}.{minor}"),
        _ => version,
    }
}

/// Reads a field that becomes part of tags, file names and shell-readable files.
fn word(os_release: &OsRelease, field: &'static str) -> Result<Option<String>, DetectError> {
    let Some(value) = os_release.get(field) else {
        return Ok(None);
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-+~".contains(&b);
    if value.len() > MAX_WORD_LEN || !value.bytes().all(allowed) || value.starts_with(['-', '.']) {
        return Err(DetectError::InvalidField {
            field,
            value: value.chars().take(MAX_WORD_LEN).collect(),
        });
    }
    Ok(Some(value.to_owned()))
}

/// Longer than any real identifier, short enough for a tag (128) that holds several of them.
const MAX_WORD_LEN: usize = 40;

/// The longest name shown to people; real ones have up to 60 characters.
const MAX_NAME_CHARS: usize = 120;

fn printable(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use proptest::prelude::*;

    fn detect(text: &str) -> Result<Distro, DetectError> {
        Distro::detect(&OsRelease::parse(text))
    }

    #[test]
    fn every_known_distribution_is_recognised_by_its_id() {
        for known in DISTROS {
            let distro = detect(&format!(
                "ID={}\nVERSION_ID=10.1\nID_LIKE=fedora\n",
                known.name
            ))
            .expect("known");
            assert_eq!(
                (distro.base, distro.family, distro.is_derivative()),
                (known.id, known.family, false)
            );
            assert_eq!(known.name.parse(), Ok(known.id));
            assert_eq!(serde_json::to_value(known.id).expect("a name"), known.name);
        }
    }

    #[test]
    fn derivatives_are_treated_as_what_they_derive_from() {
        for (text, base, version, base_version) in [
            (
                "ID=centos\nID_LIKE='rhel fedora'\nVERSION_ID=9",
                DistroId::Rhel,
                "9",
                Some("9"),
            ),
            (
                "ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_ID=22\nUBUNTU_CODENAME=noble\nVERSION_CODENAME=wilma",
                DistroId::Ubuntu,
                "22",
                Some("24.04"),
            ),
            (
                "ID=linuxmint\nID_LIKE=debian\nVERSION_ID=6\nVERSION_CODENAME=faye\nDEBIAN_CODENAME=bookworm",
                DistroId::Debian,
                "6",
                Some("12"),
            ),
            (
                "ID=pop\nID_LIKE='ubuntu debian'\nVERSION_ID=22.04\nUBUNTU_CODENAME=jammy",
                DistroId::Ubuntu,
                "22.04",
                Some("22.04"),
            ),
            (
                "ID=raspbian\nID_LIKE=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm",
                DistroId::Debian,
                "12",
                Some("12"),
            ),
            (
                "ID=kali\nID_LIKE=debian\nVERSION_ID=2025.1\nVERSION_CODENAME=kali-rolling",
                DistroId::Debian,
                "2025.1",
                Some("2025.1"),
            ),
            (
                "ID=opensuse-microos\nID_LIKE='suse opensuse opensuse-tumbleweed'\nVERSION_ID=20260101",
                DistroId::OpensuseTumbleweed,
                "20260101",
                Some("20260101"),
            ),
            (
                "ID=mine\nID_LIKE='mystery suse'\nVERSION_ID=15.6",
                DistroId::OpensuseLeap,
                "15.6",
                Some("15.6"),
            ),
            (
                "ID=mine\nID_LIKE=redhat\nVERSION_ID=42",
                DistroId::Fedora,
                "42",
                Some("42"),
            ),
        ] {
            let distro = detect(text).expect(text);
            assert_eq!(
                (distro.base, distro.version.as_str()),
                (base, version),
                "{text}"
            );
            assert_eq!(distro.base_version.as_deref(), base_version, "{text}");
            assert!(distro.is_derivative(), "{text}");
        }
    }

    #[test]
    fn a_distribution_without_numbers_counts_as_the_newest() {
        let testing =
            detect("ID=debian\nPRETTY_NAME='Debian GNU/Linux forky/sid'\nVERSION_CODENAME=forky")
                .expect("testing");
        assert_eq!(
            (testing.version.as_str(), testing.base_version),
            ("forky", None)
        );
        let arch = detect("ID=arch\nBUILD_ID=rolling").expect("arch");
        assert_eq!(
            (arch.version.as_str(), arch.base_version),
            ("rolling", None)
        );
    }

    #[test]
    fn alpine_loses_its_patch_number() {
        for (given, kept) in [
            ("3.21.3", "3.21"),
            ("3.21", "3.21"),
            ("3.22.0_alpha20250108", "3.22"),
            ("3.1.2.3", "3.1.2.3"),
        ] {
            let distro = detect(&format!("ID=alpine\nVERSION_ID={given}")).expect(given);
            assert_eq!(distro.version, kept);
        }
        assert_eq!(
            detect("ID=rocky\nVERSION_ID=9.5.1").expect("rocky").version,
            "9.5.1"
        );
    }

    #[test]
    fn an_unknown_distribution_is_named_with_the_known_ones() {
        let error = detect("ID=gentoo\nID_LIKE='some thing'").expect_err("unknown");
        assert!(error.to_string().starts_with(r#"unknown distribution "gentoo" (like "some thing"), known: debian, ubuntu, fedora"#), "{error}");
        assert!(
            error.to_string().ends_with("sle-micro-rancher, hadron"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_or_unusable_field_is_an_error() {
        assert_eq!(detect("NAME=x"), Err(DetectError::NoId));
        assert_eq!(
            detect("ID=fedora"),
            Err(DetectError::NoVersion {
                id: "fedora".to_owned()
            })
        );
        assert_eq!(
            detect("ID=ubuntu\nVERSION_CODENAME=x"),
            Err(DetectError::NoVersion {
                id: "ubuntu".to_owned()
            })
        );
        for text in [
            "ID='a b'",
            "ID=debian\nVERSION_ID='$(id)'",
            "ID=debian\nVERSION_ID=../../x",
            "ID=fedora\nVERSION_ID=rawhide",
        ] {
            assert!(
                matches!(detect(text), Err(DetectError::InvalidField { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn the_name_cannot_carry_control_characters() {
        let distro = detect("ID=debian\nVERSION_ID=12\nPRETTY_NAME='De\u{1b}[31mbian\u{7}'")
            .expect("debian");
        assert_eq!(distro.name, "De[31mbian");
    }

    proptest! {
        #[test]
        fn any_text_is_detected_or_refused_without_a_panic(text in "((ID|ID_LIKE|VERSION_ID|PRETTY_NAME|VERSION_CODENAME)=.{0,20}\n){0,6}") {
            if let Ok(distro) = detect(&text) {
                prop_assert!(distro.version.len() <= MAX_WORD_LEN && !distro.version.is_empty());
            }
        }
    }
}
