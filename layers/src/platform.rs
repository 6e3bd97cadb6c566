//! Platforms: what an image runs on, and which of several images runs here.
//!
//! Architectures have many spellings (`x86_64`, `aarch64`, `arm64/v8`); they are brought to one form when parsed and
//! when compared, so that a document's own spelling can be kept and still be found.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system, a CPU architecture and, where it matters, the architecture's variant.
///
/// Uses Go's names (`amd64`, `arm64`), as the OCI documents do. A variant that is the architecture's only or default
/// one (`arm64/v8`, `amd64/v1`) is left out by [`parse`](Self::parse), and ignored by [`serves`](Self::serves).
///
/// Spec: image-spec `image-index.md`, `platform`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, `linux` for everything we build.
    pub os: String,
    /// CPU architecture.
    pub architecture: String,
    /// CPU variant, such as `v7` of `arm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a platform (expected OS/ARCH, OS/ARCH/VARIANT or ARCH, as in \"linux/arm64\")"
)]
pub struct PlatformError {
    /// The text as given.
    pub text: String,
}

impl Platform {
    /// Makes a platform of these names, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalize(architecture, variant);
        Self {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
        }
    }

    /// Parses `OS/ARCH[/VARIANT]`, or `ARCH` alone for Linux.
    ///
    /// Kernel and distribution spellings of the architecture (`x86_64`, `aarch64`, `armhf`) are understood.
    ///
    /// # Errors
    ///
    /// [`PlatformError`] with the text, for empty parts, too many of them, or characters no platform has.
    pub fn parse(text: &str) -> Result<Platform, PlatformError> {
        let error = || PlatformError {
            text: text.to_owned(),
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| !is_word(part)) {
            return Err(error());
        }
        match parts[..] {
            // A lone operating system would silently become an architecture nobody has.
            ["linux" | "windows" | "darwin" | "freebsd"] => Err(error()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }

    /// Returns the platform this program was built for.
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// Returns how well an image for `self` serves a machine that wants `wanted`: `None` for not at all, else the
    /// number of steps down from the wanted variant, 0 being an exact match.
    ///
    /// A machine runs images for its own or an older variant of its architecture, never for a newer one.
    pub fn serves(&self, wanted: &Platform) -> Option<u32> {
        let (architecture, variant) = normalize(&self.architecture, self.variant.as_deref());
        let (wanted_architecture, wanted_variant) =
            normalize(&wanted.architecture, wanted.variant.as_deref());
        if !self.os.eq_ignore_ascii_case(&wanted.os) || architecture != wanted_architecture {
            return None;
        }
        if variant == wanted_variant {
            return Some(0);
        }
        let have = level(&architecture, variant.as_deref())?;
        let want = level(&architecture, wanted_variant.as_deref())?;
        want.checked_sub(have)
    }

    /// Returns whether this is what attestations carry instead of a platform (`unknown/unknown`).
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant
        .filter(|v| !v.is_empty())
        .map(str::to_ascii_lowercase);
    let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("i386" | "i486" | "i586" | "i686" | "x86" | "386", v) => ("386", v),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", None) => ("arm", Some("v7")),
        ("ppc64el" | "powerpc64le", v) => ("ppc64le", v),
        (other, v) => (other, v),
    };
    let variant = match (architecture, variant) {
        ("arm64", Some("8" | "v8" | "v8.0")) | ("amd64", Some("v1")) => None,
        ("arm", Some(digit @ ("5" | "6" | "7" | "8"))) => Some(format!("v{digit}")),
        (_, v) => v.map(str::to_owned),
    };
    (architecture.to_owned(), variant)
}

/// Returns the rank of a variant among those of its architecture, or `None` when they are not ordered.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    let first = match architecture {
        "arm64" => 8,
        "amd64" => 1,
        "arm" => 7,
        _ => return None,
    };
    let Some(variant) = variant else {
        return Some(first * 100);
    };
    let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
        Some((major, minor)) => (major, minor.parse::<u32>().ok()?),
        None => (variant.strip_prefix('v')?, 0),
    };
    let major: u32 = major.parse().ok()?;
    (major < 100 && minor < 100).then_some(major * 100 + minor)
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Platform::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn spellings_come_to_one_form() {
        for (text, normal) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).to_string(), normal, "{text}");
            assert_eq!(platform(normal), platform(text));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "/",
            "linux/",
            "linux",
            "a/b/c/d",
            "linux/amd 64",
            "linux/\u{1b}[2J",
        ] {
            let error = Platform::parse(text).unwrap_err();
            assert!(!error.to_string().contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn older_variants_serve_and_newer_ones_do_not() {
        for (image, wanted, expected) in [
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm/v7", "linux/arm/v7", Some(0)),
            ("linux/arm/v6", "linux/arm/v7", Some(100)),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/amd64", "linux/amd64/v3", Some(200)),
            ("linux/amd64/v3", "linux/amd64", None),
            ("linux/arm64", "linux/amd64", None),
            ("windows/amd64", "linux/amd64", None),
        ] {
            assert_eq!(
                platform(image).serves(&platform(wanted)),
                expected,
                "{image} for {wanted}"
            );
        }
    }

    #[test]
    fn a_documents_own_spelling_is_still_found() {
        let raw = Platform {
            os: "linux".to_owned(),
            architecture: "arm64".to_owned(),
            variant: Some("v8".to_owned()),
        };
        assert_eq!(raw.serves(&platform("arm64")), Some(0));
    }
}
