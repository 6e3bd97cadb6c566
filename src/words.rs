//! Reads words that people write, and says what a misspelt one may have meant.

use crate::error::{Error, Result};

const TRUE: [&str; 4] = ["true", "1", "yes", "on"];
const FALSE: [&str; 4] = ["false", "0", "no", "off"];

/// Reads the boolean value of `name` (an option or a key, as the user wrote it); case does not matter, empty is false: a build
/// argument that nobody set.
///
/// # Errors
///
/// A usage error with the nearest word.
pub fn boolean(name: &str, text: &str) -> Result<bool> {
    let word = text.trim().to_ascii_lowercase();
    if word.is_empty() || FALSE.contains(&word.as_str()) {
        return Ok(false);
    }
    if TRUE.contains(&word.as_str()) {
        return Ok(true);
    }
    let error = Error::usage(format!("`{text}` is neither true nor false (`{name}`)"));
    Err(match closest(&word, TRUE.into_iter().chain(FALSE)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("write `true` or `false`"),
    })
}

/// Returns the one of `known` that `word` most likely meant, if any is near enough.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = known
        .into_iter()
        .map(|other| (distance(&word, &other.to_lowercase()), other))
        .min_by_key(|(distance, _)| *distance);
    // A third of the letters wrong is a typo; more is another word.
    near.filter(|(distance, other)| *distance * 3 <= word.len().max(other.len()))
        .map(|(_, other)| other)
}

/// Counts the letters to insert, drop, replace or swap with the next that make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let differs = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + differs);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn booleans_are_read_in_every_spelling_and_no_other() {
        for (text, expected) in [
            ("true", true),
            ("TRUE", true),
            ("1", true),
            ("Yes", true),
            ("on", true),
            ("false", false),
            ("0", false),
            ("no", false),
            ("", false),
        ] {
            assert_eq!(boolean("-t", text).unwrap(), expected, "{text}");
        }
        for (text, near) in [("ture", "`true`"), ("fales", "`false`"), ("yess", "`yes`")] {
            let error = boolean("TRUSTED_BOOT", text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            let text = error.render_text();
            assert!(
                text.contains(near) && text.contains("`TRUSTED_BOOT`"),
                "{text}"
            );
        }
        assert!(boolean("-t", "perhaps").is_err());
    }

    #[test]
    fn a_typo_is_near_and_another_word_is_not() {
        let known = ["BASE_IMAGE", "FLAVOR_RELEASE", "MODEL", "TRUSTED_BOOT"];
        for (word, near) in [
            ("BASE_IMGAE", Some("BASE_IMAGE")),
            ("flavour_release", Some("FLAVOR_RELEASE")),
            ("TRUSTEDBOOT", Some("TRUSTED_BOOT")),
            ("COLOUR", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), near, "{word}");
        }
    }
}
