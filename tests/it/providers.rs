//! Providers: k3s and k0s from a release server, what may be asked of providers, and a whole conversion of Debian 12 with k3s.

use std::os::unix::fs::MetadataExt as _;

use crate::plans::{compare, plan};
use crate::repeat::FreshStore;
use crate::support::conversion::{BASE, conversion};
use crate::support::framework::stand_ins;
use crate::support::releases::{Releases, k3s_dir, k3s_file, sha256};
use crate::support::small::{Small, k3s_program};
use crate::support::tree::Tree;
use crate::support::{Kfactory, world};

const K3S: &str = "v1.33.4+k3s1";

#[test]
fn k3s_is_installed_from_its_release_and_kept_for_the_next_run() {
    let files = [
        ("usr/bin/systemctl", 0o755, "#!/bin/sh\n"),
        ("usr/sbin/crictl", 0o755, "the base's own\n"),
    ];
    let Some(small) = Small::new("k3s", &files) else {
        return;
    };
    let releases = Releases::start();
    releases.put_k3s(K3S, &k3s_program(K3S));
    let config = small.dir.join("k3s.yaml");
    std::fs::write(&config, "write-kubeconfig-mode: \"0600\"\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    let convert = |mirror: &str| {
        small
            .convert(&["-p", "k3s", "--provider-k3s-version", K3S])
            .args(["--provider-k3s-config", config])
            .env(mirror, &releases.base)
    };
    let ran = convert("KFACTORY_PROVIDER_MIRROR").succeed();
    ran.tells(&["provider: k3s v1.33.4+k3s1 matches the checksum published with the release"]);
    let tree = small.tree("tree");
    assert_eq!(tree.read("usr/bin/k3s"), k3s_program(K3S));
    assert_eq!(tree.metadata("usr/bin/k3s").mode() & 0o7777, 0o755);
    for command in ["kubectl", "ctr"] {
        assert_eq!(tree.read(&format!("usr/bin/{command}")), k3s_program(K3S));
    }
    assert!(!tree.has("usr/bin/crictl"), "the base has one");
    for (path, mode) in [
        ("etc/systemd/system/k3s.service", 0o644),
        ("etc/systemd/system/k3s-agent.service", 0o644),
        ("etc/systemd/system/k3s.service.env", 0o600),
        ("usr/bin/k3s-killall.sh", 0o755),
        ("etc/rancher/k3s/config.yaml", 0o600),
    ] {
        assert_eq!(tree.metadata(path).mode() & 0o7777, mode, "{path}");
    }
    assert!(!tree.has("etc/init.d/k3s"), "there is no OpenRC");
    let release = tree.read("etc/kairos-release");
    for line in [
        "KAIROS_SOFTWARE_VERSION=\"v1.33.4+k3s1\"",
        "KAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"",
    ] {
        assert!(
            release.lines().any(|it| it == line),
            "no {line}:\n{release}"
        );
    }
    let asked = releases.asked().len();
    let again = convert("KFACTORY_FRAMEWORK_MIRROR").succeed();
    assert!(again.says("layer provider: cached"), "{}", again.stderr());
    assert_eq!(again.digest(), ran.digest());
    assert_eq!(releases.asked().len(), asked, "nothing is asked for again");
}

#[test]
fn k0s_is_installed_from_its_release() {
    let files = [("usr/bin/systemctl", 0o755, "#!/bin/sh\n")];
    let Some(small) = Small::new("k0s", &files) else {
        return;
    };
    let (releases, arch) = (Releases::start(), k3s_file().1);
    let version = "v1.33.4+k0s.0";
    let program = format!("#!/bin/sh\necho {version}\n");
    let dir = "/k0sproject/k0s/releases/download/v1.33.4%2Bk0s.0";
    releases.put(
        &format!("{dir}/k0s-v1.33.4%2Bk0s.0-{arch}"),
        program.as_bytes(),
    );
    let sums = format!("{} *k0s-{version}-{arch}\n", sha256(program.as_bytes()));
    releases.put(&format!("{dir}/sha256sums.txt"), sums.as_bytes());
    let config = small.dir.join("k0s.yaml");
    std::fs::write(&config, "kind: ClusterConfig\n").expect("written");
    small
        .convert(&["-p", "k0s", "--provider-k0s-version", version])
        .args(["--provider-k0s-config", config.to_str().expect("UTF-8")])
        .env("KFACTORY_PROVIDER_MIRROR", &releases.base)
        .succeed();
    let tree = small.tree("tree");
    assert_eq!(tree.read("usr/bin/k0s"), program);
    assert_eq!(tree.read("etc/k0s/k0s.yaml"), "kind: ClusterConfig\n");
    for service in ["k0scontroller", "k0sworker"] {
        let unit = tree.read(&format!("etc/systemd/system/{service}.service"));
        let command = service.trim_start_matches("k0s");
        assert!(unit.contains(&format!("ExecStart=/usr/bin/k0s {command}\n")));
    }
    assert!(!tree.has("usr/bin/kubectl"), "that is k3s' way");
    let release = tree.read("etc/kairos-release");
    assert!(
        release.contains(
            "KAIROS_SOFTWARE_VERSION=\"v1.33.4+k0s.0\"\nKAIROS_SOFTWARE_VERSION_PREFIX=\"k0s\"\n"
        ),
        "{release}"
    );
}

#[test]
fn plans_with_providers_are_as_the_golden_files_say() {
    let rows = [
        ("k3s-debian-12", "debian-12", "amd64", "-p k3s"),
        (
            "k0s-alpine-3.23",
            "alpine-3.23",
            "arm64",
            "-p k0s --provider-k0s-version 1.33.4+k0s.0",
        ),
        (
            "plugins-ubuntu-24.04",
            "ubuntu-24.04",
            "amd64",
            "-p k3s,edge --provider-source plugin --provider-edge-version 7 --provider-edge-config f",
        ),
    ];
    // The configuration that the last one names, in the directory where the program runs.
    std::fs::write(world().dir.join("home/f"), "any: words\n").expect("written");
    for (golden, system, arch, options) in rows {
        let options: Vec<&str> = options.split(' ').collect();
        compare(
            &format!("providers/{golden}"),
            &plan(system, arch, &options),
        );
    }
}

#[test]
fn on_openrc_k3s_gets_scripts_instead_of_units() {
    let files = [("sbin/openrc-run", 0o755, "#!/bin/sh\n")];
    let Some(small) = Small::new("openrc", &files) else {
        return;
    };
    let releases = Releases::start();
    releases.put_k3s(K3S, &k3s_program(K3S));
    small
        .convert(&["-p", "k3s", "--provider-k3s-version", K3S])
        .env("KFACTORY_PROVIDER_MIRROR", &releases.base)
        .succeed();
    let tree = small.tree("tree");
    for (path, mode) in [
        ("etc/init.d/k3s", 0o755),
        ("etc/init.d/k3s-agent", 0o755),
        ("etc/rancher/k3s/k3s.env", 0o600),
        ("etc/logrotate.d/k3s", 0o644),
    ] {
        assert_eq!(tree.metadata(path).mode() & 0o7777, mode, "{path}");
    }
    assert!(!tree.has("etc/systemd/system/k3s.service"));
}

#[test]
fn a_release_that_cannot_be_had_stops_the_run() {
    let Some(small) = Small::new("damaged", &[]) else {
        return;
    };
    let releases = Releases::start();
    let program = format!("{}/{}", k3s_dir(K3S), k3s_file().0);
    let fail = |words: &[&str]| {
        let ran = small
            .convert(&["-p", "k3s", "--provider-k3s-version", K3S])
            .env("KFACTORY_PROVIDER_MIRROR", &releases.base)
            .fail(1);
        ran.tells(&["cannot get the Kubernetes distribution"]);
        ran.tells(words);
        assert!(!small.dir.join("out").exists(), "something was written");
    };
    fail(&[
        "status 404",
        "hint: is there such a release? `--provider-k3s-version`",
    ]);
    releases.put_k3s(K3S, &k3s_program(K3S));
    releases.put(&program, b"#!/bin/sh\necho owned\n");
    fail(&["has the wrong checksum", "nothing of it was used"]);
    releases.put(&program, k3s_program(K3S).as_bytes());
    releases.cut(&program, 20);
    fail(&["GET http://127.0.0.1"]);
    assert_eq!(
        releases.asked().iter().filter(|it| **it == program).count(),
        1 + 4,
        "once for the forged one, four times for the truncated one"
    );
}

#[test]
fn an_installed_program_is_asked_for_its_version_when_this_run_did_not_install_it() {
    let program = k3s_program("v1.31.2+k3s1");
    let files = [("usr/bin/k3s", 0o755, program.as_str())];
    let Some(small) = Small::new("there", &files) else {
        return;
    };
    // The version asked for is not the one that is there.
    small
        .convert(&[
            "-p",
            "k3s",
            "--provider-k3s-version",
            K3S,
            "--stage",
            "init",
        ])
        .succeed();
    let release = small.tree("tree").read("etc/kairos-release");
    assert!(
        release.contains("KAIROS_SOFTWARE_VERSION=\"v1.31.2+k3s1\"\n"),
        "{release}"
    );
}

#[test]
fn either_name_of_the_step_leaves_kubernetes_out() {
    for name in ["kubernetes", "buildProvider"] {
        let Some(small) = Small::new(&format!("skip-{name}"), &[]) else {
            return;
        };
        small
            .convert(&["-p", "edge", "--skip-step", name])
            .succeed();
        let release = small.tree("tree").read("etc/kairos-release");
        assert!(
            release.contains("KAIROS_VARIANT=\"standard\"\n"),
            "{release}"
        );
    }
}

#[test]
fn what_is_asked_of_providers_must_make_sense() {
    let Some(small) = Small::new("usage", &[]) else {
        return;
    };
    for (options, words) in [
        (
            &["-p", "k3s", "--provider-k0s-version", "v1"][..],
            &[
                "`k0s`, which was not asked for",
                "hint: the providers are k3s",
            ][..],
        ),
        (
            &["--provider-k3s-version", "v1.33.4+k3s1"],
            &["hint: `--provider k3s` asks for it"],
        ),
        (
            &["-p", "k3s", "--provider-k3s-verison", "v1"],
            &[
                "unknown option `--provider-k3s-verison`",
                "--provider-NAME-version",
            ],
        ),
        (
            &["-p", "k3s", "--provider-k3s-version", "latest"],
            &[
                "`latest` is not a release of k3s",
                "--provider-k3s-version v1.",
            ],
        ),
        (
            &["-p", "k3s:v1.33.4"],
            &["hint: `--provider k3s --provider-k3s-version v1.33.4`"],
        ),
        (
            &["--provider-source", "plugin"],
            &["`--provider-source` is given, but no provider"],
        ),
        (&["-p", "k3s,k0s,k3s"], &["provider `k3s` is given twice"]),
    ] {
        small.fail(2, options, words);
    }
    small.fail(
        1,
        &["-p", "k3s", "--provider-k3s-config", "/nowhere.yaml"],
        &[
            "cannot use the configuration of provider `k3s`",
            "/nowhere.yaml",
        ],
    );
}

#[test]
fn a_recipe_names_providers_and_their_options() {
    let options = [
        "convert",
        "--print-recipe",
        "debian:12",
        "oci:out:v1.2.3",
        "-p",
        "k3s",
        "--provider",
        "edge",
        "--provider-k3s-version",
        K3S,
        "--provider-edge-config=/srv/edge.conf",
        "--provider-source",
        "plugin",
        "--provider-timeout",
        "60",
    ];
    let store = world().user_dir("provider-recipe-store");
    let recipe = Kfactory::new(options).store(&store).succeed().stdout;
    for words in [
        "provider-options",
        "version: v1.33.4+k3s1",
        "config: /srv/edge.conf",
    ] {
        assert!(recipe.contains(words), "no {words} in:\n{recipe}");
    }
    let file = store.join("recipe.yaml");
    std::fs::write(&file, &recipe).expect("written");
    let from = |more: &[&str]| {
        Kfactory::new(["convert", "--print-recipe", "-f"])
            .args([&file])
            .args(more)
            .store(&store)
    };
    assert_eq!(from(&[]).succeed().stdout, recipe);
    // Other providers than the recipe's take its options with them.
    let other = from(&["-p", "k3s"]).succeed().stdout;
    assert!(
        other.contains("v1.33.4+k3s1") && !other.contains("edge"),
        "{other}"
    );
    std::fs::write(&file, recipe.replace("version:", "verison:")).expect("written");
    from(&[]).fail(2).tells(&["verison"]);
}

#[test]
fn debian_becomes_a_standard_image_with_k3s() {
    let Some(made) = conversion() else { return };
    let releases = Releases::start();
    releases.put_k3s(K3S, &k3s_program(K3S));
    let framework = stand_ins(&[
        "usr/bin/kairos-agent",
        "usr/bin/immucore",
        "usr/bin/edgevpn",
        "system/providers/agent-provider-kairos",
    ]);
    let store = FreshStore::new("store-k3s", made);
    let (base, dest) = (
        made.server.reference(BASE),
        made.server.reference("me/k3s:v1.0.0"),
    );
    let framework = format!("dir:{}", framework.display());
    let ran = Kfactory::new(["convert", &base, &dest, "--framework", &framework])
        .args(["--progress", "plain", "-p", "k3s"])
        .args(["--provider-k3s-version", K3S])
        .env("KFACTORY_PROVIDER_MIRROR", &releases.base)
        .store(&store.0)
        .dated()
        .succeed();
    // The rules for standard images hold: else nothing would have been pushed.
    ran.tells(&["validated: "]);
    // Fetched while packages install, not when its step begins.
    let (ready, packages) = (
        ran.when("provider: k3s v1.33.4+k3s1 matches"),
        ran.when("installPackages: done"),
    );
    assert!(
        ready.is_some() && ready < packages,
        "{ready:?} {packages:?}"
    );
    let dir = store.0.join("tree");
    Kfactory::new(["unpack", &dest, dir.to_str().expect("UTF-8")])
        .store(&store.0)
        .succeed();
    let tree = Tree::new(dir);
    let release = tree.read("etc/kairos-release");
    for line in [
        "KAIROS_VARIANT=\"standard\"",
        "KAIROS_NAME=\"kairos-standard-debian-12\"",
        "KAIROS_ID_LIKE=\"kairos-standard-debian-12\"",
        "KAIROS_SOFTWARE_VERSION=\"v1.33.4+k3s1\"",
        "KAIROS_SOFTWARE_VERSION_PREFIX=\"k3s\"",
        "KAIROS_VERSION=\"v1.0.0\"",
    ] {
        assert!(
            release.lines().any(|it| it == line),
            "no {line}:\n{release}"
        );
    }
    for path in [
        "usr/bin/k3s",
        "usr/bin/kubectl",
        "usr/bin/crictl",
        "usr/bin/ctr",
        "usr/bin/edgevpn",
        "system/providers/agent-provider-kairos",
        "usr/bin/kairos",
        "etc/systemd/system/k3s.service",
        "etc/systemd/system/k3s-agent.service",
        "boot/vmlinuz",
        "boot/initrd",
    ] {
        assert!(tree.has(path), "no {path}");
    }
    assert_eq!(
        tree.resolve("usr/bin/kairos"),
        tree.resolve("system/providers/agent-provider-kairos")
    );
    // Kairos starts k3s where it is configured, and nothing else does.
    let wanted: Vec<_> = tree
        .walk_links("etc/systemd/system")
        .into_iter()
        .filter(|(path, _)| path.contains("k3s"))
        .collect();
    assert!(wanted.is_empty(), "{wanted:?}");
    let inspected = Kfactory::new(["inspect", &dest]).store(&store.0).succeed();
    for word in ["kfactory provider", "KAIROS_SOFTWARE_VERSION=v1.33.4+k3s1"] {
        assert!(inspected.stdout.contains(word), "{}", inspected.stdout);
    }
}
