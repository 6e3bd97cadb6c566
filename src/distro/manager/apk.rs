//! apk: Alpine Linux.
//!
//! Its package scripts run with an environment of their own and read no variable; what holds them back are files that the plan writes.

use super::{Cache, Manager, Operation, Setup, words};

/// apk.
pub static APK: Manager = Manager {
    name: "apk",
    programs: &["/sbin/apk", "/usr/bin/apk", "/usr/sbin/apk"],
    // Packages are kept in the cache where this directory exists.
    caches: &[Cache {
        name: "apk",
        path: "/etc/apk/cache",
    }],
    forgets: None,
    setup: Setup::default,
    words: line,
};

fn line(operation: Operation<'_>) -> Option<Vec<String>> {
    let verb = match operation {
        Operation::Refresh { .. } => "update",
        Operation::Upgrade => "upgrade",
        Operation::Download(_) => "cache download --add-dependencies",
        Operation::Install { .. } => "add",
        Operation::Remove(_) => "del",
        Operation::List => "info",
    };
    Some(words(&format!("apk --no-progress {verb}")))
}
