//! Media and disks that are made of the result in the same run, from the layers in the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kfactory_layers::image::Image;

use super::Engine;
use crate::apart;
use crate::artifact::cloud_config;
use crate::artifact::disk::{Disk, DiskSize};
use crate::artifact::format::Format;
use crate::artifact::live::Live;
use crate::artifact::make::{self, Artifact, Making, Unnamed};
use crate::artifact::output::{Place, checksum_path};
use crate::artifact::source::Source;
use crate::artifact::squashfs::{self, Compressor};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::request::{CheckedRequest, Request};

/// What is to be made, checked.
#[derive(Debug)]
pub(super) struct Artifacts<'a> {
    iso: Option<Place<'a>>,
    raw: Vec<Place<'a>>,
    raw_size: Option<DiskSize>,
    cloud_config: Option<Vec<u8>>,
    compressor: Option<Compressor>,
    /// Whether they are read back: not where the image itself need not pass all rules.
    verify: bool,
}

impl<'a> Artifacts<'a> {
    /// Checks what can be known before there is an image. Nothing goes into the base or onto a destination of `checked`; `force` lets files
    /// be replaced.
    ///
    /// # Errors
    ///
    /// A file that is there or cannot be written, a configuration that cannot be read, or a program that is missing.
    pub(super) fn check(
        request: &'a Request,
        checked: &CheckedRequest,
        force: bool,
    ) -> Result<Self> {
        let place = |text: &'a String| {
            let place = Place {
                path: Path::new(text),
                name: None,
                force,
            };
            place.check()?;
            apart::check_target(&checked.base, place.path)?;
            Ok(place)
        };
        let cloud_config = request.cloud_config.as_deref().map(Path::new);
        let iso = request.iso.as_ref().map(place).transpose()?;
        let raw: Vec<Place<'_>> = request.raw.iter().map(place).collect::<Result<_>>()?;
        check_distinct(iso.as_ref(), &raw, &checked.destinations)?;
        iso.map_or(Ok(()), |place| Format::check_medium(place.path))?;
        for place in &raw {
            Format::chosen(None, place.path)?;
        }
        let artifacts = Self {
            iso,
            raw,
            raw_size: request.raw_size()?,
            cloud_config: cloud_config.map(cloud_config::read).transpose()?,
            compressor: request.compressor()?,
            verify: request.no_validate.is_empty(),
        };
        if artifacts.iso.is_some() {
            squashfs::check()?;
        }
        Ok(artifacts)
    }

    /// Returns what may be meant otherwise in the configuration that goes along.
    pub(super) fn doubts(&self) -> Vec<String> {
        let config = self.cloud_config.as_deref();
        config.map(cloud_config::doubts).unwrap_or_default()
    }

    /// Makes all of them of `image`, whose layers are in the store; none has its name yet.
    ///
    /// # Errors
    ///
    /// The first that cannot be made.
    pub(super) fn make(&self, image: &Image, engine: Engine<'_>) -> Result<Vec<Unnamed>> {
        if self.iso.is_none() && self.raw.is_empty() {
            return Ok(Vec::new());
        }
        let source = Source::read(image.clone(), engine.store, engine.reporter)?;
        let iso = self.iso.map(|place| self.iso(&source, place, engine));
        let raw = self.raw.iter();
        let raw = raw.map(|place| self.raw(&source, *place, engine));
        iso.into_iter().chain(raw).collect()
    }

    fn iso(&self, source: &Source<'_>, place: Place<'_>, engine: Engine<'_>) -> Result<Unnamed> {
        let path = place.file(&source.tree, ".iso")?;
        let live = Live {
            arch: source.arch()?,
            console: None,
            cmdline: None,
            cloud_config: self.cloud_config.as_deref(),
            overlay_iso: None,
            overlay_uefi: None,
            compressor: self.compressor.map_or_else(|| source.compressor(), Ok)?,
            created: source.created()?,
            threads: engine.options.jobs,
        };
        make::iso(source, &live, self.making(&path, place, engine))
    }

    fn raw(&self, source: &Source<'_>, place: Place<'_>, engine: Engine<'_>) -> Result<Unnamed> {
        let format = Format::chosen(None, place.path)?;
        let path = place.file(&source.tree, format.ending())?;
        let disk = Disk {
            arch: source.arch()?,
            boot: None,
            size: self.raw_size,
            sizes: format.sizes(),
            state_size: None,
            recovery_size: None,
            cloud_config: self.cloud_config.as_deref(),
            overlay_uefi: None,
            created: source.created()?,
        };
        make::raw(source, &disk, format, self.making(&path, place, engine))
    }

    fn making<'p>(&self, path: &'p Path, place: Place<'_>, engine: Engine<'p>) -> Making<'p> {
        Making {
            path,
            force: place.force,
            verify: self.verify,
            threads: engine.options.jobs,
            reporter: engine.reporter,
            stop: &engine.options.stop,
        }
    }
}

/// Gives all of them their names, and says what the user may not expect of them.
///
/// # Errors
///
/// As [`Unnamed::finish`].
pub(super) fn finish(made: Vec<Unnamed>, engine: Engine<'_>) -> Result<Vec<Artifact>> {
    let mut artifacts = Vec::new();
    for unnamed in made {
        let artifact = unnamed.finish(engine.reporter, &engine.options.stop)?;
        for note in &artifact.notes {
            let name = artifact.path.display();
            engine.reporter.warn(&format!("{name}: {note}"));
        }
        artifacts.push(artifact);
    }
    Ok(artifacts)
}

/// Checks that no two artifacts, with the checksums beside them, get the same name.
fn check_distinct(
    iso: Option<&Place<'_>>,
    raw: &[Place<'_>],
    destinations: &[Location],
) -> Result<()> {
    let of_image = destinations.iter().filter_map(Location::place);
    let mut taken: BTreeSet<PathBuf> = of_image.map(apart::resolved).collect();
    let named = iso.iter().map(|place| ("iso", **place));
    for (kind, place) in named.chain(raw.iter().map(|place| ("raw", *place))) {
        let mut file = apart::resolved(place.path);
        let is_of_image = taken.contains(&file);
        if place.path.is_dir() {
            // Its name there has this ending, and differs in nothing else.
            file.push(kind);
        }
        let checksum = checksum_path(&file);
        if is_of_image || !taken.insert(file) || !taken.insert(checksum) {
            return Err(Error::usage(format!(
                "two things are to be written to `{}`",
                place.path.display()
            ))
            .hint("give each a name of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_artifacts_of_one_name_are_refused_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        let place = |path: &str| top.join(path);
        std::os::unix::fs::symlink(top, place("link")).unwrap();
        for (iso, raw, is_fine) in [
            ("a.iso", vec!["a.raw", "a.qcow2"], true),
            ("", vec!["", "a.raw"], true),
            ("a.iso", vec!["link/a.iso"], false),
            ("a.iso", vec!["./b.raw", "link/./b.raw"], false),
            ("a.iso", vec!["a.iso.sha256"], false),
            ("a.iso", vec!["", "link"], false),
            ("link/image", vec![], false),
        ] {
            let image = Location::Layout {
                dir: place("image"),
                tag: None,
            };
            let (iso, raw) = (place(iso), raw.into_iter().map(place).collect::<Vec<_>>());
            let place = |path| Place {
                path,
                name: None,
                force: true,
            };
            let raw: Vec<Place<'_>> = raw.iter().map(|path| place(path.as_path())).collect();
            let checked = check_distinct(Some(&place(&iso)), &raw, &[image]);
            assert_eq!(checked.is_ok(), is_fine, "{raw:?}");
        }
    }
}
