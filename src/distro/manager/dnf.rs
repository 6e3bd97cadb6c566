//! dnf in its three generations: dnf 5, dnf 4, and the small one of minimal images.

use super::{Cache, Manager, Operation, PARALLEL_DOWNLOADS, Setup, WORKSPACE, rpm, words};

/// dnf 5: Fedora 41 and newer.
pub static DNF5: Manager = Manager {
    name: "dnf5",
    programs: &["/usr/bin/dnf5"],
    caches: &[Cache {
        name: "libdnf5",
        path: "/var/cache/libdnf5",
    }],
    forgets: None,
    setup,
    words: dnf5,
};

/// dnf 4: Enterprise Linux, Amazon Linux.
pub static DNF4: Manager = Manager {
    name: "dnf4",
    programs: &["/usr/bin/dnf-3", "/usr/bin/dnf4", "/usr/bin/dnf"],
    caches: &[Cache {
        name: "dnf",
        path: "/var/cache/dnf",
    }],
    forgets: None,
    setup,
    words: dnf4,
};

/// microdnf: minimal images of Enterprise Linux 8 to 10.
pub static MICRODNF: Manager = Manager {
    name: "microdnf",
    programs: &["/usr/bin/microdnf"],
    caches: &[Cache {
        name: "yum",
        path: "/var/cache/yum",
    }],
    forgets: None,
    setup,
    words: microdnf,
};

fn setup() -> Setup {
    rpm::setup(&[])
}

fn dnf5(operation: Operation<'_>) -> Option<Vec<String>> {
    Some(full("dnf5", "", operation))
}

/// Without a record of the transaction, whose only use is to be undone.
fn dnf4(operation: Operation<'_>) -> Option<Vec<String>> {
    let more = "--color=never --setopt=history_record=False --setopt=check_config_file_age=False";
    Some(full("dnf", more, operation))
}

fn full(program: &str, more: &str, operation: Operation<'_>) -> Vec<String> {
    let verb = match operation {
        Operation::Refresh { .. } => "makecache --refresh",
        Operation::Upgrade => "upgrade",
        Operation::Download(_) => "install --downloadonly",
        Operation::Install { replace: false, .. } => "install",
        Operation::Install { replace: true, .. } => "install --allowerasing",
        Operation::Remove(_) => "remove",
        Operation::List => return words(rpm::LIST),
    };
    words(&format!(
        "{program} --assumeyes --setopt=install_weak_deps=False --setopt=keepcache=True \
         --setopt=max_parallel_downloads={PARALLEL_DOWNLOADS} --setopt=logdir={WORKSPACE}/log {more} {verb}"
    ))
}

/// It knows few settings, fetches many packages at a time by itself, and cannot only fetch.
fn microdnf(operation: Operation<'_>) -> Option<Vec<String>> {
    let verb = match operation {
        Operation::Refresh { .. } => "--refresh makecache",
        Operation::Upgrade => "upgrade",
        Operation::Download(_) => return None,
        Operation::Install { .. } => "install",
        Operation::Remove(_) => "remove",
        Operation::List => return Some(words(rpm::LIST)),
    };
    Some(words(&format!(
        "microdnf --assumeyes --setopt=install_weak_deps=0 --setopt=keepcache=1 {verb}"
    )))
}
