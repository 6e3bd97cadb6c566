//! Makes a directory whole before it has its name, and tells what may be replaced by something new.
//!
//! A directory that does not exist yet is made beside its place and renamed. One that exists and is empty may be a mount point or
//! somebody's working directory: it stays the same directory, what is new is made in a subdirectory of it, and the entries of
//! that move up at the end. Both have names that begin alike, by which a later run finds what a killed one left.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kfactory_layers::input::open_regular;
use kfactory_layers::root::Root;

use crate::error::{Context as _, Error, Result};
use crate::leftover;
use crate::tree::is_kernels_own;

/// How the names begin of what is being made, after the name of the directory that it will be.
const MARK: &str = ".kfactory-new.";
/// What a fresh ext4 file system holds.
const LOST_AND_FOUND: &str = "lost+found";

/// A directory that is being made; it goes away when this is dropped before [`finish`](Self::finish).
#[derive(Debug)]
pub struct Staging {
    holder: Root,
    temp: OsString,
    place: Place,
    /// Held while a run works here; free once it was killed.
    _lock: File,
    /// Directories above that were made for this one, the deepest first.
    parents: Vec<PathBuf>,
    is_done: bool,
}

/// Where the directory will be.
#[derive(Debug)]
enum Place {
    /// Under this name, in the directory that it is made in.
    Beside(OsString),
    /// It is the directory that it is made in.
    Inside,
}

/// Where another run makes the same directory.
#[derive(Debug)]
pub struct Busy(PathBuf);

/// Checks that `dir` is missing or empty; what a killed run left there, and `lost+found`, does not count.
///
/// # Errors
///
/// It holds something, or is no directory.
pub fn check_free(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Error::from(error).context(format!("cannot use {}", dir.display())));
        }
    };
    for entry in entries {
        let name = entry
            .context(|| format!("reading {}", dir.display()))?
            .file_name();
        if name != LOST_AND_FOUND && !has_prefix(&name, MARK) {
            return Err(Error::user(format!("{} is not empty", dir.display())));
        }
    }
    Ok(())
}

impl Staging {
    /// Starts making `dir`, which is missing or empty, with the directories above it.
    ///
    /// # Errors
    ///
    /// As [`check_free`]; somebody else is making it; or nothing can be written there.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::begin(dir)?
            .map_err(|Busy(path)| Error::user(format!("another run works in {}", path.display())))
    }

    /// As [`start`](Self::start), but that somebody else is making `dir` is no error of its own.
    ///
    /// # Errors
    ///
    /// As [`check_free`]; or nothing can be written there.
    pub fn begin(dir: &Path) -> Result<Result<Self, Busy>> {
        check_free(dir)?;
        let doing = || format!("making {}", dir.display());
        let (holder, mark, place, parents) = if dir.is_dir() {
            (dir.to_owned(), MARK.into(), Place::Inside, Vec::new())
        } else {
            let name = dir
                .file_name()
                .ok_or_else(|| Error::usage(format!("`{}` names no directory", dir.display())))?;
            if dir.is_symlink() {
                return Err(Error::user(format!(
                    "{} is a link that leads nowhere",
                    dir.display()
                )));
            }
            let mut mark = OsString::from(".");
            mark.push(name);
            mark.push(MARK);
            let parent = match dir.parent() {
                Some(parent) if parent != Path::new("") => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            let made = make_all(&parent)?;
            (parent, mark, Place::Beside(name.to_owned()), made)
        };
        let root = Root::open(&holder).context(doing)?;
        if let Some(busy) = sweep(&root, &mark).map_err(|error| error.context(doing()))? {
            return Ok(Err(busy));
        }
        let mut temp = mark;
        temp.push(std::process::id().to_string());
        let path = holder.join(&temp);
        fs::create_dir(&path).context(doing)?;
        let lock = File::open(&path).context(doing)?;
        lock.lock().context(doing)?;
        if !path.exists() {
            // Another run took it for one that was left, before it was locked.
            return Ok(Err(Busy(path)));
        }
        if let Place::Inside = place {
            root.set_mode(&temp, fs::metadata(&holder).context(doing)?.mode())?;
        }
        Ok(Ok(Self {
            holder: root,
            temp,
            place,
            _lock: lock,
            parents,
            is_done: false,
        }))
    }

    /// Returns where it is made.
    pub fn path(&self) -> PathBuf {
        self.holder.path().join(&self.temp)
    }

    /// Puts what was made into its place.
    ///
    /// # Errors
    ///
    /// Something has come to stand there meanwhile, or the system refuses. Nothing is left then.
    pub fn finish(mut self) -> Result<()> {
        match &self.place {
            Place::Beside(name) => self.holder.rename(&self.temp, name)?,
            Place::Inside => self.move_up()?,
        }
        self.is_done = true;
        Ok(())
    }

    /// Moves every entry up and makes the directory what its stand-in was.
    fn move_up(&self) -> Result<()> {
        let temp = Path::new(&self.temp);
        let gone = || Error::user(format!("{} went away", self.path().display()));
        let made = self.holder.metadata_opt(temp)?.ok_or_else(gone)?;
        let before = self.holder.metadata_opt("")?.ok_or_else(gone)?;
        let attributes = self.holder.xattrs(temp)?;
        let entries = self.holder.read_dir(temp)?;
        for (index, entry) in entries.iter().enumerate() {
            if let Err(error) = self.holder.rename(temp.join(&entry.name), &entry.name) {
                for moved in &entries[..index] {
                    self.holder.remove_all(&moved.name)?;
                }
                return Err(error.into());
            }
        }
        self.holder.remove_all(temp)?;
        if (before.uid, before.gid) != (made.uid, made.gid) {
            self.holder.set_owner("", made.uid, made.gid)?;
        }
        for (name, value) in &attributes {
            self.holder.set_xattr("", OsStr::from_bytes(name), value)?;
        }
        if before.mode != made.mode {
            self.holder.set_mode("", made.mode)?;
        }
        Ok(self.holder.set_mtime("", made.mtime)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // What cannot be removed keeps a name that says what it is.
        if let Err(error) = self.holder.remove_all(&self.temp) {
            leftover::note(&self.path(), &Error::from_source(&error));
        }
        for parent in &self.parents {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Removes what killed runs left in `holder`; returns where one works that lives.
fn sweep(holder: &Root, mark: &OsStr) -> Result<Option<Busy>> {
    for entry in holder.read_dir("")? {
        if !has_prefix(&entry.name, mark) {
            continue;
        }
        let path = holder.path().join(&entry.name);
        // Locked until it is gone.
        let free = File::open(&path).and_then(|dir| Ok(dir.try_lock().map(|()| dir)?));
        if free.is_err() && path.exists() {
            return Ok(Some(Busy(path)));
        }
        holder.remove_all(&entry.name)?;
    }
    Ok(None)
}

/// Checks that nothing of another kind is lost when `file` is replaced by a `kind`, which has one of `magics` at an offset: the file
/// is not there, is empty, or is of that kind.
///
/// # Errors
///
/// It is something else, or cannot be read.
pub fn check_replaceable(file: &Path, kind: &str, magics: &[(usize, &[u8])]) -> Result<()> {
    let end = |(offset, magic): &(usize, &[u8])| offset + magic.len();
    let longest = magics.iter().map(end).max().unwrap_or(0);
    let mut head = Vec::new();
    match open_regular(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.and_then(|opened| opened.take(longest as u64).read_to_end(&mut head)),
    }
    .context(|| format!("looking at {}", file.display()))?;
    let is_its = |magic: &(usize, &[u8])| head.get(magic.0..end(magic)) == Some(magic.1);
    if head.is_empty() || magics.iter().any(is_its) {
        return Ok(());
    }
    Err(Error::user(format!(
        "{} is there and is no {kind}: it is not replaced",
        file.display()
    ))
    .hint("name another file, or remove this one first"))
}

/// Makes `dir` and what is missing above it, and returns what was made, the deepest first.
fn make_all(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|path| *path != Path::new("") && !path.exists())
        .map(Path::to_owned)
        .collect();
    fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
    Ok(missing)
}

fn has_prefix(name: &OsStr, prefix: impl AsRef<OsStr>) -> bool {
    name.as_encoded_bytes()
        .starts_with(prefix.as_ref().as_encoded_bytes())
}

/// Checks that files can be made in `dir`.
///
/// # Errors
///
/// They cannot: why, and what to do.
pub(crate) fn check_writable(dir: &Path) -> Result<()> {
    tempfile::tempfile_in(dir)
        .map(|_| ())
        .map_err(|error| no_file_in(dir, error))
}

/// Says why no file can be made in `dir`, and what to do.
fn no_file_in(dir: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let shown = dir.display();
    let opened = std::fs::File::open(dir).map_err(Error::from);
    if opened.and_then(is_kernels_own).unwrap_or(false) {
        return Error::user(format!(
            "{shown} is what the kernel shows of itself: no file can be made there"
        ))
        .hint("name a directory on a disk");
    }
    let remedy = match error.kind() {
        PermissionDenied => Some(format!("`ls -ld {shown}` shows who may write there")),
        ReadOnlyFilesystem => Some(format!(
            "name another directory; `findmnt -T {shown}` shows what is mounted read-only"
        )),
        _ => None,
    };
    Error::from(error)
        .context(format!("making a file in {shown}"))
        .hints(remedy)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_directory_appears_whole_or_not_at_all() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("above/new");
        let staging = Staging::start(&dir).unwrap();
        fs::write(staging.path().join("file"), "x").unwrap();
        assert!(!dir.exists());
        drop(staging);
        assert!(names(top.path()).is_empty(), "{:?}", names(top.path()));
        let staging = Staging::start(&dir).unwrap();
        fs::write(staging.path().join("file"), "x").unwrap();
        staging.finish().unwrap();
        assert_eq!(names(&top.path().join("above")), ["new"]);
        assert_eq!(names(&dir), ["file"]);
    }

    #[test]
    fn an_empty_directory_stays_the_same_one_and_becomes_what_was_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(LOST_AND_FOUND)).unwrap();
        let before = fs::metadata(dir.path()).unwrap();
        drop(Staging::start(dir.path()).unwrap());
        assert_eq!(names(dir.path()), [LOST_AND_FOUND]);
        let staging = Staging::start(dir.path()).unwrap();
        fs::create_dir(staging.path().join("etc")).unwrap();
        fs::write(staging.path().join("etc/motd"), "x").unwrap();
        fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o751)).unwrap();
        staging.finish().unwrap();
        let after = fs::metadata(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["etc", LOST_AND_FOUND]);
        assert_eq!(before.ino(), after.ino());
        assert_eq!(after.mode() & 0o7777, 0o751);
    }

    #[test]
    fn what_a_killed_run_left_goes_and_what_another_run_makes_stays() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("new");
        let left = top.path().join(".new.kfactory-new.1");
        fs::create_dir_all(left.join("usr")).unwrap();
        let staging = Staging::start(&dir).unwrap();
        assert!(!left.exists());
        let error = Staging::start(&dir).unwrap_err().render_text();
        assert!(error.contains("another run"), "{error}");
        staging.finish().unwrap();
    }
}
