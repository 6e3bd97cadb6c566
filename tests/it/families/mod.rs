//! Every family end to end: a base that says it is of that family, its real package manager, and repositories of small packages
//! that the test builds, with the names that the plan asks for.
//!
//! What Debian packages of other families (dnf, zypper, rpm, pacman) makes the bases: a root of Debian 12 with these programs and
//! the os-release of the family. dracut and systemd are real, the kernel is a file with a name.

mod alpine;
mod base;
mod debs;
mod dockerfile;
mod judge;
mod pacman;
mod rpms;
mod table;

use std::path::Path;

use base::Family;
use judge::Judged;
use rpms::{DNF4, DNF4_NEWER, DNF5, Packager, ZYPPER, ZYPPER_NEWER};

use crate::support::framework::programs;
use crate::support::program::Ran;
use crate::support::world::remove_tree;
use crate::support::{Kfactory, need, world};

/// The kernel that every repository has.
const KERNEL: &str = "6.12.9-100.kfactory";

/// What every kernel has built in: newer versions of dracut ask for it.
const BUILTIN: &str = "kernel/fs/overlayfs/overlay.ko";

/// Converts `family` and judges the result; prints the row of the table.
fn convert(family: &Family, options: &[&str]) -> Option<Judged> {
    let name = family.name;
    let out = world().user_dir(&format!("families/{name}")).join("image");
    let dest = format!("oci:{}:v1.0.0", out.display());
    let store = world().user_dir(&format!("families-stores/{name}"));
    let ran = run_conversion(family, &dest, &store, options);
    let judged = judge::judge(family, &dest);
    // A dozen of them would fill a disk.
    remove_tree(&store);
    remove_tree(&out);
    let shown = if options.is_empty() {
        "-".to_owned()
    } else {
        options.join(" ")
    };
    eprintln!(
        "family: {name:<22} {:<8} {shown:<42} converted in {:>3.0} s, keeps {} rules of validate",
        family.manager,
        ran.took.as_secs_f64(),
        judged.rules
    );
    Some(judged)
}

fn run_conversion(family: &Family, dest: &str, store: &Path, options: &[&str]) -> Ran {
    let framework = format!("dir:{}", programs().display());
    let arguments = [
        "convert",
        &family.location,
        dest,
        "--framework",
        &framework,
        "--progress",
        "plain",
        // The packages are stand-ins, without all that boots; the judge asks for the rules that they can keep.
        "--no-validate",
    ];
    Kfactory::new(arguments)
        .args(options)
        .store(store)
        .env("no_proxy", "127.0.0.1")
        .dated()
        .succeed()
}

/// The tools that build the bases and the repositories.
fn can_run(tools: &[&str]) -> bool {
    need(&["bwrap", "newuidmap", "mmdebstrap"]) && need(tools)
}

const RPM_TOOLS: &[&str] = &["rpmbuild", "rpm", "createrepo_c"];

fn rpm_family(name: &'static str, packager: &'static Packager, options: &[&str]) -> Option<Judged> {
    if !can_run(RPM_TOOLS) {
        return None;
    }
    convert(&rpms::family(name, packager)?, options)
}

#[test]
fn fedora_is_converted_with_dnf_5() {
    let Some(judged) = rpm_family("fedora-43", &DNF5, &[]) else {
        return;
    };
    judged.enables(&["chronyd", "fail2ban", "sshd"]);
    judged.says("KAIROS_FLAVOR=\"fedora\"");
}

#[test]
fn rocky_linux_gets_its_extra_repository_first() {
    let Some(judged) = rpm_family("rocky-9", &DNF4, &["--layers", "step"]) else {
        return;
    };
    judged.has_packages(&["epel-release"]);
    judged.enables(&["chronyd", "sshd"]);
}

#[test]
fn centos_stream_goes_by_its_own_name() {
    let Some(judged) = rpm_family("centos-stream-10", &DNF4_NEWER, &["--layers", "one"]) else {
        return;
    };
    judged.says("KAIROS_FLAVOR=\"centos\"");
}

#[test]
fn red_hat_itself_has_selinux_switched_off_and_reads_a_subscription_that_stays_outside() {
    let subscription = world().user_dir("subscription");
    std::fs::write(subscription.join("4711-key.pem"), "secret").expect("written");
    let secret = format!("id=etc-pki-entitlement,src={}", subscription.display());
    let Some(judged) = rpm_family("rhel-9", &DNF4, &["--secret", &secret]) else {
        return;
    };
    judged.has_packages(&["epel-release"]);
    judged.holds("etc/selinux/config", "SELINUX=disabled\n");
    judged.holds("usr/share/stubs/secrets", "4711-key.pem\n");
    judged.lacks("run/secrets");
}

#[test]
fn a_subscription_is_refused_where_no_step_reads_one() {
    let base = format!("dir:{}", base::os_release_dir("fedora-42").display());
    let secret = format!("id=etc-pki-entitlement,src={}", world().dir.display());
    let arguments = ["plan", &base, "--version", "v1.0.0", "--secret", &secret];
    Kfactory::new(arguments)
        .store(&world().user_dir("plan-store"))
        .fail(2)
        .tells(&["no step of this conversion reads the secret `etc-pki-entitlement`"]);
}

#[test]
fn opensuse_leap_is_converted_with_zypper() {
    let Some(judged) = rpm_family("opensuse-leap-15.6", &ZYPPER, &[]) else {
        return;
    };
    judged.enables(&["fail2ban", "sshd", "systemd-networkd"]);
    judged.masks(&["wicked"]);
    judged.says("KAIROS_FLAVOR_RELEASE=\"leap-15.6\"");
}

#[test]
fn opensuse_tumbleweed_is_converted_with_zypper() {
    let Some(judged) = rpm_family("opensuse-tumbleweed", &ZYPPER_NEWER, &["--layers", "step"])
    else {
        return;
    };
    judged.enables(&["sshd"]);
}

#[test]
fn arch_linux_is_converted_with_pacman_on_a_base_with_a_kernel() {
    if !can_run(&["bsdtar", "repo-add"]) {
        return;
    }
    let Some(family) = pacman::family() else {
        return;
    };
    let Some(judged) = convert(&family, &["--skip-step", "installKernel"]) else {
        return;
    };
    judged.holds("usr/share/stubs/own-hook", "");
}

#[test]
fn alpine_gets_its_initrd_its_run_levels_and_the_link_to_its_kernel() {
    if !can_run(&[]) {
        return;
    }
    let Some(family) = alpine::family() else {
        return;
    };
    let skip = ["--skip-step", "installPackages,installKernel"];
    let Some(judged) = convert(&family, &skip) else {
        return;
    };
    judged.runs_at(
        "boot",
        &["acpid", "fail2ban", "hwclock", "ntpd", "sshd", "syslog"],
    );
    judged.runs_at("sysinit", &["udev"]);
    judged.runs_at("default", &["crond"]);
    judged.says("KAIROS_FLAVOR=\"alpine\"");
}

fn ubuntu(name: &'static str, options: &[&str]) {
    if !can_run(&["dpkg-deb", "apt-ftparchive"]) {
        return;
    }
    let Some(family) = debs::family(name) else {
        return;
    };
    let Some(judged) = convert(&family, options) else {
        return;
    };
    judged.enables(&["ssh", "systemd-networkd"]);
}

#[test]
fn ubuntu_22_04_is_converted_from_a_local_repository() {
    ubuntu("ubuntu-22.04", &[]);
}

#[test]
fn ubuntu_24_04_is_converted_from_a_local_repository() {
    ubuntu("ubuntu-24.04", &["--layers", "step"]);
}

#[test]
fn a_family_converted_again_is_cached_and_elsewhere_gives_the_same_image() {
    if !can_run(RPM_TOOLS) {
        return;
    }
    let Some(family) = rpms::family("rocky-10", &DNF4) else {
        return;
    };
    let store = world().user_dir("families-stores/first");
    let convert = |store: &Path, name: &str| {
        let out = world().user_dir(&format!("families/{name}")).join("image");
        let ran = run_conversion(
            &family,
            &format!("oci:{}:v1.0.0", out.display()),
            store,
            &[],
        );
        remove_tree(&out);
        ran
    };
    let first = convert(&store, "first");
    let cached = convert(&store, "again");
    remove_tree(&store);
    for layer in ["packages", "kernel", "kairos", "init"] {
        assert!(cached.says(&format!("layer {layer}: cached")), "{layer}");
    }
    let store = world().user_dir("families-stores/elsewhere");
    let fresh = convert(&store, "elsewhere");
    remove_tree(&store);
    assert!(!fresh.says(": cached"), "{}", fresh.stderr());
    assert_eq!(fresh.digest(), first.digest());
    assert_eq!(cached.digest(), first.digest());
}

/// Returns the plan of a base that has only the os-release of `name`, as JSON.
fn plan(os_release: &Path, options: &[&str]) -> serde_json::Value {
    let base = format!("dir:{}", os_release.display());
    let arguments = [
        "plan",
        &base,
        "--version",
        "v1.0.0",
        "--output",
        "json",
        "--progress",
        "none",
    ];
    let ran = Kfactory::new(arguments)
        .args(options)
        .store(&world().user_dir("plan-store"))
        .succeed();
    serde_json::from_str(&ran.stdout).expect("JSON")
}
