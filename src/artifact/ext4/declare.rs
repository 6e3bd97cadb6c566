//! Telling the writer of the file system what is in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kfactory_layers::metadata::Device;
use mkext4::{FsBuilder, InodeCount, InodeHandle, Options, ROOT, SpecialKind};

use super::size::{self, Geometry};
use super::{Builder, Ext4Error, FileId, Journal, Layout, Meta, Object, What, acl};

const MAX_LABEL_BYTES: usize = 16;
/// What one block has room for beside its header.
const MAX_XATTR_BYTES: usize = 4096 - 36;
/// Seconds since 1970 that an inode can hold: 34 bits, the first of them below zero.
const TIMES: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;

pub(super) fn layout(builder: Builder) -> Result<Layout, Ext4Error> {
    if builder.volume.label.len() > MAX_LABEL_BYTES {
        return Err(Ext4Error::Label(builder.volume.label));
    }
    let smallest = builder.volume.journal == Journal::Smallest;
    let need = size::need(&builder.objects);
    let mut geometry = Geometry::new(builder.volume.size, smallest, need)?;
    loop {
        let mut declared = Declared::new(&builder, &geometry)?;
        declared.all(&builder.objects)?;
        match declared.fs.seal() {
            Ok(inner) => {
                let files = declared.files;
                return Ok(Layout { inner, files });
            }
            // The estimate was too low.
            Err(mkext4::Error::Invalid(_)) if geometry.grow() => {}
            Err(error) => return Err(Ext4Error::Layout(error)),
        }
    }
}

struct Declared<'a> {
    fs: FsBuilder,
    dirs: BTreeMap<&'a Path, InodeHandle>,
    files: BTreeMap<FileId, InodeHandle>,
}

impl<'a> Declared<'a> {
    fn new(builder: &Builder, geometry: &Geometry) -> Result<Self, Ext4Error> {
        let volume = &builder.volume;
        let mut options = Options::new(geometry.size(), volume.uuid.0, volume.epoch);
        options.label = Some(volume.label.clone());
        options.inodes = InodeCount::Exact(geometry.inodes);
        options.reserved_percent = 0;
        options.journal_blocks = geometry.journal_blocks;
        Ok(Self {
            fs: FsBuilder::new(options).map_err(Ext4Error::Layout)?,
            dirs: BTreeMap::new(),
            files: BTreeMap::new(),
        })
    }

    /// Declares directories, then what has no content, then the files in the order of their contents.
    fn all(&mut self, objects: &'a BTreeMap<PathBuf, Object>) -> Result<(), Ext4Error> {
        let mut files: BTreeMap<FileId, Vec<(&'a Path, &'a Object, u64)>> = BTreeMap::new();
        let mut others = Vec::new();
        for (path, object) in objects {
            match object.what {
                What::Directory => self.directory(path, object)?,
                What::File { id, size } => {
                    files.entry(id).or_default().push((path, object, size));
                }
                _ => others.push((path, object)),
            }
        }
        for (path, object) in others {
            let handle = self.special(path, object)?;
            self.xattrs(path, handle, object)?;
        }
        for (id, names) in files {
            self.file(id, &names)?;
        }
        Ok(())
    }

    fn directory(&mut self, path: &'a Path, object: &Object) -> Result<(), Ext4Error> {
        let meta = meta(object.meta);
        let handle = match self.place(path)? {
            Some((parent, name)) => refused(path, self.fs.mkdir(parent, name, meta))?,
            None => {
                refused(path, self.fs.set_meta(ROOT, meta))?;
                ROOT
            }
        };
        self.dirs.insert(path, handle);
        self.xattrs(path, handle, object)
    }

    fn special(&mut self, path: &Path, object: &Object) -> Result<InodeHandle, Ext4Error> {
        let (parent, name) = self.place_below(path)?;
        let meta = meta(object.meta);
        let number = |device: Device| match device.fits_linux() {
            true => Ok((device.major, device.minor)),
            false => Err(Ext4Error::object(path, "Linux has no such device number")),
        };
        let kind = match &object.what {
            What::Symlink(target) => {
                let target = text(path, target.as_os_str(), "where it points to")?;
                return refused(path, self.fs.symlink(parent, name, target, meta));
            }
            What::CharDevice(device) => {
                let (major, minor) = number(*device)?;
                SpecialKind::Char { major, minor }
            }
            What::BlockDevice(device) => {
                let (major, minor) = number(*device)?;
                SpecialKind::Block { major, minor }
            }
            What::Pipe | What::Directory | What::File { .. } => SpecialKind::Fifo,
        };
        refused(path, self.fs.mknod(parent, name, meta, kind))
    }

    /// Declares a file under all its names; its metadata is that of the first.
    fn file(&mut self, id: FileId, names: &[(&'a Path, &'a Object, u64)]) -> Result<(), Ext4Error> {
        let [(path, object, size), more @ ..] = names else {
            return Ok(());
        };
        let (parent, name) = self.place_below(path)?;
        let made = self.fs.file(parent, name, meta(object.meta), *size);
        let handle = refused(path, made)?;
        self.xattrs(path, handle, object)?;
        for (path, ..) in more {
            let (parent, name) = self.place_below(path)?;
            refused(path, self.fs.hardlink(parent, name, handle))?;
        }
        self.files.insert(id, handle);
        Ok(())
    }

    fn xattrs(
        &mut self,
        path: &Path,
        handle: InodeHandle,
        object: &Object,
    ) -> Result<(), Ext4Error> {
        let bytes: usize = object
            .xattrs
            .iter()
            .map(|(name, value)| 20 + name.len() + value.len())
            .sum();
        if bytes > MAX_XATTR_BYTES {
            let why = format!(
                "its extended attributes have {bytes} bytes, and there is room for {MAX_XATTR_BYTES}"
            );
            return Err(Ext4Error::object(path, why));
        }
        for (name, value) in &object.xattrs {
            let known = std::str::from_utf8(name).map_err(|_| {
                let name = String::from_utf8_lossy(name);
                Ext4Error::object(
                    path,
                    format!("the name of its extended attribute {name:?} is not UTF-8"),
                )
            })?;
            let on_disk = acl::on_disk(known, value);
            let on_disk = on_disk.ok_or_else(|| {
                Ext4Error::object(
                    path,
                    format!("its extended attribute {known:?} is no access list"),
                )
            })?;
            refused(path, self.fs.set_xattr(handle, known, &on_disk))?;
        }
        Ok(())
    }

    /// Returns the directory that `path` is in, and its name there; `None` for the root.
    fn place<'p>(&self, path: &'p Path) -> Result<Option<(InodeHandle, &'p str)>, Ext4Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let no_directory = || Ext4Error::object(path, "what it is in is no directory");
        let parent = *self.dirs.get(parent).ok_or_else(no_directory)?;
        Ok(Some((parent, text(path, name, "its name")?)))
    }

    fn place_below<'p>(&self, path: &'p Path) -> Result<(InodeHandle, &'p str), Ext4Error> {
        let root = || Ext4Error::object(path, "the root is a directory");
        self.place(path)?.ok_or_else(root)
    }
}

fn meta(meta: Meta) -> mkext4::Meta {
    let secs = meta.mtime.secs.clamp(*TIMES.start(), *TIMES.end());
    let mode = (meta.mode & kfactory_layers::metadata::MODE_BITS) as u16;
    mkext4::Meta::new(mode, meta.uid, meta.gid, (secs, meta.mtime.nanos))
}

fn text<'t>(path: &Path, text: &'t OsStr, what: &str) -> Result<&'t str, Ext4Error> {
    text.to_str()
        .ok_or_else(|| Ext4Error::object(path, format!("{what} is not UTF-8")))
}

/// Names the object of what the writer refuses.
fn refused<T>(path: &Path, result: mkext4::Result<T>) -> Result<T, Ext4Error> {
    result.map_err(|error| match error {
        mkext4::Error::Invalid(why) | mkext4::Error::Unsupported(why) => {
            Ext4Error::object(path, why)
        }
        error => Ext4Error::Layout(error),
    })
}
