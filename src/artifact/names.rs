//! What firmware, GRUB, initrd and agent look for on media and disks: labels, paths and formats. Written by one part, checked by another.

/// The label of live media.
pub(super) const LIVE_LABEL: &str = "COS_LIVE";

/// The label of the file system that EFI firmware starts a disk from.
pub(super) const EFI_LABEL: &str = "COS_GRUB";
/// The label of the file system with configurations.
pub(super) const OEM_LABEL: &str = "COS_OEM";
/// The label of the file system with the recovery system.
pub(super) const RECOVERY_LABEL: &str = "COS_RECOVERY";
/// The label of the file system with the installed systems.
pub(super) const STATE_LABEL: &str = "COS_STATE";
/// The label of the file system with what is kept between boots.
pub(super) const PERSISTENT_LABEL: &str = "COS_PERSISTENT";
/// The label of a system's own file system, by which the initrd finds it.
pub(super) const SYSTEM_LABEL: &str = "COS_SYSTEM";

/// The recovery system, by which the menu and the agent find it.
pub(super) const RECOVERY_IMAGE: &str = "cOS/recovery.img";
/// The menu of a disk, in the image and on the recovery partition.
pub(super) const DISK_MENU: &str = "etc/cos/grub.cfg";
/// Where a BIOS has GRUB look first, on the recovery partition.
pub(super) const BIOS_CHAIN: &str = "grub2/grub.cfg";

/// What the first boot of a disk does.
pub(super) const FIRST_BOOT: &str = "01_reset.yaml";
/// The environment of GRUB.
pub(super) const ENVIRONMENT: &str = "grubenv";
/// The length of GRUB's environment blocks.
pub(super) const ENVIRONMENT_BYTES: usize = 1024;
/// What they begin with.
pub(super) const ENVIRONMENT_HEAD: &str = "# GRUB Environment Block\n";
