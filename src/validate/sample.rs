//! Small images in which nothing is wrong, each file of which is there because a rule asks for it.

use std::io::Write as _;

use super::Scope;
use super::kernel_image::bzimage_for_tests;
use crate::distro::{Arch, Model};
use crate::framework::elf::head_for_tests;
use crate::initrd::archive;
use crate::tree::samples::Sample;

pub(super) const KERNEL: &str = "6.1.0-38-amd64";
pub(super) const PI_KERNEL: &str = "5.15.0-1025-raspi";
const TEGRA: &str = "5.15.148-tegra";
const FIPS_MARK: &[u8] = b"build\tGOFIPS140=v1.0.0\n";

/// What every good image of some kind starts from.
#[derive(Debug, Clone)]
pub(super) struct Good {
    arch: Arch,
    model: Model,
    trusted: bool,
    standard: bool,
    fips: bool,
    kernel: &'static str,
}

impl Good {
    /// Debian on amd64: generic, core, GRUB.
    pub(super) fn new() -> Self {
        Self {
            arch: Arch::Amd64,
            model: Model::Generic,
            trusted: false,
            standard: false,
            fips: false,
            kernel: KERNEL,
        }
    }

    pub(super) fn trusted() -> Self {
        Self {
            trusted: true,
            ..Self::new()
        }
    }

    pub(super) fn standard() -> Self {
        Self {
            standard: true,
            ..Self::new()
        }
    }

    pub(super) fn fips() -> Self {
        Self {
            fips: true,
            ..Self::new()
        }
    }

    pub(super) fn board(model: Model) -> Self {
        Self {
            arch: Arch::Arm64,
            model,
            kernel: match model {
                Model::Rpi3 | Model::Rpi4 => PI_KERNEL,
                Model::NvidiaDgxSpark => "6.8.0-1020-nvidia",
                _ => TEGRA,
            },
            ..Self::new()
        }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope {
            arch: Some(self.arch),
            ..Scope::default()
        }
    }

    pub(super) fn sample(&self) -> Sample {
        let mut sample = self.system(Sample::new());
        sample = self.kairos(sample);
        sample = self.boot(sample);
        if !self.trusted {
            sample = self.grub(sample);
        }
        self.of_kind(sample)
    }

    fn system(&self, mut sample: Sample) -> Sample {
        for dir in super::tests::MOUNT_POINTS {
            sample = sample.dir(dir, 0o755);
        }
        sample = sample
            .link("bin", "usr/bin")
            .link("sbin", "usr/sbin")
            .link("lib", "usr/lib")
            .link("usr/sbin/init", "../lib/systemd/systemd")
            .link("var/lock", "/run/lock")
            .dir("tmp", 0o1777)
            .dir("var/tmp", 0o1777)
            .file("usr/lib/systemd/systemd", 0o755, b"program")
            .file("usr/lib/os-release", 0o644, b"ID=debian\nVERSION_ID=12\n")
            .link("etc/os-release", "../usr/lib/os-release")
            .file("etc/machine-id", 0o444, b"")
            .file("etc/hostname", 0o644, b"")
            .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
            .file("etc/shadow", 0o640, b"root:*:19000:0:99999:7:::\n")
            .file("etc/ssh/sshd_config", 0o644, b"Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n")
            .file("etc/ssh/sshd_config.d/05-kairos-hardening.conf", 0o644, b"# hard\nPermitRootLogin no\n")
            .file("etc/ssh/moduli", 0o644, b"20230101000000 2 6 100 3071 2 F00F\n")
            .file("etc/iscsi/initiatorname.iscsi", 0o600, b"GenerateName=yes\n")
            .file("var/lib/dpkg/status", 0o644, b"Package: systemd\nStatus: install ok installed\nVersion: 252.1\n\nPackage: udev\nStatus: install ok installed\nVersion: 252.1\n");
        for program in super::tests::PROGRAMS {
            sample = sample.file(&format!("usr/bin/{program}"), 0o755, b"program");
        }
        sample = sample.edit("usr/bin/sudo", |sudo| sudo.mode = 0o4755);
        units(sample)
    }

    fn program(&self) -> Vec<u8> {
        let mut program = head_for_tests(self.arch);
        program.resize(100, 0);
        if self.fips {
            program.extend(FIPS_MARK);
        }
        program
    }

    fn kairos(&self, sample: Sample) -> Sample {
        let program = self.program();
        let mut sample = sample
            .file("usr/bin/immucore", 0o755, &program)
            .file("usr/bin/kairos-agent", 0o755, &program)
            .file("system/discovery/kcrypt-discovery-challenger", 0o755, &program)
            .file("system/installer/kairos-installer", 0o755, &program)
            .file("system/oem/00_rootfs.yaml", 0o644, b"name: x\nstages:\n  rootfs:\n    - files:\n        - path: /x\n          permissions: 0644\n          content: y\n");
        let mut release = String::new();
        let (arch, model, trusted, fips) = (self.arch, self.model, self.trusted, self.fips);
        let variant = if self.standard { "standard" } else { "core" };
        for (key, value) in [
            ("ARCH", arch.to_string()),
            ("BUG_REPORT_URL", "https://example.org/issues".into()),
            ("FAMILY", "debian".into()),
            ("FIPS", fips.to_string()),
            ("FLAVOR", "debian".into()),
            ("FLAVOR_RELEASE", "12".into()),
            ("HOME_URL", "https://example.org".into()),
            ("ID", "kairos".into()),
            ("ID_LIKE", format!("kairos-{variant}-debian-12")),
            ("MODEL", model.to_string()),
            ("NAME", format!("kairos-{variant}-debian-12")),
            ("RELEASE", "v1.0.0".into()),
            ("TARGETARCH", arch.to_string()),
            ("TRUSTED_BOOT", trusted.to_string()),
            ("VARIANT", variant.into()),
            ("VERSION", "v1.0.0".into()),
        ] {
            release.push_str(&format!("KAIROS_{key}=\"{value}\"\n"));
        }
        if self.standard {
            release.push_str("KAIROS_SOFTWARE_VERSION=\"v1.30.0+k3s1\"\nKAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"\n");
            sample = sample
                .file("system/providers/agent-provider-kairos", 0o755, &program)
                .file("usr/bin/edgevpn", 0o755, &head_for_tests(arch))
                .file("usr/bin/k3s", 0o755, b"program");
        }
        sample.file("etc/kairos-release", 0o644, release.as_bytes())
    }

    fn boot(&self, sample: Sample) -> Sample {
        let kernel = self.kernel;
        let modules = format!("usr/lib/modules/{kernel}");
        let config =
            b"CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\nCONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZLIB=y\n";
        let image = match self.arch {
            Arch::Amd64 => bzimage_for_tests(kernel),
            _ => arm64_image(kernel),
        };
        let sample = sample
            .file(&format!("boot/vmlinuz-{kernel}"), 0o644, &image)
            .link("boot/vmlinuz", &format!("/boot/vmlinuz-{kernel}"))
            .file(&format!("boot/config-{kernel}"), 0o644, config)
            .file(&format!("{modules}/kernel/fs/loop.ko"), 0o644, b"module")
            .file(&format!("{modules}/kernel/drivers/nvdimm/nfit.ko"), 0o644, b"module")
            .file(&format!("{modules}/modules.dep"), 0o644, b"kernel/drivers/usb/host/xhci-pci-renesas.ko:\nkernel/drivers/scsi/sr_mod.ko: kernel/a.ko\n")
            .file(&format!("{modules}/modules.builtin"), 0o644, b"kernel/fs/ext4/ext4.ko\n");
        if self.trusted {
            return sample;
        }
        sample.file("boot/initrd", 0o600, &initrd(&self.entries()))
    }

    /// Returns what the initrd holds.
    pub(super) fn entries(&self) -> Vec<(String, u32, Vec<u8>)> {
        let modules = format!("usr/lib/modules/{}/kernel", self.kernel);
        let link = |name: &str, target: &str| (name.to_owned(), 0o120_777, target.into());
        let mut entries = vec![
            link("init", "usr/lib/systemd/systemd"),
            link(
                "usr/lib/systemd/system/initrd.target.requires/immucore.service",
                "../immucore.service",
            ),
        ];
        let mut file = |name: String| entries.push((name, 0o100_755, b"program".to_vec()));
        file("usr/lib/systemd/systemd".into());
        for name in [
            "overlay",
            "squashfs",
            "loop",
            "isofs",
            "sr_mod",
            "xhci-pci-renesas",
        ] {
            file(format!("{modules}/{name}.ko.xz"));
        }
        for name in [
            "immucore",
            "kairos-agent",
            "blkid",
            "cryptsetup",
            "e2fsck",
            "lsblk",
            "mkfs.ext4",
            "mount",
            "rsync",
            "udevadm",
            "umount",
            "dmsquash-live-root",
        ] {
            file(format!("usr/bin/{name}"));
        }
        if self.fips {
            file("usr/sbin/fips.sh".into());
        }
        entries
    }

    fn grub(&self, mut sample: Sample) -> Sample {
        let (dir, suffix) = match self.arch {
            Arch::Amd64 => ("x86_64-efi", "x64"),
            _ => ("arm64-efi", "aa64"),
        };
        let menu: String = ["cos", "fallback", "recovery", "statereset"]
            .iter()
            .map(|id| format!("menuentry \"x\" --id {id} {{\n}}\n"))
            .collect();
        let bootargs = format!(
            "if [ \"$KAIROS_MODEL\" = \"{}\" ]; then\nfi\nset kernelcmd=\"x\"\n",
            self.model
        );
        for name in ["loopback", "squash4", "xzio", "gzio", "regexp"] {
            sample = sample.file(&format!("usr/lib/grub/{dir}/{name}.mod"), 0o644, b"m");
        }
        sample
            .file("etc/cos/grub.cfg", 0o644, menu.as_bytes())
            .file("etc/cos/bootargs.cfg", 0o644, bootargs.as_bytes())
            .file(
                &format!("usr/lib/grub/{dir}-signed/grub{suffix}.efi.signed"),
                0o644,
                b"g",
            )
            .file(
                &format!("usr/lib/shim/shim{suffix}.efi.signed"),
                0o644,
                b"s",
            )
            .file("usr/lib/grub/i386-pc/modinfo.sh", 0o644, b"m")
            .file("usr/sbin/grub-install", 0o755, b"program")
            .file("usr/bin/grub-editenv", 0o755, b"program")
            .link("usr/bin/grub2-editenv", "/usr/bin/grub-editenv")
    }

    fn of_kind(&self, mut sample: Sample) -> Sample {
        if self.trusted {
            for name in ["systemd-bootx64.efi", "linuxx64.efi.stub"] {
                sample = sample.file(&format!("usr/lib/systemd/boot/efi/{name}"), 0o644, b"e");
            }
        }
        match self.model {
            Model::NvidiaJetsonAgxOrin | Model::NvidiaJetsonOrinNx => sample.file(
                "etc/dracut.conf.d/kairos-skip-scsi.conf",
                0o644,
                b"omit_dracutmodules+=\" iscsi \"\n",
            ),
            Model::NvidiaJetsonThor => {
                sample.file("usr/sbin/kairos-jetson-qspi-update", 0o755, b"#!/bin/sh\n")
            }
            _ => sample,
        }
    }
}

fn units(mut sample: Sample) -> Sample {
    const DIR: &str = "usr/lib/systemd/system";
    for name in [
        "getty.target",
        "getty@.service",
        "systemd-logind.service",
        "systemd-udevd.service",
        "multi-user.target",
        "ssh.service",
        "systemd-networkd.service",
        "systemd-timesyncd.service",
        "systemd-firstboot.service",
    ] {
        sample = sample.file(&format!("{DIR}/{name}"), 0o644, b"[Unit]\n");
    }
    for name in [
        "ssh.service",
        "systemd-networkd.service",
        "systemd-timesyncd.service",
    ] {
        let link = format!("etc/systemd/system/multi-user.target.wants/{name}");
        sample = sample.link(&link, &format!("/{DIR}/{name}"));
    }
    sample
        .link(&format!("{DIR}/default.target"), "multi-user.target")
        .link(
            "etc/systemd/system/getty.target.wants/getty@tty1.service",
            "/lib/systemd/system/getty@.service",
        )
        .link("etc/systemd/system/systemd-firstboot.service", "/dev/null")
}

fn arm64_image(version: &str) -> Vec<u8> {
    let mut image = vec![0; 0x100];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image.extend(format!("Linux version {version} (a@b)").bytes());
    image
}

/// Packs an initrd: microcode in front, the rest in gzip.
pub(super) fn initrd(entries: &[(String, u32, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<(&str, u32, &[u8])> = entries
        .iter()
        .map(|(name, mode, content)| (name.as_str(), *mode, content.as_slice()))
        .collect();
    let mut out = archive(&[
        ("early_cpio", 0o100_644, b"1"),
        ("kernel/x86/microcode/AuthenticAMD.bin", 0o100_644, b"code"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive(&entries)).expect("memory");
    out.extend(gzip.finish().expect("memory"));
    out
}
