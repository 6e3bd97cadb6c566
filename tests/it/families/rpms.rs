//! Bases and repositories of the families with rpm packages.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::base::{self, Database, Family, LINK, NEWER, OLDER, Root, chosen, os_release};
use super::{BUILTIN, KERNEL, plan};
use crate::support::web;
use crate::support::{run, world};

/// Units that packages of these families bring and Debian's root lacks. `NetworkManager` stays away: it is enabled where installed.
const UNITS: &[&str] = &["chronyd", "fail2ban", "sshd"];
const SUSE_UNITS: &[&str] = &["fail2ban", "sshd", "wicked"];

/// What a kernel's script does: what it finds where it looks for dracut, `kernel-install` by its full path, SUSE's mark.
const KERNEL_SCRIPT: &str = "command -v dracut > /usr/share/stubs/dracut\n\
    echo \"${DRACUT:-none}\" > /usr/share/stubs/dracut-variable\n\
    if [ -x /bin/kernel-install ]; then /bin/kernel-install add @K@ /usr/lib/modules/@K@/vmlinuz; fi\n\
    touch /boot/do_purge_kernels\n";

/// A package manager as its distributions set it up.
#[derive(Debug)]
pub(super) struct Packager {
    /// Its name in the table.
    name: &'static str,
    root: &'static Root,
    /// Where it looks for repositories.
    repositories: &'static str,
    /// Where rpm keeps its database.
    database: &'static str,
    /// In which form.
    backend: &'static str,
    /// What the root has otherwise: path, mode, content.
    files: &'static [(&'static str, u32, &'static str)],
}

/// dnf 4 as in Enterprise Linux 9.
pub(super) static DNF4: Packager = Packager {
    name: "dnf4",
    root: &OLDER,
    repositories: "etc/yum.repos.d",
    database: "var/lib/rpm",
    backend: "sqlite",
    files: &[],
};

/// dnf 4 as in Enterprise Linux 10.
pub(super) static DNF4_NEWER: Packager = Packager {
    name: "dnf4.24",
    root: &NEWER,
    database: "usr/lib/sysimage/rpm",
    files: &[("usr/bin/.wh.dnf5", 0o644, "")],
    ..DNF4
};

/// dnf 5 as in Fedora, where the other names lead to it.
pub(super) static DNF5: Packager = Packager {
    name: "dnf5",
    files: &[
        ("usr/bin/.wh.dnf-3", 0o644, ""),
        ("usr/bin/dnf", LINK, "dnf5"),
        ("usr/bin/microdnf", LINK, "dnf5"),
        // Debian has this plugin, and switches it on.
        (
            "etc/dnf/libdnf5-plugins/local.conf",
            0o644,
            "[main]\nenabled = False\n",
        ),
    ],
    ..DNF4_NEWER
};

/// zypper as in SUSE 15.
pub(super) static ZYPPER: Packager = Packager {
    name: "zypper",
    root: &OLDER,
    repositories: "etc/zypp/repos.d",
    // zypper's own scripts look there only.
    database: "var/lib/rpm",
    // What Debian 12 has cannot read SUSE's own form.
    backend: "sqlite",
    files: &[],
};

/// zypper as in Leap 16 and Tumbleweed.
pub(super) static ZYPPER_NEWER: Packager = Packager {
    name: "zypper.101",
    root: &NEWER,
    backend: "ndb",
    ..ZYPPER
};

/// Makes base and repository of a distribution; `None` where there is no root to make a base of.
pub(super) fn family(name: &'static str, packager: &'static Packager) -> Option<Family> {
    // Several tests may ask for the same one.
    static LOCK: Mutex<()> = Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let plan = plan(&base::os_release_dir(name), &[]);
    let packages = chosen(&plan, &["repository", "packages", "kernel"]);
    let suse = plan["facts"]["distro"]["family"] == "suse";
    let address = web::serve(&repository(name, &packages, suse));
    let Packager {
        repositories,
        database,
        backend,
        ..
    } = packager;
    let mut files: Vec<_> = [
        ("usr/lib/os-release".to_owned(), os_release(name)),
        (
            "etc/rpm/macros".to_owned(),
            format!("%_dbpath /{database}\n%_db_backend {backend}\n"),
        ),
        (
            format!("{repositories}/stubs.repo"),
            format!(
                "[stubs]\nname=stubs\nbaseurl={address}/\nenabled=1\ngpgcheck=0\nautorefresh=0\n"
            ),
        ),
        // Debian's name for it, which would be in the way of the family's own unit.
        (
            "etc/systemd/system/.wh.sshd.service".to_owned(),
            String::new(),
        ),
        ("var/lib/zypp/.keep".to_owned(), String::new()),
    ]
    .map(|(path, content)| (path, 0o644, content))
    .into();
    let own = packager.files.iter();
    files.extend(own.map(|(path, mode, content)| ((*path).into(), *mode, (*content).into())));
    Some(Family {
        name,
        manager: packager.name,
        location: base::make(packager.root, name, &files)?,
        packages,
        kernel: KERNEL.into(),
        initrd: base::DRACUT_INITRD,
        database: Some(Database::Rpm(database)),
    })
}

/// Builds a repository with one small package for each name and returns its directory.
fn repository(name: &str, packages: &[String], suse: bool) -> PathBuf {
    let dir = world().own_dir(&format!("families-repositories/{name}"));
    let spec = dir.with_extension("spec");
    fs::write(&spec, spec_text(packages, suse)).expect("written");
    let define = |key: &str, dir: &Path| format!("{key} {}", dir.display());
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet", "--target", "noarch"])
        .args(["--define", &define("_topdir", &dir.with_extension("build"))])
        .args(["--define", &define("_rpmdir", &dir)])
        .arg(&spec));
    run(Command::new("createrepo_c").arg("--quiet").arg(&dir));
    dir
}

/// One spec for all packages: building starts once.
fn spec_text(packages: &[String], suse: bool) -> String {
    let mut names = packages.to_vec();
    // What scripts are run with and what tells the release.
    names.push("bash".into());
    if suse {
        // Newer libzypp takes a system without it for a broken one.
        names.push("glibc".into());
    }
    names.sort();
    names.dedup();
    let kernel = if suse { "kernel-default" } else { "kernel" };
    let mut packages = String::new();
    let mut install = "mkdir -p %{buildroot}/usr/share/stubs %{buildroot}/boot %{buildroot}/usr/lib/systemd/system\n".to_owned();
    for name in &names {
        let provides = if name == "bash" {
            "Provides: /bin/sh\nProvides: system-release = 42\n"
        } else {
            ""
        };
        let _ = writeln!(
            packages,
            "%package -n {name}\nSummary: stub\n{provides}%description -n {name}\nstub"
        );
        let _ = writeln!(packages, "%files -n {name}\n/usr/share/stubs/{name}.stub");
        let _ = writeln!(
            install,
            "echo {name} > %{{buildroot}}/usr/share/stubs/{name}.stub"
        );
        if name == kernel {
            let _ = writeln!(
                packages,
                "/usr/lib/modules/{KERNEL}\n{}",
                if suse {
                    format!("/boot/vmlinuz-{KERNEL}")
                } else {
                    String::new()
                }
            );
            let _ = writeln!(
                packages,
                "%posttrans -n {name}\n{}exit 0",
                KERNEL_SCRIPT.replace("@K@", KERNEL)
            );
        }
        if name == "epel-release" {
            let _ = writeln!(
                packages,
                "%post -n {name}\nls /run/secrets/* >/usr/share/stubs/secrets 2>/dev/null || :"
            );
        }
        if name == "systemd" {
            for unit in if suse { SUSE_UNITS } else { UNITS } {
                let _ = writeln!(packages, "/usr/lib/systemd/system/{unit}.service");
                let _ = writeln!(
                    install,
                    "printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' > %{{buildroot}}/usr/lib/systemd/system/{unit}.service"
                );
            }
        }
    }
    let modules = format!("%{{buildroot}}/usr/lib/modules/{KERNEL}");
    let place = if suse {
        format!("%{{buildroot}}/boot/vmlinuz-{KERNEL}")
    } else {
        format!("{modules}/vmlinuz")
    };
    let _ = writeln!(install, "mkdir -p {modules}\necho 'stub kernel' > {place}");
    let _ = writeln!(
        install,
        "touch {modules}/modules.order\necho {BUILTIN} > {modules}/modules.builtin"
    );
    format!(
        "Name: stubs\nVersion: 1\nRelease: 1\nSummary: stubs\nLicense: MIT\nBuildArch: noarch\nAutoReqProv: no\n\
         %description\nstubs\n{packages}\n%install\n{install}\n"
    )
}
