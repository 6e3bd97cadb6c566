//! `kfactory inspect`: an image's layers and what makes it a Kairos image, read without unpacking it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::metadata::EntryKind;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;
use kfactory_layers::tar::ArchiveReader;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::changeset::Changeset;
use crate::convert::{self, BaseImage, Engine, Options, STEPS_COMMENT};
use crate::error::{Context as _, Result};
use crate::location::Location;
use crate::plan::Facts;
use crate::progress::{Reporter, bytes_text};
use crate::store::{Access, Store};
use crate::yip::{self, SourceText};

/// A chain of links longer than this is a loop.
const MAX_LINKS: usize = 8;
/// A small text file is read whole; larger ones are not what we look for.
const MAX_TEXT_BYTES: u64 = 1 << 20;
const OS_RELEASE: &[&str] = &["etc/os-release", "usr/lib/os-release"];
const KAIROS_RELEASE: &str = "etc/kairos-release";
/// Files whose presence says what an image can do.
const LANDMARKS: &[&str] = &[
    "boot/vmlinuz",
    "boot/initrd",
    "etc/cos/grub.cfg",
    "usr/bin/immucore",
    "usr/bin/kairos-agent",
    "system/installer/kairos-installer",
    "system/oem",
];

/// What `inspect` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its platform.
    pub platform: String,
    /// When it was made, as the config says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The layers, lowest first.
    pub layers: Vec<LayerReport>,
    /// The keys of `/etc/kairos-release`; empty for an image that is none of Kairos.
    pub kairos: BTreeMap<String, String>,
    /// The keys of `/etc/os-release`.
    pub os: BTreeMap<String, String>,
    /// Paths that a Kairos image holds, and whether this one does.
    pub landmarks: BTreeMap<&'static str, bool>,
}

/// One layer.
#[derive(Debug, Serialize)]
pub struct LayerReport {
    /// What made it, from the history.
    pub step: String,
    /// The steps of ours that did, in the order they ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// The blob's digest.
    pub digest: Digest,
    /// The digest of the uncompressed changeset.
    pub diff_id: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The blob's media type.
    pub media_type: String,
}

/// Reads the base's facts, and the stage extensions it carries, without unpacking it.
///
/// # Errors
///
/// As for pulling and recognising a base.
pub fn facts(
    base: &Location,
    platform: &Platform,
    options: &Options,
    runtime: &Runtime,
    reporter: &Arc<Reporter>,
) -> Result<(Facts, Vec<SourceText>)> {
    if let Location::Dir(dir) = base {
        let root = Root::open(dir).context(|| format!("opening {}", dir.display()))?;
        let facts = convert::facts_of_dir(dir, platform, &base.to_string())?;
        return Ok((facts, yip::read_root(&root)?));
    }
    let store = Store::open(&options.store, Access::Shared)?.until(&options.stop);
    let image = convert::fetch(
        base,
        platform,
        Engine {
            store: &store,
            options,
            runtime,
            reporter,
        },
    )?;
    let found = Contents::read(&image.image, &store)?;
    let facts = convert::facts_of(
        found.os_release().as_deref(),
        &image.image,
        &base.to_string(),
    )?;
    Ok((facts, found.extensions()))
}

/// Makes the report of an image whose blobs are in the store.
///
/// # Errors
///
/// A damaged layer.
pub fn inspect(image: &BaseImage, store: &Store) -> Result<Report> {
    let found = Contents::read(&image.image, store)?;
    let parse = |text: Option<String>| -> BTreeMap<String, String> {
        let release = crate::distro::os_release::OsRelease::parse(&text.unwrap_or_default());
        release.fields().iter().cloned().collect()
    };
    Ok(Report {
        digest: image.image.manifest_digest(),
        platform: image.image.platform().to_string(),
        created: image.image.created().map(str::to_owned),
        layers: layers(&image.image),
        kairos: parse(found.text(KAIROS_RELEASE)),
        os: parse(found.os_release()),
        landmarks: LANDMARKS
            .iter()
            .map(|path| (*path, found.has(path)))
            .collect(),
    })
}

/// Returns what made each layer, the lowest first, from the history.
pub(crate) fn steps(image: &Image) -> Vec<String> {
    let mut steps = image
        .history()
        .into_iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created_by.or(entry.comment));
    let mut next = || steps.next().flatten();
    image
        .layers()
        .iter()
        .map(|_| next().unwrap_or_else(|| "(no history)".into()))
        .collect()
}

/// Returns the steps that the history names for each layer, the lowest first.
fn named_steps(image: &Image) -> impl Iterator<Item = Vec<String>> {
    let comments = image
        .history()
        .into_iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.comment.unwrap_or_default());
    comments
        .map(|comment| match comment.strip_prefix(STEPS_COMMENT) {
            Some(steps) => steps.split(", ").map(str::to_owned).collect(),
            None => Vec::new(),
        })
        .chain(std::iter::repeat(Vec::new()))
}

fn layers(image: &Image) -> Vec<LayerReport> {
    image
        .layers()
        .iter()
        .zip(image.diff_ids())
        .zip(steps(image).into_iter().zip(named_steps(image)))
        .map(|((layer, diff_id), (step, steps))| LayerReport {
            step,
            steps,
            digest: layer.digest,
            diff_id: *diff_id,
            size: layer.size,
            media_type: layer.media_type.clone(),
        })
        .collect()
}

/// What the layers together hold under the paths we look at.
#[derive(Debug, Default)]
struct Contents {
    texts: BTreeMap<PathBuf, String>,
    links: BTreeMap<PathBuf, PathBuf>,
    present: BTreeSet<PathBuf>,
}

impl Contents {
    fn read(image: &Image, store: &Store) -> Result<Self> {
        let mut out = Self::default();
        let total = image.layers().len();
        for (index, (layer, diff_id)) in image.layers().iter().zip(image.diff_ids()).enumerate() {
            let doing = || format!("reading layer {} of {total} ({})", index + 1, layer.digest);
            let mut changeset = Changeset::open(store, layer, *diff_id, None).context(doing)?;
            out.read_layer(ArchiveReader::new(&mut changeset))
                .context(doing)?;
            changeset.finish().context(doing)?;
        }
        Ok(out)
    }

    fn read_layer<R: std::io::Read>(&mut self, mut archive: ArchiveReader<R>) -> Result<()> {
        while let Some(entry) = archive
            .next_entry()
            .map_err(|error| crate::error::Error::from_source(&error))?
        {
            let path = normal(&entry.path);
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if let Some(hidden) = name.strip_prefix(".wh.") {
                self.forget(&path.with_file_name(hidden));
                continue;
            }
            if !matches!(entry.kind, EntryKind::Directory) {
                // Whatever it is, it takes the place of a directory that stood there.
                self.forget(&path);
            }
            if !is_interesting(&path) {
                continue;
            }
            self.present.insert(path.clone());
            match &entry.kind {
                EntryKind::Symlink { target } => {
                    let target = resolve(&path, target);
                    self.links.insert(path, target);
                }
                EntryKind::File { size } => {
                    let mut text = Vec::new();
                    archive
                        .content(*size)
                        .take(MAX_TEXT_BYTES)
                        .read_to_end(&mut text)?;
                    self.texts
                        .insert(path, String::from_utf8_lossy(&text).into_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn forget(&mut self, path: &Path) {
        self.texts.retain(|known, _| !known.starts_with(path));
        self.links.retain(|known, _| !known.starts_with(path));
        self.present.retain(|known| !known.starts_with(path));
    }

    fn has(&self, path: &str) -> bool {
        self.present.contains(Path::new(path))
    }

    fn text(&self, path: &str) -> Option<String> {
        let mut path = Path::new(path);
        for _ in 0..MAX_LINKS {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        self.texts.get(path).cloned()
    }

    /// Returns the stage extensions, in lexical order per level.
    fn extensions(&self) -> Vec<SourceText> {
        let is_found =
            |path: &&PathBuf| is_extension(path) && self.text(&path.to_string_lossy()).is_some();
        let mut paths: Vec<&PathBuf> = self
            .texts
            .keys()
            .chain(self.links.keys())
            .filter(is_found)
            .collect();
        paths.sort_by(|a, b| a.components().cmp(b.components()));
        let source = |path: &PathBuf| SourceText {
            file: yip::in_base(&Path::new("/").join(path)),
            text: self.text(&path.to_string_lossy()).unwrap_or_default(),
        };
        paths.into_iter().map(source).collect()
    }

    fn os_release(&self) -> Option<String> {
        OS_RELEASE.iter().find_map(|path| self.text(path))
    }
}

fn is_extension(path: &Path) -> bool {
    let is_below = path.starts_with(yip::DIRECTORY_IN_IMAGE.trim_start_matches('/'));
    is_below && path.to_str().is_some_and(yip::is_extension_file)
}

fn is_interesting(path: &Path) -> bool {
    if is_extension(path) {
        return true;
    }
    let path = path.to_str().unwrap_or("");
    OS_RELEASE.contains(&path) || path == KAIROS_RELEASE || LANDMARKS.contains(&path)
}

/// Drops leading slashes and dots; `..` goes up but never above the top.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn resolve(link: &Path, target: &Path) -> PathBuf {
    if target.is_absolute() {
        normal(target)
    } else {
        normal(&link.parent().unwrap_or(Path::new("")).join(target))
    }
}

impl Report {
    /// Returns the report for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("digest    {}\nplatform  {}\n", self.digest, self.platform);
        if let Some(created) = &self.created {
            text.push_str(&format!("created   {created}\n"));
        }
        if let Some(name) = self.os.get("PRETTY_NAME") {
            text.push_str(&format!("system    {name}\n"));
        }
        text.push_str("\nlayers\n");
        for layer in &self.layers {
            text.push_str(&format!(
                "  {:>10}  {}  {}\n",
                bytes_text(layer.size),
                layer.digest,
                one_line(&layer.step)
            ));
            if !layer.steps.is_empty() {
                text.push_str(&format!("{:14}{}\n", "", layer.steps.join(", ")));
            }
        }
        if self.kairos.is_empty() {
            text.push_str("\nno /etc/kairos-release: not a Kairos image\n");
            return text;
        }
        text.push_str("\nkairos\n");
        for (key, value) in &self.kairos {
            text.push_str(&format!("  {key}={value}\n"));
        }
        text.push_str("\nholds\n");
        for (path, present) in &self.landmarks {
            text.push_str(&format!(
                "  {}  /{path}\n",
                if *present { "yes" } else { "NO " }
            ));
        }
        text
    }
}

/// Shows what made a layer on one line, without control characters and cut at a readable width.
fn one_line(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.chars().count() > 100 {
        format!("{}...", clean.chars().take(97).collect::<String>())
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_resolve_inside_the_image() {
        assert_eq!(
            resolve(
                Path::new("etc/os-release"),
                Path::new("../usr/lib/os-release")
            ),
            Path::new("usr/lib/os-release")
        );
        assert_eq!(
            resolve(Path::new("a/b"), Path::new("../../../../x")),
            Path::new("x")
        );
        assert_eq!(
            resolve(Path::new("a/b"), Path::new("/c/d")),
            Path::new("c/d")
        );
    }
}
