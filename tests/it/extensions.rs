//! Stage extensions end to end: what they do to an image, in which order, and what is cached.
//!
//! Most work on a base of little more than a shell, with every built-in step left out; one converts a real Debian.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::base::small_tar;
use crate::support::conversion::{BASE, server_with_base};
use crate::support::extended::{DEBIAN, rig};
use crate::support::framework::stand_ins;
use crate::support::program::Ran;
use crate::support::tree::Tree;
use crate::support::user::is_root;
use crate::support::world::Scratch;
use crate::support::{Kfactory, need, world};

#[test]
fn row_12_13_14_15_and_62_templates_and_encodings_end_as_the_dialect_says() {
    let rig = rig!("templates");
    rig.file(
        "10.yaml",
        r#"
stages:
  init:
    - commands:
        - echo {{.Values.os.architecture}} > /arch
        - echo {{.Values.node.hostname}} {{.Values.os.version}} > /node
      files:
        - {path: /literal, permissions: 0644, content: "{{ nope }}"}
        - {path: /missing, permissions: 0644, content: "{{ .Foo }}"}
        - {path: /newline, permissions: 0600, content: Cg==, encoding: b64}
        - {path: /special, permissions: 04755, content: x}
        - {path: /owned, permissions: 0644, ownerstring: "root:root", content: x}
"#,
    );
    let (ran, tree) = rig.made();
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    assert_eq!(tree.read("arch"), format!("{arch}\n"));
    assert_eq!(tree.read("node"), "localhost 12\n");
    assert_eq!(tree.read("literal"), "{{ nope }}");
    assert!(
        ran.says("function \"nope\" not defined"),
        "{}",
        ran.stderr()
    );
    assert_eq!(tree.read("missing"), "<no value>");
    assert_eq!(tree.read("newline"), "\n");
    assert_eq!(tree.metadata("newline").mode() & 0o7777, 0o600);
    assert_eq!(tree.metadata("special").mode() & 0o7777, 0o755);
    assert_eq!(tree.metadata("owned").mode() & 0o7777, 0o644);
}

#[test]
fn row_19_and_22_files_run_in_order_and_a_condition_sees_what_came_before() {
    let rig = rig!("order");
    let change = |from: &str, to: &str| {
        format!(
            "stages: {{init: [{{commands: ['read -r x < /f; [ \"$x\" = {from} ] && echo {to} > /f']}}]}}"
        )
    };
    rig.file("00.yaml", "stages: {init: [{files: [{path: /f, permissions: 0644, content: \"boo\\n\"}]}]}")
        .file("01.yaml", &change("boo", "bar"))
        .file("02.yml", &change("bar", "baz"))
        .file("03.yaml", "stages: {init: [{name: seen, if: 'read -r x < /f; [ $x = baz ]', commands: ['echo > /seen']}]}")
        .file("04.yaml", "stages: {init: [{name: unseen, if: '[ -e /nothing ]', commands: ['echo > /unseen']}]}")
        .file("05.txt", "not an extension");
    let (ran, tree) = rig.made();
    assert_eq!(tree.read("f"), "baz\n");
    assert!(tree.has("seen") && !tree.has("unseen"));
    assert!(
        ran.says("step `unseen` is passed over: `[ -e /nothing ]` failed"),
        "{}",
        ran.stderr()
    );
}

#[test]
fn row_20_a_step_waits_for_the_one_it_names() {
    let rig = rig!("after");
    rig.file("01.yaml", "stages: {init: [{after: [{name: test.test}], commands: ['[ -e /made ] && echo > /found']}]}")
        .file("02.yaml", "name: test\nstages: {init: [{name: test, commands: ['echo > /made']}]}");
    let (_, tree) = rig.made();
    assert!(tree.has("found"));
}

#[test]
fn row_21_and_65_a_failing_command_fails_the_run_and_nothing_is_written() {
    let rig = rig!("failing");
    rig.file("01.yaml", "stages:\n  init:\n    - name: broken\n      commands:\n        - echo some words; exit 9\n");
    let ran = rig.convert().fail(3);
    let place = format!(
        "cannot finish step `broken` ({}:3)",
        rig.dir.join("01.yaml").display()
    );
    ran.tells(&[&place, "| some words"]);
    assert!(!rig.archive().exists());
}

#[test]
fn what_a_command_prints_does_not_stay_in_memory() {
    let rig = rig!("talker");
    rig.file(
        "01.yaml",
        "stages: {init: [{commands: [\"i=0; while [ $i -lt 12000 ]; do printf '%016000d' 0; i=$((i+1)); done\"]}]}",
    );
    // 192 MB are printed, 150 MB may be used.
    let limit = "ulimit -d 150000 && exec \"$@\" 2>/dev/null";
    rig.convert()
        .wrapped_by(&["sh", "-c", limit, "sh"])
        .succeed();
}

#[test]
fn stages_run_in_their_order_and_share_the_image() {
    let rig = rig!("stages");
    let stages: Vec<String> = ["after-init", "init", "before-init", "after-install", "install", "before-install"]
        .iter()
        .map(|stage| format!("  {stage}: [{{commands: ['echo {stage} >> /order', 'echo x > /tmp/left', '[ -e /tmp/left ]']}}]\n"))
        .collect();
    rig.file(
        "all.yaml",
        &format!(
            "stages:\n{}  boot: [{{commands: ['false']}}]\n",
            stages.concat()
        ),
    );
    let (ran, tree) = rig.made();
    assert_eq!(
        tree.read("order"),
        "before-install\ninstall\nafter-install\nbefore-init\ninit\nafter-init\n"
    );
    assert!(
        ran.says("the stage `boot` does not run in a build"),
        "{}",
        ran.stderr()
    );
}

#[test]
fn accounts_units_and_settings_are_written_into_the_image() {
    let rig = rig!("settings");
    fs::create_dir_all(rig.dir.join("nested")).expect("ours");
    rig.file(
        "nested/10.yaml",
        r#"
stages:
  init:
    - name: account
      users:
        kairos:
          passwd: kairos
          groups: [root]
          ssh_authorized_keys: ["ssh-ed25519 AAAA me"]
    - name: settings
      authorized_keys: {kairos: ["ssh-rsa BBBB you"]}
      environment_file: /etc/my.env
      environment: {A: "007", B: "{{ .Values.os.vendor }} x"}
      ensure_entities:
        - entity: |
            kind: group
            group_name: made
            password: x
            gid: -1
            users: kairos
      dns: {path: /etc/my-resolv.conf, nameservers: [192.0.2.1], search: [a, b]}
      systemctl:
        overrides: [{service: foo, content: "[Service]\n"}]
      files:
        - {path: /home/kairos/note, permissions: 0600, ownerstring: kairos, content: hi}
"#,
    );
    let (_, tree) = rig.made();
    assert!(
        tree.read("etc/passwd")
            .contains("kairos:x:1000:1000:Created by entities:/home/kairos:/bin/sh\n")
    );
    assert!(tree.read("etc/shadow").contains("kairos:$6$"));
    assert_eq!(
        tree.read("etc/group"),
        "root:x:0:kairos\nkairos:x:1000:kairos\nmade:x:1001:kairos\n"
    );
    assert_eq!(tree.read("etc/my.env"), "A=7\nB=\"debian x\"\n");
    assert_eq!(
        tree.read("etc/my-resolv.conf"),
        "search a b\nnameserver 192.0.2.1\n"
    );
    assert_eq!(
        tree.read("etc/systemd/system/foo.service.d/override-yip.conf"),
        "[Service]\n"
    );
    assert_eq!(
        tree.read("home/kairos/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA me\nssh-rsa BBBB you\n"
    );
    if is_root() {
        for path in [
            "home/kairos",
            "home/kairos/.ssh/authorized_keys",
            "home/kairos/note",
        ] {
            assert_eq!(tree.metadata(path).uid(), 1000, "{path}");
        }
    }
    assert_eq!(tree.metadata("etc/shadow").mode() & 0o7777, 0o640);
}

#[test]
fn a_changed_extension_makes_its_layer_anew_and_none_below_it() {
    let rig = rig!("cache");
    let install = "stages: {before-install: [{commands: ['echo 1 > /one']}]}\n";
    let init = |word: &str| format!("stages: {{init: [{{commands: ['echo {word} > /two']}}]}}\n");
    rig.file("install.yaml", install)
        .file("late.yaml", &init("first"));
    rig.made();
    let cached = |ran: &Ran| {
        ran.lines
            .iter()
            .filter(|(_, line)| line.contains(": cached"))
            .count()
    };
    // A comment moves every line and changes nothing.
    rig.file("install.yaml", &format!("# moved\n{install}"));
    assert_eq!(cached(&rig.convert().succeed()), 2);
    rig.file("late.yaml", &init("second"));
    let (ran, tree) = rig.made();
    assert_eq!(cached(&ran), 1, "{}", ran.stderr());
    assert_eq!(
        (tree.read("one"), tree.read("two")),
        ("1\n".into(), "second\n".into())
    );
    rig.file(
        "install.yaml",
        "stages: {before-install: [{commands: ['echo 2 > /one']}]}\n",
    );
    let (ran, tree) = rig.made();
    assert_eq!(cached(&ran), 0, "{}", ran.stderr());
    assert_eq!(
        (tree.read("one"), tree.read("two")),
        ("2\n".into(), "second\n".into())
    );
}

#[test]
fn row_66_what_is_wrong_is_named_before_anything_is_read_or_run() {
    let rig = rig!("wrong");
    rig.file("10-good.yaml", "stages: {init: [{commands: ['true']}]}\n")
        .file("20-broken.yaml", "stages:\n  init: [\n")
        .file("30-unknown.yaml", "stages:\n  init:\n    - comands: [x]\n");
    let ran = rig.convert().fail(2);
    ran.tells(&[
        "20-broken.yaml:",
        "30-unknown.yaml:3: unknown key \"comands\"",
        "did you mean `commands`?",
    ]);
    assert!(!ran.says(": started"), "{}", ran.stderr());
    fs::remove_file(rig.dir.join("20-broken.yaml")).expect("ours");
    rig.file(
        "30-unknown.yaml",
        "stages:\n  init:\n    - packages: {install: [x]}\n",
    );
    rig.convert()
        .args(["--network", "none"])
        .fail(2)
        .tells(&["30-unknown.yaml:3: the step needs a network: it fetches packages"]);
    let ran = Kfactory::new(["convert", &rig.base, "-v", "v1.0.0", "-x", "/nowhere"])
        .store(&rig.store)
        .fail(1);
    ran.tells(&["`/nowhere`"]);
}

#[test]
fn extensions_of_the_base_run_first_and_can_be_left_out() {
    if !need(&["bwrap", "newuidmap"]) {
        return;
    }
    let carried =
        "stages: {init: [{name: carried, directories: [{path: /carried, permissions: 0755}]}]}\n";
    let path = "etc/kairos-init/stage-extensions/50.yaml";
    let tar = small_tar(
        "carrying",
        &[("etc/os-release", 0o644, DEBIAN), (path, 0o644, carried)],
    );
    let base = format!("tar:{}", tar.display());
    let dir = world().own_dir("extensions-named");
    fs::write(dir.join("10.yaml"), "stages: {init: [{name: named}]}\n").expect("ours");
    let (dir, store) = (
        dir.display().to_string(),
        world().user_dir("extensions-carried"),
    );
    let plan = |options: &[&str]| {
        Kfactory::new([
            "plan",
            &base,
            "-v",
            "v1.0.0",
            "-x",
            &dir,
            "--platform",
            "linux/amd64",
        ])
        .args(options)
        .store(&store)
        .succeed()
        .stdout
    };
    let text = plan(&[]);
    let at = |word: &str| {
        text.find(word)
            .unwrap_or_else(|| panic!("no {word} in {text}"))
    };
    assert!(
        at("  carried (extension in init, base:/etc/kairos-init/stage-extensions/50.yaml:1)")
            < at("  named (extension in init")
    );
    assert!(at("cleanup (init)") < at("  carried ("));
    let yip: serde_json::Value = serde_saphyr::from_str(&plan(&["--output", "yip"])).expect("YAML");
    let steps = yip["stages"]["init"].as_array().expect("a list");
    assert_eq!(steps.last().expect("one")["name"], "named");
    let json: serde_json::Value = serde_json::from_str(&plan(&["--output", "json"])).expect("JSON");
    assert_eq!(json["extensions"].as_array().map(Vec::len), Some(2));
    let without = plan(&["--skip-step", "stageExtensions"]);
    assert!(
        !without.contains("carried") && !without.contains("named"),
        "{without}"
    );
}

/// The text of `10-zfs.yaml` in upstream's documentation.
const ZFS: &str = r#"stages:
  after-install:
    - files:
        - path: /etc/apt/sources.list.d/zfs.list
          permissions: 0644
          owner: 0
          group: 0
          content: |
            deb http://deb.debian.org/debian bookworm-backports main contrib
            deb-src http://deb.debian.org/debian bookworm-backports main contrib
    - packages:
        install:
          - "zfs-dkms"
          - "zfsutils-linux"
        refresh: true
"#;

#[test]
fn the_documented_example_is_planned_as_it_is_written() {
    let dir = world().own_dir("extensions-zfs");
    fs::write(dir.join("10-zfs.yaml"), ZFS).expect("ours");
    let tar = small_tar("zfs", &[("etc/os-release", 0o644, DEBIAN)]);
    let (base, dir) = (format!("tar:{}", tar.display()), dir.display().to_string());
    let text = Kfactory::new([
        "plan",
        &base,
        "-v",
        "v1.0.0",
        "-x",
        &dir,
        "--platform",
        "linux/amd64",
    ])
    .store(&world().user_dir("extensions-zfs-store"))
    .succeed()
    .stdout;
    for line in [
        "    write /etc/apt/sources.list.d/zfs.list (0:0 0644, 134 bytes)\n",
        "    refresh the package lists, install zfs-dkms zfsutils-linux\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let place = |word: &str| text.find(word).expect(word);
    assert!(
        place("miscellaneous (install)") < place("zfs.list")
            && place("zfs.list") < place("cloudconfigs (install)")
    );
}

const DEBIAN_EXTENSION: &str = r#"
stages:
  before-install:
    - name: Prepare
      directories: [{path: /opt/site, permissions: 0750}]
      files:
        - path: /etc/apt/preferences.d/site
          permissions: 0644
          content: |
            Package: *
            Pin: release o=nobody
            Pin-Priority: 1
  after-install:
    - name: Install a service
      packages: {install: [tinyproxy-bin, "jq"], remove: [nano], refresh: true}
    - name: Its unit
      only_os: "Debian.*"
      only_service_manager: systemd
      files:
        - &unit
          path: /etc/systemd/system/site.service
          permissions: 0644
          content: |
            [Service]
            ExecStart=/usr/bin/true
            [Install]
            WantedBy=multi-user.target
        - {<<: *unit, path: /etc/systemd/system/other.service}
      systemctl:
        enable: [site, other]
        mask: [apt-daily.timer]
    - name: Second thoughts
      systemctl:
        disable: [other]
    - name: Not here
      only_os: "Fedora.*"
      commands: ["false"]
  before-init:
    - name: Account
      users:
        kairos: {passwd: kairos, groups: [sudo], shell: /bin/bash}
  init:
    - name: Report
      commands:
        - jq -n '{made:"{{ .Values.os.vendor }}"}' -c > /opt/site/report
        - test -e /boot/initrd && echo yes > /opt/site/initrd
        - apt-cache policy > /dev/null
"#;

#[test]
fn an_extension_of_several_stages_is_carried_out_on_a_real_debian() {
    let Some(server) = server_with_base() else {
        return;
    };
    let dir = world().own_dir("extensions-debian");
    fs::write(dir.join("10-site.yaml"), DEBIAN_EXTENSION).expect("ours");
    let dest = server.reference("me/extended:v1.0.0");
    let store = Scratch::of_user("extensions-debian-store");
    let programs = stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]);
    let (base, framework) = (
        server.reference(BASE),
        format!("dir:{}", programs.display()),
    );
    let arguments = [
        "convert",
        &base,
        &dest,
        "--framework",
        &framework,
        "--progress",
        "plain",
    ];
    let ran = Kfactory::new(arguments)
        .args(["-x", &dir.display().to_string()])
        .store(&store.0)
        .dated()
        .succeed();
    drop(store);
    assert!(
        ran.says("step `Not here` is passed over"),
        "{}",
        ran.last_lines(40)
    );
    let place = Scratch::of_caller("extensions-debian-tree");
    let tree = unpacked(&dest, &place);
    assert_eq!(tree.read("opt/site/report"), "{\"made\":\"debian\"}\n");
    assert_eq!(tree.read("opt/site/initrd"), "yes\n");
    assert_eq!(tree.metadata("opt/site").mode() & 0o7777, 0o750);
    assert!(tree.has("usr/bin/jq") && tree.has("usr/bin/tinyproxy"));
    let status = tree.read("var/lib/dpkg/status");
    assert!(status.contains("Package: jq\n"));
    assert!(
        tree.resolve("etc/systemd/system/multi-user.target.wants/site.service")
            .is_some()
    );
    let wanted = tree.names("etc/systemd/system/multi-user.target.wants");
    assert!(!wanted.contains(&"other.service".to_owned()), "{wanted:?}");
    assert!(tree.has("etc/systemd/system/other.service"));
    let mask = fs::read_link(tree.dir.join("etc/systemd/system/apt-daily.timer")).expect("a link");
    assert_eq!(mask, Path::new("/dev/null"));
    assert!(
        tree.read("etc/passwd")
            .contains("kairos:x:1000:1000:Created by entities:/home/kairos:/bin/bash")
    );
    let sudo = tree
        .read("etc/group")
        .lines()
        .find(|line| line.starts_with("sudo:"))
        .map(str::to_owned);
    assert!(sudo.is_some_and(|line| line.ends_with("kairos")));
    assert!(tree.read("etc/kairos-release").contains("KAIROS_VERSION"));
    for path in ["var/lib/apt/lists", "var/cache/apt/archives"] {
        let left: Vec<String> = tree
            .names(path)
            .into_iter()
            .filter(|name| name != "partial" && name != "lock")
            .collect();
        assert!(left.is_empty(), "{path}: {left:?}");
    }
}

fn unpacked(reference: &str, place: &Scratch) -> Tree {
    let store = Scratch(place.0.with_extension("store"));
    Kfactory::as_caller(["unpack", reference, &place.0.display().to_string()])
        .store(&store.0)
        .succeed();
    Tree::new(place.0.clone())
}
