//! Runs the plan's layers: from the step cache where nothing changed, on an overlay otherwise.
//!
//! A layer's changes are an overlay upper directory. When its steps have ended it becomes the topmost lower directory
//! of the next overlay, and in the background it is captured, hashed, compressed and uploaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Instant;

use kfactory_layers::chain::extend;
use kfactory_layers::compress::Compression;
use kfactory_layers::diff::{CaptureOptions, capture_upper};
use kfactory_layers::digest::Digest;
use kfactory_layers::layer::{LayerInfo, LayerWriter};
use kfactory_layers::root::Root;
use kfactory_sandbox::overlay::OverlayMount;

use super::cache::base_chain;
use super::check::Check;
use super::framework::Builds;
use super::inputs::{Inputs, uses_framework, uses_programs};
use super::outputs::Outputs;
use super::space::{self, Estimate};
use super::{BaseImage, Clock, Engine, package_cache, tree};
use crate::error::{Context as _, Error, Kind, Result};
use crate::exec::{self, Environment, Target};
use crate::framework::{self, Framework};
use crate::plan::{Facts, LayerUnit, Plan, framework_variant};
use crate::provider::{Configs, Provider};
use crate::request::Request;
use crate::step::Action;
use crate::store::{Run, StepRecord, boot_id, discard_tree};
use crate::validate::Report;

/// A layer of the result.
#[derive(Debug, Clone)]
pub(super) struct MadeLayer {
    pub(super) name: String,
    pub(super) info: LayerInfo,
    /// When its steps ran, in seconds since 1970: a cached layer keeps its date, so that its image keeps its digest.
    pub(super) created: i64,
    pub(super) cached: bool,
    /// What its steps found out, said again when it comes from the cache.
    pub(super) findings: Vec<String>,
}

/// What the layers of one run share.
pub(super) struct Builder<'a> {
    pub(super) request: &'a Request,
    pub(super) engine: Engine<'a>,
    pub(super) run: &'a Run,
    pub(super) clock: &'a Clock,
    pub(super) compression: Compression,
    pub(super) framework: &'a framework::FrameworkSpec,
    pub(super) providers: &'a [Provider],
    pub(super) configs: &'a Configs,
    pub(super) outputs: &'a Outputs<'a>,
    /// Is told which layers are in the step cache, the lowest first.
    pub(super) kept: &'a Mutex<Vec<String>>,
    pub(super) check: Check<'a>,
}

/// A layer of a running build.
enum Pending<'scope> {
    Ready(MadeLayer),
    Capturing(ScopedJoinHandle<'scope, Result<MadeLayer>>),
}

/// A layer that has run and waits to be captured.
struct Finished {
    name: String,
    key: Digest,
    /// Its directory below `changes/`.
    changes: String,
    /// What stood below it, topmost first.
    lowers: Vec<PathBuf>,
    /// What its steps found out.
    findings: Vec<String>,
}

impl Builder<'_> {
    /// Makes every layer of `plan` on top of the base's `tree`, and validates what they are together.
    ///
    /// # Errors
    ///
    /// The first step that fails. Layers that were whole by then stay in the step cache.
    pub(super) fn build(
        &self,
        plan: &Plan,
        facts: &Facts,
        base: &BaseImage,
        tree: &Path,
    ) -> Result<(Vec<MadeLayer>, Option<Report>)> {
        let framework = OnceLock::new();
        let resolve = || {
            framework
                .get_or_init(|| self.resolve_framework(plan, facts))
                .clone()
        };
        let programs = OnceLock::new();
        let fetch = || {
            programs
                .get_or_init(|| super::programs::fetch(self.providers, facts.arch, self.engine))
                .clone()
        };
        let images = |source: &str, platform: Option<&str>| {
            tree::of_image(
                source,
                platform,
                &base.image.platform(),
                self.engine,
                self.run,
            )
        };
        let inputs = Inputs {
            framework: &resolve,
            programs: &fetch,
            configs: self.configs,
            images: &images,
        };
        let needed = plan.steps.iter().any(uses_framework);
        std::thread::scope(|scope| {
            if needed {
                // Fetched or built while packages install; whoever needs it first waits for it.
                scope.spawn(|| {
                    if resolve().is_err() {
                        // Nothing that installs now would be of use.
                        self.engine.options.cancel.cancel();
                    }
                });
            }
            if plan.steps.iter().any(uses_programs) {
                scope.spawn(|| {
                    if fetch().is_err() {
                        self.engine.options.cancel.cancel();
                    }
                });
            }
            // What stopped the run, where that was not the user.
            let cause = |error: Error| match (framework.get(), programs.get()) {
                (Some(Err(cause)), _) | (_, Some(Err(cause)))
                    if error.kind() == Kind::Interrupted =>
                {
                    cause.clone()
                }
                _ => error,
            };
            let (cached, keys) = self.cached_prefix(plan, base, &inputs)?;
            for layer in &cached {
                self.keeps(&layer.name);
                self.engine.reporter.cached(&layer.name);
                for finding in &layer.findings {
                    self.engine.reporter.note(finding);
                }
                self.outputs.layer(&layer.info);
            }
            let mut pending: Vec<Pending<'_>> =
                cached.iter().cloned().map(Pending::Ready).collect();
            let checking = if cached.len() < plan.layers.len() {
                self.check_space(plan, &cached, &keys)?;
                if needed && self.framework.is_local() {
                    // At hand or not, and known at once: better than after minutes of installing packages.
                    resolve()?;
                }
                let env = self.environment(plan, facts, base, &inputs)?;
                let lowers = self.stack_below(base, tree, &cached, &keys)?;
                self.run_rest(
                    scope,
                    (&env, &inputs),
                    plan,
                    base,
                    &cached,
                    lowers,
                    &mut pending,
                )
                // The last layer is still being captured and uploaded.
                .map(|all| Some(scope.spawn(move || self.check.stack(&all))))
            } else {
                Ok(None)
            };
            // Captures are waited for even when a step failed: what is whole goes into the cache.
            let made: Result<Vec<MadeLayer>> = pending.into_iter().map(Pending::wait).collect();
            let checking = checking.map_err(&cause)?;
            let made = made.map_err(&cause)?;
            let report = match checking {
                Some(job) => job
                    .join()
                    .map_err(|_| Error::internal("validating the result panicked"))??,
                None => None,
            };
            let report = self.report(base, tree, &made, &keys, report)?;
            Ok((made, report))
        })
    }

    /// Runs the layers after the cached ones, each on top of all before it; returns the whole stack, topmost first.
    #[allow(
        clippy::too_many_arguments,
        reason = "called once; a struct would be made and taken apart again"
    )]
    fn run_rest<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        (env, inputs): (&Environment<'_>, &Inputs<'_>),
        plan: &Plan,
        base: &BaseImage,
        cached: &[MadeLayer],
        mut lowers: Vec<PathBuf>,
        pending: &mut Vec<Pending<'scope>>,
    ) -> Result<Vec<PathBuf>> {
        let mut key = self.key_after(plan, base, cached.len(), inputs)?;
        let chain = cached.iter().fold(base_chain(base), |chain, layer| {
            extend(chain, layer.info.diff_id)
        });
        let (sender, mut below) = mpsc::channel();
        let _ = sender.send(chain);
        for (index, unit) in plan.layers.iter().enumerate().skip(cached.len()) {
            key = self.key(&key, plan, unit, base, inputs)?;
            let changes = self.run_unit(env, plan, unit, index, &lowers)?;
            let upper = self.engine.store.changes(&changes);
            let finished = Finished {
                name: unit.name.clone(),
                key,
                changes,
                lowers: lowers.clone(),
                findings: env.take_findings(),
            };
            let (above, next) = mpsc::channel();
            let chain = std::mem::replace(&mut below, next);
            let job = scope.spawn(move || {
                crate::priority::lower();
                self.capture_and_record(&finished, &chain, &above)
            });
            pending.push(Pending::Capturing(job));
            lowers.insert(0, upper);
        }
        Ok(lowers)
    }

    /// Returns the report about the finished layers: the `fresh` one, a remembered one, or one that is made now.
    fn report(
        &self,
        base: &BaseImage,
        tree: &Path,
        made: &[MadeLayer],
        keys: &[Digest],
        fresh: Option<Report>,
    ) -> Result<Option<Report>> {
        if !self.check.is_wanted() {
            return Ok(None);
        }
        let chain = made.iter().fold(base_chain(base), |chain, layer| {
            extend(chain, layer.info.diff_id)
        });
        if fresh.is_none()
            && let Some(report) = self.check.remembered(&chain)
        {
            return Ok(Some(report));
        }
        let report = match fresh {
            Some(report) => Some(report),
            None => self
                .check
                .stack(&self.stack_below(base, tree, made, keys)?)?,
        };
        if let Some(report) = &report {
            self.check.remember(&chain, report)?;
        }
        Ok(report)
    }

    /// Captures a finished layer, hands it to the destinations and records it in the step cache.
    ///
    /// `chain` receives the chain ID of everything below, once that is known; `above` is told this layer's own.
    fn capture_and_record(
        &self,
        layer: &Finished,
        chain: &mpsc::Receiver<Digest>,
        above: &mpsc::Sender<Digest>,
    ) -> Result<MadeLayer> {
        let start = Instant::now();
        let upper = self.engine.store.changes(&layer.changes);
        let info = self
            .capture(&upper, &layer.lowers)
            .map_err(|error| error.context(format!("capturing layer `{}`", layer.name)))?;
        let took = start.elapsed();
        self.outputs.layer(&info);
        // Without an answer the layer below failed, and that error is the one to report.
        let made = MadeLayer {
            name: layer.name.clone(),
            info,
            created: self.clock.created(),
            cached: false,
            findings: layer.findings.clone(),
        };
        let Ok(parent) = chain.recv() else {
            return Ok(made);
        };
        let record = StepRecord {
            layer: layer.name.clone(),
            parent,
            changes: layer.changes.clone(),
            created: made.created,
            blobs: [(self.compression.to_string(), made.info.clone())].into(),
            boot: boot_id(),
            findings: layer.findings.clone(),
        };
        self.engine.store.put_step(&layer.key, &record)?;
        self.keeps(&layer.name);
        // Said only now: what is said to be done is kept, whatever happens next.
        self.engine.reporter.layer_done(
            &layer.name,
            made.info.uncompressed_size,
            made.info.size,
            took,
        );
        let _ = above.send(extend(parent, made.info.diff_id));
        Ok(made)
    }

    /// Says so where the disk may be too small for the layers that are not cached.
    fn check_space(&self, plan: &Plan, cached: &[MadeLayer], keys: &[Digest]) -> Result<()> {
        let dir = self.engine.store.dir();
        let rebuilt = match self.stack_is_at_hand(keys) {
            true => 0,
            false => cached
                .iter()
                .map(|layer| layer.info.uncompressed_size)
                .sum(),
        };
        let estimate =
            Estimate::of(plan, cached.len()).and("unpacking the layers before them", rebuilt);
        if let Some(warning) = estimate.check(space::free_bytes(dir)?, dir)? {
            self.engine.reporter.warn(&warning);
        }
        Ok(())
    }

    fn keeps(&self, layer: &str) {
        let mut kept = self.kept.lock().expect("no panic while held");
        kept.push(layer.to_owned());
    }

    fn environment<'e>(
        &'e self,
        plan: &Plan,
        facts: &'e Facts,
        base: &BaseImage,
        inputs: &Inputs<'e>,
    ) -> Result<Environment<'e>> {
        let cache = package_cache::of_base(self.engine.store, facts, &base_chain(base))?;
        let scratch = self.run.dir().join("scratch");
        fs::create_dir_all(&scratch).context(|| format!("creating {}", scratch.display()))?;
        Ok(Environment {
            request: self.request,
            facts,
            runner: exec::Runner::Sandbox,
            image_env: base.image.env().into_iter().map(str::to_owned).collect(),
            framework: inputs.framework,
            programs: inputs.programs,
            configs: inputs.configs,
            images: inputs.images,
            package_cache: cache.shared,
            base_cache: cache.own,
            scratch,
            clamp_mtime: self.clock.clamp(),
            created: self.clock.created(),
            later_packages: later_packages(plan),
            packages: exec::PackageSession::default(),
            findings: Default::default(),
            jobs: self.engine.options.jobs,
            reporter: self.engine.reporter,
            cancel: self.engine.options.cancel.clone(),
        })
    }

    /// Runs the steps of one layer on a fresh overlay and returns the name of its changes directory.
    fn run_unit(
        &self,
        env: &Environment<'_>,
        plan: &Plan,
        unit: &LayerUnit,
        index: usize,
        lowers: &[PathBuf],
    ) -> Result<String> {
        let id = self.run.changes_id(index);
        let upper = self.engine.store.changes(&id);
        let outcome = self.run_steps(env, plan, unit, index, lowers, &upper);
        if outcome.is_err() {
            discard_tree(&upper);
        }
        outcome.map(|()| id)
    }

    /// Runs the steps of one layer so that their changes end in `upper`.
    fn run_steps(
        &self,
        env: &Environment<'_>,
        plan: &Plan,
        unit: &LayerUnit,
        index: usize,
        lowers: &[PathBuf],
        upper: &Path,
    ) -> Result<()> {
        let work = self.run.dir().join(format!("work-{index}"));
        let mounted = self.run.dir().join("root");
        for dir in [upper, &work, &mounted] {
            fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
        }
        copy_root_metadata(&lowers[0], upper)?;
        let mount = OverlayMount::mount(lowers, upper, &work, &mounted)
            .map_err(|error| Error::from_source(&error).hints(error.hints()))?;
        let target = Target {
            root: Root::open(&mounted).context(|| format!("opening {}", mounted.display()))?,
            path: &mounted,
            lowers,
            mounts: &[],
        };
        for &step in &unit.steps {
            exec::run_step(env, &target, &unit.name, &plan.steps[step])?;
        }
        exec::normalize(&target.root, self.clock.created())
            .map_err(|error| error.context(format!("tidying layer `{}`", unit.name)))?;
        drop(target);
        mount
            .unmount()
            .map_err(|error| Error::from_source(&error))?;
        exec::prune(upper).map_err(|error| error.context(format!("tidying layer `{}`", unit.name)))
    }

    /// Writes the changes as a layer blob: one pass from the tree to both digests and the file.
    fn capture(&self, upper: &Path, lowers: &[PathBuf]) -> Result<LayerInfo> {
        let doing = || format!("writing the changes in {}", upper.display());
        let blob = self.engine.store.blob_writer().context(doing)?;
        let mut writer =
            LayerWriter::new(blob, self.compression, self.engine.options.jobs).context(doing)?;
        let options = CaptureOptions {
            clamp_mtime: self.clock.clamp(),
            ..CaptureOptions::default()
        };
        capture_upper(upper, lowers, &options, &mut writer).context(doing)?;
        let (blob, info) = writer.finish().context(doing)?;
        let blob = blob.into_inner();
        blob.commit_as(&info.digest, info.size).context(doing)?;
        Ok(info)
    }

    fn resolve_framework(&self, plan: &Plan, facts: &Facts) -> Result<Framework> {
        let builds = Builds {
            variant: framework_variant(&plan.steps),
            fips: self.request.fips,
        };
        super::framework::resolve(self.framework, facts.arch, builds, self.engine)
    }
}

impl Pending<'_> {
    fn wait(self) -> Result<MadeLayer> {
        match self {
            Pending::Ready(layer) => Ok(layer),
            Pending::Capturing(job) => job
                .join()
                .map_err(|_| Error::internal("capturing a layer panicked"))?,
        }
    }
}

/// Returns every package name of the plan: what one step installs, the step before it can fetch.
pub(super) fn later_packages(plan: &Plan) -> Vec<String> {
    let actions = plan.steps.iter().flat_map(|step| &step.actions);
    actions
        // Nobody can look up what comes from repositories that are yet to be added.
        .take_while(|action| !matches!(action, Action::ListsChanged))
        .flat_map(|action| match action {
            Action::Packages { install, .. } => install.as_slice(),
            _ => &[],
        })
        .cloned()
        .collect()
}

/// Gives the upper directory the mode, owner and time of the directory it covers: overlayfs shows the upper one's.
fn copy_root_metadata(below: &Path, upper: &Path) -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let doing = || format!("preparing {}", upper.display());
    let metadata = fs::metadata(below).context(doing)?;
    chown(upper, Some(metadata.uid()), Some(metadata.gid())).context(doing)?;
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .context(doing)?;
    let times = fs::FileTimes::new().set_modified(metadata.modified().context(doing)?);
    fs::File::open(upper)
        .and_then(|dir| dir.set_times(times))
        .context(doing)
}
