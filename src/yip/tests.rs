//! The rows of the dialect's fact sheet that need no tree and no process: what files mean, and what is wrong with them.
//!
//! Numbers in names of tests are those of the rows.

use super::*;
use crate::step::{Condition, Plugin};

fn source(file: &str, text: &str) -> SourceText {
    SourceText {
        file: file.into(),
        text: text.into(),
    }
}

fn load(text: &str) -> Result<Extensions> {
    Extensions::load(&[source("x.yaml", text)], Network::Host)
}

/// Loads one step of the stage `init`, given without its indentation.
fn step(yaml: &str) -> Step {
    let found = load(&in_init(yaml)).unwrap_or_else(|error| panic!("{}", error.render_text()));
    found.steps(Hook::Init)[0].clone()
}

fn in_init(yaml: &str) -> String {
    let body: Vec<String> = yaml.lines().map(|line| format!("      {line}")).collect();
    format!("stages:\n  init:\n    - name: it\n{}\n", body.join("\n"))
}

fn plugins(step: &Step) -> Vec<&Plugin> {
    step.actions
        .iter()
        .filter_map(|action| match action {
            Action::Plugin(plugin) => Some(plugin),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn refused(text: &str, line: usize, word: &str) {
    let error = load(text)
        .err()
        .unwrap_or_else(|| panic!("accepted: {text}"));
    let shown = error.render_text();
    assert!(
        shown.contains(&format!("x.yaml:{line}: ")) && shown.contains(word),
        "no line {line} or `{word}` in:\n{shown}"
    );
}

#[track_caller]
fn warned(text: &str, line: usize, word: &str) -> Extensions {
    let found = load(text).unwrap_or_else(|error| panic!("{}", error.render_text()));
    assert!(
        found
            .warnings
            .iter()
            .any(|warning| warning.contains(&format!("x.yaml:{line}: ")) && warning.contains(word)),
        "no line {line} or `{word}` in {:?}",
        found.warnings
    );
    found
}

fn names(documents: &[schema::Document], stage: &str) -> (Vec<String>, usize) {
    let mut problems = Problems::default();
    let ops = order::arrange(documents, stage, &mut problems);
    assert!(problems.errors().is_empty(), "{problems:?}");
    (
        ops.iter().map(|op| op.name.clone()).collect(),
        order::rounds(&ops),
    )
}

fn documents(texts: &[(&str, &str)]) -> Vec<schema::Document> {
    let texts: Vec<SourceText> = texts
        .iter()
        .map(|(file, text)| source(file, text))
        .collect();
    let (documents, problems) = read(&texts);
    assert!(problems.errors().is_empty(), "{problems:?}");
    documents
}

#[test]
fn row_23_and_24_steps_of_a_file_run_one_after_the_other() {
    for middle in [
        "[{}, {}, {}, {}]",
        "[{name: a}, {name: b}, {name: a}, {name: c}]",
    ] {
        let read = documents(&[("f", &format!("stages: {{init: {middle}}}"))]);
        // The round that upstream counts first is the one of its synthetic start.
        assert_eq!(names(&read, "init").1 + 1, 5);
    }
    let read = documents(&[("f", "stages: {init: [{}, {}]}")]);
    assert_eq!(names(&read, "init").0, ["f..0", "f..1"]);
    let read = documents(&[("f", "stages: {init: [{}]}")]);
    assert_eq!(names(&read, "init").0, ["f.0"]);
}

#[test]
fn row_25_files_run_one_after_the_other_too() {
    let file =
        |name: &str| format!("name: {name}\nstages: {{rootfs: [{{name: s1}}, {{name: s2}}]}}");
    let read = documents(&[("01", &file("f1")), ("02", &file("f2"))]);
    let (names, rounds) = names(&read, "rootfs");
    assert_eq!(names, ["f1.s1", "f1.s2", "f2.s1", "f2.s2"]);
    assert_eq!(rounds + 1, 5);
}

#[test]
fn row_19_and_20_after_moves_a_step_behind_another() {
    let plain = documents(&[
        ("01", "stages: {init: [{name: first}]}"),
        ("02", "stages: {init: [{name: second}]}"),
    ]);
    assert_eq!(names(&plain, "init").0, ["01.first", "02.second"]);
    let moved = documents(&[
        (
            "01",
            "stages: {init: [{name: first, after: [{name: test.test}]}]}",
        ),
        ("02", "name: test\nstages: {init: [{name: test}]}"),
    ]);
    assert_eq!(names(&moved, "init").0, ["test.test", "01.first"]);
}

#[test]
fn a_file_without_the_stage_does_not_break_the_chain() {
    let read = documents(&[
        ("a", "stages: {init: [{name: one}]}"),
        ("b", "stages: {install: [{name: two}]}"),
        ("c", "stages: {init: [{name: three}]}"),
    ]);
    assert_eq!(
        names(&read, "init"),
        (vec!["a.one".into(), "c.three".into()], 2)
    );
}

#[test]
fn after_is_checked() {
    refused(
        "stages:\n  init:\n    - after: [{name: nobody}]\n",
        3,
        "names no step of this stage",
    );
    refused(
        "name: d\nstages:\n  init:\n    - name: a\n      after:\n        - name: d.a\n    - {}\n",
        6,
        "waits for itself",
    );
    refused(
        "name: d\nstages:\n  init:\n    - name: a\n      after: [{name: d.b}]\n    - name: b\n",
        5,
        "in a circle",
    );
    // The name a step has when kairos-init runs it.
    let text = "stages:\n  init:\n    - name: a\n    - name: b\n      after: [{name: <STDIN>.a}]\n";
    assert_eq!(load(text).unwrap().steps(Hook::Init).len(), 2);
}

#[test]
fn a_circle_is_told_by_its_members_each_with_its_place() {
    let text = "name: d\nstages:\n  init:\n    - name: a\n      after: [{name: d.c}]\n    - name: b\n      after: [{name: d.a}]\n    \
                - name: c\n      after: [{name: d.b}]\n    - name: e\n      after: [{name: d.c}]\n";
    let error = load(text).unwrap_err().render_text();
    let places = [("a", 5), ("c", 9), ("b", 7)].map(|(name, line)| {
        let at = error.find(&format!("`d.{name}` (")).expect(&error);
        assert!(error[at..].contains(&format!(":{line})")), "{error}");
        at
    });
    assert!(places.is_sorted(), "{error}");
    assert!(
        error.contains("waits for `d.a`") && !error.contains("d.e"),
        "{error}"
    );
}

#[test]
fn a_step_named_without_its_file_is_answered_with_its_whole_name() {
    let text =
        "name: d\nstages:\n  init:\n    - name: a\n      after: [{name: b}]\n    - name: b\n";
    let error = load(text).unwrap_err().render_text();
    assert!(error.contains("did you mean `d.b`?"), "{error}");
}

#[test]
fn of_many_mistakes_the_first_are_told_and_the_others_counted() {
    let mut text = String::from("stages:\n  init:\n");
    for step in 0..1000 {
        text.push_str(&format!(
            "    - name: step-{step}\n      after: [{{name: nothing-like-it}}]\n"
        ));
    }
    let error = load(&text).unwrap_err().render_text();
    assert!(
        error.contains("1000 errors") && error.contains("and 980 more"),
        "{}",
        error.len()
    );
    assert!(error.contains("and 989 more"), "names are counted too");
    assert!(error.len() < 20_000, "{} bytes", error.len());
}

#[test]
fn conditions_come_in_the_order_they_are_tried() {
    let step = step(
        "if_files: {all: [/a]}\nonly_service_manager: SystemD\nonly_arch: amd64\nonly_os_version: '12'\nonly_os: Debian.*\nif: 'true'",
    );
    let conditions = step.extension.unwrap().conditions;
    assert!(
        matches!(
            conditions.as_slice(),
            [
                Condition::Shell { .. },
                Condition::Os { .. },
                Condition::OsVersion { .. },
                Condition::Arch { .. },
                Condition::ServiceManager { name },
                Condition::Files { .. }
            ] if name == "systemd"
        ),
        "{conditions:?}"
    );
}

#[test]
fn row_08_upgrade_alone_does_nothing() {
    let found = warned(&in_init("packages: {upgrade: true}"), 3, "`upgrade` alone");
    assert!(found.steps(Hook::Init)[0].actions.is_empty());
}

#[test]
fn plugins_run_in_the_order_of_the_dialect_and_not_of_the_file() {
    let step = step(
        "packages: {install: [x]}\nsystemctl: {enable: [u]}\nusers: {a: {lock_passwd: true}}\ncommands: ['true']\nfiles: [{path: /f, permissions: 0644}]\ndirectories: [{path: /d, permissions: 0755}]",
    );
    let lines: Vec<String> = plugins(&step)
        .iter()
        .map(|plugin| plugin.describe())
        .collect();
    assert_eq!(
        lines,
        [
            "ensure directory /d (0:0 0755)",
            "write /f (0:0 0644, 0 bytes)",
            "run true",
            "ensure users a",
            "systemctl enable u",
            "install x",
        ]
    );
}

#[test]
fn row_11_a_templates_host_name_is_that_of_every_build() {
    let system = System::from_os_release("", Arch::Amd64);
    let rendered = system.render("{{.Values.node.hostname}}", None).unwrap();
    assert_eq!(rendered, ("localhost".to_owned(), None));
}

#[test]
fn what_an_image_does_not_say_is_no_value() {
    let system = System::from_os_release("ID=debian\n", Arch::Amd64);
    let rendered = system
        .render(
            "{{.Values.os.vendor}} {{.Values.os.release}} {{.Values.node.machineid}}",
            None,
        )
        .unwrap();
    assert_eq!(rendered, ("debian <no value> <no value>".to_owned(), None));
}

#[test]
fn a_setting_of_timesyncd_is_one_line() {
    refused(
        &in_init("timesyncd: {NTP: \"a\\nb\"}"),
        4,
        "cannot hold a line break",
    );
}

#[test]
fn row_36_and_37_conditions_that_can_never_hold_are_errors() {
    refused(
        &in_init("if_files: {wrongCheck: []}"),
        4,
        "known are any, all, none",
    );
    refused(&in_init("only_os: \"^(?!ubuntu).*\""), 4, "look-around");
    refused(
        &in_init("only_os_version: \"(\""),
        4,
        "`only_os_version` is no regular expression",
    );
    refused(
        &in_init("only_service_manager: weird"),
        4,
        "write `systemd` or `openrc`",
    );
    refused(&in_init("node: x"), 4, "a build has none");
    warned(
        &in_init("if_files: {any: [], all: [/a]}"),
        4,
        "an empty list",
    );
}

#[test]
fn row_39_units_are_enabled_disabled_and_masked_in_this_order_and_never_started() {
    let step = step("systemctl: {mask: [baz], disable: [bar], enable: [foo]}");
    let lines: Vec<String> = plugins(&step)
        .iter()
        .map(|plugin| plugin.describe())
        .collect();
    assert_eq!(
        lines,
        [
            "systemctl enable foo",
            "systemctl disable bar",
            "systemctl mask baz"
        ]
    );
    refused(
        &in_init("systemctl: {start: [moz]}"),
        4,
        "`enable` starts it",
    );
}

#[test]
fn row_40_41_and_42_overrides_are_drop_ins() {
    let path = |yaml: &str| {
        let step = step(&format!("systemctl: {{overrides: [{yaml}]}}"));
        step.actions.iter().find_map(|action| match action {
            Action::File {
                path,
                mode: 0o644,
                content,
            } => Some((path.clone(), content.clone())),
            _ => None,
        })
    };
    let dir = "/etc/systemd/system/foo.service.d";
    assert_eq!(
        path("{service: foo, content: x}"),
        Some((format!("{dir}/override-yip.conf"), "x".into()))
    );
    assert_eq!(
        path("{service: foo.service, content: x, name: override-foo}"),
        Some((format!("{dir}/override-foo.conf"), "x".into()))
    );
    for left_out in ["{content: x}", "{service: foo}"] {
        assert_eq!(path(left_out), None);
        warned(
            &in_init(&format!("systemctl: {{overrides: [{left_out}]}}")),
            4,
            "is left out",
        );
    }
    refused(
        &in_init("systemctl: {overrides: [{service: ../x, content: y}]}"),
        4,
        "no name of a file",
    );
}

#[test]
fn row_43_the_arguments_of_firstboot_are_sorted() {
    let step = step("systemd_firstboot: {keymap: us, LOCALE: en_US.UTF-8, force: \"true\"}");
    assert_eq!(
        plugins(&step)[0].describe(),
        "systemd-firstboot --force --keymap=us --locale=en_US.UTF-8"
    );
}

#[test]
fn row_48_name_servers_go_to_a_file_of_ones_own() {
    let step = step("dns: {nameservers: [8.8.8.8], path: /tmp/resolv.conf}");
    let Plugin::WriteFile {
        path,
        content,
        mode,
        ..
    } = plugins(&step)[0]
    else {
        panic!("no file")
    };
    assert_eq!((path.as_str(), *mode), ("/tmp/resolv.conf", 0o644));
    assert_eq!(content.0, b"nameserver 8.8.8.8\n");
    refused(
        &in_init("dns: {nameservers: [8.8.8.8]}"),
        4,
        "/etc/resolv.conf",
    );
}

#[test]
fn what_only_a_booting_machine_can_do_is_refused_with_what_to_do_instead() {
    for (yaml, word) in [
        ("sysctl: {a: b}", "/etc/sysctl.d"),
        ("modules: [loop]", "/etc/modules-load.d"),
        ("layout: {device: {path: /dev/sda}}", "/system/oem"),
        ("datasource: {providers: [aws]}", "/system/oem"),
    ] {
        refused(&in_init(yaml), 4, word);
    }
    // In a stage that does not run in a build they are in their place.
    let boot = "stages:\n  boot:\n    - sysctl: {a: b}\n";
    warned(boot, 2, "does not run in a build");
}

#[test]
fn unknown_keys_are_errors_everywhere() {
    for (yaml, line, word) in [
        ("comands: [x]", 4, "did you mean `commands`"),
        ("systctl: {}", 4, "did you mean `sysctl`"),
        (
            "files: [{path: /a, permission: 1}]",
            4,
            "did you mean `permissions`",
        ),
        ("packages: {instal: [a]}", 4, "did you mean `install`"),
        ("users: {a: {password: x}}", 4, "unknown key"),
        ("git: {auth: {pasword: x}}", 4, "did you mean `password`"),
        ("after: [{nmae: x}]", 4, "did you mean `name`"),
    ] {
        refused(&in_init(yaml), line, word);
    }
    refused("stagse: {}\n", 1, "did you mean `stages`");
    refused(
        "stages:\n  before-instal: [{}]\n",
        2,
        "did you mean `before-install`",
    );
    refused("- a\n", 1, "the document is a mapping, not a list");
}

#[test]
fn values_of_the_wrong_kind_are_errors() {
    for (yaml, word) in [
        ("commands: x", "`commands` is a list"),
        ("commands: [{a: b}]", "`commands` is text"),
        ("files: [{path: /a, permissions: rw}]", "not a number"),
        (
            "files: [{path: /a, permissions: 0644, owner: -5}]",
            "no user or group number",
        ),
        ("packages: {refresh: maybe}", "neither true nor false"),
        (
            "files: [{path: /a, permissions: 0644, encoding: rot13}]",
            "unknown encoding",
        ),
        (
            "files: [{path: /a, permissions: 0644, encoding: b64, content: '!'}]",
            "not base64",
        ),
        ("files: [{permissions: 0644}]", "a file needs a `path`"),
        (
            "downloads: [{url: 'ftp://x/y', path: /a, permissions: 0644}]",
            "no http or https URL",
        ),
        ("ensure_entities: [{entity: 'kind: x'}]", "unknown kind"),
        ("users: {'a b': {}}", "no user name"),
        ("users: {a: {uid: x}}", "no user number"),
        ("unpack_images: [{source: x}]", "needs a `target`"),
        ("environment: {'a b': c}", "no name of a variable"),
        ("git: {url: 'https://x/y'}", "`git` needs a `path`"),
        (
            "git: {url: /srv/repository, path: /a}",
            "no URL of a repository",
        ),
    ] {
        refused(&in_init(yaml), 4, word);
    }
}

#[test]
fn what_no_path_and_no_command_can_hold_is_refused_with_its_line() {
    for (yaml, word) in [
        (
            r#"files: [{path: "/a\0b", permissions: 0644}]"#,
            "`path` holds a NUL character",
        ),
        (
            r#"directories: [{path: "/a\eb", permissions: 0755}]"#,
            r"`path` holds a control character",
        ),
        (
            "files: [{permissions: 0644, path: \"/a\\n\"}]",
            "without `|` or `>`",
        ),
        (r#"environment_file: "/a\tb""#, "a control character"),
        (
            r#"commands: ["echo \0"]"#,
            "`commands` holds a NUL character",
        ),
        (r#"if: "\0""#, "`if` holds a NUL character"),
        (
            r#"environment: {"A\0": b}"#,
            "a name in `environment` holds a NUL character",
        ),
        (
            r#"packages: {install: ["a\0"]}"#,
            "`install` holds a NUL character",
        ),
        (
            r#"unpack_images: [{source: x, target: "/\x1b"}]"#,
            "a control character",
        ),
    ] {
        refused(&in_init(yaml), 4, word);
    }
    for yaml in [
        r#"files: [{path: /a, permissions: 0644, content: "a\0\e"}]"#,
        "commands: [\"echo a\\n\\techo b \\e[m\"]",
    ] {
        step(yaml);
    }
}

#[test]
fn templates_that_ask_for_the_building_machine_are_refused_with_their_line() {
    for word in [
        "{{ .Values.cpu.cores }}",
        "{{ env \"HOME\" }}",
        "{{ now }}",
        "{{ $.Values.kernel.release }}",
    ] {
        let text = in_init(&format!(
            "files:\n  - path: /a\n    permissions: 0644\n    content: |\n      one\n      {word}"
        ));
        refused(&text, 9, "{{`{{`}}");
    }
    refused(
        &in_init("commands: ['echo {{ uuidv4 }}']"),
        4,
        "something else each time",
    );
    refused(&in_init("hostname: 'x-{{ .Random }}'"), 4, "`hostname`");
    warned(
        &in_init("commands: ['echo {{ jinja }}']"),
        4,
        "stays as it is",
    );
}

#[test]
fn what_comes_to_nothing_is_said() {
    for (yaml, word) in [
        ("files: [{path: /a}]", "no permission bits at all"),
        (
            "files: [{path: /a, permissions: 04755}]",
            "only 755 is used",
        ),
        (
            "commands: [x]\npackages: {install: [x]}",
            "run before `packages`",
        ),
        ("users: {a: {}}", "without a password"),
        (
            "users: {a: {lock_passwd: yes, system: true}}",
            "`system` has no effect",
        ),
    ] {
        let found = load(&in_init(yaml)).unwrap_or_else(|error| panic!("{}", error.render_text()));
        assert!(
            found.warnings.iter().any(|warning| warning.contains(word)),
            "{yaml}: {:?}",
            found.warnings
        );
    }
    let early = "stages:\n  install:\n    - hostname: node\n";
    warned(early, 3, "empties /etc/hostname");
}

#[test]
fn row_62_63_and_64_modes_and_owners() {
    let file = |yaml: &str| {
        let step = step(&format!("files: [{{path: /a, {yaml}}}]"));
        match plugins(&step)[0] {
            Plugin::WriteFile { mode, owner, .. } => (*mode, owner.to_string()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(file("permissions: 0644"), (420, "0:0".into()));
    assert_eq!(file("permissions: '0644'"), (420, "0:0".into()));
    assert_eq!(
        file("permissions: 0644, owner_string: bin"),
        (420, "bin".into())
    );
    assert_eq!(
        file("permissions: 0644, ownerstring: 'a:b'"),
        (420, "a:b".into())
    );
    assert_eq!(file("permissions: 04755, group: -1"), (0o755, "0:-".into()));
    assert_eq!(file("owner: 5"), (0, "5:0".into()));
}

const CLOUD_CONFIG: &str = r#"#cloud-config
users:
- name: "bar"
  passwd: "foo"
  uid: "1002"
  lock_passwd: true
  groups: "users"
  ssh_authorized_keys:
  - faaapploo
ssh_authorized_keys:
  - asdd
runcmd:
- foo
hostname: "bar"
write_files:
- encoding: b64
  content: CiMgVGhpcyBmaWxl
  path: /foo/bar
  permissions: "0644"
  owner: "bar"
growpart:
  devices: ['/']
stages:
  test:
    - environment: {foo: bar}
"#;

fn cloud_config(text: &str) -> schema::Document {
    // The dialect reads `groups` as a list only.
    let text = text.replace("groups: \"users\"", "groups: [users]");
    documents(&[("x", &text)]).remove(0)
}

fn stage<'a>(document: &'a schema::Document, name: &str) -> &'a [schema::Step] {
    let found = document
        .stages
        .iter()
        .find(|stage| stage.name.value == name);
    &found.unwrap_or_else(|| panic!("no stage {name}")).steps
}

fn keys(step: &schema::Step) -> Vec<(String, Vec<String>)> {
    let values = |list: &[schema::Text]| list.iter().map(|text| text.value.clone()).collect();
    step.authorized_keys
        .iter()
        .map(|(user, list)| (user.value.clone(), values(list)))
        .collect()
}

#[test]
fn row_59_a_cloud_config_becomes_steps_of_the_stages_at_boot() {
    let document = cloud_config(CLOUD_CONFIG);
    assert_eq!(document.stages.len(), 4);
    let boot = stage(&document, "boot");
    let (name, user) = &boot[0].users[0];
    assert_eq!(
        (
            name.value.as_str(),
            user.uid.value.as_str(),
            user.passwd.value.as_str()
        ),
        ("bar", "1002", "foo")
    );
    assert!(user.lock_passwd);
    assert_eq!(
        keys(&boot[0]),
        [("bar".into(), vec!["faaapploo".into(), "asdd".into()])]
    );
    assert_eq!(boot[0].commands[0].value, "foo");
    let file = &boot[0].files[0];
    assert_eq!(
        (file.path.value.as_str(), file.access.permissions),
        ("/foo/bar", Some(0o644))
    );
    assert_eq!(file.access.owner_string.value, "bar");
    assert!(boot[0].hostname.is_empty() && boot[1].layout.is_some());
    assert_eq!(stage(&document, "initramfs")[0].hostname.value, "bar");
    assert_eq!(stage(&document, "test")[0].environment[0].1.value, "bar");
}

#[test]
fn row_60_keys_of_a_forge_wait_for_the_network() {
    let document = cloud_config(&CLOUD_CONFIG.replace("faaapploo", "gitlab:test"));
    assert_eq!(
        keys(&stage(&document, "boot")[0]),
        [("bar".into(), vec!["asdd".into()])]
    );
    assert_eq!(
        keys(&stage(&document, "network")[0]),
        [("bar".into(), vec!["gitlab:test".into()])]
    );
}

#[test]
fn row_61_another_header_may_come_first_and_a_build_says_what_it_does_not_run() {
    let text = format!(
        "## template: jinja\n{}",
        CLOUD_CONFIG.replace("groups: \"users\"", "groups: [users]")
    );
    let found = warned(&text, 3, "`boot` does not run in a build");
    assert!(found.is_empty());
    let with_init = "#cloud-config\nstages:\n  init:\n    - commands: [x]\n";
    let found = load(with_init).unwrap();
    assert_eq!(found.steps(Hook::Init).len(), 1);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    refused(
        "#cloud-config\nwrite_files:\n  - {path: /a, permissions: \"rw\"}\n",
        3,
        "not octal",
    );
    refused("#cloud-config\nbootcmd: [x]\n", 2, "unknown key");
}

#[test]
fn a_step_without_a_name_is_known_by_its_file() {
    let found = load("stages: {init: [{commands: [x]}, {name: named}]}").unwrap();
    let labels: Vec<&str> = found.steps(Hook::Init).iter().map(Step::label).collect();
    assert_eq!(labels, ["x.yaml, step 1", "named"]);
}

#[test]
fn a_name_stays_on_one_line_and_moves_no_cursor() {
    let text =
        "stages: {init: [{name: \"a\\nb\\e[2J\\n\", commands: ['true']}, {commands: ['true']}]}";
    let found = Extensions::load(&[source("dir/\u{1b}c\n.yaml", text)], Network::Host).unwrap();
    let steps = found.steps(Hook::Init);
    assert_eq!(steps[0].label(), r"a\nb\u001b[2J");
    assert_eq!(steps[1].label(), r"\u001bc\n.yaml, step 2");
    assert_eq!(steps[0].place(), r" (dir/\u001bc\n.yaml:1)");
}

#[test]
fn passwords_are_in_no_output() {
    let yaml = "git: {url: 'https://h/r', path: /r, auth: {username: u, password: opensesame, private_key: thekey}}\nusers: {a: {passwd: opensesame}}";
    let step = step(yaml);
    let json = serde_json::to_string(&step).unwrap();
    let yip = step
        .extension
        .as_ref()
        .map(|extension| extension.yip.to_string())
        .unwrap_or_default();
    let debug = format!("{:?}", step.actions);
    for text in [&json, &yip, &debug] {
        assert!(
            !text.contains("opensesame") && !text.contains("thekey"),
            "{text}"
        );
    }
    assert!(yip.contains("(hidden)"));
}

#[test]
fn steps_are_printed_as_yip_prints_them_golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/yip/printed");
    for name in ["zfs", "everything"] {
        let read_text =
            |end: &str| std::fs::read_to_string(dir.join(format!("{name}.{end}.yaml"))).unwrap();
        let (documents, problems) = read(&[source(name, &read_text("in"))]);
        let unchecked: Vec<&Problem> = problems.errors().iter().collect();
        assert!(unchecked.is_empty(), "{unchecked:?}");
        let mut stages = serde_json::Map::new();
        for stage in &documents[0].stages {
            let steps = stage.steps.iter().map(render::step).collect();
            stages.insert(stage.name.value.clone(), serde_json::Value::Array(steps));
        }
        // As values, and as lines without quotes: which quotes a printer chooses is its own affair.
        let mut expected: serde_json::Value = serde_saphyr::from_str(&read_text("out")).unwrap();
        assert_eq!(
            serde_json::Value::Object(stages),
            expected["stages"].take(),
            "{name}"
        );
        let printed = printed(&as_printed(&documents[0])).unwrap();
        let bare = |text: &str| text.replace(['"', '\''], "");
        assert_eq!(bare(&printed), bare(&read_text("out")), "{name}");
    }
}

mod whatever_the_text {
    //! The entry point of the fuzz target, with texts that chance makes of the dialect's own words.

    use proptest::prelude::*;

    const WORDS: [&str; 46] = [
        "stages:",
        "init:",
        "install:",
        "- ",
        "name:",
        "files:",
        "path: /a",
        "content: |",
        "permissions: 0644",
        "commands:",
        "if:",
        "only_os:",
        "after:",
        "users:",
        "packages:",
        "environment:",
        "systemctl:",
        "overrides:",
        "&a",
        "*a",
        "<<: *a",
        "[",
        "]",
        "{",
        "}",
        ",",
        "#cloud-config\n",
        "---",
        "\n",
        "\n  ",
        "\n    ",
        "\n      ",
        "'",
        "\"",
        "{{",
        "}}",
        "{{-",
        "-}}",
        " .Values.os ",
        " range ",
        " end ",
        " if ",
        "|",
        "(",
        ")",
        "$x :=",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            super::super::exercise(&text);
        }

        #[test]
        fn any_row_of_words_is_read_or_refused(words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..60)) {
            super::super::exercise(&words.concat());
        }

        #[test]
        fn a_document_with_a_hole_is_read_or_refused(start in 0_usize..2000, length in 0_usize..40) {
            let text = include_str!("../../testdata/yip/printed/everything.in.yaml");
            let damaged: String = text.chars().enumerate()
                .filter(|(at, _)| !(start..start + length).contains(at))
                .map(|(_, c)| c)
                .collect();
            super::super::exercise(&damaged);
        }
    }
}
