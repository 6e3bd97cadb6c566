//! Services: what must start can start, and what is enabled exists.

use std::path::{Path, PathBuf};

use crate::distro::Family;
use crate::error::Result;
use crate::step::StepName;
use crate::validate::facts::Init;
use crate::validate::{Facts, Rule, Severity, Subject, Violations};

const SET: &[StepName] = &[StepName::SERVICES];
const INSTALLED: &[StepName] = &[StepName::INSTALL_PACKAGES];
/// Where systemd looks for units, the first first.
const UNIT_DIRS: [&str; 4] = [
    "etc/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "services-missing",
        severity: Severity::Error,
        demand: "the units that every boot needs exist (getty.target, systemd-udevd, systemd-logind)",
        remedy: "install systemd with udev and logind",
        steps: INSTALLED,
        when: Facts::has_systemd,
        check: missing,
    },
    Rule {
        id: "services-masked",
        severity: Severity::Error,
        demand: "no unit that every boot needs is masked, not even in /etc",
        remedy: "`systemctl unmask` it: container images mask what a machine needs",
        steps: SET,
        when: Facts::has_systemd,
        check: masked,
    },
    Rule {
        id: "services-default",
        severity: Severity::Error,
        demand: "default.target leads to a unit",
        remedy: "`systemctl set-default multi-user.target`",
        steps: &[],
        when: Facts::has_systemd,
        check: default,
    },
    Rule {
        id: "services-links",
        severity: Severity::Error,
        demand: "every link in /etc/systemd/system leads to a unit",
        remedy: "`systemctl disable` the unit before its package is removed, or remove the link",
        steps: &[],
        when: Facts::has_systemd,
        check: links,
    },
    Rule {
        id: "services-enabled",
        severity: Severity::Warning,
        demand: "an SSH server, a network service and a clock service start at boot",
        remedy: "let the step `services` run, or `systemctl enable` one of each",
        steps: SET,
        when: Facts::has_systemd,
        check: enabled,
    },
    Rule {
        id: "services-firstboot",
        severity: Severity::Warning,
        demand: "systemd-firstboot does not ask questions at the console",
        remedy: "`systemctl mask systemd-firstboot.service`",
        steps: SET,
        when: Facts::has_systemd,
        check: firstboot,
    },
    Rule {
        id: "services-versions",
        severity: Severity::Error,
        demand: "systemd and udev have the same version",
        remedy: "upgrade both packages together",
        steps: &[],
        when: Facts::has_systemd,
        check: versions,
    },
    Rule {
        id: "services-openrc",
        severity: Severity::Warning,
        demand: "sshd, connman and udev start at boot (OpenRC)",
        remedy: "let the step `services` run, or `rc-update add` each",
        steps: SET,
        when: has_openrc,
        check: openrc,
    },
];

fn has_openrc(facts: &Facts) -> bool {
    facts.init == Init::Openrc
}

/// What systemd finds under a unit's name.
#[derive(Debug, PartialEq, Eq)]
enum Unit {
    There,
    Masked(PathBuf),
    Missing,
}

/// Looks a unit up as systemd does: the first directory that has it decides, so a mask in `/etc` counts.
fn unit(subject: &Subject<'_>, name: &str) -> Unit {
    for dir in UNIT_DIRS {
        let path = Path::new(dir).join(name);
        let Some(node) = subject.tree.node(&path) else {
            continue;
        };
        let is_masked = match node.target() {
            Some(target) => target == "/dev/null" || is_empty(subject, &path),
            None => node.file().is_some_and(|file| file.size == 0),
        };
        if is_masked {
            return Unit::Masked(path);
        }
        if node.target().is_none() || subject.tree.has(&path) {
            return Unit::There;
        }
    }
    Unit::Missing
}

fn is_empty(subject: &Subject<'_>, path: &Path) -> bool {
    let found = subject.tree.find(path);
    found.is_some_and(|found| found.node.file().is_some_and(|file| file.size == 0))
}

fn needed(subject: &Subject<'_>) -> impl Iterator<Item = &'static str> {
    const NEEDED: [&str; 4] = [
        "getty.target",
        "getty@.service",
        "systemd-logind.service",
        "systemd-udevd.service",
    ];
    const NEEDED_BY_REDHAT: [&str; 1] = ["systemd-udev-trigger.service"];
    let more: &[&str] = match subject.facts.family {
        Some(Family::Redhat) => &NEEDED_BY_REDHAT,
        _ => &[],
    };
    NEEDED.into_iter().chain(more.iter().copied())
}

fn missing(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in needed(subject) {
        if unit(subject, name) == Unit::Missing {
            found.at(
                format!("usr/lib/systemd/system/{name}"),
                "it does not exist",
            );
        }
    }
    Ok(())
}

fn masked(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in needed(subject) {
        if let Unit::Masked(path) = unit(subject, name) {
            found.at(path, "it is masked");
        }
    }
    Ok(())
}

fn default(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    match unit(subject, "default.target") {
        Unit::There => {}
        Unit::Masked(path) => found.at(path, "it is masked"),
        Unit::Missing => found.at(
            "usr/lib/systemd/system/default.target",
            "it leads to no unit",
        ),
    }
    Ok(())
}

/// Returns the name of the unit that an instance is made of: `getty@tty1.service` of `getty@.service`.
fn template(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once('@')?;
    let (_, kind) = rest.rsplit_once('.')?;
    Some(format!("{stem}@.{kind}"))
}

fn exists(subject: &Subject<'_>, name: &str) -> bool {
    unit(subject, name) != Unit::Missing
        || template(name).is_some_and(|name| unit(subject, &name) != Unit::Missing)
        // Packages may still bring a script instead.
        || name
            .strip_suffix(".service")
            .is_some_and(|name| subject.tree.has(format!("etc/init.d/{name}")))
}

fn links(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let mut broken = Vec::new();
    subject.tree.walk(UNIT_DIRS[0], &mut |path, node| {
        let (Some(target), Some(name)) = (
            node.target(),
            path.file_name().and_then(|name| name.to_str()),
        ) else {
            return;
        };
        let in_directory = path
            .parent()
            .and_then(Path::extension)
            .is_some_and(|kind| kind == "wants" || kind == "requires" || kind == "upholds");
        // Of a link in such a directory, systemd takes the name; of any other, what it leads to.
        let is_good = target == "/dev/null"
            || subject.tree.has(path)
            || in_directory && exists(subject, name);
        if !is_good {
            broken.push((
                path.to_owned(),
                format!("it points at {target:?}, where no unit is"),
            ));
        }
    });
    for (path, text) in broken {
        found.at(path, text);
    }
    Ok(())
}

/// Returns whether some unit in /etc or one that packages enable pulls `name` in.
fn is_enabled(subject: &Subject<'_>, name: &str) -> bool {
    UNIT_DIRS.iter().any(|dir| {
        subject.tree.names(dir).any(|(group, node)| {
            let group = group.to_string_lossy();
            node.is_dir()
                && (group.ends_with(".wants") || group.ends_with(".requires"))
                && node
                    .names()
                    .is_some_and(|names| names.contains_key(std::ffi::OsStr::new(name)))
        })
    })
}

fn enabled(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for (what, names) in [
        (
            "SSH server",
            &["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"][..],
        ),
        (
            "network service",
            &[
                "systemd-networkd.service",
                "NetworkManager.service",
                "wicked.service",
                "networking.service",
                "connman.service",
            ],
        ),
        (
            "clock service",
            &[
                "systemd-timesyncd.service",
                "chronyd.service",
                "chrony.service",
                "ntpd.service",
                "ntp.service",
            ],
        ),
    ] {
        if !names.iter().any(|name| is_enabled(subject, name)) {
            found.add(format!("no {what} is enabled"));
        }
    }
    Ok(())
}

fn firstboot(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    if unit(subject, "systemd-firstboot.service") == Unit::There {
        found.at(
            "usr/lib/systemd/system/systemd-firstboot.service",
            "it is not masked",
        );
    }
    Ok(())
}

/// What is built with systemd and must fit it, under the names of the families.
const WITH_SYSTEMD: [&str; 3] = ["udev", "systemd-udev", "systemd-libs"];

fn versions(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    let installed = subject.installed()?;
    for systemd in installed.named("systemd") {
        let others = WITH_SYSTEMD.iter().flat_map(|name| installed.named(name));
        for other in others.filter(|it| it.manager == systemd.manager) {
            if other.version != systemd.version {
                found.add(format!(
                    "systemd is {}, {} is {}",
                    systemd.version, other.name, other.version
                ));
            }
        }
    }
    Ok(())
}

fn openrc(subject: &Subject<'_>, found: &mut Violations) -> Result<()> {
    for name in ["sshd", "connman", "udev"] {
        let is_enabled = subject.tree.names("etc/runlevels").any(|(_, level)| {
            level
                .names()
                .is_some_and(|names| names.contains_key(std::ffi::OsStr::new(name)))
        });
        if !is_enabled {
            found.add(format!("{name} is in no runlevel"));
        }
    }
    Ok(())
}
