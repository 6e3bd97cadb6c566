//! The kernel: there is one, it boots, and its modules are there.

use std::collections::BTreeSet;

use super::always;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::subject::KERNEL_PREFIXES;
use crate::validate::{Rule, Severity, Subject, Violations};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kernel-missing",
        severity: Severity::Error,
        demand: "/boot/vmlinuz exists",
        remedy: "let the steps `installKernel` and `kernel` run, or leave this rule out where the kernel comes from outside the image",
        steps: &[StepName::INSTALL_KERNEL, StepName::KERNEL],
        when: always,
        check: missing,
    },
    Rule {
        id: "kernel-dangling",
        severity: Severity::Error,
        demand: "/boot/vmlinuz leads to a file inside the image",
        remedy: "reinstall the kernel package, so that the file is there, and let the step `kernel` make the link",
        steps: &[StepName::KERNEL],
        when: always,
        check: dangling,
    },
    Rule {
        id: "kernel-format",
        severity: Severity::Error,
        demand: "/boot/vmlinuz is a kernel that a boot loader can start",
        remedy: "reinstall the kernel package: the file is damaged or something else",
        steps: &[StepName::KERNEL],
        when: always,
        check: format,
    },
    Rule {
        id: "kernel-arch",
        severity: Severity::Error,
        demand: "the kernel is for the image's architecture",
        remedy: "install the kernel package of the image's architecture",
        steps: &[StepName::INSTALL_KERNEL],
        when: always,
        check: arch,
    },
    Rule {
        id: "kernel-modules",
        severity: Severity::Error,
        demand: "the modules of the kernel that boots are in /lib/modules",
        remedy: "install the modules package of exactly this kernel version",
        steps: &[StepName::INSTALL_KERNEL],
        when: always,
        check: modules,
    },
    Rule {
        id: "kernel-modules-index",
        severity: Severity::Error,
        demand: "the kernel's modules have an index (modules.dep)",
        remedy: "run `depmod -a VERSION` in the image, or let the step `initrd` do it",
        steps: &[StepName::INITRD],
        when: always,
        check: index,
    },
    Rule {
        id: "kernel-single",
        severity: Severity::Error,
        demand: "exactly one kernel is installed",
        remedy: "remove every kernel but the one that is to boot, or name it by `--kernel`",
        steps: &[],
        when: always,
        check: single,
    },
    Rule {
        id: "kernel-leftovers",
        severity: Severity::Warning,
        demand: "no modules of kernels that are not there",
        remedy: "remove the directories of removed kernels from /lib/modules",
        steps: &[],
        when: always,
        check: leftovers,
    },
    Rule {
        id: "kernel-stray",
        severity: Severity::Warning,
        demand: "no other file in /boot can be taken for the kernel or the initrd",
        remedy: "remove it: tools take the first file whose name begins like a kernel's or an initrd's",
        steps: &[StepName::KERNEL, StepName::INITRD],
        when: always,
        check: stray,
    },
    Rule {
        id: "kernel-squashfs",
        severity: Severity::Error,
        demand: "the kernel reads squashfs as live media have it (gzip)",
        remedy: "use a kernel with CONFIG_SQUASHFS and CONFIG_SQUASHFS_ZLIB",
        steps: &[],
        when: always,
        check: squashfs,
    },
];

const CUT_OFF: &str = "it is shorter than its header says";

fn missing(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.tree.node("boot/vmlinuz").is_none() {
        found.at("boot/vmlinuz", "it does not exist");
    }
    Ok(())
}

fn dangling(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(node) = subject.tree.node("boot/vmlinuz") else {
        return Ok(());
    };
    if subject.kernel().is_none() {
        found.at(
            "boot/vmlinuz",
            match node.target() {
                Some(target) => format!("it points at {target:?}, where no file is"),
                None => "it is no file".to_owned(),
            },
        );
    }
    Ok(())
}

fn format(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Some(kernel) = subject.kernel() {
        match &kernel.image {
            None => found.at(&kernel.path, "it is no kernel image of a known format"),
            Some(image) if !image.is_whole => found.at(&kernel.path, CUT_OFF),
            Some(_) => {}
        }
    }
    Ok(())
}

fn arch(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(kernel) = subject.kernel() else {
        return Ok(());
    };
    let of_kernel = kernel.image.as_ref().and_then(|image| image.arch);
    if let (Some(wanted), Some(is)) = (subject.facts.arch, of_kernel)
        && wanted != is
    {
        found.at(
            &kernel.path,
            format!("it is for {is}, the image for {wanted}"),
        );
    }
    Ok(())
}

fn modules(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.kernel().is_none() || subject.modules().is_some() {
        return Ok(());
    }
    match subject.facts.kernel.as_deref() {
        Some(version) => {
            let there = subject.module_versions();
            let there = match there.as_slice() {
                [] => "there are none".to_owned(),
                versions => format!("there are those of {}", versions.join(", ")),
            };
            found.at(
                format!("lib/modules/{version}"),
                format!("the kernel is {version}, but its modules are missing; {there}"),
            );
        }
        None => found.at("boot/vmlinuz", "its version cannot be told"),
    }
    Ok(())
}

fn index(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(dir) = subject.modules() else {
        return Ok(());
    };
    // A kernel without any module needs no index.
    let has_modules = subject.tree.has(dir.join("kernel"));
    let index = subject.tree.find(dir.join("modules.dep"));
    let is_empty = index
        .and_then(|index| index.node.file().map(|file| file.size == 0))
        .unwrap_or(true);
    if has_modules && is_empty {
        found.at(dir.join("modules.dep"), "it is missing or empty");
    }
    Ok(())
}

/// Returns the versions of which there is a kernel.
fn installed(subject: &Subject<'_>) -> BTreeSet<String> {
    let mut versions: BTreeSet<String> = subject
        .module_versions()
        .into_iter()
        .filter(|version| subject.has_kernel(version))
        .collect();
    for name in subject.names("boot") {
        let version = KERNEL_PREFIXES
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix));
        if let Some(version) = version.filter(|version| is_version(version)) {
            versions.insert(version.to_owned());
        }
    }
    versions.extend(subject.facts.kernel.clone());
    versions
}

/// Tells versions from other ends of a kernel's name: `vmlinuz-lts` and `vmlinuz-rpi` of Alpine, and the copy that Fedora keeps
/// as `vmlinuz-0-rescue-ID`.
fn is_version(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with("0-rescue")
}

fn single(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let mut versions = installed(subject);
    let is_pi = subject
        .facts
        .known_model()
        .is_some_and(|model| model.is_raspberry_pi());
    let boots_pi = |version: &String| version.ends_with("-raspi");
    if is_pi && subject.facts.kernel.as_ref().is_some_and(boots_pi) {
        // Ubuntu installs the generic kernel beside the board's own, which the boot link prefers.
        versions.retain(boots_pi);
    }
    if versions.len() > 1 {
        let all: Vec<String> = versions.into_iter().collect();
        let boots = subject.facts.kernel.as_deref().unwrap_or("none of them");
        found.at(
            "boot",
            format!("{} kernels: {}; {boots} boots", all.len(), all.join(", ")),
        );
    }
    Ok(())
}

fn leftovers(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.kernel().is_none() {
        return Ok(());
    }
    for version in subject.module_versions() {
        if subject.facts.kernel.as_ref() != Some(&version) && !subject.has_kernel(&version) {
            found.at(
                format!("lib/modules/{version}"),
                "modules without their kernel",
            );
        }
    }
    Ok(())
}

fn stray(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const BEGINNINGS: [&str; 7] = [
        "uImage",
        "Image",
        "zImage",
        "vmlinuz",
        "image",
        "initrd",
        "initramfs",
    ];
    const EXPECTED: [&str; 5] = ["vmlinuz", "initrd", "Image", "vmlinuz-lts", "vmlinuz-rpi"];
    let kernel = subject.kernel().and_then(|kernel| kernel.path.file_name());
    for name in subject.names("boot") {
        let is_versioned_kernel = KERNEL_PREFIXES
            .iter()
            .any(|prefix| name.strip_prefix(prefix).is_some_and(is_version));
        let is_stray = BEGINNINGS.iter().any(|begin| name.starts_with(begin))
            && !EXPECTED.contains(&name)
            && !is_versioned_kernel
            && kernel != Some(name.as_ref());
        if is_stray {
            found.at(
                format!("boot/{name}"),
                "its name begins like a kernel's or an initrd's",
            );
        }
    }
    Ok(())
}

fn squashfs(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(config) = subject.kernel_config()? else {
        return Ok(());
    };
    let has = |option: &str| {
        config.lines().any(|line| {
            line.strip_prefix(option)
                .is_some_and(|value| matches!(value, "=y" | "=m"))
        })
    };
    for option in ["CONFIG_SQUASHFS", "CONFIG_SQUASHFS_ZLIB"] {
        if !has(option) {
            found.add(format!("the kernel was built without {option}"));
            break;
        }
    }
    Ok(())
}
