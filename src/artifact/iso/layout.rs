//! Where everything is on a disc, and what of it is not content.

use std::collections::BTreeMap;

use super::disc::{Disc, Hybrid};
use super::hybrid::{BACKUP_BLOCKS, Places, tables};
use super::names::Names;
use super::time::Stamp;
use super::tree::{Content, FileId, Tree};
use super::view::{Extent, View};
use super::{BLOCK, IsoError, blocks, descriptor, el_torito};

/// A disc whose files have their places.
#[derive(Debug, Clone)]
pub struct Layout {
    disc: Disc,
    stamp: Stamp,
    /// The disc as a CD, which leads to the boot catalog, and what the partition sees of it.
    volumes: Vec<Volume>,
    /// By node; that of the last file has the size 0.
    extents: BTreeMap<usize, Extent>,
    /// The file whose size is not known, and the most bytes it can have.
    last: Option<(usize, u64)>,
    /// The block after everything but the last file.
    end: u32,
}

/// What the metadata of a disc is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The size of the whole disc in bytes, a multiple of 2048.
    pub len: u64,
    /// By their offsets; they do not overlap, and nothing else belongs where they go.
    pub pieces: Vec<Piece>,
}

/// Bytes and their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// From the start of the disc, in bytes.
    pub offset: u64,
    /// What stands there.
    pub bytes: Vec<u8>,
}

/// Descriptors and views that count blocks from `base`.
#[derive(Debug, Clone)]
struct Volume {
    base: u32,
    views: [View; 2],
    /// The boot catalog that the descriptors lead to.
    catalog: Option<u32>,
}

impl Layout {
    /// Lays out a disc that was checked.
    pub(super) fn of(disc: Disc) -> Result<Self, IsoError> {
        let stamp = Stamp::of(disc.time_secs)?;
        let tree = &disc.tree;
        let boots = disc.bios.is_some() || disc.uefi.is_some();
        let mut places = Cursor::default();

        let descriptors = 3 + u64::from(boots);
        places.take(u64::from(descriptor::FIRST) + descriptors)?;
        let mut whole = Volume::measure(tree, None, stamp.short)?;
        whole.place(0, &mut places)?;
        whole.catalog = if boots { Some(places.take(1)?) } else { None };

        let mut extents = BTreeMap::new();
        if let Some(uefi) = disc.uefi {
            extents.insert(uefi.0, places.extent(tree, uefi.0)?);
        }
        let mut volumes = vec![whole];
        if disc.hybrid.is_some() {
            let omitted = disc.uefi.map(|uefi| uefi.0);
            let base = places.take(u64::from(descriptor::FIRST) + 3)?;
            let mut partition = Volume::measure(tree, omitted, stamp.short)?;
            partition.place(base, &mut places)?;
            volumes.push(partition);
        }

        let mut last = None;
        let mut files = Vec::new();
        tree.each_file(|_, node| match tree.content(node) {
            Some(Content::Last { at_most }) => last = Some((node, *at_most)),
            _ if extents.contains_key(&node) => {}
            _ => files.push(node),
        });
        for node in files {
            let extent = places.extent(tree, node)?;
            extents.insert(node, extent);
        }
        let end = places.take(0)?;
        if let Some((node, at_most)) = last {
            let extent = Extent {
                block: end,
                size: 0,
            };
            extents.insert(node, extent);
            places.take(blocks(at_most))?;
        }
        // Whatever the last file becomes, the end has its number.
        places.take(u64::from(BACKUP_BLOCKS))?;
        Ok(Self {
            stamp,
            volumes,
            extents,
            last,
            end,
            disc,
        })
    }

    /// Returns where the content of `file` starts, in bytes from the start of the disc.
    pub fn offset(&self, file: FileId) -> u64 {
        let extent = self.extents.get(&file.0);
        extent.map_or(0, |extent| u64::from(extent.block) * BLOCK)
    }

    /// Returns the paths of the disc's files, each with its [`FileId`], in the order of the paths.
    pub fn files(&self) -> Vec<(Vec<u8>, FileId)> {
        let mut files = Vec::new();
        self.disc
            .tree
            .each_file(|path, node| files.push((path.to_vec(), FileId(node))));
        files
    }

    /// Returns everything but the contents that come later. `last_size` is the size of the [`Content::Last`] file, and unused
    /// without one.
    ///
    /// # Errors
    ///
    /// [`IsoError::Last`]: that file is larger than it was said to become.
    pub fn finish(&self, last_size: u64) -> Result<Metadata, IsoError> {
        let last_size = self.last_size(last_size)?;
        let content_end = self.end + blocks(last_size) as u32;
        let total = match self.disc.hybrid {
            Some(_) => content_end + BACKUP_BLOCKS,
            None => content_end,
        };
        let extent = |node: usize| {
            let mut extent = self.extents.get(&node).copied()?;
            if self.last.is_some_and(|(last, _)| last == node) {
                extent.size = last_size;
            }
            Some(extent)
        };
        let mut pieces = Vec::new();
        for volume in &self.volumes {
            // The partition ends before the backup table, the CD after it.
            let end = if volume.base == 0 { total } else { content_end };
            pieces.extend(volume.render(&self.disc, &self.stamp, end, extent));
        }
        let catalog = self.volumes[0].catalog;
        if let (Some(place), Some(bytes)) = (catalog, self.boot_catalog()) {
            pieces.push(Piece::at_block(place, bytes));
        }
        pieces.extend(self.contents());
        if let Some(hybrid) = &self.disc.hybrid {
            pieces.extend(self.tables(hybrid, content_end, total)?);
        }
        pieces.sort_by_key(|piece| piece.offset);
        Ok(Metadata {
            len: u64::from(total) * BLOCK,
            pieces,
        })
    }

    fn last_size(&self, size: u64) -> Result<u64, IsoError> {
        match self.last {
            None => Ok(0),
            Some((_, at_most)) if size <= at_most => Ok(size),
            Some((node, at_most)) => Err(IsoError::Last {
                path: String::from_utf8_lossy(&self.disc.tree.path(FileId(node))).into_owned(),
                size,
                at_most,
            }),
        }
    }

    fn boot_catalog(&self) -> Option<Vec<u8>> {
        el_torito::catalog(
            self.disc.bios.map(|bios| self.extents[&bios.0]),
            self.disc.uefi.map(|uefi| self.extents[&uefi.0]),
        )
    }

    /// Returns the contents that the description had, patched where that is asked for.
    fn contents(&self) -> impl Iterator<Item = Piece> {
        self.extents.iter().filter_map(|(node, extent)| {
            let Some(Content::Bytes(bytes)) = self.disc.tree.content(*node) else {
                return None;
            };
            let mut bytes = bytes.clone();
            if self.disc.bios.is_some_and(|bios| bios.0 == *node) {
                el_torito::patch(&mut bytes, extent.block);
            }
            (!bytes.is_empty()).then(|| Piece::at_block(extent.block, bytes))
        })
    }

    fn tables(
        &self,
        hybrid: &Hybrid,
        content_end: u32,
        total: u32,
    ) -> Result<impl Iterator<Item = Piece>, IsoError> {
        let base = self.volumes.last().map_or(0, |volume| volume.base);
        let places = Places {
            bios: self.disc.bios.map(|bios| self.extents[&bios.0].block),
            esp: self.disc.uefi.map(|uefi| self.extents[&uefi.0]),
            iso: (base, content_end),
            total,
        };
        let pieces = tables(hybrid, &places)?.into_iter();
        Ok(pieces.map(|(offset, bytes)| Piece { offset, bytes }))
    }
}

impl Volume {
    fn measure(tree: &Tree, omitted: Option<usize>, time: [u8; 7]) -> Result<Self, IsoError> {
        let view = |names| View::measure(tree, names, omitted, time);
        Ok(Self {
            base: 0,
            views: [view(Names::Primary)?, view(Names::Joliet)?],
            catalog: None,
        })
    }

    fn place(&mut self, base: u32, places: &mut Cursor) -> Result<(), IsoError> {
        self.base = base;
        for view in &mut self.views {
            let start = places.take(view.blocks.into())?;
            view.place(start, base);
        }
        Ok(())
    }

    /// Returns descriptors and views of a volume that reaches up to block `end`.
    fn render(
        &self,
        disc: &Disc,
        stamp: &Stamp,
        end: u32,
        extent: impl Fn(usize) -> Option<Extent> + Copy,
    ) -> Vec<Piece> {
        let volume = |view| descriptor::volume(view, &disc.identifiers, stamp, end - self.base);
        let [primary, joliet] = &self.views;
        let mut descriptors = volume(primary);
        // Firmware looks for the one of El Torito in the second place.
        descriptors.extend(self.catalog.map(descriptor::boot).unwrap_or_default());
        descriptors.extend(volume(joliet));
        descriptors.extend(descriptor::end());
        let mut pieces = vec![Piece::at_block(self.base + descriptor::FIRST, descriptors)];
        for view in &self.views {
            pieces.push(Piece::at_block(view.start, view.render(extent)));
        }
        pieces
    }
}

impl Piece {
    fn at_block(block: u32, bytes: Vec<u8>) -> Self {
        Self {
            offset: u64::from(block) * BLOCK,
            bytes,
        }
    }
}

/// The next free block.
#[derive(Default)]
struct Cursor(u32);

impl Cursor {
    /// Takes `count` blocks and returns the first.
    fn take(&mut self, count: u64) -> Result<u32, IsoError> {
        let first = self.0;
        let end = u64::from(first).checked_add(count);
        self.0 = end
            .and_then(|end| u32::try_from(end).ok())
            .ok_or(IsoError::Size)?;
        Ok(first)
    }

    fn extent(&mut self, tree: &Tree, node: usize) -> Result<Extent, IsoError> {
        let size = tree.content(node).map_or(0, Content::most_bytes);
        let block = self.take(blocks(size))?;
        Ok(Extent { block, size })
    }
}
