//! The words of config.txt, which the firmware of a Raspberry Pi reads before it starts anything.
//!
//! Spec: Raspberry Pi documentation, "config.txt": "Boot options", "Conditional filters".

use std::collections::BTreeMap;

use super::U_BOOT;
use crate::distro::Model;

/// What is started where nothing is said, by 64 bits or 32.
const KERNEL_64: &str = "kernel8.img";
const KERNELS_32: [&str; 2] = ["kernel7.img", "kernel7l.img"];
/// What older boards start, which is of 32 bits by its name, too.
const KERNEL_OLD: &str = "kernel.img";
/// More included files than this are not read.
const MAX_INCLUDES: usize = 16;
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
    /// Reads what `text` says to `model`. `included` returns the text of a file that it includes, none where that is not there.
    ///
    /// # Errors
    ///
    /// Those of `included`.
    pub fn read<E>(
        text: &str,
        model: Model,
        included: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<Self, E> {
        let mut reader = Reader {
            config: Self {
                board_is_4: model == Model::Rpi4,
                ..Self::default()
            },
            model,
            applies: true,
        };
        reader.read(text, included)?;
        Ok(reader.config)
    }

    /// Returns whether the board starts in 64 bits: a Pi 4 does unless it is told otherwise.
    pub fn is_64bit(&self) -> bool {
        let value = |key: &str| self.values.get(key).map(String::as_str);
        match value("kernel") {
            Some(KERNEL_64) => return true,
            Some(name) if name == KERNEL_OLD || KERNELS_32.contains(&name) => return false,
            _ => {}
        }
        let is_set = value("arm_64bit").map(|value| value != "0");
        is_set.unwrap_or(self.board_is_4 || value("arm_control") == Some("0x200"))
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

struct Reader {
    config: Config,
    model: Model,
    /// Whether the filter above is met. It goes on behind an included file, as if that had been written out.
    applies: bool,
}

impl Reader {
    fn read<E>(
        &mut self,
        text: &str,
        included: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<(), E> {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(filter) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                self.applies = is_for(filter, self.model);
            } else if !self.applies {
                continue;
            } else if let Some(name) = line.strip_prefix("include ") {
                let name = name.trim().to_owned();
                // The number also ends files that include each other.
                if self.config.includes.len() == MAX_INCLUDES {
                    continue;
                }
                self.config.includes.push(name.clone());
                if let Some(text) = included(&name)? {
                    self.read(&text, included)?;
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                self.config.values.insert(key, value);
            }
        }
        Ok(())
    }
}

/// Returns whether what stands below `[filter]` is for `model`. Filters that ask for a part of a board, not for its kind, count as not met.
fn is_for(filter: &str, model: Model) -> bool {
    match filter {
        "all" => true,
        "pi3" => model == Model::Rpi3,
        "pi4" => model == Model::Rpi4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn read(text: &str, model: Model) -> Config {
        let Ok(config) = Config::read(text, model, &mut |_| Ok::<_, Infallible>(None));
        config
    }

    #[test]
    fn ours_starts_u_boot_in_64_bits_on_either_board() {
        for (model, is_upstream) in [(Model::Rpi3, true), (Model::Rpi4, false)] {
            let text = ours(is_upstream);
            let config = read(&text, model);
            assert!(config.is_64bit());
            assert_eq!(config.needs(), [U_BOOT]);
            assert_eq!(text.contains("upstream_kernel=1"), is_upstream);
        }
    }

    #[test]
    fn what_stands_below_the_filter_of_another_board_is_not_read() {
        let text = "kernel=a.img # mine\n[pi4]\nkernel=/b.img\narmstub=stub.bin\n[all]\narm_64bit=1\ninclude more.txt\n[EDID=X]\nkernel=c\n";
        let third = read(text, Model::Rpi3);
        assert_eq!(third.needs(), ["a.img"]);
        assert_eq!(third.includes, ["more.txt"]);
        let fourth = read(text, Model::Rpi4);
        assert_eq!(fourth.needs(), ["b.img", "stub.bin"]);
    }

    #[test]
    fn where_no_kernel_is_named_the_firmware_has_a_name() {
        for (text, model, kernel) in [
            ("", Model::Rpi3, "kernel7.img"),
            ("", Model::Rpi4, "kernel8.img"),
            ("arm_64bit=0", Model::Rpi4, "kernel7l.img"),
            ("arm_64bit=1", Model::Rpi3, "kernel8.img"),
            ("arm_control=0x200", Model::Rpi3, "kernel8.img"),
            ("arm_64bit=0", Model::Rpi3, "kernel7.img"),
        ] {
            assert_eq!(read(text, model).kernel(), kernel, "{text}");
        }
    }

    #[test]
    fn how_many_bits_it_starts_in_is_said_by_the_board_the_words_or_a_name_that_is_known() {
        for (text, model, is_64bit) in [
            ("kernel=u-boot.bin", Model::Rpi3, false),
            ("kernel=u-boot.bin", Model::Rpi4, true),
            ("kernel=u-boot.bin\narm_64bit=0", Model::Rpi4, false),
            ("kernel=kernel8.img", Model::Rpi3, true),
            ("kernel=kernel7l.img\narm_64bit=1", Model::Rpi4, false),
        ] {
            assert_eq!(read(text, model).is_64bit(), is_64bit, "{text}");
        }
    }

    #[test]
    fn an_included_file_is_read_where_it_is_included() {
        let mut included = |name: &str| {
            Ok::<_, Infallible>(match name {
                "more.txt" => Some("kernel=b.img\n[pi4]\n".to_owned()),
                "itself.txt" => Some("include itself.txt\narm_64bit=1\n".to_owned()),
                _ => None,
            })
        };
        let text = "kernel=a.img\ninclude more.txt\nkernel=c.img\n[all]\ninclude none.txt\ninclude itself.txt\n";
        let Ok(config) = Config::read(text, Model::Rpi3, &mut included);
        assert_eq!(config.kernel(), "b.img");
        assert!(config.is_64bit());
        assert_eq!(config.includes[..2], ["more.txt", "none.txt"]);
    }
}
