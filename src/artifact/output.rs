//! A file that is being made, and its checksum beside it: neither has its name before it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kfactory_layers::digest::HashingReader;
use kfactory_layers::partial::{self, Partial};

use kfactory_sandbox::CancelToken;

use super::netboot::check_name;
use super::stem::stem;
use crate::error::{Context as _, Error, Result};
use crate::stop::Stoppable;
use crate::tree::Tree;
use crate::{given, staging};

/// What a checksum's file is called, after the name of the file it is of.
const CHECKSUM_SUFFIX: &str = ".sha256";

/// Where the user wants an artifact.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file, or a directory in which it gets a name.
    pub path: &'a Path,
    /// What it is called in a directory, before the ending; upstream's name if not given.
    pub name: Option<&'a str>,
    /// Whether a file that is there is replaced.
    pub force: bool,
}

impl Place<'_> {
    /// Checks what can be known before there is an image.
    ///
    /// # Errors
    ///
    /// A name that is none, or that goes with no file; a directory that is missing or cannot be written to; a file that is there.
    pub fn check(&self) -> Result<()> {
        self.name.map_or(Ok(()), check_name)?;
        let doing = || format!("cannot write `{}`", self.path.display());
        let bytes = self.path.as_os_str().as_bytes();
        if bytes == b"-" {
            return Err(Error::usage("what boots is not written to standard output")
                .hint("name a file; `./-` is one"));
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(Error::usage(format!(
                "the name {:?} has a control character, which the checksum's file cannot hold",
                self.path
            ))
            .hint("name another file"));
        }
        if self.path.is_dir() {
            // The name comes from the image.
            return staging::check_writable(self.path).context(doing);
        }
        if self.name.is_some() {
            return Err(Error::usage("`--name` says what is made in a directory")
                .hint("leave it out, or name a directory with `--output`"));
        }
        if bytes.ends_with(b"/") {
            let made = format!("`mkdir -p {}` makes it", self.path.display());
            return given::directory(self.path).map_err(|error| error.context(doing()).hint(made));
        }
        given::place_for(self.path).context(doing)?;
        check_free(self.path, self.force)?;
        staging::check_writable(given::directory_of(self.path)).context(doing)
    }

    /// Returns the file; in a directory, what is made of the image with `tree` ends in `ending`.
    ///
    /// # Errors
    ///
    /// The image does not say what its artifacts are called.
    pub fn file(&self, tree: &Tree, ending: &str) -> Result<PathBuf> {
        if !self.path.is_dir() {
            return Ok(self.path.to_owned());
        }
        let name = match self.name {
            Some(name) => name.to_owned(),
            None => stem(tree)?,
        };
        Ok(self.path.join(format!("{name}{ending}")))
    }
}

/// A file that is being made.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    partial: Partial,
    force: bool,
}

impl Output {
    /// Starts the file at `path`. One that exists is kept, unless `force` is given: it is replaced at the end then.
    ///
    /// # Errors
    ///
    /// Something has one of the two names already, or nothing can be written there.
    pub fn create(path: &Path, force: bool) -> Result<Self> {
        check_free(path, force)?;
        let partial = partial::create_beside(path, 0o666)
            .context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            force,
        })
    }

    /// Returns what it will be called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file as it is now.
    pub fn file(&self) -> &File {
        self.partial.as_file()
    }

    /// Returns where the file is now, for programs that open it themselves.
    pub fn current_path(&self) -> &Path {
        self.partial.path()
    }

    /// Gives the file its name, and writes its checksum beside it as `sha256sum -c` reads it. Returns the checksum in hexadecimal digits.
    ///
    /// # Errors
    ///
    /// It cannot be read back or renamed, or the user stops the run.
    pub fn finish(self, cancel: &CancelToken) -> Result<String> {
        let doing = || format!("writing `{}`", self.path.display());
        let file = File::open(self.partial.path()).context(doing)?;
        let mut reader = HashingReader::new(Stoppable::new(file, Some(cancel)));
        io::copy(&mut reader, &mut io::sink()).context(doing)?;
        let (_, digest, _) = reader.finish();
        let digest = digest.hex();
        let name = self.path.file_name().unwrap_or_default();
        let checksum_path = checksum_path(&self.path);
        let checksum = partial::create_beside(&checksum_path, 0o666).context(doing)?;
        writeln!(checksum.as_file(), "{digest}  {}", name.display()).context(doing)?;
        if self.force {
            self.partial.persist(&self.path).context(doing)?;
        } else {
            // Another run may have made one since this began.
            check_free(&self.path, false)?;
            self.partial.persist_new(&self.path).context(doing)?;
        }
        checksum.persist(&checksum_path).context(doing)?;
        Ok(digest)
    }
}

/// Returns where the checksum of the file at `path` is.
pub fn checksum_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(CHECKSUM_SUFFIX);
    name.into()
}

/// Checks that neither `path` nor its checksum exists, or that they are files that `force` lets replace.
///
/// # Errors
///
/// Something has one of the names.
pub fn check_free(path: &Path, force: bool) -> Result<()> {
    check_one(path, force)?;
    check_one(&checksum_path(path), force)
}

fn check_one(path: &Path, force: bool) -> Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::from(error).context(format!("cannot write `{shown}`"))),
        Ok(found) if !found.is_file() => {
            Err(Error::user(format!("`{shown}` is there, and is no file"))
                .hint("move it, or name another file"))
        }
        Ok(_) if force => Ok(()),
        Ok(_) => Err(Error::user(format!("`{shown}` exists"))
            .hint("`--force` replaces it when the new one is whole")),
    }
}
