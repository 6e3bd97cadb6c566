//! A framework that lies in a directory or an archive, laid out as in an image; and writing one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::archive::{self, ArchiveError};
use super::cache::{self, Fingerprint, Kept, Slot};
use super::component::{Arch, COMPONENTS, Component};
use super::elf::Kind;
use super::{Framework, FrameworkContext, FrameworkError, FrameworkFile, Verified};

/// Name of the file at the root of a framework that tells versions and checksums. Optional when read.
pub const MANIFEST: &str = "kfactory-framework.json";

/// Where users put an installer of their own; it takes precedence over the default one at run time.
const INSTALLER_OVERRIDE: &str = "/system/installer/installer";

/// Mode of every program.
const MODE: u32 = 0o755;
/// Most bytes of a manifest; ours have about 2 KiB.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The content of [`MANIFEST`].
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    arch: String,
    fips: bool,
    files: Vec<ManifestFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ManifestFile {
    path: String,
    component: String,
    version: Option<String>,
    sha256: String,
}

/// Reads the framework in the directory `root`, which is laid out as in an image.
///
/// Only the known places are looked at, so the root filesystem of a whole image will do. Symbolic links are followed
/// inside `root`. Where [`MANIFEST`] lies at the top, every file must have the checksum it gives.
///
/// # Errors
///
/// - [`FrameworkError::Missing`]: a program that every image needs is not there.
/// - [`FrameworkError::WrongArch`], [`FrameworkError::NotAProgram`]: a file is not what its name says.
/// - [`FrameworkError::Manifest`]: the manifest is not of these files.
/// - [`FrameworkError::Io`]: `root` cannot be read.
pub fn from_dir(root: &Path, ctx: &FrameworkContext<'_>) -> Result<Framework, FrameworkError> {
    let dir = File::open(root).map_err(FrameworkError::io("opening", root))?;
    let manifest = read_manifest(&dir, root)?;
    if let Some(manifest) = &manifest {
        check_manifest(manifest, root, ctx)?;
    }
    let mut files = Vec::new();
    for (name, target) in places() {
        let shown = root.join(&target[1..]);
        let Some(file) = open_in(&dir, target).map_err(FrameworkError::io("opening", &shown))?
        else {
            continue;
        };
        let file = read_program(file, &shown, name, target, ctx.arch)?;
        files.push(match &manifest {
            Some(manifest) => vouched_for(file, manifest, root)?,
            None => file,
        });
    }
    super::assemble(files, &format!("`{}`", root.display()), ctx)
}

/// Reads the framework in the archive at `path`. The programs are unpacked into the cache.
pub(super) fn from_tar(
    path: &Path,
    ctx: &FrameworkContext<'_>,
) -> Result<Framework, FrameworkError> {
    let failed = |source| FrameworkError::Archive {
        path: path.into(),
        source,
    };
    let archive = cache::fingerprint(path).map_err(FrameworkError::io("reading", path))?;
    let slot = Slot::new(&ctx.cache_dir, "tar", &archive.sha256);
    if !slot.dir().is_dir() {
        let workshop = slot.workshop()?;
        let staged = workshop.path().join("tree");
        fs::create_dir(&staged).map_err(FrameworkError::io("creating", &staged))?;
        let content = archive::open(path).map_err(|e| failed(e.into()))?;
        archive::for_each_file(content, is_place, |entry, content| {
            unpack(&staged, entry, content)
        })
        .map_err(failed)?;
        slot.replace(&staged)?;
    }
    from_dir(slot.dir(), ctx)
}

/// Names the components with their places, and what else a framework may hold.
fn places() -> impl Iterator<Item = (&'static str, &'static str)> {
    COMPONENTS
        .iter()
        .map(|c| (c.name, c.target))
        .chain([("installer", INSTALLER_OVERRIDE)])
}

fn is_place(entry: &[u8]) -> bool {
    entry == MANIFEST.as_bytes() || places().any(|(_, target)| &target.as_bytes()[1..] == entry)
}

/// Writes one archive entry, whose path [`is_place`] knows, below `staged`.
fn unpack(staged: &Path, entry: &[u8], content: &mut dyn Read) -> Result<(), ArchiveError> {
    let path = staged.join(String::from_utf8_lossy(entry).as_ref());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    io::copy(content, &mut File::create(path)?)?;
    Ok(())
}

/// Opens `target` below `dir`; no link leads out. Returns `None` where there is nothing.
fn open_in(dir: &File, target: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(dir, target, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(file.into())),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn read_program(
    mut file: File,
    shown: &Path,
    name: &str,
    target: &str,
    arch: Arch,
) -> Result<FrameworkFile, FrameworkError> {
    let reading = || FrameworkError::io("reading", shown);
    if !file.metadata().map_err(reading())?.is_file() {
        return Err(FrameworkError::NotAProgram {
            path: shown.into(),
            what: "no regular file",
        });
    }
    let found = cache::copy_with_fingerprint(&mut file, &mut io::sink()).map_err(reading())?;
    refuse(&found, shown, arch)?;
    Ok(FrameworkFile {
        target: target.into(),
        mode: MODE,
        source: real_path(&file).map_err(reading())?,
        component: name.into(),
        version: None,
        sha256: found.sha256,
        size_bytes: found.size_bytes,
        verified: Verified::Given,
    })
}

/// Returns the path of an open file, behind all links.
fn real_path(file: &File) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Refuses what cannot run on `arch`. Scripts pass: an installer may be one.
fn refuse(found: &Fingerprint, shown: &Path, arch: Arch) -> Result<(), FrameworkError> {
    let wrong = |found: String| {
        Err(FrameworkError::WrongArch {
            path: shown.into(),
            found,
            expected: arch,
        })
    };
    match found.kind {
        _ if found.size_bytes == 0 => Err(FrameworkError::NotAProgram {
            path: shown.into(),
            what: "empty",
        }),
        Kind::Elf(other) if other != arch => wrong(other.to_string()),
        Kind::OtherElf(machine) => wrong(format!("ELF machine {machine}")),
        Kind::Elf(_) | Kind::Other => Ok(()),
    }
}

/// Checks that the file at `path` can be a program for `arch`.
pub(crate) fn check_program(path: &Path, arch: Arch) -> Result<(), FrameworkError> {
    let found = cache::fingerprint(path).map_err(FrameworkError::io("reading", path))?;
    refuse(&found, path, arch)
}

/// Describes a program from the cache as a file of the image.
pub(super) fn file_of(component: &Component, version: &str, kept: Kept) -> FrameworkFile {
    FrameworkFile {
        target: component.target.into(),
        mode: MODE,
        source: kept.path,
        component: component.name.into(),
        version: Some(version.into()),
        sha256: kept.sha256,
        size_bytes: kept.size_bytes,
        verified: kept.verified,
    }
}

fn read_manifest(dir: &File, root: &Path) -> Result<Option<Manifest>, FrameworkError> {
    let path = root.join(MANIFEST);
    let Some(file) = open_in(dir, MANIFEST).map_err(FrameworkError::io("opening", &path))? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    file.take(MAX_MANIFEST_BYTES)
        .read_to_end(&mut text)
        .map_err(FrameworkError::io("reading", &path))?;
    match serde_json::from_slice(&text) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(e) => Err(FrameworkError::Manifest {
            path,
            reason: e.to_string(),
        }),
    }
}

/// Checks that the manifest is of programs for this image.
fn check_manifest(
    manifest: &Manifest,
    root: &Path,
    ctx: &FrameworkContext<'_>,
) -> Result<(), FrameworkError> {
    let reason = if manifest.arch != ctx.arch.as_str() {
        format!(
            "it is for {:?}, but the image is for {}",
            manifest.arch, ctx.arch
        )
    } else if ctx.fips && !manifest.fips {
        "its programs are no FIPS builds, but the image is to have those".into()
    } else {
        return Ok(());
    };
    Err(FrameworkError::Manifest {
        path: root.join(MANIFEST),
        reason,
    })
}

/// Gives `file` the version that the manifest tells, if its checksum is the manifest's.
fn vouched_for(
    mut file: FrameworkFile,
    manifest: &Manifest,
    root: &Path,
) -> Result<FrameworkFile, FrameworkError> {
    let wrong = |reason| FrameworkError::Manifest {
        path: root.join(MANIFEST),
        reason,
    };
    let line = manifest
        .files
        .iter()
        .find(|line| Path::new(&line.path) == file.target)
        .ok_or_else(|| wrong(format!("it does not list {}", file.target.display())))?;
    if line.sha256 != file.sha256 {
        let (target, expected, found) = (file.target.display(), &line.sha256, &file.sha256);
        return Err(wrong(format!(
            "{target} should have sha256 {expected:?}, but has {found}"
        )));
    }
    file.version.clone_from(&line.version);
    file.verified = Verified::Manifest;
    Ok(file)
}

/// Writes the files of `framework` and its manifest below `root`.
pub(super) fn write(framework: &Framework, root: &Path) -> Result<(), FrameworkError> {
    for file in &framework.files {
        let target = file.target.strip_prefix("/").unwrap_or(&file.target);
        let to = root.join(target);
        let parent = to.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(FrameworkError::io("creating", parent))?;
        copy_program(file, &to)?;
    }
    let path = root.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(&manifest_of(framework))
        .map_err(io::Error::from)
        .map_err(FrameworkError::io("writing", &path))?;
    text.push(b'\n');
    fs::write(&path, text).map_err(FrameworkError::io("writing", &path))
}

fn copy_program(file: &FrameworkFile, to: &Path) -> Result<(), FrameworkError> {
    let reading = FrameworkError::io("opening", &file.source);
    let mut from = File::open(&file.source).map_err(reading)?;
    let new = to.with_extension("new");
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(&new)
        .map_err(FrameworkError::io("creating", &new))?;
    let found = cache::copy_with_fingerprint(&mut from, &mut out)
        .map_err(FrameworkError::io("copying", &file.source))?;
    if found.sha256 != file.sha256 {
        // Nothing is lost when it stays: the next write replaces it.
        let _ = fs::remove_file(&new);
        let (path, expected) = (file.source.clone(), file.sha256.clone());
        return Err(FrameworkError::Changed {
            path,
            expected,
            found: found.sha256,
        });
    }
    // The umask may have taken bits.
    out.set_permissions(fs::Permissions::from_mode(file.mode))
        .map_err(FrameworkError::io("setting the mode of", &new))?;
    fs::rename(&new, to).map_err(FrameworkError::io("moving a program to", to))
}

fn manifest_of(framework: &Framework) -> Manifest {
    let files = framework.files.iter().map(|file| ManifestFile {
        path: file.target.display().to_string(),
        component: file.component.clone(),
        version: file.version.clone(),
        sha256: file.sha256.clone(),
    });
    Manifest {
        arch: framework.arch.to_string(),
        fips: framework.fips,
        files: files.collect(),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
