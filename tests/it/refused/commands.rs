//! Commands of a step that fail.

use std::fs;

use super::{DEBIAN, convert};
use crate::support::base::shell_tar;
use crate::support::framework::stand_ins;
use crate::support::{Kfactory, Server, need};

#[test]
fn a_failing_command_is_shown_with_its_step_and_last_lines_and_what_was_done_is_kept() {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return;
    }
    let depmod = "#!/bin/sh\ni=0\nwhile [ $i -lt 50 ]; do i=$((i + 1)); echo \"line $i of depmod\"; done\nprintf '\\033[31mno good\\n' >&2\nexit 7\n";
    let Some(tar) = shell_tar(
        "failing",
        &[
            ("etc/os-release", 0o644, DEBIAN),
            ("usr/sbin/depmod", 0o755, depmod),
            ("usr/bin/dracut", 0o755, "#!/bin/sh\n"),
            ("boot/vmlinuz-6.1.0-9-amd64", 0o644, "kernel"),
            ("usr/lib/modules/6.1.0-9-amd64/modules.builtin", 0o644, ""),
            ("lib/modules/6.1.0-9-amd64/modules.builtin", 0o644, ""),
        ],
    ) else {
        return;
    };
    let server = Server::open();
    let (store, _) = convert("unused", "unused");
    let framework = format!(
        "dir:{}",
        stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
    );
    let (base, dest) = (
        format!("tar:{}", tar.display()),
        server.reference("me/os:v1.0.0"),
    );
    let again = || {
        let arguments = [
            "convert",
            &base,
            &dest,
            "--framework",
            &framework,
            "--progress",
            "plain",
            "--layers",
            "step",
        ];
        Kfactory::new(arguments)
            .args(["--skip-step", "installPackages,installKernel"])
            .store(&store)
            .fail(3)
    };
    let first = again();
    let layers = fs::read_dir(store.join("changes")).expect("there").count();
    let records = fs::read_dir(store.join("steps")).expect("there").count();
    assert_eq!(layers, records, "the changes of the failed step were kept");
    first.tells(&[
        "error: cannot finish step `initrd`",
        "`depmod -a 6.1.0-9-amd64` exited with status 7",
        "last 30 lines of its output:",
        "  | line 50 of depmod",
        "  | ",
        "no good",
    ]);
    let shown: Vec<&String> = first
        .lines
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line.starts_with("  | "))
        .collect();
    assert_eq!(shown.len(), 30, "{shown:?}");
    assert!(
        !first.stderr().contains('\u{1b}'),
        "a control character of a package reached the terminal"
    );
    assert_eq!(
        server.digest_opt("me/os:v1.0.0"),
        None,
        "a failed conversion was pushed"
    );
    assert!(first.says("branding: started") && !first.says(": cached"));
    let second = again();
    for layer in [
        "branding",
        "cloudconfigs",
        "kairosBinaries",
        "kairosRelease",
        "initramfsConfigs",
    ] {
        assert!(
            second.says(&format!("layer {layer}: cached")),
            "{layer}\n{}",
            second.stderr()
        );
    }
    assert!(!second.says("branding: started"), "{}", second.stderr());
    assert!(second.says("initrd: started"));
}
