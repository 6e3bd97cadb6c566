//! Installs packages with apt: lists and archives on mounts shared between runs, downloads ahead of installation,
//! rebuild triggers held back.
//!
//! What is held back leaves no trace: it is done by mounts that exist only while the command runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;

use kfactory_sandbox::spec::Mount;

use super::{CommandOptions, Environment, Target, download};
use crate::distro::apt;
use crate::error::{Context as _, Error, Result};

/// The package cache of one distribution release, shared between runs and locked by one at a time.
#[derive(Debug)]
struct Cache {
    dir: PathBuf,
    _lock: File,
}

/// Archives of later steps that are still being fetched.
#[derive(Debug, Default)]
pub struct Ahead(Mutex<Option<JoinHandle<Result<()>>>>);

/// Brings the lists up to date and upgrades if `upgrade` is set, then installs `packages`.
pub(super) fn install(env: &Environment<'_>, target: &Target<'_>, step: &str, upgrade: bool, packages: &[String]) -> Result<()> {
    if packages.is_empty() && !upgrade {
        return Ok(());
    }
    let cache = Cache::lock(env)?;
    let run = |arguments: &[&str], network: bool| {
        let argv: Vec<&str> = apt::COMMAND.iter().copied().chain(arguments.iter().copied()).collect();
        env.command(target, step, &argv, CommandOptions { network, mounts: cache.mounts(env, target)?, env: apt::environment(), any_status: false })
    };
    if upgrade || !cache.has_lists() {
        run(apt::UPDATE, true)?;
    }
    let names: Vec<&str> = packages.iter().map(String::as_str).collect();
    let install: Vec<&str> = apt::INSTALL.iter().copied().chain(names.iter().copied()).collect();
    env.ahead.wait()?;
    if env.has_network() {
        let uris = |arguments: &[&str]| -> Result<Vec<apt::PackageUri>> {
            let argv: Vec<&str> = apt::PRINT_URIS.iter().copied().chain(arguments.iter().copied()).collect();
            Ok(apt::parse_uris(&run(&argv, false)?.lines.join("\n")))
        };
        let mut now = if upgrade { uris(apt::UPGRADE)? } else { Vec::new() };
        now.extend(uris(&install)?);
        let later: Vec<&str> = env.later_packages.iter().map(String::as_str).filter(|name| !names.contains(name)).collect();
        let all: Vec<&str> = install.iter().copied().chain(later.iter().copied()).collect();
        let later = if later.is_empty() { Vec::new() } else { uris(&all)? };
        cache.fetch(env, now, later)?;
    }
    // Whatever could not be fetched ahead (another transport than HTTP, say), apt fetches itself.
    if upgrade {
        run(apt::UPGRADE, true)?;
    }
    if !names.is_empty() {
        run(&install, true)?;
    }
    Ok(())
}

/// Returns what the cleanup step removes: package lists and archives that came with the base, and temporary files.
pub(super) fn cleanup_paths() -> Vec<String> {
    ["/var/cache/apt/*", "/var/lib/apt/lists/*", "/tmp/*", "/var/tmp/*"].map(str::to_owned).to_vec()
}

impl Cache {
    fn lock(env: &Environment<'_>) -> Result<Self> {
        let dir = env.package_cache.clone();
        let doing = || format!("preparing the package cache in {}", dir.display());
        for name in ["cache/archives/partial", "lists/partial"] {
            fs::create_dir_all(dir.join(name)).context(doing)?;
        }
        let lock = File::create(dir.join("lock")).context(doing)?;
        if lock.try_lock().is_err() {
            env.reporter.note("waiting for another run to release the package cache");
            lock.lock().context(doing)?;
        }
        Ok(Self { dir, _lock: lock })
    }

    fn has_lists(&self) -> bool {
        fs::read_dir(self.dir.join("lists")).is_ok_and(|entries| entries.filter_map(std::result::Result::ok).any(|entry| entry.path().is_file()))
    }

    fn archives(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    fn mounts(&self, _env: &Environment<'_>, target: &Target<'_>) -> Result<Vec<Mount>> {
        let mut mounts = vec![
            Mount::Bind { source: self.dir.join("cache"), target: "/var/cache/apt".into(), read_only: false },
            Mount::Bind { source: self.dir.join("lists"), target: "/var/lib/apt/lists".into(), read_only: false },
            Mount::File { target: apt::CONFIG_PATH.into(), content: apt::CONFIG.as_bytes().to_vec(), mode: 0o644 },
        ];
        for held in apt::HELD_BACK {
            // Programs that are not installed yet need not be held back: what runs them is not installed either.
            let wanted = held.always || target.root.exists(held.path)?;
            if wanted {
                mounts.push(Mount::File { target: held.path.into(), content: held.script.as_bytes().to_vec(), mode: 0o755 });
            }
        }
        Ok(mounts)
    }

    /// Fetches `now` and waits; fetches `later` in the background.
    fn fetch(&self, env: &Environment<'_>, now: Vec<apt::PackageUri>, later: Vec<apt::PackageUri>) -> Result<()> {
        let archives = self.archives();
        let missing = |uris: Vec<apt::PackageUri>| -> Vec<apt::PackageUri> { uris.into_iter().filter(|uri| !is_cached(&archives, uri)).collect() };
        let now = missing(now);
        let later: Vec<_> = missing(later).into_iter().filter(|uri| !now.iter().any(|known| known.filename == uri.filename)).collect();
        let bytes = now.iter().map(|uri| uri.size).sum();
        if !now.is_empty() {
            let transfer = env.reporter.transfer("download", &format!("{} packages", now.len()), bytes);
            download::fetch(&now, &archives, env.jobs, &|n| transfer.advance(n))?;
        }
        if !later.is_empty() {
            let jobs = env.jobs;
            env.ahead.start(std::thread::spawn(move || download::fetch(&later, &archives, jobs, &|_| {})));
        }
        Ok(())
    }
}

fn is_cached(archives: &Path, uri: &apt::PackageUri) -> bool {
    fs::metadata(archives.join(&uri.filename)).is_ok_and(|metadata| metadata.len() == uri.size)
}

impl Ahead {
    fn start(&self, job: JoinHandle<Result<()>>) {
        *self.0.lock().expect("no panic while held") = Some(job);
    }

    fn wait(&self) -> Result<()> {
        let job = self.0.lock().expect("no panic while held").take();
        match job {
            Some(job) => job.join().map_err(|_| Error::internal("fetching packages panicked"))?,
            None => Ok(()),
        }
    }
}
