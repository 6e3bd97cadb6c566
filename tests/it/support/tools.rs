//! Other programs: whether they are there.

use std::path::PathBuf;

/// Says why a test did not run; with `KFACTORY_NO_SKIP` set, that is a failure.
pub(crate) fn skipped(why: &str) {
    assert!(
        std::env::var_os("KFACTORY_NO_SKIP").is_none(),
        "skipped: {why}"
    );
    eprintln!("skipped: {why}");
}

/// Tells whether what takes a long time is to be tried too, and says so where it is not: `what` stays away then.
///
/// Chosen, not missing: `KFACTORY_NO_SKIP` has nothing to say about it.
pub(crate) fn wants_all(what: &str) -> bool {
    let wants = std::env::var("KFACTORY_FAMILIES").is_ok_and(|wanted| wanted == "all");
    if !wants {
        eprintln!("skipped: KFACTORY_FAMILIES is not `all` (`just test-families` sets it): {what}");
    }
    wants
}

/// Returns where `program` is on the `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|place| place.is_file())
}

/// Tells whether every one of `programs` is there, and says what is missing.
pub(crate) fn need(programs: &[&str]) -> bool {
    match programs.iter().find(|program| find(program).is_none()) {
        Some(missing) => {
            skipped(&format!("`{missing}` is not installed"));
            false
        }
        None => true,
    }
}
