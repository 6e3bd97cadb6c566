//! A live medium that is there already, ours or another's: where on it is what boots.

use std::path::Path;
use std::sync::Arc;

use kfactory_layers::input::open_regular;

use super::iso::reader::{self, Kind, Volume};
use super::live;
use super::region::Region;
use crate::error::{Context as _, Error, Result};
use crate::given;

/// The largest configuration that is read from a medium; the agent reads it into memory.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The files of a medium that boot it.
#[derive(Debug)]
pub struct Medium {
    /// The kernel.
    pub kernel: Region,
    /// The initrd.
    pub initrd: Region,
    /// The root filesystem.
    pub squashfs: Region,
    /// The configuration that the medium was made with.
    pub cloud_config: Option<Vec<u8>>,
}

impl Medium {
    /// Finds them on the medium in `file`.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no ISO 9660 disc, or lacks one of them.
    pub fn open(file: &Path) -> Result<Self> {
        let doing = || format!("cannot read the medium `{}`", file.display());
        given::file(file).context(doing)?;
        let opened = open_regular(file).context(doing)?;
        let len = opened.metadata().context(doing)?.len();
        let disc = Region::of_file(Arc::new(opened), len);
        let image = reader::read(&disc)
            .map_err(|error| Error::from_source(&error))
            .context(doing)?;
        Self::on(&disc, &image.primary).context(doing)
    }

    fn on(disc: &Region, volume: &Volume) -> Result<Self> {
        let find = |path: &str| {
            find(disc, volume, path)?.ok_or_else(|| {
                Error::user(format!("it has no /{path}, as live media of Kairos have"))
                    .hint("name such a medium, or the image it was made of")
            })
        };
        Ok(Self {
            kernel: find(live::KERNEL)?,
            initrd: find(live::INITRD)?,
            squashfs: find(live::SQUASHFS)?,
            cloud_config: find_config(disc, volume)?,
        })
    }
}

/// Returns where the file at `path` is.
fn find(disc: &Region, volume: &Volume, path: &str) -> Result<Option<Region>> {
    match volume.entry(path).map(|entry| &entry.kind) {
        Some(Kind::File(extents)) => Ok(Some(disc.part(extents)?)),
        _ => Ok(None),
    }
}

fn find_config(disc: &Region, volume: &Volume) -> Result<Option<Vec<u8>>> {
    let Some(place) = find(disc, volume, live::CONFIG)? else {
        return Ok(None);
    };
    if place.len() > MAX_CONFIG_BYTES {
        let name = live::CONFIG;
        return Err(Error::user(format!(
            "its /{name} is larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut place.reader(), &mut bytes)?;
    Ok(Some(bytes))
}
