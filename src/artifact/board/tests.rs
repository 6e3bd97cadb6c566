//! What is taken from samples of each distribution's places, and under which names.

use super::*;
use crate::tree::samples::Sample;

const VERSION: &str = "6.1.0-test";

fn sample(files: &[(&str, &str)]) -> Sample {
    let files = files.iter();
    files.fold(Sample::new(), |sample, (path, text)| {
        sample.file(path, 0o644, text.as_bytes())
    })
}

fn debian() -> Sample {
    let trees = "usr/lib/linux-image-6.1.0-test/broadcom";
    let sample = sample(&[
        ("usr/lib/raspi-firmware/bootcode.bin", "b"),
        ("usr/lib/raspi-firmware/fixup.dat", "f"),
        ("usr/lib/raspi-firmware/fixup4.dat", "f"),
        ("usr/lib/raspi-firmware/start.elf", "s"),
        ("usr/lib/raspi-firmware/start4.elf", "s"),
        ("usr/lib/raspi-firmware/copyright", "no"),
        ("usr/lib/u-boot/rpi_3/u-boot.bin", "3"),
        ("usr/lib/u-boot/rpi_4/u-boot.bin", "4"),
        ("usr/lib/u-boot/rpi_arm64/u-boot.bin", "all"),
        // Of the packages' hook, for a kernel without U-Boot.
        ("boot/firmware/config.txt", "kernel=vmlinuz\n"),
    ]);
    let sample = sample.file(&format!("{trees}/bcm2711-rpi-4-b.dtb"), 0o644, b"4");
    let sample = sample.file(&format!("{trees}/bcm2837-rpi-3-b.dtb"), 0o644, b"3");
    sample.file(&format!("{trees}/stingray/other.dtb"), 0o644, b"no")
}

fn suse(config: &str) -> Sample {
    sample(&[
        ("boot/vc/start4.elf", "s"),
        ("boot/vc/fixup4.dat", "f"),
        ("boot/vc/armstub8-rpi4.bin", "a"),
        ("boot/vc/bcm2711-rpi-4-b.dtb", "4"),
        ("boot/vc/overlays/upstream-pi4.dtbo", "o"),
        ("boot/vc/u-boot.bin", "u"),
        ("boot/vc/ubootconfig.txt", "arm_64bit=1\n"),
        ("boot/vc/config.txt", config),
    ])
}

fn of(model: Model, sample: Sample, given: &[&str]) -> Result<Vec<EfiFile>> {
    let is_given = |name: &str| given.contains(&name);
    files(model, Arch::Arm64, &sample.tree(), Some(VERSION), &is_given)
}

/// Returns path and source of each file; of a text its beginning.
fn listed(files: &[EfiFile]) -> Vec<(&str, &str)> {
    let files = files.iter().map(|file| match &file.content {
        EfiContent::Image(source) => (file.path.as_str(), source.as_str()),
        EfiContent::Text(_) => (file.path.as_str(), "ours"),
    });
    files.collect()
}

fn config(files: &[EfiFile]) -> &str {
    let ours = files.iter().find_map(|file| match &file.content {
        EfiContent::Text(text) => Some(text.as_str()),
        EfiContent::Image(_) => None,
    });
    ours.unwrap()
}

#[test]
fn debians_firmware_trees_and_u_boot_go_to_the_top_with_a_config_of_ours() {
    for model in [Model::Rpi3, Model::Rpi4] {
        let made = of(model, debian(), &[]).unwrap();
        let firmware = "usr/lib/raspi-firmware";
        let trees = "usr/lib/linux-image-6.1.0-test/broadcom";
        let names = [
            "bootcode.bin",
            "fixup.dat",
            "fixup4.dat",
            "start.elf",
            "start4.elf",
        ];
        let mut wanted: Vec<_> = names.map(|it| (it, format!("{firmware}/{it}"))).into();
        wanted.push((
            "u-boot.bin",
            "usr/lib/u-boot/rpi_arm64/u-boot.bin".to_owned(),
        ));
        wanted.push(("config.txt", "ours".to_owned()));
        wanted.extend(
            ["bcm2711-rpi-4-b.dtb", "bcm2837-rpi-3-b.dtb"].map(|it| (it, format!("{trees}/{it}"))),
        );
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(to, from)| (*to, from.as_str()))
            .collect();
        assert_eq!(listed(&made), wanted);
        assert!(config(&made).contains("upstream_kernel=1"));
    }
}

#[test]
fn ubuntus_device_trees_are_those_of_the_raspberry_pi_kernel_with_what_changes_them() {
    let trees = "usr/lib/firmware/6.1.0-test/device-tree";
    let sample = debian()
        .edit("usr/lib/linux-image-6.1.0-test", |node| {
            node.kind = crate::tree::Kind::Symlink("/nowhere".into())
        })
        .file(
            &format!("{trees}/broadcom/bcm2711-rpi-4-b.dtb"),
            0o644,
            b"4",
        )
        .file(
            &format!("{trees}/broadcom/bcm2710-rpi-3-b.dtb"),
            0o644,
            b"3",
        )
        .file(&format!("{trees}/overlays/disable-bt.dtbo"), 0o644, b"o");
    let made = of(Model::Rpi4, sample, &[]).unwrap();
    let overlay = format!("{trees}/overlays/disable-bt.dtbo");
    assert!(listed(&made).contains(&("overlays/disable-bt.dtbo", &overlay)));
    assert!(!config(&made).contains("upstream_kernel"));
}

#[test]
fn a_u_boot_for_the_board_alone_does_where_there_is_none_for_all() {
    for (model, number) in [(Model::Rpi3, 3), (Model::Rpi4, 4)] {
        let sample = debian().edit("usr/lib/u-boot/rpi_arm64", |node| {
            node.kind = crate::tree::Kind::Symlink("/nowhere".into());
        });
        let made = of(model, sample, &[]).unwrap();
        let source = format!("usr/lib/u-boot/rpi_{number}/u-boot.bin");
        assert!(listed(&made).contains(&("u-boot.bin", &source)), "{made:?}");
    }
}

#[test]
fn a_config_beside_the_firmware_that_starts_u_boot_is_taken_with_what_it_includes() {
    let text = "kernel=u-boot.bin\ninclude ubootconfig.txt\ninclude extraconfig.txt\n[pi4]\narmstub=armstub8-rpi4.bin\n";
    // What names are there is known of the files that go along, U-Boot among them.
    let made = of(Model::Rpi4, suse(text), &[]).unwrap();
    let listed = listed(&made);
    for file in ["config.txt", "ubootconfig.txt", "armstub8-rpi4.bin"] {
        let source = format!("boot/vc/{file}");
        assert!(listed.contains(&(file, &source)), "{file}: {listed:?}");
    }
    assert!(!listed.iter().any(|(to, _)| *to == "extraconfig.txt"));
    for text in ["kernel=vmlinuz\n", "kernel=u-boot.bin\narmstub=other.bin\n"] {
        let said = of(Model::Rpi4, suse(text), &[]).unwrap_err().render_text();
        assert!(said.contains("`raspberrypi-firmware-config`"), "{said}");
    }
}

#[test]
fn what_is_missing_is_named_with_its_places_and_packages() {
    let said = of(Model::Rpi3, Sample::new(), &[])
        .unwrap_err()
        .render_text();
    for words in [
        "for the board `rpi3`",
        "firmware (bootcode.bin, start.elf, fixup.dat)",
        "/usr/lib/raspi-firmware",
        "`raspi-firmware` (Debian)",
        "device trees (bcm2837-rpi-3-*.dtb)",
        "/usr/lib/linux-image-6.1.0-test/broadcom",
        "`linux-image-arm64`",
        "U-Boot (u-boot.bin)",
        "/usr/lib/u-boot/rpi_3/u-boot.bin",
        "`u-boot-rpi` (Debian, Ubuntu)",
        "`kfactory convert --with PACKAGE,...`",
        "`--overlay-uefi DIR`",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn what_the_user_gives_is_not_missing() {
    let given = [
        "start4.elf",
        "fixup4.dat",
        "bcm2711-rpi-4-b.dtb",
        "u-boot.bin",
        "config.txt",
    ];
    assert_eq!(of(Model::Rpi4, Sample::new(), &given).unwrap(), []);
    for left_out in 0..given.len() - 1 {
        let mut given = given.to_vec();
        let name = given.remove(left_out);
        assert!(of(Model::Rpi4, Sample::new(), &given).is_err(), "{name}");
    }
}

#[test]
fn an_image_for_other_machines_than_the_boards_is_refused() {
    let tree = debian().tree();
    let said = files(Model::Rpi4, Arch::Amd64, &tree, None, &|_| false).unwrap_err();
    assert!(said.render_text().contains("has programs for amd64"));
}

#[test]
fn whatever_is_looked_for_is_wanted_and_little_else() {
    for (model, sample) in [
        (Model::Rpi3, debian()),
        (
            Model::Rpi4,
            suse("kernel=u-boot.bin\ninclude ubootconfig.txt\n"),
        ),
    ] {
        for file in of(model, sample, &[]).unwrap() {
            if let EfiContent::Image(path) = file.content {
                assert!(is_wanted(Path::new(&path)), "{path}");
            }
        }
    }
    assert!(is_wanted(Path::new("boot/vc/config.txt")));
    for path in [
        "boot/firmware/vmlinuz-6.1",
        "usr/lib/firmware/brcm/brcmfmac43455-sdio.bin",
        "usr/lib/u-boot/rpi_3/uboot.elf",
        "etc/config.txt",
    ] {
        assert!(!is_wanted(Path::new(path)), "{path}");
    }
}
