//! Which steps run on which kind of boot: their conditions, evaluated with a command line and sentinels of our own.

use crate::support::{Root, step};

/// Whether the step runs with these sentinels and this command line.
fn runs(file: &str, stage: &str, name: &str, sentinels: &[&str], cmdline: &str) -> bool {
    let root = Root::with_sentinels(sentinels);
    root.cmdline(cmdline);
    root.holds(file, stage, name)
}

#[test]
fn installers_are_asked_for_by_whole_words_on_live_media() {
    let automatic = "Start the installer on the first console";
    let interactive = "Start the interactive installer on the first console";
    for (sentinels, cmdline, expected) in [
        (
            &["live_mode"][..],
            "cdroot install-mode quiet",
            (true, false),
        ),
        (&["live_mode"], "install-mode", (true, false)),
        (&["live_mode"], "quiet nodepair.enable", (true, false)),
        (
            &["live_mode"],
            "cdroot install-mode-interactive quiet",
            (false, true),
        ),
        (&["live_mode"], "interactive-install", (false, true)),
        (
            &["live_mode"],
            "install-mode install-mode-interactive",
            (false, true),
        ),
        (
            &["live_mode"],
            "no-install-mode x=install-mode",
            (false, false),
        ),
        (&["live_mode"], "", (false, false)),
        (
            &["live_mode", "uki_install_mode"],
            "install-mode",
            (true, false),
        ),
        (
            &["uki_install_mode"],
            "install-mode-interactive",
            (false, true),
        ),
        (&["active_mode"], "install-mode", (false, false)),
        (
            &["recovery_mode"],
            "install-mode-interactive",
            (false, false),
        ),
    ] {
        for openrc in ["", " under OpenRC"] {
            let runs = |name: &str| {
                runs(
                    "52_installer.yaml",
                    "initramfs",
                    &format!("{name}{openrc}"),
                    sentinels,
                    cmdline,
                )
            };
            assert_eq!(
                (runs(automatic), runs(interactive)),
                expected,
                "{sentinels:?} {cmdline:?}"
            );
        }
    }
}

#[test]
fn the_browser_installer_needs_live_media_only() {
    for (sentinels, expected) in [
        (&["live_mode"][..], true),
        (&["live_mode", "uki_install_mode"], true),
        (&["active_mode"], false),
        (&[], false),
    ] {
        assert_eq!(
            runs(
                "52_installer.yaml",
                "boot",
                "Start the browser's installer",
                sentinels,
                ""
            ),
            expected
        );
    }
}

#[test]
fn reset_and_remote_recovery_are_asked_for_by_whole_words() {
    let reset = "Reset on the first console";
    for (sentinels, cmdline, expected) in [
        (&["autoreset_mode"][..], "quiet", true),
        (&["active_mode"], "quiet kairos.reset", true),
        (&["active_mode"], "kairos.reset=1 quiet", true),
        (&["active_mode"], "no.kairos.reset kairos.reset-not", false),
        (&["recovery_mode"], "quiet", false),
    ] {
        assert_eq!(
            runs("51_reset.yaml", "initramfs", reset, sentinels, cmdline),
            expected,
            "{cmdline}"
        );
        assert_eq!(
            runs(
                "51_reset.yaml",
                "initramfs",
                &format!("{reset} under OpenRC"),
                sentinels,
                cmdline
            ),
            expected
        );
    }
    let recovery = "Start remote recovery on the first console";
    for (cmdline, expected) in [
        ("vga=795 nomodeset kairos.remote_recovery_mode", true),
        ("kairos.remote_recovery_mode_off", false),
        ("", false),
    ] {
        assert_eq!(
            runs(
                "50_recovery.yaml",
                "initramfs",
                recovery,
                &["recovery_mode"],
                cmdline
            ),
            expected,
            "{cmdline}"
        );
    }
}

#[test]
fn each_kind_of_boot_gets_exactly_one_layout() {
    let layouts = [
        "Layout of an installed system",
        "Layout of recovery and reset",
        "Layout of the signed installer",
    ];
    for (sentinels, expected) in [
        (&["active_mode"][..], 0),
        (&["passive_mode"], 0),
        (&["live_mode"], 0),
        (&["active_mode", "uki_boot_mode"], 0),
        (&["unknown"], 0),
        (&["recovery_mode"], 1),
        (&["autoreset_mode"], 1),
        (&["live_mode", "uki_install_mode"], 2),
    ] {
        let runs = layouts.map(|name| runs("00_rootfs.yaml", "rootfs", name, sentinels, ""));
        let expected = [0, 1, 2].map(|index| index == expected);
        assert_eq!(runs, expected, "{sentinels:?}");
    }
}

/// What needs the persistent partition, or would get in the way of its deletion.
#[test]
fn recovery_and_reset_leave_the_installed_system_alone() {
    for (file, stage, name) in [
        (
            "00_rootfs.yaml",
            "rootfs.after",
            "Grow the persistent partition",
        ),
        (
            "00_home_dir_owner_fix.yaml",
            "network",
            "Repair the owners of home directories",
        ),
        ("01_extra_binds.yaml", "rootfs", "Snaps"),
        ("02_agent.yaml", "initramfs", "Install and enable the agent"),
        ("02_agent.yaml", "boot", "Start the agent"),
        ("02_notify.yaml", "initramfs", "Announce the boot"),
        (
            "31_hosts.yaml",
            "initramfs",
            "Fill the persistent hosts file",
        ),
        (
            "31_hosts.yaml",
            "initramfs",
            "Make the persistent host name",
        ),
        (
            "99_sysext.yaml",
            "initramfs",
            "Keep /usr/local writable when extensions are merged by hand",
        ),
    ] {
        assert!(
            runs(file, stage, name, &["active_mode"], ""),
            "{file} {name}"
        );
        for sentinel in ["recovery_mode", "autoreset_mode"] {
            assert!(
                !runs(file, stage, name, &[sentinel], ""),
                "{file} {name} runs with {sentinel}"
            );
        }
    }
}

#[test]
fn user_data_is_pulled_once_and_into_signed_systems_only_on_request() {
    for stage in ["rootfs.before", "initramfs.before", "network"] {
        let pull = |root: &Root| root.holds("00_datasource.yaml", stage, "Pull user data");
        let root = Root::with_sentinels(&["active_mode"]);
        assert!(pull(&root));
        root.write("oem/95_userdata/userdata.yaml", "");
        assert!(!pull(&root), "there is data already");

        let root = Root::with_sentinels(&["active_mode", "uki_boot_mode"]);
        assert!(!pull(&root));
        for cmdline in [
            "a kairos.pull_datasources",
            "kairos.pull_datasources=true b",
        ] {
            root.cmdline(cmdline);
            assert!(pull(&root), "{cmdline}");
        }
        root.cmdline("kairos.pull_datasourcesx");
        assert!(!pull(&root));
    }
}

#[test]
fn data_of_old_releases_moves_to_its_new_place() {
    let root = Root::new();
    root.write("oem/userdata/a", "old");
    assert!(root.perform(
        "00_datasource.yaml",
        "rootfs.before",
        "Move the data of old releases"
    ));
    assert!(!root.perform(
        "00_datasource.yaml",
        "rootfs.before",
        "Drop the data of old releases"
    ));
    assert_eq!(root.read("oem/95_userdata/a"), "old");
    root.write("oem/userdata/a", "older");
    assert!(!root.perform(
        "00_datasource.yaml",
        "rootfs.before",
        "Move the data of old releases"
    ));
    assert!(root.perform(
        "00_datasource.yaml",
        "rootfs.before",
        "Drop the data of old releases"
    ));
    assert_eq!(
        (
            root.read("oem/95_userdata/a").as_str(),
            root.exists("oem/userdata")
        ),
        ("old", false)
    );
}

#[test]
fn late_data_has_the_missed_stages_run() {
    let late = "Run the stages that late data missed";
    let root = Root::new();
    assert!(root.perform(
        "00_datasource.yaml",
        "initramfs.before",
        "Note that there is none yet"
    ));
    assert!(!root.holds("00_datasource.yaml", "network", late));
    root.write("oem/95_userdata/userdata.yaml", "");
    assert!(root.holds("00_datasource.yaml", "network", late));
    assert!(root.perform("00_datasource.yaml", "network", "Stop looking"));
    assert!(
        !root.exists("run/.userdata_load") && !root.holds("00_datasource.yaml", "network", late)
    );
    // The agent's command line knows options only before the stage.
    let step = step("00_datasource.yaml", "network", late);
    for command in crate::support::strings(&step["commands"]) {
        assert!(command.starts_with(
            "/usr/bin/kairos-agent run-stage --override-cloud-init-paths /oem/95_userdata "
        ));
    }
}

#[test]
fn selinux_is_set_up_only_where_it_is_on() {
    for (cmdline, expected) in [
        ("selinux=1", true),
        ("a selinux=0 b", false),
        ("xselinux=1", false),
        ("", false),
    ] {
        assert_eq!(
            runs(
                "26_selinux.yaml",
                "initramfs",
                "Load the policy",
                &["active_mode"],
                cmdline
            ),
            expected
        );
    }
}

#[test]
fn a_boot_is_assessed_only_on_the_active_image_of_a_grub_system() {
    let good = "Record a good boot";
    let failed = "Note that the upgrade failed";
    for (cmdline, expected) in [
        (
            "root=LABEL=COS_ACTIVE cos-img/filename=/cOS/active.img panic=5",
            (true, false),
        ),
        (
            "root=LABEL=COS_PASSIVE cos-img/filename=/cOS/passive.img upgrade_failure",
            (false, true),
        ),
        (
            "cos-img/filename=/cOS/active.img upgrade_failure rd.immucore.uki",
            (false, false),
        ),
        (
            "cos-img/filename=/cOS/passive.img no_upgrade_failure",
            (false, false),
        ),
    ] {
        let runs = |name| {
            runs(
                "08_grub.yaml",
                "boot.before",
                name,
                &["active_mode"],
                cmdline,
            )
        };
        assert_eq!((runs(good), runs(failed)), expected, "{cmdline}");
    }
}

#[test]
fn guest_agents_follow_the_hypervisor() {
    for (vendor, product, qemu, vmware, virtualbox) in [
        ("QEMU", "Standard PC (Q35 + ICH9, 2009)", true, false, false),
        ("qemu", "", true, false, false),
        ("Red Hat", "KVM", true, false, false),
        ("", "QEMU Virtual Machine", true, false, false),
        (
            "Microsoft Corporation",
            "Virtual Machine",
            false,
            false,
            false,
        ),
        ("Dell Inc.", "PowerEdge R740", false, false, false),
        ("LENOVO", "Standard PC", false, false, false),
        ("QEMU Labs", "Standard PC", false, false, false),
        (
            "VMware, Inc.",
            "VMware Virtual Platform",
            false,
            true,
            false,
        ),
        ("innotek GmbH", "VirtualBox", false, false, true),
    ] {
        let root = Root::new();
        root.write("sys/class/dmi/id/sys_vendor", &format!("{vendor}\n"));
        root.write("sys/class/dmi/id/product_name", &format!("{product}\n"));
        let runs = |of: &str| {
            root.holds(
                "26_vm.yaml",
                "boot",
                &format!("Start the guest agent of {of}"),
            )
        };
        assert_eq!(
            (runs("QEMU"), runs("VMware"), runs("VirtualBox")),
            (qemu, vmware, virtualbox),
            "{vendor} {product}"
        );
    }
    assert!(
        !Root::new().holds("26_vm.yaml", "boot", "Start the guest agent of QEMU"),
        "no DMI"
    );
}

#[test]
fn boards_are_known_by_their_device_tree() {
    let root = Root::new();
    assert!(!root.holds(
        "12_nvidia.yaml",
        "initramfs",
        "Set the defaults of the installer"
    ));
    root.write(
        "sys/firmware/devicetree/base/model",
        "NVIDIA Jetson AGX Orin\0",
    );
    assert!(root.holds(
        "12_nvidia.yaml",
        "initramfs",
        "Set the defaults of the installer"
    ));
    assert!(root.holds(
        "12_nvidia.yaml",
        "initramfs.before",
        "Keep the image's /usr/local visible"
    ));
    root.write("run/cos/recovery_mode", "1");
    assert!(!root.holds(
        "12_nvidia.yaml",
        "initramfs.before",
        "Keep the image's /usr/local visible"
    ));

    root.write("proc/device-tree/model", "Raspberry Pi 4 Model B\0");
    root.stub("date", "echo 1970");
    assert!(root.holds("11_RPI.yaml", "initramfs.before", "Set the clock"));
    root.stub("date", "echo 2026");
    assert!(
        !root.holds("11_RPI.yaml", "initramfs.before", "Set the clock"),
        "a Pi with a clock"
    );
}

#[test]
fn the_serial_login_does_not_undo_the_automatic_one() {
    let serial = |sentinels| {
        runs(
            "10_accounting.yaml",
            "initramfs.after",
            "Offer a login on the serial line",
            sentinels,
            "",
        )
    };
    assert!(serial(&["active_mode"]));
    assert!(!serial(&["live_mode"]));
}
