//! The conversion: a base image in, a Kairos image out, layer by layer.
//!
//! ```text
//! preflight   everything that would fail late is tried first
//! base        pulled, unpacked once, recognised
//! plan        pure: facts + request -> steps
//! layers      cached, or run on an overlay; captured and compressed while the next one runs
//! check       the result is validated while the last layer is captured
//! artifacts   media and disks are made of the layers, while those are uploaded
//! outputs     uploaded as soon as each layer is whole; manifest last
//! ```

mod artifacts;
mod base;
mod cache;
mod check;
mod clock;
mod framework;
pub mod in_place;
mod inputs;
mod layers;
pub mod machine;
mod outputs;
mod package_cache;
mod preflight;
mod programs;
mod replaced;
pub mod space;
mod tree;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kfactory_layers::archive::DockerArchive;
use kfactory_layers::compress::Compression;
use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::manifest::Descriptor;
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;
use kfactory_layers::source::ImageSource as _;
use kfactory_sandbox::CancelToken;

use artifacts::Artifacts;
pub use base::{BaseImage, check_source, facts_of, facts_of_dir, tree_of_tar};
pub(crate) use base::{MAX_OS_RELEASE_BYTES, unusable};
pub use clock::Clock;
pub use framework::{Builds, check as check_inputs, image as framework_image};

use crate::apart;
use crate::artifact::make::Artifact;
use crate::changeset::Changeset;
use crate::error::{Context as _, Error, Kind, Result};
use crate::exec;
use crate::location::Location;
use crate::plan::{self, Plan};
use crate::printable::counted;
use crate::progress::Reporter;
use crate::registry::Registry;
use crate::request::{CheckedRequest, Request};
use crate::stop;
use crate::store::{Checked, Store, in_parallel};
use crate::validate::{Report, Scope, Severity, Skipped};
use crate::yip::{self, Extensions};

/// How a conversion is carried out, as opposed to what it makes.
#[derive(Debug)]
pub struct Options {
    /// The store's directory.
    pub store: PathBuf,
    /// The registry client.
    pub registry: Registry,
    /// Transfers at a time, and threads for compression.
    pub jobs: usize,
    /// Whether cached layers are left unused.
    pub no_cache: bool,
    /// Whether media and disks take the place of files of their names.
    pub force: bool,
    /// Set when no step is to go on: by the user, or where something beside the steps failed. Finished layers are still kept.
    pub cancel: CancelToken,
    /// Set when the user stops the run: everything ends.
    pub stop: CancelToken,
}

/// What every part of a run works with.
#[derive(Debug, Clone, Copy)]
pub struct Engine<'a> {
    /// The store.
    pub store: &'a Store,
    /// How the run is carried out.
    pub options: &'a Options,
    /// Where network tasks run.
    pub runtime: &'a tokio::runtime::Runtime,
    /// Shows what happens.
    pub reporter: &'a Arc<Reporter>,
}

impl Engine<'_> {
    /// Reads blobs of the store through before they are used again, see [`Store::check`].
    fn check<'b>(&self, blobs: impl IntoIterator<Item = &'b Descriptor>) -> Result<Checked> {
        self.store.check(blobs, self.options.jobs)
    }
}

/// What a conversion made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The manifest's digest.
    pub digest: Digest,
    /// The name under which the result stands in the store.
    pub store_name: String,
    /// Every destination, as written by the user.
    pub destinations: Vec<String>,
    /// The sum of all layer blobs in bytes.
    pub size_bytes: u64,
    /// How many of the new layers came from the cache.
    pub cached_layers: usize,
    /// How many new layers there are.
    pub new_layers: usize,
    /// What validation found; `None` where it was turned off.
    pub validation: Option<Report>,
    /// Media and disks that were made beside the image.
    pub artifacts: Vec<Artifact>,
}

/// Converts a base image as `request` says.
///
/// Must run inside the stage (see `kfactory_sandbox::stage`), where the caller is root of a user namespace.
///
/// # Errors
///
/// Usage errors before anything is pulled; errors of the outside world; [`Kind::Step`] when a command of a step fails.
/// Nothing is pushed under a tag unless everything else succeeded; finished layers stay in the step cache.
pub fn convert(
    request: &Request,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    reporter: &Arc<Reporter>,
) -> Result<Converted> {
    let kept = Mutex::default();
    convert_keeping(request, options, runtime, reporter, &kept).map_err(|error| {
        match error.kind() {
            Kind::Interrupted => {
                Error::interrupted(what_is_kept(&kept.into_inner().unwrap_or_default()))
            }
            _ => error,
        }
    })
}

/// Says what a run that was stopped leaves in the store.
fn what_is_kept(layers: &[String]) -> String {
    match layers {
        [] => "no layer was finished; what was downloaded whole is kept in the store".into(),
        [layer] => {
            format!("layer {layer} is kept in the store; the same command goes on after it")
        }
        layers => format!(
            "layers {} are kept in the store; the same command goes on after them",
            layers.join(", ")
        ),
    }
}

/// As [`convert`]; `kept` is told the layers that are in the step cache, the lowest first.
fn convert_keeping(
    request: &Request,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    reporter: &Arc<Reporter>,
    kept: &Mutex<Vec<String>>,
) -> Result<Converted> {
    let checked = resolve_names(request.validate()?, &options.registry)?;
    apart::check(&checked.base, &options.store, &checked.destinations)?;
    let compression = parse_compression(&request.compression)?;
    let platform = parse_platform(request.platform.as_deref())?;
    let framework_spec: crate::framework::FrameworkSpec =
        request.framework.parse().map_err(framework::usage)?;
    let providers = request.providers()?;
    let configs = crate::provider::read_configs(&providers)?;
    let clock = Clock::from_env()?;
    // Read again with those of the base; what is wrong with them is said before anything is pulled.
    Extensions::find(&[], request)?;
    preflight::local(&options.store, &checked.destinations)?;
    let artifacts = Artifacts::check(request, &checked, options.force)?;
    for doubt in artifacts.doubts() {
        reporter.warn(&doubt);
    }
    let store = Store::open_beside(&options.store, &options.stop, reporter)?;
    let run = store.start_run()?;
    let engine = Engine {
        store: &store,
        options,
        runtime,
        reporter,
    };

    let push_rights =
        preflight::start_push_checks(runtime, &options.registry, &checked.destinations);
    let base = base::open(&checked.base, &platform, engine, &run)?;
    push_rights.wait(engine)?;
    let outputs = outputs::Outputs::new(&checked.destinations, engine);
    outputs.base_layers(&base);

    let tree = tree::unpack(&base, engine, &run)?;
    let facts = base::facts_of_tree(&tree, &base.image, &checked.base.to_string())?;
    let carried =
        yip::read_root(&Root::open(&tree).context(|| format!("opening {}", tree.display()))?)?;
    let plan = plan::plan(&facts, request, &checked.version)?
        .with_plugins(&exec::plugins_of(&Root::open(&tree)?)?)
        .with_extensions(&Extensions::find(&carried, request)?, request);
    exec::check_manager(&plan.steps, &plan.facts, &Root::open(&tree)?)
        .map_err(|error| error.context(format!("cannot convert `{}`", checked.base)))?;
    announce(&plan, request, reporter);

    let scope = scope(&plan, request)?;
    let (made, validation) = layers::Builder {
        request,
        engine,
        run: &run,
        clock: &clock,
        compression,
        framework: &framework_spec,
        providers: &providers,
        configs: &configs,
        outputs: &outputs,
        kept,
        check: check::Check {
            engine,
            run: &run,
            scope: scope.as_ref(),
        },
    }
    .build(&plan, &facts, &base, &tree)?;

    if let Some(report) = &validation {
        tell(report, reporter)?;
    }
    let image = finish_image(&base, &checked, &plan, &made, &clock);
    let digest = image.manifest_digest();
    let store_name = store_name(&checked);
    let unnamed = artifacts.make(&image, engine)?;
    outputs.finish(&image, &store_name)?;
    let artifacts = artifacts::finish(unnamed, engine)?;
    Ok(Converted {
        digest,
        store_name,
        destinations: checked
            .destinations
            .iter()
            .map(ToString::to_string)
            .collect(),
        size_bytes: image.layers().iter().map(|layer| layer.size).sum(),
        cached_layers: made.iter().filter(|layer| layer.cached).count(),
        new_layers: made.len(),
        validation,
        artifacts,
    })
}

/// Returns what the result is to be validated as; `None` where the request says that it is not.
fn scope(plan: &plan::Plan, request: &Request) -> Result<Option<Scope>> {
    if request.skips_validation() {
        return Ok(None);
    }
    let skipped = plan.skipped.iter().map(|step| Skipped {
        step: (*step).to_owned(),
        by: plan::left_out_by(step, request),
    });
    Ok(Some(Scope {
        arch: Some(plan.facts.arch),
        model: Some(request.model()?),
        trusted: Some(request.trusted),
        version: Some(plan.version.clone()),
        stage: request.stage,
        skipped: skipped.collect(),
        ignored: request.no_validate.clone(),
    }))
}

const NOT_PUSHED: &str = "the image does not pass validation: nothing was pushed";
/// How an image that breaks a rule is published all the same.
const WITHOUT_RULES: &str = "`--no-validate=RULE` leaves one rule out, `--no-validate` all of them; finished layers are cached";

/// Says what validation found.
///
/// # Errors
///
/// A rule of severity error is broken.
fn tell(report: &Report, reporter: &Reporter) -> Result<()> {
    for (finding, more) in report.warnings_by_rule() {
        let more = match more {
            0 => String::new(),
            more => format!(", and {more} more like it"),
        };
        reporter.warn(&format!("{}{more}", finding.line()));
    }
    match report.error(NOT_PUSHED, WITHOUT_RULES) {
        Some(error) => Err(error),
        None => {
            reporter.note(&format!(
                "validated: {}, {}",
                counted(report.checked.len(), "rule"),
                counted(report.count(Severity::Warning), "warning")
            ));
            Ok(())
        }
    }
}

/// Says what is about to be made, and what the user should know about it.
fn announce(plan: &plan::Plan, request: &Request, reporter: &Reporter) {
    reporter.note(&format!(
        "converting {} ({}) as {}",
        plan.facts.distro.name,
        plan.facts.architecture(),
        plan.version
    ));
    for note in &plan.notes {
        reporter.warn(note);
    }
    for (step, missing) in [("initrd", "/boot/initrd"), ("kernel", "/boot/vmlinuz")] {
        // What comes of having no kernel is among the notes.
        if plan.skipped.contains(&step) && !request.has_no_kernel() {
            reporter.warn(&format!(
                "`{}` leaves out step `{step}`: without {missing} the image does not boot",
                plan::left_out_by(step, request)
            ));
        }
    }
}

/// Reads a location; a registry name without a registry goes through the short names of `registries.conf`.
///
/// # Errors
///
/// A usage error for a malformed location, or an alias that leads nowhere.
pub fn parse_location(text: &str, registry: &Registry) -> Result<Location> {
    let location: Location = text.parse()?;
    match location {
        Location::Registry(_) => {
            let name = text
                .strip_prefix("docker://")
                .or_else(|| text.strip_prefix("docker:"))
                .unwrap_or(text);
            registry
                .reference(name)
                .map(Location::Registry)
                .map_err(|error| Error::from_source(&error).hints(error.hints()))
        }
        other => Ok(other),
    }
}

fn resolve_names(checked: CheckedRequest, registry: &Registry) -> Result<CheckedRequest> {
    let destinations = checked
        .request
        .destinations
        .iter()
        .map(|text| parse_location(text, registry))
        .collect::<Result<_>>()?;
    Ok(CheckedRequest {
        base: parse_location(&checked.request.base, registry)?,
        destinations,
        ..checked
    })
}

/// Reads `--compression`.
///
/// # Errors
///
/// A usage error that says what is known.
pub fn parse_compression(text: &str) -> Result<Compression> {
    text.parse().map_err(usage)
}

/// Reads `--platform`; without one, this machine's.
///
/// # Errors
///
/// A usage error for a malformed platform.
pub fn parse_platform(text: Option<&str>) -> Result<Platform> {
    let Some(text) = text else {
        return Ok(Platform::host());
    };
    let platform = Platform::parse(text).map_err(usage)?;
    if platform.os != "linux" {
        return Err(Error::usage(format!(
            "platform `{platform}` is not a Linux one"
        )));
    }
    platform
        .architecture
        .parse::<crate::distro::Arch>()
        .map_err(usage)?;
    Ok(platform)
}

fn usage(error: impl std::error::Error + 'static) -> Error {
    Error::from_source(&error).kind_is(Kind::Usage)
}

/// How the comment in the history of a layer begins that names its steps.
pub(crate) const STEPS_COMMENT: &str = "steps: ";

fn finish_image(
    base: &BaseImage,
    checked: &CheckedRequest,
    plan: &Plan,
    made: &[layers::MadeLayer],
    clock: &Clock,
) -> Image {
    let mut image = base.image.to_oci();
    for (unit, layer) in plan.layers.iter().zip(made) {
        let steps: Vec<&str> = unit
            .steps
            .iter()
            .map(|index| plan.steps[*index].label())
            .collect();
        let history = kfactory_layers::image::History::by(format!("kfactory {}", layer.name))
            .comment(format!("{STEPS_COMMENT}{}", steps.join(", ")))
            .at(layer.created);
        image = image.append_layer(&layer.info, history);
    }
    image = image
        .with_created(made.last().map_or(clock.created(), |layer| layer.created))
        .with_label(
            "org.opencontainers.image.version",
            &checked.version.to_string(),
        )
        .with_annotation(
            "org.opencontainers.image.base.digest",
            &base.digest.to_string(),
        );
    if let Location::Registry(reference) = &checked.base {
        image = image.with_annotation("org.opencontainers.image.base.name", &reference.to_string());
    }
    image
}

fn store_name(checked: &CheckedRequest) -> String {
    match checked.destinations.first() {
        Some(Location::Store(name)) => name.clone(),
        Some(destination) => destination.to_string(),
        None => format!(
            "{}-kairos:{}",
            plain(&checked.base.short_name()),
            checked.version
        ),
    }
}

/// Leaves of a name what needs no quotes anywhere.
fn plain(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect();
    clean.trim_matches('-').to_owned()
}

/// Opens the image at `location` and makes sure that all its blobs are in the store.
///
/// # Errors
///
/// As for pulling: unknown references, refused credentials, damaged blobs.
pub fn fetch(location: &Location, platform: &Platform, engine: Engine<'_>) -> Result<BaseImage> {
    let run = engine.store.start_run()?;
    base::open(location, platform, engine, &run)
}

/// Returns the digest under which `image` is found again at `location`, where it has been written.
///
/// That is the manifest's own everywhere but in a Docker archive, which holds neither manifest nor compressed layers.
///
/// # Errors
///
/// The archive cannot be read.
pub fn digest_at(location: &Location, image: Digest) -> Result<Digest> {
    let Location::DockerArchive { file, reference } = location else {
        return Ok(image);
    };
    DockerArchive::open(file)
        .and_then(|archive| archive.resolve(reference.as_deref()))
        .map(|written| written.image().manifest_digest())
        .map_err(|error| Error::from_source(&error).context(format!("cannot read `{location}`")))
}

/// Writes `image`, whose blobs are in the store, to every destination.
///
/// # Errors
///
/// A layer that is not the one its config promises, or the first destination that refuses the image.
pub fn write(base: &BaseImage, destinations: &[Location], engine: Engine<'_>) -> Result<()> {
    preflight::writable(destinations)?;
    preflight::start_push_checks(engine.runtime, &engine.options.registry, destinations)
        .wait(engine)?;
    let outputs = outputs::Outputs::new(destinations, engine);
    outputs.base_layers(base);
    // While the blobs are on their way: no manifest names them before they are found right.
    check_layers(&base.image, engine)?;
    outputs
        .finish_unrecorded(&base.image)
        .context(|| "writing the image".into())
}

/// Checks that every layer unpacks to what the config promises.
fn check_layers(image: &Image, engine: Engine<'_>) -> Result<()> {
    let total = image.layers().len();
    in_parallel(total, engine.options.jobs, |index| {
        let (layer, diff_id) = (&image.layers()[index], image.diff_ids()[index]);
        stop::check(&engine.options.stop)?;
        let what = format!("layer {} of {total}", index + 1);
        let transfer = engine.reporter.transfer("check", &what, layer.size);
        Changeset::open(engine.store, layer, diff_id, Some(&transfer))
            .and_then(Changeset::finish)
            .map_err(|error| error.context(format!("checking {what} ({})", layer.digest)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_without_a_destination_gets_a_readable_name() {
        let digest = format!("ghcr.io/a/b@sha256:{}", "0".repeat(64));
        for (base, name) in [
            ("docker.io/library/ubuntu:24.04", "ubuntu-24.04"),
            ("dir:/srv/rootfs", "rootfs"),
            ("tar:/srv/my rootfs.tar.zst", "my-rootfs"),
            (&digest, "b"),
        ] {
            let base: Location = base.parse().unwrap();
            assert_eq!(plain(&base.short_name()), name);
        }
    }
}
