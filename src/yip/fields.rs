//! Reads the keys of one mapping: typed, each once, and what nobody asked for is an error that names the nearest key.

use super::problem::Problems;
use super::schema::Text;
use super::yaml::{Key, Node, Scalar, Value};

/// A mapping whose keys are being read.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    what: &'static str,
    line: usize,
    pairs: &'a [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Opens `node`, which is to be `what`; nothing at all is a mapping without keys.
    pub(super) fn open(
        node: &'a Node,
        what: &'static str,
        problems: &mut Problems,
    ) -> Option<Self> {
        let pairs: &[(Key, Node)] = match &node.value {
            Value::Map(pairs) => pairs,
            _ if node.is_null() => &[],
            _ => {
                problems.error(
                    node.line,
                    format!("{what} is a mapping, not {}", node.kind()),
                );
                return None;
            }
        };
        Some(Self {
            what,
            line: node.line,
            pairs,
            known: Vec::new(),
        })
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Returns the node of `key`; nothing at all counts as left out.
    pub(super) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        let pairs: &'a [(Key, Node)] = self.pairs;
        let found = pairs.iter().find(|(known, _)| known.text == key);
        found.map(|(_, node)| node).filter(|node| !node.is_null())
    }

    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Text {
        let node = self.node(key);
        node.and_then(|node| text(node, key, problems))
            .unwrap_or_default()
    }

    /// Reads a path, or a part of one. A control character in it is a slip.
    pub(super) fn path(&mut self, key: &'static str, problems: &mut Problems) -> Text {
        let text = self.text(key, problems);
        if text.value.ends_with('\n') {
            problems.error_with(
                text.line,
                format!("`{key}` ends in a line break: {:?}", text.value),
                "write it on the line of its key, without `|` or `>`",
            );
        } else if text.value.contains(char::is_control) {
            let message = format!("`{key}` holds a control character: {:?}", text.value);
            problems.error(text.line, message);
        }
        text
    }

    pub(super) fn string(&mut self, key: &'static str, problems: &mut Problems) -> String {
        self.text(key, problems).value
    }

    pub(super) fn texts(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Text> {
        let node = self.node(key);
        node.map(|node| texts(node, key, problems))
            .unwrap_or_default()
    }

    pub(super) fn integer(&mut self, key: &'static str, problems: &mut Problems) -> Option<i64> {
        let node = self.node(key)?;
        let number = scalar(node).and_then(|scalar| integer(&scalar.text));
        if number.is_none() {
            problems.error(node.line, format!("`{key}` is not a number"));
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> bool {
        let Some(node) = self.node(key) else {
            return false;
        };
        let value = scalar(node).and_then(|scalar| boolean(&scalar.text));
        if value.is_none() {
            problems.error_with(
                node.line,
                format!("`{key}` is neither true nor false"),
                "write `true` or `false`",
            );
        }
        value.unwrap_or(false)
    }

    /// Reads a mapping from text to text.
    pub(super) fn pairs(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Vec<(Text, Text)> {
        self.entries(key, problems, |node, problems| {
            if node.is_null() {
                return Some(Text {
                    value: String::new(),
                    line: node.line,
                });
            }
            text(node, key, problems)
        })
    }

    /// Reads a mapping from text to whatever `read` makes of the values.
    pub(super) fn entries<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        mut read: impl FnMut(&'a Node, &mut Problems) -> Option<T>,
    ) -> Vec<(Text, T)> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let Value::Map(pairs) = &node.value else {
            problems.error(
                node.line,
                format!("`{key}` is a mapping, not {}", node.kind()),
            );
            return Vec::new();
        };
        let name = |key: &Key| Text {
            value: key.text.clone(),
            line: key.line,
        };
        let mut entries = Vec::new();
        for (name_of, node) in pairs {
            if name_of.text.contains('\0') {
                nul(name_of.line, &format!("a name in `{key}` holds"), problems);
            }
            entries.extend(read(node, problems).map(|value| (name(name_of), value)));
        }
        entries
    }

    /// Reads a list of whatever `read` makes of the items.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        mut read: impl FnMut(&'a Node, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.node(key) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            problems.error(node.line, format!("`{key}` is a list, not {}", node.kind()));
            return Vec::new();
        };
        items
            .iter()
            .filter_map(|item| read(item, problems))
            .collect()
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, _) in self.pairs {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let message = format!("unknown key {:?} in {}", key.text, self.what);
            match nearest(&key.text, &self.known) {
                Some(near) => {
                    problems.error_with(key.line, message, format!("did you mean `{near}`?"))
                }
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    problems.error_with(
                        key.line,
                        message,
                        format!("known are {}", known.join(", ")),
                    );
                }
            }
        }
    }
}

fn scalar(node: &Node) -> Option<&Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}

/// The key whose value is a file's bytes rather than a word: it may hold any.
const CONTENT: &str = "content";

/// Notes a NUL, at which every path, name, argument and variable of Linux ends.
fn nul(line: usize, what: &str, problems: &mut Problems) {
    problems.error_with(
        line,
        format!("{what} a NUL character"),
        "only the content of a file can hold one",
    );
}

/// Takes any scalar as text, in the words of the file.
pub(super) fn text(node: &Node, key: &str, problems: &mut Problems) -> Option<Text> {
    match scalar(node) {
        Some(scalar) if key != CONTENT && scalar.text.contains('\0') => {
            nul(node.line, &format!("`{key}` holds"), problems);
            None
        }
        Some(scalar) => Some(Text {
            value: if scalar.is_null() {
                String::new()
            } else {
                scalar.text.clone()
            },
            line: node.line,
        }),
        None => {
            problems.error(node.line, format!("`{key}` is text, not {}", node.kind()));
            None
        }
    }
}

/// Takes a list of scalars.
pub(super) fn texts(node: &Node, key: &str, problems: &mut Problems) -> Vec<Text> {
    let Value::List(items) = &node.value else {
        problems.error(node.line, format!("`{key}` is a list, not {}", node.kind()));
        return Vec::new();
    };
    items
        .iter()
        .filter_map(|item| text(item, key, problems))
        .collect()
}

/// Reads an integer as YAML 1.1 writers mean it: a leading zero is octal.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.replace('_', "");
    let prefixed = |prefix: &str| digits.strip_prefix(prefix);
    let magnitude = if let Some(hex) = prefixed("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = prefixed("0o") {
        i64::from_str_radix(octal, 8)
    } else if let Some(binary) = prefixed("0b") {
        i64::from_str_radix(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(&digits, 8)
    } else {
        digits.parse()
    };
    // A second sign would be taken by the parsers above.
    let first = digits.as_bytes().first()?;
    let magnitude = magnitude
        .ok()
        .filter(|n| *n >= 0 && first.is_ascii_digit())?;
    Some(if negative { -magnitude } else { magnitude })
}

fn boolean(text: &str) -> Option<bool> {
    let is_one_of = |words: &[&str]| {
        words.iter().any(|word| {
            let mut capital = word[..1].to_uppercase();
            capital.push_str(&word[1..]);
            text == *word || text == capital || text == word.to_uppercase()
        })
    };
    if is_one_of(&["true", "yes", "y", "on"]) {
        Some(true)
    } else if is_one_of(&["false", "no", "n", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// Returns the name that `word` most likely stands for: few letters away, and not all of it different.
pub(super) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    names
        .iter()
        .map(|name| (distance(&word, name), *name))
        .filter(|(far, _)| *far <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Counts the letters to insert, remove, replace or swap with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, left) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let above = &rows[i];
            let mut best = (above[j] + usize::from(left != right))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *left == b[j - 1] && a[i - 1] == *right {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_in_every_form_that_yaml_writers_use() {
        for (text, number) in [
            ("0644", Some(0o644)),
            ("0o644", Some(0o644)),
            ("0x1a4", Some(420)),
            ("420", Some(420)),
            ("1_000", Some(1000)),
            ("-1", Some(-1)),
            ("0", Some(0)),
            ("0b11", Some(3)),
            ("0689", None),
            ("", None),
            ("--1", None),
            ("rw-r--r--", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(text), number, "{text:?}");
        }
    }

    #[test]
    fn truth_is_read_in_every_casing() {
        for word in ["true", "True", "TRUE", "yes", "Y", "On"] {
            assert_eq!(boolean(word), Some(true), "{word}");
        }
        for word in ["false", "No", "n", "OFF"] {
            assert_eq!(boolean(word), Some(false), "{word}");
        }
        assert_eq!(boolean("tRue"), None);
        assert_eq!(boolean("1"), None);
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let names = ["commands", "sysctl", "packages"];
        assert_eq!(nearest("comands", &names), Some("commands"));
        assert_eq!(nearest("systctl", &names), Some("sysctl"));
        assert_eq!(nearest("pakcages", &names), Some("packages"));
        assert_eq!(nearest("xyz", &names), None);
    }
}
