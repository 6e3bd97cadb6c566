//! Lines of programs that sound like a failure and are none where an image is made: they are shown with the reason.
//!
//! Only lines whose cause is known stand here, each as narrow as it can be told. Nothing is left out, and no line decides anything:
//! whether a command has failed is told by its exit status, whether the image is whole by validation.

/// What a line begins with, what it holds as well, and why it is harmless.
struct Known {
    start: &'static str,
    holds: &'static str,
    why: &'static str,
}

const fn known(start: &'static str, holds: &'static str, why: &'static str) -> Known {
    Known { start, holds, why }
}

const NO_BOOTED_KERNEL: &str = "no kernel of the image runs here";
const NODES: &str = "the initrd gets its device nodes afterwards";
const HOSTS: &str = "the image brings no such file";
const RESOLV_CONF: &str = "the sandbox has its own there; a machine makes its own when it boots";
const ARRAYS: &str = "arrays of the building machine are none of the image's";
const HOST_KEY: &str = "taken out again: each machine makes its own keys";

const KNOWN: &[Known] = &[
    known(
        "/usr/bin/dracut: line ",
        "/sys/module/firmware_class/parameters/path: No such file",
        NO_BOOTED_KERNEL,
    ),
    known("grep: /proc/modules: No such file", "", NO_BOOTED_KERNEL),
    known(
        "libkmod: ERROR ",
        "could not open /proc/modules: No such file",
        NO_BOOTED_KERNEL,
    ),
    known(
        "Error: could not get list of modules: No such file",
        "",
        NO_BOOTED_KERNEL,
    ),
    known(
        "mknod: /run/kfactory-initrd/",
        "/initramfs/dev/null: Operation not permitted",
        NODES,
    ),
    known(
        "mknod: /run/kfactory-initrd/",
        "/initramfs/dev/kmsg: Operation not permitted",
        NODES,
    ),
    known(
        "mknod: /run/kfactory-initrd/",
        "/initramfs/dev/console: Operation not permitted",
        NODES,
    ),
    known(
        "mknod: /run/kfactory-initrd/",
        "/initramfs/dev/random: Operation not permitted",
        NODES,
    ),
    known(
        "mknod: /run/kfactory-initrd/",
        "/initramfs/dev/urandom: Operation not permitted",
        NODES,
    ),
    known("dracut-install: ERROR: installing '/etc/hosts'", "", HOSTS),
    known("dracut: FAILED: ", " -a /etc/hosts", HOSTS),
    known(
        "dracut-install: Failed to find module 'xhci_pci_renesas'",
        "",
        "this kernel has no such driver",
    ),
    known(
        "dracut: FAILED: ",
        " -m nfit libnvdimm nd_pmem dax_pmem",
        "this kernel has not all drivers for persistent memory",
    ),
    known(
        "Failed to enable unit, unit iscsiuio.socket does not exist",
        "",
        "this release of open-iscsi has no such unit",
    ),
    known("Cannot take a backup of /etc/resolv.conf", "", RESOLV_CONF),
    known(
        "mv: cannot move '/etc/resolv.conf' to ",
        "Device or resource busy",
        RESOLV_CONF,
    ),
    known(
        "ln: failed to create symbolic link '/etc/resolv.conf'",
        "Device or resource busy",
        RESOLV_CONF,
    ),
    known(
        "Cannot install symlink from /etc/resolv.conf to ",
        "",
        RESOLV_CONF,
    ),
    known("W: mdadm: failed to load MD subsystem", "", ARRAYS),
    known(
        "Generating mdadm.conf... done (failed to scan arrays",
        "",
        ARRAYS,
    ),
    known("Creating SSH2 ", " key; this may take some time", HOST_KEY),
];

/// What dracut can leave out of the initrd of a Kairos system where the base does not have it.
const OPTIONAL_MODULES: &[&str] = &[
    "biosdevname",
    "bluetooth",
    "btrfs",
    "busybox",
    "cifs",
    "connman",
    "dbus-broker",
    "dmraid",
    "dmsquash-live-ntfs",
    "fcoe",
    "fcoe-uefi",
    "memstrack",
    "mksh",
    "nvmf",
    "pcsc",
    "rngd",
    "systemd-coredump",
    "systemd-portabled",
    "tpm2-tss",
];

/// Returns why a line that sounds like a failure is none; `None` for every other line.
pub(super) fn why(line: &str) -> Option<&'static str> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("dracut: dracut module '") {
        let (module, rest) = rest.split_once('\'')?;
        let is_left_out = rest.starts_with(" will not be installed, because command '");
        return (is_left_out && OPTIONAL_MODULES.contains(&module))
            .then_some("optional, and not in the base");
    }
    KNOWN
        .iter()
        .find(|known| line.starts_with(known.start) && line.contains(known.holds))
        .map(|known| known.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_whose_cause_is_known_are_told_from_failures() {
        for line in [
            "mknod: /run/kfactory-initrd/dracut.cTL8cx/initramfs/dev/null: Operation not permitted",
            "dracut: dracut module 'fcoe' will not be installed, because command 'lldpad' could not be found!",
            "dracut-install: ERROR: installing '/etc/hosts'",
            "Creating SSH2 RSA key; this may take some time ...",
        ] {
            assert!(why(line).is_some(), "{line}");
        }
        for line in [
            "",
            "mknod: /dev/null: Operation not permitted",
            "dracut: dracut module 'multipath' will not be installed, because command 'multipath' could not be found!",
            "dracut: dracut module 'busybox' cannot be found or installed.",
            "dracut-install: ERROR: installing '/usr/bin/immucore'",
            "dracut: FAILED: /usr/lib/dracut/dracut-install -D /x -a /usr/bin/immucore",
            "dracut-install: Failed to find module 'overlay'",
            "E: Unable to locate package x",
        ] {
            assert_eq!(why(line), None, "{line}");
        }
    }
}
