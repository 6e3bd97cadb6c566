//! The Kairos binaries for a run: resolved, with image sources read through the registry and the store.

use std::path::PathBuf;
use std::sync::Arc;

use kfactory_layers::compress::Compression;
use kfactory_layers::diff::{CaptureOptions, Snapshot, capture_walk};
use kfactory_layers::image::{History, Image};
use kfactory_layers::layer::LayerWriter;
use kfactory_layers::layout::Layout;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;
use tokio::runtime::Runtime;

use super::inputs::uses_framework;
use super::{BaseImage, Clock, Engine, Options, base, tree};
use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::{
    self, Arch, BoxError, Component, Event, Framework, FrameworkContext, FrameworkSpec,
    UnpackImage, Variant, Verified,
};
use crate::given;
use crate::location::Location;
use crate::plan::{Plan, framework_variant};
use crate::progress::Reporter;
use crate::request::Request;
use crate::store::Store;
use crate::tree::{self as files, Wanted};

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
    check_there(spec).map_err(|error| error.context("cannot get the Kairos binaries"))?;
    let images = Images { engine };
    let progress = |event: Event<'_>| show(engine.reporter, event);
    let context = FrameworkContext {
        images: Some(&images),
        progress: &progress,
        variant: builds.variant,
        fips: builds.fips,
        ..FrameworkContext::new(arch, engine.store.cache_dir("framework")?)
    };
    framework::resolve(spec, &context)
        .map_err(|error| failed(error).context("cannot get the Kairos binaries"))
}

/// Checks that the binaries for `plan` are there, where they are to come from this machine, and warns of those that are not;
/// nothing is asked of another machine.
///
/// # Errors
///
/// As a conversion would fail with them.
pub fn check(
    request: &Request,
    plan: &Plan,
    options: &Options,
    runtime: &Runtime,
    reporter: &Arc<Reporter>,
) -> Result<()> {
    if !plan.steps.iter().any(uses_framework) {
        return Ok(());
    }
    let spec: FrameworkSpec = request.framework.parse().map_err(usage)?;
    let absent = absent(&spec, request, plan, options, runtime, reporter)
        .map_err(|error| error.context("cannot get the Kairos binaries"))?;
    for component in absent {
        reporter.warn(&format!(
            "the framework has no {}: without it {}",
            component.name, component.loss
        ));
    }
    Ok(())
}

/// Returns the programs that `spec` does not have, as far as that is known on this machine.
fn absent(
    spec: &FrameworkSpec,
    request: &Request,
    plan: &Plan,
    options: &Options,
    runtime: &Runtime,
    reporter: &Arc<Reporter>,
) -> Result<Vec<&'static Component>> {
    let variant = framework_variant(&plan.steps);
    let open_store = || Store::open_beside(&options.store, &options.stop, reporter);
    match spec {
        FrameworkSpec::Release(_) | FrameworkSpec::Go(_) => {
            let has = |component: &Component| !spec.leaves_out(component);
            framework::absent_from(variant, &request.framework, has).map_err(failed)
        }
        FrameworkSpec::Image(text) => match image_here(text, plan)? {
            None => Ok(Vec::new()),
            Some(location) => {
                let engine = Engine {
                    store: &open_store()?,
                    options,
                    runtime,
                    reporter,
                };
                absent_from_image(&location, plan, engine)
            }
        },
        FrameworkSpec::Dir(_) | FrameworkSpec::Tar(_) => {
            check_there(spec)?;
            let context = FrameworkContext {
                variant,
                fips: request.fips,
                ..FrameworkContext::new(plan.facts.arch, open_store()?.cache_dir("framework")?)
            };
            let found = framework::resolve(spec, &context).map_err(failed)?;
            Ok(found.absent(variant))
        }
    }
}

/// Returns where an image of binaries is on this machine, which can be found there; `None` for one in a registry, which is asked for
/// it when it is needed.
fn image_here(text: &str, plan: &Plan) -> Result<Option<Location>> {
    let location: Location = text.parse()?;
    if let Location::Registry(_) = location {
        return Ok(None);
    }
    location
        .check_there()
        .context(|| format!("cannot read `{location}`"))?;
    if let Location::Layout { dir, tag } = &location {
        let platform = Platform::new("linux", plan.facts.arch.as_str(), None);
        Layout::open(dir)
            .and_then(|layout| layout.resolve(tag.as_deref(), &platform))
            .map_err(|error| {
                Error::from_source(&error).context(format!("cannot read `{location}`"))
            })?;
    }
    Ok(Some(location))
}

/// Returns the programs that the image at `location` does not have; what the others are shows when they are used.
fn absent_from_image(
    location: &Location,
    plan: &Plan,
    engine: Engine<'_>,
) -> Result<Vec<&'static Component>> {
    let platform = Platform::new("linux", plan.facts.arch.as_str(), None);
    let image = super::fetch(location, &platform, engine)?;
    let wanted = Wanted {
        kept: |_| false,
        digests: false,
    };
    let tree = files::of_image(&image.image, engine.store, wanted, None)?;
    let has = |component: &Component| {
        let found = tree.find(component.target.trim_start_matches('/'));
        found.is_some_and(|found| found.node.file().is_some())
    };
    let variant = framework_variant(&plan.steps);
    framework::absent_from(variant, &format!("`{location}`"), has).map_err(failed)
}

/// Checks that the directory or the archive of binaries that `spec` names is there.
fn check_there(spec: &FrameworkSpec) -> Result<()> {
    match spec {
        FrameworkSpec::Dir(dir) => given::directory(dir),
        FrameworkSpec::Tar(file) => given::file(file),
        _ => Ok(()),
    }
}

/// Makes an error of one about the framework, with what is known as its hints.
#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
fn failed(error: framework::FrameworkError) -> Error {
    Error::from_source(&error).hints(error.hints())
}

/// As [`failed`], of a `--framework` that cannot be read.
pub(super) fn usage(error: framework::FrameworkError) -> Error {
    failed(error).kind_is(Kind::Usage)
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
        store.blob_writer().context(doing)?,
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
    let blob = blob.into_inner();
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
