//! Installs packages with apt: lists and archives outside the image and shared between runs, downloads ahead of
//! installation, rebuild triggers held back.
//!
//! apt works in a directory of its own below `/run` ([`Workspace`]), so nothing of it has to be taken out of the image.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;

use kfactory_sandbox::spec::Mount;

use super::{CommandOptions, CommandResult, Environment, Target, download};
use crate::distro::apt::{self, Operation, PackageUri, Workspace};
use crate::error::{Context as _, Error, Result};

/// Where the workspace stands inside the sandbox.
const WORKSPACE: &str = "/run/kfactory";

/// What the package steps of one run share.
#[derive(Debug, Default)]
pub struct Session {
    /// Whether the lists have been refreshed in this run.
    refreshed: Mutex<bool>,
    /// Archives of later steps that are still being fetched.
    ahead: Mutex<Option<JoinHandle<Result<()>>>>,
}

/// apt, ready to run on one tree.
struct Apt<'a> {
    env: &'a Environment<'a>,
    target: &'a Target<'a>,
    step: &'a str,
    workspace: Workspace,
    /// The workspace on this machine; archives and lists below it.
    dir: PathBuf,
    /// The shared cache, locked while this value lives.
    cache: PathBuf,
    _lock: File,
}

/// Refreshes the lists, upgrades if `upgrade` is set, and installs `packages`.
pub(super) fn install(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    upgrade: bool,
    packages: &[String],
) -> Result<()> {
    if packages.is_empty() && !upgrade {
        return Ok(());
    }
    let apt = Apt::open(env, target, step)?;
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt.refresh()?;
    env.packages.wait()?;
    let now = apt.missing(&names)?;
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| apt.fetch(&now));
        // An upgrade of a fresh base is a second of doing nothing: time to fetch in.
        let upgraded = if upgrade {
            apt.run(Operation::Upgrade).map(|_| ())
        } else {
            Ok(())
        };
        upgraded.and(
            fetching
                .join()
                .map_err(|_| Error::internal("fetching packages panicked"))?,
        )
    })?;
    let later: Vec<&str> = env
        .later_packages
        .iter()
        .map(String::as_str)
        .filter(|name| !names.contains(name))
        .collect();
    if upgrade && !later.is_empty() {
        let all: Vec<&str> = names.iter().copied().chain(later).collect();
        apt.fetch_in_background(apt.missing(&all)?);
    }
    if !names.is_empty() {
        apt.run(Operation::Install(&names))?;
    }
    Ok(())
}

/// Returns what the cleanup step removes: what came with the base, and temporary files.
pub(super) fn cleanup_paths() -> Vec<String> {
    [
        "/var/cache/apt/*",
        "/var/lib/apt/lists/*",
        "/tmp/*",
        "/var/tmp/*",
    ]
    .map(str::to_owned)
    .to_vec()
}

impl<'a> Apt<'a> {
    fn open(env: &'a Environment<'_>, target: &'a Target<'_>, step: &'a str) -> Result<Self> {
        let cache = env.package_cache.clone();
        let doing = || format!("preparing the package cache in {}", cache.display());
        for name in ["archives", "lists/partial"] {
            fs::create_dir_all(cache.join(name)).context(doing)?;
        }
        let lock = File::create(cache.join("lock")).context(doing)?;
        if lock.try_lock().is_err() {
            env.reporter
                .note("waiting for another run to release the package cache");
            lock.lock().context(doing)?;
        }
        let workspace = Workspace::new(WORKSPACE, u64::try_from(env.created).unwrap_or(0));
        let dir = env.scratch.join("apt");
        write_workspace(&workspace, &dir)?;
        Ok(Self {
            env,
            target,
            step,
            workspace,
            dir,
            cache,
            _lock: lock,
        })
    }

    fn command(&self, argv: &[String]) -> Result<CommandResult> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let bind = |source: &Path, target: String| Mount::Bind {
            source: source.to_owned(),
            target: target.into(),
            read_only: false,
        };
        let mounts = vec![
            bind(&self.dir, WORKSPACE.into()),
            bind(&self.cache.join("lists"), self.workspace.lists()),
        ];
        let env = self
            .workspace
            .environment()
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self.env.command(
            self.target,
            self.step,
            &argv,
            CommandOptions {
                network: true,
                mounts,
                env,
                ..CommandOptions::default()
            },
        )
    }

    fn run(&self, operation: Operation<'_>) -> Result<CommandResult> {
        self.command(
            &self
                .workspace
                .command(operation)
                .map_err(|error| Error::from_source(&error))?,
        )
    }

    /// Brings the lists up to date once in a run.
    fn refresh(&self) -> Result<()> {
        let mut refreshed = self
            .env
            .packages
            .refreshed
            .lock()
            .expect("no panic while held");
        if !*refreshed {
            self.run(Operation::Update)?;
            *refreshed = true;
        }
        Ok(())
    }

    /// Returns what installing `names` needs and this run does not have yet; what the cache has is copied into place.
    fn missing(&self, names: &[&str]) -> Result<Vec<PackageUri>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let argv = self
            .workspace
            .list_downloads(Operation::Install(names))
            .map_err(|error| Error::from_source(&error))?;
        let listed = self.command(&argv)?.lines.join("\n");
        let uris = apt::parse_uris(&listed).map_err(|error| Error::from_source(&error))?;
        let (archives, cache) = (self.dir.join("archives"), self.cache.join("archives"));
        Ok(uris
            .into_iter()
            .filter(|uri| !download::take_cached(uri, &cache, &archives))
            .collect())
    }

    fn fetch(&self, uris: &[PackageUri]) -> Result<()> {
        if uris.is_empty() || !self.env.has_network() {
            return Ok(());
        }
        let bytes = uris.iter().map(|uri| uri.size_bytes).sum();
        let transfer =
            self.env
                .reporter
                .transfer("download", &format!("{} packages", uris.len()), bytes);
        download::fetch(
            uris,
            &self.cache.join("archives"),
            &self.dir.join("archives"),
            self.env.jobs,
            &|n| transfer.advance(n),
        )
    }

    /// Fetches what later steps install while this one installs.
    fn fetch_in_background(&self, uris: Vec<PackageUri>) {
        if uris.is_empty() || !self.env.has_network() {
            return;
        }
        let (cache, archives, jobs) = (
            self.cache.join("archives"),
            self.dir.join("archives"),
            self.env.jobs,
        );
        let job =
            std::thread::spawn(move || download::fetch(&uris, &cache, &archives, jobs, &|_| {}));
        *self.env.packages.ahead.lock().expect("no panic while held") = Some(job);
    }
}

/// Makes the workspace's directories and files at `dir`.
fn write_workspace(workspace: &Workspace, dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let doing = || format!("preparing apt's workspace in {}", dir.display());
    let local = |path: &str| {
        path.strip_prefix(WORKSPACE)
            .map(|rest| dir.join(rest.trim_start_matches('/')))
    };
    for path in workspace
        .directories()
        .iter()
        .filter_map(|path| local(path))
    {
        fs::create_dir_all(path).context(doing)?;
    }
    for file in workspace.files() {
        let Some(path) = local(&file.path) else {
            return Err(Error::internal(format!(
                "{} is outside the workspace",
                file.path
            )));
        };
        fs::write(&path, &file.content).context(doing)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).context(doing)?;
    }
    Ok(())
}

impl Session {
    /// Says that the sources are others now: the lists are brought up to date before the next installation.
    pub(super) fn sources_changed(&self) {
        *self.refreshed.lock().expect("no panic while held") = false;
    }

    /// Waits for archives that are being fetched ahead.
    fn wait(&self) -> Result<()> {
        let job = self.ahead.lock().expect("no panic while held").take();
        match job {
            Some(job) => job
                .join()
                .map_err(|_| Error::internal("fetching packages panicked"))?,
            None => Ok(()),
        }
    }
}
