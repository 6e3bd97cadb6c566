//! `kfactory raw`: a disk made of an image.

use std::fs::File;
use std::path::Path;

use kfactory_layers::partial;

use super::artifact::{ArtifactArgs, OutputArgs, Source};
use super::commands::Session;
use super::print;
use crate::artifact::disk::{Boot, Disk, DiskSize, Made};
use crate::artifact::format::{Details, Format};
use crate::artifact::guid::Guid;
use crate::artifact::output::Output;
use crate::distro::Arch;
use crate::error::{Context as _, Result};
use crate::progress::{Reporter, bytes_text};

/// Options of `kfactory raw`.
#[derive(Debug, clap::Args)]
pub(super) struct RawArgs {
    #[command(flatten)]
    pub(super) common: ArtifactArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// The form of the disk [default: what the file's ending says, else raw]
    ///
    /// Other forms than raw and vhd are made of a raw disk in a temporary file beside the output, which takes as much room as the
    /// image's files.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What starts the disk [default: both, where the image has GRUB for both]
    #[arg(long, value_enum)]
    boot: Option<Boot>,
    /// The size of the disk, in MiB or with a unit: `32G`; clouds and hypervisors can make it larger later [default: as large as its partitions]
    #[arg(long, value_name = "SIZE")]
    size: Option<DiskSize>,
    /// The size of the partition for the installed systems, which the first boot makes [default: three times the recovery partition and 100 MiB]
    #[arg(long, value_name = "SIZE")]
    state_size: Option<DiskSize>,
    /// The size of the recovery system, of which the installed ones are copies [default: what its files take and 200 MiB]
    #[arg(long, value_name = "SIZE")]
    recovery_size: Option<DiskSize>,
}

/// Writes the disk.
pub(super) fn run(args: &RawArgs) -> Result<i32> {
    let common = &args.common;
    let text = common.source.as_deref().unwrap_or_default();
    args.output.check()?;
    let target = &args.output.output;
    let format = match (args.format, target.is_dir()) {
        (Some(format), _) => format,
        (None, true) => Format::Raw,
        (None, false) => Format::of_path(target).unwrap_or(Format::Raw),
    };
    let cloud_config = common.read_cloud_config()?;
    let session = Session::new(&common.image, &common.progress, false, &[text])?;
    let source = Source::open(common, target, &session)?;
    let path = args.output.path(&source.tree, format.ending())?;
    let disk = Disk {
        arch: source.arch()?,
        boot: args.boot,
        size: args.size,
        size_step: format.size_step(),
        state_size: args.state_size,
        recovery_size: args.recovery_size,
        cloud_config: cloud_config.as_deref(),
        created: source.created()?,
    };
    let made = || {
        let output = Output::create(&path, args.output.force)?;
        let made = write(&disk, format, &source, &path, &output, &session)?;
        let bytes = output.file().metadata()?.len();
        Ok((made, bytes, output.finish(&session.options.stop)?))
    };
    let (made, bytes, digest) = made().map_err(|error| OutputArgs::failed(&path, error))?;
    tell(args, &made, format, disk.arch, &session.reporter);
    if session.reporter.is_json() {
        let value = serde_json::json!({
            "file": path, "sha256": digest, "bytes": bytes, "format": format.name(),
            "bios": made.boot.has_bios(), "uefi": made.boot.has_uefi(),
            "disk_bytes": made.size, "first_boot_disk_bytes": made.first_boot,
        });
        print(&format!("{value}\n"))?;
        return Ok(0);
    }
    let disk_size = bytes_text(made.size);
    print(&format!(
        "{}\nsha256:{digest} ({}, a disk of {disk_size})\n",
        path.display(),
        bytes_text(bytes)
    ))?;
    Ok(0)
}

/// Writes the disk in `format` to `output`, which will be called `path`.
fn write(
    disk: &Disk<'_>,
    format: Format,
    source: &Source,
    path: &Path,
    output: &Output,
    session: &Session,
) -> Result<Made> {
    let stop = &session.options.stop;
    let digest = source.image.manifest_digest();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let details = Details {
        name: &name,
        id: Guid::of_name(Guid::URL, &format!("{digest}/{}", format.name())),
        created: disk.created,
        threads: session.options.jobs,
    };
    let convert = |raw: &File| {
        format
            .write(raw, output.file(), &details, stop)
            .context(|| format!("making a {} of the disk", format.name()))
    };
    if format.is_in_place() {
        let made = disk.write(&source.flat(), output.file(), stop)?;
        convert(output.file())?;
        return Ok(made);
    }
    let raw = partial::create_beside(path, 0o600)?;
    let made = disk.write(&source.flat(), raw.as_file(), stop)?;
    convert(raw.as_file())?;
    Ok(made)
}

/// Says what somebody may not expect of the disk.
fn tell(args: &RawArgs, made: &Made, format: Format, arch: Arch, reporter: &Reporter) {
    if args.common.cloud_config.is_none() {
        reporter.warn(
            "nobody can log in to the installed system unless the image itself has a user: `--cloud-config FILE` brings one",
        );
    }
    if args.boot.is_none() && made.boot == Boot::Uefi && arch == Arch::Amd64 {
        reporter.warn(
            "the image has no GRUB for BIOS machines: the disk starts on UEFI alone (Debian and Ubuntu have it in `grub-pc-bin`)",
        );
    }
    if made.size < made.first_boot {
        let least = DiskSize::for_bytes(made.first_boot);
        reporter.warn(&format!(
            "the first boot needs a disk of {} at least: make it so large where it runs, or with `--size {least}`",
            bytes_text(made.first_boot)
        ));
    }
    if format == Format::Maas {
        reporter.warn(
            "the disk has no partition with a directory `curtin`, by which the installer of MAAS finds where to put network settings, and without which it may refuse a disk",
        );
    }
}
