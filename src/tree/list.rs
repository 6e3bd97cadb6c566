//! One layer of an image as a list of its entries, with what is wanted of the contents. It knows nothing of other layers, so that several
//! can be read at the same time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use kfactory_layers::apply::{ApplyError, clean_path, meaning};
use kfactory_layers::digest::{Digest, Hasher};
use kfactory_layers::metadata::{Entry, EntryKind};
use kfactory_layers::tar::ArchiveReader;
use kfactory_layers::whiteout::Special;

use super::Content;
use super::image::Wanted;
use crate::error::{Error, Result};
use crate::progress::bytes_text;

/// The largest distribution images hold some 400 000 names.
pub(super) const MAX_ENTRIES: u64 = 4_000_000;
/// What all extended attributes may take, in bytes: labels of SELinux on every file take a tenth.
pub(super) const MAX_XATTR_BYTES: u64 = 256 << 20;
/// What all paths and link targets may take while they are read, in bytes: the largest images hold some 50 MB of them.
pub(super) const MAX_NAME_BYTES: u64 = 512 << 20;
/// The most that is kept of an image's files: programs, kernels and initrds have some gigabytes.
pub(super) const MAX_KEPT_BYTES: u64 = 16 << 30;
/// More layers are not read at the same time.
const MAX_THREADS: usize = 4;

/// What is there of a file's content.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) content: Content,
    pub(super) digest: Option<Digest>,
}

/// One entry, with its path without anything that leads elsewhere.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) entry: Entry,
    pub(super) content: Read,
}

/// The entries of a layer up to the first that cannot be read, and why there are no more.
#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Item>,
    pub(super) end: Result<()>,
}

impl List {
    /// Returns it with what `check` says of a layer that could be read to its end.
    pub(super) fn then(mut self, check: impl FnOnce() -> Result<()>) -> Self {
        self.end = self.end.and_then(|()| check());
        self
    }
}

/// Where contents are kept, and how much of everything there is in all layers together.
#[derive(Debug)]
pub(super) struct Room {
    file: File,
    wanted: Wanted,
    kept_bytes: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) xattr_bytes: AtomicU64,
    pub(super) name_bytes: AtomicU64,
}

impl Room {
    /// Keeps contents in `file`, behind what is in it.
    pub(super) fn behind(file: File, wanted: Wanted) -> Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            wanted,
            kept_bytes: AtomicU64::new(len),
            entries: AtomicU64::new(0),
            xattr_bytes: AtomicU64::new(0),
            name_bytes: AtomicU64::new(0),
        })
    }

    /// Returns how many entries were read.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Returns the file with the contents.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// Reads a layer.
    pub(super) fn list<R: io::Read>(&self, archive: &mut ArchiveReader<R>) -> List {
        let mut items = Vec::new();
        let end = loop {
            match self.item(archive) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        List { items, end }
    }

    fn item<R: io::Read>(&self, archive: &mut ArchiveReader<R>) -> Result<Option<Item>> {
        let entry = archive.next_entry();
        let Some(entry) = entry.map_err(|error| Error::from_source(&error))? else {
            return Ok(None);
        };
        let before = self.entries.fetch_add(1, Ordering::Relaxed);
        count(before + 1, MAX_ENTRIES, "entries")?;
        let path = clean_path(&entry).map_err(refused)?;
        self.count_bytes(&entry, &path)?;
        let mut content = Read {
            content: Content::Dropped,
            digest: None,
        };
        if let EntryKind::File { size } = entry.kind
            && matches!(meaning(&path, &entry).map_err(refused)?, Special::None)
        {
            content = self.content(&path, size, archive)?;
        }
        Ok(Some(Item {
            path,
            entry,
            content,
        }))
    }

    /// Counts what an entry takes while it waits for the layers before its own.
    fn count_bytes(&self, entry: &Entry, path: &Path) -> Result<()> {
        let xattrs = entry.xattrs.iter();
        let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len()).sum();
        let target = match &entry.kind {
            EntryKind::Symlink { target } | EntryKind::HardLink { target } => target.as_os_str(),
            _ => OsStr::new(""),
        };
        let names = [entry.path.as_os_str(), path.as_os_str(), target];
        let names: usize = names.iter().map(|name| name.len()).sum();
        for (count, bytes, most, what) in [
            (
                &self.xattr_bytes,
                xattrs,
                MAX_XATTR_BYTES,
                "extended attributes",
            ),
            (
                &self.name_bytes,
                names,
                MAX_NAME_BYTES,
                "paths and link targets",
            ),
        ] {
            let before = count.fetch_add(bytes as u64, Ordering::Relaxed);
            if before + bytes as u64 > most {
                return Err(Error::user(format!(
                    "the image's {what} take more than {} MiB",
                    most >> 20
                )));
            }
        }
        Ok(())
    }

    /// Keeps and hashes a file's content, as far as it is wanted.
    fn content<R: io::Read>(
        &self,
        path: &Path,
        size: u64,
        archive: &mut ArchiveReader<R>,
    ) -> Result<Read> {
        let keep = (self.wanted.kept)(path);
        if !keep && !self.wanted.digests {
            return Ok(Read {
                content: Content::Dropped,
                digest: None,
            });
        }
        let start = match keep {
            true => self.place(path, size)?,
            false => 0,
        };
        let mut hasher = Hasher::new();
        let mut content = archive.content(size);
        let mut buffer = vec![0; 1 << 16];
        let mut at = start;
        loop {
            let count = io::Read::read(&mut content, &mut buffer)?;
            if count == 0 {
                break;
            }
            if keep {
                self.file.write_all_at(&buffer[..count], at)?;
                at += count as u64;
            }
            if self.wanted.digests {
                hasher.update(&buffer[..count]);
            }
        }
        Ok(Read {
            content: match keep {
                true => Content::Kept(start),
                false => Content::Dropped,
            },
            digest: self.wanted.digests.then(|| hasher.finish()),
        })
    }

    /// Returns where the content of the file at `path` goes.
    fn place(&self, path: &Path, size: u64) -> Result<u64> {
        let with = |kept: u64| {
            let end = kept.checked_add(size);
            end.filter(|end| *end <= MAX_KEPT_BYTES)
        };
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.kept_bytes.fetch_update(set, get, with).map_err(|_| {
            Error::user(format!(
                "{path:?} has {}: with it, more than {} of files are to be read",
                bytes_text(size),
                bytes_text(MAX_KEPT_BYTES)
            ))
        })
    }
}

/// Makes one thing of each number in `numbers`, several at the same time, and hands them over in their order.
///
/// As many are begun as there are threads beside the one that is due: what is made waits in memory for those before it.
///
/// # Errors
///
/// What `take` says; nothing new is begun then.
pub(super) fn in_order<T: Send>(
    mut numbers: Range<usize>,
    make: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MAX_THREADS).min(numbers.len());
    let (mut due, end) = (numbers.start, numbers.end);
    let (begin, begun) = mpsc::channel();
    let begun = Mutex::new(begun);
    let (send, made) = mpsc::channel();
    thread::scope(|scope| {
        // The threads end when this does.
        let begin = begin;
        for _ in 0..threads {
            let (send, begun, make) = (send.clone(), &begun, &make);
            scope.spawn(move || {
                let next = || begun.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok(number) = next() {
                    // Who waits for it would wait for ever if it did not hear of a defect.
                    let one = catch_unwind(AssertUnwindSafe(|| make(number)));
                    // Nobody listens any more when one of them was not taken.
                    if send.send((number, one)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut begin_next = || numbers.next().is_some_and(|it| begin.send(it).is_ok());
        for _ in 0..threads {
            begin_next();
        }
        let mut early = BTreeMap::new();
        while due < end {
            let Ok((number, one)) = made.recv() else {
                break;
            };
            early.insert(number, one.unwrap_or_else(|defect| resume_unwind(defect)));
            while let Some(one) = early.remove(&due) {
                take(due, one)?;
                due += 1;
                begin_next();
            }
        }
        Ok(())
    })
}

/// Checks that there are not more of `what` than any system has.
pub(super) fn count(number: u64, most: u64, what: &str) -> Result<()> {
    if number > most {
        return Err(Error::user(format!(
            "the image holds more than {most} {what}"
        )));
    }
    Ok(())
}

/// Says what applying the layer would say.
pub(super) fn refused(error: ApplyError) -> Error {
    Error::from_source(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_at_the_same_time_is_taken_in_order_up_to_the_first_that_is_refused() {
        let slow_first = |number: usize| {
            if number == 2 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            number * number
        };
        let mut taken = Vec::new();
        let all = in_order(2..20, slow_first, |number, square| {
            taken.push((number, square));
            Ok(())
        });
        assert!(all.is_ok());
        let wanted: Vec<_> = (2..20).map(|number| (number, number * number)).collect();
        assert_eq!(taken, wanted);
        let mut last = 0;
        let refused = in_order(0..20, slow_first, |number, _| {
            last = number;
            match number {
                5 => Err(Error::user("five")),
                _ => Ok(()),
            }
        });
        assert_eq!((refused.unwrap_err().to_string(), last), ("five".into(), 5));
        assert!(in_order(3..3, slow_first, |_, _| Err(Error::user("none"))).is_ok());
    }

    #[test]
    fn nothing_is_begun_far_ahead_of_what_is_due() {
        let due = AtomicU64::new(0);
        let most = AtomicU64::new(0);
        let make = |number: usize| {
            if number == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let ahead = number as u64 - due.load(Ordering::SeqCst);
            most.fetch_max(ahead, Ordering::SeqCst);
        };
        let all = in_order(0..100, make, |number, ()| {
            due.store(number as u64 + 1, Ordering::SeqCst);
            Ok(())
        });
        assert!(all.is_ok());
        assert!(most.into_inner() <= MAX_THREADS as u64);
    }
}
