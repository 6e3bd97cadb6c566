//! An image that is to become something bootable, and what follows from it where nobody says otherwise.

use std::path::Path;
use std::sync::Arc;

use kfactory_layers::image::Image;
use kfactory_sandbox::CancelToken;

use super::boot_files::BootFiles;
use super::flat::Flat;
use super::squashfs::{self, Algorithm, Compressor};
use super::{board, grub, rootfs_overlay};
use crate::convert::Clock;
use crate::distro::Arch;
use crate::error::{Context as _, Error, Result};
use crate::kairos::release::RELEASE_PATH;
use crate::printable::counted;
use crate::progress::{Reporter, Transfer};
use crate::store::Store;
use crate::tree::{self, Tree, Wanted};
use crate::validate::{self, Scope};

/// An image whose blobs are in the store, with its tree.
#[derive(Debug)]
pub struct Source<'s> {
    store: &'s Store,
    /// The image; where something was added to it, that is its last layer.
    pub image: Image,
    /// Its files, and of those that say whether and how it boots the contents.
    pub tree: Tree,
}

impl<'s> Source<'s> {
    /// Reads the tree of `image`; `reporter` shows how far it is.
    ///
    /// # Errors
    ///
    /// A damaged layer.
    pub fn read(image: Image, store: &'s Store, reporter: &Arc<Reporter>) -> Result<Self> {
        let progress = reporter.transfer("read", "the image", layer_bytes(&image));
        let tree = tree::of_image(&image, store, wanted(), Some(&progress))?;
        drop(progress);
        Ok(Self { store, image, tree })
    }

    /// Checks that the image is ready to boot.
    ///
    /// # Errors
    ///
    /// A rule of severity error is broken, or the user stops the run.
    pub fn validate(&self, stop: &CancelToken) -> Result<()> {
        if [RELEASE_PATH, "boot/vmlinuz"]
            .iter()
            .all(|path| self.tree.node(path).is_none())
        {
            return Err(Error::user(format!(
                "this is no Kairos image: it has neither a kernel nor /{}",
                RELEASE_PATH.trim_start_matches('/')
            ))
            .hint("`kfactory convert IMAGE DESTINATION` makes one of it, with `--iso` and `--raw` what boots of it in the same run")
            .hint("`kfactory validate IMAGE` says all that it lacks"));
        }
        let scope = Scope {
            arch: self.image.architecture().parse().ok(),
            ..Scope::default()
        };
        let report = validate::validate(&self.tree, &scope, Some(stop))?;
        let failed = report.error(
            "the image does not pass validation",
            "`--no-validate` makes it of the image as it is",
        );
        failed.map_or(Ok(()), Err)
    }

    /// Adds the files below `dir`, in place of the image's of the same name.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn with_overlay(self, dir: &Path, jobs: usize) -> Result<Self> {
        let image = rootfs_overlay::layer(dir, &self.image, &self.tree, self.store, jobs)
            .context(|| format!("cannot add the overlay `{}`", dir.display()))?;
        let tree = tree::with_last_layer(self.tree, &image, self.store, wanted())?;
        Ok(Self {
            store: self.store,
            image,
            tree,
        })
    }

    /// Starts to show how far the file of this name is.
    pub fn progress(&self, name: &Path, reporter: &Arc<Reporter>) -> Transfer {
        let total = layer_bytes(&self.image);
        let name = name.file_name().unwrap_or(name.as_os_str());
        reporter.transfer("write", &name.to_string_lossy(), total)
    }

    /// Returns it as what the writers take; `progress` is told how much of it has been read.
    pub fn flat<'a>(&'a self, progress: &'a Transfer) -> Flat<'a> {
        Flat {
            image: &self.image,
            store: self.store,
            tree: &self.tree,
            progress: Some(progress),
        }
    }

    /// Returns what the image's programs run on.
    ///
    /// # Errors
    ///
    /// An architecture that has no firmware we know.
    pub fn arch(&self) -> Result<Arch> {
        let text = self.image.architecture();
        text.parse().map_err(|_| {
            Error::user(format!("nothing that boots can be made for `{text}`"))
                .hint("`amd64`, `arm64` and `riscv64` are known; `--platform linux/ARCH` chooses another of the image's")
        })
    }

    /// Returns the best compressor that the image's kernel is known to read.
    ///
    /// # Errors
    ///
    /// The image has no kernel.
    pub fn compressor(&self) -> Result<Compressor> {
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
    ///
    /// # Errors
    ///
    /// That variable is no number.
    pub fn created(&self) -> Result<i64> {
        if let Some(epoch) = Clock::from_env()?.clamp() {
            return Ok(epoch);
        }
        let created = self.image.created();
        Ok(created
            .and_then(kfactory_layers::time::epoch_secs)
            .unwrap_or(0))
    }

    /// Says what of the image a squashfs has no room for.
    pub fn lost_in_squashfs(&self) -> Option<String> {
        let (path, count) = squashfs::lost_attributes(&self.tree)?;
        Some(format!(
            "squashfs holds no access control lists: those of {} are left out, the first of them /{}",
            counted(count, "object"),
            path.display()
        ))
    }
}

fn layer_bytes(image: &Image) -> u64 {
    image.layers().iter().map(|layer| layer.size).sum()
}

fn wanted() -> Wanted {
    Wanted {
        kept: |path| validate::reads(path) || grub::is_wanted(path) || board::is_wanted(path),
        digests: false,
    }
}
