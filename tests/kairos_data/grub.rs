//! The boot menu and the boot arguments, checked by grub's own parser and evaluated by a shell that plays grub.

use std::fs;
use std::process::{Command, Output};

use kfactory::kairos::files::{branding_files, grub_files};
use tempfile::TempDir;

use crate::support::{available, step};

const BASE: &str = "console=tty1 net.ifnames=1 rd.cos.oemlabel=COS_OEM rd.cos.oemtimeout=10 panic=5 rd.emergency=reboot rd.shell=0 \
                    systemd.crash_reboot=yes";

/// What stands for grub's commands. `search` answers with the label itself, or with the device that has the file.
const GRUB: &str = r#"
insmod() { :; }
loadfont() { :; }
rmmod() { echo "rmmod $*"; }
loopback() { if [ "$1" = --delete ]; then rm -rf @loop0@; else echo "loopback $*"; cp -r image @loop0@; fi; }
save_env() { echo "save_env $*"; }
linux() { echo "linux $*"; }
initrd() { echo "initrd $*"; }
source() { . "./$1"; }
load_env() { . "./$2"; }
search() {
    case "$2" in
        --label) eval "${3#--set=}=\$4" ;;
        --file) for disk in dev*; do if [ -e "($disk)$4" ] || [ -e "$disk$4" ]; then eval "${3#--set=}=$disk"; fi; done ;;
    esac
}
"#;

/// A machine with an image, whose boot menu can be run.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new(release: &str) -> Self {
        let machine = Self {
            dir: TempDir::new().expect("a directory"),
        };
        let [menu, bootargs] = grub_files();
        machine.write("menu", &to_sh(&menu.content));
        machine.write("image/etc/cos/bootargs.cfg", &to_sh(&bootargs.content));
        machine.write(
            "image/etc/os-release",
            "NAME=\"Debian GNU/Linux\"\nKAIROS_MODEL=from-os-release\n",
        );
        machine.write("image/etc/kairos-release", release);
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn run(&self, script: &str) -> Output {
        let script = format!("{GRUB}\n{script}");
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .current_dir(self.dir.path())
            .output()
            .expect("sh")
    }

    /// Reads the menu, then chooses the entry; returns what grub was told to do.
    fn choose(&self, id: &str) -> String {
        let output = self.run(&format!(". ./menu\nentry_{id}"));
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Reads the menu, then prints the variables.
    fn menu(&self, variables: &str) -> String {
        let output = self.run(&format!(
            "grub_platform=efi\n. ./menu\necho \"{variables}\""
        ));
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }
}

/// Rewrites a grub script into what a shell understands.
fn to_sh(script: &str) -> String {
    let mut text = String::new();
    for line in script.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let rest = line.trim_start();
        let line = if let Some(name) = rest.strip_prefix("function ") {
            name.replace(" {", "() {")
        } else if let Some(entry) = rest.strip_prefix("menuentry ") {
            let (title, id) = entry
                .split_once(" --id ")
                .expect("an entry that the agent can find");
            format!(
                "entry_{}() {{ echo {title}",
                id.strip_suffix(" {").expect("the id ends the line")
            )
        } else {
            rest.strip_prefix("set ").unwrap_or(rest).to_owned()
        };
        text.push_str(indent);
        text.push_str(&line.replace("(loop0)", "@loop0@"));
        text.push('\n');
    }
    text
}

fn assessment() -> String {
    let step = step("08_grub.yaml", "after-install", "Write the assessment");
    step["files"][0]["content"]
        .as_str()
        .expect("content")
        .to_owned()
}

#[test]
fn grub_accepts_its_scripts() {
    if !available("grub-script-check") {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let mut scripts: Vec<(String, String)> = grub_files()
        .into_iter()
        .map(|file| (file.path.into_owned(), file.content.into_owned()))
        .collect();
    let branding = branding_files()
        .into_iter()
        .filter(|file| file.path.ends_with(".cfg"));
    scripts.extend(branding.map(|file| (file.path.into_owned(), file.content.into_owned())));
    scripts.push(("the boot assessment".to_owned(), assessment()));
    let hook = step(
        "08_grub.yaml",
        "after-install",
        "Hook the assessment into the boot menu",
    )["commands"][0]
        .clone();
    let hook = hook
        .as_str()
        .expect("a command")
        .lines()
        .filter(|line| !line.starts_with("cat") && *line != "EOT");
    scripts.push((
        "the hook".to_owned(),
        hook.map(|line| format!("{line}\n")).collect(),
    ));
    for (name, text) in scripts {
        let path = dir.path().join("script");
        fs::write(&path, text).expect("a file");
        let output = Command::new("grub-script-check")
            .arg(&path)
            .output()
            .expect("grub-script-check");
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn each_model_has_its_arguments() {
    for (model, console, extra) in [
        ("generic", "console=ttyS0", ""),
        ("something-new", "console=ttyS0", ""),
        (
            "rpi3",
            "console=ttyS0,115200",
            " modprobe.blacklist=vc4 8250.nr_uarts=1 cgroup_enable=memory",
        ),
        (
            "rpi4",
            "console=ttyS0,115200",
            " modprobe.blacklist=vc4 8250.nr_uarts=1 cgroup_enable=memory",
        ),
        ("nvidia-jetson-agx-orin", "console=ttyTCU0,115200", ""),
        (
            "nvidia-jetson-orin-nx",
            "console=ttyTCU0,115200 console=ttyAMA0,115200",
            "",
        ),
        (
            "nvidia-jetson-thor",
            "console=ttyUTC0,115200 earlycon=tegra_utc,mmio32,0xc5a0000",
            " pd_ignore_unused clk_ignore_unused fbcon=map:0 nospectre_bhb efi=runtime",
        ),
        (
            "nvidia-dgx-spark",
            "console=ttyS0,921600",
            " initcall_blacklist=tegra234_cbb_init pci=pcie_bus_safe iommu.passthrough=0",
        ),
    ] {
        let machine = Machine::new(&format!(
            "KAIROS_FIPS=\"false\"\nKAIROS_MODEL=\"{model}\"\n"
        ));
        let expected = format!(
            "Kairos\nloopback loop0 /cOS/active.img\n\
             linux @loop0@/boot/vmlinuz {console} {BASE} root=LABEL=COS_ACTIVE cos-img/filename=/cOS/active.img selinux=0{extra}\n\
             initrd @loop0@/boot/initrd\n"
        );
        assert_eq!(machine.choose("cos"), expected);
    }
}

#[test]
fn fips_images_boot_in_fips_mode() {
    let linux = Machine::new("KAIROS_FIPS=\"true\"\nKAIROS_MODEL=\"rpi4\"\n").choose("cos");
    assert!(linux.contains(" cgroup_enable=memory fips=1\n"), "{linux}");
    assert!(
        !Machine::new("KAIROS_MODEL=\"generic\"\n")
            .choose("cos")
            .contains("fips")
    );
}

#[test]
fn every_entry_boots_its_image_with_the_users_arguments() {
    let machine = Machine::new("KAIROS_MODEL=\"generic\"\n");
    machine.write(
        "dev1/grub_oem_env",
        "extra_cmdline='all' extra_active_cmdline='a'\nextra_passive_cmdline='oem'\n",
    );
    machine.write(
        "(dev1)/grub_oem_env",
        "extra_cmdline='all' extra_active_cmdline='a'\nextra_passive_cmdline='oem'\n",
    );
    machine.write(
        "(dev2)/grubenv",
        "extra_passive_cmdline='p' extra_recovery_cmdline='r' default_menu_entry='My OS'\n",
    );
    machine.write("dev2/grubenv", "");
    let linux = |root: &str, extra: &str| {
        format!("linux @loop0@/boot/vmlinuz console=ttyS0 {BASE} {root} selinux=0 {extra}\n")
    };
    for (id, title, image, root, extra) in [
        (
            "cos",
            "My OS",
            "active.img",
            "root=LABEL=COS_ACTIVE cos-img/filename=/cOS/active.img",
            "all a",
        ),
        (
            "fallback",
            "My OS (fallback)",
            "passive.img",
            "root=LABEL=COS_PASSIVE cos-img/filename=/cOS/passive.img",
            "all p",
        ),
        (
            "recovery",
            "My OS recovery",
            "recovery.img",
            "root=LABEL=COS_SYSTEM cos-img/filename=/cOS/recovery.img",
            "all r",
        ),
        (
            "statereset",
            "My OS state reset (auto)",
            "recovery.img",
            "root=LABEL=COS_SYSTEM cos-img/filename=/cOS/recovery.img",
            "all r vga=795 nomodeset kairos.reset",
        ),
    ] {
        let expected = format!(
            "{title}\nloopback loop0 /cOS/{image}\n{}initrd @loop0@/boot/initrd\n",
            linux(root, extra)
        );
        assert_eq!(machine.choose(id), expected);
    }
}

#[test]
fn a_squashfs_recovery_is_preferred_if_it_is_not_empty() {
    let machine = Machine::new("KAIROS_MODEL=\"generic\"\n");
    machine.write("(COS_RECOVERY)/cOS/recovery.squashfs", "");
    assert!(
        machine
            .choose("recovery")
            .contains(" cos-img/filename=/cOS/recovery.img ")
    );
    machine.write("(COS_RECOVERY)/cOS/recovery.squashfs", "squashfs");
    let root = "root=live:LABEL=COS_RECOVERY rd.live.dir=/ rd.live.squashimg=/cOS/recovery.squashfs selinux=0";
    for id in ["recovery", "statereset"] {
        let told = machine.choose(id);
        assert!(
            told.contains(root) && told.contains("loopback loop0 /cOS/recovery.squashfs\n"),
            "{told}"
        );
    }
    // grub tries the next entry in the same run, if one fails.
    let told = machine.choose("recovery\nentry_cos");
    assert!(told.ends_with(" root=LABEL=COS_ACTIVE cos-img/filename=/cOS/active.img selinux=0\ninitrd @loop0@/boot/initrd\n"));
}

#[test]
fn remote_recovery_needs_nothing_from_the_menu_but_its_title() {
    let machine = Machine::new("KAIROS_MODEL=\"generic\"\n");
    let entry = branding_files()
        .into_iter()
        .find(|file| file.path.ends_with("grubmenu.cfg"))
        .expect("the entry");
    machine.write(
        "menu",
        &format!("display_name='Kairos'\n{}", to_sh(&entry.content)),
    );
    let told = machine.choose("remoterecovery");
    assert!(
        told.starts_with("Kairos remote recovery\nloopback loop0 /cOS/recovery.img\n"),
        "{told}"
    );
    assert!(
        told.contains(" selinux=0 vga=795 nomodeset kairos.remote_recovery_mode\n"),
        "{told}"
    );
}

#[test]
fn an_entry_can_be_chosen_for_one_boot() {
    let machine = Machine::new("");
    let shown = "$default|$selected_entry|$next_entry|$fallback|$timeout|$kernel|$initramfs";
    assert_eq!(
        machine.menu(shown),
        "rmmod tpm\n|||0 1 2|10|/boot/vmlinuz|/boot/initrd\n"
    );
    machine.write("dev2/grubenv", "");
    machine.write("(dev2)/grubenv", "saved_entry=cos default_fallback='1 2'\n");
    assert_eq!(
        machine.menu(shown),
        "rmmod tpm\ncos|||1 2|10|/boot/vmlinuz|/boot/initrd\n"
    );
    machine.write("(dev2)/grubenv", "saved_entry=cos next_entry=recovery\n");
    let expected = "save_env -f (dev2)/grubenv next_entry\nrmmod tpm\nrecovery|recovery||0 1 2|10|/boot/vmlinuz|/boot/initrd\n";
    assert_eq!(machine.menu(shown), expected);
}

#[test]
fn the_menu_of_the_image_comes_before_the_users() {
    let machine = Machine::new("");
    for (path, text) in [("dev1/grubmenu", ""), ("dev2/grubcustom", "")] {
        machine.write(path, text);
    }
    machine.write("(dev1)/grubmenu", "order=menu\n");
    machine.write("(dev2)/grubcustom", "order=\"$order custom\"\n");
    assert!(machine.menu("$order").ends_with("menu custom\n"));
}

#[test]
fn a_second_pass_without_a_good_boot_falls_back() {
    let shown = "$default|$extra_passive_cmdline|$boot_assessment_tentative";
    let pass = |environment: &str, before: &str| {
        let machine = Machine::new("");
        machine.write(
            "menu",
            &format!("default=cos\n{before}\n{}", to_sh(&assessment())),
        );
        machine.write("dev1/boot_assessment", "");
        machine.write("(dev1)/boot_assessment", environment);
        machine.menu(shown)
    };
    let saved = "save_env -f (dev1)/boot_assessment boot_assessment_tentative\n";
    assert_eq!(pass("", ""), "cos||\n");
    assert_eq!(
        pass("enable_boot_assessment=yes\n", ""),
        format!("{saved}cos||yes\n")
    );
    assert_eq!(
        pass("enable_boot_assessment_always=yes\n", ""),
        format!("{saved}cos||yes\n")
    );
    let tentative = "enable_boot_assessment=yes boot_assessment_tentative=yes\n";
    assert_eq!(
        pass(tentative, "extra_passive_cmdline=mine"),
        "fallback|mine upgrade_failure|yes\n"
    );
    assert_eq!(pass(tentative, "selected_entry=recovery"), "cos||yes\n");
}
