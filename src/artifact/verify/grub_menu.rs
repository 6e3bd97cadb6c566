//! What GRUB's menus start, as far as their words tell without running them.
//!
//! Spec: GRUB manual, "Writing full configuration files directly".

use std::collections::BTreeMap;

/// One kernel that a menu starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Its path without the device; none where a variable stands for it.
    pub(super) kernel: Option<String>,
    /// What it is told.
    pub(super) args: Vec<String>,
    /// The initrds that go with it, the same way.
    pub(super) initrds: Vec<String>,
}

impl Start {
    /// Returns the last value of an argument, as the kernel and dracut take it.
    pub(super) fn arg(&self, name: &str) -> Option<&str> {
        let value = |arg: &'_ String| -> Option<usize> {
            let (key, _) = arg.split_once('=')?;
            (key == name).then_some(key.len() + 1)
        };
        let mut args = self.args.iter().rev();
        args.find_map(|arg| value(arg).map(|at| &arg[at..]))
    }

    /// Returns whether a word is among what it is told.
    pub(super) fn has(&self, word: &str) -> bool {
        self.args.iter().any(|arg| arg == word)
    }
}

/// The device that a menu looks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The one that has this file.
    File(String),
    /// The one with this label.
    Label(String),
}

/// A menu, or a configuration that leads to one.
#[derive(Debug)]
pub(super) struct Menu {
    commands: Vec<Vec<String>>,
}

impl Menu {
    /// Reads `text`. What is set once stands in the place of its name; what a condition decides is left as it is written.
    pub(super) fn read(text: &str) -> Self {
        let mut commands = commands(text);
        let mut settings: BTreeMap<String, Option<String>> = BTreeMap::new();
        for words in &commands {
            if let [set, assignment, ..] = words.as_slice()
                && set == "set"
                && let Some((name, value)) = assignment.split_once('=')
            {
                let known = settings.contains_key(name);
                let value = (!known).then(|| value.to_owned());
                settings.insert(name.to_owned(), value);
            }
        }
        let mut left = MAX_VALUES;
        for word in commands.iter_mut().flatten() {
            // A value may have others in it, but no circle turns twice.
            for _ in 0..MAX_NESTING {
                *word = expanded(word, &settings, &mut left);
            }
        }
        Self { commands }
    }

    /// Returns every kernel that it starts, in its order.
    pub(super) fn starts(&self) -> Vec<Start> {
        let mut starts: Vec<Start> = Vec::new();
        for words in &self.commands {
            let (command, words) = (words[0].as_str(), &words[1..]);
            match command {
                "linux" | "linux16" | "linuxefi" | "$linux" | "${linux}" => starts.push(Start {
                    kernel: words.first().and_then(|word| path(word)),
                    args: words.iter().skip(1).cloned().collect(),
                    initrds: Vec::new(),
                }),
                "initrd" | "initrd16" | "initrdefi" | "$initrd" | "${initrd}" => {
                    if let Some(start) = starts.last_mut() {
                        start.initrds.extend(words.iter().filter_map(|it| path(it)));
                    }
                }
                _ => {}
            }
        }
        starts
    }

    /// Returns the devices that it looks for, as far as it names them.
    pub(super) fn searches(&self) -> Vec<Search> {
        let all = self.of(&["search", "search.file", "search.fs_label"]);
        let found = all.filter_map(|words| {
            let name = match words[0].as_str() {
                // Behind the name there may be a variable, and hints.
                "search" => words.last(),
                _ => words.get(1),
            };
            let name = name.filter(|name| !name.starts_with('-'))?;
            let has = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_str()));
            match words[0].as_str() {
                _ if name.contains('$') => None,
                "search.file" => Some(Search::File(name.clone())),
                "search.fs_label" => Some(Search::Label(name.clone())),
                _ if has(&["--file", "-f"]) => Some(Search::File(name.clone())),
                _ if has(&["--label", "-l"]) => Some(Search::Label(name.clone())),
                _ => None,
            }
        });
        found.collect()
    }

    /// Returns the menus that it goes to, as paths without device.
    pub(super) fn targets(&self) -> Vec<String> {
        let all = self.of(&["configfile"]);
        all.filter_map(|words| path(words.get(1)?)).collect()
    }

    /// Tells whether it goes nowhere: GRUB shows its prompt then.
    pub(super) fn ends_at_prompt(&self) -> bool {
        let onward = &[
            "configfile",
            "source",
            ".",
            "normal",
            "chainloader",
            "multiboot",
            "multiboot2",
            "xen_hypervisor",
            "boot",
            "exit",
            "fwsetup",
            "halt",
            "reboot",
            "$linux",
            "${linux}",
            "linux",
            "linux16",
            "linuxefi",
        ];
        self.of(onward).next().is_none()
    }

    fn of(&self, names: &'static [&str]) -> impl Iterator<Item = &Vec<String>> {
        let all = self.commands.iter();
        all.filter(|words| names.contains(&words[0].as_str()))
    }
}

/// Values that stand in values.
const MAX_NESTING: usize = 3;
/// The bytes of all values that are put in the place of their names in one menu. Names that come later stay as they are.
const MAX_VALUES: usize = 4 << 20;

/// Puts values in the place of `$name` and `${name}`, where they are known, and takes their bytes from those that are `left`.
fn expanded(word: &str, settings: &BTreeMap<String, Option<String>>, left: &mut usize) -> String {
    let mut all = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        all.push_str(before);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len())),
        };
        match settings.get(name) {
            Some(Some(value)) if value.len() <= *left => {
                *left -= value.len();
                all.push_str(value);
            }
            _ => all.push_str(&word[word.len() - after.len() - 1..word.len() - behind.len()]),
        }
        rest = behind;
    }
    all + rest
}

/// Returns a path without its device; none where a part of it is not known before the menu runs.
fn path(word: &str) -> Option<String> {
    let path = match word.strip_prefix('(') {
        Some(rest) => rest.split_once(')')?.1,
        None => word,
    };
    let is_known = path.starts_with('/') && !path.contains('$');
    is_known.then(|| path.to_owned())
}

/// Returns the words of every command; none has no words.
fn commands(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            '\'' => word
                .get_or_insert_default()
                .extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => quoted(&mut chars, word.get_or_insert_default()),
            '$' if chars.peek() == Some(&'{') => {
                let word = word.get_or_insert_default();
                word.push('$');
                for c in chars.by_ref() {
                    word.push(c);
                    if c == '}' || c == '\n' {
                        break;
                    }
                }
            }
            '#' if word.is_none() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            c if c.is_whitespace() || matches!(c, ';' | '{' | '}') => {
                words.extend(word.take());
                if (c == '\n' || !c.is_whitespace()) && !words.is_empty() {
                    all.push(std::mem::take(&mut words));
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    let keywords = ["if", "elif", "else", "then", "while", "until", "do", "!"];
    for words in &mut all {
        let is_keyword = |word: &&String| keywords.contains(&word.as_str());
        let count = words.iter().take_while(is_keyword).count();
        words.drain(..count);
    }
    all.retain(|words| !words.is_empty());
    all
}

/// Takes what is between double quotes, the first of which is passed.
fn quoted(chars: &mut impl Iterator<Item = char>, word: &mut String) {
    while let Some(c) = chars.next() {
        match c {
            '"' => return,
            '\\' => match chars.next() {
                Some(c @ ('"' | '\\' | '$')) => word.push(c),
                Some('\n') | None => {}
                Some(c) => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::grub::menu::LiveMenu;
    use crate::distro::Arch;

    #[test]
    fn what_the_live_menu_starts_is_found() {
        let mut menu = LiveMenu::new(Arch::Arm64);
        menu.cmdline = "a=\"b c\" d".to_owned();
        let starts = Menu::read(&menu.text().expect("a menu")).starts();
        assert_eq!(starts.len(), 7);
        for start in starts {
            assert_eq!(start.kernel.as_deref(), Some("/boot/kernel"));
            assert_eq!(start.initrds, ["/boot/initrd"]);
            assert_eq!(start.arg("root"), Some("live:CDLABEL=COS_LIVE"));
            assert_eq!(start.arg("rd.live.dir"), Some("/"));
            assert!(start.has("cdroot") && !start.has("cd"));
        }
    }

    #[test]
    fn words_are_those_that_grub_sees() {
        let menu = "menuentry 'a # b' { # linux /no\n linux ($root)/k a=\"x \\\"y\\\"\" \\\n b#c; initrd (hd0,1)/i /j ${k}\n}\n\
             linux $kernel x\ninitrd \"${i}\"\necho linux /no";
        let starts = Menu::read(menu).starts();
        assert_eq!(starts.len(), 2);
        assert_eq!(starts[0].kernel.as_deref(), Some("/k"));
        assert_eq!(starts[0].args, ["a=x \"y\"", "b#c"]);
        assert_eq!(starts[0].initrds, ["/i", "/j"]);
        assert_eq!((&starts[1].kernel, starts[1].initrds.len()), (&None, 0));
    }

    #[test]
    fn the_way_to_the_menu_is_told() {
        let label = |label: &str| Search::Label(label.to_owned());
        let ours = Menu::read(&crate::artifact::grub::menu::chain_to_disk("COS_RECOVERY"));
        assert_eq!(ours.searches(), [label("COS_RECOVERY")]);
        assert_eq!(ours.targets(), ["/etc/cos/grub.cfg"]);
        let others = Menu::read(
            "search --no-floppy --file --set=root /boot/kernel\nset prefix=($root)/boot/grub2\n\
             if [ -e x ]; then set y=1; else set y=2; fi\nconfigfile $prefix/grub.cfg\nconfigfile /$y",
        );
        assert_eq!(others.searches(), [Search::File("/boot/kernel".to_owned())]);
        assert_eq!(others.targets(), ["/boot/grub2/grub.cfg"]);
        let commands = Menu::read(
            "search.fs_label COS_STATE root hd0\nsearch.file /k root\nsearch.fs_label L\nsearch.file",
        );
        let file = Search::File("/k".to_owned());
        assert_eq!(commands.searches(), [label("COS_STATE"), file, label("L")]);
    }

    #[test]
    fn a_menu_of_nothing_but_values_takes_no_more_memory_than_some_megabytes() {
        let value = "x".repeat(60_000);
        let text = format!("set a={value}\n{}", "$a ".repeat(300_000));
        let menu = Menu::read(&text);
        let words = || menu.commands[1].iter();
        assert_eq!(words().count(), 300_000);
        let bytes: usize = words().map(String::len).sum();
        assert!(bytes <= MAX_VALUES + text.len(), "{bytes} bytes");
        // The first ones have the value, the others their name.
        assert_eq!(words().next(), Some(&value));
        assert_eq!(words().last().map(String::as_str), Some("$a"));
    }

    #[test]
    fn a_text_that_goes_nowhere_ends_at_the_prompt() {
        for text in [
            "",
            "x",
            "set timeout=5\nsearch --set=root --label COS_STATE",
        ] {
            assert!(Menu::read(text).ends_at_prompt(), "{text}");
        }
        for text in [
            "configfile /a",
            "menuentry x { linux /k }",
            "if true; then source $prefix/x.cfg; fi",
            "exit 1",
        ] {
            assert!(!Menu::read(text).ends_at_prompt(), "{text}");
        }
    }

    #[test]
    fn any_text_ends() {
        let texts = [
            "'",
            "\"",
            "${",
            "\\",
            "linux",
            "initrd /x",
            "\"\\",
            "$",
            "search",
            "set a=$a; x $a",
        ];
        for text in texts {
            let menu = Menu::read(text);
            menu.starts();
            menu.searches();
            menu.targets();
        }
    }
}
