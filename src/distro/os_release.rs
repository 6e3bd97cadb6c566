//! Reads `/etc/os-release`. Knows the file's syntax, not what distributions there are.

/// The fields of an os-release file, in file order.
///
/// Spec: os-release(5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    fields: Vec<(String, String)>,
}

impl OsRelease {
    /// Parses `text`; never fails, because the file is written to be sourced by a shell and so may hold anything.
    ///
    /// Lines that are no plain assignment are passed over. Quotes and backslashes are undone as a shell would;
    /// nothing is ever expanded or run: `$X` and backquotes stay text. A value whose quote never closes is passed over too.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            fields: text.lines().filter_map(assignment).collect(),
        }
    }

    /// Returns the value of `key`, or `None` where it is absent or empty: both mean "not given" to readers of this file.
    ///
    /// Of several assignments the last one holds, as when the file is sourced.
    pub fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().rev().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns all assignments in file order, those that a later one overrides included.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (key, value) = line.split_once('=')?;
    is_name(key).then_some(())?;
    Some((key.to_owned(), unquote(value)?))
}

/// Tells whether `key` can be a shell variable: this also drops comments.
fn is_name(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.is_empty()
        && !key.as_bytes()[0].is_ascii_digit()
}

/// Undoes shell quoting; the value ends at the first blank outside quotes. `None` if a quote is never closed.
fn unquote(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => single_quoted(&mut chars, &mut out)?,
            '"' => double_quoted(&mut chars, &mut out)?,
            '\\' => out.extend(chars.next()),
            c if c.is_whitespace() => break,
            c => out.push(c),
        }
    }
    Some(out)
}

fn single_quoted(chars: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '\'' => return Some(()),
            c => out.push(c),
        }
    }
}

/// Inside double quotes a backslash keeps its place before anything but the five characters it can escape.
fn double_quoted(chars: &mut std::str::Chars<'_>, out: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '\\' => match chars.next()? {
                c @ ('"' | '\\' | '$' | '`') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_undone_as_a_shell_would() {
        for (line, expected) in [
            (r#"A=plain"#, "plain"),
            (r#"A="two words""#, "two words"),
            (r#"A='single $HOME `x` \n'"#, r"single $HOME `x` \n"),
            (r#"A="esc \" \\ \$ \` \n""#, r#"esc " \ $ ` \n"#),
            (r#"A=back\ slash"#, "back slash"),
            (r#"A=glued"to"'gether'"#, "gluedtogether"),
            (r#"A=value # comment"#, "value"),
            (r#"  export A=x"#, "x"),
            ("A=crlf\r", "crlf"),
            (r#"A=$(reboot)"#, "$(reboot)"),
        ] {
            assert_eq!(OsRelease::parse(line).get("A"), Some(expected), "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_assignment_are_passed_over() {
        let parsed = OsRelease::parse(
            "# ID=no\nnonsense\n=x\n1A=x\nA B=x\nOPEN=\"never closed\nID=debian\n",
        );
        assert_eq!(parsed.fields(), [("ID".to_owned(), "debian".to_owned())]);
    }

    #[test]
    fn the_last_assignment_holds_and_empty_means_absent() {
        let parsed = OsRelease::parse("\u{feff}ID=a\nID=b\nVERSION_ID=\nNAME=''\n");
        assert_eq!(parsed.get("ID"), Some("b"));
        assert_eq!(parsed.get("VERSION_ID"), None);
        assert_eq!(parsed.get("NAME"), None);
        assert_eq!(parsed.get("PRETTY_NAME"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,200}") {
            let parsed = OsRelease::parse(&text);
            prop_assert!(parsed.fields().len() <= text.lines().count());
        }

        #[test]
        fn what_was_single_quoted_comes_back(value in "[^'\n\r]{1,40}") {
            let parsed = OsRelease::parse(&format!("KEY='{value}'\n"));
            prop_assert_eq!(parsed.get("KEY"), Some(value.as_str()));
        }
    }
}
