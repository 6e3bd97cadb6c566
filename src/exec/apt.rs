//! Installs packages with apt: lists and archives outside the image and shared between runs, downloads ahead of
//! installation, rebuild triggers held back.
//!
//! apt works in a directory of its own below `/run` ([`Workspace`]), so nothing of it has to be taken out of the image.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use kfactory_sandbox::spec::Mount;

use super::aside::Aside;
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
    /// Packages whose archives, and those they depend on, are in the workspace.
    at_hand: Mutex<BTreeSet<String>>,
}

/// apt, ready to run on one tree.
pub(super) struct Apt<'a> {
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
///
/// ```text
/// in order      list | upgrade          | install ...
/// beside it          | fetch            |
/// second root        | list later ones  | decompress, fetch later ones, decompress those
/// ```
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
    let now = apt.needed(target, &names)?;
    std::thread::scope(|scope| {
        let (fetched, archives_whole) = mpsc::channel();
        let (apt, now, names) = (&apt, &now, names.as_slice());
        let fetching = scope.spawn(move || apt.fetch(now, true));
        if upgrade {
            // Only saves time: what goes wrong here goes wrong again, and is told, where it is needed.
            scope.spawn(move || apt.work_ahead(names, now, &archives_whole).ok());
            apt.run(Operation::Upgrade)?;
        }
        fetching
            .join()
            .map_err(|_| Error::internal("fetching packages panicked"))??;
        let _ = fetched.send(());
        if !names.is_empty() {
            apt.run(Operation::Install(names))?;
        }
        Ok(())
    })
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
    pub(super) fn open(
        env: &'a Environment<'_>,
        target: &'a Target<'_>,
        step: &'a str,
    ) -> Result<Self> {
        let cache = env.package_cache.clone();
        let doing = || format!("preparing the package cache in {}", cache.display());
        fs::create_dir_all(cache.join("archives")).context(doing)?;
        fs::create_dir_all(env.base_cache.join("lists/partial")).context(doing)?;
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

    pub(super) fn command(&self, target: &Target<'_>, argv: &[String]) -> Result<CommandResult> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let bind = |source: &Path, target: String| Mount::Bind {
            source: source.to_owned(),
            target: target.into(),
            read_only: false,
        };
        let mounts = vec![
            bind(&self.dir, WORKSPACE.into()),
            bind(&self.env.base_cache.join("lists"), self.workspace.lists()),
        ];
        let env = self
            .workspace
            .environment()
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        self.env.command(
            target,
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

    /// Runs a command of apt whose status is part of its answer, and returns what it printed.
    ///
    /// # Errors
    ///
    /// [`Kind::Step`] when apt cannot answer; a refusal that was asked for (status 1) is an answer.
    pub(super) fn ask(&self, argv: &[String]) -> Result<Vec<String>> {
        let mut shell = vec![
            "sh".to_owned(),
            "-c".into(),
            r#""$@"; [ $? -le 1 ]"#.into(),
            "sh".into(),
        ];
        shell.extend_from_slice(argv);
        self.command(self.target, &shell).map(|result| result.lines)
    }

    /// Installs a package from a file of this machine, and what it depends on.
    pub(super) fn install_file(&self, file: &Path) -> Result<()> {
        let doing = || format!("copying {}", file.display());
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::user("its name is no text").context(doing()))?;
        fs::copy(file, self.dir.join("archives").join(name)).context(doing)?;
        let inside = format!("{}/{name}", self.workspace.archives());
        let argv = ["apt-get", &self.config(), "--quiet", "install", &inside];
        self.command(self.target, &argv.map(str::to_owned))
            .map(|_| ())
    }

    /// Returns the option by which every tool of apt finds its lists and archives.
    pub(super) fn config(&self) -> String {
        self.workspace.config_option()
    }

    fn run(&self, operation: Operation<'_>) -> Result<CommandResult> {
        let argv = self
            .workspace
            .command(operation)
            .map_err(|error| Error::from_source(&error))?;
        self.command(self.target, &argv)
    }

    /// Brings the lists up to date once in a run.
    pub(super) fn refresh(&self) -> Result<()> {
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

    /// Returns the archives that installing `names` needs and that are not in the workspace yet.
    fn needed(&self, target: &Target<'_>, names: &[&str]) -> Result<Vec<PackageUri>> {
        if self.env.packages.has(names) {
            return Ok(Vec::new());
        }
        let argv = self
            .workspace
            .list_downloads(Operation::Install(names))
            .map_err(|error| Error::from_source(&error))?;
        let listed = self.command(target, &argv)?.lines.join("\n");
        apt::parse_uris(&listed).map_err(|error| Error::from_source(&error))
    }

    /// Puts archives into the workspace, from the cache or from their mirror.
    fn fetch(&self, archives: &[PackageUri], shown: bool) -> Result<()> {
        let (place, cache) = (self.dir.join("archives"), self.cache.join("archives"));
        let missing: Vec<&PackageUri> = archives
            .iter()
            .filter(|uri| !download::take_cached(uri, &cache, &place))
            .collect();
        if missing.is_empty() || !self.env.has_network() {
            return Ok(());
        }
        let transfer = shown.then(|| {
            let bytes = missing.iter().map(|uri| uri.size_bytes).sum();
            let what = format!("{} packages", missing.len());
            self.env.reporter.transfer("download", &what, bytes)
        });
        let progress = |count| {
            if let Some(transfer) = &transfer {
                transfer.advance(count);
            }
        };
        download::fetch(&missing, &cache, &place, self.env.jobs, &progress)
    }

    /// Prepares, while this step installs `names`, what is slow and needs no order: decompressing its archives `now`, which are all
    /// there when `archives_whole` says so, and fetching and decompressing those of later steps.
    fn work_ahead(
        &self,
        names: &[&str],
        now: &[PackageUri],
        archives_whole: &mpsc::Receiver<()>,
    ) -> Result<()> {
        let aside = Aside::open(self.env, self.target)?;
        let target = aside.target()?;
        let later = self.env.later_packages.iter().map(String::as_str);
        let all: Vec<&str> = names.iter().copied().chain(later).collect();
        let mut later = self.needed(&target, &all)?;
        later.retain(|uri| !now.contains(uri));
        let Ok(()) = archives_whole.recv() else {
            return Ok(());
        };
        std::thread::scope(|scope| {
            // Beside what installs, so nobody waits for it: no line of its own.
            let fetching = scope.spawn(|| self.fetch(&later, false));
            self.decompress(&target, now)?;
            fetching
                .join()
                .map_err(|_| Error::internal("fetching packages panicked"))?
        })?;
        self.env.packages.add(&all);
        self.decompress(&target, &later)
    }

    /// Decompresses archives, the largest first; one core stays with apt.
    fn decompress(&self, target: &Target<'_>, archives: &[PackageUri]) -> Result<()> {
        if archives.is_empty() {
            return Ok(());
        }
        let mut archives: Vec<&PackageUri> = archives.iter().collect();
        archives.sort_by_key(|uri| std::cmp::Reverse(uri.size_bytes));
        let names: Vec<&str> = archives.iter().map(|uri| uri.filename.as_str()).collect();
        let jobs = self.env.jobs.saturating_sub(1);
        self.command(target, &self.workspace.decompress_ahead(&names, jobs))
            .map(|_| ())
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
    /// Returns whether everything that `names` need is in the workspace.
    fn has(&self, names: &[&str]) -> bool {
        let at_hand = self.at_hand.lock().expect("no panic while held");
        names.iter().all(|name| at_hand.contains(*name))
    }

    fn add(&self, names: &[&str]) {
        let mut at_hand = self.at_hand.lock().expect("no panic while held");
        at_hand.extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// Says that the sources are others now: the lists are brought up to date before the next installation.
    pub(super) fn sources_changed(&self) {
        *self.refreshed.lock().expect("no panic while held") = false;
        self.at_hand.lock().expect("no panic while held").clear();
    }
}
