//! `kfactory plan`: golden texts for the distributions we know, and the two other forms.
//!
//! `KFACTORY_UPDATE_GOLDEN=1` rewrites the golden files in `testdata/plans`.

use std::path::{Path, PathBuf};

use crate::support::base::os_release_tar;
use crate::support::{Kfactory, world};

/// The systems that there are golden plans for, by the name of their file in `testdata/os-release`.
const BASES: &[&str] = &[
    "almalinux-10",
    "almalinux-9",
    "alpine-3.21",
    "alpine-3.22",
    "alpine-3.23",
    "amazon-2023",
    "centos-stream-10",
    "centos-stream-9",
    "debian-12",
    "debian-13",
    "debian-testing",
    "fedora-41",
    "fedora-42",
    "fedora-43",
    "hadron-0.1",
    "linuxmint-22",
    "opensuse-leap-15.6",
    "opensuse-leap-16.0",
    "opensuse-tumbleweed",
    "oracle-10",
    "oracle-9",
    "pop-22.04",
    "raspbian-12",
    "rhel-10",
    "rhel-9",
    "rocky-10",
    "rocky-9",
    "sle-micro-rancher-5.4",
    "sles-15.6",
    "ubuntu-20.04",
    "ubuntu-22.04",
    "ubuntu-24.04",
    "ubuntu-24.10",
    "ubuntu-25.10",
    "ubuntu-26.04",
];
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(path)
}

fn os_release(name: &str) -> String {
    std::fs::read_to_string(testdata("os-release").join(name)).expect("a sample")
}

/// Returns a directory that holds nothing but the os-release of `name`.
pub(crate) fn base(name: &str) -> PathBuf {
    os_release_tar(&format!("plan-{name}"), &os_release(name)).with_extension("")
}

pub(crate) fn prepared(name: &str, arch: &str, options: &[&str]) -> Kfactory {
    let arguments = [
        "plan",
        &format!("dir:{}", base(name).display()),
        "--version",
        "v1.2.3",
        "--platform",
        &format!("linux/{arch}"),
        "--progress",
        "none",
    ];
    Kfactory::new(arguments)
        .args(options)
        .store(&world().user_dir("plan-store"))
}

pub(crate) fn plan(name: &str, arch: &str, options: &[&str]) -> String {
    prepared(name, arch, options).succeed().stdout
}

#[test]
fn plans_are_as_the_golden_files_say() {
    for name in BASES {
        for arch in ARCHITECTURES {
            compare(&format!("{name}-{arch}"), &plan(name, arch, &[]));
        }
    }
}

/// Compares a plan with its golden file, or writes that.
pub(crate) fn compare(name: &str, found: &str) {
    let golden = testdata("plans").join(format!("{name}.txt"));
    if std::env::var_os("KFACTORY_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, found).expect("our source");
    }
    let expected = std::fs::read_to_string(&golden)
        .unwrap_or_else(|_| panic!("no golden file for {name}; `just golden` writes it"));
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            found,
            expected,
            "{name}, line {}; `just golden` rewrites",
            line + 1
        );
    }
    assert_eq!(
        found.lines().count(),
        expected.lines().count(),
        "{name}; `just golden` rewrites"
    );
}

#[test]
fn every_plan_file_belongs_to_a_system() {
    let mut samples: Vec<String> = names("os-release");
    samples.retain(|name| name != "arch");
    assert_eq!(samples, BASES);
    let plans = BASES
        .iter()
        .flat_map(|name| ARCHITECTURES.map(|arch| format!("{name}-{arch}.txt")));
    let mut found = names("plans");
    found.retain(|name| BASES.iter().any(|base| name.starts_with(base)));
    assert_eq!(found, plans.collect::<Vec<_>>());
}

pub(crate) fn names(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(testdata(dir)).expect("our source");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn arch_linux_needs_a_kernel_of_its_own() {
    let ran = prepared("arch", "amd64", &[]).fail(1);
    ran.tells(&["no kernel package is known for Arch Linux", "installKernel"]);
    let text = plan("arch", "amd64", &["--skip-step", "installKernel"]);
    assert!(
        text.contains("family arch") && text.contains("depmod, dracut"),
        "{text}"
    );
}

#[test]
fn a_plan_as_json_holds_the_same_steps() {
    for name in ["debian-12", "ubuntu-24.04"] {
        let value: serde_json::Value =
            serde_json::from_str(&plan(name, "amd64", &["--output", "json"])).expect("JSON");
        let steps: Vec<&str> = value["steps"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|step| step["name"].as_str())
            .collect();
        assert_eq!(steps.first(), Some(&"installPackages"), "{name}");
        assert_eq!(steps.last(), Some(&"cleanup"), "{name}");
        assert_eq!(value["version"], "v1.2.3");
        let kernel = value["kernel"].as_array().expect("a list");
        assert!(
            kernel.iter().any(|package| package["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("linux-image"))),
            "{kernel:?}"
        );
    }
}

#[test]
fn a_plan_as_yip_is_yaml_with_the_two_stages() {
    for name in BASES {
        let text = plan(name, "amd64", &["--output", "yip"]);
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        for stage in ["install", "init"] {
            let steps = value["stages"][stage]
                .as_array()
                .unwrap_or_else(|| panic!("{name}: no stage {stage}"));
            assert!(
                !steps.is_empty() && steps.iter().all(|step| step["name"].is_string()),
                "{name}"
            );
        }
    }
}

#[test]
fn a_plan_as_yip_is_read_as_extensions_and_printed_the_same_again() {
    let dir = world().own_dir("plans-as-yip");
    for name in [
        "debian-12",
        "fedora-43",
        "alpine-3.23",
        "opensuse-leap-16.0",
        "hadron-0.1",
    ] {
        let text = plan(name, "amd64", &["--output", "yip"]);
        std::fs::write(dir.join("10.yaml"), &text).expect("ours");
        let place = dir.display().to_string();
        let both = plan(name, "amd64", &["--output", "yip", "-x", &place]);
        fn steps(text: &str, times: usize) -> Vec<&str> {
            let lines = text.lines().filter(|line| line.starts_with("    "));
            let lines: Vec<&str> = lines.collect();
            let mut lines = lines.repeat(times);
            lines.sort_unstable();
            lines
        }
        assert!(steps(&both, 1) == steps(&text, 2), "{name}:\n{both}");
    }
}

#[test]
fn options_change_the_plan_and_steps_left_out_are_named() {
    let text = plan(
        "debian-12",
        "amd64",
        &[
            "--stage",
            "init",
            "--skip-step",
            "initrd,sshHardening",
            "--layers",
            "step",
        ],
    );
    assert!(
        !text.contains("installPackages") && text.contains("left out   initrd, sshHardening"),
        "{text}"
    );
    assert!(
        text.contains("layer kernel\n") && text.contains("layer cleanup\n"),
        "{text}"
    );
}

#[test]
fn a_plan_of_a_tar_file_and_of_a_directory_are_one_and_a_directory_needs_no_store() {
    let (dir, store) = (base("ubuntu-24.04"), world().user_dir("plan-dir-store"));
    let planned = |base: String, store: &Path| {
        let arguments = [
            "plan",
            &base,
            "--version",
            "v1.2.3",
            "--platform",
            "linux/amd64",
        ];
        Kfactory::new(arguments).store(store).succeed().stdout
    };
    let of_dir = planned(format!("dir:{}", dir.display()), &store);
    assert_eq!(std::fs::read_dir(&store).expect("there").count(), 0);
    let tar = dir.with_extension("tar");
    let of_tar = planned(
        format!("tar:{}", tar.display()),
        &world().user_dir("plan-store"),
    );
    assert_eq!(of_dir, of_tar);
}
