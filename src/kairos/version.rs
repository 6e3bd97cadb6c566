//! The version of the produced system: what is accepted, and its one canonical spelling.
//!
//! Knows nothing about images or releases; it turns text into a value and back.

use std::fmt;
use std::str::FromStr;

/// The fewest numbers that the canonical form shows (`1.2` is written `1.2.0`).
const MIN_NUMBERS: usize = 3;

/// The version of a produced system.
///
/// Displays in the canonical form that goes into the release file: a leading `v`, at least three numbers without leading
/// zeros, prerelease and metadata as they were given. The `v` is always there, because the upgrade checker takes a version
/// without it for an invalid one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    numbers: Vec<u64>,
    prerelease: Option<String>,
    metadata: Option<String>,
}

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The text does not have the shape of a version.
    #[error(
        "malformed version {0:?}: expected numbers such as `v1.2.3`, with `-prerelease` and `+metadata` as options"
    )]
    Malformed(String),
    /// A number of the prerelease begins with a zero, which readers of versions refuse. Spec: Semantic Versioning 2.0.0, item 9.
    #[error("malformed version {0:?}: a number of its prerelease begins with a zero")]
    LeadingZero(String),
    /// A number is larger than the consumers of the release file can read (2^63 - 1).
    #[error("malformed version {0:?}: a number is too large")]
    TooLarge(String),
}

impl Version {
    /// Reads a version as a person types it.
    ///
    /// Accepted: an optional `v`, one or more numbers joined by dots, then optionally `-` and a prerelease, then optionally `+`
    /// and metadata. Prerelease and metadata are non-empty parts of `0-9A-Za-z-~` joined by dots. So `1`, `v1.2.3.4` and
    /// `v3.2.4-36-g24ca209` are versions; `latest`, `1.0.0rc1` and the empty text are not.
    ///
    /// # Errors
    ///
    /// [`VersionError::Malformed`] for another shape, [`VersionError::LeadingZero`] for a prerelease as `-01`,
    /// [`VersionError::TooLarge`] for a number above 2^63 - 1.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.to_owned());
        let body = text.strip_prefix('v').unwrap_or(text);
        let (body, metadata) = split_suffix(body, '+').map_err(|()| malformed())?;
        let (body, prerelease) = split_suffix(body, '-').map_err(|()| malformed())?;
        if prerelease
            .iter()
            .flat_map(|text| text.split('.'))
            .any(has_leading_zero)
        {
            return Err(VersionError::LeadingZero(text.to_owned()));
        }
        let mut numbers = Vec::with_capacity(MIN_NUMBERS);
        for field in body.split('.') {
            if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(malformed());
            }
            let number = field
                .parse::<i64>()
                .map_err(|_| VersionError::TooLarge(text.to_owned()))?;
            numbers.push(number.unsigned_abs());
        }
        numbers.resize(numbers.len().max(MIN_NUMBERS), 0);
        Ok(Self {
            numbers,
            prerelease,
            metadata,
        })
    }

    /// Reads the version out of an image tag, or `None` where the tag is not meant as one.
    ///
    /// A tag that starts with `v` is read as [`Version::parse`] reads it. Without the `v` nobody said that it is a version: `12`
    /// and `24.04` are ordinary tags of base images, so it must be a whole semantic version.
    ///
    /// Spec: Semantic Versioning 2.0.0, items 2 and 9.
    pub fn from_tag(tag: &str) -> Option<Self> {
        if tag.starts_with('v') {
            return Self::parse(tag).ok();
        }
        let parsed = semver::Version::parse(tag).ok()?;
        parsed
            .build
            .is_empty()
            .then(|| Self::parse(tag).ok())
            .flatten()
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.numbers.iter().enumerate() {
            write!(f, "{}{number}", if index == 0 { 'v' } else { '.' })?;
        }
        if let Some(prerelease) = &self.prerelease {
            write!(f, "-{prerelease}")?;
        }
        if let Some(metadata) = &self.metadata {
            write!(f, "+{metadata}")?;
        }
        Ok(())
    }
}

/// Tells whether a part of a prerelease is a number that is not written as numbers are.
fn has_leading_zero(part: &str) -> bool {
    part.len() > 1 && part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits `text` at the first `mark` and checks what follows it; an absent mark is fine, an empty suffix is not.
fn split_suffix(text: &str, mark: char) -> Result<(&str, Option<String>), ()> {
    let Some((body, suffix)) = text.split_once(mark) else {
        return Ok((text, None));
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'~';
    let sound = suffix
        .split('.')
        .all(|part| !part.is_empty() && part.bytes().all(allowed));
    if sound {
        Ok((body, Some(suffix.to_owned())))
    } else {
        Err(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_in_one_canonical_form() {
        for (given, canonical) in [
            ("1", "v1.0.0"),
            ("1.2", "v1.2.0"),
            ("v1.0.0", "v1.0.0"),
            ("1.04.0", "v1.4.0"),
            ("v1.2.3.4", "v1.2.3.4"),
            ("v3.2.4-36-g24ca209", "v3.2.4-36-g24ca209"),
            ("1.0.0+k3s1", "v1.0.0+k3s1"),
            ("1-rc.1~2+a-b.~c", "v1.0.0-rc.1~2+a-b.~c"),
            ("9223372036854775807", "v9223372036854775807.0.0"),
            ("1.0.0--", "v1.0.0--"),
            ("1.0.0-0.0a.01b+01", "v1.0.0-0.0a.01b+01"),
        ] {
            assert_eq!(
                Version::parse(given)
                    .map(|version| version.to_string())
                    .as_deref(),
                Ok(canonical),
                "{given}"
            );
        }
    }

    #[test]
    fn texts_that_are_no_versions_are_refused() {
        for given in [
            "",
            "v",
            "latest",
            "1.0.0rc1",
            "1.",
            ".1",
            "1..2",
            "vv1",
            "V1",
            "1.0.0-",
            "1.0.0+",
            "1.0-a..b",
            "1.0+a+b",
            "1.0_1",
            " 1.0",
            "1.0\n",
            "-1",
            "1.0.0-rc_1",
            "1.0.0-01",
            "1.0.0-rc.007",
            "1.0.0?",
            "9223372036854775808",
            "١",
        ] {
            assert!(Version::parse(given).is_err(), "{given:?} was accepted");
        }
    }

    #[test]
    fn parsing_the_canonical_form_gives_the_same_version() {
        for given in ["1", "v1.2.3.4-a.b+c", "00.1"] {
            let version = Version::parse(given).expect("a valid version");
            assert_eq!(Version::parse(&version.to_string()), Ok(version));
        }
    }

    #[test]
    fn tags_with_a_v_or_three_numbers_are_taken_for_a_version() {
        for (tag, version) in [
            ("v1.0.0", Some("v1.0.0")),
            ("1.2.3-rc.1", Some("v1.2.3-rc.1")),
            ("v3.2.4-36-g24ca209", Some("v3.2.4-36-g24ca209")),
            ("12", None),
            ("24.04", None),
            ("v1", Some("v1.0.0")),
            ("v1.2", Some("v1.2.0")),
            ("1.2", None),
            ("1.04.0", None),
            ("1.2.3.4", None),
            ("latest", None),
            ("", None),
            ("v", None),
            ("vivid", None),
            ("v1.0.0rc1", None),
            ("v1.0.0_k3s1", None),
        ] {
            assert_eq!(
                Version::from_tag(tag)
                    .map(|found| found.to_string())
                    .as_deref(),
                version,
                "{tag}"
            );
        }
    }

    #[test]
    fn the_refusal_shows_control_characters_escaped() {
        let error = Version::parse("a\u{1b}[31m").expect_err("not a version");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
