//! `kfactory inspect`: an image's layers and what makes it a Kairos image, read without unpacking it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::convert::{self, BaseImage, Engine, Options, STEPS_COMMENT};
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::location::Location;
use crate::plan::Facts;
use crate::printable;
use crate::progress::{Reporter, bytes_text};
use crate::provider::bus::Plugins;
use crate::screen;
use crate::store::Store;
use crate::tree::{self, Tree, Wanted};
use crate::yip::{self, SourceText};

const OS_RELEASE: &[&str] = &["etc/os-release", "usr/lib/os-release"];
/// The most that is shown of what made a layer, in columns: some commands have thousands.
const MAX_STEP: usize = 100;
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

/// What a plan needs of a base.
#[derive(Debug)]
pub struct Found {
    /// What the plan is made for.
    pub facts: Facts,
    /// The stage extensions that it carries.
    pub extensions: Vec<SourceText>,
    /// The provider plugins that it holds.
    pub plugins: Plugins,
}

/// Reads what a plan needs of a base without unpacking it.
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
) -> Result<Found> {
    if let Location::Dir(dir) = base {
        base.check_there()
            .context(|| format!("cannot read `{base}`"))?;
        let root = Root::open(dir).context(|| format!("opening {}", dir.display()))?;
        let facts = convert::facts_of_dir(dir, platform, &base.to_string())?;
        return Ok(Found {
            facts,
            extensions: yip::read_root(&root)?,
            plugins: exec::plugins_of(&root)?,
        });
    }
    let store = Store::open_beside(&options.store, &options.stop, reporter)?;
    let (image, tree) = if let Location::Tar(file) = base {
        let tree = convert::tree_of_tar(base, file, &store, WANTED)?;
        (Image::empty(platform), tree)
    } else {
        let engine = Engine {
            store: &store,
            options,
            runtime,
            reporter,
        };
        let image = convert::fetch(base, platform, engine)?.image;
        let tree = tree_of(&image, &store)?;
        (image, tree)
    };
    let (platform, base) = (image.platform(), base.to_string());
    let open = |path| match tree.can_open(path) {
        true => tree.open(path),
        false => Ok(None),
    };
    convert::machine::check(open, &platform, &base)?;
    check_os_release(&tree, &base)?;
    let facts = convert::facts_of(os_release(&tree)?.as_deref(), &image, &base)?;
    Ok(Found {
        facts,
        extensions: extensions(&tree)?,
        plugins: exec::plugins_in(&tree),
    })
}

/// Makes the report of an image whose blobs are in the store.
///
/// # Errors
///
/// A damaged layer.
pub fn inspect(image: &BaseImage, store: &Store) -> Result<Report> {
    let tree = tree_of(&image.image, store)?;
    let parse = |text: Option<String>| -> BTreeMap<String, String> {
        let release = crate::distro::os_release::OsRelease::parse(&text.unwrap_or_default());
        release.fields().iter().cloned().collect()
    };
    Ok(Report {
        digest: image.image.manifest_digest(),
        platform: image.image.platform().to_string(),
        created: image.image.created().map(str::to_owned),
        layers: layers(&image.image),
        kairos: parse(text(&tree, KAIROS_RELEASE)?),
        os: parse(os_release(&tree)?),
        landmarks: LANDMARKS
            .iter()
            .map(|path| (*path, tree.node(path).is_some()))
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

/// Reads the tree of an image, with the contents of the files that are looked into.
fn tree_of(image: &Image, store: &Store) -> Result<Tree> {
    tree::of_image(image, store, WANTED, None)
}

/// What of a base is looked into.
const WANTED: Wanted = Wanted {
    kept: is_looked_into,
    digests: false,
};

fn is_looked_into(path: &Path) -> bool {
    // Some distributions have it in a third place, which a link leads to.
    let is_release = path
        .file_name()
        .and_then(OsStr::to_str)
        .is_some_and(|name| name.contains("os-release") || name == "kairos-release");
    is_release || is_extension(path) || convert::machine::reads(path)
}

fn is_extension(path: &Path) -> bool {
    let is_below = path.starts_with(yip::DIRECTORY_IN_IMAGE.trim_start_matches('/'));
    is_below && path.to_str().is_some_and(yip::is_extension_file)
}

/// Returns the stage extensions of an image, in lexical order per level.
fn extensions(tree: &Tree) -> Result<Vec<SourceText>> {
    let mut paths = Vec::new();
    tree.walk(yip::DIRECTORY_IN_IMAGE, &mut |path, _| {
        if is_extension(path) && tree.can_open(path) {
            paths.push(path.to_owned());
        }
    });
    let source = |path: PathBuf| {
        Ok(SourceText {
            file: yip::in_base(&Path::new("/").join(&path)),
            text: tree.text(&path)?.unwrap_or_default(),
        })
    };
    paths.into_iter().map(source).collect()
}

/// Refuses a base whose os-release is there and cannot be used, as its conversion does.
fn check_os_release(tree: &Tree, base: &str) -> Result<()> {
    let found = OS_RELEASE
        .iter()
        .find_map(|path| Some((path, tree.find(path)?)));
    let Some((path, found)) = found else {
        return Ok(());
    };
    let why = match found.node.file() {
        None => "it is not a regular file".to_owned(),
        Some(file) if file.size > convert::MAX_OS_RELEASE_BYTES => {
            format!("it is larger than {} bytes", convert::MAX_OS_RELEASE_BYTES)
        }
        Some(_) => return Ok(()),
    };
    Err(convert::unusable(
        Error::user(why),
        &format!("/{path}"),
        base,
    ))
}

/// Returns the text of `/etc/os-release`, or of what stands in for it.
fn os_release(tree: &Tree) -> Result<Option<String>> {
    for path in OS_RELEASE {
        if let Some(text) = text(tree, path)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Returns a text file's content, where it is one of those that are looked into.
fn text(tree: &Tree, path: &str) -> Result<Option<String>> {
    match tree.can_open(path) {
        true => tree.text(path),
        false => Ok(None),
    }
}

impl Report {
    /// Returns the report for people. On a terminal of so many `columns` digests of layers are cut to what people look at, and what
    /// made a layer to what is left of the line.
    pub fn to_text(&self, columns: Option<usize>) -> String {
        const BEFORE_STEP: usize = 28;
        let step_width = columns.map_or(MAX_STEP, |all| {
            all.saturating_sub(BEFORE_STEP).min(MAX_STEP)
        });
        let shown = |digest: &Digest| match columns {
            Some(_) => digest.hex()[..12].to_owned(),
            None => digest.to_string(),
        };
        let mut text = format!("digest   {}\nplatform {}\n", self.digest, self.platform);
        if let Some(created) = &self.created {
            text.push_str(&format!("created  {}\n", printable::line(created)));
        }
        if let Some(name) = self.os.get("PRETTY_NAME") {
            text.push_str(&format!("system   {}\n", printable::line(name)));
        }
        text.push_str("\nlayers\n");
        for layer in &self.layers {
            text.push_str(&format!(
                "  {:>10}  {}  {}\n",
                bytes_text(layer.size),
                shown(&layer.digest),
                screen::cut(&printable::line(&layer.step), step_width)
            ));
            if !layer.steps.is_empty() {
                text.push_str(&format!(
                    "{:14}{}\n",
                    "",
                    printable::line(&layer.steps.join(", "))
                ));
            }
        }
        if self.kairos.is_empty() {
            text.push_str("\nno /etc/kairos-release: not a Kairos image\n");
            return text;
        }
        text.push_str("\nkairos\n");
        for (key, value) in &self.kairos {
            text.push_str(&format!(
                "  {}={}\n",
                printable::line(key),
                printable::line(value)
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_terminal_no_line_of_a_layer_is_too_long_and_elsewhere_digests_are_whole() {
        let digest = Digest::of(b"layer");
        let report = Report {
            digest,
            platform: "linux/amd64".into(),
            created: None,
            layers: vec![LayerReport {
                step: "RUN 包 ".repeat(100),
                steps: Vec::new(),
                digest,
                diff_id: digest,
                size: 123_456_789,
                media_type: String::new(),
            }],
            kairos: BTreeMap::new(),
            os: BTreeMap::new(),
            landmarks: BTreeMap::new(),
        };
        let narrow = report.to_text(Some(80));
        assert!(
            narrow.lines().all(|line| screen::width(line) <= 80),
            "{narrow}"
        );
        assert!(narrow.contains(&digest.hex()[..12]) && narrow.contains(&digest.to_string()));
        let piped = report.to_text(None);
        assert_eq!(piped.matches(&digest.to_string()).count(), 2, "{piped}");
    }
}
