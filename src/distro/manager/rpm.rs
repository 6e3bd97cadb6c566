//! What every manager of rpm packages needs: rpm's macros and the commands that package scripts must not find.

use super::{Setup, WORKSPACE, WorkFile, held_back};

/// Commands that package scripts call and that must do nothing while an image is built; see the module's "Holding back".
const HELD_BACK: &[&str] = &[
    "dracut",
    "grub2-install",
    "grub2-mkconfig",
    "grubby",
    "installkernel",
    "kernel-install",
    "mkinitrd",
    "new-kernel-pkg",
    "pbl",
    "sdbootutil",
    "shim-install",
    "update-bootloader",
];

/// Prints the names of installed packages.
pub(super) const LIST: &str = "rpm -qa --qf %{NAME}\\n";

/// Returns the setup; `environment` is what the manager adds.
pub(super) fn setup(environment: &[(&'static str, &str)]) -> Setup {
    let macros = |path: &str| WorkFile {
        path: format!("{WORKSPACE}/{path}"),
        mode: 0o644,
        content: macros().into(),
    };
    let mut files = held_back(HELD_BACK);
    // The second place is that of newer versions.
    files.extend([macros(".rpmmacros"), macros(".config/rpm/macros")]);
    let mut all = vec![
        // rpm reads its macros from the home directory; scripts get it too, and leave nothing in it that matters.
        ("HOME", WORKSPACE.to_owned()),
        (
            "PATH",
            format!("{WORKSPACE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ),
        // `kernel-install` and SUSE's `regenerate-initrd-posttrans`, which scripts call by their full path.
        ("KERNEL_INSTALL_BYPASS", "1".to_owned()),
        ("DRACUT", format!("{WORKSPACE}/bin/dracut")),
        ("SYSTEMD_OFFLINE", "1".to_owned()),
    ];
    all.extend(
        environment
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    Setup {
        files,
        directories: vec![format!("{WORKSPACE}/log")],
        environment: all,
        ..Setup::default()
    }
}

/// Scripts run with a search path of rpm's own. The kernel's file systems belong to nobody in a sandbox, so the package that
/// owns their mount points must leave them alone. A plugin gives scripts namespaces of their own where it is installed, which the
/// sandbox refuses and does already.
fn macros() -> String {
    format!(
        "%_install_script_path {WORKSPACE}/bin:/sbin:/bin:/usr/sbin:/usr/bin:/usr/X11R6/bin\n\
         %_netsharedpath /proc:/sys:/dev\n\
         %__transaction_unshare %{{nil}}\n"
    )
}
