//! Tells a container build from a machine or container that is at work, which nobody wants converted by accident.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Exists where systemd runs the machine. Spec: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";

/// Refuses to change the root filesystem of this process where it is not that of a container build; `is_named` says that the user
/// asked for it by `--root /`.
///
/// # Errors
///
/// A usage error: not root, or something else is at work here.
pub(super) fn check(is_named: bool) -> Result<()> {
    let refused = |why: &str| {
        Error::usage(why).hint(
            "run it in a container build (`RUN --mount=... /kairos-init`), or name a tree with `--root DIR`",
        )
    };
    if !rustix::process::geteuid().is_root() {
        return Err(refused(
            "kairos-init changes the root filesystem it runs in and needs to be root there",
        ));
    }
    if !is_named && (Path::new(BOOTED).exists() || others_are_at_work()) {
        return Err(refused(
            "this is no container build: other processes run on this root filesystem, which kairos-init would change",
        )
        .hint("`--root /` says that it is meant"));
    }
    Ok(())
}

/// Tells whether processes that did not start this one run on its root filesystem. Those of a build do not: it has a PID namespace
/// of its own, or it is a chroot, in which nobody else is.
fn others_are_at_work() -> bool {
    let root = |path: &str| std::fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    let ours = root("/");
    let ancestors = ancestors();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    processes.any(|process| {
        !ancestors.contains(&process) && root(&format!("/proc/{process}/root/")) == ours
    })
}

/// Returns this process and all that it descends from.
fn ancestors() -> Vec<u32> {
    let mut found = vec![std::process::id()];
    while let Some(parent) = found.last().and_then(|process| parent(*process)) {
        if parent == 0 || found.contains(&parent) {
            break;
        }
        found.push(parent);
    }
    found
}

fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Spec: proc_pid_stat(5). The name in brackets may hold anything, so what follows its last bracket counts.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_descends_from_its_parent() {
        assert!(ancestors().contains(&std::os::unix::process::parent_id()));
    }
}
