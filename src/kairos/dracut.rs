//! The initramfs configuration of images whose initramfs is made by dracut: drop-ins and the `28immucore` module.

use super::StaticFile;

/// What the initramfs configuration depends on.
///
/// The `has_` facts describe the rootfs after its packages were installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DracutFacts<'a> {
    /// The distribution as detected: `ubuntu`, `debian`, `fedora`, ...
    pub distro: &'a str,
    /// Its family: `debian`, `redhat`, `suse`, `hadron`, ...
    pub family: &'a str,
    /// Its version (`VERSION_ID`); a text without a leading number counts as newer than every number.
    pub version: &'a str,
    /// The board model.
    pub model: &'a str,
    /// Whether `/usr/sbin/NetworkManager` exists.
    pub has_network_manager: bool,
    /// Whether `/usr/lib/systemd/systemd-networkd` exists.
    pub has_networkd: bool,
    /// Whether `/usr/lib/systemd/systemd-resolved` exists.
    pub has_resolved: bool,
    /// Whether dracut has the module `network-legacy`.
    pub has_legacy_network: bool,
    /// Whether FIPS was asked for.
    pub fips: bool,
    /// Drivers that are part of the kernel, by their names with underscores. dracut of Ubuntu 22.04 and older stops at the first
    /// of them that it is told to add.
    pub built_in: &'a [String],
    /// Whether the image is for Trusted Boot, which has no initramfs of its own.
    pub trusted: bool,
}

/// The network modules of most distributions whose dracut has the legacy one, which later became part of `network`. It is there because networkd alone does not run dracut's
/// "interface is up" hooks (dracutdevs/dracut#1822).
const DEFAULT_NETWORK: [&str; 2] = ["systemd-networkd", LEGACY_NETWORK];
const LEGACY_NETWORK: &str = "network-legacy";

/// The files of the dracut module. Its directory is where dracut looks on every distribution.
const MODULE_FILES: [StaticFile; 3] = [
    StaticFile::new(
        "/usr/lib/dracut/modules.d/28immucore/module-setup.sh",
        0o755,
        include_str!("files/28immucore/module-setup.sh"),
    ),
    StaticFile::new(
        "/usr/lib/dracut/modules.d/28immucore/generator.sh",
        0o755,
        include_str!("files/28immucore/generator.sh"),
    ),
    StaticFile::new(
        "/usr/lib/dracut/modules.d/28immucore/immucore.service",
        0o644,
        include_str!("files/28immucore/immucore.service"),
    ),
];

/// Returns the files that configure dracut, sorted by path. None for Trusted Boot and for Alpine, which has no dracut.
pub fn dracut_files(facts: &DracutFacts<'_>) -> Vec<StaticFile> {
    if facts.trusted || facts.family == "alpine" {
        return Vec::new();
    }
    let mut files = vec![
        conf(
            "99-immucore",
            include_str!("files/99-immucore.conf").to_owned(),
        ),
        conf(
            "kairos-network",
            directive("add_dracutmodules", &network_modules(facts)),
        ),
    ];
    files.extend(drivers(facts, "kairos-xhci-renesas", &["xhci_pci_renesas"]));
    if facts.fips {
        let omit = directive("omit_dracutmodules", &["iscsi", "iscsiroot"]);
        files.push(conf(
            "kairos-fips",
            omit + &directive("add_dracutmodules", &["fips"]),
        ));
    }
    if wants_multipath(facts) {
        files.push(conf(
            "kairos-multipath",
            directive("add_dracutmodules", &["multipath"]),
        ));
    }
    if facts.family != "hadron" {
        let names = ["nfit", "libnvdimm", "nd_pmem", "dax_pmem"];
        files.extend(drivers(facts, "kairos-pmem", &names));
    }
    if facts.model == "nvidia-jetson-thor" {
        let drivers = ["nvidia", "nvidia_drm", "nvidia_modeset", "nvidia_uvm"];
        files.push(conf(
            "kairos-skip-nvidia",
            directive("omit_drivers", &drivers),
        ));
    }
    if is_orin(facts.model) {
        files.push(conf(
            "kairos-skip-scsi",
            directive("omit_dracutmodules", &["iscsi"]),
        ));
    }
    if wants_sysext(facts) {
        files.push(conf(
            "kairos-sysext",
            directive("add_dracutmodules", &["systemd-sysext"]),
        ));
    }
    files.extend(MODULE_FILES);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Returns the units to disable, as far as the image has them, because the initramfs of `model` leaves iSCSI out.
pub fn units_without_iscsi(model: &str) -> &'static [&'static str] {
    if is_orin(model) {
        &["iscsi", "open-iscsi", "iscsid.socket"]
    } else {
        &[]
    }
}

/// Returns dracut's network modules for the image.
pub fn network_modules(facts: &DracutFacts<'_>) -> Vec<&'static str> {
    let usual = usual_network_modules(facts);
    if facts.has_legacy_network || !usual.contains(&LEGACY_NETWORK) {
        return usual;
    }
    match (usual.contains(&"systemd-networkd"), facts.has_resolved) {
        (true, true) => vec!["systemd-networkd", "systemd-resolved"],
        (true, false) => vec!["systemd-networkd"],
        (false, _) => vec!["network"],
    }
}

/// Returns the network modules that a distribution's own dracut wants.
fn usual_network_modules(facts: &DracutFacts<'_>) -> Vec<&'static str> {
    let version = Number::of(facts.version);
    match (facts.distro, facts.family) {
        ("ubuntu", _) if version <= Number(20, 4) => vec!["network"],
        ("ubuntu", _) if version >= Number(26, 4) => vec!["systemd-networkd", "systemd-resolved"],
        ("ubuntu", _) if version >= Number(24, 4) => {
            [&DEFAULT_NETWORK[..], &["systemd-resolved"]].concat()
        }
        (_, "redhat") if facts.has_network_manager => vec!["network-manager"],
        ("fedora", _) if facts.has_networkd && facts.has_resolved => {
            vec!["systemd-networkd", "systemd-resolved"]
        }
        ("fedora", _) if facts.has_networkd => vec!["systemd-networkd"],
        (_, "redhat") if version < Number(10, 0) => vec!["network-legacy"],
        (_, "redhat") => vec!["network"],
        (_, "hadron") => vec!["systemd-networkd", "systemd-resolved"],
        _ => DEFAULT_NETWORK.to_vec(),
    }
}

/// Whether dracut of this distribution has a working `systemd-sysext` module.
fn wants_sysext(facts: &DracutFacts<'_>) -> bool {
    let version = Number::of(facts.version);
    match (facts.distro, facts.family) {
        ("ubuntu", _) => version > Number(22, 4),
        (_, "redhat") => version >= Number(9, 0),
        _ => true,
    }
}

/// Whether multipath goes into the initramfs; Ubuntu's 20.04 has a module that does not work there.
fn wants_multipath(facts: &DracutFacts<'_>) -> bool {
    facts.distro != "ubuntu" || Number::of(facts.version) >= Number(21, 0)
}

fn is_orin(model: &str) -> bool {
    matches!(model, "nvidia-jetson-agx-orin" | "nvidia-jetson-orin-nx")
}

/// One drop-in.
fn conf(name: &str, content: String) -> StaticFile {
    StaticFile {
        path: format!("/etc/dracut.conf.d/{name}.conf").into(),
        mode: 0o644,
        content: content.into(),
    }
}

/// One drop-in that adds those of `names` that are modules; none where all are built in.
fn drivers(facts: &DracutFacts<'_>, file: &str, names: &[&str]) -> Option<StaticFile> {
    let mut names = names.to_vec();
    names.retain(|name| !facts.built_in.iter().any(|built_in| built_in == name));
    (!names.is_empty()).then(|| conf(file, directive("add_drivers", &names)))
}

/// One line that adds `values` to a list. The blanks around them matter, as dracut joins the texts of all files as they are.
fn directive(list: &str, values: &[&str]) -> String {
    format!("{list}+=\" {} \"\n", values.join(" "))
}

/// The major and minor number of a version.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number(u32, u32);

impl Number {
    fn of(version: &str) -> Self {
        let mut fields = version.split('.').map(|field| field.parse().ok());
        match fields.next().flatten() {
            Some(major) => Self(major, fields.next().flatten().unwrap_or(0)),
            None => Self(u32::MAX, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: DracutFacts<'_> = DracutFacts {
        distro: "debian",
        family: "debian",
        version: "12",
        model: "generic",
        has_network_manager: false,
        has_networkd: true,
        has_resolved: true,
        has_legacy_network: true,
        fips: false,
        built_in: &[],
        trusted: false,
    };

    fn names(facts: &DracutFacts<'_>) -> Vec<String> {
        let name = |file: &StaticFile| {
            file.path
                .strip_prefix("/etc/dracut.conf.d/")
                .map(str::to_owned)
        };
        dracut_files(facts).iter().filter_map(name).collect()
    }

    fn content(facts: &DracutFacts<'_>, name: &str) -> String {
        let path = format!("/etc/dracut.conf.d/{name}.conf");
        let file = dracut_files(facts)
            .into_iter()
            .find(|file| file.path == path)
            .expect("the file");
        assert_eq!(file.mode, 0o644);
        file.content.into_owned()
    }

    #[test]
    fn debian_gets_these_files() {
        let expected = [
            "99-immucore.conf",
            "kairos-multipath.conf",
            "kairos-network.conf",
            "kairos-pmem.conf",
            "kairos-sysext.conf",
            "kairos-xhci-renesas.conf",
        ];
        assert_eq!(names(&PLAIN), expected);
        assert_eq!(
            content(&PLAIN, "kairos-network"),
            "add_dracutmodules+=\" systemd-networkd network-legacy \"\n"
        );
        assert_eq!(
            content(&PLAIN, "kairos-pmem"),
            "add_drivers+=\" nfit libnvdimm nd_pmem dax_pmem \"\n"
        );
        let module: Vec<_> = dracut_files(&PLAIN)
            .into_iter()
            .filter(|file| file.path.contains("28immucore"))
            .collect();
        let modes: Vec<_> = module
            .iter()
            .map(|file| (file.path.rsplit('/').next().expect("a name"), file.mode))
            .collect();
        assert_eq!(
            modes,
            [
                ("generator.sh", 0o755),
                ("immucore.service", 0o644),
                ("module-setup.sh", 0o755)
            ]
        );
    }

    #[test]
    fn drivers_that_are_part_of_the_kernel_are_not_added() {
        let built_in = ["libnvdimm", "xhci_pci_renesas"].map(str::to_owned);
        let facts = DracutFacts {
            built_in: &built_in,
            ..PLAIN
        };
        assert_eq!(
            content(&facts, "kairos-pmem"),
            "add_drivers+=\" nfit nd_pmem dax_pmem \"\n"
        );
        assert!(!names(&facts).contains(&"kairos-xhci-renesas.conf".to_owned()));
    }

    #[test]
    fn the_initramfs_fits_every_machine() {
        let conf = content(&PLAIN, "99-immucore");
        let directives: Vec<&str> = conf.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "hostonly=\"no\"",
            "hostonly_cmdline=\"no\"",
            "compress=\"xz\"",
            "i18n_install_all=\"yes\"",
            "show_modules=\"yes\"",
            "install_items+=\" /etc/hosts \"",
            "add_dracutmodules+=\" livenet dmsquash-live immucore network \"",
        ];
        assert_eq!(directives, expected);
    }

    #[test]
    fn alpine_and_trusted_boot_get_none() {
        assert!(
            dracut_files(&DracutFacts {
                trusted: true,
                ..PLAIN
            })
            .is_empty()
        );
        assert!(
            dracut_files(&DracutFacts {
                distro: "alpine",
                family: "alpine",
                ..PLAIN
            })
            .is_empty()
        );
    }

    #[test]
    fn network_modules_follow_distribution_and_version() {
        let ubuntu = |version| DracutFacts {
            distro: "ubuntu",
            version,
            ..PLAIN
        };
        let redhat = |distro, version| DracutFacts {
            distro,
            family: "redhat",
            version,
            has_networkd: false,
            ..PLAIN
        };
        for (facts, expected) in [
            (PLAIN, "systemd-networkd network-legacy"),
            (
                DracutFacts {
                    has_legacy_network: false,
                    ..PLAIN
                },
                "systemd-networkd systemd-resolved",
            ),
            (
                DracutFacts {
                    has_legacy_network: false,
                    ..ubuntu("25.10")
                },
                "systemd-networkd systemd-resolved",
            ),
            (
                DracutFacts {
                    has_legacy_network: false,
                    ..redhat("rocky", "9.5")
                },
                "network",
            ),
            (
                DracutFacts {
                    version: "",
                    ..PLAIN
                },
                "systemd-networkd network-legacy",
            ),
            (ubuntu("20.04"), "network"),
            (ubuntu("22.04"), "systemd-networkd network-legacy"),
            (
                ubuntu("24.04"),
                "systemd-networkd network-legacy systemd-resolved",
            ),
            (
                ubuntu("25.10"),
                "systemd-networkd network-legacy systemd-resolved",
            ),
            (ubuntu("26.04"), "systemd-networkd systemd-resolved"),
            (redhat("rocky", "9.4"), "network-legacy"),
            (redhat("rocky", "10.0"), "network"),
            (redhat("fedora", "42"), "network"),
            (
                DracutFacts {
                    has_network_manager: true,
                    has_networkd: true,
                    ..redhat("fedora", "42")
                },
                "network-manager",
            ),
            (
                DracutFacts {
                    has_networkd: true,
                    ..redhat("fedora", "42")
                },
                "systemd-networkd systemd-resolved",
            ),
            (
                DracutFacts {
                    has_networkd: true,
                    has_resolved: false,
                    ..redhat("fedora", "42")
                },
                "systemd-networkd",
            ),
            (
                DracutFacts {
                    has_networkd: true,
                    ..redhat("almalinux", "9")
                },
                "network-legacy",
            ),
            (
                DracutFacts {
                    family: "hadron",
                    distro: "hadron",
                    ..PLAIN
                },
                "systemd-networkd systemd-resolved",
            ),
            (
                DracutFacts {
                    family: "suse",
                    distro: "opensuse-leap",
                    version: "15.6",
                    ..PLAIN
                },
                "systemd-networkd network-legacy",
            ),
        ] {
            assert_eq!(network_modules(&facts).join(" "), expected, "{facts:?}");
        }
    }

    #[test]
    fn sysext_and_multipath_follow_the_version() {
        let has =
            |facts: DracutFacts<'_>, name: &str| names(&facts).iter().any(|found| found == name);
        for (distro, family, version, sysext, multipath) in [
            ("ubuntu", "debian", "20.04", false, false),
            ("ubuntu", "debian", "22.04", false, true),
            ("ubuntu", "debian", "24.04", true, true),
            ("debian", "debian", "13", true, true),
            ("rocky", "redhat", "8.10", false, true),
            ("rocky", "redhat", "9", true, true),
            ("fedora", "redhat", "43", true, true),
        ] {
            let facts = DracutFacts {
                distro,
                family,
                version,
                ..PLAIN
            };
            assert_eq!(
                has(facts, "kairos-sysext.conf"),
                sysext,
                "{distro} {version}"
            );
            assert_eq!(
                has(facts, "kairos-multipath.conf"),
                multipath,
                "{distro} {version}"
            );
        }
    }

    #[test]
    fn boards_and_fips_leave_out_what_hurts_them() {
        let model = |model| DracutFacts { model, ..PLAIN };
        for name in ["nvidia-jetson-agx-orin", "nvidia-jetson-orin-nx"] {
            assert_eq!(
                content(&model(name), "kairos-skip-scsi"),
                "omit_dracutmodules+=\" iscsi \"\n"
            );
            assert_eq!(
                units_without_iscsi(name),
                ["iscsi", "open-iscsi", "iscsid.socket"]
            );
        }
        assert!(units_without_iscsi("generic").is_empty());
        let thor = content(&model("nvidia-jetson-thor"), "kairos-skip-nvidia");
        assert_eq!(
            thor,
            "omit_drivers+=\" nvidia nvidia_drm nvidia_modeset nvidia_uvm \"\n"
        );
        let fips = content(
            &DracutFacts {
                fips: true,
                ..PLAIN
            },
            "kairos-fips",
        );
        assert_eq!(
            fips,
            "omit_dracutmodules+=\" iscsi iscsiroot \"\nadd_dracutmodules+=\" fips \"\n"
        );
        assert!(
            names(&DracutFacts {
                fips: true,
                distro: "ubuntu",
                ..PLAIN
            })
            .contains(&"kairos-fips.conf".to_owned())
        );
        assert!(
            !names(&DracutFacts {
                family: "hadron",
                ..PLAIN
            })
            .contains(&"kairos-pmem.conf".to_owned())
        );
    }
}
