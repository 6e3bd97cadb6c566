//! What the steps do to an installed system, run twice where they run at every boot.

use std::os::unix::fs::PermissionsExt;

use crate::support::{Root, step, strings};

const HOSTS: &str = "31_hosts.yaml";

fn use_persistent_hosts(root: &Root) {
    for name in [
        "Fill the persistent hosts file",
        "Make the persistent host name",
        "Use the persistent files",
    ] {
        root.perform(HOSTS, "initramfs", name);
    }
}

#[test]
fn hosts_and_host_name_are_filled_once_and_linked_at_every_boot() {
    let root = Root::with_sentinels(&["active_mode"]);
    root.write("etc/hosts", "127.0.0.1 image\n");
    root.write("etc/hostname", "");
    use_persistent_hosts(&root);
    assert!(root.read("etc/hosts").starts_with("127.0.0.1 localhost\n"));
    assert!(root.holds(HOSTS, "initramfs.after", "Name the machine"));

    // The user names the machine; the next boot begins with the image's /etc again.
    root.write("usr/local/etc/hosts", "10.0.0.1 mine\n");
    root.write("usr/local/etc/hostname", "mine\n");
    for (path, text) in [("etc/hosts", "127.0.0.1 image\n"), ("etc/hostname", "")] {
        std::fs::remove_file(root.at(path)).expect("the link");
        root.write(path, text);
    }
    use_persistent_hosts(&root);
    assert_eq!(
        (
            root.read("etc/hosts").as_str(),
            root.read("etc/hostname").as_str()
        ),
        ("10.0.0.1 mine\n", "mine\n")
    );
    assert!(!root.holds(HOSTS, "initramfs.after", "Name the machine"));
    use_persistent_hosts(&root);
    assert_eq!(
        root.read("etc/hostname"),
        "mine\n",
        "linking again changes nothing"
    );
}

#[test]
fn the_signed_installer_names_the_machine_without_a_persistent_partition() {
    let root = Root::with_sentinels(&["live_mode", "uki_install_mode"]);
    root.write("etc/hosts", "127.0.0.1 localhost\n");
    root.write("etc/hostname", "");
    use_persistent_hosts(&root);
    assert!(!root.exists("usr/local/etc") && root.read("etc/hosts") == "127.0.0.1 localhost\n");
    assert!(root.holds(HOSTS, "initramfs.after", "Name the machine"));
}

#[test]
fn the_users_own_paths_are_added_to_the_layout() {
    let name = "Add the user's own paths to the layout";
    let root = Root::with_sentinels(&["active_mode"]);
    assert!(
        !root.holds("00_rootfs.yaml", "rootfs.after", name),
        "there are none"
    );
    root.write(
        "run/cos/cos-layout.env",
        "OVERLAY=\"tmpfs:25%\"\nPERSISTENT_STATE_PATHS=\"/a /b\"\nRW_PATHS=\"/var /etc\"\n",
    );
    root.write(
        "run/cos/custom-layout.env",
        "CUSTOM_BIND_MOUNTS=\"/data|x /c&d\"\nCUSTOM_EPHEMERAL_MOUNTS=/e\n",
    );
    assert!(root.perform("00_rootfs.yaml", "rootfs.after", name));
    let expected = "OVERLAY=\"tmpfs:25%\"\nPERSISTENT_STATE_PATHS=\"/a /b /data|x /c&d\"\nRW_PATHS=\"/var /etc /e\"\n";
    assert_eq!(root.read("run/cos/cos-layout.env"), expected);
    for sentinel in ["recovery_mode", "autoreset_mode", "live_mode"] {
        let root = Root::with_sentinels(&[sentinel]);
        root.write("run/cos/custom-layout.env", "");
        assert!(
            !root.holds("00_rootfs.yaml", "rootfs.after", name),
            "{sentinel}"
        );
    }
}

#[test]
fn the_persistent_paths_are_these() {
    let step = step("00_rootfs.yaml", "rootfs", "Layout of an installed system");
    let environment = &step["environment"];
    let paths = environment["PERSISTENT_STATE_PATHS"]
        .as_str()
        .expect("paths");
    assert_eq!(
        paths,
        "/etc/cni /etc/init.d /etc/iscsi /etc/k0s /etc/kubernetes /etc/modprobe.d /etc/pwx /etc/rancher /etc/runlevels /etc/ssh \
         /etc/ssl/certs /etc/sysconfig /etc/systemd /etc/zfs /home /opt /root /usr/libexec /var/cores /var/lib/ca-certificates \
         /var/lib/cni /var/lib/containerd /var/lib/calico /var/lib/dbus /var/lib/etcd /var/lib/extensions /var/lib/confexts \
         /var/lib/k0s /var/lib/kubelet /var/lib/longhorn /var/lib/osd /var/lib/rancher /var/lib/rook /var/lib/tailscale \
         /var/lib/wicked /var/lib/kairos /var/log"
    );
    assert_eq!(environment["VOLUMES"], "LABEL=COS_PERSISTENT:/usr/local");
    assert_eq!(
        (&environment["OVERLAY"], &environment["RW_PATHS"]),
        (&"tmpfs:25%".into(), &"/var /etc /srv".into())
    );
}

#[test]
fn the_machine_id_survives_a_reboot() {
    let root = Root::with_sentinels(&["active_mode"]);
    root.write("etc/machine-id", "1234\n");
    assert!(
        !root.holds("00_rootfs.yaml", "initramfs", "Restore the machine id"),
        "none is kept"
    );
    assert!(root.perform("00_rootfs.yaml", "fs", "Keep the machine id"));
    root.write("etc/machine-id", "");
    assert!(root.perform("00_rootfs.yaml", "initramfs", "Restore the machine id"));
    assert_eq!(root.read("etc/machine-id"), "1234\n");
    assert!(
        !root.holds("00_rootfs.yaml", "fs", "Keep the machine id"),
        "it is kept already"
    );
}

#[test]
fn homes_get_their_owners_back_once() {
    let root = Root::with_sentinels(&["active_mode"]);
    root.stub("chown", "");
    let passwd = |home: &str| root.at(home).display().to_string();
    for home in ["home/ann", "home/bob", "srv/svc"] {
        std::fs::create_dir_all(root.at(home)).expect("a home");
    }
    std::os::unix::fs::symlink("ann", root.at("home/link")).expect("a link");
    let lines = [
        "root:x:0:0:root:/root:/bin/sh".to_owned(),
        format!("ann:x:1000:1005::{}:/bin/sh", passwd("home/ann")),
        format!("low:x:999:999::{}:/bin/sh", passwd("home/bob")),
        format!("svc:x:1001:1001::{}:/bin/sh", passwd("srv/svc")),
        format!("gone:x:1002:1002::{}:/bin/sh", passwd("home/gone")),
        format!("link:x:1003:1003::{}:/bin/sh", passwd("home/link")),
        "broken".to_owned(),
    ];
    root.write("etc/passwd", &lines.join("\n"));
    let step = step(
        "00_home_dir_owner_fix.yaml",
        "network",
        "Repair the owners of home directories",
    );
    let script = step["files"][0]["content"].as_str().expect("a script");
    let script = script.replace("/home/*)", &format!("{}/*)", passwd("home")));
    assert!(root.run(&script).status.success());
    assert_eq!(root.calls(), "chown -hR 1000:1005 /home/ann\n");
    assert!(root.run(&script).status.success());
    assert_eq!(
        root.calls().lines().count(),
        1,
        "the second run does nothing"
    );
}

#[test]
fn host_keys_are_made_where_they_are_missing_or_empty() {
    let root = Root::new();
    assert!(
        !root.holds("08_ssh.yaml", "initramfs", "Make missing host keys"),
        "no sshd"
    );
    root.write("etc/ssh/ssh_host_rsa_key", "");
    root.write("etc/ssh/ssh_host_ed25519_key", "mine");
    root.stub("ssh-keygen", "for last; do :; done; echo new > \"$last\"");
    assert!(root.perform("08_ssh.yaml", "initramfs", "Make missing host keys"));
    assert_eq!(
        root.calls(),
        "ssh-keygen -q -t rsa -b 4096 -N  -f /etc/ssh/ssh_host_rsa_key\n"
    );
    assert_eq!(root.read("etc/ssh/ssh_host_ed25519_key"), "mine");
}

#[test]
fn limits_and_consoles_are_written_once() {
    let root = Root::new();
    root.write("etc/rc.conf", "rc_parallel=NO\n");
    assert!(root.perform("30_ulimit.yaml", "boot.before", "Raise the limit"));
    assert!(!root.perform("30_ulimit.yaml", "boot.before", "Raise the limit"));
    assert_eq!(
        root.read("etc/rc.conf"),
        "rc_parallel=NO\nrc_ulimit=\"-n 1048576\"\n"
    );

    root.write(
        "etc/inittab",
        "tty1::respawn:/sbin/getty 38400 tty1\ntty2::x\n#ttyS0::respawn:/sbin/getty\n",
    );
    for _ in 0..2 {
        assert!(root.perform(
            "10_accounting.yaml",
            "initramfs.after",
            "Offer a login on the serial line"
        ));
    }
    assert_eq!(
        root.read("etc/inittab")
            .matches("ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100")
            .count(),
        1
    );

    root.write("run/cos/live_mode", "1");
    root.cmdline("install-mode");
    assert!(root.perform(
        "25_autologin.yaml",
        "initramfs.before",
        "Log in without asking under OpenRC"
    ));
    assert!(root.perform(
        "52_installer.yaml",
        "initramfs",
        "Start the installer on the first console under OpenRC"
    ));
    let inittab = root.read("etc/inittab");
    assert_eq!(inittab.matches("tty1:").count(), 1, "{inittab}");
    assert!(
        inittab.contains("tty1::respawn:/usr/bin/kairos-agent install tty1\n")
            && inittab.contains("tty2::x\n")
    );
    assert!(inittab.contains("ttyS0::respawn:/sbin/agetty --autologin root"));
}

#[test]
fn persistent_files_are_labelled_once_for_each_policy() {
    let name = "Label the persistent directories";
    let root = Root::new();
    root.cmdline("selinux=1");
    root.stub("restorecon", "");
    root.write("etc/selinux/targeted/contexts/files/file_contexts", "one");
    for _ in 0..2 {
        assert!(root.perform("26_selinux.yaml", "initramfs", name));
    }
    assert_eq!(root.calls().lines().count(), 1);
    root.write("etc/selinux/targeted/contexts/files/file_contexts", "two");
    assert!(root.perform("26_selinux.yaml", "initramfs", name));
    assert_eq!(root.calls().lines().count(), 2);
}

#[test]
fn the_state_partition_gets_the_assessment_once() {
    let root = Root::new();
    for program in ["mount", "umount", "mountpoint"] {
        root.stub(program, "");
    }
    root.stub("blkid", "echo /dev/state");
    root.write("tmp/mnt/STATE/grubcustom", "# mine\n");
    root.write("etc/kairos/branding/grubmenu.cfg", "menu");
    let all = |stage: &str, names: &[&str]| {
        for name in names {
            root.perform("08_grub.yaml", stage, name);
        }
    };
    let common = [
        "Mount the state partition",
        "Hook the assessment into the boot menu",
        "Copy the image's menu entries",
        "Write the assessment",
        "Unmount the state partition",
    ];
    all("after-install", &common);
    all("after-reset", &common);
    let custom = root.read("tmp/mnt/STATE/grubcustom");
    assert!(custom.starts_with("# mine\n"));
    assert_eq!(
        custom
            .matches("source \"(${assessment_script_blk})/grub_boot_assessment\"")
            .count(),
        1,
        "{custom}"
    );
    assert_eq!(root.read("tmp/mnt/STATE/grubmenu"), "menu");
    let mode = root
        .at("tmp/mnt/STATE/grub_boot_assessment")
        .metadata()
        .expect("the script")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert!(root.calls().contains("mount /dev/state /tmp/mnt/STATE\n"));
}

#[test]
fn nothing_is_written_where_the_state_partition_is_missing() {
    let root = Root::new();
    root.stub("mountpoint", "exit 1");
    root.stub("blkid", "exit 2");
    root.stub("mount", "");
    let step = step("08_grub.yaml", "after-install", "Mount the state partition");
    assert!(!root.run(strings(&step["commands"])[0]).status.success());
    assert!(!root.calls().contains("mount "), "{}", root.calls());
    for (stage, name) in [
        ("after-install", "Hook the assessment into the boot menu"),
        ("after-install", "Write the assessment"),
        ("after-install", "Copy the image's menu entries"),
        ("after-upgrade", "Ask for an assessment"),
        ("after-reset", "Unmount the state partition"),
    ] {
        assert!(!root.holds("08_grub.yaml", stage, name), "{stage} {name}");
    }
}

#[test]
fn a_good_boot_clears_the_assessment_and_leaves_the_partition_read_only() {
    let root = Root::new();
    root.cmdline("cos-img/filename=/cOS/active.img");
    root.stub("mount", "");
    root.stub("grub2-editenv", "exit 1");
    let step = step("08_grub.yaml", "boot.before", "Record a good boot");
    let command = strings(&step["commands"])[0];
    assert!(root.run(command).status.success());
    assert_eq!(root.calls(), "", "nothing was asked for");
    root.write("run/initramfs/cos-state/boot_assessment", "");
    root.run(command);
    let expected = "mount -o remount,rw /run/initramfs/cos-state\n\
                    grub2-editenv /run/initramfs/cos-state/boot_assessment unset enable_boot_assessment boot_assessment_tentative\n\
                    mount -o remount,ro /run/initramfs/cos-state\n";
    assert_eq!(root.calls(), expected);
}

#[test]
fn a_refusal_of_the_firmware_script_stops_the_installation() {
    let name = "Refuse an installation that the firmware does not allow";
    let command = step("13_nvidia_qspi.yaml", "before-install", name)["commands"][0].clone();
    let root = Root::new();
    let command = command
        .as_str()
        .expect("a command")
        .replace("/usr/sbin/kairos-jetson-qspi-update", "qspi-update");
    root.stub(
        "qspi-update",
        "[ \"$KAIROS_QSPI_DRY_RUN\" = 1 ] && echo fine",
    );
    root.run(&command);
    assert!(!root.exists("run/cos/fail_installation"));
    root.stub("qspi-update", "echo too old >&2; exit 1");
    root.run(&command);
    assert_eq!(root.read("run/cos/fail_installation"), "too old\n");
}

#[test]
fn old_marker_directories_are_renamed_on_both_service_managers() {
    for stage in ["fs.after", "boot.before"] {
        let root = Root::new();
        assert!(!root.perform("23_c3os.yaml", stage, "Rename the marker directory"));
        root.write("usr/local/.c3os/a", "x");
        assert!(root.perform("23_c3os.yaml", stage, "Rename the marker directory"));
        assert_eq!(root.read("usr/local/.kairos/a"), "x");
    }
}

#[test]
fn unlock_plugins_are_copied_as_files() {
    let root = Root::new();
    root.stub("mount", "");
    root.stub("umount", "");
    root.write("usr/local/plugin", "code");
    std::fs::create_dir_all(root.at("system/discovery")).expect("a directory");
    std::os::unix::fs::symlink(
        root.at("usr/local/plugin"),
        root.at("system/discovery/kcrypt"),
    )
    .expect("a link");
    root.write("tmp/mnt/OEM/system/discovery/kcrypt", "old");
    let step = step(
        "21_kcrypt.yaml",
        "after-upgrade",
        "Copy the plugins to the OEM partition",
    );
    let command = strings(&step["commands"])[0].replace("/usr/bin/kairos-agent", "kairos-agent");
    root.stub("kairos-agent", "echo /dev/oem");
    assert!(root.run(&command).status.success());
    assert!(!root.at("tmp/mnt/OEM/system/discovery/kcrypt").is_symlink());
    assert_eq!(root.read("tmp/mnt/OEM/system/discovery/kcrypt"), "code");
    assert!(root.calls().contains("mount /dev/oem /tmp/mnt/OEM\n"));
}

#[test]
fn missing_units_are_not_enabled() {
    let root = Root::new();
    root.stub("systemctl", "");
    let step = step("99_sysext.yaml", "initramfs", "Merge extensions at boot");
    let text = strings(&step["commands"])[0]
        .replace("/usr/lib/systemd", "/etc/lib/systemd")
        .replace("\"/lib/", "\"/etc/none/");
    root.write("etc/lib/systemd/system/systemd-sysext.service", "");
    assert!(root.run(&text).status.success());
    assert_eq!(root.calls(), "systemctl enable systemd-sysext.service\n");
}

#[test]
fn the_sudo_rules_are_accepted_by_visudo() {
    if !crate::support::available("visudo") {
        return;
    }
    let root = Root::new();
    let step = step("10_accounting.yaml", "initramfs", "Set up sudo");
    root.write(
        "etc/sudoers",
        step["files"][0]["content"].as_str().expect("content"),
    );
    let output = std::process::Command::new("visudo")
        .args(["-c", "-f"])
        .arg(root.at("etc/sudoers"))
        .output()
        .expect("visudo");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
