//! The `grub.cfg` that GRUB finds beside itself, and which leads to the menu.

/// Returns the one of live media: to `/boot/grub2/grub.cfg` on the medium that has the kernel.
pub fn chain_to_live() -> String {
    chain(
        "--file /boot/kernel",
        "/boot/grub2",
        "/boot/grub2/grub.cfg",
        "no device has the file /boot/kernel",
    )
}

/// Returns the one of disks: to the menu of the image, which the file system labelled `label` has a copy of. `label` is a
/// word of letters, digits and underscores (`COS_RECOVERY`).
///
/// It also is `/grub2/grub.cfg` of that file system, for machines that boot by BIOS.
pub fn chain_to_disk(label: &str) -> String {
    chain(
        &format!("--label {label}"),
        "/grub2",
        "/etc/cos/grub.cfg",
        &format!("no file system has the label {label}"),
    )
}

fn chain(wanted: &str, prefix: &str, menu: &str, otherwise: &str) -> String {
    format!(
        r#"# Leads to the boot menu.

if search --no-floppy --set=root {wanted}; then
    set prefix="(${{root}})"{prefix}
    configfile "(${{root}})"{menu}
else
    echo "{otherwise}"
fi
"#
    )
}
