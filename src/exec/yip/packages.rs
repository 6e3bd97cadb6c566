//! Packages as extensions ask for them: with the words of the shell, and the package manager's own command lines.
//!
//! Spec: yip, "packages" and "package_pins".

use std::collections::BTreeMap;

use kfactory_layers::root::Root;

use super::tree;
use super::{Context, System, managers};
use crate::error::{Error, Result};
use crate::step::Owner;

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Apt,
    Dnf,
    Zypper,
    Apk,
    Pacman,
}

const MANAGERS: &[(Manager, &[&str])] = &[
    (Manager::Apt, &["debian", "ubuntu"]),
    (
        Manager::Dnf,
        &[
            "fedora",
            "rocky",
            "ol",
            "almalinux",
            "rhel",
            "centos",
            "openEuler",
        ],
    ),
    (Manager::Pacman, &["arch"]),
    (Manager::Apk, &["alpine"]),
    (
        Manager::Zypper,
        &[
            "opensuse-leap",
            "opensuse-tumbleweed",
            "opensuse",
            "suse",
            "sles",
        ],
    ),
];

/// What a list of packages asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) refresh: bool,
    pub(super) upgrade: bool,
    pub(super) install: &'a [String],
    pub(super) remove: &'a [String],
}

impl Manager {
    /// Returns the manager of a system, by its own name or by those it says it is like.
    pub(super) fn of(system: &System) -> Option<Self> {
        let known = |id: &str| {
            MANAGERS
                .iter()
                .find(|(_, ids)| ids.contains(&id))
                .map(|(manager, _)| *manager)
        };
        known(&system.vendor).or_else(|| system.id_like.split_whitespace().find_map(known))
    }

    fn program(self) -> &'static str {
        match self {
            Manager::Apt => "apt-get",
            Manager::Dnf => "dnf",
            Manager::Zypper => "zypper",
            Manager::Apk => "apk",
            Manager::Pacman => "pacman",
        }
    }

    /// The words for refresh, upgrade, install and remove.
    fn words(self) -> [&'static str; 4] {
        match self {
            Manager::Apt => [
                "-y update",
                "-y upgrade",
                "-y --no-install-recommends install",
                "-y remove",
            ],
            Manager::Dnf => [
                "makecache",
                "update -y",
                "install -y --setopt=install_weak_deps=False",
                "remove -y",
            ],
            Manager::Zypper => [
                "refresh",
                "update -y",
                "install -y --no-recommends",
                "remove -y",
            ],
            Manager::Apk => [
                "update",
                "upgrade --no-cache",
                "add --no-cache",
                "del --no-cache",
            ],
            Manager::Pacman => [
                "-Sy --noconfirm",
                "-Syu --noconfirm",
                "-S --noconfirm",
                "-R --noconfirm",
            ],
        }
    }

    /// Returns the command lines that do what is wanted, in their order.
    pub(super) fn commands(self, wanted: Wanted<'_>) -> Vec<String> {
        let [refresh, upgrade, install, remove] = self.words();
        let program = self.program();
        let mut out = Vec::new();
        if wanted.refresh {
            out.push(format!("{program} {refresh}"));
        }
        if wanted.upgrade {
            out.push(format!("{program} {upgrade}"));
        }
        for (verb, names) in [(install, wanted.install), (remove, wanted.remove)] {
            if !names.is_empty() {
                out.push(format!("{program} {verb} {}", names.join(" ")));
            }
        }
        out
    }
}

/// Refreshes, upgrades, installs and removes.
pub(super) fn apply(context: &Context<'_>, wanted: Wanted<'_>) -> Result<()> {
    let manager = Manager::of(&context.system).ok_or_else(|| unknown(&context.system))?;
    let mut lines = Vec::new();
    for line in manager.commands(wanted) {
        lines.push(context.render(&line)?);
    }
    let site = managers::Site {
        env: context.env,
        target: context.target,
        step: context.step,
    };
    let lines = managers::Lines {
        texts: &lines,
        refresh: wanted.refresh,
        install: wanted.install,
    };
    managers::extension(site, lines)
}

fn unknown(system: &System) -> Error {
    let name = match system.vendor.as_str() {
        "" => "a system without os-release".to_owned(),
        id => format!("`{id}`"),
    };
    Error::user(format!("unknown package manager: that of {name}"))
        .hint("install the packages with `commands`")
}

/// Holds packages at versions; an empty version is left out.
pub(super) fn pin(
    context: &Context<'_>,
    root: &Root,
    pins: &BTreeMap<String, String>,
) -> Result<()> {
    let pins: Vec<(&str, &str)> = pins
        .iter()
        .map(|(name, version)| (name.as_str(), version.trim()))
        .filter(|(_, version)| !version.is_empty())
        .collect();
    match Manager::of(&context.system) {
        Some(Manager::Apt) => write(root, "/etc/apt/preferences.d/99-yip-pins", &apt_pins(&pins)),
        Some(Manager::Dnf) => {
            write(root, "/etc/dnf/plugins/versionlock.conf", DNF_CONFIG)?;
            let mut text = String::from(HEADER);
            for (name, version) in pins {
                text.push_str(&dnf_lock(context, name, version)?);
                text.push('\n');
            }
            write(root, "/etc/dnf/plugins/versionlock.list", &text)
        }
        Some(Manager::Zypper) => {
            for (name, version) in pins {
                let exact = format!(
                    "zypper --non-interactive addlock {}",
                    quoted(&format!("{name}={version}"))
                );
                if !context.succeeds(&exact)? {
                    let by_name = format!("zypper --non-interactive addlock {}", quoted(name));
                    context.shell(&by_name)?;
                }
            }
            Ok(())
        }
        Some(Manager::Apk) => write(root, "/etc/apk/world", &apk_world(root, &pins)?),
        Some(Manager::Pacman) => {
            context.warn("pacman cannot hold packages at a version: nothing was pinned");
            Ok(())
        }
        None => {
            context.warn("the package manager is unknown: nothing was pinned");
            Ok(())
        }
    }
}

const HEADER: &str = "# Written by a stage extension (package_pins).\n";
const DNF_CONFIG: &str = "# Written by a stage extension (package_pins).\n[main]\nenabled=1\nlocklist=/etc/dnf/plugins/versionlock.list\n";

fn write(root: &Root, path: &str, text: &str) -> Result<()> {
    if let Some(parent) = std::path::Path::new(path).parent() {
        tree::missing_directories(root, parent, 0o755, (0, 0))?;
    }
    let file = tree::NewFile {
        path,
        mode: 0o644,
        owner: &Owner::ROOT,
        parents: &Owner::ROOT,
    };
    tree::file(root, &file, text.as_bytes())
}

fn apt_pins(pins: &[(&str, &str)]) -> String {
    let stanzas = pins.iter().map(|(name, version)| {
        // Above 1000, so that an installed package is taken back to the version as well.
        format!("\nPackage: {name}\nPin: version {version}\nPin-Priority: 1001\n")
    });
    HEADER.to_owned() + &stanzas.collect::<String>()
}

/// Names the one package that is locked, or a pattern where the repositories do not know it.
fn dnf_lock(context: &Context<'_>, name: &str, version: &str) -> Result<String> {
    let pattern = format!("{name}-{version}*");
    let query = format!(
        "dnf -q repoquery --qf '%{{name}}-%{{epoch}}:%{{version}}-%{{release}}.%{{arch}}' {}",
        quoted(&pattern)
    );
    let start = format!("{name}-");
    let printed = context.output(&query)?.unwrap_or_default();
    let found = printed
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with(&start));
    Ok(found.map_or(pattern, str::to_owned))
}

/// Returns apk's list of wanted packages with the pinned ones at their versions; other packages stay wanted.
fn apk_world(root: &Root, pins: &[(&str, &str)]) -> Result<String> {
    let existing = root
        .read_to_string_opt("/etc/apk/world")?
        .unwrap_or_default();
    Ok(with_world(&existing, pins))
}

fn with_world(existing: &str, pins: &[(&str, &str)]) -> String {
    let name_of = |line: &str| {
        line.split(['=', '<', '>', '~', '@'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut lines: Vec<String> = existing
        .lines()
        .filter(|line| !pins.iter().any(|(name, _)| name_of(line) == *name))
        .map(str::to_owned)
        .collect();
    lines.extend(
        pins.iter()
            .map(|(name, version)| format!("{name}={version}")),
    );
    lines.join("\n") + "\n"
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(id: &str, id_like: &str) -> System {
        System {
            vendor: id.into(),
            id_like: id_like.into(),
            ..System::default()
        }
    }

    fn commands(id: &str, id_like: &str, upgrade: bool) -> Vec<String> {
        let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let (install, remove) = (words("foo bar"), words("baz qux"));
        let wanted = Wanted {
            refresh: true,
            upgrade,
            install: &install,
            remove: &remove,
        };
        Manager::of(&system(id, id_like))
            .expect("a known system")
            .commands(wanted)
    }

    #[test]
    fn row_01_to_06_command_lines_are_those_of_the_dialect() {
        assert_eq!(
            commands("debian", "", false),
            [
                "apt-get -y update",
                "apt-get -y --no-install-recommends install foo bar",
                "apt-get -y remove baz qux"
            ]
        );
        assert_eq!(commands("ubuntu", "debian", true)[1], "apt-get -y upgrade");
        for id in ["fedora", "centos", "ol", "openEuler"] {
            assert_eq!(
                commands(id, "", true),
                [
                    "dnf makecache",
                    "dnf update -y",
                    "dnf install -y --setopt=install_weak_deps=False foo bar",
                    "dnf remove -y baz qux"
                ],
                "{id}"
            );
        }
        assert_eq!(
            commands("alpine", "", true),
            [
                "apk update",
                "apk upgrade --no-cache",
                "apk add --no-cache foo bar",
                "apk del --no-cache baz qux"
            ]
        );
        for (id, like) in [
            ("opensuse-leap", ""),
            ("sle-micro", "suse"),
            ("x", "suse opensuse"),
        ] {
            assert_eq!(
                commands(id, like, true),
                [
                    "zypper refresh",
                    "zypper update -y",
                    "zypper install -y --no-recommends foo bar",
                    "zypper remove -y baz qux"
                ],
                "{id}"
            );
        }
        assert_eq!(
            commands("arch", "", true),
            [
                "pacman -Sy --noconfirm",
                "pacman -Syu --noconfirm",
                "pacman -S --noconfirm foo bar",
                "pacman -R --noconfirm baz qux"
            ]
        );
    }

    #[test]
    fn row_07_a_system_without_os_release_has_no_manager() {
        assert_eq!(Manager::of(&System::default()), None);
        assert!(
            unknown(&System::default())
                .to_string()
                .contains("unknown package manager")
        );
    }

    #[test]
    fn pins_are_written_in_the_form_of_each_manager() {
        let pins = [("curl", "8.1*"), ("zstd", "1.5")];
        assert_eq!(
            apt_pins(&pins),
            format!(
                "{HEADER}\nPackage: curl\nPin: version 8.1*\nPin-Priority: 1001\n\nPackage: zstd\nPin: version 1.5\nPin-Priority: 1001\n"
            )
        );
        assert_eq!(
            with_world("busybox\ncurl\nzstd>1\n", &pins),
            "busybox\ncurl=8.1*\nzstd=1.5\n"
        );
    }
}
