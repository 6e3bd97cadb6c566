//! The initramfs configuration of Alpine, whose initramfs is made by mkinitfs.

use super::StaticFile;

/// Returns what mkinitfs reads, the init it puts into the initramfs, and the loop that stands in for a timer. Not for Trusted Boot.
pub fn files() -> [StaticFile; 5] {
    [
        StaticFile::new(
            "/usr/sbin/cos-setup-reconcile",
            0o755,
            include_str!("files/alpine/cos-setup-reconcile"),
        ),
        StaticFile::new(
            "/etc/mkinitfs/features.d/immucore.files",
            0o644,
            include_str!("files/alpine/immucore.files"),
        ),
        StaticFile::new(
            "/etc/mkinitfs/features.d/tpm.modules",
            0o644,
            "kernel/drivers/char/tpm/\n",
        ),
        StaticFile::new(
            "/etc/mkinitfs/mkinitfs.conf",
            0o644,
            include_str!("files/alpine/mkinitfs.conf"),
        ),
        StaticFile::new(
            "/usr/share/mkinitfs/initramfs-init",
            0o755,
            include_str!("files/alpine/initramfs-init"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every point that the documentation of the initramfs names.
    const POINTS: &[&str] = &[
        "pre-modprobe",
        "post-modprobe",
        "pre-udev",
        "post-udev",
        "pre-network",
        "post-network",
        "pre-netboot",
        "post-netboot",
        "pre-livecd",
        "post-livecd",
        "pre-mounts",
        "post-mounts",
        "pre-immucore",
        "post-immucore",
        "pre-binds",
        "post-binds",
        "pre-console",
        "post-console",
        "pre-switch",
    ];

    fn content(path: &str) -> String {
        let file = files().into_iter().find(|file| file.path == path);
        file.expect("one of them").content.into_owned()
    }

    #[test]
    fn the_initramfs_has_every_feature_a_machine_may_boot_with() {
        let conf = content("/etc/mkinitfs/mkinitfs.conf");
        let features = conf
            .trim()
            .strip_prefix("features=\"")
            .and_then(|rest| rest.strip_suffix('"'))
            .expect("one setting");
        for feature in [
            "cdrom",
            "squashfs",
            "immucore",
            "tpm",
            "nvme",
            "virtio",
            "usb",
            "cryptsetup",
            "lvm",
        ] {
            assert!(features.split(' ').any(|word| word == feature), "{feature}");
        }
    }

    #[test]
    fn the_init_can_be_stopped_at_every_point() {
        let init = content("/usr/share/mkinitfs/initramfs-init");
        for point in POINTS {
            assert!(init.contains(&format!("point {point}\n")), "{point}");
        }
        assert!(init.starts_with("#!/bin/sh\n") && init.contains("must immucore"));
    }
}
