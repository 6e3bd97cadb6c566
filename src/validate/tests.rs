//! Every rule is broken once, in an image in which nothing else is wrong, and is the only one that speaks.

use std::collections::BTreeSet;

use super::output::{Form, render};
use super::sample::{Good, KERNEL, initrd};
use super::*;
use crate::distro::Model;
use crate::tree::samples::Sample;

pub(super) const MOUNT_POINTS: [&str; 14] = [
    "dev",
    "efi",
    "home",
    "mnt",
    "oem",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "boot",
    "usr/local",
    "var/lib",
];
pub(super) const PROGRAMS: [&str; 21] = [
    "awk",
    "blkid",
    "chroot",
    "cryptsetup",
    "e2fsck",
    "less",
    "losetup",
    "lsblk",
    "lvm",
    "mkfs.ext2",
    "mkfs.ext4",
    "mkfs.vfat",
    "mount",
    "mount.nfs",
    "resize2fs",
    "rsync",
    "sh",
    "sudo",
    "tar",
    "udevadm",
    "umount",
];
const CONFIG: &str = "boot/config-6.1.0-38-amd64";

fn check(sample: Sample, scope: &Scope) -> Report {
    validate(&sample.tree(), scope, None).expect("a tree in memory can be read")
}

fn broken(report: &Report) -> BTreeSet<&str> {
    let findings = report.findings.iter();
    findings.map(|finding| finding.rule.as_str()).collect()
}

/// Replaces a part of a text file.
fn replace(mut sample: Sample, path: &str, from: &str, to: &str) -> Sample {
    let text = sample.text(path);
    assert!(text.contains(from), "{path} does not hold {from:?}");
    sample.file(path, 0o644, text.replace(from, to).as_bytes())
}

/// Packs the initrd again without the entries that `drop` names.
fn initrd_without(good: &Good, sample: Sample, drop: &str) -> Sample {
    let mut entries = good.entries();
    let before = entries.len();
    entries.retain(|(name, ..)| !name.contains(drop));
    assert!(entries.len() < before, "nothing is called {drop}");
    sample.file("boot/initrd", 0o600, &initrd(&entries))
}

fn initrd_with(good: &Good, sample: Sample, name: &str) -> Sample {
    let mut entries = good.entries();
    entries.push((name.to_owned(), 0o100_644, b"x".to_vec()));
    sample.file("boot/initrd", 0o600, &initrd(&entries))
}

type Break = fn(&Good, Sample) -> Sample;

/// Every rule with an image that breaks it, in exactly one way.
fn table() -> Vec<(&'static str, Good, Break)> {
    let mut rows = boot_rows();
    rows.extend(system_rows());
    rows.extend(content_rows());
    rows.extend(kind_rows());
    rows
}

fn plain(id: &'static str, change: Break) -> (&'static str, Good, Break) {
    (id, Good::new(), change)
}

fn boot_rows() -> Vec<(&'static str, Good, Break)> {
    vec![
        // Everything else about the kernel is unknown then, and other rules are silent.
        plain("kernel-missing", |_, s| s.without("boot/vmlinuz")),
        plain("kernel-dangling", |_, s| {
            s.link("boot/vmlinuz", "/boot/vmlinuz-9.9")
        }),
        plain("kernel-format", |_, s| {
            s.file(&format!("boot/vmlinuz-{KERNEL}"), 0o644, b"#!/bin/sh\n")
        }),
        plain("kernel-arch", |_, s| {
            let mut image = vec![0; 0x100];
            image[0x38..0x3c].copy_from_slice(b"ARM\x64");
            image.extend(format!("Linux version {KERNEL} (a@b)").bytes());
            s.file(&format!("boot/vmlinuz-{KERNEL}"), 0o644, &image)
        }),
        plain("kernel-modules", |_, s| s.without("usr/lib/modules")),
        plain("kernel-modules-index", |_, s| {
            s.file(&format!("usr/lib/modules/{KERNEL}/modules.dep"), 0o644, b"")
        }),
        plain("kernel-single", |_, s| {
            s.file("boot/vmlinuz-6.1.0-37-amd64", 0o644, b"k")
        }),
        plain("kernel-leftovers", |_, s| {
            s.dir("usr/lib/modules/6.1.0-37-amd64", 0o755)
        }),
        plain("kernel-stray", |_, s| {
            s.file("boot/initrd.img-old", 0o644, b"x")
        }),
        plain("kernel-stray", |_, s| {
            s.file("boot/vmlinuz-0-rescue-0123", 0o644, b"x")
        }),
        plain("kernel-squashfs", |_, s| {
            replace(
                s,
                CONFIG,
                "CONFIG_SQUASHFS_ZLIB=y",
                "# CONFIG_SQUASHFS_ZLIB is not set",
            )
        }),
        plain("initrd-missing", |_, s| s.without("boot/initrd")),
        plain("initrd-format", |_, s| {
            s.file("boot/initrd", 0o600, b"\x1f\x8b\x08 broken")
        }),
        plain("initrd-unread", |_, s| {
            s.file("boot/initrd", 0o600, &[0x02, 0x21, 0x4c, 0x18, 0, 0, 0, 0])
        }),
        plain("initrd-compression", |_, s| {
            replace(s, CONFIG, "CONFIG_RD_GZIP=y", "# CONFIG_RD_GZIP is not set")
        }),
        plain("initrd-kernel", |g, s| {
            initrd_with(g, s, "usr/lib/modules/6.1.0-37-amd64/kernel/a.ko")
        }),
        plain("initrd-init", |g, s| {
            initrd_without(g, s, "usr/lib/systemd/systemd")
        }),
        plain("initrd-immucore", |g, s| {
            initrd_without(g, s, "initrd.target.requires")
        }),
        plain("initrd-immucore", |g, s| {
            initrd_without(g, s, "bin/immucore")
        }),
        plain("initrd-agent", |g, s| initrd_without(g, s, "kairos-agent")),
        plain("initrd-live", |g, s| {
            initrd_without(g, s, "dmsquash-live-root")
        }),
        plain("initrd-modules", |g, s| initrd_without(g, s, "squashfs")),
        plain("initrd-drivers", |g, s| initrd_without(g, s, "sr_mod")),
        plain("initrd-xhci-renesas", |g, s| {
            initrd_without(g, s, "xhci-pci")
        }),
        plain("initrd-microcode", |g, s| {
            initrd_with(g, s, "kernel/x86/microcode/GenuineIntel.bin")
        }),
        plain("initrd-pmem", |_, mut s| {
            let path = format!("usr/lib/modules/{KERNEL}/modules.dep");
            let known = s.text(&path) + "kernel/drivers/nvdimm/nd_pmem.ko.zst:\n";
            s.file(&path, 0o644, known.as_bytes())
        }),
        plain("initrd-tools", |g, s| initrd_without(g, s, "cryptsetup")),
        plain("grub-config", |_, s| {
            replace(s, "etc/cos/grub.cfg", "--id fallback {", "--id other {")
        }),
        plain("grub-bootargs", |_, s| {
            replace(s, "etc/cos/bootargs.cfg", "set kernelcmd", "set cmd")
        }),
        plain("grub-efi", |_, s| {
            s.without("usr/lib/grub/x86_64-efi-signed")
        }),
        plain("grub-shim", |_, s| s.without("usr/lib/shim")),
        plain("grub-bios", |_, s| s.without("usr/lib/grub/i386-pc")),
        plain("grub-modules", |_, s| {
            s.without("usr/lib/grub/x86_64-efi/loopback.mod")
        }),
        plain("grub-editenv", |_, s| s.without("usr/bin/grub2-editenv")),
        plain("size-boot-files", |_, s| {
            s.edit("boot/initrd", |node| grow(node, 300 << 20))
        }),
    ]
}

fn grow(node: &mut crate::tree::Node, bytes: u64) {
    if let crate::tree::Kind::File(file) = &mut node.kind {
        file.size = bytes;
    }
}

fn system_rows() -> Vec<(&'static str, Good, Break)> {
    vec![
        plain("programs-kairos", |_, s| s.without("usr/bin/immucore")),
        plain("programs-challenger", |_, s| s.without("system/discovery")),
        plain("programs-installer", |_, s| s.without("system/installer")),
        plain("programs-tools", |_, s| s.without("usr/bin/mount.nfs")),
        plain("programs-runtime", |_, s| s.without("usr/bin/rsync")),
        plain("programs-executable", |_, s| {
            s.edit("usr/bin/tar", |node| node.mode = 0o644)
        }),
        plain("programs-arch", |_, s| {
            let other = crate::framework::elf::head_for_tests(Arch::Arm64);
            s.file("usr/bin/kairos-agent", 0o755, &other)
        }),
        plain("programs-init", |_, s| s.without("usr/sbin/init")),
        plain("services-missing", |_, s| {
            s.without("usr/lib/systemd/system/systemd-logind.service")
        }),
        plain("services-masked", |_, s| {
            s.link("etc/systemd/system/getty.target", "/dev/null")
        }),
        plain("services-default", |_, s| {
            s.without("usr/lib/systemd/system/default.target")
        }),
        plain("services-links", |_, s| {
            s.link(
                "etc/systemd/system/multi-user.target.wants/gone.service",
                "/usr/lib/systemd/system/gone.service",
            )
        }),
        plain("services-links", |_, s| {
            s.link(
                "etc/systemd/system/dbus-org.x.service",
                "/usr/lib/systemd/system/gone.service",
            )
        }),
        plain("services-enabled", |_, s| {
            s.without("etc/systemd/system/multi-user.target.wants/ssh.service")
        }),
        plain("services-firstboot", |_, s| {
            s.without("etc/systemd/system/systemd-firstboot.service")
        }),
        plain("services-versions", |_, s| {
            replace(
                s,
                "var/lib/dpkg/status",
                "252.1\n\nPackage: udev\nStatus: install ok installed\nVersion: 252.1",
                "252.1\n\nPackage: udev\nStatus: install ok installed\nVersion: 252.2",
            )
        }),
        plain("packages-database", |_, s| {
            s.file("usr/lib/sysimage/rpm/rpmdb.sqlite", 0o644, b"SQLite")
        }),
        plain("packages-whole", |_, s| {
            replace(
                s,
                "var/lib/dpkg/status",
                "ok installed\nVersion: 252.1\n\nPackage: udev",
                "ok half-configured\nVersion: 252.1\n\nPackage: udev",
            )
        }),
        plain("ssh-drop-ins", |_, s| {
            replace(s, "etc/ssh/sshd_config", "Include", "# Include")
        }),
        plain("ssh-syntax", |_, s| {
            replace(s, "etc/ssh/sshd_config", "UsePAM yes", "UsePAM")
        }),
        plain("ssh-moduli", |_, s| {
            s.file("etc/ssh/moduli", 0o644, b"# none\n")
        }),
        plain("ssh-empty-passwords", |_, s| {
            replace(
                s,
                "etc/ssh/sshd_config",
                "UsePAM yes",
                "PermitEmptyPasswords yes",
            )
        }),
        plain("users-root", |_, s| {
            replace(s, "etc/passwd", "/bin/sh", "/bin/none")
        }),
        plain("users-uid0", |_, s| {
            replace(s, "etc/passwd", "root:x", "toor:x:0:0::/:/bin/sh\nroot:x")
        }),
        plain("users-empty-password", |_, s| {
            s.file("etc/shadow", 0o640, b"root:*:::::::\nme::::::::\n")
        }),
        plain("users-password", |_, s| {
            s.file("etc/shadow", 0o640, b"root:$6$abc:::::::\n")
        }),
        plain("permissions-directories", |_, s| {
            s.edit("boot", |node| node.mode = 0o644)
        }),
        plain("permissions-directories", |_, s| {
            s.edit("tmp", |node| node.mode = 0o777)
        }),
        plain("permissions-directories", |_, s| {
            s.edit("usr", |node| node.uid = 1000)
        }),
        plain("permissions-sudo", |_, s| {
            s.edit("usr/bin/sudo", |node| node.mode = 0o755)
        }),
        plain("permissions-secrets", |_, s| {
            s.edit("etc/shadow", |node| node.mode = 0o644)
        }),
        plain("permissions-world-writable", |_, s| {
            s.file("usr/lib/x", 0o666, b"")
        }),
        plain("layout-mount-points", |_, s| s.without("efi")),
        plain("layout-hidden", |_, s| {
            s.file("usr/local/bin/x", 0o755, b"x")
        }),
        plain("layout-links", |_, s| s.link("system/x", "gone")),
        plain("layout-dangling", |_, s| s.link("usr/bin/x", "gone")),
        plain("size-disk", |_, s| {
            s.file("usr/lib/large", 0o644, b"")
                .edit("usr/lib/large", |node| grow(node, 8 << 30))
        }),
    ]
}

fn content_rows() -> Vec<(&'static str, Good, Break)> {
    const RELEASE: &str = "etc/kairos-release";
    vec![
        plain("release-missing", |_, s| s.without(RELEASE)),
        plain("release-missing", |_, s| {
            s.file(RELEASE, 0o644, b"nonsense\n")
        }),
        plain("release-keys", |_, s| {
            replace(s, RELEASE, "KAIROS_HOME_URL=\"https://example.org\"\n", "")
        }),
        plain("release-form", |_, s| {
            replace(s, RELEASE, "RELEASE=\"v1.0.0\"", "RELEASE=v1.0.0")
        }),
        plain("release-quoting", |_, s| {
            replace(
                s,
                RELEASE,
                "https://example.org/issues",
                "https://example.org/\\$x",
            )
        }),
        plain("release-arch", |_, s| {
            replace(s, RELEASE, "TARGETARCH=\"amd64\"", "TARGETARCH=\"arm64\"")
        }),
        plain("release-variant", |_, s| {
            replace(s, RELEASE, "VARIANT=\"core\"", "VARIANT=\"other\"")
        }),
        plain("release-mode", |_, s| {
            s.edit(RELEASE, |node| node.mode = 0o600)
        }),
        plain("model-known", |_, s| {
            replace(s, RELEASE, "\"generic\"", "\"rpi5\"")
        }),
        plain("oem-missing", |_, s| s.without("system/oem/00_rootfs.yaml")),
        plain("oem-syntax", |_, s| {
            s.file("system/oem/90_x.yaml", 0o644, b"stages: [\n")
        }),
        plain("oem-syntax", |_, s| {
            s.file("oem2", 0o644, b"")
                .file("system/oem/a/b.yml", 0o644, b"- x\n")
                .without("oem2")
        }),
        plain("oem-stages", |_, s| {
            replace(s, "system/oem/00_rootfs.yaml", "  rootfs:", "  rootfsx:")
        }),
        plain("oem-modes", |_, s| {
            replace(
                s,
                "system/oem/00_rootfs.yaml",
                "permissions: 0644",
                "owner: 0",
            )
        }),
        plain("oem-readable", |_, s| {
            s.edit("system/oem/00_rootfs.yaml", |node| node.mode = 0)
        }),
        plain("residue-machine-id", |_, s| {
            s.file(
                "etc/machine-id",
                0o444,
                b"0123456789abcdef0123456789abcdef\n",
            )
        }),
        plain("residue-machine-id", |_, s| {
            s.file("var/lib/dbus/machine-id", 0o444, b"0123456789abcdef\n")
        }),
        plain("residue-host-keys", |_, s| {
            s.file("etc/ssh/ssh_host_rsa_key", 0o600, b"x")
        }),
        plain("residue-random-seed", |_, s| {
            s.file("var/lib/systemd/random-seed", 0o600, b"x")
        }),
        plain("residue-initiator-name", |_, s| {
            replace(
                s,
                "etc/iscsi/initiatorname.iscsi",
                "GenerateName=yes",
                "InitiatorName=iqn.x",
            )
        }),
        plain("residue-hostname", |_, s| {
            s.file("etc/hostname", 0o644, b"builder\n")
        }),
        plain("residue-secrets", |_, s| {
            s.file("root/.ssh/id_rsa", 0o600, b"x")
        }),
        plain("residue-package-cache", |_, s| {
            s.file("var/lib/apt/lists/debian_Packages", 0o644, b"x")
        }),
        plain("residue-temporary", |_, s| s.file("tmp/x", 0o644, b"x")),
        plain("residue-build", |_, s| {
            s.file("usr/sbin/policy-rc.d", 0o755, b"x")
        }),
    ]
}

fn kind_rows() -> Vec<(&'static str, Good, Break)> {
    let thor = || Good::board(Model::NvidiaJetsonThor);
    vec![
        ("initrd-fips", Good::fips(), |g, s| {
            initrd_without(g, s, "fips.sh")
        }),
        ("programs-fips", Good::fips(), |_, s| {
            let plain = crate::framework::elf::head_for_tests(Arch::Amd64);
            s.file("usr/bin/immucore", 0o755, &plain)
        }),
        ("initrd-in-trusted", Good::trusted(), |_, s| {
            s.file("boot/initrd", 0o644, b"x")
        }),
        ("trusted-immucore", Good::trusted(), |_, s| {
            s.without("usr/bin/immucore").file(
                "usr/sbin/immucore",
                0o755,
                &crate::framework::elf::head_for_tests(Arch::Amd64),
            )
        }),
        ("trusted-systemd-boot", Good::trusted(), |_, s| {
            s.without("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
        }),
        ("trusted-nvdimm", Good::trusted(), |_, s| {
            s.file(
                "usr/lib/os-release",
                0o644,
                b"ID=ubuntu\nVERSION_ID=24.04\n",
            )
            .without(&format!("usr/lib/modules/{KERNEL}/kernel/drivers/nvdimm"))
        }),
        ("trusted-dead-weight", Good::trusted(), |_, s| {
            s.file("usr/lib/grub/x", 0o644, b"")
                .edit("usr/lib/grub/x", |node| grow(node, 5 << 20))
        }),
        ("size-boot-file", Good::trusted(), |_, s| {
            s.file("usr/lib/x", 0o644, b"")
                .edit("usr/lib/x", |node| grow(node, 4 << 30))
        }),
        ("size-firmware", Good::trusted(), |_, s| {
            s.file("usr/lib/x", 0o644, b"")
                .edit("usr/lib/x", |node| grow(node, 2 << 30))
        }),
        ("provider-programs", Good::standard(), |_, s| {
            s.edit("system/providers/agent-provider-kairos", |node| {
                node.mode = 0o644
            })
            .edit("system/providers", |_| {})
            .without("system/providers/agent-provider-kairos")
        }),
        ("provider-distribution", Good::standard(), |_, s| {
            s.without("usr/bin/k3s")
        }),
        ("release-variant", Good::standard(), |_, s| {
            replace(
                s,
                "etc/kairos-release",
                "KAIROS_SOFTWARE_VERSION=\"v1.30.0+k3s1\"\n",
                "",
            )
        }),
        ("services-openrc", Good::new(), |_, s| {
            s.without("usr/lib/systemd/systemd")
                .file("usr/sbin/init", 0o755, b"program")
                .file("usr/sbin/openrc", 0o755, b"program")
        }),
        ("model-bootargs", Good::board(Model::Rpi4), |_, s| {
            replace(s, "etc/cos/bootargs.cfg", "rpi4", "rpi3")
        }),
        (
            "model-iscsi",
            Good::board(Model::NvidiaJetsonOrinNx),
            |_, s| s.without("etc/dracut.conf.d/kairos-skip-scsi.conf"),
        ),
        ("model-thor-firmware", thor(), |_, s| {
            s.without("usr/sbin/kairos-jetson-qspi-update")
        }),
        ("model-thor-display", thor(), |g, s| {
            let name = g.entries()[3].0.replace("overlay", "nvidia_drm");
            initrd_with(g, s, &name)
        }),
    ]
}

/// Kinds of good images.
fn goods() -> Vec<Good> {
    let boards = Model::all().filter(|model| *model != Model::Generic);
    let mut all = vec![Good::new(), Good::trusted(), Good::standard(), Good::fips()];
    all.extend(boards.map(Good::board));
    all
}

#[test]
fn nothing_is_wrong_with_a_good_image_of_any_kind() {
    for good in goods() {
        let report = check(good.sample(), &good.scope());
        assert_eq!(report.findings, [], "{good:?}");
    }
}

#[test]
fn each_rule_speaks_when_it_alone_is_broken_and_no_other_does() {
    for (id, good, change) in table() {
        let report = check(change(&good, good.sample()), &good.scope());
        assert_eq!(
            broken(&report),
            BTreeSet::from([id]),
            "{:#?}",
            report.findings
        );
        let rule = rules::find(id).expect("a rule");
        assert!(
            report
                .findings
                .iter()
                .all(|finding| finding.severity == rule.severity)
        );
        assert_eq!(report.passes(), rule.severity == Severity::Warning, "{id}");
    }
}

/// These compare the image with what the caller knows; each has a test of its own.
const OF_SCOPE: [&str; 3] = ["release-flags", "model-arch", "model-kernel"];

#[test]
fn every_rule_has_a_row_in_the_table_and_a_name_of_its_own() {
    let rows: BTreeSet<&str> = table().iter().map(|row| row.0).chain(OF_SCOPE).collect();
    let ids: Vec<&str> = rules::all().map(|rule| rule.id).collect();
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), rows);
    assert_eq!(ids.len(), rows.len(), "two rules share a name");
}

#[test]
fn every_rule_says_what_it_demands_and_what_to_do_in_one_line() {
    for rule in rules::all() {
        for text in [rule.demand, rule.remedy] {
            assert!(
                !text.is_empty()
                    && text.len() < 150
                    && !text.ends_with('.')
                    && !text.contains('\n'),
                "{}",
                rule.id
            );
        }
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(rule.id.bytes().all(is_plain), "{}", rule.id);
    }
}

#[test]
fn what_the_caller_says_counts_against_what_the_image_says() {
    let good = Good::new();
    let with = |change: fn(&mut Scope)| {
        let mut scope = good.scope();
        change(&mut scope);
        broken(&check(good.sample(), &scope))
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        with(|scope| scope.version = Some("v2.0.0".into())),
        ["release-flags"]
    );
    let trusted = with(|scope| scope.trusted = Some(true));
    for id in ["release-flags", "trusted-systemd-boot", "initrd-in-trusted"] {
        assert!(trusted.iter().any(|found| found == id), "{trusted:?}");
    }
    let board = with(|scope| scope.model = Some(Model::NvidiaJetsonThor));
    for id in [
        "release-flags",
        "model-arch",
        "model-kernel",
        "model-thor-firmware",
    ] {
        assert!(board.iter().any(|found| found == id), "{board:?}");
    }
}

#[test]
fn a_board_accepts_the_generic_kernel_beside_its_own_where_the_distribution_brings_both() {
    let good = Good::board(Model::Rpi4);
    let sample = good
        .sample()
        .file("boot/vmlinuz-6.8.0-51-generic", 0o644, b"k");
    assert_eq!(check(sample, &good.scope()).findings, []);
}

#[test]
fn the_install_phase_alone_need_not_have_what_the_init_phase_makes() {
    let good = Good::new();
    let sample = good
        .sample()
        .without("boot/vmlinuz")
        .without("boot/initrd")
        .without("etc/kairos-release")
        .file("etc/machine-id", 0o444, b"0123456789abcdef\n")
        .without("usr/bin/grub2-editenv")
        .without("etc/systemd/system/systemd-firstboot.service");
    let scope = Scope {
        stage: Stage::Install,
        ..good.scope()
    };
    assert_eq!(check(sample.clone(), &scope).findings, []);
    assert!(!check(sample, &good.scope()).passes());
    let report = check(good.sample().without("usr/bin/rsync"), &scope);
    assert_eq!(broken(&report), BTreeSet::from(["programs-runtime"]));
}

#[test]
fn what_a_step_makes_that_was_left_out_on_purpose_is_only_a_warning() {
    let good = Good::new();
    let scope = Scope {
        skipped: vec![Skipped {
            step: "initrd".into(),
            by: "--skip-step init".into(),
        }],
        ..good.scope()
    };
    let report = check(good.sample().without("boot/initrd"), &scope);
    assert!(report.passes());
    assert_eq!(report.findings[0].severity, Severity::Warning);
    assert!(
        report.findings[0]
            .line()
            .ends_with("(`--skip-step init` leaves out step `initrd`)")
    );
}

#[test]
fn an_ignored_rule_is_not_checked_and_an_unknown_one_is_refused() {
    let good = Good::new();
    let mut scope = Scope {
        ignored: vec!["initrd-missing".into()],
        ..good.scope()
    };
    let report = check(good.sample().without("boot/initrd"), &scope);
    assert_eq!(report.findings, []);
    assert!(!report.checked.iter().any(|id| id == "initrd-missing"));
    scope.check_ignored().unwrap();
    for (id, hint) in [("initrd-mising", "`initrd-missing`"), ("what", "--rules")] {
        scope.ignored = vec![id.into()];
        let error = scope.check_ignored().unwrap_err().render_text();
        assert!(error.contains(id) && error.contains(hint), "{error}");
    }
}

#[test]
fn the_error_names_every_broken_rule_and_each_remedy_once() {
    let good = Good::new();
    let sample = good
        .sample()
        .without("boot/initrd")
        .without("efi")
        .without("mnt");
    let text = check(sample, &good.scope())
        .error("it does not pass", "`--no-validate`")
        .expect("broken")
        .render_text();
    for line in [
        "caused by: initrd-missing: /boot/initrd: it does not exist",
        "caused by: layout-mount-points: /efi: it does not exist",
        "caused by: layout-mount-points: /mnt: it does not exist",
        "hint: let the step `initrd` run",
        "--no-validate",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert_eq!(text.matches("let the step `miscellaneous` run").count(), 1);
    assert!(
        check(good.sample(), &good.scope())
            .error("it does not pass", "")
            .is_none()
    );
}

/// An image with an error, a warning, and a name that no format takes as it is.
fn troubled() -> Report {
    let good = Good::new();
    let sample = good
        .sample()
        .without("boot/initrd")
        .file("tmp/x", 0o644, b"x")
        .file("usr/lib/<\"&'\u{1}\u{1b}[31m>", 0o666, b"");
    check(sample, &good.scope())
}

#[test]
fn sarif_has_a_rule_for_every_result_and_a_location_in_each() {
    let text = render(&troubled(), "oci:out:v1", Form::Sarif).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["version"], "2.1.0");
    let run = &value["runs"][0];
    let rules: Vec<&str> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            assert!(
                rule["shortDescription"]["text"].is_string() && rule["help"]["text"].is_string()
            );
            rule["id"].as_str().unwrap()
        })
        .collect();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(rules.contains(&result["ruleId"].as_str().unwrap()));
        assert!(matches!(
            result["level"].as_str(),
            Some("error" | "warning")
        ));
        assert!(result["message"]["text"].is_string());
        let location = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        let uri = location.as_str().unwrap();
        assert!(
            uri.is_ascii() && !uri.starts_with('/') && !uri.contains(['<', '"', ' ']),
            "{uri}"
        );
    }
}

#[test]
fn junit_is_well_formed_and_counts_what_it_shows() {
    let report = troubled();
    let text = render(&report, "a<b>&\"c\"", Form::Junit).unwrap();
    assert_eq!(text.matches("<testcase ").count(), report.checked.len());
    assert_eq!(text.matches("<failure ").count(), 1);
    assert!(text.contains(&format!(
        "tests=\"{}\" failures=\"1\"",
        report.checked.len()
    )));
    assert!(!text.contains(['\u{1}', '\u{1b}']));
    // A judge of its own, where there is one.
    let Ok(mut child) = std::process::Command::new("xmllint")
        .args(["--noout", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
    else {
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_report_survives_being_remembered() {
    let report = troubled();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
}

#[test]
fn text_shows_findings_with_their_remedy_and_a_verdict() {
    let text = render(&troubled(), "oci:out:v1", Form::Text).unwrap();
    for line in [
        "image     oci:out:v1\n",
        "error    initrd-missing: /boot/initrd: it does not exist\n         hint: let the step `initrd` run\n",
        "warning  residue-temporary: /tmp: it holds 1 B\n",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    assert!(text.ends_with("1 error, 2 warnings\n"), "{text}");
}
