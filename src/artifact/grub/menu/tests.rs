//! The menus as golden files, checked by GRUB's own parser where it is there.

use std::path::Path;

use super::args::{shell, words};
use super::*;
use crate::artifact::judge::judge;
use crate::distro::Arch;

fn with_cmdline(cmdline: &str) -> LiveMenu {
    LiveMenu {
        cmdline: cmdline.to_owned(),
        ..LiveMenu::new(Arch::Amd64)
    }
}

/// Every text there is, with the name of its golden file.
fn texts() -> [(&'static str, String); 6] {
    let live = |arch| LiveMenu::new(arch).text().unwrap();
    let chosen = LiveMenu {
        console: "console=tty1 console=ttyS1,115200".to_owned(),
        cmdline: "one=\"a  b\" two=$(three);{x} foo.dyndbg=+p".to_owned(),
        ..LiveMenu::new(Arch::Amd64)
    };
    [
        ("live-amd64.cfg", live(Arch::Amd64)),
        ("live-arm64.cfg", live(Arch::Arm64)),
        ("live-riscv64.cfg", live(Arch::Riscv64)),
        ("live-chosen.cfg", chosen.text().unwrap()),
        ("chain-live.cfg", chain_to_live()),
        ("chain-disk.cfg", chain_to_disk("COS_RECOVERY")),
    ]
}

#[test]
fn menus_are_as_the_golden_files_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/grub");
    for (name, text) in texts() {
        let golden = dir.join(name);
        if std::env::var_os("KFACTORY_UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).expect("our source");
        }
        let expected = std::fs::read_to_string(&golden).expect("our source");
        assert_eq!(text, expected, "{name}: `just golden` rewrites");
    }
}

#[test]
fn grubs_own_parser_takes_every_menu() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in texts() {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        if judge("grub-script-check", &[file.to_str().unwrap()]).is_none() {
            return;
        }
    }
}

#[test]
fn arguments_are_split_where_the_kernel_splits_them() {
    let split = |text| words("x", text).unwrap();
    assert_eq!(split("  a=b\tc\r\nd "), ["a=b", "c", "d"]);
    assert_eq!(split("x=\"a  b\" \"y=c d\""), ["x=a  b", "y=c d"]);
    assert!(split(" \n").is_empty());
}

#[test]
fn no_argument_ends_its_line_or_its_word() {
    let text = with_cmdline("a\n}\nreboot #b;${root} `x` \"c\nd\"")
        .text()
        .unwrap();
    for line in text.lines().filter(|line| line.contains("linux ")) {
        let end = "rd.live.overlay.overlayfs a '}' reboot '#b;${root}' '`x`' 'c d'";
        assert!(line.ends_with(end), "{line}");
    }
    assert_eq!(shell("a=b,c:/d"), "a=b,c:/d");
    assert_eq!(shell("${board_args}"), "'${board_args}'");
}

#[test]
fn what_grub_would_change_on_its_way_to_the_kernel_is_refused() {
    for (cmdline, why) in [
        ("a='b'", "backslash"),
        ("a=\\n", "backslash"),
        ("a=\"b", "does not end"),
        ("a=\u{1b}[0m", "control"),
        ("a\0", "control"),
    ] {
        let text = format!("{}", with_cmdline(cmdline).text().unwrap_err());
        assert!(text.contains(why) && text.contains("--cmdline"), "{text}");
    }
}

#[test]
fn more_than_the_kernel_takes_is_refused() {
    assert!(with_cmdline(&"x".repeat(1500)).text().is_ok());
    let error = with_cmdline(&"x".repeat(2048)).text().unwrap_err();
    assert!(error.to_string().contains("2047"), "{error}");
}

#[test]
fn entries_come_in_their_order() {
    let text = LiveMenu::new(Arch::Amd64).text().unwrap();
    let titles: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("menuentry") || line.starts_with("submenu"))
        .filter_map(|line| line.split('"').nth(1))
        .collect();
    let wanted = [
        "Kairos",
        "Kairos (manual)",
        "kairos (interactive install)",
        "Kairos (remote recovery mode)",
        "Kairos (boot local node from livecd)",
        "Kairos (debug)",
        "Kairos (boot to RAM)",
    ];
    assert_eq!(titles, wanted);
}

#[test]
fn only_machines_that_can_be_the_board_are_asked_for_it() {
    for (name, text) in texts() {
        assert_eq!(text.contains("smbios"), name == "live-arm64.cfg", "{name}");
    }
}
