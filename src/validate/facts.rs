//! What an image says it is, which decides what rules are meant for it.

use std::collections::BTreeMap;

use super::Scope;
use crate::distro::os_release::OsRelease;
use crate::distro::{Arch, Distro, DistroId, Family, Model};
use crate::error::Result;
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;

/// Where os-release may be; the first is usually a link to the second.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// What starts the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC.
    Openrc,
    /// Neither, or none.
    Other,
}

/// What an image is, as far as it says.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The architecture: that of the image's config, else the one in `/etc/kairos-release`.
    pub arch: Option<Arch>,
    /// The distribution it is treated as.
    pub distro: Option<DistroId>,
    /// Its family.
    pub family: Option<Family>,
    /// What starts the services.
    pub init: Init,
    /// The board, as the image or the caller names it.
    pub model: String,
    /// Whether it has a Kubernetes provider.
    pub standard: bool,
    /// Whether it is for Trusted Boot.
    pub trusted: bool,
    /// Whether it is a FIPS image.
    pub fips: bool,
    /// The version of the kernel it boots; filled in by [`super::Subject::new`].
    pub kernel: Option<String>,
    /// The text of `/etc/kairos-release`.
    pub release_text: Option<String>,
    /// Its keys; empty where it is missing or cannot be read.
    pub release: BTreeMap<String, String>,
}

impl Facts {
    pub(super) fn read(tree: &Tree, scope: &Scope) -> Result<Self> {
        let release_text = tree.text(RELEASE_PATH)?;
        let release = release_text
            .as_deref()
            .and_then(|text| dotenv::parse(text).ok())
            .unwrap_or_default();
        let value = |key: &str| release.get(key).map(String::as_str).unwrap_or_default();
        let distro = distro(tree)?;
        let family = distro.as_ref().map(|distro| distro.family);
        let stated_family = [
            Family::Debian,
            Family::Redhat,
            Family::Suse,
            Family::Alpine,
            Family::Arch,
            Family::Hadron,
        ]
        .into_iter()
        .find(|family| family.as_str() == value("KAIROS_FAMILY"));
        let model = match (scope.model, value("KAIROS_MODEL")) {
            (Some(model), _) => model.to_string(),
            (None, "") => Model::Generic.to_string(),
            (None, model) => model.to_owned(),
        };
        Ok(Self {
            arch: scope.arch.or_else(|| value("KAIROS_ARCH").parse().ok()),
            distro: distro.map(|distro| distro.base),
            family: family.or(stated_family),
            init: init(tree),
            model,
            standard: value("KAIROS_VARIANT") == "standard",
            trusted: scope
                .trusted
                .unwrap_or(value("KAIROS_TRUSTED_BOOT") == "true"),
            fips: value("KAIROS_FIPS") == "true",
            kernel: None,
            release,
            release_text,
        })
    }

    /// Returns the board, where it is a known one.
    pub fn known_model(&self) -> Option<Model> {
        self.model.parse().ok()
    }

    /// Returns whether the boot loader is GRUB and the initrd a file of its own.
    pub fn has_grub(&self) -> bool {
        !self.trusted
    }

    /// Returns whether dracut makes the initrd.
    pub fn has_dracut(&self) -> bool {
        !self.trusted && self.family != Some(Family::Alpine)
    }

    /// Returns whether systemd starts the services.
    pub fn has_systemd(&self) -> bool {
        self.init == Init::Systemd
    }
}

fn distro(tree: &Tree) -> Result<Option<Distro>> {
    for path in OS_RELEASE {
        if let Some(text) = tree.text(path)? {
            return Ok(Distro::detect(&OsRelease::parse(&text)).ok());
        }
    }
    Ok(None)
}

fn init(tree: &Tree) -> Init {
    if tree.has("usr/lib/systemd/systemd") || tree.has("lib/systemd/systemd") {
        Init::Systemd
    } else if tree.has("sbin/openrc") || tree.has("usr/sbin/openrc") {
        Init::Openrc
    } else {
        Init::Other
    }
}
