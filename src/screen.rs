//! The terminal that people read results on: how wide it is, and text folded to fit it. What is piped is never touched.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Narrower ones are windows that nobody reads tables in.
const FEWEST: usize = 40;

/// Returns the columns of the terminal that standard output is; `None` where it is none.
pub(crate) fn columns() -> Option<usize> {
    columns_of(&std::io::stdout())
}

/// Returns the columns of the terminal that an output is; `None` where it is none.
pub(crate) fn columns_of(out: &(impl IsTerminal + AsFd)) -> Option<usize> {
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(out).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns >= FEWEST)
}

/// Returns how many columns `text` takes: a Chinese character two, an accent that joins the letter before it none.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Returns `text` with as many blanks behind it as it lacks to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(blanks))
}

/// Returns `text`, or as much of its start and `...` as `columns` hold.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(3);
    let fits = |c: &char| {
        let rest = left.checked_sub(c.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    format!("{}...", text.chars().take_while(fits).collect::<String>())
}

/// Folds every line that is longer than `columns` between its words; what follows stands below the line's last column.
///
/// A word, such as a path, is never broken: one that does not fit below that column begins further to the left, and one that fits on no
/// line, such as a URL, in the first column, where what the terminal makes of it can be picked up as one.
pub(crate) fn fold(text: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        fold_line(line, columns, &mut out);
    }
    out
}

fn fold_line(line: &str, columns: usize, out: &mut String) {
    let indent = " ".repeat(last_column(line, columns));
    let mut width = 0;
    let start = out.len();
    for (index, word) in line.split(' ').enumerate() {
        let length = self::width(word);
        let gap = usize::from(index > 0);
        let is_blank = out[start..].trim_start_matches(' ').is_empty();
        let is_full = width + gap + length > columns && length > 0;
        if is_full && (width > indent.len() || is_blank || indent.len() + length > columns) {
            out.truncate(start.max(out.trim_end_matches(' ').len()));
            if !is_blank {
                out.push('\n');
            }
            width = indent.len().min(columns.saturating_sub(length));
            out.push_str(&indent[..width]);
        } else {
            out.push_str(&" "[..gap]);
            width += gap;
        }
        out.push_str(word);
        width += length;
    }
    out.push('\n');
}

/// Returns where the text after the last gap of two spaces or more begins, in the left half of the line; else a little more than
/// the line's own indentation.
fn last_column(line: &str, columns: usize) -> usize {
    let own = line.len() - line.trim_start_matches(' ').len();
    let mut last = None;
    let mut spaces = 0;
    let mut place = 0;
    for character in line.chars() {
        if place >= columns / 2 {
            break;
        }
        let here = place;
        place += character.width().unwrap_or(0);
        if character == ' ' {
            spaces += 1;
            continue;
        }
        if spaces >= 2 && here > own {
            last = Some(here);
        }
        spaces = 0;
    }
    last.unwrap_or(own + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_folded_below_their_last_column_and_short_ones_stay() {
        let text = "short\n  name   one two three four\nplain words that go on and on\n";
        assert_eq!(
            fold(text, 20),
            "short\n  name   one two\n         three four\nplain words that go\n  on and on\n"
        );
    }

    #[test]
    fn columns_are_counted_and_not_characters() {
        assert_eq!(width("包e\u{301}"), 3);
        assert_eq!(pad("包", 4), "包  ");
        assert_eq!(
            (cut("包包包包", 7), cut("包包", 4)),
            ("包包...".into(), "包包".into())
        );
        assert_eq!(
            fold("包包包  一二三 四五六 e\u{301}e\u{301} x\n", 20),
            "包包包  一二三\n        四五六 e\u{301}e\u{301} x\n"
        );
    }

    #[test]
    fn a_word_that_fits_nowhere_is_left_whole_in_the_first_column() {
        let text = "     https://r.example/a/long/path\nsee https://r.example/a/long/path there\n";
        assert_eq!(
            fold(text, 20),
            "https://r.example/a/long/path\nsee\nhttps://r.example/a/long/path\n  there\n"
        );
    }

    #[test]
    fn a_word_that_does_not_fit_below_its_column_moves_to_the_left() {
        let text = "base   /etc/systemd/x.conf and\n        /etc/systemd/x.conf\n    write /etc/systemd/x.conf (0644)\n";
        assert_eq!(
            fold(text, 20),
            "base\n /etc/systemd/x.conf\n       and\n /etc/systemd/x.conf\n    write\n /etc/systemd/x.conf\n      (0644)\n"
        );
    }

    #[test]
    fn folding_loses_no_word_and_leaves_no_line_too_long() {
        let text = "error    rule  one two three, four (five) six seven eight nine ten\n  hint: try this or that\n";
        let folded = fold(text, 24);
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(text), words(&folded));
        assert!(folded.lines().all(|line| width(line) <= 24), "{folded}");
    }
}
