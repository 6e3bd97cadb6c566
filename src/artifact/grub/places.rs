//! Where distributions put shim and GRUB. Paths without a leading slash, in the order in which they are tried.

use crate::distro::Arch;

/// GRUB's modules for BIOS machines: Debian, Alpine and Arch; SUSE; Red Hat has the first as well.
pub(crate) const BIOS_DIRS: [&str; 3] = [
    "usr/lib/grub/i386-pc",
    "usr/share/grub2/i386-pc",
    "usr/lib/grub2/i386-pc",
];

/// Directories below `/boot/efi/EFI` where distributions that do not sign apart put both files, and where the installer looks.
pub(crate) const VENDORS: [&str; 4] = ["fedora", "rocky", "redhat", "almalinux"];

/// One more such directory, where the installer does not look.
pub(crate) const MORE_VENDORS: [&str; 1] = ["centos"];

/// The directory of the programs that firmware starts of a medium or disk (UEFI specification, 3.5.1.1).
pub(crate) const EFI_DIR: &str = "EFI/BOOT";

/// Returns what the program in [`EFI_DIR`] is called that firmware of `arch` starts.
pub(crate) fn first_program(arch: Arch) -> String {
    format!("boot{}.efi", efi_names(arch).suffix)
}

/// What a machine's files are called by.
#[derive(Debug, Clone, Copy)]
pub(super) struct EfiNames {
    /// The ending of EFI programs, as in `BOOTX64.EFI` (UEFI specification, 3.5.1.1), in lower case.
    pub(super) suffix: &'static str,
    /// GRUB's directory of modules.
    pub(super) modules: &'static str,
    /// The architecture in SUSE's paths.
    pub(super) machine: &'static str,
}

/// Returns the names for `arch`.
pub(super) fn efi_names(arch: Arch) -> EfiNames {
    let (suffix, modules) = match arch {
        Arch::Amd64 => ("x64", "x86_64-efi"),
        Arch::Arm64 => ("aa64", "arm64-efi"),
        Arch::Riscv64 => ("riscv64", "riscv64-efi"),
    };
    EfiNames {
        suffix,
        modules,
        machine: arch.machine(),
    }
}

/// Returns where a shim may be that the installer finds too. There is none for riscv64.
pub(crate) fn shim_places(arch: Arch) -> Vec<String> {
    if arch == Arch::Riscv64 {
        return Vec::new();
    }
    let EfiNames {
        suffix, machine, ..
    } = efi_names(arch);
    let mut places = vec![format!("usr/share/efi/{machine}/shim.efi")];
    for ending in ["dualsigned", "signed.latest", "signed"] {
        places.push(format!("usr/lib/shim/shim{suffix}.efi.{ending}"));
    }
    for vendor in VENDORS {
        places.push(format!("boot/efi/EFI/{vendor}/shim.efi"));
        places.push(format!("boot/efi/EFI/{vendor}/shim{suffix}.efi"));
    }
    places
}

/// Returns where else a shim may be.
pub(super) fn more_shim_places(arch: Arch) -> Vec<String> {
    if arch == Arch::Riscv64 {
        return Vec::new();
    }
    let suffix = efi_names(arch).suffix;
    let place = |vendor| format!("boot/efi/EFI/{vendor}/shim{suffix}.efi");
    MORE_VENDORS.map(place).into()
}

/// Returns where a GRUB for EFI may be that the installer finds too. `gcd*`, made for live media, is first for them and not
/// taken for disks.
pub(crate) fn grub_places(arch: Arch, is_live: bool) -> Vec<String> {
    let EfiNames {
        suffix,
        modules,
        machine,
    } = efi_names(arch);
    if arch == Arch::Riscv64 {
        let mut places = vec![
            format!("usr/share/efi/{machine}/grub.efi"),
            format!("usr/lib/grub/{modules}/grub{suffix}.efi"),
            format!("usr/lib/grub/{modules}/monolithic/grub{suffix}.efi"),
        ];
        for vendor in ["debian", "ubuntu", "fedora"] {
            places.push(format!("boot/efi/EFI/{vendor}/grub{suffix}.efi"));
        }
        places.push("boot/efi/EFI/BOOT/BOOTRISCV64.EFI".to_owned());
        return places;
    }
    let mut places = Vec::new();
    if is_live {
        places.push(format!(
            "usr/lib/grub/{modules}-signed/gcd{suffix}.efi.signed"
        ));
    }
    places.push(format!("usr/share/efi/{machine}/grub.efi"));
    places.push(format!(
        "usr/lib/grub/{modules}-signed/grub{suffix}.efi.signed"
    ));
    for vendor in VENDORS {
        places.push(format!("boot/efi/EFI/{vendor}/grub{suffix}.efi"));
    }
    places.push(format!("usr/lib/grub/{modules}/grub{suffix}.efi"));
    places
}

/// Returns where else a GRUB for EFI may be: Debian's unsigned ones last.
pub(super) fn more_grub_places(arch: Arch, is_live: bool) -> Vec<String> {
    let EfiNames {
        suffix, modules, ..
    } = efi_names(arch);
    if arch == Arch::Riscv64 {
        return Vec::new();
    }
    let place = |vendor| format!("boot/efi/EFI/{vendor}/grub{suffix}.efi");
    let mut places: Vec<String> = MORE_VENDORS.map(place).into();
    let names: &[&str] = if is_live { &["gcd", "grub"] } else { &["grub"] };
    for name in names {
        places.push(format!(
            "usr/lib/grub/{modules}/monolithic/{name}{suffix}.efi"
        ));
    }
    places
}
