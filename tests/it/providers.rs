//! Providers: real plugin processes, well- and ill-behaved; k3s from a release server; a whole conversion of Debian 12 with it.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::plans::{compare, plan};
use crate::repeat::FreshStore;
use crate::support::base::shell_tar;
use crate::support::conversion::{BASE, conversion};
use crate::support::framework::stand_ins;
use crate::support::program::Ran;
use crate::support::releases::{Releases, k3s_dir, k3s_file, sha256};
use crate::support::tree::Tree;
use crate::support::{Kfactory, need, world};

const DEBIAN: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n";
/// Every step that has nothing to do with providers.
const OTHER_STEPS: &str = "installPackages,installKernel,branding,grub,miscellaneous,cloudconfigs,kairosBinaries,providerBinaries,\
                           kernel,initramfsConfigs,initrd,services,sshHardening,workarounds,cleanup";
const K3S: &str = "v1.33.4+k3s1";

/// Answers to every event that it is none of its business.
const BYSTANDER: &str = r#"#!/bin/sh
read -r event
echo '{"state":"non-applicable","data":"","error":"","log":""}'
"#;

/// Installs the provider `edge` as a file that holds what it was given, and knows what it installed.
const EDGE: &str = r#"#!/bin/sh
read -r event || :
value() { rest=${event#*\\\"$1\\\":\\\"}; echo "${rest%%\\\"*}"; }
case $1 in
init.provider.install)
    if [ "$(value provider)" != edge ]; then
        echo '{"state":"non-applicable"}'
        exit
    fi
    printf '%s\n' "$event" >/edge.event
    value version >/edge.version
    config=$(value config)
    if [ -n "$config" ]; then while read -r line; do echo "$line"; done <"$config" >/edge.config; fi
    echo "a word on the error stream" >&2
    printf '%s\n' '{"state":"success","data":"","error":"","log":"edge says hello\nand goodbye"}'
    ;;
init.provider.info)
    read -r version </edge.version
    printf '{"state":"success","data":"{\\"provider\\":\\"edge\\",\\"version\\":\\"%s\\"}"}' "$version"
    ;;
esac
"#;

/// A base with a shell and these plugins, and what a conversion of it needs.
struct Small {
    base: String,
    store: PathBuf,
    dir: PathBuf,
}

impl Small {
    /// Makes the base; `None` where that cannot be done.
    fn new(name: &str, files: &[(&str, u32, &str)]) -> Option<Self> {
        if !need(&["bwrap", "newuidmap"]) {
            return None;
        }
        let mut all = vec![("etc/os-release", 0o644, DEBIAN)];
        all.extend(files);
        let tar = shell_tar(&format!("provider-{name}"), &all)?;
        Some(Self {
            base: format!("tar:{}", tar.display()),
            store: world().user_dir(&format!("provider-{name}-store")),
            dir: world().user_dir(&format!("provider-{name}")),
        })
    }

    /// Prepares a conversion that does nothing but what belongs to providers.
    fn convert(&self, options: &[&str]) -> Kfactory {
        let dest = format!("oci:{}:v1.0.0", self.dir.join("out").display());
        let framework = format!(
            "dir:{}",
            stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
        );
        Kfactory::new(["convert", &self.base, &dest, "--framework", &framework])
            // What is left without all other steps is no system.
            .args([
                "--progress",
                "plain",
                "--no-validate",
                "--skip-step",
                OTHER_STEPS,
            ])
            .args(options)
            .store(&self.store)
            .dated()
    }

    /// Unpacks what was converted.
    fn tree(&self, name: &str) -> Tree {
        let dir = self.dir.join(name);
        let image = format!("oci:{}:v1.0.0", self.dir.join("out").display());
        Kfactory::new(["unpack", &image, dir.to_str().expect("UTF-8")])
            .store(&self.store)
            .succeed();
        Tree::new(dir)
    }

    /// Converts what must fail with `code`, and asserts that nothing was written.
    #[track_caller]
    fn fail(&self, code: i32, options: &[&str], words: &[&str]) -> Ran {
        let ran = self.convert(options).fail(code);
        ran.tells(words);
        assert!(!self.dir.join("out").exists(), "something was written");
        ran
    }
}

#[test]
fn a_plugin_installs_its_provider_and_names_its_version() {
    let files = [
        ("system/providers/agent-provider-edge", 0o755, EDGE),
        ("usr/bin/agent-provider-bystander", 0o755, BYSTANDER),
        ("usr/bin/agent-provider-notes", 0o644, "no program"),
    ];
    let Some(small) = Small::new("edge", &files) else {
        return;
    };
    let config = small.dir.join("edge.conf");
    std::fs::write(&config, "token: secret-word\n").expect("written");
    let config = config.to_str().expect("UTF-8");
    let ran = small
        .convert(&[
            "--provider",
            "edge",
            "--provider-edge-version",
            "7.1",
            &format!("--provider-edge-config={config}"),
        ])
        .succeed();
    ran.tells(&[
        "buildProvider | a word on the error stream",
        "buildProvider | edge says hello",
        "provider `edge` was installed by /system/providers/agent-provider-edge",
        "warning: /usr/bin/agent-provider-notes is no executable file",
    ]);
    let tree = small.tree("tree");
    let event: serde_json::Value =
        serde_json::from_str(&tree.read("edge.event")).expect("one JSON object");
    assert_eq!(event["name"], "init.provider.install");
    assert_eq!(event["file"], "");
    let data: serde_json::Value =
        serde_json::from_str(event["data"].as_str().expect("text")).expect("JSON in it");
    assert_eq!(data["provider"], "edge");
    assert_eq!(data["version"], "7.1");
    assert_eq!(data["logLevel"], "info");
    assert_eq!(data["family"], "debian");
    assert_eq!(tree.read("edge.config"), "token: secret-word\n");
    assert!(!tree.has("run/kairos-provider"), "a mount point was left");
    let release = tree.read("etc/kairos-release");
    for line in [
        "KAIROS_VARIANT=\"standard\"",
        "KAIROS_NAME=\"kairos-standard-debian-12\"",
        "KAIROS_SOFTWARE_VERSION=\"7.1\"",
        "KAIROS_SOFTWARE_VERSION_PREFIX=\"edge\"",
    ] {
        assert!(
            release.lines().any(|it| it == line),
            "no {line}:\n{release}"
        );
    }
    // Another content of the file is another layer; another name is not.
    let cached = |options: &[&str]| {
        small
            .convert(options)
            .succeed()
            .says("layer provider: cached")
    };
    let moved = small.dir.join("moved.conf");
    std::fs::copy(config, &moved).expect("copied");
    let moved = moved.to_str().expect("UTF-8");
    let options = |file| {
        [
            "-pedge",
            "--provider-edge-version=7.1",
            "--provider-edge-config",
            file,
        ]
    };
    assert!(cached(&options(moved)));
    std::fs::write(moved, "token: another\n").expect("written");
    assert!(!cached(&options(moved)));
}

#[test]
fn data_beyond_8192_bytes_reaches_a_plugin_by_file() {
    let plugin = r#"#!/bin/sh
read -r event || :
[ "$1" = init.provider.install ] || { echo '{}'; exit; }
file=${event##*\"file\":\"}
file=${file%%\"*}
read -r data <"$file" || :
echo "$file ${#data}" >/seen
echo '{"state":"success"}'
"#;
    let files = [("system/providers/agent-provider-edge", 0o755, plugin)];
    let Some(small) = Small::new("huge", &files) else {
        return;
    };
    let version = "7".repeat(9000);
    let ran = small
        .convert(&["--provider", "edge", "--provider-edge-version", &version])
        .succeed();
    ran.tells(&["nothing in the image tells the version of provider edge"]);
    let seen = small.tree("tree").read("seen");
    let (file, length) = seen.trim().split_once(' ').expect("two words");
    assert!(file.starts_with("/run/"), "{seen}");
    assert!(length.parse::<usize>().expect("a number") > 9000, "{seen}");
}

/// Converts with one plugin that must not get away with what it does.
#[track_caller]
fn ill_behaved(name: &str, plugin: &str, options: &[&str], words: &[&str]) {
    let files = [
        ("system/providers/agent-provider-edge", 0o755, plugin),
        ("usr/bin/agent-provider-bystander", 0o755, BYSTANDER),
    ];
    let Some(small) = Small::new(name, &files) else {
        return;
    };
    let mut all = vec!["--provider", "edge"];
    all.extend(options);
    let ran = small.fail(3, &all, words);
    ran.tells(&[
        "cannot finish step `buildProvider`",
        "/system/providers/agent-provider-edge",
    ]);
}

#[test]
fn a_plugin_that_says_nothing_is_an_error() {
    ill_behaved("silent", "#!/bin/sh\n", &[], &["it said nothing"]);
}

#[test]
fn a_plugin_that_never_answers_is_ended() {
    let start = std::time::Instant::now();
    ill_behaved(
        "slow",
        "#!/bin/sh\necho one moment >&2\nwhile :; do :; done\n",
        &["--provider-timeout", "2"],
        &[
            "gave no answer",
            "ended after 2 seconds",
            "one moment",
            "hint: `--provider-timeout SECONDS`",
        ],
    );
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_plugin_that_answers_twice_is_an_error() {
    ill_behaved(
        "twice",
        "#!/bin/sh\necho '{\"state\":\"success\"}'\necho '{\"state\":\"non-applicable\"}'\n",
        &[],
        &["it answered more than once", "non-applicable"],
    );
}

#[test]
fn a_plugin_that_speaks_no_json_is_quoted() {
    ill_behaved(
        "words",
        "#!/bin/sh\necho 'Downloading the installer...'\necho '{\"state\":\"success\"}'\n",
        &[],
        &["is not a JSON object", "Downloading the installer"],
    );
}

#[test]
fn a_plugin_that_answers_without_end_is_ended() {
    ill_behaved(
        "endless",
        "#!/bin/sh\nprintf '{\"log\":\"'\nwhile :; do printf '%01000d' 0; done\n",
        &[],
        &["more than 4194304 bytes"],
    );
}

#[test]
fn a_plugin_that_fails_is_shown_with_its_last_words() {
    ill_behaved(
        "exit",
        "#!/bin/sh\necho 'the disk is full' >&2\necho 'to the other stream'\nexit 1\n",
        &[],
        &[
            "exited with status 1",
            "  | the disk is full",
            "  | to the other stream",
        ],
    );
}

#[test]
fn a_plugin_that_reports_an_error_is_quoted_with_its_log() {
    ill_behaved(
        "reports",
        "#!/bin/sh\necho '{\"state\":\"success\",\"error\":\"no route to host\",\"log\":\"trying 192.0.2.1\"}'\n",
        &[],
        &["it reports: no route to host", "  | trying 192.0.2.1"],
    );
}

#[test]
fn a_plugin_that_cannot_say_what_is_installed_is_a_warning() {
    let plugin = "#!/bin/sh\n[ \"$1\" = init.provider.install ] || { echo oops >&2; exit 1; }\necho '{\"state\":\"success\"}'\n";
    let files = [
        ("system/providers/agent-provider-edge", 0o755, plugin),
        ("usr/bin/k3s", 0o755, &k3s_program("v1.31.2+k3s1")),
    ];
    let Some(small) = Small::new("mute", &files) else {
        return;
    };
    let ran = small.convert(&["--provider", "edge"]).succeed();
    ran.tells(&[
        "warning: ",
        "agent-provider-edge failed",
        "exited with status 1",
    ]);
    // What the plugin does not say, the program in the image does.
    let release = small.tree("tree").read("etc/kairos-release");
    assert!(
        release.contains("KAIROS_SOFTWARE_VERSION=\"v1.31.2+k3s1\"\n"),
        "{release}"
    );
}

#[test]
fn a_provider_that_nobody_installs_is_an_error() {
    let files = [("usr/bin/agent-provider-bystander", 0o755, BYSTANDER)];
    let Some(small) = Small::new("unclaimed", &files) else {
        return;
    };
    small.fail(
        1,
        &["--provider", "edge"],
        &[
            "nobody installed provider `edge`",
            "/usr/bin/agent-provider-bystander",
            "hint: put an executable `agent-provider-edge` into /system/providers",
        ],
    );
    small.fail(
        1,
        &["--provider", "k3s", "--provider-source", "plugin"],
        &[
            "nobody installed provider `k3s`",
            "hint: `--provider-source native`",
        ],
    );
    let Some(small) = Small::new("without", &[]) else {
        return;
    };
    let words = [
        "warning: the base holds no provider plugin",
        "caused by: the image holds no provider plugin",
    ];
    small.fail(1, &["--provider", "edge"], &words);
}

#[test]
fn a_provider_that_two_plugins_install_is_an_error() {
    let greedy = "#!/bin/sh\necho '{\"state\":\"success\"}'\n";
    let files = [
        ("system/providers/agent-provider-one", 0o755, greedy),
        ("usr/bin/agent-provider-two", 0o755, greedy),
    ];
    let Some(small) = Small::new("both", &files) else {
        return;
    };
    small.fail(
        1,
        &["--provider", "edge"],
        &[
            "installed more than once",
            "/usr/bin/agent-provider-two, /system/providers/agent-provider-one",
        ],
    );
}

#[test]
fn the_first_plugin_of_a_name_along_the_search_path_is_the_one() {
    let other = "#!/bin/sh\necho '{\"state\":\"error\",\"error\":\"the wrong one\"}'\n";
    let files = [
        ("usr/bin/agent-provider-edge", 0o755, EDGE),
        ("system/providers/agent-provider-edge", 0o755, other),
    ];
    let Some(small) = Small::new("first", &files) else {
        return;
    };
    let ran = small.convert(&["--provider", "edge"]).succeed();
    ran.tells(&["was installed by /usr/bin/agent-provider-edge"]);
}

/// Says what k3s says of itself.
fn k3s_program(version: &str) -> String {
    format!("#!/bin/sh\necho 'k3s version {version} (0a1b2c3d)'\necho 'go version go1.24.5'\n")
}

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
fn wrappers_may_pass_on_options_without_a_value() {
    let Some(small) = Small::new("empty", &[]) else {
        return;
    };
    small
        .convert(&["--provider", "", "--provider--version", ""])
        .succeed();
    let release = small.tree("tree").read("etc/kairos-release");
    assert!(release.contains("KAIROS_VARIANT=\"core\"\n"), "{release}");
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
