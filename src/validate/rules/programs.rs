//! Programs: those of Kairos, and those that it calls.

use super::always;
use crate::distro::Family;
use crate::error::Result;
use crate::framework::{Component, MAX_PROGRAM_BYTES, elf};
use crate::step::StepName;
use crate::stop::Stoppable;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

/// The programs of Kairos, by name.
pub(crate) const KAIROS: &[&str] = &[
    "kairos",
    "kairos-agent",
    "immucore",
    "kcrypt-discovery-challenger",
    "kairos-installer",
    "agent-provider-kairos",
    "edgevpn",
];
/// Those without which nothing boots or installs.
const NEEDED: [&str; 2] = ["immucore", "kairos-agent"];
/// Those that have FIPS builds.
const FIPS: [&str; 4] = [
    "immucore",
    "kairos-agent",
    "kcrypt-discovery-challenger",
    "agent-provider-kairos",
];
/// What installing, upgrading and the cloud-configs call.
const RUNTIME: [&str; 18] = [
    "awk",
    "blkid",
    "cryptsetup",
    "e2fsck",
    "losetup",
    "lsblk",
    "lvm",
    "mkfs.ext2",
    "mkfs.ext4",
    "mkfs.vfat",
    "mount",
    "resize2fs",
    "rsync",
    "sh",
    "tar",
    "udevadm",
    "umount",
    "chroot",
];
const BINARIES: &[StepName] = &[StepName::KAIROS_BINARIES];
const PACKAGES: &[StepName] = &[StepName::INSTALL_PACKAGES];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "programs-kairos",
        severity: Severity::Error,
        demand: "immucore and kairos-agent are on the PATH",
        remedy: "let the step `kairosBinaries` run, with a framework that has both",
        steps: BINARIES,
        when: always,
        check: kairos,
    },
    Rule {
        id: "programs-challenger",
        severity: Severity::Warning,
        demand: "kcrypt-discovery-challenger is there: without it disks cannot be encrypted with a server's key",
        remedy: "use a framework that has kcrypt-discovery-challenger",
        steps: BINARIES,
        when: always,
        check: challenger,
    },
    Rule {
        id: "programs-installer",
        severity: Severity::Warning,
        demand: "an installer is in /system/installer: without it live media cannot install interactively",
        remedy: "use a framework that has kairos-installer, or put one of your own at /system/installer/installer",
        steps: BINARIES,
        when: always,
        check: installer,
    },
    Rule {
        id: "programs-tools",
        severity: Severity::Error,
        demand: "sudo, less and mount.nfs are on the PATH",
        remedy: "install the packages sudo, less and the NFS client (Debian: nfs-common)",
        steps: PACKAGES,
        when: always,
        check: tools,
    },
    Rule {
        id: "programs-runtime",
        severity: Severity::Error,
        demand: "the programs that installing and upgrading call are on the PATH",
        remedy: "install the packages that hold these programs",
        steps: PACKAGES,
        when: always,
        check: runtime,
    },
    Rule {
        id: "programs-executable",
        severity: Severity::Error,
        demand: "the programs of Kairos and those it calls may be executed",
        remedy: "`chmod 0755` them in the step or layer that puts them there",
        steps: &[],
        when: always,
        check: executable,
    },
    Rule {
        id: "programs-arch",
        severity: Severity::Error,
        demand: "the programs of Kairos are for the image's architecture",
        remedy: "use a framework for the image's platform",
        steps: &[],
        when: always,
        check: arch,
    },
    Rule {
        id: "programs-init",
        severity: Severity::Error,
        demand: "/sbin/init leads to a program",
        remedy: "install the init system's package (Debian: systemd-sysv)",
        steps: PACKAGES,
        when: always,
        check: init,
    },
    Rule {
        id: "programs-fips",
        severity: Severity::Error,
        demand: "the programs of Kairos in a FIPS image are FIPS builds",
        remedy: "make the framework with `--fips`",
        steps: BINARIES,
        when: is_fips,
        check: fips,
    },
];

fn is_fips(facts: &Facts) -> bool {
    facts.fips
}

fn need(subject: &Subject<'_>, names: &[&str], found: &mut Violations) {
    for name in names {
        if subject.program(name).is_none() {
            found.add(format!("{name} is nowhere on the PATH"));
        }
    }
}

fn kairos(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    need(subject, &NEEDED, found);
    Ok(())
}

/// Says what an image without the program of Kairos called `name` cannot do, to stand after what is wrong.
pub(super) fn loss(name: &str) -> String {
    Component::find(name).map_or_else(String::new, |component| {
        format!(": without it {}", component.loss)
    })
}

fn challenger(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const NAME: &str = "kcrypt-discovery-challenger";
    if subject.program(NAME).is_none() {
        found.add(format!("{NAME} is nowhere on the PATH{}", loss(NAME)));
    }
    Ok(())
}

fn installer(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let places = [
        "system/installer/installer",
        "system/installer/kairos-installer",
    ];
    if !places.iter().any(|path| subject.tree.has_executable(path)) {
        let text = format!("there is no installer{}", loss("kairos-installer"));
        found.at(places[1], text);
    }
    Ok(())
}

fn tools(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    need(subject, &["sudo", "less"], found);
    if subject.facts.family != Some(Family::Hadron) {
        need(subject, &["mount.nfs"], found);
    }
    Ok(())
}

fn runtime(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    need(subject, &RUNTIME, found);
    Ok(())
}

fn executable(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in KAIROS.iter().chain(&RUNTIME).chain(&["sudo", "less"]) {
        if let Some(program) = subject.program(name)
            && !program.node.is_executable()
        {
            let text = format!("its mode is {:04o}", program.node.mode);
            found.at(&program.path, text);
        }
    }
    Ok(())
}

fn arch(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    use std::io::Read as _;
    let Some(wanted) = subject.facts.arch else {
        return Ok(());
    };
    for name in KAIROS {
        let Some(program) = subject.program(name) else {
            continue;
        };
        let mut head = Vec::new();
        if let Some(input) = subject.tree.open(&program.path)? {
            input.take(64).read_to_end(&mut head)?;
        }
        match elf::kind(&head) {
            elf::Kind::Elf(arch) if arch != wanted => found.at(
                &program.path,
                format!("it is for {arch}, the image for {wanted}"),
            ),
            elf::Kind::OtherElf(machine) => found.at(
                &program.path,
                format!("it is for ELF machine {machine}, the image for {wanted}"),
            ),
            // A script says nothing against itself.
            elf::Kind::Elf(_) | elf::Kind::Other => {}
        }
    }
    Ok(())
}

fn init(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if !["sbin/init", "usr/sbin/init"]
        .iter()
        .any(|path| subject.tree.has_executable(path))
    {
        found.at("sbin/init", "it does not lead to a program");
    }
    Ok(())
}

/// What the Go toolchain writes into a program that was built for FIPS.
const FIPS_MARKS: [&[u8]; 4] = [
    b"build\tGOFIPS140=v",
    b"build\tGOEXPERIMENT=boringcrypto",
    b"build\tGOEXPERIMENT=systemcrypto",
    b"build\tGOEXPERIMENT=opensslcrypto",
];

fn fips(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    use std::io::Read as _;
    for name in FIPS {
        let Some(program) = subject.program(name) else {
            continue;
        };
        let Some(input) = subject.tree.open(&program.path)? else {
            continue;
        };
        let input = Stoppable::new(input.take(MAX_PROGRAM_BYTES), subject.stop);
        if !holds_any(input, &FIPS_MARKS)? {
            found.at(&program.path, "it is no FIPS build");
        }
    }
    Ok(())
}

/// Returns whether one of `marks` is anywhere in `input`.
fn holds_any(mut input: impl std::io::Read, marks: &[&[u8]]) -> Result<bool> {
    use std::io::Read as _;
    const STEP: u64 = 1 << 20;
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let mut window = Vec::new();
    loop {
        let before = window.len();
        (&mut input).take(STEP).read_to_end(&mut window)?;
        if marks
            .iter()
            .any(|mark| window.windows(mark.len()).any(|bytes| bytes == *mark))
        {
            return Ok(true);
        }
        if window.len() == before {
            return Ok(false);
        }
        let kept = longest.min(window.len());
        window.drain(..window.len() - kept);
    }
}
