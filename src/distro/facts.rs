//! What a package rule can depend on besides the distribution: architecture, board, trusted boot.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Distro, DistroId, Family};

/// A name that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}, known: {known}")]
pub struct UnknownName {
    /// What kind of name it is: `architecture`, `model`.
    pub what: &'static str,
    /// The name as it was given.
    pub name: String,
    /// The known names, separated by commas.
    pub known: String,
}

/// Finds `name` in `table`, or says which names there are.
pub(super) fn by_name<T: Copy>(
    what: &'static str,
    table: &[(T, &str)],
    name: &str,
) -> Result<T, UnknownName> {
    table
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(value, _)| *value)
        .ok_or_else(|| UnknownName {
            what,
            name: name.to_owned(),
            known: table
                .iter()
                .map(|(_, known)| *known)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// Returns the name `table` gives `value`; every table here names every value, which the tests check.
pub(super) fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    table
        .iter()
        .find(|(known, _)| known == value)
        .map_or("", |(_, name)| name)
}

/// A processor architecture Kairos images exist for.
///
/// Written as in the OCI image configuration (`amd64`); the package managers' own names come from methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 64-bit RISC-V.
    Riscv64,
}

const ARCHES: &[(Arch, &str)] = &[
    (Arch::Amd64, "amd64"),
    (Arch::Arm64, "arm64"),
    (Arch::Riscv64, "riscv64"),
];

impl Arch {
    /// Returns the name in OCI image configurations, in Debian packages and in `/etc/kairos-release`.
    pub fn as_str(self) -> &'static str {
        name_of(ARCHES, &self)
    }

    /// Returns the name that `uname -m`, RPM and APK use.
    pub fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// Returns the architecture this program was built for, or `None` if Kairos does not know it.
    pub fn host() -> Option<Self> {
        ARCHES
            .iter()
            .map(|(arch, _)| *arch)
            .find(|arch| arch.machine() == std::env::consts::ARCH)
    }
}

impl FromStr for Arch {
    type Err = UnknownName;

    /// Takes the name of any convention: `amd64` as well as `x86_64`.
    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let machine = ARCHES
            .iter()
            .map(|(arch, _)| *arch)
            .find(|arch| arch.machine() == name);
        machine.map_or_else(|| by_name("architecture", ARCHES, name), Ok)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A board the image is made for; `generic` is any machine with standard firmware.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// No particular board.
    #[default]
    Generic,
    /// Raspberry Pi 3.
    Rpi3,
    /// Raspberry Pi 4.
    Rpi4,
    /// NVIDIA Jetson AGX Orin.
    NvidiaJetsonAgxOrin,
    /// NVIDIA Jetson Orin NX.
    NvidiaJetsonOrinNx,
    /// NVIDIA Jetson Thor.
    NvidiaJetsonThor,
    /// NVIDIA DGX Spark.
    NvidiaDgxSpark,
}

const MODELS: &[(Model, &str)] = &[
    (Model::Generic, "generic"),
    (Model::Rpi3, "rpi3"),
    (Model::Rpi4, "rpi4"),
    (Model::NvidiaJetsonAgxOrin, "nvidia-jetson-agx-orin"),
    (Model::NvidiaJetsonOrinNx, "nvidia-jetson-orin-nx"),
    (Model::NvidiaJetsonThor, "nvidia-jetson-thor"),
    (Model::NvidiaDgxSpark, "nvidia-dgx-spark"),
];

impl Model {
    /// Returns the name used on the command line and in `/etc/kairos-release`.
    pub fn as_str(self) -> &'static str {
        name_of(MODELS, &self)
    }

    /// Lists every model, `generic` first.
    pub fn all() -> impl Iterator<Item = Self> {
        MODELS.iter().map(|(model, _)| *model)
    }

    /// Returns the only architecture the board exists with; `None` for any.
    pub fn required_arch(self) -> Option<Arch> {
        (self != Self::Generic).then_some(Arch::Arm64)
    }

    /// Tells whether the board's packages hold drivers that fit its own kernel only.
    pub fn has_own_drivers(self) -> bool {
        !matches!(self, Self::Generic | Self::Rpi3 | Self::Rpi4)
    }

    /// Tells whether the board is a Raspberry Pi.
    pub fn is_raspberry_pi(self) -> bool {
        matches!(self, Self::Rpi3 | Self::Rpi4)
    }
}

impl FromStr for Model {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        by_name("model", MODELS, name)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Everything the choice of packages depends on, and nothing else: equal facts give equal packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The distribution, or the one the base derives from.
    pub distro: DistroId,
    /// Its family.
    pub family: Family,
    /// Its release; `None` is newer than every numbered release.
    pub version: Option<String>,
    /// The architecture of the image, which need not be the host's.
    pub arch: Arch,
    /// The board.
    pub model: Model,
    /// Whether the image is for trusted boot.
    pub trusted: bool,
}

impl Facts {
    /// Takes the distribution's part of the facts from `distro`.
    pub fn new(distro: &Distro, arch: Arch, model: Model, trusted: bool) -> Self {
        Self {
            distro: distro.base,
            family: distro.family,
            version: distro.base_version.clone(),
            arch,
            model,
            trusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_as_its_value() {
        for model in Model::all() {
            assert_eq!(model.as_str().parse(), Ok(model));
            assert_eq!(serde_json::to_value(model).expect("a name"), model.as_str());
        }
        for (arch, name) in ARCHES {
            assert_eq!(name.parse(), Ok(*arch));
            assert_eq!(arch.machine().parse(), Ok(*arch));
            assert_eq!(serde_json::to_value(arch).expect("a name"), *name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "rpi5".parse::<Model>().expect_err("no such model");
        assert!(
            error
                .to_string()
                .starts_with(r#"unknown model "rpi5", known: generic, rpi3"#),
            "{error}"
        );
        let error = "i386".parse::<Arch>().expect_err("no such architecture");
        assert_eq!(
            error.to_string(),
            r#"unknown architecture "i386", known: amd64, arm64, riscv64"#
        );
    }

    #[test]
    fn boards_exist_with_arm64_only() {
        assert_eq!(Model::Generic.required_arch(), None);
        assert!(
            Model::all()
                .skip(1)
                .all(|model| model.required_arch() == Some(Arch::Arm64))
        );
    }
}
