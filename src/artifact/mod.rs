//! What boots of an image: live media, network boot files and disks, made of its layers without unpacking them and without any privilege.
//!
//! Everything is laid out before a byte is written: the tree that the layers make tells every size. Contents then arrive in one pass,
//! in the order in which the layers hold them, and go to their places.
//!
//! | file | what |
//! |---|---|
//! | [`boot_files`] | the kernel and the initrd that boot an image |
//! | [`flat`] | its root filesystem as one archive |
//! | [`squashfs`] | `mksquashfs`, fed by that archive |
//! | [`output`] | the file that is made, with its checksum |
//! | [`netboot`] | kernel, initrd, squashfs and an iPXE script |
//! | [`serve`] | those over HTTP |

pub mod boot_files;
pub mod flat;
pub mod netboot;
pub mod output;
pub mod serve;
pub mod squashfs;
