//! The subcommands that work on images.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kfactory_layers::digest::Digest;
use kfactory_layers::platform::Platform;
use kfactory_sandbox::CancelToken;
use tokio::runtime::Runtime;

use super::args::{ImageArgs, ProgressArgs};
use super::{
    ConvertArgs, CopyArgs, InspectArgs, PackagesArgs, PackagesOutput, PlanArgs, PlanOutput,
    RestoreArgs, UnpackArgs, print, show,
};
use crate::apart;
use crate::artifact::make::Artifact;
use crate::convert::{self, Engine, Options};
use crate::error::{Context as _, Error, Kind, Result};
use crate::given;
use crate::location::Location;
use crate::printable::counted;
use crate::progress::{Mode, Reporter, bytes_text};
use crate::request::{CheckedRequest, Request};
use crate::screen;
use crate::step::NAMES;
use crate::store::Store;
use crate::yip::Extensions;
use crate::{inspect as inspection, plan as planning, unpack as unpacking};

/// Time that a stopped run gets to remove its mounts and files before the process ends.
const GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// What every command on images needs.
pub(super) struct Session {
    pub(super) options: Options,
    pub(super) runtime: Runtime,
    pub(super) reporter: Arc<Reporter>,
}

impl Session {
    pub(super) fn new(
        image: &ImageArgs,
        progress: &ProgressArgs,
        no_cache: bool,
        locations: &[&str],
    ) -> Result<Self> {
        let mut session = Self::with_reporter(image, progress.reporter(), locations)?;
        session.options.no_cache = no_cache;
        Ok(session)
    }

    pub(super) fn with_reporter(
        image: &ImageArgs,
        reporter: Reporter,
        locations: &[&str],
    ) -> Result<Self> {
        // Whether or not this command dates anything: the same environment gets the same answer from all of them.
        convert::Clock::from_env()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context(|| "starting the network threads".into())?;
        let (cancel, stop) = (CancelToken::new()?, CancelToken::new()?);
        watch_signals(&runtime, [cancel.clone(), stop.clone()], reporter.is_json());
        let options = Options {
            store: image.store.dir()?,
            registry: image.registry(locations)?,
            jobs: image.jobs(),
            no_cache: false,
            force: false,
            cancel,
            stop,
        };
        Ok(Self {
            options,
            runtime,
            reporter: Arc::new(reporter),
        })
    }
}

impl Session {
    /// Returns the registry client.
    pub(super) fn registry(&self) -> &crate::registry::Registry {
        &self.options.registry
    }

    /// Opens the store beside other runs; what is read of it and written to it ends when the user stops the run.
    pub(super) fn open_store(&self) -> Result<Store> {
        Store::open_beside(&self.options.store, &self.options.stop, &self.reporter)
    }

    /// As [`open_store`](Self::open_store), for a run that reads `source`: neither the store nor a destination may be inside of it.
    fn open_store_apart(&self, source: &Location, destinations: &[Location]) -> Result<Store> {
        apart::check(source, &self.options.store, destinations)?;
        self.open_store()
    }

    /// Checks that the store is not inside of a `source` that is a directory.
    pub(super) fn check_apart(&self, source: &Location) -> Result<()> {
        apart::check(source, &self.options.store, &[])
    }

    fn engine<'a>(&'a self, store: &'a Store) -> Engine<'a> {
        Engine {
            store,
            options: &self.options,
            runtime: &self.runtime,
            reporter: &self.reporter,
        }
    }
}

/// Set by the first signal.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Returns `error` as the end of a stopped run where that is what it comes from.
pub(super) fn as_stopped(error: Error) -> Error {
    let stopped = STOPPED.load(Ordering::Relaxed) || error.kind() == Kind::Interrupted;
    if !stopped || error.is_interruption() {
        return error;
    }
    Error::interrupted("what was fetched whole is kept in the store, nothing else is left")
}

/// Stops the running command at the first signal; what it holds is then removed on the way out.
fn watch_signals(runtime: &Runtime, tokens: [CancelToken; 2], json: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    runtime.spawn(async move {
        let streams = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .map(signal);
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        STOPPED.store(true, Ordering::Relaxed);
        tokens.iter().for_each(CancelToken::cancel);
        tokio::time::sleep(GRACE).await;
        // Something that does not look at the tokens: the next run sweeps what this one leaves.
        let error = Error::interrupted(format!(
            "something did not end within {} s; the next run removes what is left of it",
            GRACE.as_secs()
        ));
        let mode = if json { Mode::Json } else { Mode::Plain };
        std::process::exit(super::report(&error, mode));
    });
}

/// Returns where a request writes and reads, the destinations first.
fn places(request: &Request) -> Vec<&str> {
    let destinations = request.destinations.iter().map(String::as_str);
    destinations.chain([request.base.as_str()]).collect()
}

pub(super) fn convert(args: &ConvertArgs) -> Result<i32> {
    let mut request = args.request.request("convert BASE [DEST]")?;
    args.artifacts.set(&mut request);
    if args.request.print_recipe {
        request.validate()?;
        print(&request.to_yaml()?)?;
        return Ok(0);
    }
    request.validate()?;
    let mut session = Session::new(
        &args.image,
        &args.progress,
        args.no_cache,
        &places(&request),
    )?;
    session.options.force = args.artifacts.force;
    let made = convert::convert(
        &request,
        &session.options,
        &session.runtime,
        &session.reporter,
    )?;
    if session.reporter.is_json() {
        let value = serde_json::json!({
            "digest": made.digest, "store": made.store_name, "destinations": made.destinations,
            "bytes": made.size_bytes, "layers": made.new_layers, "cached_layers": made.cached_layers,
            "validation": made.validation,
            "artifacts": made.artifacts.iter().map(Artifact::to_json).collect::<Vec<_>>(),
        });
        print(&format!("{value}\n"))?;
        return Ok(0);
    }
    let mut text = String::new();
    for destination in &made.destinations {
        text.push_str(&format!("{destination}\n"));
        let there = convert::digest_at(&destination.parse()?, made.digest)?;
        if there != made.digest {
            text.push_str(&format!("{there} {IN_ARCHIVE}\n"));
        }
    }
    text.push_str(&format!("store:{}\n", made.store_name));
    text.push_str(&format!(
        "{} ({} in all, {} of {} new layers cached)\n",
        made.digest,
        bytes_text(made.size_bytes),
        made.cached_layers,
        made.new_layers
    ));
    text.extend(made.artifacts.iter().map(Artifact::to_text));
    print(&text)?;
    Ok(0)
}

pub(super) fn plan(args: &PlanArgs) -> Result<i32> {
    let request = args.request.request("plan BASE")?;
    let checked = request.validate()?;
    if args.request.print_recipe {
        print(&request.to_yaml()?)?;
        return Ok(0);
    }
    let session = Session::new(&args.image, &args.progress, false, &[&request.base])?;
    let plan = make_plan(&checked, &session)?;
    match args.output {
        PlanOutput::Text => show(&plan.to_text())?,
        PlanOutput::Json => print(&format!("{}\n", serde_json::to_string_pretty(&plan)?))?,
        PlanOutput::Yip => print(&plan.to_yip()?)?,
    }
    Ok(0)
}

/// Reads the base's facts and makes the plan; nothing is run.
fn make_plan(checked: &CheckedRequest, session: &Session) -> Result<planning::Plan> {
    let request = &checked.request;
    let platform = convert::parse_platform(request.platform.as_deref())?;
    let base = convert::parse_location(&request.base, &session.options.registry)?;
    // Before the base is read, which may take a while.
    Extensions::find(&[], request)?;
    crate::provider::read_configs(&request.providers()?)?;
    let found = inspection::facts(
        &base,
        &platform,
        &session.options,
        &session.runtime,
        &session.reporter,
    )?;
    let plan = planning::plan(&found.facts, request, &checked.version)?;
    convert::check_inputs(
        request,
        &plan,
        &session.options,
        &session.runtime,
        &session.reporter,
    )?;
    let extensions = Extensions::find(&found.extensions, request)?;
    Ok(plan
        .with_plugins(&found.plugins)
        .with_extensions(&extensions, request))
}

pub(super) fn packages(args: &PackagesArgs) -> Result<i32> {
    let mut request = args.request.request("packages BASE")?;
    // The version names the result and chooses no package.
    request.version.get_or_insert_with(|| "v0.0.0".into());
    let checked = request.validate()?;
    if args.request.print_recipe {
        print(&request.to_yaml()?)?;
        return Ok(0);
    }
    let session = Session::new(&args.image, &args.progress, false, &[&request.base])?;
    let plan = make_plan(&checked, &session)?;
    match args.output {
        PackagesOutput::Text => show(&plan.packages_text())?,
        PackagesOutput::Json => {
            let value = plan.packages_json();
            print(&format!("{}\n", serde_json::to_string_pretty(&value)?))?;
        }
    }
    Ok(0)
}

/// Follows the digest of an image in a Docker archive.
const IN_ARCHIVE: &str =
    "(in the archive, where `inspect` shows it: the format keeps layers uncompressed)";

/// Says where an image was written, and under which digest it is found there.
fn written(destination: &Location, digest: Digest) -> Result<String> {
    let there = convert::digest_at(destination, digest)?;
    let note = match there == digest {
        true => String::new(),
        false => format!(" {IN_ARCHIVE}"),
    };
    Ok(format!("{destination}\n{there}{note}\n"))
}

pub(super) fn copy(args: &CopyArgs) -> Result<i32> {
    let places = [args.destination.as_str(), &args.source];
    let session = Session::new(&args.image, &args.progress, false, &places)?;
    let source = convert::parse_location(&args.source, &session.options.registry)?;
    let destination = convert::parse_location(&args.destination, &session.options.registry)?;
    destination.check_destination()?;
    let platform = convert::parse_platform(args.platform.as_deref())?;
    let store = session.open_store_apart(&source, std::slice::from_ref(&destination))?;
    let image = fetch(&source, &platform, &store, &session)?;
    convert::write(
        &image,
        std::slice::from_ref(&destination),
        session.engine(&store),
    )?;
    print(&written(&destination, image.image.manifest_digest())?)?;
    Ok(0)
}

pub(super) fn unpack(args: &UnpackArgs) -> Result<i32> {
    let platform = convert::parse_platform(args.platform.as_deref())?;
    unpacking::check_target(&args.dir)?;
    // One inside the tree is refused as such.
    if let Some(ledger) = args.ledger.as_ref().filter(|it| !it.starts_with(&args.dir)) {
        given::place_for(ledger)
            .context(|| format!("cannot write the ledger `{}`", ledger.display()))?;
    }
    let session = Session::new(&args.image, &args.progress, false, &[&args.source])?;
    let source = convert::parse_location(&args.source, &session.options.registry)?;
    for place in [Some(&args.dir), args.ledger.as_ref()]
        .into_iter()
        .flatten()
    {
        apart::check_target(&source, place)?;
    }
    let store = session.open_store_apart(&source, &[])?;
    let image = fetch(&source, &platform, &store, &session)?;
    let ledger = args.ledger.as_deref();
    let done = unpacking::unpack(&image.image, &args.dir, ledger, &store);
    let done = done.map_err(|error| match error.kind() {
        Kind::Interrupted => {
            Error::interrupted(format!("{} is as it was before", args.dir.display()))
        }
        _ => error,
    })?;
    print(&format!(
        "{}: {}, {}\n",
        args.dir.display(),
        counted(done.entries, "entry"),
        bytes_text(done.bytes)
    ))?;
    if done.maps_ids {
        session.reporter.note(
            "the files belong to you and your subordinate IDs, as `podman unshare` shows them",
        );
    }
    if done.not_applied > 0 {
        session.reporter.warn(&format!(
            "owner, device or attributes of {} are others than the image says",
            counted(done.not_applied, "entry")
        ));
    }
    if done.maps_ids || done.not_applied > 0 {
        session.reporter.note(&match &args.ledger {
            Some(file) => format!(
                "{} has what the image says; `kfactory restore` as root makes it so",
                file.display()
            ),
            None => "`--ledger FILE` writes down what the image says".to_owned(),
        });
    }
    Ok(0)
}

pub(super) fn restore(args: &RestoreArgs) -> Result<i32> {
    let doing = || format!("cannot restore {}", args.dir.display());
    given::directory(&args.dir).context(doing)?;
    given::file(&args.ledger).context(doing)?;
    let done = unpacking::restore::restore(&args.dir, &args.ledger)?;
    print(&format!(
        "{}: {}, {}\n",
        args.dir.display(),
        counted(done.entries, "entry"),
        counted(done.devices, "device node")
    ))?;
    Ok(0)
}

pub(super) fn inspect(args: &InspectArgs) -> Result<i32> {
    let platform = convert::parse_platform(args.platform.as_deref())?;
    let session = Session::new(&args.image, &args.progress, false, &[&args.source])?;
    let source = convert::parse_location(&args.source, &session.options.registry)?;
    let store = session.open_store_apart(&source, &[])?;
    let image = fetch(&source, &platform, &store, &session)?;
    convert::check_source(&source, &platform, session.engine(&store))?;
    let report = inspection::inspect(&image, &store)?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => show(&report.to_text(screen::columns()))?,
    }
    Ok(0)
}

pub(super) fn steps_info() -> Result<i32> {
    let width = NAMES
        .iter()
        .map(|info| info.name.as_str().len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for info in NAMES {
        let phase = info.phase.map_or("-", |phase| phase.name());
        text.push_str(&format!(
            "{:width$}  {phase:7}  {}\n",
            info.name.as_str(),
            info.description
        ));
    }
    show(&text)?;
    Ok(0)
}

pub(super) fn framework_build(
    framework: &str,
    output: &str,
    platform: Option<&str>,
    builds: convert::Builds,
    image: &ImageArgs,
    progress: &ProgressArgs,
) -> Result<i32> {
    let session = Session::new(image, progress, false, &[output, framework])?;
    let destination = convert::parse_location(output, &session.options.registry)?;
    destination.check_destination()?;
    let platform = convert::parse_platform(platform)?;
    if let Some(dir) = framework.strip_prefix("dir:") {
        let destinations = std::slice::from_ref(&destination);
        apart::check(
            &Location::Dir(dir.into()),
            &session.options.store,
            destinations,
        )?;
    }
    let store = session.open_store()?;
    let built = convert::framework_image(framework, &platform, builds, session.engine(&store))?;
    convert::write(
        &built,
        std::slice::from_ref(&destination),
        session.engine(&store),
    )?;
    print(&written(&destination, built.digest)?)?;
    Ok(0)
}

pub(super) fn fetch(
    source: &Location,
    platform: &Platform,
    store: &Store,
    session: &Session,
) -> Result<convert::BaseImage> {
    convert::fetch(source, platform, session.engine(store))
}
