//! `kfactory raw`: a disk made of an image.

use std::path::PathBuf;

use super::artifact::{ArtifactArgs, OutputArgs, cannot_add, finish};
use super::commands::Session;
use crate::artifact::disk::{Boot, Disk, DiskSize};
use crate::artifact::format::Format;
use crate::artifact::make::{self, Making};
use crate::error::{Context as _, Result};
use crate::given;

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
    /// Units are those of `truncate` and `qemu-img`, in any case: M, G, T and MiB, GiB, TiB are powers of 1024; MB, GB, TB are powers of
    /// 1000, rounded up to whole MiB. So it is for the other sizes here.
    ///
    /// The first boot adds the partitions of the installed system behind the others, and needs a disk that has room for them: four
    /// times as large as by default, or larger; the command says how large exactly. Give that here, or make the disk so large before
    /// it boots first: clouds and hypervisors have a size of their own for it, `truncate -s SIZE FILE` does it for a raw disk and
    /// `qemu-img resize FILE SIZE` for a qcow2. A disk that is too small stays in its recovery system, whose journal says
    /// `state partition not found`. What no file takes is a hole, which takes no room; the checksum is of it too, some minutes for each TiB.
    #[arg(long, value_name = "SIZE")]
    size: Option<DiskSize>,
    /// The size of the partition for the installed systems, which the first boot makes [default: three times the recovery partition and 100 MiB]
    #[arg(long, value_name = "SIZE")]
    state_size: Option<DiskSize>,
    /// The size of the recovery system, of which the installed ones are copies [default: what its files take and 200 MiB]
    #[arg(long, value_name = "SIZE")]
    recovery_size: Option<DiskSize>,
    /// A directory whose files go onto the FAT that UEFI starts from, in place of ours of the same name; on a board also config.txt,
    /// firmware, device trees and U-Boot
    #[arg(long, value_name = "DIR")]
    overlay_uefi: Option<PathBuf>,
}

/// Writes the disk.
pub(super) fn run(args: &RawArgs) -> Result<i32> {
    let common = &args.common;
    let text = common.source.as_deref().unwrap_or_default();
    let place = args.output.place();
    place.check()?;
    let format = Format::chosen(args.format, place.path)?;
    if let Some(overlay) = &args.overlay_uefi {
        given::directory(overlay).context(|| cannot_add(overlay))?;
    }
    let cloud_config = common.read_cloud_config()?;
    let session = Session::new(&common.image, &common.progress, false, &[text])?;
    common.warn_of(cloud_config.as_deref(), &session);
    let store = common.open_store(place.path, &session)?;
    let source = common.open(&store, &session)?;
    let disk = Disk {
        arch: source.arch()?,
        boot: args.boot,
        size: args.size,
        sizes: format.sizes(),
        state_size: args.state_size,
        recovery_size: args.recovery_size,
        cloud_config: cloud_config.as_deref(),
        overlay_uefi: args.overlay_uefi.as_deref(),
        created: source.created()?,
    };
    let making = Making {
        path: &place.file(&source.tree, format.ending())?,
        force: place.force,
        verify: !common.no_validate,
        threads: session.options.jobs,
        reporter: &session.reporter,
        stop: &session.options.stop,
    };
    finish(make::raw(&source, &disk, format, making)?, &session)
}
