//! The scripts that images carry: the upgrade script of Kubernetes plans, and the dracut module.

use std::fs;
use std::process::Command;

use kfactory::kairos::dracut::dracut_files;
use kfactory::kairos::files::miscellaneous_files;

use crate::support::{PLAIN, Root};

/// The image's and the host's release, and stubs for what the script calls.
fn upgrade(host_release: (&str, &str), arguments: &[&str], force: &str) -> (Option<i32>, String) {
    let root = Root::new();
    let release = "KAIROS_VERSION=\"v2.0.0\"\nKAIROS_SOFTWARE_VERSION=\"v1.30.4+k3s1\"\nKAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"\n";
    root.write("etc/kairos-release", release);
    root.write(host_release.0, host_release.1);
    for program in ["mount", "kairos-agent", "nsenter"] {
        root.stub(program, "");
    }
    let script = miscellaneous_files()
        .into_iter()
        .find(|file| file.path.ends_with("suc-upgrade"))
        .expect("the script");
    assert_eq!(script.mode, 0o755);
    let host = root.at("run/host").display().to_string();
    let mut script = script.content.replace(
        "version_of \"\"",
        &format!("version_of \"{}\"", root.at("").display()),
    );
    // By path: a shell with built-in programs must not mount over or reboot the machine that runs the tests.
    for program in ["mount", "kairos-agent", "nsenter"] {
        let stub = root.at("stubs").join(program).display().to_string();
        script = script.replace(&format!("\n{program} "), &format!("\n{stub} "));
        script = script.replace(&format!("\n    {program} "), &format!("\n    {stub} "));
    }
    let output = root.run_with(
        &format!("HOST_DIR={host} FORCE={force}\n{script}"),
        arguments,
    );
    (output.status.code(), root.calls())
}

const SAME: &str = "KAIROS_VERSION=\"v2.0.0\"\nKAIROS_SOFTWARE_VERSION=\"v1.30.4+k3s1\"\nKAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"\n";
const OLD: &str = "KAIROS_VERSION=\"v1.0.0\"\n";

#[test]
fn the_host_is_upgraded_and_rebooted_unless_it_has_the_version() {
    let upgraded = "mount --rbind /run/host/dev /dev\nmount --rbind /run/host/run /run\nkairos-agent upgrade --source dir:/\n\
                    nsenter -i -m -t 1 -- reboot\n";
    assert_eq!(
        upgrade(("run/host/etc/kairos-release", SAME), &[], ""),
        (Some(0), String::new())
    );
    assert_eq!(
        upgrade(("run/host/etc/os-release", SAME), &[], ""),
        (Some(0), String::new())
    );
    assert_eq!(
        upgrade(("run/host/etc/kairos-release", OLD), &[], ""),
        (Some(1), upgraded.to_owned())
    );
    assert_eq!(
        upgrade(("run/host/etc/kairos-release", SAME), &[], "true"),
        (Some(1), upgraded.to_owned())
    );
    assert_eq!(
        upgrade(("run/host/none", ""), &[], "false"),
        (Some(1), upgraded.to_owned())
    );
}

#[test]
fn an_upgrade_of_the_recovery_system_does_not_reboot() {
    let (status, calls) = upgrade(("run/host/etc/kairos-release", OLD), &["--recovery"], "");
    assert_eq!(status, Some(0));
    assert!(
        calls.ends_with("kairos-agent upgrade --recovery --source dir:/\n"),
        "{calls}"
    );
}

/// The three files of the dracut module, in a directory, by name.
fn module(root: &Root) {
    for file in dracut_files(&PLAIN) {
        if let Some(name) = file
            .path
            .strip_prefix("/usr/lib/dracut/modules.d/28immucore/")
        {
            root.write(&format!("module/{name}"), &file.content);
        }
    }
}

#[test]
fn the_module_installs_everything_or_ends_the_build() {
    let programs = "immucore kairos-agent sync udevadm blkid lsblk e2fsck mount umount rsync cryptsetup gawk awk mkfs.ext2 mkfs.ext3 \
                    mkfs.ext4 mkfs.vfat";
    let play = r#"
        cd "$1"; moddir=$1/module initdir=$1/initrd systemdutildir=/usr/lib/systemd systemdsystemunitdir=/usr/lib/systemd/system
        mkdir -p initrd
        inst_multiple() { echo "multiple $*"; } ; inst_libdir_file() { echo "library $*"; }
        inst_script() { echo "script ${1##*/} $2"; } ; inst_simple() { echo "simple ${1##*/} $2"; }
        instmods() { echo "modules $* hostonly=$hostonly"; }
        derror() { echo "error $*"; } ; dracut_need_initqueue() { echo initqueue; }
        command() { [ "$2" != "$MISSING" ]; }
        . module/module-setup.sh
        check && depends && installkernel && install && echo done
    "#;
    let run = |missing: &str| {
        let root = Root::new();
        module(&root);
        let mut bash = Command::new("bash");
        let output = bash
            .args(["-c", play, "bash"])
            .arg(root.at(""))
            .env("MISSING", missing)
            .output()
            .expect("bash");
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let link = fs::read_link(
            root.at("initrd/usr/lib/systemd/system/initrd.target.requires/immucore.service"),
        );
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
            link.ok(),
        )
    };
    let (status, told, link) = run("");
    let installed: String = programs
        .split(' ')
        .map(|program| format!("multiple {program}\n"))
        .collect();
    let expected = format!(
        "rootfs-block dm fs-lib lvm\nmodules overlay hostonly=\n{installed}multiple -o mkfs.fat\n\
         library libsigsegv.so*\nlibrary libmpfr.so*\n\
         script generator.sh /usr/lib/systemd/system-generators/immucore-generator\n\
         simple immucore.service /usr/lib/systemd/system/immucore.service\n\
         multiple -o /usr/lib/systemd/system/systemd-udev-settle.service\ninitqueue\ndone\n"
    );
    assert_eq!((status, told), (Some(0), expected));
    assert_eq!(link.expect("a link").to_str(), Some("../immucore.service"));

    let (status, told, _) = run("rsync");
    assert_eq!(status, Some(1));
    assert!(
        told.ends_with("error immucore: cannot install rsync, which the initramfs needs\n"),
        "{told}"
    );
}

#[test]
fn the_generator_gives_slow_media_time_and_keeps_a_link_that_is_there() {
    let root = Root::new();
    module(&root);
    for _ in 0..2 {
        let mut sh = Command::new("sh");
        let output = sh
            .arg(root.at("module/generator.sh"))
            .arg(root.at("units"))
            .args(["early", "late"])
            .output()
            .expect("sh");
        assert!(output.status.success() && output.stderr.is_empty());
        assert_eq!(
            root.read("units/sysroot.mount.d/timeout.conf"),
            "[Mount]\nTimeoutSec=300\n"
        );
        let link = fs::read_link(root.at("units/initrd-root-fs.target.wants/sysroot.mount"))
            .expect("a link");
        assert_eq!(link.to_str(), Some("../sysroot.mount"));
    }
}
