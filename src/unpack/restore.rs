//! `kfactory restore`: gives an unpacked tree what its ledger says and a plain user could not give it.
//!
//! Owner, attributes and mode in the order in which none undoes another; device nodes in place of the empty files that stand for
//! them. The times of what is replaced, and of the directories it is in, stay.

use std::collections::HashMap;
use std::fs;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kfactory_layers::input::open_input;
use kfactory_layers::ledger::{self, LedgerDevice, LedgerEntry, LedgerError};
use kfactory_layers::metadata::{FileKind, Metadata};
use kfactory_layers::root::Root;

use crate::error::{Context as _, Error, Result};

/// What was restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Restored {
    /// Entries of the ledger.
    pub entries: usize,
    /// Device nodes made.
    pub devices: usize,
}

/// Applies every entry of the file `ledger` to the tree at `dir`. Doing it again changes nothing.
///
/// # Errors
///
/// The caller is not root; the ledger cannot be read or names what the tree does not hold, both before anything is changed; or the
/// system refuses something, which is named.
pub fn restore(dir: &Path, ledger: &Path) -> Result<Restored> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            Error::user("only root can give files to other owners").hint(format!(
                "`sudo kfactory restore {} --ledger {}`",
                dir.display(),
                ledger.display()
            )),
        );
    }
    let doing = || format!("cannot restore {}", dir.display());
    let whole = fs::canonicalize(dir).context(doing)?;
    if whole == Path::new("/") {
        return Err(Error::usage("the tree to restore is this machine's own")
            .hint("name the directory that `kfactory unpack` made"));
    }
    let root = Root::open(&whole).context(doing)?;
    let entries = read(ledger)?;
    for entry in &entries {
        check(&root, entry).map_err(|error| error.context(doing()))?;
    }
    let mut restoring = Restoring {
        root: &root,
        devices: HashMap::new(),
        done: Restored {
            entries: entries.len(),
            devices: 0,
        },
    };
    entries
        .iter()
        .try_for_each(|entry| restoring.entry(entry))
        .map_err(|error| error.context(doing()))?;
    Ok(restoring.done)
}

fn read(path: &Path) -> Result<Vec<LedgerEntry>> {
    let doing = || format!("cannot read the ledger {}", path.display());
    let file = open_input(path).context(doing)?;
    ledger::read(BufReader::new(file)).map_err(|error| {
        let hint = match error {
            LedgerError::CutShort { .. } | LedgerError::Count { .. } => {
                "copy it again, whole; `kfactory unpack --ledger FILE` writes a new one with a new tree"
            }
            _ => "`kfactory unpack --ledger FILE` writes ledgers",
        };
        Error::from_source(&error).context(doing()).hint(hint)
    })
}

/// Checks that the tree holds what `entry` is about.
fn check(root: &Root, entry: &LedgerEntry) -> Result<()> {
    let found = root.symlink_metadata_opt(&entry.path)?;
    let path = &entry.path;
    let Some(found) = found else {
        return Err(Error::user(format!(
            "the ledger names {path:?}, which the tree does not hold"
        ))
        .hint("the ledger of another tree? each `unpack` writes its own"));
    };
    match entry.dev {
        Some(device) if !is_stand_in(&found) && !is_device(&found, device) => {
            Err(Error::user(format!(
                "{path:?} is to become a device node, and is not the empty file that stands for it"
            )))
        }
        _ => Ok(()),
    }
}

fn is_stand_in(found: &Metadata) -> bool {
    found.kind == FileKind::File && found.size == 0
}

fn is_device(found: &Metadata, device: LedgerDevice) -> bool {
    let kind = match device {
        LedgerDevice::Char(..) => FileKind::CharDevice,
        LedgerDevice::Block(..) => FileKind::BlockDevice,
    };
    found.kind == kind && found.rdev == device.device()
}

struct Restoring<'a> {
    root: &'a Root,
    /// The first name of each stand-in that was replaced, by what it was: others are to be names of the same node.
    devices: HashMap<(u64, u64), PathBuf>,
    done: Restored,
}

impl Restoring<'_> {
    fn entry(&mut self, entry: &LedgerEntry) -> Result<()> {
        let path = &entry.path;
        if let Some(device) = entry.dev {
            self.device(path, device)?;
        }
        let root = self.root;
        root.set_owner(path, entry.uid, entry.gid)?;
        for (name, value) in &entry.xattrs {
            root.set_xattr(path, std::ffi::OsStr::from_bytes(name), value)?;
        }
        let is_link = root
            .symlink_metadata_opt(path)?
            .is_some_and(|found| found.is_symlink());
        if !is_link {
            root.set_mode(path, entry.mode)?;
        }
        Ok(())
    }

    /// Makes the node at `path` in place of its stand-in, with the time of that.
    fn device(&mut self, path: &Path, device: LedgerDevice) -> Result<()> {
        let root = self.root;
        let above = path.parent().unwrap_or(Path::new(""));
        let (Some(found), Some(parent)) =
            (root.symlink_metadata_opt(path)?, root.metadata_opt(above)?)
        else {
            return Err(Error::user(format!("{path:?} went away meanwhile")));
        };
        if is_device(&found, device) {
            return Ok(());
        }
        match self.devices.get(&found.id()) {
            Some(first) => root.hard_link(first, path)?,
            None => {
                root.make_device(path, device)?;
                root.set_mtime(path, found.mtime)?;
                self.devices.insert(found.id(), path.to_owned());
            }
        }
        self.done.devices += 1;
        Ok(root.set_mtime(above, parent.mtime)?)
    }
}
