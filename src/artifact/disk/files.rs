//! Small files of an ext4 file system, which are in memory.

use std::io;

use crate::artifact::ext4::{Builder, Ext4Error, FileId, Layout, Meta};
use crate::artifact::region::Region;

/// A file to be.
#[derive(Debug)]
pub(super) struct SmallFile {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) bytes: Vec<u8>,
}

impl SmallFile {
    /// Returns one that everybody may read.
    pub(super) fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            bytes: bytes.into(),
        }
    }
}

/// Files that a file system has been told of.
#[derive(Debug, Default)]
pub(super) struct SmallFiles(Vec<(FileId, Vec<u8>)>);

impl SmallFiles {
    /// Declares `files`, root's, made at `created` in seconds since 1970.
    pub(super) fn declare(
        builder: &mut Builder,
        files: Vec<SmallFile>,
        created: i64,
    ) -> Result<Self, Ext4Error> {
        let declared = files.into_iter().map(|file| {
            let meta = of_root(file.mode, created);
            let id = builder.file(&file.path, meta, file.bytes.len() as u64)?;
            Ok((id, file.bytes))
        });
        Ok(Self(declared.collect::<Result<_, _>>()?))
    }

    /// Writes the contents to `volume`, the file system's own.
    pub(super) fn write(&self, layout: &Layout, volume: &Region) -> io::Result<()> {
        for (id, bytes) in &self.0 {
            layout.region(volume, *id)?.write_all_at(bytes, 0)?;
        }
        Ok(())
    }
}

/// Returns what is said of root's files.
pub(super) fn of_root(mode: u32, created: i64) -> Meta {
    Meta {
        mode,
        uid: 0,
        gid: 0,
        mtime: kfactory_layers::metadata::Timestamp::from_secs(created),
    }
}
