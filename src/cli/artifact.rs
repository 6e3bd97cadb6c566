//! `kfactory iso` and `kfactory netboot`: what boots of an image.

use std::path::{Path, PathBuf};

use kfactory_layers::image::Image;
use kfactory_layers::input::open_input_or_device;

use super::args::{ImageArgs, ProgressArgs};
use super::commands::{Session, fetch};
use super::print;
use crate::apart;
use crate::artifact::boot_files::BootFiles;
use crate::artifact::flat::Flat;
use crate::artifact::grub;
use crate::artifact::live::Live;
use crate::artifact::netboot::{Netboot, SCRIPT, check_cmdline, check_name, check_url};
use crate::artifact::output::{self, Output};
use crate::artifact::rootfs_overlay;
use crate::artifact::serve;
use crate::artifact::squashfs::{self, Algorithm, Compressor};
use crate::artifact::stem::stem;
use crate::convert::{self, Clock};
use crate::distro::Arch;
use crate::error::{Context as _, Error, Kind, Result};
use crate::given;
use crate::printable::counted;
use crate::progress::bytes_text;
use crate::store::Store;
use crate::tree::{self, Tree, Wanted};
use crate::validate::{self, Scope};

/// The largest configuration; the agent reads it into memory.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

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
    /// Do not check first whether the image is ready to boot
    #[arg(long)]
    no_validate: bool,
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

    /// Reads the configuration that goes along; it is text for the agent, and not looked into.
    pub(super) fn read_cloud_config(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = &self.cloud_config else {
            return Ok(None);
        };
        let doing = || format!("cannot read the configuration `{}`", file.display());
        let mut bytes = Vec::new();
        let mut read = |input: &mut dyn std::io::Read| {
            std::io::Read::read_to_end(
                &mut std::io::Read::take(input, MAX_CONFIG_BYTES + 1),
                &mut bytes,
            )
        };
        match file.as_os_str() == "-" {
            true => read(&mut std::io::stdin().lock()).context(doing)?,
            false => {
                given::file(file).context(doing)?;
                read(&mut open_input_or_device(file).context(doing)?).context(doing)?
            }
        };
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            let most = MAX_CONFIG_BYTES;
            return Err(Error::user(format!("it is larger than {most} bytes")).context(doing()));
        }
        Ok(Some(bytes))
    }
}

/// How the root filesystem of a live system is made.
#[derive(Debug, clap::Args)]
struct SquashArgs {
    /// How the root filesystem is compressed: `zstd`, `gzip` (1 to 22, 1 to 9: `zstd:3`), `xz` or `lz4` [default: zstd if the image's kernel reads it, else gzip]
    #[arg(long, value_name = "NAME[:LEVEL]")]
    squash_compression: Option<Compressor>,
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
    /// Replace files of the same name, when the new ones are whole
    #[arg(long)]
    pub(super) force: bool,
}

impl OutputArgs {
    /// Checks what can be known before there is an image.
    pub(super) fn check(&self) -> Result<()> {
        self.name.as_deref().map_or(Ok(()), check_name)?;
        if self.output.is_dir() {
            // The name comes from the image.
            return Ok(());
        }
        if self.name.is_some() {
            return Err(Error::usage("`--name` says what is made in a directory")
                .hint("leave it out, or name a directory with `--output`"));
        }
        given::place_for(&self.output)
            .context(|| format!("cannot write `{}`", self.output.display()))?;
        output::check_free(&self.output, self.force)
    }

    /// Returns the file; in a directory, what is made of the image with `tree` ends in `ending`.
    pub(super) fn path(&self, tree: &Tree, ending: &str) -> Result<PathBuf> {
        if !self.output.is_dir() {
            return Ok(self.output.clone());
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => stem(tree)?,
        };
        Ok(self.output.join(format!("{name}{ending}")))
    }

    /// Says that `path` was not made.
    pub(super) fn failed(path: &Path, error: Error) -> Error {
        match error.kind() {
            Kind::Interrupted => Error::interrupted(format!("there is no `{}`", path.display())),
            _ => error.context(format!("cannot make `{}`", path.display())),
        }
    }
}

/// An image that is to become something bootable.
pub(super) struct Source {
    store: Store,
    /// With a layer of what was added to it.
    pub(super) image: Image,
    pub(super) tree: Tree,
}

impl Source {
    /// Fetches the image, and checks that it is ready.
    pub(super) fn open(args: &ArtifactArgs, target: &Path, session: &Session) -> Result<Self> {
        let text = args.source.as_deref().unwrap_or_default();
        let platform = convert::parse_platform(args.platform.as_deref())?;
        let location = convert::parse_location(text, session.registry())?;
        session.check_apart(&location)?;
        apart::check_target(&location, target)?;
        let store = session.open_store()?;
        let image = fetch(&location, &platform, &store, session)?;
        let wanted = Wanted {
            kept: |path| validate::reads(path) || grub::is_wanted(path),
            digests: false,
        };
        let tree = tree::of_image(&image.image, &store, wanted)?;
        if !args.no_validate {
            let scope = Scope {
                arch: image.image.architecture().parse().ok(),
                ..Scope::default()
            };
            let report = validate::validate(&tree, &scope, Some(&session.options.stop))?;
            if let Some(error) = report.error() {
                return Err(error.context(format!("cannot make `{text}` boot")));
            }
        }
        let Some(dir) = &args.overlay_rootfs else {
            let image = image.image;
            return Ok(Self { store, image, tree });
        };
        let overlay = rootfs_overlay::layer(dir, &image.image, &tree, &store, session.options.jobs)
            .context(|| format!("cannot add the overlay `{}`", dir.display()))?;
        let tree = tree::with_last_layer(tree, &overlay, &store, wanted)?;
        Ok(Self {
            store,
            image: overlay,
            tree,
        })
    }

    pub(super) fn flat(&self) -> Flat<'_> {
        Flat {
            image: &self.image,
            store: &self.store,
            tree: &self.tree,
        }
    }

    /// Returns what the image's programs run on.
    pub(super) fn arch(&self) -> Result<Arch> {
        let text = self.image.architecture();
        text.parse().map_err(|_| {
            Error::user(format!("nothing that boots can be made for `{text}`"))
                .hint("`amd64`, `arm64` and `riscv64` are known; `--platform linux/ARCH` chooses another of the image's")
        })
    }

    /// Returns the compressor that was asked for, or the best that the image's kernel is known to read.
    fn compressor(&self, args: &SquashArgs) -> Result<Compressor> {
        if let Some(compressor) = args.squash_compression {
            return Ok(compressor);
        }
        let boot = BootFiles::find(&self.tree)?;
        let zstd = Algorithm::Zstd;
        let algorithm = match boot.has_option(&self.tree, zstd.kernel_option())? {
            true => zstd,
            false => Algorithm::Gzip,
        };
        Ok(Compressor {
            algorithm,
            level: None,
        })
    }

    /// Returns the time that what is made is dated with: `SOURCE_DATE_EPOCH`, or when the image was made.
    pub(super) fn created(&self) -> Result<i64> {
        if let Some(epoch) = Clock::from_env()?.clamp() {
            return Ok(epoch);
        }
        let created = self.image.created();
        Ok(created
            .and_then(kfactory_layers::time::epoch_secs)
            .unwrap_or(0))
    }
}

/// Says what squashfs has no room for.
fn tell_lost(source: &Source, session: &Session) {
    if let Some((path, count)) = squashfs::lost_attributes(&source.tree) {
        session.reporter.warn(&format!(
            "squashfs holds no access control lists: those of {} are left out, the first of them /{}",
            counted(count, "object"),
            path.display()
        ));
    }
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
    args.output.check()?;
    let cloud_config = common.read_cloud_config()?;
    squashfs::check()?;
    let session = Session::new(&common.image, &common.progress, false, &[text])?;
    let source = Source::open(common, &args.output.output, &session)?;
    let path = args.output.path(&source.tree, ".iso")?;
    let live = Live {
        arch: source.arch()?,
        console: args.live_console.as_deref(),
        cmdline: args.cmdline.as_deref(),
        cloud_config: cloud_config.as_deref(),
        overlay_iso: args.overlay_iso.as_deref(),
        overlay_uefi: args.overlay_uefi.as_deref(),
        compressor: source.compressor(&args.squash)?,
        created: source.created()?,
        threads: session.options.jobs,
    };
    let stop = &session.options.stop;
    let made = || {
        let output = Output::create(&path, args.output.force)?;
        let made = live.write(&source.flat(), &output, stop)?;
        Ok((made, output.finish(stop)?))
    };
    let (made, digest) = made().map_err(|error| OutputArgs::failed(&path, error))?;
    tell_lost(&source, &session);
    if !made.bios && source.arch()? == Arch::Amd64 {
        session.reporter.warn(
            "the image has no GRUB for BIOS machines: the medium starts on UEFI alone (Debian and Ubuntu have it in `grub-pc-bin`)",
        );
    }
    if session.reporter.is_json() {
        let value = serde_json::json!({
            "file": path, "sha256": digest, "bytes": made.size, "bios": made.bios, "uefi": true,
        });
        print(&format!("{value}\n"))?;
        return Ok(0);
    }
    print(&format!(
        "{}\nsha256:{digest} ({})\n",
        path.display(),
        bytes_text(made.size)
    ))?;
    Ok(0)
}

/// Options of `kfactory netboot`.
#[derive(Debug, clap::Args)]
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
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:8090")]
    address: std::net::SocketAddr,
}

/// Writes the files, or serves them.
pub(super) fn netboot(args: &NetbootArgs) -> Result<i32> {
    if let Some(NetbootCommand::Serve(args)) = &args.command {
        return serve(args);
    }
    let common = &args.common;
    let source = common.source.as_deref().unwrap_or_default();
    let output = args.output.as_deref().unwrap_or(Path::new(""));
    args.cmdline.as_deref().map_or(Ok(()), check_cmdline)?;
    let url = args.url.as_deref().map(check_url).transpose()?;
    crate::staging::check_free(output)
        .map_err(|error| error.hint("name a new directory with `--output`"))?;
    let cloud_config = common.read_cloud_config()?;
    squashfs::check()?;
    let session = Session::new(&common.image, &common.progress, false, &[source])?;
    let source = Source::open(common, output, &session)?;
    let netboot = Netboot {
        name: &args.name,
        compressor: source.compressor(&args.squash)?,
        cmdline: args.cmdline.as_deref(),
        cloud_config: cloud_config.as_deref(),
        url: url.as_deref(),
        created: source.created()?,
        threads: session.options.jobs,
    };
    netboot
        .write(&source.flat(), output, &session.options.stop)
        .map_err(|error| match error.kind() {
            Kind::Interrupted => {
                Error::interrupted(format!("{} is as it was before", output.display()))
            }
            _ => error,
        })?;
    tell_lost(&source, &session);
    print(&format!("{}\n", output.join(SCRIPT).display()))?;
    Ok(0)
}

fn serve(args: &ServeArgs) -> Result<i32> {
    given::directory(&args.dir).context(|| format!("cannot serve `{}`", args.dir.display()))?;
    serve::run(&args.dir, args.address, &mut |text| print(text))?;
    Ok(0)
}
