//! Plans with options: golden texts for boards, Trusted Boot and FIPS, and the refusals that come before anything runs.
//!
//! `KFACTORY_UPDATE_GOLDEN=1` rewrites the golden files in `testdata/plans/options`.

use crate::plans::{compare, names, plan, prepared};
use crate::support::{Kfactory, world};

/// Golden file, system, architecture, options.
const PLANS: &[(&str, &str, &str, &str)] = &[
    ("rpi3-debian-12", "debian-12", "arm64", "--model rpi3"),
    ("rpi4-alpine-3.23", "alpine-3.23", "arm64", "--model rpi4"),
    ("rpi4-debian-13", "debian-13", "arm64", "--model rpi4"),
    (
        "rpi4-opensuse-leap-15.6",
        "opensuse-leap-15.6",
        "arm64",
        "--model rpi4",
    ),
    ("rpi4-ubuntu-22.04", "ubuntu-22.04", "arm64", "--model rpi4"),
    ("rpi4-ubuntu-24.04", "ubuntu-24.04", "arm64", "--model rpi4"),
    ("fips-fedora-41", "fedora-41", "amd64", "--fips"),
    (
        "fips-opensuse-leap-15.6",
        "opensuse-leap-15.6",
        "amd64",
        "--fips",
    ),
    ("fips-rocky-9", "rocky-9", "amd64", "--fips"),
    (
        "fips-rocky-9-trusted",
        "rocky-9",
        "amd64",
        "--fips --trusted",
    ),
    (
        "fips-ubuntu-22.04",
        "ubuntu-22.04",
        "amd64",
        "--fips --secret id=ubuntu-pro-token,env=LC_ALL",
    ),
    (
        "jetson-agx-orin-ubuntu-22.04",
        "ubuntu-22.04",
        "arm64",
        "--model nvidia-jetson-agx-orin",
    ),
    (
        "jetson-orin-nx-ubuntu-22.04",
        "ubuntu-22.04",
        "arm64",
        "--model nvidia-jetson-orin-nx",
    ),
    (
        "jetson-thor-ubuntu-24.04",
        "ubuntu-24.04",
        "arm64",
        "--model nvidia-jetson-thor",
    ),
    (
        "dgx-spark-ubuntu-24.04",
        "ubuntu-24.04",
        "arm64",
        "--model nvidia-dgx-spark",
    ),
    ("trusted-debian-12", "debian-12", "amd64", "--trusted"),
    ("trusted-debian-13", "debian-13", "amd64", "--trusted"),
    ("trusted-fedora-41", "fedora-41", "amd64", "--trusted"),
    ("trusted-ubuntu-24.04", "ubuntu-24.04", "amd64", "--trusted"),
    ("trusted-ubuntu-26.04", "ubuntu-26.04", "arm64", "--trusted"),
];

#[test]
fn plans_with_options_are_as_the_golden_files_say() {
    for (golden, system, arch, options) in PLANS {
        let options: Vec<&str> = options.split(' ').collect();
        compare(&format!("options/{golden}"), &plan(system, arch, &options));
    }
    let mut expected: Vec<String> = PLANS.iter().map(|row| format!("{}.txt", row.0)).collect();
    expected.sort();
    assert_eq!(names("plans/options"), expected);
}

#[test]
fn fix_ups_stand_behind_the_packages_they_fix() {
    let text = plan(
        "ubuntu-22.04",
        "arm64",
        &["--model", "nvidia-jetson-agx-orin"],
    );
    let at = |word: &str| {
        text.find(word)
            .unwrap_or_else(|| panic!("no {word:?} in:\n{text}"))
    };
    assert!(at("jetson-ota.gpg") < at("install 53 packages"));
    assert!(at("install 53 packages") < at("mv /usr/local/cuda-12.6"));
    assert!(!text.contains("x86_64"), "{text}");
}

#[test]
fn a_board_on_the_wrong_machine_is_refused_with_what_it_takes() {
    for (system, arch, options, words) in [
        (
            "debian-12",
            "amd64",
            "rpi4",
            ["exists with arm64 only", "--platform linux/arm64"],
        ),
        (
            "fedora-43",
            "arm64",
            "rpi4",
            ["no kernel package", "debian, arch, ubuntu"],
        ),
        (
            "ubuntu-24.04",
            "arm64",
            "nvidia-jetson-orin-nx",
            ["for Ubuntu 22.04 only", "ubuntu:22.04"],
        ),
        (
            "debian-12",
            "arm64",
            "nvidia-dgx-spark",
            ["for Ubuntu 24.04 only", "ubuntu:24.04"],
        ),
        ("debian-12", "arm64", "rpi5", ["unknown model", "rpi4"]),
    ] {
        prepared(system, arch, &["--model", options])
            .fail(2)
            .tells(&words);
    }
    // Known before a base is looked at.
    let ran = Kfactory::new([
        "plan",
        "nowhere.invalid/x",
        "-v",
        "v1",
        "-m",
        "rpi4",
        "--platform",
        "linux/amd64",
    ])
    .store(&world().user_dir("plan-store"))
    .fail(2);
    ran.tells(&["exists with arm64 only"]);
}

#[test]
fn a_board_without_trusted_boot_is_refused_by_name_before_a_base_is_looked_at() {
    for (board, why) in [
        ("rpi3", "neither"),
        ("rpi4", "TPM 2.0"),
        ("nvidia-jetson-agx-orin", "GRUB"),
        ("nvidia-jetson-orin-nx", "GRUB"),
        ("nvidia-jetson-thor", "GRUB"),
    ] {
        let of_board = ["-v=v1", "-m", board, "--platform=linux/arm64", "--trusted"];
        for command in ["plan", "packages", "convert"] {
            Kfactory::new([command, "nowhere.invalid/x"])
                .args(of_board)
                .store(&world().user_dir("plan-store"))
                .fail(2)
                .tells(&[board, "`--trusted`", why, "hint: leave `--trusted` out"]);
        }
    }
}

#[test]
fn the_boards_kernel_arguments_are_handed_to_whoever_builds_the_uki() {
    const BOOT: &str = include_str!("../../src/kairos/files/bootargs.cfg");
    let text = plan(
        "ubuntu-24.04",
        "arm64",
        &["--model=nvidia-dgx-spark", "--trusted"],
    );
    let (_, rest) = text.split_once("--extend-cmdline \"").expect("a note");
    let (arguments, _) = rest.split_once('"').expect("a quoted text");
    for argument in arguments.split(' ') {
        assert!(BOOT.contains(argument), "{argument}");
    }
    assert_eq!(arguments.split(' ').count(), 4, "{arguments}");
}

#[test]
fn what_cannot_be_chosen_is_refused_before_anything_runs() {
    for (options, words) in [
        (
            &["--without", "rsync"][..],
            ["`rsync`: step `initrd` needs it", "`--skip-step initrd`"],
        ),
        (
            &["--without", "fail2bann"],
            ["no rule chooses it", "the nearest is `fail2ban`"],
        ),
        (&["--with", "jq", "--without", "jq"], ["`jq`", "at once"]),
        (&["--with=-y"], ["--with -y", "no package name"]),
        (&["--kernel", "a b"], ["`a b`", "--kernel none"]),
        (&["--firmware", "acme"], ["`acme`", "known vendors: amd"]),
        (
            &["--firmware", "none,amd"],
            ["`none` stands alone", "VENDOR"],
        ),
        (&["--l4t", "36"], ["--l4t", "generic"]),
        (
            &["--secret", "id=ubuntu-pro-token,src=/no/such/file"],
            ["ubuntu-pro-token", "`/no/such/file` does not exist"],
        ),
    ] {
        let ran = prepared("debian-12", "amd64", options).run();
        assert!(
            matches!(ran.code, Some(1 | 2)),
            "{options:?}: {:?}\n{}",
            ran.code,
            ran.stderr()
        );
        ran.tells(&words);
    }
}

#[test]
fn the_packages_are_listed_with_their_rules_and_what_leaving_them_out_saves() {
    let list = |options: &[&str]| {
        let base = format!("dir:{}", crate::plans::base("debian-12").display());
        Kfactory::new(["packages", &base, "--platform", "linux/amd64"])
            .args(options)
            .store(&world().user_dir("plan-store"))
            .succeed()
            .stdout
    };
    let text = list(&[
        "--without",
        "fail2ban",
        "--firmware",
        "none",
        "--with",
        "tmux",
    ]);
    for words in [
        "base packages (81)",
        "tmux",
        "asked for: --with",
        "left out (2)",
        "fail2ban",
        "saves 2.1 MiB",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let value: serde_json::Value =
        serde_json::from_str(&list(&["--output", "json", "--without", "fail2ban"])).expect("JSON");
    assert_eq!(value["base"].as_array().map(Vec::len), Some(80));
    assert_eq!(value["left_out"][0]["name"], "fail2ban");
    assert_eq!(value["facts"]["distro"], "debian");
    assert!(value["base"][0]["rule"].is_string());
}

#[test]
fn fips_is_refused_where_it_does_not_exist_and_where_a_subscription_is_missing() {
    for (system, arch, words) in [
        (
            "debian-12",
            "amd64",
            ["debian has no FIPS kernel", "Red Hat family"],
        ),
        (
            "alpine-3.23",
            "amd64",
            ["alpine has no FIPS kernel", "Red Hat family"],
        ),
        ("opensuse-tumbleweed", "amd64", ["no FIPS kernel", "Leap"]),
        ("fedora-43", "riscv64", ["riscv64", "Red Hat family"]),
        (
            "ubuntu-25.10",
            "amd64",
            ["Ubuntu 25.10 has no FIPS packages", "22.04"],
        ),
        (
            "ubuntu-22.04",
            "amd64",
            [
                "no token was given",
                "--secret id=ubuntu-pro-token,src=FILE",
            ],
        ),
    ] {
        prepared(system, arch, &["--fips"]).fail(2).tells(&words);
    }
    let secret = ["--secret", "id=ubuntu-pro-token,env=LC_ALL"];
    let ran = prepared("ubuntu-22.04", "amd64", &secret).fail(2);
    ran.tells(&[
        "no step of this conversion reads the secret",
        "ubuntu-pro-token",
    ]);
}

#[test]
fn a_subscription_is_left_in_the_step_that_entered_it() {
    let options = ["--fips", "--secret", "id=ubuntu-pro-token,env=LC_ALL"];
    let text = plan("ubuntu-22.04", "amd64", &options);
    let layer = text
        .split("layer kernel")
        .nth(1)
        .and_then(|rest| rest.split("layer kairos").next());
    let layer = layer.expect("the kernel's layer");
    let at = |word: &str| {
        layer
            .find(word)
            .unwrap_or_else(|| panic!("no {word:?} in:\n{layer}"))
    };
    assert!(at("pro attach") < at("linux-image-fips"));
    assert!(at("linux-image-fips") < at("pro detach"));
    assert!(at("pro detach") < at("90ubuntu-advantage"));
    assert!(
        !text.contains("C.UTF-8"),
        "the value of a secret is part of no plan"
    );
}
