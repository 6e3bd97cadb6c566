//! Provider plugins: real processes, well- and ill-behaved, each the whole provider of a small image.

use std::time::Duration;

use crate::support::Kfactory;
use crate::support::small::{Small, k3s_program};

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
fn a_plugin_whose_interpreter_is_missing_is_told_from_a_missing_one() {
    let plugin = "#!/usr/bin/python9\n";
    let files = [("system/providers/agent-provider-edge", 0o755, plugin)];
    let Some(small) = Small::new("interpreter", &files) else {
        return;
    };
    let words = [
        "/system/providers/agent-provider-edge is there",
        "its first line names: /usr/bin/python9",
        "hint: install the interpreter",
    ];
    small.fail(1, &["--provider", "edge"], &words);
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
fn a_plan_says_which_plugins_the_base_holds_however_it_is_given() {
    let files = [
        ("system/providers/agent-provider-edge", 0o755, EDGE),
        ("usr/bin/agent-provider-notes", 0o644, "no program"),
    ];
    let Some(small) = Small::new("planned", &files) else {
        return;
    };
    let layout = format!("oci:{}:v1", small.dir.join("layout").display());
    let kfactory = |words: &[&str]| Kfactory::new(words).store(&small.store);
    kfactory(&["copy", &small.base, &layout]).succeed();
    kfactory(&["copy", &small.base, "store:planned"]).succeed();
    let tree = small.dir.join("tree");
    kfactory(&["unpack", &small.base, tree.to_str().expect("UTF-8")]).succeed();
    let plan = |base: &str| {
        kfactory(&["plan", base, "--version", "v1.0.0", "-pedge"])
            .succeed()
            .stdout
    };
    let dir = format!("dir:{}", tree.display());
    for base in [&small.base, &layout, "store:planned", &dir] {
        let text = plan(base);
        let words = "provider   edge, left to the plugins of the image; `convert` fails if none claims it\n           \
                     /system/providers/agent-provider-edge\n";
        assert!(text.contains(words), "{base}: {text}");
        assert!(!text.contains("agent-provider-notes"), "{base}: {text}");
    }
    let Some(small) = Small::new("planned-without", &files[1..]) else {
        return;
    };
    let text = plan(&small.base);
    let words = "note       the base holds no provider plugin (/usr/bin/agent-provider-notes is no executable file): \
                 unless a step brings one that installs `edge`, this conversion will fail\n";
    assert!(text.contains(words), "{text}");
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
