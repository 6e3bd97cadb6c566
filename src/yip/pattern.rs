//! Regular expressions as Go understands them.

use regex::{Regex, RegexBuilder};

/// A compiled pattern takes no more memory than this, in bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// Compiles `pattern`, in which `\Q...\E` quotes, as it does in Go and not in Rust.
///
/// # Errors
///
/// Why it is none, in one line.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&unquoted(pattern))
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| reason(pattern, &error))
}

fn unquoted(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find("\\Q") {
        // Two backslashes are one, and not the start of a quotation.
        let slashes = rest[..at].len() - rest[..at].trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let (literal, after) = inside.split_once("\\E").unwrap_or((inside, ""));
        out.push_str(&regex::escape(literal));
        rest = after;
    }
    out + rest
}

/// Says in one line what the library says in several with a picture.
fn reason(pattern: &str, error: &regex::Error) -> String {
    let looks_around = ["(?=", "(?!", "(?<=", "(?<!"]
        .iter()
        .any(|mark| pattern.contains(mark));
    if looks_around {
        return "look-around is not supported, neither here nor by other yip programs".to_owned();
    }
    let text = error.to_string();
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it is none");
    last.trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_are_literal() {
        assert!(compile(r"^\Qa.b\E.$").unwrap().is_match("a.bc"));
        assert!(!compile(r"^\Qa.b\E$").unwrap().is_match("axb"));
        assert!(compile(r"^\\Q$").unwrap().is_match(r"\Q"));
    }

    #[test]
    fn what_cannot_be_compiled_is_explained_in_one_line() {
        assert!(
            compile("^(?!ubuntu).*")
                .unwrap_err()
                .contains("look-around")
        );
        assert_eq!(compile("(a").unwrap_err().lines().count(), 1);
        assert!(compile("a{1000}{1000}{1000}").is_err());
    }
}
