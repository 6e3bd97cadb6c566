//! Where distributions put what a Raspberry Pi starts from. Paths without a leading slash, in the order in which they are tried.

use std::path::Path;

/// openSUSE's directory: firmware, device trees, config.txt and U-Boot.
pub(super) const VENDOR_DIR: &str = "boot/vc";

/// Firmware: Debian's `raspi-firmware`; Ubuntu's `linux-firmware-raspi` and, up to 20.04, `linux-firmware-raspi2`; openSUSE's
/// `raspberrypi-firmware`; and where the packages of the first two and Raspberry Pi OS put it for the board.
pub(super) const FIRMWARE_DIRS: [&str; 5] = [
    "usr/lib/raspi-firmware",
    "usr/lib/linux-firmware-raspi",
    "usr/lib/linux-firmware-raspi2",
    VENDOR_DIR,
    "boot/firmware",
];

/// U-Boot: `u-boot-rpi` of Debian and Ubuntu, for all boards and for the board `N`; openSUSE's `u-boot-rpiarm64`.
pub(super) const U_BOOTS: [&str; 4] = [
    "usr/lib/u-boot/rpi_arm64/u-boot.bin",
    "usr/lib/u-boot/rpi_N/u-boot.bin",
    "boot/vc/u-boot.bin",
    "boot/u-boot.bin",
];

/// The directory of what changes device trees, on the FAT.
pub(super) const OVERLAYS: &str = "overlays/";

/// Device trees of a kernel of this version, each with the directory of what changes them: of Debian's kernels, of Ubuntu's, where
/// `/lib` may be a directory of its own, and of `raspberrypi-firmware-dt`.
pub(super) fn device_tree_dirs(version: &str) -> [(String, String); 5] {
    let below = |top: &str, trees: &str, overlays: &str| {
        (format!("{top}/{trees}"), format!("{top}/{overlays}"))
    };
    let debian = format!("usr/lib/linux-image-{version}");
    let ubuntu = ["usr/lib", "lib"].map(|lib| format!("{lib}/firmware/{version}/device-tree"));
    [
        below(&debian, "broadcom", "overlays"),
        below(&ubuntu[0], "broadcom", "overlays"),
        below(&ubuntu[1], "broadcom", "overlays"),
        (VENDOR_DIR.to_owned(), format!("{VENDOR_DIR}/overlays")),
        (
            "boot/firmware".to_owned(),
            "boot/firmware/overlays".to_owned(),
        ),
    ]
}

/// Returns whether `path` (without a leading slash) is a file whose content a board may ask for.
pub fn is_wanted(path: &Path) -> bool {
    let Some(text) = path.to_str() else {
        return false;
    };
    let is_tree = [".dtb", ".dtbo", "/overlays/README"]
        .iter()
        .any(|end| text.ends_with(end));
    let has_trees = ["usr/lib/linux-image-", "usr/lib/firmware/", "lib/firmware/"]
        .iter()
        .any(|start| text.starts_with(start));
    let is_of_board = [".bin", ".elf", ".dat", ".txt"]
        .iter()
        .any(|end| text.ends_with(end));
    let in_dirs = FIRMWARE_DIRS.iter().any(|dir| path.starts_with(dir));
    is_tree && (has_trees || in_dirs)
        || is_of_board && in_dirs
        || text.starts_with("usr/lib/u-boot/rpi_") && text.ends_with("/u-boot.bin")
        || text == "boot/u-boot.bin"
}
