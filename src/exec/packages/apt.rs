//! Installs packages with apt: lists and archives outside the image and shared between runs, downloads ahead of
//! installation, rebuild triggers held back.
//!
//! apt works in a directory of its own below `/run` ([`Workspace`]), so nothing of it has to be taken out of the image.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};

use super::workspace::{self, bind, local};
use super::{Lines, Site, Wanted, missing};
use crate::distro::apt::{self, Operation, PackageUri, Workspace};
use crate::distro::manager::{Setup, WORKSPACE};
use crate::error::{Context as _, Error, Result};
use crate::exec::aside::Aside;
use crate::exec::unpacked::{Archive, Unpacked};
use crate::exec::{CommandOptions, CommandResult, Environment, Target, download};
use crate::printable::counted;

/// What apt says about an installation before it does it.
#[derive(Debug, Default)]
struct Listing {
    /// What it would download.
    archives: Vec<PackageUri>,
    /// Whether no installed package has a newer version.
    up_to_date: bool,
}

/// apt, ready to run on one tree.
pub(in crate::exec) struct Apt<'a> {
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

/// Refreshes the lists, and upgrades and installs what is wanted.
///
/// ```text
/// in order      list | upgrade          | install ...
/// beside it          | fetch            | fetch later ones
/// second root        | list later ones  |
/// background         | decompress what is there ...
/// ```
pub(super) fn install(site: Site<'_>, wanted: Wanted<'_>) -> Result<()> {
    let (Site { env, target, .. }, upgrade) = (site, wanted.upgrade);
    if wanted.install.is_empty() && !upgrade {
        return Ok(());
    }
    let apt = Apt::open(site)?;
    let names: Vec<&str> = wanted.install.iter().map(String::as_str).collect();
    apt.refresh()?;
    apt.unpacked().next();
    let listing = apt.list(target, &names)?;
    apt.unpacked().will_unpack(listing.archives.len());
    let (now, upgrade_is_due) = (listing.archives, upgrade && !listing.up_to_date);
    let (at_hand, archives) = mpsc::channel();
    let archives = Mutex::new(archives);
    std::thread::scope(|scope| {
        let (apt, now, names) = (&apt, &now, names.as_slice());
        for _ in 0..env.jobs.max(1) {
            scope.spawn(|| apt.unpacked().work(&archives));
        }
        let (fetched, may_fetch_later) = mpsc::channel();
        // A tree that is changed in place has no second view to look later ones up in.
        if upgrade && !target.lowers.is_empty() {
            let at_hand = at_hand.clone();
            // Only saves time: what goes wrong here goes wrong again, and is told, where it is needed.
            scope.spawn(move || apt.fetch_later(names, now, &may_fetch_later, &at_hand).ok());
        }
        let fetching = scope.spawn(move || apt.fetch(now, false, &at_hand));
        let outcome = apt.upgrade_and_install(upgrade_is_due, names, || {
            fetching
                .join()
                .map_err(|_| Error::internal("fetching packages panicked"))??;
            // Nobody listens where there is nothing to fetch later.
            let _ = fetched.send(());
            Ok(())
        });
        if outcome.is_err() {
            apt.unpacked().stop();
        }
        outcome
    })
}

/// Runs command lines of a stage extension that begin with `apt-get`.
///
/// Where all words of the line that installs are names, their archives are fetched as for other steps.
pub(super) fn extension(site: Site<'_>, wanted: Lines<'_>) -> Result<()> {
    let (env, target) = (site.env, site.target);
    let apt = Apt::open(site)?;
    if wanted.refresh {
        // One of the lines does it; sources may have changed since the last time.
        env.packages.sources_changed();
    } else {
        apt.refresh()?;
    }
    let names: Vec<&str> = wanted.install.iter().map(String::as_str).collect();
    apt.unpacked().next();
    for line in wanted.texts {
        if !names.is_empty()
            && line.contains(" install ")
            && let Ok(listing) = apt.list(target, &names)
        {
            // Only saves time: what goes wrong here goes wrong again, and is told, below.
            let (at_hand, _) = mpsc::channel();
            let _ = apt.fetch(&listing.archives, false, &at_hand);
        }
        let with_config = format!("apt-get {}", apt.config());
        let line = line.replacen("apt-get", &with_config, 1);
        let result = apt.command(target, &["sh".into(), "-c".into(), line]);
        apt.unpacked().dpkg_ended();
        result?;
    }
    if wanted.refresh {
        env.packages.set_refreshed();
    }
    Ok(())
}

impl<'a> Apt<'a> {
    pub(in crate::exec) fn open(site: Site<'a>) -> Result<Self> {
        let Site { env, target, step } = site;
        let cache = env.package_cache.clone();
        let wanted = [cache.join("archives"), env.base_cache.join("lists/partial")];
        let lock = workspace::open_cache(env, &cache, &wanted)?;
        let workspace = Workspace::new(WORKSPACE, u64::try_from(env.created).unwrap_or(0));
        let dir = env.scratch.join("apt");
        let setup = Setup {
            files: workspace.files(),
            directories: workspace.directories(),
            ..Setup::default()
        };
        workspace::write(&setup, &dir)?;
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

    /// Upgrades if asked to while archives are fetched, waits for them with `fetched`, and installs `names`.
    fn upgrade_and_install(
        &self,
        upgrade: bool,
        names: &[&str],
        fetched: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // An upgrade of a fresh base is a second of doing nothing: time to fetch in.
        let upgraded = if upgrade {
            self.run(Operation::Upgrade)
        } else {
            Ok(())
        };
        upgraded.and(fetched())?;
        if !names.is_empty() {
            self.run(Operation::Install(names))?;
        }
        Ok(())
    }

    fn unpacked(&self) -> &Unpacked {
        self.env.packages.unpacked.get_or_init(|| {
            let local = |path: String| local(&self.dir, &path).unwrap_or_default();
            Unpacked::new(
                local(self.workspace.archives()),
                local(self.workspace.unpacked()),
                local(self.workspace.dpkg_runs()),
            )
        })
    }

    /// Runs a command in apt's workspace.
    pub(in crate::exec) fn command(&self, target: &Target<'_>, argv: &[String]) -> Result<()> {
        let options = CommandOptions::default();
        self.command_with(target, argv, options).map(drop)
    }

    /// Runs a command in apt's workspace and returns what it printed.
    fn answer(&self, target: &Target<'_>, argv: &[String]) -> Result<String> {
        let options = CommandOptions {
            answers: true,
            ..CommandOptions::default()
        };
        let result = self.command_with(target, argv, options)?;
        Ok(result.printed)
    }

    fn command_with(
        &self,
        target: &Target<'_>,
        argv: &[String],
        options: CommandOptions,
    ) -> Result<CommandResult> {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        let mounts = vec![
            bind(&self.dir, WORKSPACE),
            bind(self.env.base_cache.join("lists"), self.workspace.lists()),
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
                ..options
            },
        )
    }

    /// Runs a command of apt whose status is part of its answer, and returns what it printed.
    ///
    /// # Errors
    ///
    /// [`Kind::Step`] when apt cannot answer; a refusal that was asked for (status 1) is an answer.
    pub(in crate::exec) fn ask(&self, argv: &[String]) -> Result<String> {
        let mut shell = vec![
            "sh".to_owned(),
            "-c".into(),
            r#""$@"; [ $? -le 1 ]"#.into(),
            "sh".into(),
        ];
        shell.extend_from_slice(argv);
        self.answer(self.target, &shell)
    }

    /// Installs a package from a file of this machine, and what it depends on.
    pub(in crate::exec) fn install_file(&self, file: &Path) -> Result<()> {
        let doing = || format!("copying {}", file.display());
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::user("its name is no text").context(doing()))?;
        fs::copy(file, self.dir.join("archives").join(name)).context(doing)?;
        let inside = format!("{}/{name}", self.workspace.archives());
        let argv = ["apt-get", &self.config(), "--quiet", "install", &inside];
        self.command(self.target, &argv.map(str::to_owned))
    }

    /// Returns the option by which every tool of apt finds its lists and archives.
    pub(in crate::exec) fn config(&self) -> String {
        self.workspace.config_option()
    }

    fn run(&self, operation: Operation<'_>) -> Result<()> {
        let argv = self
            .workspace
            .command(operation)
            .map_err(|error| Error::from_source(&error))?;
        let result = self.command(self.target, &argv);
        self.unpacked().dpkg_ended();
        result
    }

    /// Brings the lists up to date once in a run.
    pub(in crate::exec) fn refresh(&self) -> Result<()> {
        self.env
            .packages
            .refresh_once(|| self.run(Operation::Update))
    }

    /// Lists what installing `names` needs and is not in the workspace yet.
    fn list(&self, target: &Target<'_>, names: &[&str]) -> Result<Listing> {
        if self.env.packages.has(names) {
            return Ok(Listing::default());
        }
        let argv = self
            .workspace
            .list_downloads(Operation::Install(names))
            .map_err(|error| Error::from_source(&error))?;
        let listed = self.answer(target, &argv).map_err(|error| {
            let versions = |name: &str| self.versions(target, name);
            missing::explain(error, self.env.request, versions)
        });
        let listed = listed?;
        Ok(Listing {
            archives: apt::parse_uris(&listed).map_err(|error| Error::from_source(&error))?,
            up_to_date: listed.lines().any(|line| {
                line.starts_with("0 upgraded, ") && line.ends_with(" and 0 not upgraded.")
            }),
        })
    }

    /// Returns the versions that there are of a package, the newest first; none where apt does not say.
    fn versions(&self, target: &Target<'_>, name: &str) -> Vec<String> {
        let argv = ["apt-cache", &self.config(), "madison", name].map(str::to_owned);
        let listed = self.answer(target, &argv).unwrap_or_default();
        // Spec: apt-cache(8), "madison": name, version and source between bars.
        let versions = listed.lines().filter_map(|line| {
            let version = line.split('|').nth(1)?.trim();
            (!version.is_empty()).then(|| version.to_owned())
        });
        let mut versions: Vec<String> = versions.collect();
        versions.dedup();
        versions
    }

    /// Puts archives into the workspace, from the cache or from their mirror, and says which are there.
    fn fetch(
        &self,
        archives: &[PackageUri],
        later: bool,
        at_hand: &mpsc::Sender<Archive>,
    ) -> Result<()> {
        let (place, cache) = (self.dir.join("archives"), self.cache.join("archives"));
        let placed = |uri: &PackageUri| {
            let is_there = download::take_cached(uri, &cache, &place);
            if is_there {
                // Without anybody to decompress it, dpkg does.
                let name = uri.filename.clone();
                let _ = at_hand.send(Archive { name, later });
            }
            is_there
        };
        let missing: Vec<&PackageUri> = archives.iter().filter(|uri| !placed(uri)).collect();
        if missing.is_empty() || !self.env.has_network() {
            return Ok(());
        }
        // Nobody waits for what is for later: no line of its own.
        let transfer = (!later).then(|| {
            let bytes = missing.iter().map(|uri| uri.size_bytes).sum();
            let what = counted(missing.len(), "package");
            self.env.reporter.transfer("download", &what, bytes)
        });
        let progress = |count| {
            if let Some(transfer) = &transfer {
                transfer.advance(count);
            }
        };
        let cached = |uri: &PackageUri| {
            placed(uri);
        };
        let (jobs, cancel) = (self.env.jobs, &self.env.cancel);
        download::fetch(&missing, &cache, jobs, &progress, &cached, cancel)
    }

    /// Fetches what later steps install while this one installs `names`, as soon as `may_fetch` says that the network is free;
    /// `now` is what it was busy with.
    fn fetch_later(
        &self,
        names: &[&str],
        now: &[PackageUri],
        may_fetch: &mpsc::Receiver<()>,
        at_hand: &mpsc::Sender<Archive>,
    ) -> Result<()> {
        let aside = Aside::open(self.env, self.target)?;
        let later = self.env.later_packages.iter().map(String::as_str);
        let all: Vec<&str> = names.iter().copied().chain(later).collect();
        let mut later = self.list(&aside.target()?, &all)?.archives;
        later.retain(|uri| !now.contains(uri));
        let Ok(()) = may_fetch.recv() else {
            return Ok(());
        };
        self.fetch(&later, true, at_hand)?;
        self.env.packages.add(&all);
        Ok(())
    }
}
