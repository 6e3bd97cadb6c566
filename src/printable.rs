//! Words that others chose (an image, a registry, a package's scripts), made fit to be read on a terminal.
//!
//! Control characters move its cursor and colour it; bidirectional ones make a line read as another than it is.

use std::fmt::Display;

/// Returns `text` with a blank for each control character but tabs and line ends.
///
/// What turns the direction of writing is shown as `\u202e`, which JSON and YAML read back as the same.
pub(crate) fn text(text: &str) -> String {
    shown(text, |c| matches!(c, '\t' | '\n'))
}

/// As [`text`], for text that is to stay on one line: a line end is a blank too.
pub(crate) fn line(text: &str) -> String {
    shown(text, |c| c == '\t')
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if turns_direction(c) => escape(c, &mut shown),
            c if c.is_control() && !is_kept(c) => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// Returns a name on one line, from which it can be told from every other: what must not reach the terminal is escaped.
pub(crate) fn name(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c.is_control() || turns_direction(c) => escape(c, &mut shown),
            c => shown.push(c),
        }
    }
    shown
}

fn escape(c: char, out: &mut String) {
    out.push_str(&format!("\\u{:04x}", u32::from(c)));
}

/// Returns `count` with the noun behind it, which is `one` where it is of one thing: `1 entry`, `2 entries`.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    match (count == N::from(1), one.strip_suffix('y')) {
        (true, _) => format!("1 {one}"),
        (false, Some(stem)) => format!("{count} {stem}ies"),
        (false, None) => format!("{count} {one}s"),
    }
}

/// The most bytes of a word that are shown: longer than any path that somebody wrote by hand.
const MAX_WORD: usize = 512;
/// The most bytes of a message that are shown.
const MAX_MESSAGE: usize = 4096;

/// Cuts the middle out of what nobody reads: a path without end in a message, then a message without end.
pub(crate) fn bounded(text: &str) -> String {
    let words: Vec<String> = text.split(' ').map(|word| cut(word, MAX_WORD)).collect();
    cut(&words.join(" "), MAX_MESSAGE)
}

/// Returns `text`, or its two ends and how long it is where that is more than `most` bytes.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let is_end = |at: &usize| text.is_char_boundary(*at);
    let head = (0..=most / 2).rev().find(is_end).unwrap_or(0);
    let mut after = text.len() - most / 2..=text.len();
    let tail = after.find(is_end).unwrap_or(text.len());
    let (head, tail) = (&text[..head], &text[tail..]);
    format!(
        "{head}... (the middle of {} bytes is left out) ...{tail}",
        text.len()
    )
}

/// Marks, embeddings, overrides and isolates (Unicode Standard Annex 9, "Directional Formatting Characters").
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(line("a\u{1b}[31mb\nc"), "a [31mb c");
        assert_eq!(text("a\u{9b}31m\r\n\tb\u{7}"), "a 31m \n\tb ");
    }

    #[test]
    fn nothing_turns_the_direction_of_a_line_and_json_means_the_same() {
        let turned = "a\u{202e}b\u{2066}c\u{200f}";
        for shown in [text(turned), line(turned), name(turned)] {
            assert_eq!(shown, r"a\u202eb\u2066c\u200f");
            let read: String = serde_json::from_str(&format!("\"{shown}\"")).unwrap();
            assert_eq!(read, turned);
        }
    }

    #[test]
    fn a_name_stays_on_its_line_and_differs_from_others() {
        assert_eq!(name("a\nb"), r"a\nb");
        assert_eq!(name("\u{1b}]0;x\u{7}\t é"), r"\u001b]0;x\u0007\t é");
    }

    #[test]
    fn a_message_without_end_is_cut_in_its_middle_and_others_stay() {
        let usual = "cannot read `/a/path`: ".repeat(40);
        assert_eq!(bounded(&usual), usual);
        let text = bounded(&"ä b ".repeat(2000));
        assert!(
            text.len() < 4200 && text.starts_with("ä b ") && text.ends_with("ä b "),
            "{text}"
        );
        assert!(text.contains("of 10000 bytes"), "{text}");
    }
}
