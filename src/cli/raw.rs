//! `kfactory raw`: a disk made of an image.

use std::fs::File;
use std::path::Path;

use kfactory_layers::partial;

use super::artifact::{ArtifactArgs, OutputArgs, Source};
use super::commands::Session;
use super::print;
use crate::artifact::disk::{Boot, Disk, DiskSize, Made, installs};
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
    /// The size of the disk, in MiB or with a unit: `32G` [default: as large as its partitions, about twice the image's files]
    ///
    /// The first boot adds the partitions of the installed system behind the others, and needs a disk that has room for them: four
    /// times as large as by default, or larger; the command says how large exactly. Give that here, or make the disk so large before
    /// it boots first: clouds and hypervisors have a size of their own for it, `truncate -s SIZE FILE` does it for a raw disk and
    /// `qemu-img resize FILE SIZE` for a qcow2. A disk that is too small stays in its recovery system. What no file takes is a hole.
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
    tell(&disk, &made, format, &session.reporter);
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
fn tell(disk: &Disk<'_>, made: &Made, format: Format, reporter: &Reporter) {
    match disk.cloud_config {
        None => reporter.warn(
            "there are no default credentials: nobody can log in to the installed system unless the image itself has a user; `--cloud-config FILE` brings one",
        ),
        Some(config) if !installs(config) => reporter.warn(
            "the configuration has no user of the group `admin`, without whom the agent installs nothing: `install.nousers: true` in it says that this is meant",
        ),
        Some(_) => {}
    }
    if disk.boot.is_none() && made.boot == Boot::Uefi && disk.arch == Arch::Amd64 {
        reporter.warn(
            "the image has no GRUB for BIOS machines: the disk starts on UEFI alone (Debian and Ubuntu have it in `grub-pc-bin`)",
        );
    }
    if made.size < made.first_boot {
        let least = DiskSize::for_bytes(made.first_boot);
        reporter.warn(&format!(
            "the disk must have {} when it boots first, and has {}: {}, or make it with `--size {least}`",
            bytes_text(made.first_boot),
            bytes_text(made.size),
            growing(format, least),
        ));
    }
    if format == Format::Maas {
        reporter.warn(
            "the disk has no partition with a directory `curtin`, by which the installer of MAAS finds where to put network settings, and without which it may refuse a disk",
        );
    }
}

/// Says how a disk in `format` gets `size` before it boots.
fn growing(format: Format, size: DiskSize) -> String {
    match format {
        Format::Raw => format!("`truncate -s {size} FILE` adds what is missing"),
        Format::Qcow2 => format!("`qemu-img resize FILE {size}` adds what is missing"),
        Format::Vhd | Format::Vmdk | Format::Gce | Format::Maas => {
            "give the machine's disk that size where it is made".to_owned()
        }
    }
}
