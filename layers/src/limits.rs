//! How deep a tree may be and how long its names: one rule for whoever captures, applies or reads one.

use std::path::{Path, PathBuf};

/// The most directories that anything in a tree may be inside of.
///
/// Several times what the deepest package brings, and little enough for whatever goes down a tree by recursion: 8 KiB of stack a level
/// where a thread has 2 MiB, and one open directory a level where a process may have 1024.
pub const MAX_DEPTH: usize = 256;

/// The longest path inside a tree, in bytes: the longest that the kernel looks up (`PATH_MAX` without the closing zero).
pub const MAX_PATH_BYTES: usize = 4095;

/// The longest name, in bytes (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;

/// Names of a path that say where it is; all of them would fill the screen.
const NAMES_TOLD: usize = 4;

/// Why a tree cannot be captured, applied or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// Something is inside more than [`MAX_DEPTH`] directories.
    #[error("below {top:?} the tree is more than {} directories deep", MAX_DEPTH)]
    TooDeep {
        /// The first names of its path.
        top: PathBuf,
    },
    /// A path is longer than [`MAX_PATH_BYTES`].
    #[error("below {top:?} a path is longer than {} bytes", MAX_PATH_BYTES)]
    PathTooLong {
        /// The first names of the path.
        top: PathBuf,
    },
    /// A name is longer than [`MAX_NAME_BYTES`].
    #[error("below {top:?} a name is longer than {} bytes", MAX_NAME_BYTES)]
    NameTooLong {
        /// The first names of the path.
        top: PathBuf,
    },
    /// A symbolic link points at more than [`MAX_PATH_BYTES`].
    #[error(
        "the link {path:?} points at a path of more than {} bytes",
        MAX_PATH_BYTES
    )]
    TargetTooLong {
        /// Where the link is.
        path: PathBuf,
    },
}

/// Holds the place of one object against the limits. `path` is relative to the root of the tree, without `.` and `..`.
///
/// # Errors
///
/// Every variant of [`LimitError`].
pub fn check(path: &Path) -> Result<(), LimitError> {
    let top = || path.iter().take(NAMES_TOLD).collect();
    if path.iter().count() > MAX_DEPTH + 1 {
        return Err(LimitError::TooDeep { top: top() });
    }
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(LimitError::PathTooLong { top: top() });
    }
    if path.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(LimitError::NameTooLong { top: top() });
    }
    Ok(())
}

/// Holds the target of the symbolic link at `path` against the limits.
///
/// # Errors
///
/// [`LimitError::TargetTooLong`].
pub fn check_target(path: &Path, target: &Path) -> Result<(), LimitError> {
    if target.as_os_str().len() > MAX_PATH_BYTES {
        return Err(LimitError::TargetTooLong {
            path: path.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_one_directory_more_than_the_limit_is_refused_with_its_place() {
        let inside = |depth: usize| PathBuf::from("d/".repeat(depth) + "file");
        assert_eq!(check(&inside(MAX_DEPTH)), Ok(()));
        let error = check(&inside(MAX_DEPTH + 1)).unwrap_err().to_string();
        assert_eq!(
            error,
            "below \"d/d/d/d\" the tree is more than 256 directories deep"
        );
    }

    #[test]
    fn a_path_that_the_kernel_would_not_look_up_is_refused() {
        // Its parts have 128 bytes each, one of them without its slash.
        let longest = (("n".repeat(127) + "/").repeat(32))
            .trim_end_matches('/')
            .to_owned();
        assert_eq!(check(Path::new(&longest)), Ok(()));
        let error = check(Path::new(&(longest + "n"))).unwrap_err();
        assert!(matches!(error, LimitError::PathTooLong { .. }), "{error}");
    }

    #[test]
    fn a_name_that_no_directory_can_hold_is_refused() {
        let name = "n".repeat(MAX_NAME_BYTES);
        assert_eq!(check(&Path::new("etc").join(&name)), Ok(()));
        let error = check(&Path::new("etc").join(name + "n")).unwrap_err();
        assert!(matches!(error, LimitError::NameTooLong { .. }), "{error}");
    }
}
