//! `/etc/kairos-release`: there, readable by all its readers, and true.

use super::always;
use crate::distro::Arch;
use crate::error::Result;
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::step::StepName;
use crate::validate::{Rule, Severity, Subject, Violations};

const MADE: &[StepName] = &[StepName::KAIROS_RELEASE];
/// Keys that no image may lack.
const KEYS: [&str; 14] = [
    "KAIROS_ARCH",
    "KAIROS_BUG_REPORT_URL",
    "KAIROS_FAMILY",
    "KAIROS_FLAVOR",
    "KAIROS_FLAVOR_RELEASE",
    "KAIROS_HOME_URL",
    "KAIROS_ID",
    "KAIROS_ID_LIKE",
    "KAIROS_MODEL",
    "KAIROS_NAME",
    "KAIROS_RELEASE",
    "KAIROS_TARGETARCH",
    "KAIROS_VARIANT",
    "KAIROS_VERSION",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "release-missing",
        severity: Severity::Error,
        demand: "/etc/kairos-release is a file of assignments",
        remedy: "let the step `kairosRelease` run",
        steps: MADE,
        when: always,
        check: missing,
    },
    Rule {
        id: "release-keys",
        severity: Severity::Error,
        demand: "/etc/kairos-release has every key, and none is empty",
        remedy: "let the step `kairosRelease` run; keys of your own are kept",
        steps: MADE,
        when: always,
        check: keys,
    },
    Rule {
        id: "release-form",
        severity: Severity::Error,
        demand: "KAIROS_RELEASE is in double quotes and begins with v, as in KAIROS_RELEASE=\"v1.0.0\"",
        remedy: "let the step `kairosRelease` write the file: media makers look for exactly this form",
        steps: MADE,
        when: always,
        check: form,
    },
    Rule {
        id: "release-quoting",
        severity: Severity::Error,
        demand: "every value means the same to the shell and to GRUB",
        remedy: "leave `$`, backquotes, quotes and line breaks out of values: GRUB reads the file too",
        steps: MADE,
        when: always,
        check: quoting,
    },
    Rule {
        id: "release-arch",
        severity: Severity::Error,
        demand: "the architecture in /etc/kairos-release is the image's",
        remedy: "run the step `kairosRelease` on the right platform (`--platform`)",
        steps: MADE,
        when: always,
        check: arch,
    },
    Rule {
        id: "release-variant",
        severity: Severity::Error,
        demand: "the variant is core, or standard with the Kubernetes distribution and its version",
        remedy: "run the init phase with the same `--provider` as the install phase",
        steps: MADE,
        when: always,
        check: variant,
    },
    Rule {
        id: "release-flags",
        severity: Severity::Error,
        demand: "/etc/kairos-release says what the image was made as: model, Trusted Boot, version",
        remedy: "run the init phase with the same options as the install phase",
        steps: MADE,
        when: always,
        check: flags,
    },
    Rule {
        id: "release-mode",
        severity: Severity::Error,
        demand: "everybody can read /etc/kairos-release and only root can change it",
        remedy: "`chmod 0644 /etc/kairos-release` in the layer that writes it",
        steps: MADE,
        when: always,
        check: mode,
    },
];

fn missing(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    match &subject.facts.release_text {
        None => found.at(RELEASE_PATH, "it does not exist"),
        Some(text) => {
            if let Err(error) = dotenv::parse(text) {
                found.at(RELEASE_PATH, error.to_string());
            }
        }
    }
    Ok(())
}

fn keys(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    // A file that is missing or cannot be read is another rule's.
    if subject.facts.release.is_empty() {
        return Ok(());
    }
    for key in KEYS {
        if subject.release(key).is_empty() {
            found.at(RELEASE_PATH, format!("{key} is missing or empty"));
        }
    }
    Ok(())
}

fn form(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let text = subject.facts.release_text.as_deref().unwrap_or_default();
    if subject.release("KAIROS_RELEASE").is_empty() {
        return Ok(());
    }
    let is_quoted = text
        .lines()
        .any(|line| line.starts_with("KAIROS_RELEASE=\"v") && line.ends_with('"'));
    if !is_quoted {
        found.at(RELEASE_PATH, "no line is KAIROS_RELEASE=\"v...\"");
    }
    Ok(())
}

fn quoting(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    const SPECIAL: [char; 7] = ['$', '`', '"', '\'', '\\', '\n', '\r'];
    let ours = subject
        .facts
        .release
        .iter()
        .filter(|(key, _)| key.starts_with("KAIROS_"));
    for (key, value) in ours {
        if let Some(special) = value.chars().find(|c| SPECIAL.contains(c)) {
            found.at(RELEASE_PATH, format!("{key} holds {special:?}"));
        }
    }
    Ok(())
}

fn arch(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let Some(wanted) = subject.facts.arch else {
        return Ok(());
    };
    for key in ["KAIROS_ARCH", "KAIROS_TARGETARCH"] {
        let value = subject.release(key);
        if !value.is_empty() && value.parse::<Arch>().ok() != Some(wanted) {
            found.at(
                RELEASE_PATH,
                format!("{key} is {value}, the image is for {wanted}"),
            );
        }
    }
    Ok(())
}

fn variant(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    match subject.release("KAIROS_VARIANT") {
        "" | "core" => {}
        "standard" => {
            for key in ["KAIROS_SOFTWARE_VERSION", "KAIROS_SOFTWARE_VERSION_PREFIX"] {
                if subject.release(key).is_empty() {
                    found.at(RELEASE_PATH, format!("{key} is missing or empty"));
                }
            }
        }
        other => found.at(RELEASE_PATH, format!("KAIROS_VARIANT is {other:?}")),
    }
    Ok(())
}

fn flags(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if subject.facts.release.is_empty() {
        return Ok(());
    }
    let scope = subject.scope;
    let wanted = [
        ("KAIROS_MODEL", scope.model.map(|model| model.to_string())),
        (
            "KAIROS_TRUSTED_BOOT",
            scope.trusted.map(|trusted| trusted.to_string()),
        ),
        ("KAIROS_VERSION", scope.version.clone()),
        ("KAIROS_RELEASE", scope.version.clone()),
    ];
    for (key, wanted) in wanted {
        let value = subject.release(key);
        if let Some(wanted) = wanted.filter(|wanted| !value.is_empty() && wanted != value) {
            found.at(RELEASE_PATH, format!("{key} is {value}, not {wanted}"));
        }
    }
    Ok(())
}

fn mode(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if let Some(release) = subject.tree.find(RELEASE_PATH)
        && (release.node.mode & 0o444 != 0o444 || release.node.mode & 0o022 != 0)
    {
        found.at(
            RELEASE_PATH,
            format!("its mode is {:04o}", release.node.mode),
        );
    }
    Ok(())
}
