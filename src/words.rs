//! Reads words that people write in more than one spelling.

use crate::error::{Error, Result};
use crate::suggest::nearest;

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
    Err(match nearest(&word, TRUE.into_iter().chain(FALSE)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint("write `true` or `false`"),
    })
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
}
