//! Stage extensions that bring something into the image: repositories of git, files of the web, trees of other images.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::support::debs::{deb_of_version, index};
use crate::support::extended::{Rig, rig};
use crate::support::gits::{Daemon, git, repository};
use crate::support::program::Ran;
use crate::support::tree::Tree;
use crate::support::user::is_root;
use crate::support::{Server, base, need, run, web, world};

/// Returns the content of every file below `dir`, as one text.
fn everything_in(dir: &Path) -> String {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten();
    let texts = files.filter_map(|entry| fs::read(entry.path()).ok());
    texts
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

#[test]
fn repositories_are_cloned_whole_and_again_with_the_same_bytes() {
    if !need(&["git"]) {
        return;
    }
    let rig = rig!("git");
    let served = world().own_dir("extensions-git-served");
    repository(&served);
    let daemon = Daemon::start(&served);
    let login = base64::engine::general_purpose::STANDARD.encode("me:opensesame");
    let web = web::serve_to(&served, Some(format!("Basic {login}")));
    let extension = |password: &str, branch: &str| {
        format!(
            r#"
stages:
  init:
    - git: {{url: "{}/site.git", path: /srv/site}}
    - git:
        url: {web}/site.git
        path: srv/next
        branch: {branch}
        branch_only: true
        auth: {{username: me, password: {password}}}
    - commands: ["[ \"$(/srv/site/tool)\" = tool ]"]
"#,
            daemon.address
        )
    };
    rig.file("10.yaml", &extension("opensesame", "next"));
    let (ran, tree) = rig.made();
    assert_eq!(tree.read("srv/site/sub/text"), "first\n");
    assert_eq!(tree.read("srv/site/link"), "first\n");
    assert_eq!(tree.read("srv/next/sub/text"), "next\n");
    assert_eq!(tree.metadata("srv/site/tool").mode() & 0o7777, 0o755);
    assert_eq!(tree.metadata("srv/site/sub/text").mode() & 0o7777, 0o644);
    for (clone, branch) in [("srv/site", "trunk"), ("srv/next", "next")] {
        let dir = tree.dir.join(clone);
        assert_eq!(
            run(git(&dir).args(["branch", "--show-current"])).trim(),
            branch
        );
        assert_eq!(run(git(&dir).args(["status", "--porcelain"])), "");
        run(git(&dir).args(["fsck", "--strict"]));
        if is_root() {
            assert_eq!(tree.metadata(clone).uid(), 0, "{clone}");
        }
    }
    let branches = |clone: &str| {
        let dir = tree.dir.join(clone);
        run(git(&dir).args(["branch", "--remotes", "--format=%(refname:short)"]))
    };
    assert!(branches("srv/site").contains("origin/next"));
    assert!(!branches("srv/next").contains("trunk"));
    for secret in ["opensesame", &login] {
        assert!(!everything_in(&tree.dir.join("srv")).contains(secret));
        assert!(!ran.says(secret));
    }
    let again = rig.convert().args(["--no-cache"]).succeed();
    assert_eq!(again.digest(), ran.digest(), "another run gave other bytes");

    rig.file("10.yaml", &extension("wrong", "next"));
    let ran = rig.convert().fail(3);
    ran.tells(&["cannot clone branch next of http://127.0.0.1:"]);
    assert!(!ran.says("wrong"), "{}", ran.stderr());
    rig.file("10.yaml", &extension("opensesame", "nowhere"));
    rig.convert()
        .fail(3)
        .tells(&["cannot clone branch nowhere of", "nowhere not found"]);
}

#[test]
fn downloads_get_their_place_mode_and_owner() {
    let rig = rig!("downloads");
    let served = world().own_dir("extensions-served");
    for (name, text) in [
        ("tool.sh", "echo hello\n"),
        ("notes.txt", "{{ not a template }}"),
    ] {
        fs::write(served.join(name), text).expect("ours");
    }
    let web = web::serve(&served);
    rig.file(
        "10.yaml",
        &format!(
            r#"
stages:
  before-init:
    - users: {{keeper: {{uid: 1234, lock_passwd: true}}}}
    - directories: [{{path: /opt/there, permissions: 0700}}]
      files: [{{path: /old, permissions: 0600, content: "something longer than what replaces it"}}]
  init:
    - downloads:
        - {{url: "{web}/tool.sh", path: /opt/new/bin/tool, permissions: 0755}}
        - {{url: "{web}/notes.txt", path: /opt/there, permissions: 0640, ownerstring: "keeper"}}
        - {{url: "{web}/notes.txt?from=query", path: /opt/made/, permissions: 0644, owner: 7, group: 8}}
        - {{url: "{web}/tool.sh", path: /old, permissions: 0400, owner_string: "keeper:root", timeout: 30}}
      commands: ["sh /opt/new/bin/tool > /said"]
"#
        ),
    );
    let (ran, tree) = rig.made();
    assert_eq!(tree.read("said"), "hello\n");
    assert_eq!(tree.read("opt/there/notes.txt"), "{{ not a template }}");
    assert_eq!(tree.read("old"), "echo hello\n");
    let shown = |path: &str| {
        let found = tree.metadata(path);
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    let expected = [
        ("opt/new/bin/tool", (0o755, 0, 0)),
        ("opt/new/bin", (0o755, 0, 0)),
        ("opt/there/notes.txt", (0o640, 1234, 1000)),
        ("opt/there", (0o700, 0, 0)),
        ("opt/made/notes.txt", (0o644, 7, 8)),
        ("old", (0o400, 1234, 0)),
    ];
    for (path, (mode, uid, gid)) in expected {
        let owner = if is_root() {
            (uid, gid)
        } else {
            (shown(path).1, shown(path).2)
        };
        assert_eq!(shown(path), (mode, owner.0, owner.1), "{path}");
    }
    // What was fetched is cached by its name, as is said; without the cache it is fetched anew.
    fs::write(served.join("tool.sh"), "echo changed\n").expect("ours");
    assert_eq!(rig.convert().succeed().digest(), ran.digest());
    let fresh = rig.convert().args(["--no-cache"]).succeed();
    assert_ne!(fresh.digest(), ran.digest());
}

#[test]
fn a_download_that_fails_is_named_without_what_may_be_secret() {
    let rig = rig!("downloads-failing");
    let web = web::serve(&world().own_dir("extensions-empty"));
    let wanted = |url: &str| {
        format!(
            "stages: {{init: [{{downloads: [{{url: '{url}', path: /x, permissions: 0644, timeout: 2}}]}}]}}\n"
        )
    };
    let fails = |url: &str, words: &[&str]| -> Ran {
        rig.file("10.yaml", &wanted(url));
        let ran = rig.convert().fail(1);
        ran.tells(words);
        assert!(!rig.archive().exists());
        ran
    };
    let with_secrets = format!(
        "{}/none?token=hush",
        web.replace("http://", "http://me:hush@")
    );
    let ran = fails(
        &with_secrets,
        &["cannot download http://127.0.0.1:", "status 404"],
    );
    assert!(!ran.says("hush"), "{}", ran.stderr());
    // A server that takes the request and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let start = Instant::now();
    fails(
        &format!("http://{address}/x"),
        &["longer than its timeout of 2 s"],
    );
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn an_image_is_unpacked_flat_into_a_directory() {
    if !need(&["docker-registry", "skopeo"]) {
        return;
    }
    let inner = rig!("inner");
    inner.file(
        "10.yaml",
        r#"
stages:
  install:
    - commands: ["echo 1 > /gone", "echo 1 > /kept"]
      files: [{path: /bin/owned, permissions: 0750, owner: 5, group: 6, content: x}]
  init:
    - delete_entities: [{entity: "kind: group\ngroup_name: absent\n"}]
      name: Nothing to delete
    - if: "true"
      users: {inside: {lock_passwd: true}}
    - commands: ["read -r x < /gone; echo $x > /moved", "exec 3< /gone"]
"#,
    );
    inner.convert().succeed();
    let server = Server::open();
    server.push(
        &format!("oci-archive:{}", inner.archive().display()),
        "me/inner:v1",
    );
    let outer = rig!("outer");
    let image = server.reference("me/inner:v1");
    outer.file(
        "10.yaml",
        &format!(
            r#"
stages:
  install:
    - files: [{{path: /opt/inner/mine, permissions: 0644, content: mine}}]
  init:
    - unpack_images: [{{source: "{image}", target: /opt/inner}}]
    - commands: ["[ -x /opt/inner/bin/sh ]"]
"#
        ),
    );
    let (_, tree) = outer.made();
    for (path, text) in [
        ("opt/inner/kept", "1\n"),
        ("opt/inner/moved", "1\n"),
        ("opt/inner/mine", "mine"),
    ] {
        assert_eq!(tree.read(path), text, "{path}");
    }
    let owned = tree.metadata("opt/inner/bin/owned");
    assert_eq!(owned.mode() & 0o7777, 0o750);
    if is_root() {
        assert_eq!((owned.uid(), owned.gid()), (5, 6));
    }
    assert!(tree.read("opt/inner/etc/passwd").contains("inside:"));
    assert!(!tree.read("etc/passwd").contains("inside:"));
    for (source, words) in [
        (server.reference("me/none:v1"), "me/none:v1"),
        (image.replace(":v1", ":v9"), "me/inner:v9"),
    ] {
        outer.file(
            "10.yaml",
            &format!(
                "stages: {{init: [{{unpack_images: [{{source: '{source}', target: /o}}]}}]}}\n"
            ),
        );
        outer
            .convert()
            .fail(1)
            .tells(&["cannot get the image", words]);
    }
}

/// What the encodings of a file's content decode to.
const DECODED: &str = "from {{ .Values.os.vendor }}\n";

#[test]
fn files_are_decoded_then_rendered_and_get_their_owners() {
    if !need(&["gzip"]) {
        return;
    }
    let rig = rig!("encodings");
    fs::write(rig.dir.join("plain"), DECODED).expect("ours");
    let packed = Command::new("gzip")
        .args(["-nc"])
        .arg(rig.dir.join("plain"))
        .output()
        .expect("gzip starts");
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let (plain, packed) = (base64(DECODED.as_bytes()), base64(&packed.stdout));
    let mut files = String::new();
    let encodings = [
        "b64",
        "base64",
        "gz+base64",
        "gzip+base64",
        "gz+b64",
        "gzip+b64",
    ];
    for encoding in encodings {
        let content = if encoding.starts_with('g') {
            &packed
        } else {
            &plain
        };
        files.push_str(&format!(
            "        - {{path: '/e/{encoding}', permissions: 0644, encoding: {encoding}, content: '{content}'}}\n"
        ));
    }
    rig.file(
        "10.yaml",
        &format!(
            r#"
stages:
  install:
    - files: [{{path: /real, permissions: 0600, content: old}}]
      commands: ["cd / && [ -e /real ]"]
    - users: {{keeper: {{uid: 1234, lock_passwd: true}}}}
  init:
    - files:
{files}        - {{path: /new/dir/file, permissions: 0640, owner: 3, group: 4, content: x}}
        - {{path: /by-name, permissions: 0600, ownerstring: "keeper:root", content: x}}
        - {{path: /real, permissions: 0644, owner: 9, group: 9, content: new}}
"#
        ),
    );
    let (_, tree) = rig.made();
    for encoding in encodings {
        assert_eq!(
            tree.read(&format!("e/{encoding}")),
            "from debian\n",
            "{encoding}"
        );
    }
    assert_eq!(tree.read("real"), "new");
    let shown = |path: &str| {
        let found = tree.metadata(path);
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    if is_root() {
        assert_eq!(shown("new"), (0o740, 3, 4));
        assert_eq!(shown("new/dir/file"), (0o640, 3, 4));
        assert_eq!(shown("by-name"), (0o600, 1234, 0));
        assert_eq!(shown("real"), (0o644, 9, 9));
    }
}

#[test]
fn conditions_hold_for_the_image_and_never_for_this_machine() {
    let rig = rig!("conditions");
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let met = [
        "only_os: 'Debian.*12'".to_owned(),
        "only_os_version: '^12$'".to_owned(),
        format!("only_arch: '^{arch}$'"),
        "only_service_manager: systemd".to_owned(),
        "if_files: {all: [/etc/passwd, /usr/bin/systemctl]}".to_owned(),
        "if_files: {any: [/nothing, /etc/group]}".to_owned(),
        "if_files: {none: [/nothing]}".to_owned(),
        "if: '[ -s /etc/passwd ]'".to_owned(),
        "if: '[ {{ .Values.os.vendor }} = debian ]'".to_owned(),
        "{only_os: Debian, if: 'true', if_files: {all: [/etc]}}".to_owned(),
    ];
    let unmet = [
        "only_os: debian".to_owned(),
        "only_os_version: '13'".to_owned(),
        "only_arch: riscv64".to_owned(),
        "only_service_manager: openrc".to_owned(),
        "if_files: {all: [/etc/passwd, /nothing]}".to_owned(),
        "if_files: {any: [/nothing, /neither]}".to_owned(),
        "if_files: {none: [/etc/passwd]}".to_owned(),
        "if: '[ -e /proc/self/nothing ]'".to_owned(),
        "{only_os: Debian, if: 'false'}".to_owned(),
        "{only_os: weird, if: 'echo > /asked'}".to_owned(),
    ];
    let mut text = String::from(
        "stages:\n  install: [{files: [{path: /usr/bin/systemctl, permissions: 0755, content: ''}]}]\n  init:\n",
    );
    let step = |condition: &str, name: &str| {
        let whole = condition
            .strip_prefix('{')
            .and_then(|it| it.strip_suffix('}'));
        let inner = whole.unwrap_or(condition);
        format!("    - {{name: {name}, commands: ['echo > /{name}'], {inner}}}\n")
    };
    for (list, name) in [(&met, "met"), (&unmet, "unmet")] {
        for (at, condition) in list.iter().enumerate() {
            text.push_str(&step(condition, &format!("{name}{at}")));
        }
    }
    rig.file("10.yaml", &text);
    let (ran, tree) = rig.made();
    for (at, condition) in met.iter().enumerate() {
        assert!(
            tree.has(&format!("met{at}")),
            "{condition}\n{}",
            ran.stderr()
        );
    }
    for (at, condition) in unmet.iter().enumerate() {
        assert!(!tree.has(&format!("unmet{at}")), "{condition}");
        assert!(
            ran.says(&format!("step `unmet{at}` is passed over")),
            "{condition}"
        );
    }
    assert!(tree.has("asked"), "`if` is asked before the names are");
}

/// Everything that needs the system around it, in the words of the dialect.
const SYSTEM: &str = r#"
stages:
  before-install:
    - name: Sources
      files:
        - {path: /etc/apt/sources.list, permissions: 0644, content: "deb [trusted=yes] REPOSITORY ./\n"}
      commands: ["rm -rf /etc/apt/sources.list.d/*"]
  install:
    - name: Pinned
      package_pins: {pinned-tool: "1.*", unpinned: ""}
      packages: {install: ["pinned-tool", "other-to*"], refresh: true}
    - name: Changed
      packages: {install: [third-tool], remove: [other-tool]}
      commands: ["pinned-tool > /said", "dpkg-query -W -f '${Version}' pinned-tool >> /said"]
  before-init:
    - name: People
      users:
        admin:
          passwd: secret
          groups: [sudo, adm, nowhere]
          shell: /bin/bash
          ssh_authorized_keys: ["ssh-ed25519 AAAA admin"]
        backup: {passwd: "$6$salt$hash"}
        zed: {lock_passwd: true, no_create_home: true, primary_group: users, gecos: "Z. Ed", uid: 4000}
      authorized_keys:
        admin: ["KEYS/me.keys", "ssh-ed25519 AAAA admin"]
  init:
    - name: Seen
      if: id -u admin && su admin -s /bin/sh -c 'test -r ~/.ssh/authorized_keys'
      commands: ["id -nG admin > /groups", "stat -c '%U:%G %a' /home/admin/.ssh/authorized_keys > /keys"]
"#;

#[test]
fn packages_pins_and_accounts_on_a_real_debian() {
    if !need(&["dpkg-deb", "apt-ftparchive"]) {
        return;
    }
    let Some(tar) = base::debian_tar() else {
        return;
    };
    let Some(rig) = Rig::of("system", tar) else {
        return;
    };
    let packages = world().own_dir("extensions-packages");
    for (name, version) in [
        ("pinned-tool", "1.5"),
        ("pinned-tool", "2.0"),
        ("other-tool", "1"),
        ("third-tool", "1"),
        ("unpinned", "1"),
    ] {
        let postinst = format!(
            "#!/bin/sh\nprintf '#!/bin/sh\\necho {version}\\n' > /usr/bin/{name}\nchmod 755 /usr/bin/{name}\n"
        );
        let files = [("DEBIAN/postinst".to_owned(), postinst.as_str())];
        deb_of_version(&packages, name, version, "Recommends: unpinned\n", &files);
    }
    index(&packages);
    let keys = world().own_dir("extensions-keys");
    fs::write(keys.join("me.keys"), "ssh-rsa BBBB one\nssh-rsa CCCC two\n").expect("ours");
    let text = SYSTEM
        .replace("REPOSITORY", &web::serve(&packages))
        .replace("KEYS", &web::serve(&keys));
    rig.file("10.yaml", &text);
    let (_, tree) = rig.made();
    let status = tree.read("var/lib/dpkg/status");
    let installed = |name: &str, version: &str| {
        let stanza = status
            .split("\n\n")
            .find(|it| it.starts_with(&format!("Package: {name}\n")));
        stanza.is_some_and(|it| {
            it.contains("install ok installed") && it.contains(&format!("Version: {version}\n"))
        })
    };
    assert!(
        installed("pinned-tool", "1.5") && installed("third-tool", "1"),
        "{status}"
    );
    assert!(!installed("other-tool", "1") && !installed("unpinned", "1"));
    assert_eq!(tree.read("said"), "1.5\n1.5");
    assert_eq!(tree.read("groups"), "admin adm sudo\n");
    assert_eq!(tree.read("keys"), "admin:admin 600\n");
    assert_eq!(
        tree.read("home/admin/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA admin\nssh-rsa BBBB one\nssh-rsa CCCC two\n"
    );
    accounts_are_whole(&tree);
}

/// Looks at the accounts as the system's own programs do.
#[track_caller]
fn accounts_are_whole(tree: &Tree) {
    let line = |file: &str, name: &str| {
        let text = tree.read(file);
        let start = format!("{name}:");
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(&start))
            .collect();
        assert_eq!(lines.len(), 1, "{file} has {lines:?}");
        lines[0].to_owned()
    };
    assert!(line("etc/shadow", "admin").starts_with("admin:$6$"));
    // An account of the system keeps everything but its password.
    assert!(line("etc/passwd", "backup").contains(":34:34:backup:/var/backups:"));
    assert!(line("etc/shadow", "backup").starts_with("backup:$6$salt$hash:"));
    assert_eq!(
        line("etc/passwd", "zed"),
        "zed:x:4000:100:Z. Ed:/home/zed:/bin/sh"
    );
    assert!(line("etc/shadow", "zed").starts_with("zed:!:"));
    assert!(!tree.has("home/zed"));
}
