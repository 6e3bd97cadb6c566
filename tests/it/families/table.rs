//! The rows that differ from others in their data alone; `just test-families` converts every one of them.
//!
//! microdnf (but for dnf 5 under that name), tdnf and apk have no row: Debian (bookworm, trixie, forky, sid, experimental) and
//! Ubuntu (20.04 to 26.04) package none of them.

use std::panic::catch_unwind;
use std::path::Path;

use super::base::Family;
use super::rpms::{DNF4, DNF4_NEWER, DNF5, Packager, ZYPPER, ZYPPER_NEWER};
use super::{RPM_TOOLS, can_run, convert, debs, rpms};
use crate::support::skipped;
use crate::support::world::remove_tree;

/// One base and what its image says of itself.
struct Row {
    name: &'static str,
    with: With,
    options: &'static [&'static str],
    /// `KAIROS_FLAVOR` and `KAIROS_FLAVOR_RELEASE`.
    flavor: (&'static str, &'static str),
    enables: &'static [&'static str],
}

enum With {
    Rpm(&'static Packager),
    Apt,
}

const fn row(
    name: &'static str,
    with: With,
    flavor: (&'static str, &'static str),
    enables: &'static [&'static str],
) -> Row {
    Row {
        name,
        with,
        options: &[],
        flavor,
        enables,
    }
}

const FEDORA: &[&str] = &["chronyd", "fail2ban", "sshd"];
const ENTERPRISE: &[&str] = &["chronyd", "sshd", "systemd-resolved"];
const SUSE: &[&str] = &["fail2ban", "sshd", "systemd-networkd"];
const DEBIAN: &[&str] = &["ssh", "systemd-networkd", "systemd-timesyncd"];

const ROWS: &[Row] = &[
    row("fedora-41", With::Rpm(&DNF5), ("fedora", "41"), FEDORA),
    row("fedora-42", With::Rpm(&DNF5), ("fedora", "42"), FEDORA),
    row(
        "almalinux-9",
        With::Rpm(&DNF4),
        ("almalinux", "9.6"),
        ENTERPRISE,
    ),
    row(
        "almalinux-10",
        With::Rpm(&DNF4_NEWER),
        ("almalinux", "10.0"),
        ENTERPRISE,
    ),
    row(
        "rocky-10",
        With::Rpm(&DNF4_NEWER),
        ("rocky", "10.0"),
        ENTERPRISE,
    ),
    row(
        "centos-stream-9",
        With::Rpm(&DNF4),
        ("centos", "9"),
        ENTERPRISE,
    ),
    row("oracle-9", With::Rpm(&DNF4), ("ol", "9.6"), ENTERPRISE)
        .with_options(&["--compression", "zstd"]),
    row(
        "oracle-10",
        With::Rpm(&DNF4_NEWER),
        ("ol", "10.0"),
        ENTERPRISE,
    ),
    row(
        "rhel-10",
        With::Rpm(&DNF4_NEWER),
        ("rhel", "10.0"),
        ENTERPRISE,
    ),
    row("amazon-2023", With::Rpm(&DNF4), ("fedora", "2023"), FEDORA),
    row(
        "opensuse-leap-16.0",
        With::Rpm(&ZYPPER_NEWER),
        ("opensuse", "leap-16.0"),
        SUSE,
    ),
    row("sles-15.6", With::Rpm(&ZYPPER), ("sles", "15.6"), SUSE),
    row("linuxmint-22", With::Apt, ("ubuntu", "24.04"), DEBIAN),
    row("pop-22.04", With::Apt, ("ubuntu", "22.04"), DEBIAN),
    row("raspbian-12", With::Apt, ("debian", "12"), DEBIAN),
    row("ubuntu-24.10", With::Apt, ("ubuntu", "24.10"), DEBIAN),
    row("ubuntu-25.10", With::Apt, ("ubuntu", "25.10"), DEBIAN),
    row("ubuntu-26.04", With::Apt, ("ubuntu", "26.04"), DEBIAN),
];

impl Row {
    const fn with_options(mut self, options: &'static [&'static str]) -> Self {
        self.options = options;
        self
    }

    fn family(&self) -> Option<Family> {
        match self.with {
            With::Rpm(packager) if can_run(RPM_TOOLS) => rpms::family(self.name, packager),
            With::Apt if can_run(&["dpkg-deb", "apt-ftparchive"]) => debs::family(self.name),
            _ => None,
        }
    }

    fn holds(&self) {
        let Some(family) = self.family() else { return };
        let converted = convert(&family, self.options);
        // A base may be a copy of its root.
        let base = family.location.trim_start_matches("oci:");
        remove_tree(Path::new(base));
        let Some(judged) = converted else { return };
        let (flavor, release) = self.flavor;
        judged.says(&format!("KAIROS_FLAVOR=\"{flavor}\""));
        // Numbers alone stand without quotes.
        let is_number = release.bytes().all(|byte| byte.is_ascii_digit());
        let quote = if is_number { "" } else { "\"" };
        judged.says(&format!("KAIROS_FLAVOR_RELEASE={quote}{release}{quote}"));
        judged.enables(self.enables);
    }
}

#[test]
fn every_other_row_of_the_table_is_converted() {
    let Ok(wanted) = std::env::var("KFACTORY_FAMILIES") else {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        skipped(&format!(
            "`just test-families` alone converts {}",
            names.join(", ")
        ));
        return;
    };
    // Some of them by name, for whoever works on those.
    let is_wanted = |row: &&Row| wanted == "all" || wanted.split(',').any(|name| name == row.name);
    let failed = ROWS
        .iter()
        .filter(is_wanted)
        .filter(|row| catch_unwind(|| row.holds()).is_err());
    let failed: Vec<&str> = failed.map(|row| row.name).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
