//! The Kairos framework: the programs that make an image a Kairos image, and where they come from.
//!
//! Reading order: `component` says which programs there are and where each goes, `spec` what a user may ask for,
//! `pins` which versions and checksums we ship. Then one file per source: `release` (upstream's archives),
//! `gobuild` (built from Go modules), `tree` (a directory or archive that holds them already). `cache` keeps what
//! was downloaded or built; `published`, `http`, `archive` and `elf` are their tools; the first two serve
//! [`crate::provider`] as well.
//!
//! This module must not know how images are stored or pulled: an image source is unpacked by the caller through
//! [`UnpackImage`]. It never writes into a rootfs either; it only says which file belongs where.
//!
//! Nothing that was downloaded is used unverified: there is a pin, or a checksum that upstream published over an
//! authenticated connection, or an error.

mod archive;
pub(crate) mod cache;
mod component;
pub(crate) mod elf;
mod error;
mod gobuild;
pub(crate) mod http;
mod pins;
pub(crate) mod published;
mod release;
mod spec;
#[cfg(test)]
pub(crate) mod stub;
mod tree;

use std::path::{Path, PathBuf};

pub use archive::ArchiveError;
pub(crate) use cache::hex;
pub use component::{Arch, COMPONENTS, Component, Variant};
pub use error::{BoxError, FrameworkError};
pub use http::HttpError;
pub(crate) use release::{GITHUB, MAX_PROGRAM_BYTES};
pub use spec::{Choice, FrameworkSpec, Versions};
pub(crate) use tree::check_program;
pub use tree::{MANIFEST, from_dir};

/// Environment variable that replaces `https://github.com` in release URLs, for mirrors and tests.
pub const MIRROR_ENV: &str = "KFACTORY_FRAMEWORK_MIRROR";

/// Returns every component's name and the version that is taken where no other is asked for.
pub fn default_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    COMPONENTS
        .iter()
        .map(|component| (component.name, pins::version(component.name)))
}

/// One program of the framework, ready to be copied into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameworkFile {
    /// Absolute path in the image.
    pub target: PathBuf,
    /// Permission bits in the image; the owner is root.
    pub mode: u32,
    /// The file on this machine. It may lie in the cache, so it is to be read, never moved or changed.
    pub source: PathBuf,
    /// Name of the [`Component`] it is, or of the file when it is none of the known ones.
    pub component: String,
    /// The upstream version with its `v`; `None` when a directory did not say.
    pub version: Option<String>,
    /// SHA-256 of the content, lower-case hex. A copy is right only if its bytes still have it.
    pub sha256: String,
    /// Length of the content in bytes.
    pub size_bytes: u64,
    /// What vouches for the content.
    pub verified: Verified,
}

/// What vouches for the content of a [`FrameworkFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// A checksum that ships with kfactory.
    Pin,
    /// The checksums file of the same release, fetched from upstream.
    PublishedChecksums,
    /// The Go checksum database, asked by the Go tool.
    GoChecksumDatabase,
    /// The manifest that lay beside the file.
    Manifest,
    /// Nothing: the user gave the file.
    Given,
}

/// The programs to put into one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framework {
    /// The files, sorted by target.
    pub files: Vec<FrameworkFile>,
    /// The architecture they run on.
    pub arch: Arch,
    /// Whether FIPS builds were asked for. Only components with a FIPS build differ.
    pub fips: bool,
}

impl Framework {
    /// Returns the components that an image of `variant` should have and this framework does not.
    ///
    /// Never a required one: without those no framework is made. An image without the others boots, but cannot do
    /// what they are for ([`Component::loss`]), so a caller should say so.
    pub fn absent(&self, variant: Variant) -> Vec<&'static Component> {
        absent(variant, |component| self.has(component)).collect()
    }

    fn has(&self, component: &Component) -> bool {
        self.files.iter().any(|f| f.component == component.name)
    }

    /// Copies the files into the directory `root`, laid out as in an image, with [`MANIFEST`] beside them.
    ///
    /// The result is what `--framework dir:ROOT` reads, and as the single layer of an image what a framework image is.
    /// Directories are created 0755. Existing files are replaced.
    ///
    /// # Errors
    ///
    /// [`FrameworkError::Changed`] when a source no longer has its checksum; [`FrameworkError::Io`].
    pub fn write_tree(&self, root: &Path) -> Result<(), FrameworkError> {
        tree::write(self, root)
    }
}

/// Unpacks an image so that the programs in it can be read. Implemented by whoever knows registries and layouts.
pub trait UnpackImage: Sync {
    /// Returns a directory with the files of the image `reference` for `arch`.
    ///
    /// `reference` is what the user wrote: a registry reference, `oci:DIR[:TAG]` or any other image source. The
    /// directory must outlive the [`Framework`] made from it.
    ///
    /// # Errors
    ///
    /// Whatever keeps the image from being read; it becomes the source of [`FrameworkError::Image`].
    fn unpack(&self, reference: &str, arch: Arch) -> Result<PathBuf, BoxError>;
}

/// Something that happened while a framework was resolved. For progress output only.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The component was there from an earlier run.
    Cached {
        /// The component's name.
        name: &'a str,
        /// Its version.
        version: &'a str,
    },
    /// A download of the component begins.
    Downloading {
        /// The component's name.
        name: &'a str,
        /// Where from, without credentials.
        url: &'a str,
    },
    /// Bytes of the component arrived.
    Received {
        /// The component's name.
        name: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, if the server said.
        total_bytes: Option<u64>,
    },
    /// The Go tool starts to fetch and build the component.
    Building {
        /// The component's name.
        name: &'a str,
        /// Its version.
        version: &'a str,
    },
    /// The component is ready.
    Ready {
        /// The component's name.
        name: &'a str,
        /// Its version.
        version: &'a str,
        /// What vouches for it.
        verified: Verified,
    },
}

/// Everything [`resolve`] needs to know beside the spec.
pub struct FrameworkContext<'a> {
    /// The architecture of the image.
    pub arch: Arch,
    /// Which components the image needs.
    pub variant: Variant,
    /// Whether to take FIPS builds where there are any.
    pub fips: bool,
    /// Open no socket: what is not in the cache is an error.
    pub offline: bool,
    /// Where downloads and builds are kept. Created when missing. Several processes may share it.
    pub cache_dir: PathBuf,
    /// Replaces `https://github.com` in release URLs. See [`MIRROR_ENV`].
    pub mirror: Option<String>,
    /// The Go tool; `None` looks in `PATH` and in its usual places.
    pub go: Option<PathBuf>,
    /// Reads image sources; without it they are refused.
    pub images: Option<&'a dyn UnpackImage>,
    /// Called for each [`Event`], from any thread.
    pub progress: &'a (dyn Fn(Event<'_>) + Sync),
}

impl std::fmt::Debug for FrameworkContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameworkContext")
            .field("arch", &self.arch)
            .field("variant", &self.variant)
            .field("fips", &self.fips)
            .field("offline", &self.offline)
            .field("cache_dir", &self.cache_dir)
            .field("mirror", &self.mirror.as_deref().map(http::redact))
            .field("go", &self.go)
            .finish_non_exhaustive()
    }
}

impl FrameworkContext<'_> {
    /// Returns a context for a core image without FIPS, online, silent; the mirror comes from [`MIRROR_ENV`].
    pub fn new(arch: Arch, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            arch,
            variant: Variant::Core,
            fips: false,
            offline: false,
            cache_dir: cache_dir.into(),
            mirror: std::env::var(MIRROR_ENV).ok().filter(|v| !v.is_empty()),
            go: None,
            images: None,
            progress: &|_| {},
        }
    }
}

/// Gets the programs that `spec` names and returns where each goes.
///
/// Blocks; may be called from inside an async runtime's blocking thread. What was downloaded or built before is taken
/// from the cache after its checksum was compared. On error the cache holds what was whole by then, nothing else.
///
/// # Errors
///
/// [`FrameworkError`], with advice in [`FrameworkError::hints`].
pub fn resolve(
    spec: &FrameworkSpec,
    ctx: &FrameworkContext<'_>,
) -> Result<Framework, FrameworkError> {
    match spec {
        FrameworkSpec::Release(versions) => release::resolve(versions, ctx),
        FrameworkSpec::Go(versions) => gobuild::resolve(versions, ctx),
        FrameworkSpec::Dir(path) => from_dir(path, ctx),
        FrameworkSpec::Tar(path) => tree::from_tar(path, ctx),
        FrameworkSpec::Image(reference) => from_image(reference, ctx),
    }
}

/// Returns what [`resolve`] would fetch for an image of `variant` on `arch` if nothing were cached: URLs of archives, or modules
/// with their versions. Pure; empty for what lies on this machine or in an image.
pub fn downloads(spec: &FrameworkSpec, arch: Arch, variant: Variant, fips: bool) -> Vec<String> {
    match spec {
        FrameworkSpec::Release(versions) => release::urls(versions, arch, variant, fips),
        FrameworkSpec::Go(versions) => gobuild::modules(versions, variant),
        FrameworkSpec::Dir(_) | FrameworkSpec::Tar(_) | FrameworkSpec::Image(_) => Vec::new(),
    }
}

fn from_image(reference: &str, ctx: &FrameworkContext<'_>) -> Result<Framework, FrameworkError> {
    let images = ctx.images.ok_or_else(|| FrameworkError::NoImageReader {
        reference: reference.into(),
    })?;
    let root = images
        .unpack(reference, ctx.arch)
        .map_err(|source| FrameworkError::Image {
            reference: reference.into(),
            source,
        })?;
    from_dir(&root, ctx)
}

/// Returns the components of `variant` that `origin`, of which `has` tells, does not have; see [`Framework::absent`].
///
/// # Errors
///
/// [`FrameworkError::Missing`], for the first that no image can do without.
pub fn absent_from(
    variant: Variant,
    origin: &str,
    has: impl Fn(&Component) -> bool,
) -> Result<Vec<&'static Component>, FrameworkError> {
    let absent: Vec<_> = absent(variant, has).collect();
    match absent.iter().find(|component| component.required) {
        None => Ok(absent),
        Some(component) => Err(FrameworkError::Missing {
            origin: origin.into(),
            target: component.target,
        }),
    }
}

fn absent(
    variant: Variant,
    has: impl Fn(&Component) -> bool,
) -> impl Iterator<Item = &'static Component> {
    component::of_variant(variant).filter(move |component| !has(component))
}

/// Makes the framework of one image from its files: sorted, and complete in what every image needs.
fn assemble(
    mut files: Vec<FrameworkFile>,
    origin: &str,
    ctx: &FrameworkContext<'_>,
) -> Result<Framework, FrameworkError> {
    files.sort_by(|a, b| a.target.cmp(&b.target));
    let framework = Framework {
        files,
        arch: ctx.arch,
        fips: ctx.fips,
    };
    absent_from(ctx.variant, origin, |component| framework.has(component))?;
    Ok(framework)
}
