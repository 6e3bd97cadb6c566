//! The Kairos binaries for a run: resolved, with image sources read through the registry and the store.

use std::path::PathBuf;
use std::sync::Arc;

use kfactory_layers::compress::Compression;
use kfactory_layers::diff::{CaptureOptions, Snapshot, capture_walk};
use kfactory_layers::image::{History, Image};
use kfactory_layers::layer::LayerWriter;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;

use super::{BaseImage, Clock, Engine, base, tree};
use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::{
    self, Arch, BoxError, Event, Framework, FrameworkContext, FrameworkSpec, UnpackImage, Variant,
    Verified,
};
use crate::location::Location;
use crate::progress::Reporter;

/// Which builds of the binaries an image needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builds {
    /// The variant of the image.
    pub variant: Variant,
    /// Whether FIPS builds are wanted.
    pub fips: bool,
}

/// Gets the binaries that `spec` names.
pub(super) fn resolve(
    spec: &FrameworkSpec,
    arch: Arch,
    builds: Builds,
    engine: Engine<'_>,
) -> Result<Framework> {
    let images = Images { engine };
    let progress = |event: Event<'_>| show(engine.reporter, event);
    let context = FrameworkContext {
        images: Some(&images),
        progress: &progress,
        variant: builds.variant,
        fips: builds.fips,
        ..FrameworkContext::new(arch, engine.store.cache_dir("framework")?)
    };
    framework::resolve(spec, &context).map_err(|error| {
        Error::from_source(&error)
            .hints(error.hints())
            .context("cannot get the Kairos binaries")
    })
}

/// Makes a usage error of a `--framework` that cannot be read, with what is known as its hints.
#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
pub(super) fn usage(error: framework::FrameworkError) -> Error {
    Error::from_source(&error)
        .hints(error.hints())
        .kind_is(Kind::Usage)
}

fn show(reporter: &Arc<Reporter>, event: Event<'_>) {
    match event {
        Event::Downloading { name, url } => {
            reporter.note(&format!("framework: downloading {name} from {url}"))
        }
        Event::Building { name, version } => {
            reporter.note(&format!("framework: building {name} {version}"))
        }
        Event::Ready {
            name,
            version,
            verified,
        } => {
            let how = match verified {
                Verified::Pin => "matches its pin",
                Verified::PublishedChecksums => "matches the checksum published with the release",
                Verified::GoChecksumDatabase => "checked by the Go checksum database",
                Verified::Manifest => "matches its manifest",
                Verified::Given => "as given",
            };
            reporter.note(&format!("framework: {name} {version} {how}"));
        }
        _ => {}
    }
}

/// Makes a one-layer image of the binaries that `spec` names for an image of `variant`, its blobs in the store.
///
/// # Errors
///
/// The binaries cannot be had, or the store cannot be written.
pub fn image(
    spec: &str,
    platform: &Platform,
    builds: Builds,
    engine: Engine<'_>,
) -> Result<BaseImage> {
    let doing = || "writing the framework image".to_owned();
    let spec: FrameworkSpec = spec.parse().map_err(usage)?;
    let arch: Arch = platform.architecture.parse().map_err(super::usage)?;
    let framework = resolve(&spec, arch, builds, engine)?;
    let Engine { store, options, .. } = engine;
    let run = store.start_run()?;
    let tree = run.dir().join("framework");
    std::fs::create_dir(&tree).context(doing)?;
    framework
        .write_tree(&tree)
        .map_err(|error| Error::from_source(&error))?;
    let clock = Clock::from_env()?;
    let root = Root::open(&tree).context(doing)?;
    let mut writer = LayerWriter::new(
        store.blobs().writer().context(doing)?,
        Compression::default(),
        options.jobs,
    )
    .context(doing)?;
    // The files carry no time of making; in the stage they belong to root.
    let capture = CaptureOptions {
        clamp_mtime: Some(clock.clamp().unwrap_or(0)),
        ..CaptureOptions::default()
    };
    capture_walk(&Snapshot::empty(), &root, &capture, &mut writer).context(doing)?;
    let (blob, info) = writer.finish().context(doing)?;
    blob.commit_as(&info.digest, info.size).context(doing)?;
    let image = Image::empty(platform)
        .append_layer(
            &info,
            History::by("kfactory framework").at(clock.clamp().unwrap_or(0)),
        )
        .with_created(clock.clamp().unwrap_or(0));
    Ok(BaseImage {
        digest: image.manifest_digest(),
        image,
        reference: None,
    })
}

/// Reads framework images for [`framework::resolve`].
struct Images<'a> {
    engine: Engine<'a>,
}

impl UnpackImage for Images<'_> {
    fn unpack(&self, reference: &str, arch: Arch) -> Result<PathBuf, BoxError> {
        let location: Location = reference.parse()?;
        let platform = Platform::new("linux", arch.as_str(), None);
        let run = self.engine.store.start_run()?;
        let image = base::open(&location, &platform, self.engine, &run)?;
        // The tree stays in the store, named by its content.
        Ok(tree::unpack(&image, self.engine, &run)?)
    }
}
