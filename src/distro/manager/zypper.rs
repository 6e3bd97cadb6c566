//! zypper: openSUSE and SUSE Linux Enterprise.

use super::{Cache, Manager, Operation, Setup, rpm, words};

/// zypper.
pub static ZYPPER: Manager = Manager {
    name: "zypper",
    programs: &["/usr/bin/zypper"],
    caches: &[Cache {
        name: "zypp",
        path: "/var/cache/zypp",
    }],
    // Each repository says whether its packages are kept, and most say no.
    forgets: Some("zypp/packages"),
    setup,
    words: line,
};

fn setup() -> Setup {
    // Packages are fetched many at a time where libzypp can.
    rpm::setup(&[("ZYPP_PCK_PRELOAD", "1")])
}

fn line(operation: Operation<'_>) -> Option<Vec<String>> {
    let verb = match operation {
        Operation::Refresh { import_keys: false } => "refresh",
        Operation::Refresh { import_keys: true } => "--gpg-auto-import-keys refresh",
        Operation::Upgrade => "update --no-confirm --no-recommends --auto-agree-with-licenses",
        Operation::Download(_) => {
            "install --no-confirm --no-recommends --auto-agree-with-licenses --download-only"
        }
        Operation::Install { replace: false, .. } => {
            "install --no-confirm --no-recommends --auto-agree-with-licenses"
        }
        Operation::Install { replace: true, .. } => {
            "install --no-confirm --no-recommends --auto-agree-with-licenses --force-resolution"
        }
        Operation::Remove(_) => "remove --no-confirm",
        Operation::List => return Some(words(rpm::LIST)),
    };
    Some(words(&format!("zypper --non-interactive {verb}")))
}
