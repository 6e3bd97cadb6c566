//! The command line of kairos-init, for a program that is called by that name: a Dockerfile changes to it with one image name.
//!
//! The words of every generation of its documents are understood; `request` turns them into the request that `kfactory convert`
//! makes too. It works on `/` as root inside a container build, or on the tree that `--root` names.

mod guard;
mod request;
#[cfg(test)]
mod tests;
mod versions;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser, Subcommand};

use super::args::{ImageArgs, ProviderArgs};
use super::commands::{self, Session};
use super::{print, report};
use crate::convert::in_place::{self, InPlace};
use crate::error::{Context as _, Result};
use crate::exec::Runner;
use crate::framework;
use crate::progress::{Level, Mode, Reporter};
use crate::request::Stage;
use crate::store::{self, Store, discard_tree};
use crate::words;

/// The name under which the program understands this command line.
const NAME: &str = "kairos-init";
/// Scratch and caches inside a container build. Kept where something is mounted there, else removed at the end.
const WORK: &str = "/var/cache/kairos-init";
/// What a container's runtime sets for every process, and what belongs to the shell that started this one.
const NOT_OF_THE_IMAGE: [&str; 7] = ["HOSTNAME", "PWD", "OLDPWD", "SHLVL", "HOME", "TERM", "_"];

/// Makes this root filesystem, or the one that `--root` names, a Kairos system. Understands the command line of Kairos' own kairos-init.
#[derive(Debug, Parser)]
#[command(name = NAME, long_about = None, max_term_width = 110, args_override_self = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The version of the produced system, as `v1.2.3`
    #[arg(short = 'v', long, value_name = "VERSION")]
    version: Option<String>,
    /// Which phases run
    #[arg(short, long, value_enum, default_value_t)]
    stage: Stage,
    /// How much is shown: `trace` makes dracut say more too
    #[arg(short, long, value_enum, default_value_t = Level::Info)]
    level: Level,
    /// The board
    #[arg(short, long, default_value = "generic")]
    model: String,
    #[command(flatten)]
    providers: ProviderArgs,
    /// FIPS builds of the Kairos binaries and the initrd's FIPS module
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    fips: Option<String>,
    /// Trusted Boot: for a UKI, without boot loader and initrd
    #[arg(short, long, alias = "trusted-boot", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    trusted: Option<String>,
    /// Load stage extensions from `$KAIROS_INIT_STAGE_EXTENSIONS_DIR` or `/etc/kairos-init/stage-extensions`
    #[arg(short = 'x', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    stage_extensions: Option<String>,
    /// Steps or phases to leave out; comma lists, several times if wanted (`kairos-init steps-info` lists them)
    #[arg(long, alias = "skip-steps", value_name = "STEP", value_delimiter = ',')]
    skip_step: Vec<String>,
    /// Deprecated: `--provider`
    #[arg(short = 'k', long, value_name = "NAME", hide = true)]
    kubernetes_provider: Option<String>,
    /// Deprecated: `--provider-NAME-version`
    #[arg(long, value_name = "VERSION", hide = true)]
    k8sversion: Option<String>,
    /// Print what would be done as yip stages and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The root filesystem to work on; another one than `/` is worked on in a sandbox [default: /]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The platform of that root filesystem, as `os/architecture` [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    /// Where the Kairos binaries come from: `release[:NAME=VERSION,...]`, `go[:NAME=VERSION,...]`, `dir:`, `tar:`, `oci:` or a reference
    #[arg(
        long,
        env = "KFACTORY_FRAMEWORK",
        default_value = "release",
        hide_env_values = true
    )]
    framework: String,
    /// A value that steps may read and no layer holds: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`. One that a container build
    /// mounts in /run/secrets needs no option
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    #[command(flatten)]
    image: ImageArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the names that `--skip-step` takes
    StepsInfo,
    /// Print the program's version and those of the Kairos binaries
    Version,
    /// Check the finished system
    Validate {
        /// Trusted Boot
        #[arg(short, long, alias = "trusted-boot", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        trusted: Option<String>,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Returns whether the files that it reads or changes have many owners, of whom a plain user is only one.
    fn needs_stage(&self) -> bool {
        let is_on_tree = match self.command {
            Some(Command::Validate { .. }) => true,
            Some(_) => false,
            None => !self.dry_run,
        };
        is_on_tree && !is_own_root(&self.root)
    }
}

/// Tells whether the program was called by the name that this command line belongs to.
pub(super) fn is_called(program: Option<&OsString>) -> bool {
    program.and_then(|program| Path::new(program).file_name()) == Some(OsStr::new(NAME))
}

/// Runs the program and returns its exit code.
pub(super) fn main(arguments: Vec<OsString>) -> i32 {
    let arguments = match super::providers::rewrite_for(arguments, &Cli::command()) {
        Ok(arguments) => arguments,
        Err(error) => return report(&error, Mode::Plain),
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return error.exit_code();
        }
    };
    if cli.needs_stage() && !kfactory_sandbox::stage::in_stage() {
        if cli.command.is_none()
            && let Err(error) = check_store()
        {
            return report(&error, Mode::Plain);
        }
        return super::enter_stage(Mode::Plain);
    }
    let code = match run(&cli) {
        Ok(code) => code,
        Err(error) => report(&error, Mode::Plain),
    };
    super::tell_leftovers(Mode::Plain);
    code
}

/// Checks whose the store is or would be, while owners can still be told apart: in the stage all strangers are one.
fn check_store() -> Result<()> {
    // Without a place for the store, the conversion itself says so.
    let Ok(dir) = Store::default_dir() else {
        return Ok(());
    };
    store::check_user(&dir)
}

fn run(cli: &Cli) -> Result<i32> {
    match &cli.command {
        Some(Command::StepsInfo) => commands::steps_info(),
        Some(Command::Version) => version(),
        Some(Command::Validate { trusted }) => validate(&cli.root, trusted.as_deref()),
        Some(Command::Completion { shell }) => completion(*shell),
        None => init(cli),
    }
}

fn init(cli: &Cli) -> Result<i32> {
    let root = cli.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let reporter = Reporter::new(Mode::Auto).at_level(cli.level);
    let (request, warnings) = cli.request(&root)?;
    request.validate()?;
    for warning in warnings {
        reporter.warn(&warning);
    }
    if cli.dry_run {
        print(&in_place::plan_in_place(&request, &root)?.to_yip()?)?;
        return Ok(0);
    }
    let is_own = is_own_root(&cli.root);
    if is_own {
        guard::check(cli.root.is_some())?;
    }
    let place = InPlace {
        runner: if is_own {
            Runner::Plain
        } else {
            Runner::Sandbox
        },
        env: if is_own { own_variables() } else { Vec::new() },
        root,
    };
    let mut image = cli.image.clone();
    let _work = is_own.then(|| Work::choose(&mut image)).flatten();
    let session = Session::with_reporter(&image, reporter, &[&cli.framework])?;
    let plan = in_place::convert_in_place(
        &request,
        &place,
        &session.options,
        &session.runtime,
        &session.reporter,
    )?;
    session.reporter.note(&format!(
        "{} of {} ran on {}: version {}",
        match cli.stage {
            Stage::All => "install and init",
            Stage::Install => "install",
            Stage::Init => "init",
        },
        NAME,
        place.root.display(),
        plan.version
    ));
    Ok(0)
}

/// Tells whether the tree is the root filesystem of this process.
fn is_own_root(root: &Option<PathBuf>) -> bool {
    root.as_deref()
        .is_none_or(|root| root.canonicalize().is_ok_and(|root| root == Path::new("/")))
}

/// Returns the variables of the image and of the build, which commands of a step see as they see them in any other `RUN`.
fn own_variables() -> Vec<String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !NOT_OF_THE_IMAGE.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Scratch and caches inside a container build; removed with all they hold when dropped.
struct Work;

impl Work {
    /// Chooses the place where the user names none; `None` where what is there is to stay.
    fn choose(image: &mut ImageArgs) -> Option<Self> {
        let named = std::env::var_os("KFACTORY_STORE").is_some_and(|dir| !dir.is_empty());
        if image.store.store.is_some() || named {
            return None;
        }
        let dir = Path::new(WORK);
        image.store.store = Some(dir.to_owned());
        if in_place::is_mount_point(dir) {
            return None;
        }
        // What a killed run left.
        discard_tree(dir);
        Some(Self)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        discard_tree(Path::new(WORK));
    }
}

fn version() -> Result<i32> {
    let mut text = format!(
        "{NAME} version v{}\nEmbedded version info:\n",
        env!("CARGO_PKG_VERSION")
    );
    for (name, version) in framework::default_versions() {
        text.push_str(&format!("{name}: {version}\n"));
    }
    print(&text)?;
    Ok(0)
}

fn validate(root: &Option<PathBuf>, trusted: Option<&str>) -> Result<i32> {
    let trusted = trusted.map(|text| words::boolean("--trusted", text));
    let root = root.as_deref().unwrap_or(Path::new("/"));
    super::validate::root(root, trusted.transpose()?)
}

fn completion(shell: clap_complete::Shell) -> Result<i32> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut out);
    print(&String::from_utf8_lossy(&out))?;
    Ok(0)
}

/// Reads a file of the tree at `root`; `None` where it is missing.
fn read_in(root: &Path, path: &str) -> Result<Option<String>> {
    let root = kfactory_layers::root::Root::open(root)
        .context(|| format!("opening {}", root.display()))?;
    Ok(root.read_to_string_opt(path)?)
}
