//! Kernel arguments that somebody chose, as words that GRUB's shell takes as they are.
//!
//! GRUB's `linux` puts a backslash before each quote and backslash of a word, and quotation marks around a word with a blank. So
//! the kernel gets a word with blanks as it is meant; quotes and backslashes it cannot get at all.

use crate::error::{Error, Result};

/// Splits `text` where the kernel does: at blanks outside of double quotes, which are not part of the words. Line ends and tabs
/// are blanks. `option` is what the text was given by.
///
/// # Errors
///
/// A quote that does not end, and characters that cannot reach the kernel unchanged.
pub(super) fn words(option: &str, text: &str) -> Result<Vec<String>> {
    let refused = |why: String| {
        Error::usage(format!("cannot use {option} as kernel arguments")).context_below(why)
    };
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' | '\t' | '\r' | '\n' if is_quoted => word.push(' '),
            ' ' | '\t' | '\r' | '\n' => words.push(std::mem::take(&mut word)),
            '\'' | '\\' => {
                return Err(refused(format!(
                    "GRUB would hand {c:?} to the kernel with a backslash before it"
                ))
                .hint("double quotes keep a value with blanks together: name=\"a b\""));
            }
            c if c.is_control() => {
                return Err(refused(format!("there is a control character, {c:?}")));
            }
            c => word.push(c),
        }
    }
    if is_quoted {
        return Err(refused("a double quote does not end".to_owned()));
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// Returns `word` so that GRUB's shell reads it as one word and nothing else. It must come from [`words`]: no single quote.
pub(super) fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._=,:/+@%-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}

/// Returns the bytes that `word` takes in the kernel's command line.
pub(super) fn bytes_in_cmdline(word: &str) -> usize {
    word.len() + if word.contains(' ') { 2 } else { 0 }
}
