//! A root filesystem that is read in place stays as it is: nothing that a run makes is put into it, to be read as a part of it.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::location::Location;

/// Checks that the store and the destinations of a run are not inside of a `source` that is a directory.
///
/// The root of a container, `/`, holds every place there is, and is excepted.
///
/// # Errors
///
/// One is: which, and what to do.
pub(crate) fn check(source: &Location, store: &Path, destinations: &[Location]) -> Result<()> {
    check_place(source, "the store in", store, STORE)?;
    destinations.iter().try_for_each(|destination| {
        destination.place().map_or(Ok(()), |place| {
            check_place(source, "the destination", place, DESTINATION)
        })
    })
}

/// Checks that `place`, which is `what` and is to be written, is not inside of a `source` that is a directory.
///
/// # Errors
///
/// It is.
pub(crate) fn check_target(source: &Location, place: &Path) -> Result<()> {
    check_place(source, "the destination", place, DESTINATION)
}

const STORE: &str = "`--store DIR` or the variable `KFACTORY_STORE` names a place outside of it";
const DESTINATION: &str = "name a place outside of it";

fn check_place(source: &Location, what: &str, place: &Path, remedy: &str) -> Result<()> {
    let Location::Dir(dir) = source else {
        return Ok(());
    };
    // What is wrong with the directory itself is said by who reads it.
    let Ok(dir) = dir.canonicalize() else {
        return Ok(());
    };
    if dir == Path::new("/") || !resolved(place).starts_with(&dir) {
        return Ok(());
    }
    Err(Error::user(format!(
        "{what} {} is inside of `{source}`, and would become a part of what is read",
        place.display()
    ))
    .hint(remedy))
}

/// Returns a path without links, as far as it exists: two that lead to one place are equal then.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = whole.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(match whole.strip_prefix(above) {
            // A path that is joined with nothing ends in a slash, which a file has not.
            Ok(rest) if rest != Path::new("") => real.join(rest),
            _ => real,
        })
    });
    found.unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_inside_of_a_directory_that_is_read_are_refused_also_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        std::fs::create_dir(&base).unwrap();
        std::os::unix::fs::symlink(&base, dir.path().join("link")).unwrap();
        let source = Location::Dir(base);
        let refused = |path: &str| check_target(&source, &dir.path().join(path)).is_err();
        for path in ["base", "base/x", "base/x/y", "link/x", "link"] {
            assert!(refused(path), "{path}");
        }
        for path in ["x", "base-2", "base2/x"] {
            assert!(!refused(path), "{path}");
        }
        let layout = Location::Layout {
            dir: dir.path().join("link/o"),
            tag: None,
        };
        let store = dir.path().join("store");
        assert!(check(&source, &store, &[]).is_ok());
        assert!(check(&source, &store, &[layout]).is_err());
        assert!(check(&Location::Dir("/".into()), &store, &[]).is_ok());
    }
}
