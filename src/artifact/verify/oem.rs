//! The file system with configurations: what the first boot does, and GRUB's environment.

use std::io;

use super::ext4::Ext4;
use super::root::{Lack, RootFs as _};
use super::rule::{Report, blame};
use super::rules;
use crate::artifact::names::{ENVIRONMENT, ENVIRONMENT_BYTES, ENVIRONMENT_HEAD, FIRST_BOOT};
use crate::error::Result;
use crate::yip::stages_of;

const PART: &str = "oem";
const MAX_TEXT: usize = 1 << 20;

/// Checks the configurations on `volume` of a disk that never booted, if it `is_new`, and whose menu is `menu`.
pub(super) fn check(report: &mut Report, volume: &Ext4, is_new: bool, menu: &str) -> Result<()> {
    if let Err(error) = read(report, volume, is_new, menu) {
        report.hold(&rules::FILE_SYSTEM).at(PART, blame(error)?);
    }
    Ok(())
}

fn read(report: &mut Report, volume: &Ext4, is_new: bool, menu: &str) -> io::Result<()> {
    if is_new {
        let text = volume.text(FIRST_BOOT, MAX_TEXT)?;
        let mut held = report.hold(&rules::OEM_FILES);
        match text.map(|text| wrong(&text)) {
            Err(lack) => held.at(PART, lack.of(FIRST_BOOT)),
            Ok(Some(wrong)) => held.at(FIRST_BOOT, wrong),
            Ok(None) => {}
        }
    }
    let bytes = volume.clone().read(ENVIRONMENT, ENVIRONMENT_BYTES * 64)?;
    let mut held = report.hold(&rules::OEM_ENVIRONMENT);
    let bytes = match bytes {
        Ok(bytes) => bytes,
        // An installed system makes it when it is needed.
        Err(Lack::Missing) if !is_new => return Ok(()),
        Err(lack) => {
            held.at(PART, lack.of(ENVIRONMENT));
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&bytes);
    if bytes.len() != ENVIRONMENT_BYTES || !text.starts_with(ENVIRONMENT_HEAD) {
        let len = bytes.len();
        held.at(
            ENVIRONMENT,
            format!("it is no environment block of {ENVIRONMENT_BYTES} bytes, but {len} others"),
        );
        return Ok(());
    }
    let next = text
        .lines()
        .find_map(|line| line.strip_prefix("next_entry="));
    match next.filter(|next| !next.is_empty()) {
        Some(next) if !has_entry(menu, next) => {
            held.at(
                ENVIRONMENT,
                format!("`next_entry` is {next}, which the menu does not have"),
            );
        }
        None if is_new => held.at(ENVIRONMENT, "no `next_entry` leads to the recovery system"),
        _ => {}
    }
    Ok(())
}

/// Tells whether a menu has the entry of this id.
fn has_entry(menu: &str, id: &str) -> bool {
    let words: Vec<&str> = menu.split_whitespace().collect();
    let plain = |word: &str| word.trim_matches(['"', '\'']) == id;
    let pairs = words.windows(2);
    let mut pairs = pairs.map(|pair| (pair[0], pair[1]));
    pairs.any(|(option, word)| match option.strip_prefix("--id=") {
        Some(word) => plain(word),
        None => option == "--id" && plain(word),
    })
}

/// Returns what is wrong with what the first boot does.
fn wrong(text: &str) -> Option<String> {
    let stages = match stages_of(text) {
        Ok(stages) => stages,
        Err(error) => return Some(format!("it cannot be read: {}", error.render_text().trim())),
    };
    let steps = || stages.iter().flat_map(|stage| &stage.steps);
    if !steps().any(|step| step.layout.is_some()) {
        return Some("it adds no partitions".to_owned());
    }
    let mut commands = steps().flat_map(|step| &step.commands);
    let resets = commands
        .any(|command| command.value.contains("kairos-agent") && command.value.contains("reset"));
    (!resets).then(|| "it does not let kairos-agent reset the disk".to_owned())
}
