//! What a clean-up could not remove: kept until the end of the run, and told there once.
//!
//! Clean-ups run where nobody can be answered: while a value is dropped, or before an error is shown that matters more.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kfactory_sandbox::stage::maps_ids;

static LEFT: Mutex<Vec<(PathBuf, String)>> = Mutex::new(Vec::new());

/// Notes that `path` is still there, and why.
pub(crate) fn note(path: &Path, cause: &dyn Display) {
    let mut left = LEFT.lock().expect("no panic while held");
    if left.iter().all(|(known, _)| known != path) {
        left.push((path.to_owned(), cause.to_string()));
    }
}

/// Returns what is left as one warning, and forgets it.
pub(crate) fn take_warning() -> Option<String> {
    let left = std::mem::take(&mut *LEFT.lock().expect("no panic while held"));
    warning(&left, maps_ids())
}

fn warning(left: &[(PathBuf, String)], maps_ids: bool) -> Option<String> {
    let (path, cause) = left.first()?;
    let more = match left.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    // Files of subordinate IDs can only be removed where those are mapped.
    let first = if maps_ids { "podman unshare " } else { "" };
    Some(format!(
        "{} could not be removed{more}: {cause}; `{first}rm -rf '{}'` removes it",
        path.display(),
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_names_the_first_and_counts_the_rest() {
        let left = ["a", "b", "c"].map(|name| (PathBuf::from(name), format!("why {name}")));
        assert_eq!(warning(&[], false), None);
        assert_eq!(
            warning(&left[..1], true).as_deref(),
            Some("a could not be removed: why a; `podman unshare rm -rf 'a'` removes it")
        );
        assert_eq!(
            warning(&left, false).as_deref(),
            Some("a could not be removed (and 2 more): why a; `rm -rf 'a'` removes it")
        );
    }
}
