//! The programs of Kubernetes distributions, downloaded from their releases, verified, and kept for later runs.
//!
//! A program is accepted by the checksums file of the same release, which must come from its owner: over TLS, or from this machine.

use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::distribution::Distribution;
use crate::distro::Arch;
use crate::framework::cache::{Kept, Slot};
use crate::framework::http::{self, Client};
use crate::framework::published::Expected;
use crate::framework::{self, FrameworkError, HttpError, Verified, published};

/// Environment variable that replaces `https://github.com` in the releases' URLs; without it
/// [`framework::MIRROR_ENV`] does.
pub const MIRROR_ENV: &str = "KFACTORY_PROVIDER_MIRROR";

/// Most bytes of a program; those of today have up to 300 MiB.
const MAX_PROGRAM_BYTES: u64 = 2 << 30;
/// Downloads at a time.
const PARALLEL: usize = 2;

/// The program of one distribution, ready to be copied into an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The distribution it is of.
    pub distribution: &'static Distribution,
    /// Its release, with its `v`.
    pub version: String,
    /// The file on this machine. It lies in the cache, so it is to be read, never moved or changed.
    pub source: PathBuf,
    /// SHA-256 of its content, lower-case hex.
    pub sha256: String,
}

/// Something that happened during [`fetch`]. For progress output only.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A download begins.
    Downloading {
        /// The distribution.
        name: &'a str,
        /// Where from, without credentials.
        url: &'a str,
    },
    /// A program was downloaded and has its published checksum.
    Ready {
        /// The distribution.
        name: &'a str,
        /// Its release.
        version: &'a str,
    },
}

/// Everything [`fetch`] needs to know beside what to fetch.
#[derive(Clone)]
pub struct Context<'a> {
    /// The architecture of the image.
    pub arch: Arch,
    /// Where programs are kept. Created when missing. Several processes may share it.
    pub cache_dir: PathBuf,
    /// Replaces `https://github.com`. See [`MIRROR_ENV`].
    pub mirror: Option<String>,
    /// Open no socket: what is not in the cache is an error.
    pub offline: bool,
    /// Called for each [`Event`], from any thread.
    pub progress: &'a (dyn Fn(Event<'_>) + Sync),
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("arch", &self.arch)
            .field("cache_dir", &self.cache_dir)
            .field("mirror", &self.mirror.as_deref().map(http::redact))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Returns a context that is online and silent; the mirror comes from the environment.
    pub fn new(arch: Arch, cache_dir: impl Into<PathBuf>) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            arch,
            cache_dir: cache_dir.into(),
            mirror: variable(MIRROR_ENV).or_else(|| variable(framework::MIRROR_ENV)),
            offline: false,
            progress: &|_| {},
        }
    }

    fn base(&self) -> &str {
        self.mirror.as_deref().unwrap_or(framework::GITHUB)
    }
}

/// Why a program could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The distribution is not made for the architecture.
    #[error("{name} has no releases for {arch}")]
    NoRelease {
        /// The distribution.
        name: &'static str,
        /// The architecture of the image.
        arch: Arch,
    },
    /// It could not be downloaded, verified or kept.
    #[error("getting {name} from its release")]
    Fetch {
        /// The distribution.
        name: &'static str,
        /// Why not.
        source: FrameworkError,
    },
}

impl ProviderError {
    /// Returns what the user can try, one command, setting or value per line. Often empty.
    pub fn hints(&self) -> Vec<String> {
        let Self::Fetch { name, source } = self else {
            return vec!["the other distributions may have: `--provider k0s`".into()];
        };
        match source {
            FrameworkError::Http(HttpError::Status { status: 404, .. })
            | FrameworkError::NotListed { .. } => vec![
                format!("is there such a release? `--provider-{name}-version` chooses another"),
                format!("a mirror in `{MIRROR_ENV}` must have the same paths as github.com"),
            ],
            FrameworkError::Http(_) => vec![
                format!("`{MIRROR_ENV}=https://mirror.example` takes the releases from a mirror"),
                "what was downloaded once is kept in the store".into(),
            ],
            FrameworkError::Unverifiable { .. } => {
                vec!["a mirror must be reached over TLS, or be on this machine".into()]
            }
            FrameworkError::Checksum { .. } => {
                vec!["the release or its mirror is damaged, or somebody changed it; nothing of it was used".into()]
            }
            FrameworkError::Offline { .. } => {
                vec!["run the same command once with the network".into()]
            }
            _ => Vec::new(),
        }
    }
}

/// One program of one release.
#[derive(Debug)]
struct Wanted {
    distribution: &'static Distribution,
    version: String,
    asset: String,
}

impl Wanted {
    fn new(
        distribution: &'static Distribution,
        version: &str,
        arch: Arch,
    ) -> Result<Self, ProviderError> {
        let asset = distribution
            .asset(version, arch)
            .ok_or(ProviderError::NoRelease {
                name: distribution.name,
                arch,
            })?;
        Ok(Self {
            distribution,
            version: version.to_owned(),
            asset,
        })
    }

    /// Returns the place of a file of the release. A plus sign is spelled out: some servers take a bare one for a blank.
    fn url(&self, base: &str, file: &str) -> String {
        let (base, repository) = (base.trim_end_matches('/'), self.distribution.repository);
        let path = format!("{repository}/releases/download/{}/{file}", self.version);
        format!("{base}/{}", path.replace('+', "%2B"))
    }

    fn slot(&self, ctx: &Context<'_>) -> Slot {
        let key = format!("{}-{}-{}", self.distribution.name, self.version, ctx.arch);
        Slot::new(&ctx.cache_dir, "release", &key)
    }

    fn program(&self, kept: Kept) -> Program {
        Program {
            distribution: self.distribution,
            version: self.version.clone(),
            source: kept.path,
            sha256: kept.sha256,
        }
    }

    fn failed(&self, source: FrameworkError) -> ProviderError {
        ProviderError::Fetch {
            name: self.distribution.name,
            source,
        }
    }
}

/// Returns where [`fetch`] would find a program if no mirror is named, without asking anybody.
///
/// # Errors
///
/// [`ProviderError::NoRelease`].
pub fn url(
    distribution: &'static Distribution,
    version: &str,
    arch: Arch,
) -> Result<String, ProviderError> {
    let wanted = Wanted::new(distribution, version, arch)?;
    Ok(wanted.url(framework::GITHUB, &wanted.asset))
}

/// Gets the program of each distribution in the version beside it, in this order.
///
/// Blocks; may be called from inside an async runtime's blocking thread. What was downloaded before is taken from the cache after
/// its checksum was compared. On error the cache holds what was whole by then, nothing else.
///
/// # Errors
///
/// [`ProviderError`], with advice in [`ProviderError::hints`].
pub fn fetch(
    wanted: &[(&'static Distribution, String)],
    ctx: &Context<'_>,
) -> Result<Vec<Program>, ProviderError> {
    let wanted: Vec<Wanted> = wanted
        .iter()
        .map(|(distribution, version)| Wanted::new(distribution, version, ctx.arch))
        .collect::<Result<_, _>>()?;
    let kept: Vec<Option<Program>> = wanted
        .iter()
        .map(|it| it.slot(ctx).kept_opt(None).map(|kept| it.program(kept)))
        .collect();
    let missing: Vec<&Wanted> = wanted
        .iter()
        .zip(&kept)
        .filter(|(_, kept)| kept.is_none())
        .map(|(wanted, _)| wanted)
        .collect();
    let mut fetched = download(&missing, ctx)?.into_iter();
    Ok(kept
        .into_iter()
        .filter_map(|kept| kept.or_else(|| fetched.next()))
        .collect())
}

fn download(missing: &[&Wanted], ctx: &Context<'_>) -> Result<Vec<Program>, ProviderError> {
    let Some(first) = missing.first() else {
        return Ok(Vec::new());
    };
    if ctx.offline {
        return Err(first.failed(FrameworkError::Offline {
            component: first.distribution.name,
            version: first.version.clone(),
            arch: ctx.arch,
        }));
    }
    let downloads = || async {
        let downloads = missing.iter().map(|wanted| async {
            let kept = download_one(wanted, ctx).await;
            kept.map(|kept| wanted.program(kept))
                .map_err(|error| wanted.failed(error))
        });
        stream::iter(downloads)
            .buffered(PARALLEL)
            .try_collect()
            .await
    };
    published::on_own_thread(&ctx.cache_dir, downloads).map_err(|error| first.failed(error))?
}

async fn download_one(wanted: &Wanted, ctx: &Context<'_>) -> Result<Kept, FrameworkError> {
    let (name, slot) = (wanted.distribution.name, wanted.slot(ctx));
    let client = Client::new(ctx.base())?;
    let workshop = slot.workshop()?;
    // Before the program: without a checksum it is not worth fetching.
    let checksums = wanted.url(ctx.base(), &wanted.distribution.checksums(ctx.arch));
    let unverifiable = |reason| FrameworkError::Unverifiable {
        component: name,
        version: wanted.version.clone(),
        reason,
    };
    let sha256 = published::checksum(&client, &checksums, &wanted.asset, unverifiable).await?;
    let expected = Expected {
        sha256: sha256.clone(),
        origin: http::redact(&checksums),
    };
    let url = wanted.url(ctx.base(), &wanted.asset);
    let shown = http::redact(&url);
    let path = workshop.path().join("downloaded");
    let progress = |received: Option<(u64, Option<u64>)>| {
        if received.is_none() {
            (ctx.progress)(Event::Downloading { name, url: &shown });
        }
    };
    let limit = MAX_PROGRAM_BYTES;
    published::download_verified(&client, &url, limit, &path, expected, &progress).await?;
    framework::check_program(&path, ctx.arch)?;
    let kept = slot.keep(workshop, &path, Verified::PublishedChecksums, &sha256)?;
    (ctx.progress)(Event::Ready {
        name,
        version: &wanted.version,
    });
    Ok(kept)
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
