//! The FAT that EFI firmware starts from: programs of the image, the `grub.cfg` that leads to the menu, and what the user gives in their place.

use std::io;

use kfactory_layers::image::Image;

use super::fat::{Builder, FatError, FileId, Layout, Volume};
use super::grub::efi::{EfiContent, EfiFile};
use super::region::Region;
use crate::error::{Error, Result};
use crate::tree::Tree;

/// How large a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// As large as its files need.
    Least,
    /// So many bytes, or the least multiple of them that has room.
    Multiple(u64),
}

/// A volume of which everything is at hand.
pub(super) struct EfiVolume {
    layout: Layout,
    contents: Vec<(FileId, Vec<u8>)>,
}

impl EfiVolume {
    /// Lays out `given`, paths with contents, and those of `files` that are not among them, whatever the case of their letters.
    ///
    /// # Errors
    ///
    /// A name that FAT cannot hold, or no room.
    pub(super) fn new(
        volume: Volume,
        files: &[EfiFile],
        given: Vec<(String, Vec<u8>)>,
        tree: &Tree,
        room: Room,
    ) -> Result<Self> {
        let mut builder = Builder::new(volume);
        let mut contents = Vec::new();
        let is_given = |path: &str| given.iter().any(|(it, _)| it.eq_ignore_ascii_case(path));
        let ours = files.iter().filter(|file| !is_given(&file.path));
        let ours: Vec<_> = ours
            .map(|file| Ok((file.path.clone(), bytes_of(file, tree)?)))
            .collect::<Result<_>>()?;
        for (path, bytes) in given.into_iter().chain(ours) {
            let id = builder.file(&path, bytes.len() as u64).map_err(of_fat)?;
            contents.push((id, bytes));
        }
        Ok(Self {
            layout: lay_out(builder, room).map_err(of_fat)?,
            contents,
        })
    }

    /// Returns its size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Writes all of it to `region`, which is fresh.
    pub(super) fn write(&self, region: &Region) -> io::Result<()> {
        self.layout.write(region)?;
        for (id, bytes) in &self.contents {
            region.write_all_at(bytes, self.layout.extent(*id).start)?;
        }
        Ok(())
    }
}

fn lay_out(builder: Builder, room: Room) -> Result<Layout, FatError> {
    match room {
        Room::Least => builder.layout(None),
        Room::Multiple(step) => {
            let least = builder.clone().layout(None)?.size();
            builder.layout(Some(least.next_multiple_of(step)))
        }
    }
}

/// Returns the serial number that the volume of an image has.
pub(super) fn serial(image: &Image) -> u32 {
    let digest = image.manifest_digest();
    let first = digest.as_bytes().first_chunk();
    first.map_or(0, |it| u32::from_le_bytes(*it))
}

fn bytes_of(file: &EfiFile, tree: &Tree) -> Result<Vec<u8>> {
    match &file.content {
        EfiContent::Text(text) => Ok(text.clone().into_bytes()),
        EfiContent::Image(path) => tree
            .read(path)?
            .ok_or_else(|| Error::internal(format!("/{path} was there a moment ago"))),
    }
}

fn of_fat(error: FatError) -> Error {
    Error::from_source(&error).context("cannot lay out the FAT that UEFI starts from")
}
