//! `kfactory iso` and `kfactory netboot`: what boots of an image.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::args::{ImageArgs, ProgressArgs};
use super::commands::{Session, fetch};
use super::print;
use crate::artifact::cloud_config;
use crate::artifact::format::Format;
use crate::artifact::live::Live;
use crate::artifact::make::{self, Making, Unnamed};
use crate::artifact::medium::Medium;
use crate::artifact::netboot::{
    Netboot, SCRIPT, Squash, check_cmdline, check_script_cmdline, check_url,
};
use crate::artifact::output::Place;
use crate::artifact::serve;
use crate::artifact::source::Source;
use crate::artifact::squashfs::{self, Compressor};
use crate::artifact::verify;
use crate::convert;
use crate::error::{Context as _, Error, Kind, Result};
use crate::location::Location;
use crate::store::Store;
use crate::{apart, given};

/// Options of every command that makes something bootable of an image.
#[derive(Debug, clap::Args)]
pub(super) struct ArtifactArgs {
    /// The image: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`, `store:NAME`
    #[arg(required = true)]
    pub(super) source: Option<String>,
    /// A configuration for the installation and the system; `-` reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) cloud_config: Option<PathBuf>,
    /// A directory whose files go into the root filesystem, in place of the image's of the same name; the caller's files become root's
    #[arg(long, value_name = "DIR")]
    overlay_rootfs: Option<PathBuf>,
    /// Check neither first whether the image is ready to boot, nor at the end whether what was made of it boots
    #[arg(long)]
    pub(super) no_validate: bool,
    /// The platform to take from a multi-platform image [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) progress: ProgressArgs,
}

impl ArtifactArgs {
    /// Returns whether files of many owners are read.
    pub(super) fn needs_stage(&self) -> bool {
        let source = self.source.as_deref();
        source.is_some_and(|source| source.starts_with("dir:")) || self.overlay_rootfs.is_some()
    }

    /// Reads the configuration that goes along, and looks for the overlay.
    pub(super) fn read_cloud_config(&self) -> Result<Option<Vec<u8>>> {
        if let Some(overlay) = &self.overlay_rootfs {
            given::directory(overlay).context(|| cannot_add(overlay))?;
        }
        self.cloud_config
            .as_deref()
            .map(cloud_config::read)
            .transpose()
    }

    /// Says what may be meant otherwise in the configuration that goes along.
    pub(super) fn warn_of(&self, cloud_config: Option<&[u8]>, session: &Session) {
        for doubt in cloud_config.map(cloud_config::doubts).unwrap_or_default() {
            session.reporter.warn(&doubt);
        }
    }

    /// Opens the store, having checked that the image is not around it or around `target`.
    pub(super) fn open_store(&self, target: &Path, session: &Session) -> Result<Store> {
        let location = self.location(session)?;
        session.check_apart(&location)?;
        apart::check_target(&location, target)?;
        session.open_store()
    }

    /// Fetches the image, and checks that it is ready.
    pub(super) fn open<'s>(&self, store: &'s Store, session: &Session) -> Result<Source<'s>> {
        let platform = convert::parse_platform(self.platform.as_deref())?;
        let location = self.location(session)?;
        let image = fetch(&location, &platform, store, session)?;
        let source = Source::read(image.image, store, &session.reporter)?;
        if !self.no_validate {
            source
                .validate(&session.options.stop)
                .map_err(|error| error.context(format!("cannot make `{location}` boot")))?;
        }
        match &self.overlay_rootfs {
            Some(dir) => source.with_overlay(dir, session.options.jobs),
            None => Ok(source),
        }
    }

    /// Reads back files for network boot that were made in `dir`, where that is wanted.
    fn verify_files(&self, dir: &Path, session: &Session) -> Result<()> {
        match self.no_validate {
            true => Ok(()),
            false => verify::made_files(dir, &session.options.stop),
        }
    }

    fn location(&self, session: &Session) -> Result<Location> {
        let source = self.source.as_deref().unwrap_or_default();
        if source.starts_with(MEDIUM_SCHEME) {
            return Err(Error::usage(format!("`{source}`: a medium is no image"))
                .hint("`kfactory netboot` alone takes one; name the image that it was made of"));
        }
        convert::parse_location(source, session.registry())
    }
}

/// Says that an overlay cannot be taken.
pub(super) fn cannot_add(overlay: &Path) -> String {
    format!("cannot add the overlay `{}`", overlay.display())
}

/// How the root filesystem of a live system is made.
#[derive(Debug, clap::Args)]
struct SquashArgs {
    /// How the root filesystem is compressed: `zstd`, `gzip`, `xz` or `lz4`, the first two with a level, 1 to 22 and 1 to 9 [default: `zstd:15` if the image's kernel reads it, else `gzip:9`; `zstd:1` takes a fraction of the time and some tenth more room]
    #[arg(long, value_name = "NAME[:LEVEL]")]
    squash_compression: Option<Compressor>,
}

impl SquashArgs {
    /// Returns the compressor that was asked for, or else the best for the image.
    fn compressor(&self, source: &Source<'_>) -> Result<Compressor> {
        self.squash_compression
            .map_or_else(|| source.compressor(), Ok)
    }
}

/// Where a file goes that is made of an image.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// The file, or a directory in which it gets upstream's name: `kairos-debian-12-core-amd64-generic-v1.0.0` and the ending of its kind; `FILE.sha256` is written beside it
    #[arg(short, long, value_name = "FILE", default_value = ".")]
    pub(super) output: PathBuf,
    /// What it is called in a directory, before the ending
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Let the new file take the place of one of the same name, once it is whole
    #[arg(long)]
    pub(super) force: bool,
}

impl OutputArgs {
    /// Returns where the file goes.
    pub(super) fn place(&self) -> Place<'_> {
        Place {
            path: &self.output,
            name: self.name.as_deref(),
            force: self.force,
        }
    }
}

/// Gives a whole file its name, and says what it is.
pub(super) fn finish(made: Unnamed, session: &Session) -> Result<i32> {
    let artifact = made.finish(&session.reporter, &session.options.stop)?;
    for note in &artifact.notes {
        session.reporter.warn(note);
    }
    match session.reporter.is_json() {
        true => print(&format!("{}\n", artifact.to_json()))?,
        false => print(&artifact.to_text())?,
    }
    Ok(0)
}

/// Options of `kfactory iso`.
#[derive(Debug, clap::Args)]
pub(super) struct IsoArgs {
    #[command(flatten)]
    pub(super) common: ArtifactArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    squash: SquashArgs,
    /// Kernel arguments of every entry of the menu, behind its own
    #[arg(long, value_name = "ARGS")]
    cmdline: Option<String>,
    /// The kernel's consoles in the menu; the last is where the system's own messages go [default: `console=ttyS0 console=tty1`]
    #[arg(long, value_name = "ARGS")]
    live_console: Option<String>,
    /// A directory whose files go onto the medium, in place of ours of the same name
    #[arg(long, value_name = "DIR")]
    overlay_iso: Option<PathBuf>,
    /// A directory whose files go onto the FAT that UEFI starts from, in place of ours of the same name
    #[arg(long, value_name = "DIR")]
    overlay_uefi: Option<PathBuf>,
}

/// Writes the medium.
pub(super) fn iso(args: &IsoArgs) -> Result<i32> {
    let common = &args.common;
    let text = common.source.as_deref().unwrap_or_default();
    for arguments in [&args.cmdline, &args.live_console].into_iter().flatten() {
        check_cmdline(arguments)?;
    }
    let place = args.output.place();
    place.check()?;
    Format::check_medium(place.path)?;
    for overlay in [&args.overlay_iso, &args.overlay_uefi]
        .into_iter()
        .flatten()
    {
        given::directory(overlay).context(|| cannot_add(overlay))?;
    }
    let cloud_config = common.read_cloud_config()?;
    squashfs::check()?;
    let session = Session::new(&common.image, &common.progress, false, &[text])?;
    common.warn_of(cloud_config.as_deref(), &session);
    let store = common.open_store(place.path, &session)?;
    let source = common.open(&store, &session)?;
    let live = Live {
        arch: source.arch()?,
        console: args.live_console.as_deref(),
        cmdline: args.cmdline.as_deref(),
        cloud_config: cloud_config.as_deref(),
        overlay_iso: args.overlay_iso.as_deref(),
        overlay_uefi: args.overlay_uefi.as_deref(),
        compressor: args.squash.compressor(&source)?,
        created: source.created()?,
        threads: session.options.jobs,
    };
    let making = Making {
        path: &place.file(&source.tree, ".iso")?,
        force: place.force,
        verify: !common.no_validate,
        threads: session.options.jobs,
        reporter: &session.reporter,
        stop: &session.options.stop,
    };
    finish(make::iso(&source, &live, making)?, &session)
}

/// What stands before the name of a live medium in place of an image.
const MEDIUM_SCHEME: &str = "iso:";

/// Options of `kfactory netboot`.
#[derive(Debug, clap::Args)]
#[command(mut_arg("source", |source| source.help("The image: a reference, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:ROOTFS`, `tar:FILE`, `store:NAME`; or `iso:FILE`, a live medium, whose files are taken as they are")))]
pub(super) struct NetbootArgs {
    #[command(subcommand)]
    pub(super) command: Option<NetbootCommand>,
    #[command(flatten)]
    pub(super) common: ArtifactArgs,
    #[command(flatten)]
    squash: SquashArgs,
    /// A missing or empty directory for the files
    #[arg(short, long, value_name = "DIR", required = true)]
    output: Option<PathBuf>,
    /// How the names of the files begin
    #[arg(long, default_value = "kairos")]
    name: String,
    /// The kernel arguments, in place of those that boot a live system which installs itself; where the root filesystem and the configuration are is added
    #[arg(long, value_name = "ARGS")]
    cmdline: Option<String>,
    /// Where the directory will be served [default: wherever the script is loaded from, which iPXE knows since 2020]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Subcommands of `kfactory netboot`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum NetbootCommand {
    /// Serve the files over HTTP until Ctrl-C
    Serve(ServeArgs),
}

/// Options of `kfactory netboot serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// A directory that `kfactory netboot` made
    dir: PathBuf,
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8090", value_parser = parse_address)]
    address: SocketAddr,
}

fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let expected = "an address of this machine and a port, as `127.0.0.1:8090` or `[::1]:8090`";
    text.parse().map_err(|_| format!("expected {expected}"))
}

/// Writes the files, or serves them.
pub(super) fn netboot(args: &NetbootArgs) -> Result<i32> {
    if let Some(NetbootCommand::Serve(args)) = &args.command {
        return serve(args);
    }
    let common = &args.common;
    let source = common.source.as_deref().unwrap_or_default();
    let output = args.output.as_deref().unwrap_or(Path::new(""));
    args.cmdline
        .as_deref()
        .map_or(Ok(()), check_script_cmdline)?;
    let url = args.url.as_deref().map(check_url).transpose()?;
    crate::staging::check_free(output)
        .map_err(|error| error.hint("name a new directory with `--output`"))?;
    let cloud_config = common.read_cloud_config()?;
    let session = Session::new(&common.image, &common.progress, false, &[source])?;
    common.warn_of(cloud_config.as_deref(), &session);
    let netboot = Netboot {
        name: &args.name,
        cmdline: args.cmdline.as_deref(),
        cloud_config: cloud_config.as_deref(),
        url: url.as_deref(),
    };
    let made = match source.strip_prefix(MEDIUM_SCHEME) {
        Some(file) => netboot_of_medium(args, &netboot, Path::new(file), output, &session),
        None => netboot_of_image(args, &netboot, output, &session),
    };
    made.map_err(|error| match error.kind() {
        Kind::Interrupted => {
            Error::interrupted(format!("{} is as it was before", output.display()))
        }
        Kind::Usage => error,
        _ => error.context(format!("cannot make `{}`", output.display())),
    })?;
    print(&format!("{}\n", output.join(SCRIPT).display()))?;
    Ok(0)
}

fn netboot_of_image(
    args: &NetbootArgs,
    netboot: &Netboot<'_>,
    output: &Path,
    session: &Session,
) -> Result<()> {
    squashfs::check()?;
    let store = args.common.open_store(output, session)?;
    let source = args.common.open(&store, session)?;
    let squash = Squash {
        compressor: args.squash.compressor(&source)?,
        created: source.created()?,
        threads: session.options.jobs,
    };
    let progress = source.progress(output, &session.reporter);
    let flat = source.flat(&progress);
    let stop = &session.options.stop;
    netboot.write(
        output,
        |files| files.make(&flat, squash, stop),
        |dir| args.common.verify_files(dir, session),
    )?;
    if let Some(note) = source.lost_in_squashfs() {
        session.reporter.warn(&note);
    }
    Ok(())
}

/// Takes kernel, initrd and root filesystem from the live medium in `file` as they are.
fn netboot_of_medium(
    args: &NetbootArgs,
    netboot: &Netboot<'_>,
    file: &Path,
    output: &Path,
    session: &Session,
) -> Result<()> {
    let common = &args.common;
    for (option, is_given) in [
        ("--overlay-rootfs", common.overlay_rootfs.is_some()),
        (
            "--squash-compression",
            args.squash.squash_compression.is_some(),
        ),
        ("--platform", common.platform.is_some()),
    ] {
        if is_given {
            return Err(Error::usage(format!(
                "`{option}` does not go with a medium, whose files are taken as they are"
            ))
            .hint("name the image that it was made of"));
        }
    }
    let medium = Medium::open(file)?;
    let netboot = Netboot {
        cloud_config: netboot.cloud_config.or(medium.cloud_config.as_deref()),
        ..netboot.clone()
    };
    netboot.write(
        output,
        |files| files.copy(&medium, &session.options.stop),
        |dir| common.verify_files(dir, session),
    )
}

fn serve(args: &ServeArgs) -> Result<i32> {
    given::directory(&args.dir).context(|| format!("cannot serve `{}`", args.dir.display()))?;
    serve::run(&args.dir, args.address, &mut |text| print(text))?;
    Ok(0)
}
