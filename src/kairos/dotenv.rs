//! Files of `KEY=value` lines: reading what dotenv readers accept, writing what every reader accepts.

use std::collections::BTreeMap;

/// Why a text is not a file of assignments. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DotenvError {
    /// A line is no assignment to a name.
    #[error("line {line}: expected `KEY=value`, found {text:?}")]
    NotAnAssignment {
        /// The number of the line.
        line: usize,
        /// The line.
        text: String,
    },
    /// A quoted value does not end.
    #[error("line {line}: the value of `{key}` has no closing quote")]
    Unterminated {
        /// The number of the line on which the value begins.
        line: usize,
        /// The key of the value.
        key: String,
    },
}

/// Reads the assignments of `text`; a later assignment to a key wins.
///
/// `export` is allowed before the name, and a colon instead of the `=`; values are bare, in single quotes (literal) or in double quotes (backslash escapes,
/// `\n` and `\r`), and may span lines inside quotes. `$NAME` and `${NAME}`, in capitals and outside single quotes, stand for what the
/// same file assigned before, or for nothing. The environment is never looked at.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, DotenvError> {
    let mut values = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line_number = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((key, value)) = key_of(line) else {
            return Err(DotenvError::NotAnAssignment {
                line: line_number,
                text: bare.to_owned(),
            });
        };
        // A quoted value may go on after this line, so it is read from all of the text that is left.
        let tail = &rest[line.len() - value.len()..];
        let unterminated = || DotenvError::Unterminated {
            line: line_number,
            key: key.to_owned(),
        };
        let (value, after) = read_value(tail, &values).ok_or_else(unterminated)?;
        values.insert(key.to_owned(), value);
        rest = after;
    }
    Ok(values)
}

/// Writes `values` one per line, the lines sorted as text, with a final newline.
///
/// Canonical integers stay bare; everything else is in double quotes with `\`, newline, carriage return, `"`, `!`, `$` and the
/// backquote escaped.
pub fn render(values: &BTreeMap<String, String>) -> String {
    let mut lines = Vec::with_capacity(values.len());
    for (key, value) in values {
        let mut line = format!("{key}=");
        if is_integer(value) {
            line.push_str(value);
        } else {
            quote_into(value, &mut line);
        }
        lines.push(line + "\n");
    }
    lines.sort_unstable();
    lines.concat()
}

/// Splits `line` into a name and what follows the `=` or `:`, or `None` where it is no assignment.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(['=', ':'])?;
    let key = key.trim();
    let key = key
        .strip_prefix("export")
        .filter(|rest| rest.starts_with([' ', '\t']))
        .map_or(key, str::trim_start);
    let named = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
    (named && !key.is_empty()).then_some((key, value.trim_start_matches([' ', '\t'])))
}

/// Reads one value at the start of `text`; returns it and what follows its line, or `None` where a quote does not end.
fn read_value<'a>(text: &'a str, known: &BTreeMap<String, String>) -> Option<(String, &'a str)> {
    let next_line = |rest: &'a str| rest.split_once('\n').map_or("", |(_, after)| after);
    match text.as_bytes().first() {
        Some(b'\'') => {
            let (value, rest) = text[1..].split_once('\'')?;
            Some((value.to_owned(), next_line(rest)))
        }
        Some(b'"') => {
            let (value, rest) = read_double_quoted(&text[1..], known)?;
            Some((value, next_line(rest)))
        }
        _ => {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            let line = line.find(" #").map_or(line, |comment| &line[..comment]);
            Some((expand(line.trim(), known), after))
        }
    }
}

/// Reads up to the closing double quote, which is not returned.
fn read_double_quoted<'a>(
    text: &'a str,
    known: &BTreeMap<String, String>,
) -> Option<(String, &'a str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let special = rest.find(['"', '\\', '$'])?;
        value.push_str(&rest[..special]);
        let (mark, tail) = rest[special..].split_at(1);
        rest = tail;
        match mark {
            "\"" => return Some((value, rest)),
            "$" => {
                let (expansion, tail) = expand_name(rest, known);
                value.push_str(&expansion);
                rest = tail;
            }
            _ => {
                let escaped = rest.chars().next()?;
                value.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    other => other,
                });
                rest = &rest[escaped.len_utf8()..];
            }
        }
    }
}

/// Replaces the references of a bare value.
fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut value = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        value.push_str(before);
        let (expansion, tail) = expand_name(after, known);
        value.push_str(&expansion);
        rest = tail;
    }
    value + rest
}

/// Reads the name that follows a `$`; returns its value and the rest. A `$` without a name in capitals stands for itself.
fn expand_name<'a>(text: &'a str, known: &BTreeMap<String, String>) -> (String, &'a str) {
    let value_of = |name: &str| known.get(name).cloned().unwrap_or_default();
    let is_of_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if let Some((name, rest)) = text
        .strip_prefix('{')
        .and_then(|inner| inner.split_once('}'))
        .filter(|(name, _)| !name.is_empty() && name.chars().all(is_of_name))
    {
        return (value_of(name), rest);
    }
    let end = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    match text.split_at(end) {
        ("", rest) => ("$".to_owned(), rest),
        (name, rest) => (value_of(name), rest),
    }
}

/// Whether readers that turn numbers into integers give back the same text.
fn is_integer(value: &str) -> bool {
    value
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == value)
}

fn quote_into(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' | '"' | '!' | '$' | '`' => text.extend(['\\', c]),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn assignments_are_read_in_all_their_forms() {
        let text = "# comment\n\n A=1 \nexport B = two words # comment\nC='$A # \"lit\"' # c\nD=\"a\\n\\\"\\$A\\\\ $A ${A}b $ ${NO}\"\nE=\nF=x#y\nG=$A-$\nH=\"two\nlines\"\r\nI=last";
        let expected = map(&[
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A # \"lit\""),
            ("D", "a\n\"$A\\ 1 1b $ "),
            ("E", ""),
            ("F", "x#y"),
            ("G", "1-$"),
            ("H", "two\nlines"),
            ("I", "last"),
        ]);
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn a_colon_assigns_and_only_names_in_capitals_are_references() {
        let text = "A: 1\nURL=http://x:1\nB=$Ax ${A}x $a ${a} ${}\n";
        let expected = map(&[
            ("A", "1"),
            ("B", "1x 1x $a ${a} ${}"),
            ("URL", "http://x:1"),
        ]);
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn lines_are_sorted_and_not_names() {
        let values = map(&[("E", "x"), ("E2", "x"), ("E_", "x")]);
        assert_eq!(render(&values), "E2=\"x\"\nE=\"x\"\nE_=\"x\"\n");
    }

    #[test]
    fn other_lines_are_refused_by_number() {
        for (text, line) in [
            ("A=1\nnonsense\n", 2),
            ("=x", 1),
            ("a b=c", 1),
            ("\n\nA-B=c", 3),
        ] {
            assert!(
                matches!(parse(text), Err(DotenvError::NotAnAssignment { line: at, .. }) if at == line),
                "{text:?}"
            );
        }
        for text in ["A=\"x\n", "A='x\nB=1\n", "A=\"x\\"] {
            assert!(
                matches!(parse(text), Err(DotenvError::Unterminated { line: 1, .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn values_are_quoted_unless_they_are_integers() {
        for (value, written) in [
            ("12", "12"),
            ("-3", "-3"),
            ("007", "\"007\""),
            ("+1", "\"+1\""),
            ("24.04", "\"24.04\""),
            ("", "\"\""),
            ("99999999999999999999", "\"99999999999999999999\""),
            ("a\"b\\c\n\r!$`", "\"a\\\"b\\\\c\\n\\r\\!\\$\\`\""),
        ] {
            assert_eq!(render(&map(&[("K", value)])), format!("K={written}\n"));
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let values = map(&[
            ("A", "a\"b\\c\n\r!$`'x $A"),
            ("B", "12"),
            ("C", " padded "),
            ("D", ""),
            ("E", "# no comment"),
        ]);
        assert_eq!(parse(&render(&values)), Ok(values));
    }
}
