//! A file that is being made, and its checksum beside it: neither has its name before it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kfactory_layers::digest::HashingReader;
use kfactory_layers::partial::{self, Partial};

use kfactory_sandbox::CancelToken;

use crate::error::{Context as _, Error, Result};
use crate::stop::Stoppable;

/// What a checksum's file is called, after the name of the file it is of.
const CHECKSUM_SUFFIX: &str = ".sha256";

/// Where an artifact goes, checked before the long work.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    partial: Partial,
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
        })
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
        self.partial.persist(&self.path).context(doing)?;
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
