//! The file system with the recovery system, which is a file system in a file of it, written in place.

use std::collections::BTreeSet;

use kfactory_sandbox::CancelToken;

use super::files::{SmallFile, SmallFiles, of_root};
use super::size::{DiskSize, MIB};
use crate::artifact::ext4::{Builder, Ext4Error, FileId, Journal, Layout, Size, Volume};
use crate::artifact::flat::Flat;
use crate::artifact::guid::Guid;
use crate::artifact::names::{RECOVERY_IMAGE, RECOVERY_LABEL, SYSTEM_LABEL};
use crate::artifact::region::Region;
use crate::error::{Context as _, Error, Result};
use crate::stop;

/// What is free in it.
const IMAGE_FREE_BYTES: u64 = 200 * MIB;
/// What the partition has beside twice the system: an upgrade writes the next one before it removes the last.
const PARTITION_FREE_BYTES: u64 = 150 * MIB;

/// The partition, laid out.
pub(super) struct Recovery {
    partition: Layout,
    system: Layout,
    image: FileId,
    files: SmallFiles,
    partition_bytes: u64,
}

/// What the file systems are told beside their contents.
pub(super) struct Stamp<'a> {
    /// When they were made, in seconds since 1970.
    pub(super) created: i64,
    /// Returns what tells the one with a label from all others.
    pub(super) uuid: &'a dyn Fn(&str) -> Guid,
}

impl Stamp<'_> {
    /// Returns a file system with this label.
    pub(super) fn volume(&self, label: &str, size: Size, journal: Journal) -> Volume {
        Volume {
            label: label.to_owned(),
            uuid: (self.uuid)(label),
            epoch: self.created,
            size,
            journal,
        }
    }
}

impl Recovery {
    /// Lays out the system that `flat` is, as large as `size` says, and `files` beside it.
    ///
    /// # Errors
    ///
    /// A file that no ext4 file system can hold, or a size that is too small for all.
    pub(super) fn new(
        flat: &Flat<'_>,
        size: Option<DiskSize>,
        files: Vec<SmallFile>,
        stamp: &Stamp<'_>,
    ) -> Result<Self> {
        let system = system(flat, size, stamp)?;
        let partition_bytes = 2 * system.size() + PARTITION_FREE_BYTES;
        let volume = stamp.volume(RECOVERY_LABEL, Size::Exact(partition_bytes), Journal::Usual);
        let laid_out = || {
            let mut builder = Builder::new(volume);
            let image =
                builder.file(RECOVERY_IMAGE, of_root(0o644, stamp.created), system.size())?;
            let files = SmallFiles::declare(&mut builder, files, stamp.created)?;
            Ok((builder.layout()?, image, files))
        };
        let (partition, image, files) = laid_out().map_err(|error: Ext4Error| {
            Error::from_source(&error).context("cannot lay out the recovery partition")
        })?;
        Ok(Self {
            partition,
            system,
            image,
            files,
            partition_bytes,
        })
    }

    /// Returns the size of the partition in bytes.
    pub(super) fn partition_bytes(&self) -> u64 {
        self.partition_bytes
    }

    /// Returns the size of the system in it, in bytes.
    pub(super) fn system_bytes(&self) -> u64 {
        self.system.size()
    }

    /// Writes all of it to `volume`, the partition.
    ///
    /// # Errors
    ///
    /// A damaged layer, a full disk, or the user stops the run.
    pub(super) fn write(
        &self,
        volume: &Region,
        flat: &Flat<'_>,
        cancel: &CancelToken,
    ) -> Result<()> {
        self.partition.write(volume)?;
        self.files.write(&self.partition, volume)?;
        let image = self.partition.region(volume, self.image)?;
        self.system.write(&image)?;
        let of_tree = |file| match file {
            FileId::OfTree(id) => Some(id),
            FileId::Added(_) => None,
        };
        let wanted: BTreeSet<u64> = self.system.files().filter_map(of_tree).collect();
        flat.contents(&wanted, &mut |id, size, content| {
            stop::check(cancel)?;
            let place = self.system.region(&image, FileId::OfTree(id))?;
            place
                .copy_at(content, 0, size)
                .context(|| "writing the recovery system".to_owned())
        })
    }
}

fn system(flat: &Flat<'_>, size: Option<DiskSize>, stamp: &Stamp<'_>) -> Result<Layout> {
    if let Some(size) = size.filter(|size| size.bytes() > MAX_IMAGE_BYTES) {
        let most = DiskSize::for_bytes(MAX_IMAGE_BYTES - MIB);
        return Err(Error::user(format!(
            "a recovery system of {size} needs a partition of more than 16 TiB, where ext4 with blocks of 4 KiB ends"
        ))
        .hint(format!("`--recovery-size {most}` is the most that has one")));
    }
    let asked = match size {
        Some(size) => Size::Exact(size.bytes()),
        None => Size::Margin(IMAGE_FREE_BYTES),
    };
    lay_out(flat, asked, stamp).map_err(|error| {
        let shown = Error::from_source(&error).context(format!("cannot lay out /{RECOVERY_IMAGE}"));
        match error {
            Ext4Error::Full { needed, .. } => match least(flat, needed, stamp) {
                Some(least) => {
                    shown.hint(format!("`--recovery-size {least}` is the least that does"))
                }
                None => shown,
            },
            Ext4Error::Size(_) => {
                shown.hint("without `--recovery-size` it is as large as the files need")
            }
            _ => shown,
        }
    })
}

/// The largest system whose partition has less than 2^32 blocks.
const MAX_IMAGE_BYTES: u64 = ((1 << 44) - MIB - PARTITION_FREE_BYTES) / 2;

fn lay_out(flat: &Flat<'_>, size: Size, stamp: &Stamp<'_>) -> Result<Layout, Ext4Error> {
    // It is mounted read-only.
    let mut builder = Builder::new(stamp.volume(SYSTEM_LABEL, size, Journal::Smallest));
    builder.tree(flat.tree);
    builder.layout()
}

/// Returns the least size that has room, which is `bytes` or somewhat more: a larger file system takes more for itself.
fn least(flat: &Flat<'_>, bytes: u64, stamp: &Stamp<'_>) -> Option<DiskSize> {
    let first = DiskSize::for_bytes(bytes).mib();
    let mut sizes = (first..first + 64).map(|mib| DiskSize::for_bytes(mib * MIB));
    sizes.find(|size| lay_out(flat, Size::Exact(size.bytes()), stamp).is_ok())
}
