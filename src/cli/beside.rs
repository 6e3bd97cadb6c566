//! Options of `kfactory convert` for media and disks that are made beside the image.

use crate::request::Request;

/// Media and disks that are made beside the image.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BesideArgs {
    /// Write a live medium of the result too, as `kfactory iso` does: a file, or a directory in which it gets a name
    #[arg(long, value_name = "FILE", help_heading = "Artifacts")]
    iso: Option<String>,
    /// Write a disk of the result too, as `kfactory raw` does, in the form that the file's ending says; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Artifacts")]
    raw: Vec<String>,
    /// How large the disks are: `32G`; the first boot needs more than a disk has by default, as `kfactory raw --help` says
    #[arg(long, value_name = "SIZE", help_heading = "Artifacts")]
    raw_size: Option<String>,
    /// A configuration for the installation and the system, which goes onto them; `-` reads it from standard input
    #[arg(long, value_name = "FILE", help_heading = "Artifacts")]
    cloud_config: Option<String>,
    /// How the root filesystem on a medium is compressed: `zstd`, `gzip`, `xz` or `lz4`, with a level as `zstd:3` [default: zstd if the image's kernel reads it, else gzip]
    #[arg(long, value_name = "NAME[:LEVEL]", help_heading = "Artifacts")]
    squash_compression: Option<String>,
    /// Let media and disks take the place of files that have their names already
    #[arg(long, help_heading = "Artifacts")]
    pub(super) force: bool,
}

impl BesideArgs {
    /// Puts what is given in place of what a recipe says.
    pub(super) fn set(&self, request: &mut Request) {
        for (slot, value) in [
            (&mut request.iso, &self.iso),
            (&mut request.raw_size, &self.raw_size),
            (&mut request.cloud_config, &self.cloud_config),
            (&mut request.squash_compression, &self.squash_compression),
        ] {
            if value.is_some() {
                slot.clone_from(value);
            }
        }
        if !self.raw.is_empty() {
            request.raw.clone_from(&self.raw);
        }
    }
}
