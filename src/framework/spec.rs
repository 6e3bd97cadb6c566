//! What `--framework` may say, and the versions it may name. Parsing only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::component::{COMPONENTS, Component};
use super::{FrameworkError, pins};

/// Where the framework comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameworkSpec {
    /// `release[:VERSIONS]`: upstream's release archives. The default.
    Release(Versions),
    /// `go[:VERSIONS]`: built here from the Go modules.
    Go(Versions),
    /// `dir:PATH`: a directory laid out as in an image.
    Dir(PathBuf),
    /// `tar:PATH`: the same as an archive, plain or compressed with gzip or zstd.
    Tar(PathBuf),
    /// Anything else: an image reference or `oci:DIR[:TAG]`, left to the caller to read.
    Image(String),
}

impl Default for FrameworkSpec {
    fn default() -> Self {
        Self::Release(Versions::default())
    }
}

impl FrameworkSpec {
    /// Returns whether the binaries are on this machine already.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Dir(_) | Self::Tar(_) => true,
            Self::Image(text) => text.starts_with("oci:"),
            Self::Release(_) | Self::Go(_) => false,
        }
    }

    /// Returns whether `component` was named as one to leave out.
    pub fn leaves_out(&self, component: &Component) -> bool {
        match self {
            Self::Release(versions) | Self::Go(versions) => {
                versions.choice(component) == Choice::LeftOut
            }
            Self::Dir(_) | Self::Tar(_) | Self::Image(_) => false,
        }
    }
}

impl FromStr for FrameworkSpec {
    type Err = FrameworkError;

    /// Reads a `--framework` value.
    ///
    /// `release` and `go` are these keywords, not images of that name; write `docker.io/library/go` for the image.
    fn from_str(text: &str) -> Result<Self, FrameworkError> {
        let (scheme, rest) = text
            .split_once(':')
            .map_or((text, None), |(s, r)| (s, Some(r)));
        let needs_path = || match rest {
            Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
            _ => Err(FrameworkError::EmptySpec(text.into())),
        };
        match scheme {
            "release" => Ok(Self::Release(rest.unwrap_or("").parse()?)),
            "go" => Ok(Self::Go(rest.unwrap_or("").parse()?)),
            "dir" => Ok(Self::Dir(needs_path()?)),
            "tar" => Ok(Self::Tar(needs_path()?)),
            "" => Err(FrameworkError::EmptySpec(text.into())),
            _ if rest == Some("") => Err(FrameworkError::EmptySpec(text.into())),
            _ => Ok(Self::Image(text.into())),
        }
    }
}

impl fmt::Display for FrameworkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_versions = |f: &mut fmt::Formatter<'_>, word: &str, versions: &Versions| {
            f.write_str(word)?;
            if versions.0.is_empty() {
                Ok(())
            } else {
                write!(f, ":{versions}")
            }
        };
        match self {
            Self::Release(versions) => with_versions(f, "release", versions),
            Self::Go(versions) => with_versions(f, "go", versions),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
            Self::Image(reference) => f.write_str(reference),
        }
    }
}

/// What was chosen for one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This version, with its `v`.
    Version(String),
    /// Leave the component out.
    LeftOut,
}

/// The versions that differ from our pins, by component. Written `NAME=VERSION,...`; `NAME=none` leaves one out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions(BTreeMap<&'static str, Choice>);

impl Versions {
    /// Chooses `value` for the component `name`: a version, with or without its `v`, or `none`.
    ///
    /// # Errors
    ///
    /// - [`FrameworkError::UnknownComponent`]: no component has that name.
    /// - [`FrameworkError::InvalidVersion`]: not a version. Moving names such as `latest` are refused as well: the same
    ///   command has to give the same image tomorrow.
    /// - [`FrameworkError::Required`]: `none` for a component that every image needs.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), FrameworkError> {
        let component =
            Component::find(name).ok_or_else(|| FrameworkError::UnknownComponent(name.into()))?;
        let choice = match value {
            "none" if component.required => return Err(FrameworkError::Required(component.name)),
            "none" => Choice::LeftOut,
            _ => Choice::Version(normalised(component.name, value)?),
        };
        self.0.insert(component.name, choice);
        Ok(())
    }

    /// Returns what was chosen for `component`: the user's version, or else the pinned one.
    pub fn choice(&self, component: &Component) -> Choice {
        self.0
            .get(component.name)
            .cloned()
            .unwrap_or_else(|| Choice::Version(pins::version(component.name).into()))
    }
}

impl FromStr for Versions {
    type Err = FrameworkError;

    fn from_str(text: &str) -> Result<Self, FrameworkError> {
        let mut versions = Self::default();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| FrameworkError::NotAPair(item.into()))?;
            versions.set(name.trim(), value.trim())?;
        }
        Ok(versions)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for component in COMPONENTS {
            let Some(choice) = self.0.get(component.name) else {
                continue;
            };
            let value = match choice {
                Choice::Version(version) => version,
                Choice::LeftOut => "none",
            };
            write!(f, "{separator}{}={value}", component.name)?;
            separator = ",";
        }
        Ok(())
    }
}

/// Longest version accepted; Go's pseudo-versions have about 40 characters.
const MAX_VERSION_LEN: usize = 80;

/// Returns `value` with its `v`. The result is safe in a path and in a URL.
fn normalised(component: &'static str, value: &str) -> Result<String, FrameworkError> {
    let bare = value.strip_prefix('v').unwrap_or(value);
    let good = value.len() <= MAX_VERSION_LEN
        && bare.starts_with(|c: char| c.is_ascii_digit())
        && bare.contains('.')
        && !bare.contains("..")
        && bare
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
    if !good {
        return Err(FrameworkError::InvalidVersion {
            component,
            version: value.into(),
        });
    }
    Ok(format!("v{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, written) in [
            ("release", "release"),
            ("release:", "release"),
            ("go:immucore=0.20.4", "go:immucore=v0.20.4"),
            (
                "go:installer=none,agent=v2.31.4",
                "go:kairos-agent=v2.31.4,kairos-installer=none",
            ),
            ("dir:/some/where", "dir:/some/where"),
            ("tar:f.tar.gz", "tar:f.tar.gz"),
            ("oci:layout:tag", "oci:layout:tag"),
            ("localhost:5000/framework:v1", "localhost:5000/framework:v1"),
            (
                "quay.io/kairos/framework@sha256:00",
                "quay.io/kairos/framework@sha256:00",
            ),
        ] {
            let spec: FrameworkSpec = text.parse().expect(text);
            assert_eq!(spec.to_string(), written);
            assert_eq!(written.parse::<FrameworkSpec>().expect(written), spec);
        }
    }

    #[test]
    fn values_that_name_nothing_are_refused() {
        for text in ["", "dir", "dir:", "tar:", "oci:", ":x"] {
            assert!(
                matches!(
                    text.parse::<FrameworkSpec>(),
                    Err(FrameworkError::EmptySpec(_))
                ),
                "{text:?}"
            );
        }
    }

    #[test]
    fn versions_that_move_or_could_leave_a_path_are_refused() {
        for value in [
            "latest",
            "",
            "v",
            "main",
            "1",
            "v1.0/../..",
            "v1..0",
            "v1.0 ",
            "v1.0?x",
            "v1.0%2f",
        ] {
            let text = format!("release:immucore={value}/");
            assert!(text.parse::<FrameworkSpec>().is_err(), "{value:?}");
            let mut versions = Versions::default();
            let refused = matches!(
                versions.set("immucore", value),
                Err(FrameworkError::InvalidVersion { .. })
            );
            assert!(refused, "{value:?}");
        }
    }

    #[test]
    fn an_unknown_component_and_a_missing_version_are_named() {
        let unknown = "go:imucore=v1.0.0"
            .parse::<FrameworkSpec>()
            .expect_err("no such component");
        assert!(unknown.to_string().contains("`imucore`"), "{unknown}");
        assert!(
            unknown.hints().iter().any(|h| h.contains("`immucore`")),
            "{:?}",
            unknown.hints()
        );
        let pair = "go:immucore"
            .parse::<FrameworkSpec>()
            .expect_err("no version");
        assert!(matches!(pair, FrameworkError::NotAPair(_)));
    }

    #[test]
    fn only_what_an_image_can_do_without_may_be_left_out() {
        assert!(matches!(
            "go:agent=none".parse::<FrameworkSpec>(),
            Err(FrameworkError::Required("kairos-agent"))
        ));
        let versions: Versions = "kcrypt=none".parse().expect("optional");
        let challenger = Component::find("kcrypt").expect("in the table");
        assert_eq!(versions.choice(challenger), Choice::LeftOut);
    }

    #[test]
    fn what_is_not_named_has_the_pinned_version() {
        for component in COMPONENTS {
            let choice = Versions::default().choice(component);
            assert!(
                matches!(&choice, Choice::Version(v) if v.starts_with('v')),
                "{choice:?}"
            );
        }
    }
}
