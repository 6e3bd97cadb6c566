//! What goes into a core.

/// The modules that open a medium and run a menu on it: partition tables, file systems, the shell's words, video, Linux.
const COMMON: &[&str] = &[
    "biosdisk",
    "part_gpt",
    "part_msdos",
    "iso9660",
    "ext2",
    "fat",
    "search",
    "search_label",
    "search_fs_file",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "chain",
    "boot",
    "echo",
    "ls",
    "test",
    "true",
    "loadenv",
    "gzio",
    "font",
    "gettext",
    "gfxterm",
    "gfxmenu",
    "all_video",
    "vbe",
    "vga",
];

/// Taken where the image's GRUB has them: newer than the oldest GRUB there is, or not in every distribution's.
const COMMON_IF_THERE: &[&str] = &["minicmd", "reboot", "halt", "sleep", "serial", "terminal"];

/// What the menu of a disk uses beyond that: it opens images in a file system.
const DISK: &[&str] = &["loopback", "squash4", "regexp"];
const DISK_IF_THERE: &[&str] = &["xzio", "zstdio", "smbios"];

/// What goes into a core beside GRUB's kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreSpec {
    /// Where GRUB finds `grub.cfg` and more modules: `/boot/grub2`, on the device that was booted from; `(,gpt3)/grub2`, on a
    /// partition of it.
    pub prefix: String,
    /// Commands that run before the prefix is looked at, in the small shell without conditions; may be empty.
    pub config: String,
    /// Modules by name; what they need comes along.
    pub modules: Vec<String>,
    /// Modules that are left out where the image's GRUB lacks them.
    pub if_there: Vec<String>,
}

impl CoreSpec {
    /// The core of live media: the menu is `/boot/grub2/grub.cfg` on the medium.
    pub fn live() -> Self {
        Self {
            prefix: "/boot/grub2".to_owned(),
            config: String::new(),
            modules: owned(&[COMMON]),
            if_there: owned(&[COMMON_IF_THERE]),
        }
    }

    /// The core of a disk whose GPT partition `number` (the first is 1) has the menu `/grub2/grub.cfg`.
    pub fn disk(number: u32) -> Self {
        Self {
            prefix: format!("(,gpt{number})/grub2"),
            config: String::new(),
            modules: owned(&[COMMON, DISK]),
            if_there: owned(&[COMMON_IF_THERE, DISK_IF_THERE]),
        }
    }
}

fn owned(lists: &[&[&str]]) -> Vec<String> {
    lists.concat().into_iter().map(str::to_owned).collect()
}
