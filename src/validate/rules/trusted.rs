//! Trusted Boot: the image becomes one signed file for the firmware, with systemd-boot in front.

use std::path::Path;

use crate::distro::{Arch, DistroId};
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "trusted-immucore",
        severity: Severity::Error,
        demand: "immucore is at /usr/bin/immucore, where the /init of the boot file points",
        remedy: "let the step `kairosBinaries` run",
        steps: &[StepName::KAIROS_BINARIES],
        when: is_trusted,
        check: immucore,
    },
    Rule {
        id: "trusted-systemd-boot",
        // AuroraBoot takes those of the image only when it is told to.
        severity: Severity::Warning,
        demand: "systemd-boot and its stub for the architecture are in the image",
        remedy: "install systemd-boot (Debian: systemd-boot-efi), or let the tool that makes the boot file bring its own",
        steps: &[StepName::INSTALL_PACKAGES],
        when: is_trusted,
        check: systemd_boot,
    },
    Rule {
        id: "trusted-nvdimm",
        severity: Severity::Warning,
        demand: "the kernel has the drivers for booting over HTTP (nvdimm)",
        remedy: "let the step `workarounds` take them from linux-modules-extra",
        steps: &[StepName::WORKAROUNDS],
        when: is_trusted_ubuntu,
        check: nvdimm,
    },
    Rule {
        id: "trusted-dead-weight",
        severity: Severity::Warning,
        demand: "neither dracut nor GRUB's modules make the boot file larger",
        remedy: "remove the packages of dracut and GRUB: nothing of an image for Trusted Boot uses them",
        steps: &[],
        when: is_trusted,
        check: dead_weight,
    },
];

fn is_trusted(facts: &Facts) -> bool {
    facts.trusted
}

fn is_trusted_ubuntu(facts: &Facts) -> bool {
    facts.trusted && facts.distro == Some(DistroId::Ubuntu)
}

fn immucore(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if !subject.tree.has_executable("usr/bin/immucore") {
        found.at("usr/bin/immucore", "there is no program");
    }
    Ok(())
}

fn systemd_boot(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let suffix = match subject.facts.arch {
        Some(Arch::Amd64) => "x64",
        Some(Arch::Arm64) => "aa64",
        Some(Arch::Riscv64) => "riscv64",
        None => return Ok(()),
    };
    const DIR: &str = "usr/lib/systemd/boot/efi";
    for (name, what) in [
        (format!("systemd-boot{suffix}.efi"), "systemd-boot"),
        (
            format!("linux{suffix}.efi.stub"),
            "the stub of systemd-boot",
        ),
    ] {
        // Distributions that sign put the signed one beside it.
        let is_there = subject.tree.has(format!("{DIR}/{name}"))
            || subject.tree.has(format!("{DIR}/{name}.signed"));
        if !is_there {
            found.at(format!("{DIR}/{name}"), format!("{what} is missing"));
        }
    }
    Ok(())
}

fn nvdimm(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(dir) = subject.modules() else {
        return Ok(());
    };
    let path = dir.join("kernel/drivers/nvdimm");
    if subject.tree.names(&path).next().is_none() {
        found.at(path, "there are no modules");
    }
    Ok(())
}

fn dead_weight(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for path in ["usr/lib/dracut/modules.d", "usr/lib/grub"] {
        let bytes = size(subject, path);
        if bytes > 1 << 20 {
            found.at(
                path,
                format!("{} that no boot uses", crate::progress::bytes_text(bytes)),
            );
        }
    }
    Ok(())
}

fn size(subject: &Subject<'_>, path: impl AsRef<Path>) -> u64 {
    let mut bytes = 0;
    subject.tree.walk(path, &mut |_, node| {
        bytes += node.file().map_or(0, |file| file.size);
    });
    bytes
}
