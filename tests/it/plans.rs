//! `kfactory plan`: golden texts for the distributions we know, and the two other forms.
//!
//! `KFACTORY_UPDATE_GOLDEN=1` rewrites the golden files in `testdata/plans`.

use std::path::Path;

use crate::support::base::os_release_tar;
use crate::support::{Kfactory, world};

/// Name of the golden file, and the os-release of the base.
const BASES: [(&str, &str); 4] = [
    (
        "debian-12",
        "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
    ),
    (
        "debian-13",
        "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\nID=debian\n",
    ),
    (
        "ubuntu-22.04",
        "PRETTY_NAME=\"Ubuntu 22.04.5 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"22.04\"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n",
    ),
    (
        "ubuntu-24.04",
        "PRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n",
    ),
];

fn plan(name: &str, os_release: &str, options: &[&str]) -> String {
    let tar = os_release_tar(&format!("plan-{name}"), os_release);
    let base = format!("tar:{}", tar.display());
    let arguments = [
        "plan",
        &base,
        "--version",
        "v1.2.3",
        "--platform",
        "linux/amd64",
        "--progress",
        "none",
    ];
    Kfactory::new(arguments)
        .args(options)
        .store(&world().user_dir("plan-store"))
        .succeed()
        .stdout
}

#[test]
fn plans_are_as_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/plans");
    for (name, os_release) in BASES {
        let found = plan(name, os_release, &[]);
        let golden = dir.join(format!("{name}.txt"));
        if std::env::var_os("KFACTORY_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&dir).expect("our source");
            std::fs::write(&golden, &found).expect("our source");
        }
        let expected = std::fs::read_to_string(&golden).expect("the golden file is there");
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
}

#[test]
fn a_plan_as_json_holds_the_same_steps() {
    for (name, os_release) in BASES {
        let value: serde_json::Value =
            serde_json::from_str(&plan(name, os_release, &["--output", "json"])).expect("JSON");
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
    for (name, os_release) in BASES {
        let text = plan(name, os_release, &["--output", "yip"]);
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
fn options_change_the_plan_and_steps_left_out_are_named() {
    let (name, os_release) = BASES[0];
    let text = plan(
        name,
        os_release,
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
fn a_plan_of_a_directory_reads_nothing_but_its_release() {
    let (name, os_release) = BASES[3];
    let tar = os_release_tar(&format!("plan-{name}"), os_release);
    let dir = tar.with_extension("");
    let store = world().user_dir("plan-dir-store");
    let arguments = [
        "plan",
        &format!("dir:{}", dir.display()),
        "--version",
        "v1.2.3",
        "--platform",
        "linux/amd64",
    ];
    let ran = Kfactory::new(arguments).store(&store).succeed();
    assert_eq!(ran.stdout, plan(name, os_release, &[]));
    assert_eq!(
        std::fs::read_dir(&store).expect("there").count(),
        0,
        "a plan of a directory needs no store"
    );
}
