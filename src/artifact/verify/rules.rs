//! What is demanded, as data. What other tools write is judged by the same.

use crate::validate::Severity;
use crate::validate::output::Demand;

macro_rules! rules {
    ($($name:ident $severity:ident $id:literal $demand:literal $remedy:literal)*) => {
        $(pub(super) static $name: Demand = Demand {
            id: $id,
            severity: Severity::$severity,
            demand: $demand,
            remedy: $remedy,
        };)*
        /// Every rule, in the order in which they are shown.
        pub static ALL: &[&Demand] = &[$(&$name),*];
    };
}

rules! {
    CHECKSUM Error "checksum"
        "the checksum in FILE.sha256, where there is one, is the file's"
        "copy both files again, or make them anew"

    STRUCTURE Error "iso-structure"
        "descriptors, directories and path tables of the medium are sound, and none leads past its end"
        "copy the medium again or make it anew: it is damaged or cut off"
    TREES Error "iso-trees"
        "the tree with Rock Ridge names and the one with Joliet names lead to the same bytes"
        "make the medium anew"
    LABEL Warning "iso-label"
        "the medium has the label COS_LIVE"
        "make it with the label that Kairos' tools look for"
    BIOS Error "iso-bios"
        "what a BIOS starts is a file of the medium, unchanged, and is told its place, from CD and from USB stick"
        "make the medium anew; what changes its files afterwards must write GRUB's boot information again"
    UEFI Error "iso-uefi"
        "the boot catalog leads UEFI to a file of the medium or to a partition"
        "make the medium anew"
    PARTITIONS Error "partition-table"
        "the partition table at the start is sound, and what firmware looks for is where it says"
        "write the medium or disk again from its source; `sgdisk --verify` tells more"
    BACKUP_TABLE Warning "partition-table-backup"
        "the second partition table is at the very end, sound, and says the same"
        "`sgdisk --move-second-header FILE` puts it to the end of a raw disk, and would damage a disk in another form: make a raw one of that first"

    FOOTER Error "vhd-footer"
        "the end of a VHD says how large the disk before it is"
        "convert it again: `qemu-img convert -O vpc -o subformat=fixed,force_size=on`"
    VHD_SIZE Warning "vhd-size"
        "the disk in a VHD has a whole number of MiB, as Azure takes it"
        "make it anew with `kfactory raw`; of another disk, let it grow before it is converted: `truncate -s %1M`"
    QCOW2 Error "qcow2"
        "the tables of a qcow2 image lead to clusters inside the file that it counts as used, and every compressed one unpacks"
        "copy it again or make it anew; `qemu-img check` tells more"
    VMDK Error "vmdk"
        "the tables of a VMDK lead to grains inside the file, and every compressed one unpacks"
        "copy it again or make it anew; `qemu-img check` tells more"
    GZIP Error "gzip"
        "what is compressed with gzip unpacks to its end, and is no larger than the disk in it says"
        "copy it again or make it anew: it is damaged or cut off"
    GCE_ARCHIVE Error "gce-archive"
        "an archive for Google Compute Engine is of the old GNU format, and holds disk.raw, of whole GiB, and nothing else"
        "make it anew with `kfactory raw`; `tar --format=oldgnu -Sczf FILE disk.raw` packs another disk"
    DISK_PARTITIONS Error "disk-partitions"
        "the disk has a partition for firmware (`efi` or `bios`), `oem` and `recovery`, each once and of its type"
        "make the disk anew with `kfactory raw`"
    DISK_LABELS Error "disk-labels"
        "file systems have the labels by which firmware, GRUB and initrd find them: COS_GRUB, COS_OEM, COS_RECOVERY, COS_SYSTEM"
        "make the disk anew; `fatlabel` and `e2label` change one label"
    DISK_BIOS Error "disk-bios"
        "the MBR's code leads to GRUB's core image in the partition `bios`, and that to the rest of itself there"
        "make the disk anew, or let `grub-install --target=i386-pc` write both again"
    FILE_SYSTEM Error "file-system"
        "an ext4 file system is whole: no larger than its place, and what is read of it has its checksums"
        "make the disk anew; `e2fsck -fn` tells more"
    FILE_SYSTEM_UNREAD Warning "file-system-unread"
        "ext4 file systems can be looked into"
        "make it without the feature to have its content checked: `mke2fs -O ^FEATURE`"

    OEM_FILES Error "oem-files"
        "the configurations have what the first boot does: 01_reset.yaml, in the dialect of yip, adds partitions and resets"
        "make the disk anew with `kfactory raw`"
    OEM_ENVIRONMENT Error "oem-environment"
        "grubenv is an environment block of GRUB's with 1024 bytes, and its `next_entry` is one of the menu's"
        "write it again: `grub-editenv grubenv create`, then `grub-editenv grubenv set next_entry=recovery`"
    RECOVERY_FILES Error "recovery-files"
        "the partition `recovery` has the menu, /etc/cos/grub.cfg, and the recovery system, /cOS/recovery.img"
        "make the disk anew with `kfactory raw`"

    MENU Error "menu"
        "there is a menu of GRUB's that starts a kernel"
        "make the medium anew, or put the menu to /boot/grub2/grub.cfg"
    MENU_FILES Error "menu-files"
        "kernels and initrds that the menu names exist"
        "put the file there, or name another one in the menu"
    MENU_ROOT Error "menu-root"
        "the menu's kernel arguments look for the root filesystem by its own label, and for the file that it is in by its name"
        "let the label in `root=`, and on disks the file in `cos-img/filename=`, be those of the root filesystem"
    MENU_SQUASHFS Error "menu-squashfs"
        "the file that the menu's `rd.live.dir` and `rd.live.squashimg` name exists"
        "let the arguments name the root filesystem on the medium"
    MENU_ARGUMENTS Warning "menu-arguments"
        "the menu's kernel arguments have `cdroot` and `rd.live.overlay.overlayfs`"
        "add what lacks: Alpine's initrd waits for the one, dracut's makes the root filesystem writable by the other"

    SQUASHFS Error "squashfs"
        "the root filesystem is a squashfs, whole and with its tables where it says"
        "make it anew: it is damaged or cut off"
    SQUASHFS_COMPRESSOR Error "squashfs-compressor"
        "the root filesystem is compressed in a way that its kernel reads, by the configuration it was built with"
        "choose one that the kernel has (CONFIG_SQUASHFS_...): gzip and xz nearly always, zstd, lz4 or lzo"

    ROOT_UNREAD Warning "root-unread"
        "the root filesystem can be looked into"
        "choose gzip, xz, zstd or lz4 to have its content checked"
    ROOT_FILES Error "root-files"
        "the root filesystem has an init, and /etc/kairos-release says what it is"
        "make it of an image that `kfactory convert` made; `kfactory validate` tells what else lacks"
    ROOT_MODULES Error "root-modules"
        "the root filesystem has the modules of the kernel that boots it"
        "let kernel and root filesystem be of the same image"

    KERNEL Error "kernel"
        "the kernel is one, and for the same machines as what else starts there"
        "let the image's /boot/vmlinuz lead to a kernel, and make this anew"
    INITRD Error "initrd-format"
        "there is an initrd, and it is a whole archive"
        "build it again: it is damaged or cut off"
    INITRD_UNREAD Warning "initrd-unread"
        "the initrd can be looked into (gzip, zstd, xz or not compressed)"
        "set dracut's `compress` to gzip, zstd or xz to have its content checked"
    INITRD_KERNEL Error "initrd-kernel"
        "the modules in the initrd are those of the kernel beside it, and there are some"
        "build the initrd again for this kernel: `dracut --force /boot/initrd VERSION`"
    INITRD_INIT Error "initrd-init"
        "the initrd has an /init that leads to a program"
        "build the initrd again; its builder's configuration may lack its base module"
    INITRD_LIVE Error "initrd-live"
        "an initrd of dracut's can mount a root filesystem that is in a squashfs"
        "add dracut's module `dmsquash-live` (`livenet` for the network), then build the initrd again"
    INITRD_IMMUCORE Error "initrd-immucore"
        "the initrd holds immucore"
        "install immucore and dracut's module `28immucore` before the initrd is built"
    INITRD_MODULES Error "initrd-modules"
        "what mounts the root filesystem is in the initrd or, as far as it tells, built into the kernel"
        "install the package with these modules, then build the initrd again"

    EFI_FAT Error "efi-fat"
        "what UEFI starts from is a FAT file system, whole and with two tables alike"
        "make it anew; `fsck.fat -n` tells more"
    EFI_PROGRAM Error "efi-program"
        "EFI/BOOT has a program for the kernel's machines"
        "put shim or GRUB there as EFI/BOOT/bootx64.efi (bootaa64.efi, bootriscv64.efi)"
    EFI_SECOND Error "efi-second-program"
        "the program that shim starts is beside it"
        "put GRUB beside shim, under the name that shim looks for"
    EFI_MENU Error "efi-menu"
        "the configuration of the GRUB that shim starts is where one of its builds looks for it, and leads on"
        "put a grub.cfg into EFI/BOOT that leads to the menu"

    BOARD_FILES Error "board-files"
        "a Raspberry Pi finds its firmware, a device tree of its own and the files that config.txt names, and starts in 64 bits"
        "put the file onto the FAT beside config.txt (`arm_64bit=1` into that), or make the disk anew of an image that has it"
    BOARD_MBR Error "board-mbr"
        "the MBR has no FAT but the partition `efi`, and has that one for a Raspberry Pi 3, which reads no GPT"
        "make the disk anew with `kfactory raw`"

    MENU_TARGET Error "menu-target"
        "the device that a configuration of GRUB's looks for and the menu that it goes to are there"
        "let it search for a file or label of this medium or disk, and go to the menu on it"

    SCRIPT Warning "netboot-script"
        "there is an iPXE script"
        "make the directory anew with `kfactory netboot`, or let the server tell machines what to load"
    SCRIPT_BOOT Error "netboot-boot"
        "the iPXE script loads a kernel and boots it"
        "add `kernel FILE ARGUMENTS`, `initrd FILE` and `boot`"
    SCRIPT_FILES Error "netboot-files"
        "the files that boot together, by the script or by their names, are there"
        "put them there, or name others in the script"
    SCRIPT_ROOT Error "netboot-root"
        "the script's kernel arguments say where the root filesystem is"
        "add `root=live:URL`"
    SCRIPT_INITRD Error "netboot-initrd"
        "the kernel is told the initrd by the name that the script loads it under, as kernels on UEFI need"
        "add `initrd=NAME` to the kernel's arguments"
}

/// Returns the rule of this id.
pub fn find(id: &str) -> Option<Demand> {
    ALL.iter().find(|rule| rule.id == id).map(|rule| **rule)
}

/// Checks that every rule with one of `ids` exists.
///
/// # Errors
///
/// A usage error that names the unknown rule.
pub fn check_ids(ids: &[String]) -> crate::error::Result<()> {
    let all: Vec<&str> = ALL.iter().map(|rule| rule.id).collect();
    crate::validate::check_ids(ids, &all, "kfactory artifact verify")
}

/// Returns every rule, in the order in which they are shown.
pub fn all() -> Vec<Demand> {
    ALL.iter().map(|rule| **rule).collect()
}
