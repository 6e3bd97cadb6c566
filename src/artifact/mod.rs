//! What boots of an image: live media, network boot files and disks, made of its layers without unpacking them and without any privilege.
//!
//! Everything is laid out before a byte is written: the tree that the layers make tells every size. Contents then arrive in one pass,
//! in the order in which the layers hold them, and go to their places.
//!
//! | file | what |
//! |---|---|
//! | [`board`] | what Raspberry Pis start from |
//! | [`boot_files`] | the kernel and the initrd that boot an image |
//! | [`flat`] | its root filesystem as one archive |
//! | [`rootfs_overlay`] | files of the user's in the root filesystem, as one more layer |
//! | `overlay` | files of the user's on a medium or on the FAT of EFI |
//! | [`squashfs`] | `mksquashfs`, fed by that archive |
//! | [`source`] | the image that is to boot, checked, and what follows from it |
//! | [`output`] | the file that is made, with its checksum |
//! | `sparse` | files with holes, read where they hold something |
//! | [`make`] | a medium or a disk in a file: what the commands write |
//! | [`cloud_config`] | the configuration that goes along |
//! | [`live`] | media that start a live system from CD and USB stick |
//! | [`disk`] | disks that become installed systems when they boot first |
//! | [`stem`](mod@stem) | what they are called |
//! | `names` | labels and paths by which firmware, GRUB, initrd and agent find what is on them |
//! | [`medium`] | what boots of such a medium that is there already |
//! | [`netboot`] | kernel, initrd, squashfs and an iPXE script |
//! | [`serve`] | those over HTTP |
//! | `bytes` | numbers in what others wrote |
//! | [`region`] | a part of a file as a place to write to: a partition, or a file inside a file system |
//! | [`ext4`] | ext4 file systems made of a tree, one in a file of another too |
//! | [`fat`] | FAT file systems, for firmware |
//! | `efi_volume` | a FAT with what EFI firmware starts |
//! | [`grub`] | boot code for BIOS, programs for EFI and menus, of the image's own GRUB |
//! | [`format`](mod@format) | a raw disk as qcow2, VHD, VMDK, and for Google's cloud and MAAS |
//! | [`gpt`], [`guid`] | partition tables, and what names their parts |
//! | [`iso`] | ISO 9660 discs that start as CD and as disk, on BIOS and UEFI; read back, too |
//! | [`verify`](mod@verify) | all of these read back, whoever made them |

pub mod board;
pub mod boot_files;
mod bytes;
pub mod cloud_config;
pub mod disk;
mod efi_volume;
pub mod ext4;
pub mod fat;
pub mod flat;
pub mod format;
pub mod gpt;
pub mod grub;
pub mod guid;
pub mod iso;
#[cfg(test)]
pub(crate) mod judge;
pub mod live;
pub mod make;
pub mod medium;
mod names;
pub mod netboot;
pub mod output;
mod overlay;
pub mod region;
pub mod rootfs_overlay;
pub mod serve;
pub mod source;
mod sparse;
pub mod squashfs;
pub mod stem;
pub mod verify;
