//! What GRUB's menus start, as far as their words tell without running them.
//!
//! Spec: GRUB manual, "Writing full configuration files directly".

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

/// Returns every kernel that `menu` starts, in its order.
pub(super) fn starts(menu: &str) -> Vec<Start> {
    let mut starts: Vec<Start> = Vec::new();
    for words in commands(menu) {
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
    if !words.is_empty() {
        all.push(words);
    }
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
        menu.cmdline = "a=\"b c\" '{x}'".to_owned();
        let starts = starts(&menu.text().expect("a menu"));
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
        let starts = starts(menu);
        assert_eq!(starts.len(), 2);
        assert_eq!(starts[0].kernel.as_deref(), Some("/k"));
        assert_eq!(starts[0].args, ["a=x \"y\"", "b#c"]);
        assert_eq!(starts[0].initrds, ["/i", "/j"]);
        assert_eq!((&starts[1].kernel, starts[1].initrds.len()), (&None, 0));
    }

    #[test]
    fn any_text_ends() {
        for text in ["'", "\"", "${", "\\", "linux", "initrd /x", "\"\\"] {
            starts(text);
        }
    }
}
