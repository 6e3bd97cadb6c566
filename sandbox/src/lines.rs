//! Cuts a command's output into lines, and makes a line fit to print.

use std::collections::VecDeque;

/// A longer line is passed on in pieces of this size, so that memory stays bounded.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024;

/// How many lines of a failed command go into its error.
const TAIL_LINES: usize = 30;

/// Collects bytes until a line is whole.
///
/// A carriage return starts the line over, as on a terminal: of a progress display only its last state is a line.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    pending: Vec<u8>,
    /// The last byte was a carriage return: what `pending` holds goes unless a line feed follows.
    returned: bool,
}

impl LineBuffer {
    /// Takes `bytes` and passes each line that is whole to `on_line`, without its end.
    pub(crate) fn push(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&[u8])) {
        for &byte in bytes {
            match byte {
                b'\n' => self.finish(on_line),
                b'\r' => self.returned = true,
                byte => {
                    if std::mem::take(&mut self.returned) {
                        self.pending.clear();
                    }
                    self.pending.push(byte);
                    if self.pending.len() == MAX_LINE_BYTES {
                        self.finish(on_line);
                    }
                }
            }
        }
    }

    /// Passes on what is left when the output ends without a line feed.
    pub(crate) fn end(&mut self, on_line: &mut dyn FnMut(&[u8])) {
        if !self.pending.is_empty() {
            self.finish(on_line);
        }
    }

    fn finish(&mut self, on_line: &mut dyn FnMut(&[u8])) {
        on_line(&self.pending);
        self.pending.clear();
        self.returned = false;
    }
}

/// The last lines of a command.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<Vec<u8>>);

impl Tail {
    pub(crate) fn push(&mut self, line: &[u8]) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_vec());
    }

    /// Returns them, fit to print.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0.iter().map(|line| printable(line)).collect()
    }
}

/// Returns `line` as text without anything that acts on a terminal.
///
/// Escape sequences are left out, tabs are kept, other control characters and invalid UTF-8 become U+FFFD.
pub fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut printable = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\t' => printable.push('\t'),
            control if control.is_control() => printable.push(char::REPLACEMENT_CHARACTER),
            other => printable.push(other),
        }
    }
    printable
}

/// Skips the rest of an escape sequence (ECMA-48): CSI up to its final byte, OSC up to its end, two characters otherwise.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            while characters
                .next_if(|c| matches!(c, '\u{20}'..='\u{3f}'))
                .is_some()
            {}
            characters.next_if(|c| matches!(c, '\u{40}'..='\u{7e}'));
        }
        Some(']') => {
            while characters
                .next_if(|c| !matches!(c, '\u{7}' | '\u{1b}'))
                .is_some()
            {}
            if characters.next() == Some('\u{1b}') {
                characters.next_if_eq(&'\\');
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        let mut on_line = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        for piece in pieces {
            buffer.push(piece, &mut on_line);
        }
        buffer.end(&mut on_line);
        lines
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        assert_eq!(
            lines(&[b"one\ntw", b"o\n\nthr", b"ee"]),
            ["one", "two", "", "three"]
        );
    }

    #[test]
    fn of_a_progress_display_the_last_state_is_a_line() {
        assert_eq!(lines(&[b"10%\r50%\r", b"100%\ndone\r\n"]), ["100%", "done"]);
        assert_eq!(lines(&[b"10%\r50%\r"]), ["50%"]);
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        let pieces = lines(&[&long]);
        assert_eq!(
            pieces.iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE_BYTES, 1]
        );
    }

    #[test]
    fn nothing_printable_acts_on_a_terminal() {
        assert_eq!(
            printable(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\x1b]8;;u\x1b\\y\x1b(\xff\x00\tz"),
            "red xy\u{fffd}\u{fffd}\tz"
        );
        assert_eq!(printable(b"cut \x1b["), "cut ");
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(number.to_string().as_bytes());
        }
        let lines = tail.into_lines();
        assert_eq!(
            (lines.len(), lines[0].as_str(), lines[29].as_str()),
            (30, "70", "99")
        );
    }
}
