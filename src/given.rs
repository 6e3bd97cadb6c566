//! Files and directories that the user names, looked for before they are opened: a slip in a path is answered in plain words.
//!
//! Says only what is not there or is of another kind. Whether it may be read shows when it is opened.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::suggest::nearest_name;

/// Checks that there is something at `path`.
///
/// # Errors
///
/// There is nothing: which part of the path is missing, and what comes near it.
pub(crate) fn exists(path: &Path) -> Result<()> {
    match path.metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(missing(path))
        }
        _ => Ok(()),
    }
}

/// Checks that there is a directory at `path`.
///
/// # Errors
///
/// As [`exists`]; or it is no directory.
pub(crate) fn directory(path: &Path) -> Result<()> {
    exists(path)?;
    match path.metadata() {
        Ok(found) if !found.is_dir() => Err(Error::user(format!(
            "`{}` is a file, where a directory is meant",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Checks that there is something to read at `path`, a file or a pipe.
///
/// # Errors
///
/// As [`exists`]; or it is a directory.
pub(crate) fn file(path: &Path) -> Result<()> {
    exists(path)?;
    match path.is_dir() {
        true => Err(Error::user(format!(
            "`{}` is a directory, where a file is meant",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// Checks that there is a directory for a file that is to be written at `path`.
///
/// # Errors
///
/// As [`directory`].
pub(crate) fn place_for(path: &Path) -> Result<()> {
    let dir = directory_of(path);
    directory(dir).map_err(|error| error.hint(format!("`mkdir -p {}` makes it", dir.display())))
}

/// Returns the directory that the file at `path` is in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn missing(path: &Path) -> Error {
    let shown = path.display();
    if path.is_symlink() {
        return Error::user(format!("`{shown}` is a link that leads nowhere"));
    }
    let (dir, gone) = first_missing(path);
    let here = match dir == Path::new("") {
        true => Path::new("."),
        false => dir,
    };
    if !here.is_dir() {
        let why = format!(
            "`{shown}` does not exist: `{}` is no directory",
            dir.display()
        );
        return Error::user(why);
    }
    let error = Error::user(match gone == path {
        true => format!("`{shown}` does not exist"),
        false => format!("`{shown}` does not exist: there is no `{}`", gone.display()),
    });
    match (like(gone.file_name(), here), std::env::current_dir()) {
        (Some(name), _) => error.hint(format!("did you mean `{}`?", dir.join(name).display())),
        (None, Ok(cwd)) if path.is_relative() => error.hint(format!(
            "a relative path starts in the working directory, {}",
            cwd.display()
        )),
        _ => error.hint(format!("`ls {}` shows what is there", here.display())),
    }
}

/// Returns the deepest directory of `path` that is there, and the path one name longer, which is not.
fn first_missing(path: &Path) -> (&Path, &Path) {
    let mut gone = path;
    for above in path.ancestors().skip(1) {
        if above == Path::new("") || above.exists() {
            return (above, gone);
        }
        gone = above;
    }
    (Path::new(""), gone)
}

/// Returns the name in `dir` that comes nearest to `name`.
fn like(name: Option<&OsStr>, dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let near = nearest_name(name?.to_str()?, names.iter().map(String::as_str));
    near.map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_answered_with_what_is_missing_and_what_comes_near() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path();
        std::fs::create_dir(top.join("images")).unwrap();
        std::fs::write(top.join("images/base.tar"), "x").unwrap();
        std::os::unix::fs::symlink("gone", top.join("link")).unwrap();
        let said = |path: &str| file(&top.join(path)).unwrap_err().render_text();
        let shown = top.display();
        for (path, words) in [
            (
                "images/bsae.tar",
                format!("did you mean `{shown}/images/base.tar`?"),
            ),
            ("image/base.tar", format!("there is no `{shown}/image`")),
            ("image/base.tar", format!("did you mean `{shown}/images`?")),
            ("x", format!("`ls {shown}` shows")),
            ("images/base.tar/x", "base.tar` is no directory".to_owned()),
            ("images", "is a directory, where a file is meant".to_owned()),
            ("link", "a link that leads nowhere".to_owned()),
        ] {
            assert!(said(path).contains(&words), "{path}: {}", said(path));
        }
        let relative = exists(Path::new("no-such-name")).unwrap_err().render_text();
        assert!(relative.contains("the working directory"), "{relative}");
        assert!(file(&top.join("images/base.tar")).is_ok());
        assert!(
            directory(&top.join("images")).is_ok()
                && directory(&top.join("images/base.tar")).is_err()
        );
        assert!(
            place_for(Path::new("new.tar")).is_ok() && place_for(&top.join("no/new.tar")).is_err()
        );
    }
}
