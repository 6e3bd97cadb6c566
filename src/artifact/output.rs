//! A file that is being made, and its checksum beside it: neither has its name before it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kfactory_layers::partial::{self, Partial};

use kfactory_sandbox::CancelToken;

use super::netboot::check_name;
use super::sparse;
use super::stem::stem;
use crate::error::{Context as _, Error, Result};
use crate::progress::Reporter;
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
    pub fn finish(self, reporter: &Arc<Reporter>, cancel: &CancelToken) -> Result<String> {
        let doing = || format!("writing `{}`", self.path.display());
        let file = File::open(self.partial.path()).context(doing)?;
        let name = self.path.file_name().unwrap_or_default();
        let len = file.metadata().context(doing)?.len();
        let progress = reporter.transfer("checksum", &name.to_string_lossy(), len);
        let digest = sparse::digest(&file, len, Some(&progress), Some(cancel));
        drop(progress);
        let digest = digest.context(doing)?.hex();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// Makes a file at `path` with a content of its own, while another run makes one of that name.
    fn finish_beside_another(path: &Path, force: bool) -> Result<String> {
        let output = Output::create(path, force).unwrap();
        output.file().write_all(b"ours").unwrap();
        fs::write(path, "another run's").unwrap();
        let reporter = Arc::new(Reporter::new(crate::progress::Mode::None));
        output.finish(&reporter, &CancelToken::new().unwrap())
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os.iso");
        let text = finish_beside_another(&path, false)
            .unwrap_err()
            .render_text();
        assert!(
            text.contains("os.iso` exists") && text.contains("--force"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "another run's");
        assert_eq!(names(dir.path()), ["os.iso"]);
    }

    #[test]
    fn a_file_that_is_replaced_has_the_checksum_of_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os.iso");
        let digest = finish_beside_another(&path, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
        let beside = fs::read_to_string(checksum_path(&path)).unwrap();
        assert_eq!(beside, format!("{digest}  os.iso\n"));
        assert_eq!(names(dir.path()), ["os.iso", "os.iso.sha256"]);
    }

    #[test]
    fn a_name_that_no_file_can_have_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let missing = format!("{}/missing/", dir.path().display());
        let with_bell = dir.path().join("a\u{7}b");
        for (path, said, kind) in [
            (Path::new("-"), "standard output", Kind::Usage),
            (Path::new(&missing), "`mkdir -p ", Kind::User),
            (&with_bell, "control character", Kind::Usage),
        ] {
            let place = Place {
                path,
                name: None,
                force: true,
            };
            let error = place.check().unwrap_err();
            let text = error.render_text();
            assert!(text.contains(said), "{text}");
            assert_eq!(error.kind(), kind, "{text}");
        }
        assert!(names(dir.path()).is_empty());
    }
}
