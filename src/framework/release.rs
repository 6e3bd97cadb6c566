//! The framework from upstream's release archives.
//!
//! An archive is accepted by a pin of ours, or else by the checksums file of the same release, which must come from
//! its owner: over TLS, or from this machine.

use std::io::Read;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::archive::{self, ArchiveError};
use super::cache::{Kept, Slot};
use super::component::{self, Arch, Component, Variant};
use super::http::{self, Client};
use super::published::Expected;
use super::spec::{Choice, Versions};
use super::{
    Event, Framework, FrameworkContext, FrameworkError, FrameworkFile, Verified, pins, published,
    tree,
};

/// Where the releases are unless a mirror is named.
pub(crate) const GITHUB: &str = "https://github.com";
/// Most bytes of an archive; the largest are about 30 MiB.
const MAX_ARCHIVE_BYTES: u64 = 512 << 20;
/// Most bytes of one program, so that an archive cannot fill the disk; the largest are about 100 MiB.
pub(crate) const MAX_PROGRAM_BYTES: u64 = 512 << 20;
/// Downloads at a time.
const PARALLEL: usize = 4;

/// One program of one release.
#[derive(Debug)]
struct Wanted {
    component: &'static Component,
    version: String,
    arch: Arch,
    fips: bool,
}

impl Wanted {
    /// Returns the archive's name. Upstream capitalises the system and, in edgevpn, has its own name for amd64.
    fn archive_name(&self) -> String {
        let arch = if self.arch == Arch::Amd64 {
            self.component.amd64
        } else {
            self.arch.as_str()
        };
        let fips = if self.fips { "-fips" } else { "" };
        format!(
            "{}-{}-Linux-{arch}{fips}.tar.gz",
            self.component.name, self.version
        )
    }

    fn checksums_name(&self) -> String {
        format!("{}-{}-checksums.txt", self.component.name, self.version)
    }

    fn url(&self, base: &str, file: &str) -> String {
        let Component { owner, name, .. } = self.component;
        format!(
            "{}/{owner}/{name}/releases/download/{}/{file}",
            base.trim_end_matches('/'),
            self.version
        )
    }

    fn pin_opt(&self) -> Option<&'static str> {
        pins::archive_sha256_opt(self.component.name, &self.version, self.arch, self.fips)
    }

    fn slot(&self, cache_dir: &Path) -> Slot {
        let fips = if self.fips { "-fips" } else { "" };
        Slot::new(
            cache_dir,
            "release",
            &format!(
                "{}-{}-{}{fips}",
                self.component.name, self.version, self.arch
            ),
        )
    }
}

/// Gets every component of the image's variant from its release.
pub(super) fn resolve(
    versions: &Versions,
    ctx: &FrameworkContext<'_>,
) -> Result<Framework, FrameworkError> {
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    for wanted in wanted(versions, ctx)? {
        match wanted.slot(&ctx.cache_dir).kept_opt(wanted.pin_opt()) {
            Some(kept) => {
                (ctx.progress)(Event::Cached {
                    name: wanted.component.name,
                    version: &wanted.version,
                });
                files.push(file(&wanted, kept));
            }
            None => missing.push(wanted),
        }
    }
    if !missing.is_empty() {
        files.extend(download(missing, ctx)?);
    }
    super::assemble(files, "the release", ctx)
}

/// Returns the archives' places, without asking anybody.
pub(super) fn urls(versions: &Versions, arch: Arch, variant: Variant, fips: bool) -> Vec<String> {
    component::of_variant(variant)
        .filter_map(|component| match versions.choice(component) {
            Choice::Version(version) => Some(Wanted {
                component,
                version,
                arch,
                fips: component.wants_fips(fips),
            }),
            Choice::LeftOut => None,
        })
        .map(|wanted| wanted.url(GITHUB, &wanted.archive_name()))
        .collect()
}

fn wanted(versions: &Versions, ctx: &FrameworkContext<'_>) -> Result<Vec<Wanted>, FrameworkError> {
    if ctx.fips && ctx.arch == Arch::Riscv64 {
        return Err(FrameworkError::NoFips(ctx.arch));
    }
    let chosen = component::of_variant(ctx.variant).filter_map(|component| {
        match versions.choice(component) {
            Choice::Version(version) => Some(Wanted {
                component,
                version,
                arch: ctx.arch,
                fips: component.wants_fips(ctx.fips),
            }),
            Choice::LeftOut => None,
        }
    });
    Ok(chosen.collect())
}

fn file(wanted: &Wanted, kept: Kept) -> FrameworkFile {
    tree::file_of(wanted.component, &wanted.version, kept)
}

fn download(
    missing: Vec<Wanted>,
    ctx: &FrameworkContext<'_>,
) -> Result<Vec<FrameworkFile>, FrameworkError> {
    if let (true, Some(first)) = (ctx.offline, missing.first()) {
        let (component, version) = (first.component.name, first.version.clone());
        return Err(FrameworkError::Offline {
            component,
            version,
            arch: first.arch,
        });
    }
    published::on_own_thread(&ctx.cache_dir, || download_all(missing, ctx))?
}

async fn download_all(
    missing: Vec<Wanted>,
    ctx: &FrameworkContext<'_>,
) -> Result<Vec<FrameworkFile>, FrameworkError> {
    let base = ctx.mirror.as_deref().unwrap_or(GITHUB);
    let client = Client::new(base)?;
    let downloads = missing.iter().map(|wanted| async {
        let kept = download_one(&client, base, wanted, ctx).await?;
        let (name, version) = (wanted.component.name, wanted.version.as_str());
        (ctx.progress)(Event::Ready {
            name,
            version,
            verified: kept.verified,
        });
        Ok(file(wanted, kept))
    });
    stream::iter(downloads)
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await
}

async fn download_one(
    client: &Client,
    base: &str,
    wanted: &Wanted,
    ctx: &FrameworkContext<'_>,
) -> Result<Kept, FrameworkError> {
    let slot = wanted.slot(&ctx.cache_dir);
    let workshop = slot.workshop()?;
    // Before the archive: without a checksum it is not worth fetching.
    let (expected, verified) = expected(client, base, wanted).await?;
    let sha256 = expected.sha256.clone();
    let url = wanted.url(base, &wanted.archive_name());
    let archive = workshop.path().join("archive");
    let (name, shown) = (wanted.component.name, http::redact(&url));
    let progress = |received: Option<(u64, Option<u64>)>| match received {
        None => (ctx.progress)(Event::Downloading { name, url: &shown }),
        Some((bytes, total_bytes)) => (ctx.progress)(Event::Received {
            name,
            bytes,
            total_bytes,
        }),
    };
    let limit = MAX_ARCHIVE_BYTES;
    published::download_verified(client, &url, limit, &archive, expected, &progress).await?;
    let program = workshop.path().join("extracted");
    extract(wanted, &archive, &program)?;
    tree::check_program(&program, wanted.arch)?;
    slot.keep(workshop, &program, verified, &sha256)
}

/// Returns the checksum that the archive must have, and who says so.
async fn expected(
    client: &Client,
    base: &str,
    wanted: &Wanted,
) -> Result<(Expected, Verified), FrameworkError> {
    if let Some(pin) = wanted.pin_opt() {
        let expected = Expected {
            sha256: pin.into(),
            origin: "pinned by kfactory".into(),
        };
        return Ok((expected, Verified::Pin));
    }
    let url = wanted.url(base, &wanted.checksums_name());
    let unverifiable = |why| FrameworkError::Unverifiable {
        component: wanted.component.name,
        version: wanted.version.clone(),
        reason: format!("no checksum is pinned, and {why}"),
    };
    let expected = Expected {
        sha256: published::checksum(client, &url, &wanted.archive_name(), unverifiable).await?,
        origin: http::redact(&url),
    };
    Ok((expected, Verified::PublishedChecksums))
}

/// Writes the program of the archive to `program`: the one file whose name is the component's.
fn extract(wanted: &Wanted, archive: &Path, program: &PathBuf) -> Result<(), FrameworkError> {
    let name = wanted.component.name;
    let failed = |source| FrameworkError::Archive {
        path: wanted.archive_name().into(),
        source,
    };
    let mut found = false;
    archive::for_each_file(
        archive::open(archive).map_err(|e| failed(e.into()))?,
        |path| path.rsplit(|b| *b == b'/').next() == Some(name.as_bytes()),
        |_, content| {
            let mut file = std::fs::File::create(program)?;
            let len = std::io::copy(&mut content.take(MAX_PROGRAM_BYTES), &mut file)?;
            found = len < MAX_PROGRAM_BYTES;
            Ok::<_, ArchiveError>(())
        },
    )
    .map_err(failed)?;
    if found {
        Ok(())
    } else {
        Err(FrameworkError::NotInArchive {
            component: name,
            version: wanted.version.clone(),
        })
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
