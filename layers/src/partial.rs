//! Files that are being made: under a name of their own beside the one they will have, locked by whoever makes them.
//!
//! A rename gives the whole file its name. What a killed maker left is known by its name and by the lock that nobody holds, and
//! goes when the next one is made in the directory, at once: a maker that finds its new file removed before it was locked makes
//! another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::{NamedTempFile, TempPath};

use crate::input::open_regular;

/// How the names of these files begin; no other program's do.
pub const PREFIX: &str = ".kfactory-partial-";

/// Where the file system knows no locks, a file that was written to within this time counts as one in use.
const GRACE: Duration = Duration::from_secs(60);

/// A file that is being made; it goes away when this is dropped before [`persist`](Self::persist).
///
/// No error of it names the file as it is called now, which nobody asked for: whoever made it says for which one it stands.
#[derive(Debug)]
pub struct Partial(NamedTempFile);

impl Partial {
    /// Returns the file.
    pub fn as_file(&self) -> &File {
        self.0.as_file()
    }

    /// Returns the file, to be written to.
    pub fn as_file_mut(&mut self) -> &mut File {
        self.0.as_file_mut()
    }

    /// Returns what the file is called now, for a program that is to open it.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives the file the name `path`, in place of what had that name.
    ///
    /// # Errors
    ///
    /// The system refuses; the file is gone then.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        self.0.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Gives the file the name `path`, which nothing may have.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`], or the system refuses; the file is gone then.
    pub fn persist_new(self, path: &Path) -> io::Result<()> {
        let persisted = self.0.persist_noclobber(path);
        persisted.map(drop).map_err(|error| error.error)
    }

    /// Returns the file, and what removes it when it is dropped.
    pub fn into_parts(self) -> (File, TempPath) {
        self.0.into_parts()
    }
}

impl Write for Partial {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.as_file().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.as_file().flush()
    }
}

impl Seek for Partial {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.as_file().seek(to)
    }
}

/// Makes a file beside `path`, to be given that name by [`Partial::persist`], and removes what killed makers left there.
///
/// # Errors
///
/// The directory cannot be written to.
pub fn create_beside(path: &Path, mode: u32) -> io::Result<Partial> {
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Who may not read the directory may still write to it.
    let _ = remove_abandoned(dir);
    create_in(dir, mode)
}

/// Makes a file in `dir`; `mode` is what the umask takes from, as for any new file.
///
/// # Errors
///
/// The directory cannot be written to.
pub fn create_in(dir: &Path, mode: u32) -> io::Result<Partial> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    loop {
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .make_in(dir, |path| options.open(path))?;
        // Where the file system knows no locks, only its age protects the file.
        let _ = file.as_file().lock();
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(Partial(file));
        }
        // Taken for abandoned before it was locked: another one.
    }
}

/// Removes from `dir` the files of makers that were killed; returns their number.
///
/// # Errors
///
/// The directory cannot be read. A file that cannot be judged or removed is left.
pub fn remove_abandoned(dir: &Path) -> io::Result<usize> {
    let now = SystemTime::now();
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            count += usize::from(remove_if_abandoned(&entry.path(), now));
        }
    }
    Ok(count)
}

/// Removes a file that no maker holds; the lock is kept until it is gone.
fn remove_if_abandoned(path: &Path, now: SystemTime) -> bool {
    let Ok(file) = open_regular(path) else {
        return false;
    };
    let is_old = || {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > GRACE))
    };
    let is_abandoned = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => is_old(),
    };
    is_abandoned && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn no_error_names_a_file_that_nobody_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let missing = create_beside(&dir.path().join("none/file"), 0o644).unwrap_err();
        let file = create_in(dir.path(), 0o644).unwrap();
        // What cannot be written to stands for a disk without room.
        let shut = File::open(file.0.path()).unwrap();
        let mut shut = Partial(NamedTempFile::from_parts(shut, file.into_parts().1));
        for error in [missing, shut.write_all(b"x").unwrap_err()] {
            assert!(!error.to_string().contains(PREFIX), "{error}");
        }
    }

    #[test]
    fn what_a_killed_maker_left_goes_and_what_others_make_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{PREFIX}dead")), b"half").unwrap();
        fs::write(dir.path().join(".partial-of-another-program"), b"").unwrap();
        let live = create_beside(&dir.path().join("one"), 0o644).unwrap();
        let other = create_beside(&dir.path().join("two"), 0o644).unwrap();
        live.persist(&dir.path().join("one")).unwrap();
        other.persist(&dir.path().join("two")).unwrap();
        assert_eq!(
            names(dir.path()),
            [".partial-of-another-program", "one", "two"]
        );
    }
}
