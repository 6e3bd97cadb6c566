//! Boards: what each needs beside what every image has.

use super::always;
use crate::distro::Model;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "model-known",
        severity: Severity::Error,
        demand: "the model is one that Kairos knows",
        remedy: "correct KAIROS_MODEL: the boot arguments and the console depend on it",
        steps: &[StepName::KAIROS_RELEASE],
        when: always,
        check: known,
    },
    Rule {
        id: "model-arch",
        severity: Severity::Error,
        demand: "the board exists with the image's architecture",
        remedy: "convert for linux/arm64, or choose the model generic",
        steps: &[],
        when: is_board,
        check: arch,
    },
    Rule {
        id: "model-bootargs",
        severity: Severity::Error,
        demand: "/etc/cos/bootargs.cfg has the board's console and arguments",
        remedy: "let the step `grub` run: without them the board boots blind, or not at all",
        steps: &[StepName::GRUB],
        when: is_board_with_grub,
        check: bootargs,
    },
    Rule {
        id: "model-kernel",
        severity: Severity::Warning,
        demand: "the kernel is the board's own, where there is one",
        remedy: "install the board's kernel package",
        steps: &[StepName::INSTALL_KERNEL],
        when: is_board,
        check: kernel,
    },
    Rule {
        id: "model-iscsi",
        severity: Severity::Error,
        demand: "dracut leaves iSCSI out on Jetson Orin, whose kernel lacks it",
        remedy: "let the step `initramfsConfigs` run with the right model",
        steps: &[StepName::INITRAMFS_CONFIGS],
        when: is_orin,
        check: iscsi,
    },
    Rule {
        id: "model-thor-firmware",
        severity: Severity::Error,
        demand: "Jetson Thor has its firmware updater, /usr/sbin/kairos-jetson-qspi-update",
        remedy: "let the install phase run with `--model nvidia-jetson-thor`",
        steps: &[StepName::MISCELLANEOUS],
        when: is_thor,
        check: thor_firmware,
    },
    Rule {
        id: "model-thor-display",
        severity: Severity::Error,
        demand: "the initrd of Jetson Thor leaves the display drivers to the system",
        remedy: "let the steps `initramfsConfigs` and `initrd` run with the right model",
        steps: &[StepName::INITRAMFS_CONFIGS, StepName::INITRD],
        when: is_thor,
        check: thor_display,
    },
];

fn is_board(facts: &Facts) -> bool {
    facts
        .known_model()
        .is_some_and(|model| model != Model::Generic)
}

fn is_board_with_grub(facts: &Facts) -> bool {
    is_board(facts) && facts.has_grub()
}

fn is_orin(facts: &Facts) -> bool {
    let model = facts.known_model();
    let is_orin = matches!(
        model,
        Some(Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx)
    );
    is_orin && facts.has_dracut()
}

fn is_thor(facts: &Facts) -> bool {
    facts.known_model() == Some(Model::NvidiaJetsonThor) && facts.has_grub()
}

fn known(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Err(error) = subject.facts.model.parse::<Model>() {
        found.add(error.to_string());
    }
    Ok(())
}

fn arch(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let model = subject.facts.known_model();
    if let (Some(model), Some(is)) = (model, subject.facts.arch)
        && let Some(wanted) = model.required_arch()
        && wanted != is
    {
        found.add(format!("{model} is {wanted}, the image is for {is}"));
    }
    Ok(())
}

fn bootargs(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "etc/cos/bootargs.cfg";
    let model = &subject.facts.model;
    // A missing file is another rule's.
    if let Some(text) = subject.tree.text(PATH)?
        && !text.contains(&format!("\"{model}\""))
    {
        found.at(PATH, format!("it says nothing about {model}"));
    }
    Ok(())
}

fn kernel(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    // Debian's own arm64 kernel runs on a Pi, so the name of a Pi's kernel says nothing.
    let word = match subject.facts.known_model() {
        Some(Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx | Model::NvidiaJetsonThor) => {
            "tegra"
        }
        Some(Model::NvidiaDgxSpark) => "nvidia",
        _ => return Ok(()),
    };
    if let Some(version) = subject
        .facts
        .kernel
        .as_ref()
        .filter(|version| !version.contains(word))
    {
        found.add(format!(
            "the kernel is {version}, without {word:?} in its version"
        ));
    }
    Ok(())
}

fn iscsi(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "etc/dracut.conf.d/kairos-skip-scsi.conf";
    if !subject.tree.has(PATH) {
        found.at(PATH, "it does not exist");
    }
    Ok(())
}

fn thor_firmware(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const PATH: &str = "usr/sbin/kairos-jetson-qspi-update";
    if !subject.tree.has_executable(PATH) {
        found.at(PATH, "there is no program");
    }
    Ok(())
}

fn thor_display(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(initrd) = subject.initrd()? else {
        return Ok(());
    };
    let display = |path: &&String| {
        path.rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("nvidia") && name.contains(".ko"))
    };
    if let Some(path) = initrd.entries.keys().find(display) {
        found.at("boot/initrd", format!("it holds {path}"));
    }
    Ok(())
}
