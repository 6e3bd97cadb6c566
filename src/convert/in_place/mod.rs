//! The same steps on a root filesystem as it stands: no layers, no registry, no step cache. What kairos-init does inside a
//! container build.
//!
//! The tree ends up as a conversion's image does: what a sandbox would have kept out of a layer is taken out afterwards
//! ([`leftovers`]).

mod leftovers;
mod lists;
mod mounts;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kfactory_layers::root::Root;

use super::framework::Builds;
use super::inputs::{Inputs, uses_framework, uses_programs};
use super::layers::later_packages;
use super::{
    Clock, Engine, Options, announce, framework, package_cache, parse_platform, preflight,
    programs, tree,
};
use crate::error::{Context as _, Error, Kind, Result};
use crate::exec::{self, Environment, Runner, Target};
use crate::framework::FrameworkSpec;
use crate::plan::{self, Facts, Plan};
use crate::progress::Reporter;
use crate::provider::{Configs, Provider};
use crate::request::{Request, Stage};
use crate::store::{Run, Store};
use crate::yip::Extensions;
use leftovers::Leftovers;

pub use mounts::is_mount_point;

/// The tree to change, and how.
#[derive(Debug, Clone)]
pub struct InPlace {
    /// The root filesystem: `/` inside a container build, or a directory.
    pub root: PathBuf,
    /// How its commands are run. [`Runner::Plain`] only on `/`; [`Runner::Sandbox`] only on the stage.
    pub runner: Runner,
    /// Variables that its commands get, `NAME=VALUE`: in a container build those of the image and of the build.
    pub env: Vec<String>,
}

/// Files with certificate authorities, where distributions have them. Without one no binary can be fetched over HTTPS.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a run works with besides the tree, in its directory.
const SCRATCH: &str = "scratch";

/// Returns where package managers keep what belongs to this tree alone, in `scratch`.
fn own_cache(scratch: &Path) -> PathBuf {
    scratch.join("lists")
}

/// Makes the plan for the tree at `root`; changes nothing.
///
/// # Errors
///
/// Usage errors, and a tree that is none of a known distribution.
pub fn plan_in_place(request: &Request, root: &Path) -> Result<Plan> {
    let checked = request.validate()?;
    let platform = parse_platform(request.platform.as_deref())?;
    let facts = super::facts_of_dir(root, &platform, &checked.base.to_string())?;
    // Those of the tree itself run only where the request names their directory, as it is with kairos-init.
    let extensions = Extensions::find(&[], request)?;
    let plugins = exec::plugins_of(&Root::open(root)?)?;
    Ok(plan::plan(&facts, request, &checked.version)?
        .with_plugins(&plugins)
        .with_extensions(&extensions, request))
}

/// Changes the tree as `request` says, whose base is that tree; the store at `options.store` serves as scratch and cache.
///
/// # Errors
///
/// As for [`super::convert`], and when another run is changing the tree. The tree is then as the failed step left it: not to be used.
pub fn convert_in_place(
    request: &Request,
    place: &InPlace,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    reporter: &Arc<Reporter>,
) -> Result<Plan> {
    let _alone = lock(&place.root)?;
    let plan = plan_in_place(request, &place.root)?;
    exec::check_manager(&plan.steps, &plan.facts, &Root::open(&place.root)?)
        .map_err(|error| error.context(format!("cannot convert {}", place.root.display())))?;
    let spec: FrameworkSpec = request.framework.parse().map_err(framework::usage)?;
    let providers = request.providers()?;
    let configs = crate::provider::read_configs(&providers)?;
    let clock = Clock::from_env()?;
    if place.runner == Runner::Sandbox {
        preflight::local(&options.store, &[])?;
    }
    let store = Store::open_beside(&options.store, &options.stop, reporter)?;
    let work = Work {
        request,
        place,
        plan: &plan,
        spec: &spec,
        providers: &providers,
        configs: &configs,
        clock: &clock,
        engine: Engine {
            store: &store,
            options,
            runtime,
            reporter,
        },
    };
    announce(&plan, request, reporter);
    work.run()?;
    Ok(plan)
}

/// Keeps a second run away from the tree while the returned file lives.
fn lock(root: &Path) -> Result<File> {
    let tree = File::open(root).context(|| format!("opening {}", root.display()))?;
    match tree.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::user(format!(
            "another run is changing {}",
            root.display()
        ))
        .hint("let it end, or give this run a tree of its own")),
        // Some file systems have no locks.
        _ => Ok(tree),
    }
}

/// One run.
struct Work<'a> {
    request: &'a Request,
    place: &'a InPlace,
    plan: &'a Plan,
    spec: &'a FrameworkSpec,
    providers: &'a [Provider],
    configs: &'a Configs,
    clock: &'a Clock,
    engine: Engine<'a>,
}

impl Work<'_> {
    fn run(&self) -> Result<()> {
        if self.plan.steps.is_empty() {
            return Ok(());
        }
        let run = self.engine.store.start_run()?;
        let root = &self.place.root;
        let mounts = mounts::below(root)?;
        let target = Target {
            root: Root::open(root).context(|| format!("opening {}", root.display()))?,
            path: root,
            lowers: &[],
            mounts: &mounts,
        };
        let leftovers = Leftovers::note(&target, &run.dir().join("before"))
            .map_err(|error| error.context("noting what there is before the first step"))?;
        self.steps(&target, &run)?;
        exec::normalize(&target.root, self.clock.created())
            .and_then(|()| leftovers.clear(&target))
            .map_err(|error| error.context("tidying the tree"))?;
        if self.request.stage == Stage::Install {
            lists::leave(&own_cache(&run.dir().join(SCRATCH)).join("lists"), &target)?;
        }
        Ok(())
    }

    /// Runs every step, with the binaries fetched beside the first ones.
    fn steps(&self, target: &Target<'_>, run: &Run) -> Result<()> {
        let arch = self.plan.facts.arch;
        let builds = Builds {
            variant: plan::framework_variant(&self.plan.steps),
            fips: self.request.fips,
        };
        let (framework, programs) = (OnceLock::new(), OnceLock::new());
        let resolve = || {
            framework
                .get_or_init(|| framework::resolve(self.spec, arch, builds, self.engine))
                .clone()
        };
        let fetch = || {
            programs
                .get_or_init(|| programs::fetch(self.providers, arch, self.engine))
                .clone()
        };
        let platform = parse_platform(self.request.platform.as_deref())?;
        let images = |source: &str, wanted: Option<&str>| {
            tree::of_image(source, wanted, &platform, self.engine, run)
        };
        let inputs = Inputs {
            framework: &resolve,
            programs: &fetch,
            configs: self.configs,
            images: &images,
        };
        let env = self.environment(&self.plan.facts, run.dir(), &inputs)?;
        let needed = self.plan.steps.iter().any(uses_framework);
        if needed && self.spec.is_local() {
            // At hand or not, and known at once: better than after minutes of installing packages.
            resolve()?;
        }
        std::thread::scope(|scope| {
            if needed && self.can_fetch() {
                scope.spawn(|| {
                    if resolve().is_err() {
                        // Nothing that installs now would be of use.
                        self.engine.options.cancel.cancel();
                    }
                });
            }
            if self.plan.steps.iter().any(uses_programs) && self.can_fetch() {
                scope.spawn(|| {
                    if fetch().is_err() {
                        self.engine.options.cancel.cancel();
                    }
                });
            }
            let outcome = self.plan.layers.iter().try_for_each(|layer| {
                let mut steps = layer.steps.iter().map(|index| &self.plan.steps[*index]);
                steps.try_for_each(|step| exec::run_step(&env, target, &layer.name, step))
            });
            outcome.map_err(|error| match (framework.get(), programs.get()) {
                // What stopped the run, where that was not the user.
                (Some(Err(cause)), _) | (_, Some(Err(cause)))
                    if error.kind() == Kind::Interrupted =>
                {
                    Error::clone(cause)
                }
                _ => error,
            })
        })
    }

    /// Tells whether the binaries can be fetched before the packages are installed: a base may have no certificate authorities yet.
    fn can_fetch(&self) -> bool {
        self.place.runner == Runner::Sandbox
            || std::env::var_os("SSL_CERT_FILE").is_some()
            || CERTIFICATES.iter().any(|file| Path::new(file).exists())
    }

    fn environment<'e>(
        &'e self,
        facts: &'e Facts,
        run: &Path,
        inputs: &Inputs<'e>,
    ) -> Result<Environment<'e>> {
        let Engine {
            store,
            options,
            reporter,
            ..
        } = self.engine;
        let scratch = run.join(SCRATCH);
        std::fs::create_dir_all(&scratch).context(|| format!("creating {}", scratch.display()))?;
        if self.place.runner == Runner::Plain {
            // Package managers work there as users of their own.
            open_to_all(run)?;
            open_to_all(&scratch)?;
        }
        Ok(Environment {
            request: self.request,
            facts,
            runner: self.place.runner,
            image_env: self.place.env.clone(),
            framework: inputs.framework,
            programs: inputs.programs,
            configs: inputs.configs,
            images: inputs.images,
            package_cache: package_cache::of_release(store, facts)?,
            // Nothing tells this tree from another at the same place, so what it writes is kept for this run only.
            base_cache: own_cache(&scratch),
            scratch,
            clamp_mtime: self.clock.clamp(),
            created: self.clock.created(),
            later_packages: later_packages(self.plan),
            packages: exec::PackageSession::default(),
            findings: Default::default(),
            jobs: options.jobs,
            reporter,
            cancel: options.cancel.clone(),
        })
    }
}

/// Lets every user pass through `dir`.
fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
        .context(|| format!("preparing {}", dir.display()))
}
