//! pacman: Arch Linux.

use super::{Cache, Manager, Operation, PARALLEL_DOWNLOADS, Setup, WORKSPACE, WorkFile, words};

/// pacman.
pub static PACMAN: Manager = Manager {
    name: "pacman",
    programs: &["/usr/bin/pacman"],
    caches: &[
        Cache {
            name: "pkg",
            path: "/var/cache/pacman/pkg",
        },
        Cache {
            name: "sync",
            path: "/var/lib/pacman/sync",
        },
    ],
    forgets: None,
    setup,
    words: line,
};

/// Hooks that build an initrd; a link to nothing in a later directory takes the place of the hook with its name.
const MASKED_HOOKS: &[&str] = &[
    "60-dracut-remove.hook",
    "60-mkinitcpio-remove.hook",
    "90-dracut-install.hook",
    "90-mkinitcpio-install.hook",
];

fn setup() -> Setup {
    Setup {
        files: vec![WorkFile {
            path: format!("{WORKSPACE}/pacman.conf"),
            mode: 0o644,
            // Of hooks with one name the last directory's counts.
            content: format!(
                "[options]\nParallelDownloads = {PARALLEL_DOWNLOADS}\nInclude = /etc/pacman.conf\n\n\
                 [options]\nHookDir = {WORKSPACE}/hooks\n"
            )
            .into(),
        }],
        links: MASKED_HOOKS
            .iter()
            .map(|name| (format!("{WORKSPACE}/hooks/{name}"), "/dev/null"))
            .collect(),
        directories: vec![format!("{WORKSPACE}/log")],
        // Naming any directory leaves the usual one out, and one that does not exist must not be named.
        mirrored: vec![("/etc/pacman.d/hooks", format!("{WORKSPACE}/hooks"))],
        environment: vec![("KERNEL_INSTALL_BYPASS", "1".to_owned())],
    }
}

fn line(operation: Operation<'_>) -> Option<Vec<String>> {
    let verb = match operation {
        Operation::Refresh { .. } => "--sync --refresh",
        Operation::Upgrade => "--sync --sysupgrade",
        Operation::Download(_) => "--sync --needed --downloadonly",
        Operation::Install { .. } => "--sync --needed",
        Operation::Remove(_) => "--remove",
        Operation::List => return Some(words("pacman --query --quiet")),
    };
    Some(words(&format!(
        "pacman --config {WORKSPACE}/pacman.conf --noconfirm --noprogressbar --color never --logfile {WORKSPACE}/log/pacman.log \
         {verb}"
    )))
}
