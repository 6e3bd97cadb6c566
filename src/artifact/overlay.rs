//! A directory of the user's whose files go onto a medium, or onto the FAT that firmware starts from.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use kfactory_layers::input::open_regular;

use crate::error::{Context as _, Error, Result};
use crate::given;
use crate::progress::bytes_text;

/// What goes through memory: the files of a FAT.
const MAX_READ_BYTES: u64 = 256 << 20;

/// What a directory holds, by path.
#[derive(Debug)]
pub(super) struct Overlay {
    pub(super) dirs: Vec<Dir>,
    pub(super) files: Vec<File>,
    /// Paths and targets of symbolic links.
    pub(super) links: Vec<(PathName, PathName)>,
    paths: BTreeSet<String>,
}

/// A path relative to the directory, or a link's target: any bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathName(PathBuf);

impl PathName {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
}

/// A directory in it.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) path: PathName,
    pub(super) mode: u32,
}

/// A file in it.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathName,
    pub(super) mode: u32,
    pub(super) size: u64,
    source: PathBuf,
}

/// Returns the files below `dir`, where one is given, by their paths, with their contents, for a FAT.
///
/// # Errors
///
/// As [`Overlay::read`]; a symbolic link, which FAT does not have; or more than goes through memory.
pub(super) fn contents(dir: Option<&Path>) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(dir) = dir else {
        return Ok(Vec::new());
    };
    let overlay = Overlay::read(dir)?;
    let refused = |why: String| {
        let doing = format!("cannot put the overlay `{}` onto a FAT", dir.display());
        Error::user(why).context(doing)
    };
    if let Some((path, _)) = overlay.links.first() {
        let why = format!("{:?} is a symbolic link, which FAT does not have", path.0);
        let copy = format!(
            "`cp -rL {} COPY` makes a copy with the files that links lead to",
            dir.display()
        );
        return Err(refused(why).hint(copy));
    }
    let bytes: u64 = overlay.files.iter().map(|file| file.size).sum();
    if bytes > MAX_READ_BYTES {
        let (bytes, most) = (bytes_text(bytes), bytes_text(MAX_READ_BYTES));
        let why = format!("its files have {bytes}, and what firmware starts from at most {most}");
        return Err(refused(why).hint(
            "what the system itself reads goes into its root filesystem: `--overlay-rootfs DIR`",
        ));
    }
    let files = overlay.files.iter();
    let content = |file: &File| Ok((file.utf8_path()?.to_owned(), file.read()?));
    files.map(content).collect()
}

impl Overlay {
    /// Lists what `dir` holds, sorted; links are not followed.
    ///
    /// # Errors
    ///
    /// It cannot be read, or holds what no medium can: devices, pipes, sockets.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let doing = || format!("cannot read the overlay `{}`", dir.display());
        given::directory(dir).context(doing)?;
        let mut overlay = Self {
            dirs: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            paths: BTreeSet::new(),
        };
        for entry in walkdir::WalkDir::new(dir).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::from_source(&error).context(doing()))?;
            let metadata = entry
                .metadata()
                .map_err(|error| Error::from_source(&error).context(doing()))?;
            let path = entry.path().strip_prefix(dir).unwrap_or(entry.path());
            overlay.paths.insert(path.to_string_lossy().into_owned());
            let path = PathName(path.to_owned());
            let mode = metadata.mode() & 0o777;
            if metadata.is_dir() {
                overlay.dirs.push(Dir { path, mode });
            } else if metadata.is_file() {
                overlay.files.push(File {
                    path,
                    mode,
                    size: metadata.len(),
                    source: entry.into_path(),
                });
            } else if metadata.is_symlink() {
                let target = fs::read_link(entry.path()).context(doing)?;
                overlay.links.push((path, PathName(target)));
            } else {
                return Err(Error::user(format!(
                    "`{}` is no file, directory or symbolic link",
                    entry.path().display()
                ))
                .context(doing()));
            }
        }
        Ok(overlay)
    }

    /// Returns whether something is at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }
}

impl File {
    /// Returns the path as text.
    pub(super) fn utf8_path(&self) -> Result<&str> {
        self.path
            .0
            .to_str()
            .ok_or_else(|| Error::user(format!("{:?} is no name that FAT can hold", self.path.0)))
    }

    /// Reads the whole file, which is small enough for that.
    fn read(&self) -> Result<Vec<u8>> {
        let doing = || format!("reading {}", self.source.display());
        let mut bytes = vec![0; self.size as usize];
        let file = open_regular(&self.source).context(doing)?;
        file.read_exact_at(&mut bytes, 0).context(doing)?;
        Ok(bytes)
    }

    /// Copies the file, as long as it was, to `offset` of `out`.
    pub(super) fn copy_to(&self, out: &fs::File, offset: u64) -> Result<()> {
        let doing = || format!("copying {}", self.source.display());
        let file = open_regular(&self.source).context(doing)?;
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < self.size {
            let part = usize::try_from(self.size - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            file.read_exact_at(&mut buffer[..part], done)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => Error::user("it became shorter meanwhile"),
                    _ => error.into(),
                })
                .context(doing)?;
            out.write_all_at(&buffer[..part], offset + done)
                .context(doing)?;
            done += part as u64;
        }
        Ok(())
    }
}
