//! GRUB: its configuration, and the files that the installer and the makers of media copy out of the image.

use crate::artifact::grub::{BIOS_DIRS, grub_places, shim_places};
use crate::distro::{Arch, Family};
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

const CONFIGURED: &[StepName] = &[StepName::GRUB];
const INSTALLED: &[StepName] = &[StepName::INSTALL_PACKAGES];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "grub-config",
        severity: Severity::Error,
        demand: "/etc/cos/grub.cfg has the entries that installations boot and upgrade by",
        remedy: "let the step `grub` run, or keep the entries cos, fallback, recovery and statereset in your own menu",
        steps: CONFIGURED,
        when: Facts::has_grub,
        check: config,
    },
    Rule {
        id: "grub-bootargs",
        severity: Severity::Error,
        demand: "/etc/cos/bootargs.cfg sets the kernel's command line",
        remedy: "let the step `grub` run; a file of your own sets `kernelcmd`",
        steps: CONFIGURED,
        when: Facts::has_grub,
        check: bootargs,
    },
    Rule {
        id: "grub-efi",
        severity: Severity::Error,
        demand: "a GRUB for EFI is where media makers and the installer look for it",
        remedy: "install the distribution's signed GRUB for EFI (Debian: grub-efi-amd64-signed or grub-efi-arm64-signed)",
        steps: INSTALLED,
        when: boots_by_efi,
        check: efi,
    },
    Rule {
        id: "grub-shim",
        severity: Severity::Error,
        demand: "a shim is where media makers and the installer look for it",
        remedy: "install the distribution's signed shim (Debian: shim-signed)",
        steps: INSTALLED,
        when: boots_by_shim,
        check: shim,
    },
    Rule {
        id: "grub-bios",
        severity: Severity::Warning,
        demand: "GRUB for BIOS machines and its installer are there (amd64)",
        remedy: "install GRUB for BIOS (Debian: grub-pc-bin and grub2-common), or accept that only EFI machines boot",
        steps: INSTALLED,
        when: may_boot_by_bios,
        check: bios,
    },
    Rule {
        id: "grub-modules",
        severity: Severity::Error,
        demand: "GRUB's modules that open the image (loopback, squash4, xzio, gzio, regexp) are there",
        remedy: "install the package with GRUB's modules (Debian: grub-efi-amd64-bin or grub-efi-arm64-bin)",
        steps: INSTALLED,
        when: boots_by_efi,
        check: modules,
    },
    Rule {
        id: "grub-editenv",
        severity: Severity::Error,
        demand: "grub2-editenv can be called by that name",
        remedy: "install GRUB's tools and let the step `workarounds` make the link",
        steps: &[StepName::INSTALL_PACKAGES, StepName::WORKAROUNDS],
        when: boots_by_efi,
        check: editenv,
    },
];

fn boots_by_efi(facts: &Facts) -> bool {
    // Alpine on a Pi boots by the Pi's own firmware; elsewhere media makers bring a GRUB for it.
    facts.has_grub() && facts.family != Some(Family::Alpine)
}

fn boots_by_shim(facts: &Facts) -> bool {
    boots_by_efi(facts) && facts.arch != Some(Arch::Riscv64)
}

fn may_boot_by_bios(facts: &Facts) -> bool {
    facts.has_grub() && facts.arch == Some(Arch::Amd64)
}

fn config(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "etc/cos/grub.cfg";
    let Some(text) = subject.tree.text(PATH)? else {
        found.at(PATH, "it does not exist");
        return Ok(());
    };
    for id in ["cos", "fallback", "recovery", "statereset"] {
        // The agent finds entries by this very text.
        let wanted = format!("--id {id} {{");
        let is_there = text
            .lines()
            .any(|line| line.trim_start().starts_with("menuentry ") && line.contains(&wanted));
        if !is_there {
            found.at(PATH, format!("no menu entry has `{wanted}`"));
        }
    }
    Ok(())
}

fn bootargs(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "etc/cos/bootargs.cfg";
    match subject.tree.text(PATH)? {
        None => found.at(PATH, "it does not exist"),
        Some(text) if !text.contains("set kernelcmd=") => {
            found.at(PATH, "it does not set `kernelcmd`");
        }
        Some(_) => {}
    }
    Ok(())
}

fn efi(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Some(arch) = subject.facts.arch {
        // What media makers take for live media is more than what they take for disks.
        need_one(subject, "GRUB", &grub_places(arch, true), found);
    }
    Ok(())
}

fn shim(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Some(arch) = subject.facts.arch {
        need_one(subject, "shim", &shim_places(arch), found);
    }
    Ok(())
}

fn need_one(subject: &Subject<'_>, what: &str, places: &[String], found: &mut Violations) {
    let is_file = |place: &String| {
        subject
            .tree
            .find(place)
            .is_some_and(|found| found.node.file().is_some())
    };
    if !places.iter().any(is_file) {
        found.add(format!(
            "no {what} at any of the {} places where it is looked for, /{} among them",
            places.len(),
            places[1]
        ));
    }
}

fn bios(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if !BIOS_DIRS
        .iter()
        .any(|dir| subject.tree.has(format!("{dir}/modinfo.sh")))
    {
        found.at(
            BIOS_DIRS[0],
            "there is no modinfo.sh of GRUB for BIOS machines",
        );
    } else if !["grub2-install", "grub-install"]
        .iter()
        .any(|name| subject.program(name).is_some())
    {
        found.add("neither grub2-install nor grub-install is there");
    }
    Ok(())
}

fn modules(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const NEEDED: [&str; 5] = ["loopback", "squash4", "xzio", "gzio", "regexp"];
    let dir = match subject.facts.arch {
        Some(Arch::Amd64) => "x86_64-efi",
        Some(Arch::Arm64) => "arm64-efi",
        Some(Arch::Riscv64) => "riscv64-efi",
        None => return Ok(()),
    };
    let parents = [
        "usr/lib/grub",
        "usr/share/grub2",
        "usr/lib/grub2",
        "usr/share/grub",
    ];
    for name in NEEDED {
        let is_there = parents
            .iter()
            .any(|parent| subject.tree.has(format!("{parent}/{dir}/{name}.mod")));
        if !is_there {
            let path = format!("{}/{dir}/{name}.mod", parents[0]);
            found.at(path, "the module is missing");
        }
    }
    Ok(())
}

fn editenv(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.program("grub2-editenv").is_none() {
        found.at("usr/bin/grub2-editenv", "it does not exist");
    }
    Ok(())
}
