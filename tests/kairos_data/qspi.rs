//! The script that hands firmware over to a Jetson Thor, run on made-up boards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kfactory::kairos::files::jetson_qspi_update;
use tempfile::TempDir;

use crate::support::available;

const THOR: &str = "nvidia,p3971-0089+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0";
const VARIABLE: &str = "efivars/OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A board and what it is to get.
struct Board {
    dir: TempDir,
    script: PathBuf,
}

impl Board {
    /// Makes a board of `compatible` with firmware `version`.
    fn new(compatible: &str, version: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let script = dir.path().join("script");
        fs::write(&script, jetson_qspi_update().content.as_bytes()).expect("a file");
        let board = Self { dir, script };
        board.write("compatible", compatible);
        board.write("fw_version", version);
        board.write("ota/t26x/TEGRA_BL.Cap", &"x".repeat(5000));
        fs::create_dir_all(board.at("efivars")).expect("a directory");
        fs::create_dir_all(board.at("esp")).expect("a directory");
        board
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("below")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn run(&self, image: &str, more: &[(&str, &str)]) -> Output {
        let mut command = Command::new("sh");
        command.arg(&self.script);
        for (name, file) in [
            ("DT_COMPATIBLE_FILE", "compatible"),
            ("ESRT_FW_VERSION_FILE", "fw_version"),
            ("OTA_PACKAGE_DIR", "ota"),
            ("EFIVARS_DIR", "efivars"),
            ("ESP_MOUNT_DIR", "esp"),
        ] {
            command.env(name, self.at(file));
        }
        command
            .env("KAIROS_QSPI_IMAGE_VERSION", image)
            .env("KAIROS_QSPI_SKIP_MOUNT", "1")
            .env("KAIROS_QSPI_SKIP_EFIVARS_CHECK", "1")
            .envs(more.iter().copied());
        command.output().expect("a shell")
    }

    fn has_capsule(&self) -> bool {
        self.at("esp/EFI/UpdateCapsule/TEGRA_BL.Cap").is_file()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn versions_are_numbers_as_the_firmware_has_them() {
    let board = Board::new(THOR, "0");
    let call = |word: &str, value: &str| {
        let output = Command::new("sh")
            .arg(&board.script)
            .args([word, value])
            .output()
            .expect("a shell");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    for (version, code, canonical) in [
        ("38.0.0", "2490368", "38.0.0"),
        ("38.4.0", "2491392", "38.4.0"),
        ("39.2", "2556416", "39.2.0"),
    ] {
        assert_eq!(call("__encode_version", version), (true, code.into()));
        assert_eq!(call("__decode_version", code), (true, canonical.into()));
    }
    for bad in ["", "38", "1.2.3.4", "a.b", "38..0", ".38", "38."] {
        assert!(!call("__encode_version", bad).0, "{bad}");
    }
}

#[test]
fn an_older_board_gets_the_capsule_and_is_told_of_it_in_one_write() {
    let board = Board::new(THOR, "2490368");
    let variable = Path::new(VARIABLE);
    board.write(variable.to_str().expect("text"), "");
    let output = board.run("39.2.1-20260101", &[]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(board.has_capsule());
    assert_eq!(
        fs::read(board.at(VARIABLE)).expect("written"),
        [7, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    );
    assert!(!board.at("esp/EFI/BOOT").exists());
}

#[test]
fn a_dry_run_decides_and_changes_nothing() {
    let board = Board::new(THOR, "2490368");
    let output = board.run("39.2.1", &[("KAIROS_QSPI_DRY_RUN", "1")]);
    assert!(
        output.status.success() && text(&output).contains("is to become 39.2.1"),
        "{}",
        text(&output)
    );
    assert!(!board.has_capsule() && !board.at(VARIABLE).exists());
}

#[test]
fn other_machines_and_boards_that_are_up_to_date_have_nothing_to_do() {
    for (compatible, version) in [("raspberrypi,4\0", "0"), (THOR, "2556417")] {
        let board = Board::new(compatible, version);
        let output = board.run("39.2.1", &[]);
        assert!(
            output.status.success() && !board.has_capsule(),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn what_a_capsule_cannot_do_is_refused() {
    for (compatible, version, image, more, words) in [
        ("", "2490368", "39.2", ("A", ""), "is empty"),
        (THOR, "2424832", "39.2", ("A", ""), "flash it once over USB"),
        (THOR, "2621440", "39.2", ("A", ""), "cannot go back"),
        (THOR, "what", "39.2", ("A", ""), "is not a number"),
        (
            THOR,
            "2490368",
            "latest",
            ("A", ""),
            "cannot tell the firmware version",
        ),
        (
            THOR,
            "2490368",
            "39.2",
            ("KAIROS_QSPI_FORCE_FREE_KB", "4"),
            "needs 5 KiB",
        ),
        (
            THOR,
            "2490368",
            "39.2",
            ("OTA_PACKAGE_DIR", "/nowhere"),
            "expected one capsule",
        ),
        (
            THOR,
            "2490368",
            "39.2",
            ("EFIVARS_DIR", "/nowhere"),
            "not booted by UEFI",
        ),
        (
            THOR,
            "2490368",
            "39.2",
            ("DT_COMPATIBLE_FILE", "/nowhere"),
            "cannot read",
        ),
    ] {
        let board = Board::new(compatible, version);
        let output = board.run(image, &[more]);
        assert_eq!(output.status.code(), Some(1), "{words}: {}", text(&output));
        assert!(
            text(&output).contains(words),
            "no {words:?} in {}",
            text(&output)
        );
        assert!(!board.has_capsule(), "{words}");
    }
}

#[test]
fn exactly_enough_space_is_enough() {
    let board = Board::new(THOR, "2490368");
    board.write(VARIABLE, "");
    let output = board.run("39.2", &[("KAIROS_QSPI_FORCE_FREE_KB", "5")]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn shellcheck_finds_nothing_in_it() {
    if !available("shellcheck") {
        return;
    }
    let board = Board::new(THOR, "0");
    let output = Command::new("shellcheck")
        .args(["-s", "sh"])
        .arg(&board.script)
        .output()
        .expect("shellcheck");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
