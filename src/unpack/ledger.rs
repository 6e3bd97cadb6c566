//! The ledger file of an unpacked tree, written as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use kfactory_layers::ledger::{LedgerEntry, end_line};
use kfactory_layers::metadata::{FileKind, Xattrs};
use kfactory_layers::partial;
use kfactory_layers::root::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempPath;

use crate::error::{Context as _, Error, Result};
use crate::leftover;
use crate::staging;

/// How a ledger begins: with an entry, or, where there is none, with its end.
const HEADS: &[(usize, &[u8])] = &[(0, br#"{"path":"#), (0, br#"{"entries":"#)];

/// The ledger being written; it goes away when this is dropped before [`finish`](Self::finish).
pub(super) struct LedgerFile {
    out: BufWriter<File>,
    path: PathBuf,
    /// The file until it is whole; `None` for a pipe or a terminal, which nothing can replace.
    temp: Option<TempPath>,
    entries: u64,
}

impl LedgerFile {
    /// Starts the file, which is not to lie in the directory `tree`.
    ///
    /// # Errors
    ///
    /// It cannot be written there.
    pub(super) fn create(path: &Path, tree: &Path) -> Result<Self> {
        let doing = || format!("creating {}", path.display());
        if whole(path)
            .context(doing)?
            .starts_with(whole(tree).context(doing)?)
        {
            return Err(Error::usage(format!(
                "the ledger {} would be a part of the tree",
                path.display()
            ))
            .hint("write it beside the tree"));
        }
        // A link stays, and the file it leads to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.exists() && !path.is_file() {
            return Ok(Self {
                out: BufWriter::new(open_stream(&path).context(doing)?),
                path,
                temp: None,
                entries: 0,
            });
        }
        staging::check_replaceable(&path, "ledger", HEADS)?;
        let (file, temp) = partial::create_beside(&path, 0o666)
            .context(doing)?
            .into_parts();
        Ok(Self {
            out: BufWriter::new(file),
            path,
            temp: Some(temp),
            entries: 0,
        })
    }

    /// Writes the object at `path` and everything below it; what `refused` has of them is taken out and goes into their lines.
    pub(super) fn object(
        &mut self,
        root: &Root,
        path: PathBuf,
        kind: FileKind,
        refused: &mut BTreeMap<PathBuf, LedgerEntry>,
    ) -> Result<()> {
        let found = root.symlink_metadata_opt(&path)?.ok_or_else(|| {
            Error::user(format!("{} disappeared from the new tree", path.display()))
        })?;
        let mut entry = refused.remove(&path).unwrap_or_else(|| LedgerEntry {
            path: path.clone(),
            uid: found.uid,
            gid: found.gid,
            mode: found.mode & 0o7777,
            dev: None,
            xattrs: Xattrs::new(),
        });
        let applied = root.xattrs(&path)?.into_iter();
        entry
            .xattrs
            .extend(applied.filter(|(name, _)| holds_an_id(name)));
        self.write(&entry)?;
        if kind == FileKind::Directory {
            for child in root.read_dir(&path)? {
                self.object(root, path.join(&child.name), child.kind, refused)?;
            }
        }
        Ok(())
    }

    /// Writes one line.
    pub(super) fn write(&mut self, entry: &LedgerEntry) -> Result<()> {
        let line = entry
            .to_line()
            .map_err(|error| Error::from_source(&error))?;
        self.entries += 1;
        writeln!(self.out, "{line}").context(|| format!("writing {}", self.path.display()))
    }

    /// Writes the last line and gives the file its name.
    pub(super) fn finish(mut self) -> Result<Written> {
        let doing = || format!("writing {}", self.path.display());
        writeln!(self.out, "{}", end_line(self.entries)).context(doing)?;
        self.out.flush().context(doing)?;
        let mut written = Written(None);
        if let Some(temp) = self.temp {
            temp.persist(&self.path)
                .map_err(|error| Error::from(error.error).context(doing()))?;
            written = Written(Some(self.path));
        }
        Ok(written)
    }
}

/// Opens what is no file for writing; a FIFO that nobody reads would keep a plain `open` waiting.
fn open_stream(path: &Path) -> std::io::Result<File> {
    let opened = rustix::fs::open(
        path,
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    );
    let file = File::from(opened.map_err(|errno| match errno {
        Errno::NXIO => std::io::Error::other("it is a FIFO that nobody reads, or no device"),
        errno => errno.into(),
    })?);
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Returns the path that `path`, whose last name may not exist, stands for.
fn whole(path: &Path) -> std::io::Result<PathBuf> {
    if let Ok(found) = fs::canonicalize(path) {
        return Ok(found);
    }
    let path = std::path::absolute(path)?;
    Ok(
        match (path.parent().map(fs::canonicalize), path.file_name()) {
            (Some(Ok(parent)), Some(name)) => parent.join(name),
            _ => path,
        },
    )
}

/// A ledger that has its name, of a tree that may not have its own yet.
#[must_use]
pub(super) struct Written(Option<PathBuf>);

impl Written {
    /// Removes the file again: its tree did not come to be.
    pub(super) fn remove(self) {
        if let Some(path) = self.0
            && let Err(error) = fs::remove_file(&path)
        {
            leftover::note(&path, &error);
        }
    }
}

/// Returns whether the kernel stores IDs of the user namespace in this attribute, or drops it when the owner changes.
fn holds_an_id(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}
