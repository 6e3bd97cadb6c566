//! The initrd: it belongs to the kernel and can mount a live medium and an installed system.

use super::always;
use crate::distro::{DistroId, Family};
use crate::error::Result;
use crate::initrd::{Format, is_module};
use crate::step::StepName;
use crate::validate::subject::InitrdFile;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

const BUILT: &[StepName] = &[StepName::INITRD];
const CONFIGURED: &[StepName] = &[StepName::INITRD, StepName::INITRAMFS_CONFIGS];
/// What the initrd takes the Kairos programs from.
const WITH_BINARIES: &[StepName] = &[
    StepName::INITRD,
    StepName::INITRAMFS_CONFIGS,
    StepName::KAIROS_BINARIES,
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "initrd-missing",
        severity: Severity::Error,
        demand: "/boot/initrd exists",
        remedy: "let the step `initrd` run",
        steps: BUILT,
        when: Facts::has_grub,
        check: missing,
    },
    Rule {
        id: "initrd-format",
        severity: Severity::Error,
        demand: "/boot/initrd is a whole archive",
        remedy: "build it again: it is damaged or cut off",
        steps: BUILT,
        when: Facts::has_grub,
        check: format,
    },
    Rule {
        id: "initrd-unread",
        severity: Severity::Warning,
        demand: "/boot/initrd can be looked into (gzip, zstd, xz or not compressed)",
        remedy: "set dracut's `compress` to gzip, zstd or xz to have its content checked",
        steps: BUILT,
        when: Facts::has_grub,
        check: unread,
    },
    Rule {
        id: "initrd-compression",
        severity: Severity::Error,
        demand: "the kernel can unpack the initrd",
        remedy: "choose a compression that the kernel has a CONFIG_RD_ option for",
        steps: BUILT,
        when: Facts::has_grub,
        check: compression,
    },
    Rule {
        id: "initrd-kernel",
        severity: Severity::Error,
        demand: "the modules in the initrd are those of the kernel that boots",
        remedy: "build the initrd again for this kernel: `dracut --force /boot/initrd VERSION`",
        steps: BUILT,
        when: Facts::has_grub,
        check: kernel,
    },
    Rule {
        id: "initrd-init",
        severity: Severity::Error,
        demand: "the initrd has an /init that leads to a program",
        remedy: "build the initrd again: without /init the kernel stops",
        steps: BUILT,
        when: Facts::has_grub,
        check: init,
    },
    Rule {
        id: "initrd-immucore",
        severity: Severity::Error,
        demand: "the initrd holds immucore and starts it",
        remedy: "install immucore and dracut's module `28immucore` before the initrd is built",
        steps: WITH_BINARIES,
        when: Facts::has_grub,
        check: immucore,
    },
    Rule {
        id: "initrd-agent",
        severity: Severity::Error,
        demand: "the initrd holds kairos-agent, unless it is one program with immucore",
        remedy: "install kairos-agent before the initrd is built",
        steps: WITH_BINARIES,
        when: Facts::has_grub,
        check: agent,
    },
    Rule {
        id: "initrd-live",
        severity: Severity::Error,
        demand: "the initrd can boot a live medium (dracut's dmsquash-live)",
        remedy: "install dracut's live modules and add `dmsquash-live` to `add_dracutmodules`",
        steps: CONFIGURED,
        when: Facts::has_dracut,
        check: live,
    },
    Rule {
        id: "initrd-modules",
        severity: Severity::Error,
        demand: "overlay, squashfs, loop, isofs and ext4 are in the initrd or built into the kernel",
        remedy: "install the package with these modules, then build the initrd again",
        steps: CONFIGURED,
        when: Facts::has_grub,
        check: modules,
    },
    Rule {
        id: "initrd-drivers",
        severity: Severity::Warning,
        demand: "common disk and optical drivers that the kernel has are in the initrd",
        remedy: "build the initrd with `hostonly=no`, so that it boots on other machines than the builder",
        steps: CONFIGURED,
        when: Facts::has_grub,
        check: drivers,
    },
    Rule {
        id: "initrd-xhci-renesas",
        severity: Severity::Warning,
        demand: "the driver of the USB controllers behind virtual media (xhci_pci_renesas) is in the initrd",
        remedy: "add `xhci_pci_renesas` to dracut's `add_drivers`",
        steps: CONFIGURED,
        when: Facts::has_grub,
        check: xhci,
    },
    Rule {
        id: "initrd-microcode",
        severity: Severity::Warning,
        demand: "microcode stands in front of the initrd, not compressed",
        remedy: "build the initrd again: the kernel looks for it before it can unpack anything",
        steps: BUILT,
        when: Facts::has_grub,
        check: microcode,
    },
    Rule {
        id: "initrd-pmem",
        severity: Severity::Warning,
        demand: "the drivers of memory in which firmware hands over an image it has loaded over HTTP are in the initrd",
        remedy: "add those of nfit, libnvdimm, nd_pmem and dax_pmem that are modules to dracut's `add_drivers`",
        steps: CONFIGURED,
        when: Facts::has_dracut,
        check: pmem,
    },
    Rule {
        id: "initrd-tools",
        severity: Severity::Error,
        demand: "the initrd holds the programs that immucore calls",
        remedy: "install the packages of these programs before the initrd is built",
        steps: CONFIGURED,
        when: Facts::has_dracut,
        check: tools,
    },
    Rule {
        id: "initrd-fips",
        severity: Severity::Error,
        demand: "the initrd of a FIPS image checks the kernel (dracut's module `fips`)",
        remedy: "add `fips` to dracut's `add_dracutmodules`",
        steps: CONFIGURED,
        when: is_fips,
        check: fips,
    },
    Rule {
        id: "initrd-in-trusted",
        severity: Severity::Warning,
        demand: "an image for Trusted Boot has no initrd: the whole image becomes one",
        remedy: "remove /boot/initrd: it makes every boot file larger and is never used",
        steps: &[],
        when: is_trusted,
        check: in_trusted,
    },
];

fn is_fips(facts: &Facts) -> bool {
    // Ubuntu's FIPS kernels come with their own hooks.
    facts.fips && facts.has_dracut() && facts.distro != Some(DistroId::Ubuntu)
}

fn is_trusted(facts: &Facts) -> bool {
    facts.trusted && always(facts)
}

fn missing(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if matches!(subject.initrd_file()?, InitrdFile::Missing) {
        let is_link = subject.tree.node("boot/initrd").is_some();
        let text = if is_link {
            "it leads to no file"
        } else {
            "it does not exist"
        };
        found.at("boot/initrd", text);
    }
    Ok(())
}

fn format(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let InitrdFile::Damaged(why) = subject.initrd_file()? {
        found.at("boot/initrd", why.as_str());
    }
    Ok(())
}

fn unread(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let InitrdFile::Unread(why) = subject.initrd_file()? {
        found.at("boot/initrd", why.as_str());
    }
    Ok(())
}

fn compression(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let (Some(initrd), Some(config)) = (subject.initrd()?, subject.kernel_config()?) else {
        return Ok(());
    };
    for part in initrd.parts.iter().filter(|part| **part != Format::Cpio) {
        let option = format!("CONFIG_RD_{}=y", part.name().to_uppercase());
        if !config.lines().any(|line| line == option) {
            let text = format!(
                "it is compressed with {}, the kernel lacks {option}",
                part.name()
            );
            found.at("boot/initrd", text);
        }
    }
    Ok(())
}

fn kernel(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let (Some(initrd), Some(kernel)) = (subject.initrd()?, subject.facts.kernel.as_deref()) else {
        return Ok(());
    };
    for version in initrd.module_versions() {
        if version != kernel {
            found.at(
                "boot/initrd",
                format!("it holds modules of {version}, the kernel is {kernel}"),
            );
        }
    }
    Ok(())
}

fn init(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    if !initrd.has_init() {
        found.at("boot/initrd", "it has no /init, or one that leads nowhere");
    }
    Ok(())
}

fn immucore(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    if !initrd.has_program("immucore") {
        found.at("boot/initrd", "it does not hold immucore");
    } else if subject.facts.family != Some(Family::Alpine)
        && !initrd.has_ending("initrd.target.requires/immucore.service")
    {
        found.at("boot/initrd", "nothing in it starts immucore.service");
    }
    Ok(())
}

fn agent(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    let is_multi_call = subject
        .program("kairos-agent")
        .is_some_and(|program| program.path.file_name() == Some("kairos".as_ref()));
    if !is_multi_call && !initrd.has_program("kairos-agent") {
        found.at("boot/initrd", "it does not hold kairos-agent");
    }
    Ok(())
}

fn live(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    if !initrd.has_ending("dmsquash-live-root") {
        found.at("boot/initrd", "it has no dmsquash-live-root");
    }
    Ok(())
}

/// Returns which of `names` the kernel has neither built in nor in the initrd; modules it has nowhere count if `all` says so.
fn lacking<'n>(subject: &Subject<'_>, names: &[&'n str], all: bool) -> Result<Vec<&'n str>> {
    let (Some(initrd), Some(dir)) = (subject.initrd()?, subject.modules()) else {
        return Ok(Vec::new());
    };
    let table = |name: &str| subject.tree.text(dir.join(name));
    let builtin = table("modules.builtin")?.unwrap_or_default();
    let known = table("modules.dep")?.unwrap_or_default();
    let has = |text: &str, name: &str| {
        text.lines()
            .any(|line| is_module(line.split(':').next().unwrap_or(line), name))
    };
    Ok(names
        .iter()
        .copied()
        .filter(|name| !initrd.has_module(name))
        .filter(|name| !has(&builtin, name) && (all || has(&known, name)))
        .collect())
}

fn modules(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const NEEDED: [&str; 5] = ["overlay", "squashfs", "loop", "isofs", "ext4"];
    for name in lacking(subject, &NEEDED, true)? {
        found.at(
            "boot/initrd",
            format!("the module {name} is neither in it nor built into the kernel"),
        );
    }
    Ok(())
}

fn drivers(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const COMMON: [&str; 8] = [
        "sr_mod",
        "usb_storage",
        "uas",
        "ahci",
        "nvme",
        "virtio_blk",
        "virtio_scsi",
        "vfat",
    ];
    let lacking = lacking(subject, &COMMON, false)?;
    if !lacking.is_empty() {
        let text = format!("it lacks {}, which the kernel has", lacking.join(", "));
        found.at("boot/initrd", text);
    }
    Ok(())
}

fn xhci(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in lacking(subject, &["xhci_pci_renesas"], false)? {
        found.at("boot/initrd", format!("it lacks {name}"));
    }
    Ok(())
}

fn pmem(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in lacking(subject, &["nfit", "nd_pmem", "dax_pmem"], false)? {
        found.at("boot/initrd", format!("it lacks {name}"));
    }
    Ok(())
}

fn microcode(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.initrd()?.is_some_and(|it| it.has_late_microcode) {
        found.at("boot/initrd", "it holds microcode behind the first archive");
    }
    Ok(())
}

fn tools(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const CALLED: [&str; 9] = [
        "blkid",
        "cryptsetup",
        "e2fsck",
        "lsblk",
        "mkfs.ext4",
        "mount",
        "rsync",
        "udevadm",
        "umount",
    ];
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    for name in CALLED {
        if !initrd.has_program(name) {
            found.at("boot/initrd", format!("it does not hold {name}"));
        }
    }
    Ok(())
}

fn fips(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Some(initrd) = subject.initrd()?
        && !initrd.has_ending("fips.sh")
    {
        found.at("boot/initrd", "it has no fips.sh");
    }
    Ok(())
}

fn in_trusted(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.tree.node("boot/initrd").is_some() {
        found.at("boot/initrd", "it is there");
    }
    Ok(())
}
