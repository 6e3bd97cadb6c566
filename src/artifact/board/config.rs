//! The words of config.txt, which the firmware of a Raspberry Pi reads before it starts anything.
//!
//! Spec: Raspberry Pi documentation, "config.txt": "Boot options", "Conditional filters".

use std::collections::BTreeMap;

use super::U_BOOT;
use crate::distro::Model;

/// What is started where nothing is said, by 64 bits or 32.
const KERNEL_64: &str = "kernel8.img";
const KERNELS_32: [&str; 2] = ["kernel7.img", "kernel7l.img"];
/// Words whose value is the name of a file on the same FAT, without which the board does not start.
const NAMES: [&str; 4] = ["armstub", "device_tree", "start_file", "fixup_file"];

/// Returns the config.txt that starts U-Boot. `is_upstream` tells that the device trees have the names of Linux' own kernel.
pub fn ours(is_upstream: bool) -> String {
    let mut text = format!(
        "# What starts this board. U-Boot starts EFI/BOOT/bootaa64.efi beside this file, and that the menu of the system.\n\
         # Settings of yours go to the end.\n\
         arm_64bit=1\n\
         # Without it the clock of the serial line that U-Boot writes to changes.\n\
         enable_uart=1\n\
         kernel={U_BOOT}\n"
    );
    if is_upstream {
        text.push_str("# The device trees beside this file are those of Linux' own kernel.\nupstream_kernel=1\n");
    }
    text
}

/// What one says that is looked into here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, String>,
    /// Files that it includes, which need not be there.
    pub includes: Vec<String>,
    board_is_4: bool,
}

impl Config {
    /// Reads what `text` says to `model`, or to any board where it is not known.
    pub fn read(text: &str, model: Option<Model>) -> Self {
        let mut config = Self {
            board_is_4: model == Some(Model::Rpi4),
            ..Self::default()
        };
        let mut applies = true;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(filter) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                applies = is_for(filter, model);
            } else if !applies {
                continue;
            } else if let Some(name) = line.strip_prefix("include ") {
                config.includes.push(name.trim().to_owned());
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                config.values.insert(key, value);
            }
        }
        config
    }

    /// Returns whether the board starts in 64 bits.
    pub fn is_64bit(&self) -> bool {
        let value = |key: &str| self.values.get(key).map(String::as_str);
        let old = value("arm_control") == Some("0x200");
        old || value("arm_64bit").is_some_and(|value| value != "0")
    }

    /// Returns the file that the firmware starts.
    pub fn kernel(&self) -> &str {
        match self.values.get("kernel") {
            Some(name) => name.trim_start_matches('/'),
            None if self.is_64bit() => KERNEL_64,
            None => KERNELS_32[usize::from(self.board_is_4)],
        }
    }

    /// Returns the directory, or the start of names, where kernel and device trees are looked for first.
    pub fn prefix(&self) -> &str {
        self.values.get("os_prefix").map_or("", String::as_str)
    }

    /// Returns whether it names a device tree itself, or says that there is none.
    pub fn names_device_tree(&self) -> bool {
        self.values.contains_key("device_tree")
    }

    /// Returns the files that must be there beside the usual firmware.
    pub fn needs(&self) -> Vec<&str> {
        let named = NAMES.iter().filter_map(|key| self.values.get(*key));
        let named = named.map(|name| name.trim_start_matches('/'));
        let named = named.filter(|name| !name.is_empty());
        std::iter::once(self.kernel()).chain(named).collect()
    }
}

/// Returns whether what stands below `[filter]` is for `model`. Filters that ask for a part of a board, not for its kind, count as not met.
fn is_for(filter: &str, model: Option<Model>) -> bool {
    match filter {
        "all" => true,
        "pi3" => model != Some(Model::Rpi4),
        "pi4" => model != Some(Model::Rpi3),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_starts_u_boot_in_64_bits_on_either_board() {
        for (model, is_upstream) in [(Model::Rpi3, true), (Model::Rpi4, false)] {
            let text = ours(is_upstream);
            let config = Config::read(&text, Some(model));
            assert!(config.is_64bit());
            assert_eq!(config.needs(), [U_BOOT]);
            assert_eq!(text.contains("upstream_kernel=1"), is_upstream);
        }
    }

    #[test]
    fn what_stands_below_the_filter_of_another_board_is_not_read() {
        let text = "kernel=a.img # mine\n[pi4]\nkernel=/b.img\narmstub=stub.bin\n[all]\narm_64bit=1\ninclude more.txt\n[EDID=X]\nkernel=c\n";
        let third = Config::read(text, Some(Model::Rpi3));
        assert_eq!(third.needs(), ["a.img"]);
        assert_eq!(third.includes, ["more.txt"]);
        let fourth = Config::read(text, Some(Model::Rpi4));
        assert_eq!(fourth.needs(), ["b.img", "stub.bin"]);
    }

    #[test]
    fn where_no_kernel_is_named_the_firmware_has_a_name() {
        for (text, model, kernel) in [
            ("", Model::Rpi3, "kernel7.img"),
            ("", Model::Rpi4, "kernel7l.img"),
            ("arm_64bit=1", Model::Rpi4, "kernel8.img"),
            ("arm_control=0x200", Model::Rpi3, "kernel8.img"),
            ("arm_64bit=0", Model::Rpi3, "kernel7.img"),
        ] {
            assert_eq!(Config::read(text, Some(model)).kernel(), kernel, "{text}");
        }
    }
}
