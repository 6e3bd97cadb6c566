//! The command line: its grammar, and one short function per subcommand.

mod args;
mod artifact;
mod artifact_verify;
mod beside;
mod commands;
mod doctor;
mod examples;
mod kairos_init;
mod man;
mod parity;
mod providers;
mod raw;
mod removal;
mod store;
mod validate;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::framework::Variant;
use crate::printable;
use crate::progress::{Mode, Reporter};
use crate::screen;
use args::{ImageArgs, ProgressArgs, RequestArgs, StoreArgs};
use beside::BesideArgs;

/// Turns any base image into a Kairos-ready OCI image: rootless, daemonless, straight on OCI layers.
#[derive(Debug, Parser)]
#[command(name = "kfactory", version, about, long_about = None, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Convert a base image into a Kairos image and push it
    #[command(after_help = examples::CONVERT)]
    Convert(Box<ConvertArgs>),
    /// Show every step of a conversion without running any
    #[command(after_help = examples::PLAN)]
    Plan(Box<PlanArgs>),
    /// Show the packages a conversion installs, each with the rule that chose it
    Packages(Box<PackagesArgs>),
    /// Copy an image from any place to any other
    #[command(after_help = examples::COPY)]
    Copy(CopyArgs),
    /// Unpack an image's root filesystem into a directory
    #[command(after_help = examples::UNPACK)]
    Unpack(UnpackArgs),
    /// Give an unpacked tree the owners, modes, device nodes and attributes that its ledger lists; for root
    #[command(after_help = examples::RESTORE)]
    Restore(RestoreArgs),
    /// Show an image's layers with their steps, sizes and digests, and what makes it a Kairos image
    #[command(after_help = examples::INSPECT)]
    Inspect(InspectArgs),
    /// Check that an image boots, installs and upgrades as a Kairos system, without running anything of it
    #[command(after_help = examples::VALIDATE)]
    Validate(Box<validate::ValidateArgs>),
    /// Compare two images file by file, and say which step made each difference and whether it is intended
    #[command(after_help = examples::PARITY)]
    Parity(Box<parity::ParityArgs>),
    /// Write a medium that starts a live system and installs, from CD or USB stick, on BIOS and UEFI
    #[command(after_help = examples::ISO)]
    Iso(Box<artifact::IsoArgs>),
    /// Write what a machine loads to boot an image over the network, or serve it
    #[command(after_help = examples::NETBOOT, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Netboot(Box<artifact::NetbootArgs>),
    /// Write a disk that becomes an installed system when it boots first, for machines, hypervisors and clouds
    #[command(after_help = examples::RAW)]
    Raw(Box<raw::RawArgs>),
    /// Look at what `iso`, `netboot`, `raw` and other tools wrote
    Artifact {
        #[command(subcommand)]
        command: artifact_verify::ArtifactCommand,
    },
    /// List the names that `--skip-step` takes
    StepsInfo,
    /// The Kairos binaries
    Framework {
        #[command(subcommand)]
        command: FrameworkCommand,
    },
    /// Look into the store or free its space
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Check what this machine offers and how to gain what is missing
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per command into a directory
    Man {
        /// Write `kfactory.1`, `kfactory-convert.1`, ... here
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct ConvertArgs {
    #[command(flatten)]
    request: RequestArgs,
    #[command(flatten)]
    artifacts: BesideArgs,
    /// Do not use cached layers; run every step again
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// How to print the plan
    #[arg(long, value_enum, default_value_t = PlanOutput::Text)]
    output: PlanOutput,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, clap::Args)]
struct PackagesArgs {
    #[command(flatten)]
    request: RequestArgs,
    /// How to print them
    #[arg(long, value_enum, default_value_t = PackagesOutput::Text)]
    output: PackagesOutput,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PackagesOutput {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PlanOutput {
    Text,
    Json,
    Yip,
}

#[derive(Debug, clap::Args)]
struct CopyArgs {
    /// Where to read: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`, `store:NAME`
    source: String,
    /// Where to write: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `store:NAME`
    destination: String,
    /// The platform to copy from a multi-platform image, as `os/architecture[/variant]` [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, clap::Args)]
struct UnpackArgs {
    /// The image
    source: String,
    /// A missing or empty directory. The tree appears in it when it is whole; a missing one gets its name then
    dir: PathBuf,
    /// Write what the tree lacks of the image to this file, one JSON object a line
    ///
    /// Device nodes, privileged attributes and owners that this user may not set. Where files come to belong to
    /// subordinate IDs, the true owner and mode of every file is in it: `kfactory restore` makes them so, anywhere.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// The platform to take from a multi-platform image [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, clap::Args)]
struct RestoreArgs {
    /// The tree that `kfactory unpack` made, wherever it is now
    ///
    /// Root trusts it: whoever could change the tree or the ledger decides what becomes a set-uid program of root.
    dir: PathBuf,
    /// The ledger that was written with it
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// The image
    source: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The platform to take from a multi-platform image [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

#[derive(Debug, Subcommand)]
enum FrameworkCommand {
    /// Make a one-layer image of the Kairos binaries, to carry along or to push
    #[command(after_help = examples::FRAMEWORK_BUILD)]
    Build {
        /// Where the binaries come from: `release[:NAME=VERSION,...]`, `go[:NAME=VERSION,...]`, `dir:`, `tar:`, `oci:` or a reference
        #[arg(long, default_value = "release")]
        framework: String,
        /// The images it is for: `standard` ones, with a `--provider`, need more binaries
        #[arg(long, value_enum, default_value_t = Variant::Core)]
        variant: Variant,
        /// Where to write: `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE` or a reference
        #[arg(short, long, value_name = "DEST")]
        output: String,
        /// The platform to build for [default: this machine's]
        #[arg(long)]
        platform: Option<String>,
        /// Take FIPS builds of those that have one
        #[arg(long)]
        fips: bool,
        #[command(flatten)]
        image: ImageArgs,
        #[command(flatten)]
        progress: ProgressArgs,
    },
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// List images and cached layers, and what takes the space
    Ls {
        /// Print one JSON object; `null` where there is no store
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Forget images by the names that `ls` shows; `gc` then frees their space
    Rm {
        /// The names, without `store:`
        #[arg(required = true, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        names: Vec<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Remove what no image in the store needs; `--all` removes everything
    ///
    /// Kept for later runs are the caches (downloaded packages, Kairos binaries, providers, results of checks) and, for each image of
    /// the store, what its layers changed. At the end it says how much that is; `--all` removes it, and the images with it.
    Gc {
        /// Remove images, cached layers, unpacked bases and caches (downloaded packages among them) too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        progress: ProgressArgs,
    },
}

#[derive(Debug, clap::Args)]
struct DoctorArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if kairos_init::is_called(arguments.first()) {
        return kairos_init::main(arguments);
    }
    let arguments = match providers::rewrite(arguments, &Cli::command()) {
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
    let mode = cli.command.progress();
    if !kfactory_sandbox::stage::in_stage() {
        if let Err(error) = cli.command.check_store() {
            return report(&error, mode);
        }
        if cli.command.needs_stage() {
            return enter_stage(mode);
        }
        // Sees more where files of other owners can be read, and does without where they cannot.
        if cli.command.likes_stage()
            && let Ok(code) = kfactory_sandbox::stage::enter()
        {
            return code;
        }
    }
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(error) => report(&commands::as_stopped(error), mode),
    };
    tell_leftovers(mode);
    code
}

/// Says what could not be cleaned up.
fn tell_leftovers(mode: Mode) {
    if let Some(warning) = crate::leftover::take_warning() {
        Reporter::new(mode).warn(&warning);
    }
}

/// Runs the program again where it may make sandboxes, and returns its exit code.
fn enter_stage(mode: Mode) -> i32 {
    match kfactory_sandbox::stage::enter() {
        Ok(code) => code,
        Err(error) => {
            let hints = error.hints();
            report(
                &Error::from_source(&error)
                    .context("cannot create the sandbox")
                    .hints(hints),
                mode,
            )
        }
    }
}

fn run(command: Command) -> Result<i32> {
    match command {
        Command::Convert(args) => commands::convert(&args),
        Command::Plan(args) => commands::plan(&args),
        Command::Packages(args) => commands::packages(&args),
        Command::Copy(args) => commands::copy(&args),
        Command::Unpack(args) => commands::unpack(&args),
        Command::Restore(args) => commands::restore(&args),
        Command::Inspect(args) => commands::inspect(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Iso(args) => artifact::iso(&args),
        Command::Netboot(args) => artifact::netboot(&args),
        Command::Raw(args) => raw::run(&args),
        Command::Artifact {
            command: artifact_verify::ArtifactCommand::Verify(args),
        } => artifact_verify::verify(&args),
        Command::StepsInfo => commands::steps_info(),
        Command::Framework {
            command:
                FrameworkCommand::Build {
                    framework,
                    variant,
                    output,
                    platform,
                    fips,
                    image,
                    progress,
                },
        } => {
            let (platform, wanted) = (
                platform.as_deref(),
                crate::convert::Builds { variant, fips },
            );
            commands::framework_build(&framework, &output, platform, wanted, &image, &progress)
        }
        Command::Store {
            command: StoreCommand::Ls { store, json },
        } => store::ls(&store, json),
        Command::Store {
            command: StoreCommand::Rm { names, store },
        } => store::rm(&store, &names),
        Command::Store {
            command:
                StoreCommand::Gc {
                    all,
                    store,
                    progress,
                },
        } => store::gc(&store, all, &progress),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir } => man::run(Cli::command(), dir.as_deref()),
    }
}

impl Command {
    /// Returns where the command has its store; `None` where it uses none.
    fn store(&self) -> Option<&StoreArgs> {
        let image = match self {
            Command::Convert(args) => &args.image,
            Command::Plan(args) => &args.image,
            Command::Packages(args) => &args.image,
            Command::Copy(args) => &args.image,
            Command::Unpack(args) => &args.image,
            Command::Inspect(args) => &args.image,
            Command::Validate(args) => &args.image,
            Command::Parity(args) => &args.image,
            Command::Iso(args) => &args.common.image,
            Command::Netboot(args) if args.command.is_none() => &args.common.image,
            Command::Raw(args) => &args.common.image,
            Command::Framework {
                command: FrameworkCommand::Build { image, .. },
            } => image,
            Command::Store {
                command:
                    StoreCommand::Ls { store, .. }
                    | StoreCommand::Rm { store, .. }
                    | StoreCommand::Gc { store, .. },
            } => return Some(store),
            Command::Doctor(args) => return Some(&args.store),
            _ => return None,
        };
        Some(&image.store)
    }

    /// Checks whose store it is, while owners can still be told apart: in the stage all strangers are one.
    fn check_store(&self) -> Result<()> {
        // Without a place for the store, the command itself says so.
        let Some(Ok(dir)) = self.store().map(StoreArgs::dir) else {
            return Ok(());
        };
        match self {
            // Tells what it finds beside everything else.
            Command::Doctor(_) => Ok(()),
            Command::Store { .. } => crate::store::check_owner(&dir),
            _ => crate::store::check_user(&dir),
        }
    }

    /// Returns whether the command reads trees whose files have many owners, but has something to say without them.
    fn likes_stage(&self) -> bool {
        matches!(
            self,
            Command::Store {
                command: StoreCommand::Ls { .. }
            }
        )
    }

    /// Returns whether the command works on trees whose files have many owners.
    fn needs_stage(&self) -> bool {
        match self {
            Command::Convert(args) => !args.request.print_recipe,
            // Root does better without: in a user namespace it could make neither device nodes nor attributes `trusted.*`.
            Command::Unpack(_) => !rustix::process::geteuid().is_root(),
            Command::Framework { .. }
            | Command::Store {
                command: StoreCommand::Gc { .. },
            } => true,
            // Reading a root filesystem means reading files of other owners, and owners stand in the layer that is made of it.
            Command::Copy(args) => args.source.starts_with("dir:"),
            Command::Inspect(args) => args.source.starts_with("dir:"),
            Command::Parity(args) => args.reads_directory(),
            Command::Iso(args) => args.common.needs_stage(),
            Command::Netboot(args) => args.common.needs_stage(),
            Command::Raw(args) => args.common.needs_stage(),
            Command::Validate(args) => args
                .source
                .as_deref()
                .is_some_and(|source| source.starts_with("dir:")),
            _ => false,
        }
    }

    fn progress(&self) -> Mode {
        match self {
            Command::Convert(args) => args.progress.progress,
            Command::Plan(args) => args.progress.progress,
            Command::Packages(args) => args.progress.progress,
            Command::Copy(args) => args.progress.progress,
            Command::Unpack(args) => args.progress.progress,
            Command::Inspect(args) => args.progress.progress,
            Command::Validate(args) => args.progress.progress,
            Command::Parity(args) => args.progress.progress,
            Command::Iso(args) => args.common.progress.progress,
            Command::Netboot(args) => args.common.progress.progress,
            Command::Raw(args) => args.common.progress.progress,
            Command::Store {
                command: StoreCommand::Gc { progress, .. },
            } => progress.progress,
            _ => Mode::Plain,
        }
    }
}

fn report(error: &Error, mode: Mode) -> i32 {
    let mut stderr = std::io::stderr().lock();
    let _ = match mode {
        Mode::Json => writeln!(stderr, "{}", error.render_json()),
        _ => {
            let text = printable::text(&error.render_text());
            let columns = screen::columns_of(&stderr);
            let folded = columns.map(|columns| screen::fold(&text, columns));
            write!(stderr, "{}", folded.as_deref().unwrap_or(&text))
        }
    };
    error.kind().exit_code()
}

/// Writes to standard output; a reader that has gone away is no error, a full disk is.
///
/// Words of an image (its name, its history) may hold control characters; none reaches the terminal.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(printable::text(text).as_bytes())
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::from(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}

/// Writes what people read to standard output, folded to the terminal's width where that is one.
fn show(text: &str) -> Result<()> {
    match screen::columns() {
        Some(columns) => print(&screen::fold(text, columns)),
        None => print(text),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<i32> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kfactory", &mut out);
    print(&String::from_utf8_lossy(&out))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }
}
