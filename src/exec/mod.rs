//! Carries out the actions of a step on a mounted tree.
//!
//! File actions go through [`Root`], a directory handle that cannot be left. Only commands run in the sandbox.

mod apt_sources;
mod aside;
mod command;
mod cpio;
mod cpio_twins;
mod download;
mod environment;
mod files;
mod fips;
mod firmware;
mod gzip;
mod harmless;
mod hidden;
mod initrd;
mod interpreter;
mod kernel;
mod kernel_file;
mod keys;
mod kubernetes;
mod nvdimm;
mod packages;
mod plugins;
mod run;
mod savings;
mod services;
mod ssh;
mod tidy;
mod uki;
mod unpacked;
mod yip;

use command::PATH;
pub use command::Runner;
pub(crate) use command::{CommandOptions, CommandResult};
pub use environment::{Environment, Target};
pub use packages::{Session as PackageSession, check_manager};
pub use plugins::{plugins_in, plugins_of};
pub use tidy::{normalize, prune};

use std::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::step::{Action, Hook, Step};

/// Runs one step on `target`.
///
/// # Errors
///
/// The first action that fails; the actions after it are not tried. A failed command carries the last lines it printed.
pub fn run_step(
    env: &Environment<'_>,
    target: &Target<'_>,
    layer: &str,
    step: &Step,
) -> Result<()> {
    let name = step.label();
    env.reporter.step_started(layer, name);
    let start = Instant::now();
    let place = step.place();
    if let Some(extension) = &step.extension
        && let Some(why) = yip::unmet(env, target, extension).map_err(|error| {
            error.context(format!("cannot tell whether step `{name}`{place} runs"))
        })?
    {
        env.reporter
            .note(&format!("step `{name}` is passed over: {why}"));
        return Ok(());
    }
    for action in &step.actions {
        env.check_cancelled()?;
        run_action(env, target, name, action).map_err(|error| match error.kind() {
            Kind::Interrupted => Error::new(
                Kind::Interrupted,
                format!("stopped during step `{name}`; nothing was published"),
            ),
            _ => error.context(format!("cannot finish step `{name}`{place}")),
        })?;
    }
    if let Some(extension) = &step.extension
        && extension.stage == Hook::BeforeInstall
    {
        // It may have added a repository, which the base packages are to come from as well.
        env.packages.sources_changed();
    }
    env.reporter.step_done(name, start.elapsed());
    Ok(())
}

fn run_action(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    action: &Action,
) -> Result<()> {
    let root = &target.root;
    let site = packages::Site { env, target, step };
    match action {
        Action::Directory { path, mode } => files::directory(root, path, *mode),
        Action::File {
            path,
            mode,
            content,
        } => files::file(root, path, *mode, content.as_bytes()),
        Action::Link {
            path,
            target,
            if_exists,
            unless_exists,
        } => files::link(
            root,
            path,
            target,
            if_exists.as_deref(),
            unless_exists.as_deref(),
        ),
        Action::Remove { paths } => files::remove_all(target, paths),
        Action::Truncate { path } => files::truncate(root, path),
        Action::Permissions { path, mode } => files::permissions(root, path, *mode, env.reporter),
        Action::Release { entries } => files::release(root, entries),
        Action::Packages { upgrade, install } => {
            let upgrade = *upgrade;
            packages::install(site, packages::Wanted { upgrade, install })
        }
        Action::Prerequisites {
            install,
            url,
            replace,
        } => packages::prerequisites(site, install, url.as_deref(), *replace),
        Action::ImportKeys => packages::import_keys(site),
        Action::EnableRepository { id } => packages::enable_repository(env, root, id),
        Action::RemovePackages { names } => packages::remove(site, names),
        Action::Move { from, to } => files::rename(root, from, to),
        Action::ListsChanged => {
            env.packages.sources_changed();
            Ok(())
        }
        Action::RepositoryKey { url, path } => keys::fetch(env, root, url, path),
        Action::Require { path, remedy } => files::require(root, path, remedy),
        Action::NvdimmModules => nvdimm::install(env, target, step),
        Action::MeasureUki => uki::measure(env, root),
        Action::ProveFips => fips::prove(env, root),
        Action::ReportSavings { savings } => savings::report(env, target, step, savings),
        Action::KernelFile { file } => kernel_file::install(env, target, step, file),
        Action::AptComponent { component } => apt_sources::enable(env, root, component),
        Action::KeepFirmware { patterns } => firmware::keep(env, root, patterns),
        Action::Run {
            argv,
            network,
            secrets,
            if_exists,
            may_fail,
        } => run::command(
            env,
            target,
            step,
            &run::Wanted {
                argv,
                network: *network,
                secrets,
                if_exists: if_exists.as_deref(),
                may_fail: *may_fail,
            },
        ),
        Action::Framework {
            name,
            path,
            required,
            unless_exists,
        } => files::framework(env, root, name, path, *required, unless_exists),
        Action::Kubernetes {
            distribution,
            version,
            config,
        } => kubernetes::install(env, root, distribution, version, *config),
        Action::ProviderInstall {
            provider,
            version,
            config,
        } => plugins::install(
            env,
            target,
            step,
            &plugins::Wanted {
                provider,
                version,
                config: *config,
            },
        ),
        Action::ProviderInfo { providers } => plugins::info(env, target, step, providers),
        Action::LinkKernel => kernel::link(env, root),
        Action::InitramfsConfig => initrd::configure(env, root),
        Action::Initrd { tool } => initrd::build(env, target, step, *tool),
        Action::Services {
            unmask,
            enable,
            optional,
            disable,
            mask,
        } => {
            let units = services::Units {
                unmask,
                enable,
                optional,
                disable,
                mask,
            };
            services::apply(env, target, step, &units)
        }
        Action::Runlevel { level, services } => services::add(env, root, level, services),
        Action::SshHardening => ssh::harden(env, target, step),
        Action::CleanPackageCache { paths } => files::remove_all(target, paths),
        Action::Plugin(plugin) => yip::run(env, target, step, plugin),
    }
}
