//! Splits a template into text and the words of its actions.
//!
//! Spec: Go `text/template`, "Text and spaces" and "Actions".

use super::Failure;

/// A word of an action, with the line it stands on, counted from 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: Kind,
    /// Whether white space stands before it: `.a .b` are two operands, `.a.b` is one.
    pub(super) spaced: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside actions.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A name, or a keyword.
    Name(String),
    /// `.name`
    Field(String),
    /// `.` alone.
    Dot,
    /// `$` or `$name`, without the dollar.
    Variable(String),
    Quoted(String),
    Int(i64),
    Float(f64),
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `(`
    Left,
    /// `)`
    Right,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

pub(super) fn lex(template: &str) -> Result<Vec<Token>, Failure> {
    let mut lexer = Lexer {
        rest: template,
        line: 0,
        tokens: Vec::new(),
    };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn push(&mut self, kind: Kind, spaced: bool) {
        self.tokens.push(Token {
            line: self.line,
            kind,
            spaced,
        });
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::not_a_template(self.line, message))
    }

    /// Goes on by `bytes`, counting lines.
    fn skip(&mut self, bytes: usize) -> &'a str {
        let (done, rest) = self.rest.split_at(bytes);
        self.line += done.matches('\n').count();
        self.rest = rest;
        done
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut trim = false;
        loop {
            let Some(at) = self.rest.find("{{") else {
                self.text(self.rest.len(), trim, false);
                return Ok(());
            };
            let inside = &self.rest[at + 2..];
            let marked = inside.starts_with('-') && inside[1..].starts_with(is_space);
            self.text(at, trim, marked);
            self.skip(2 + usize::from(marked));
            trim = self.action()?;
        }
    }

    fn text(&mut self, bytes: usize, trim_left: bool, trim_right: bool) {
        let line = self.line;
        let text = self.skip(bytes);
        let text = if trim_left {
            text.trim_start_matches(is_space)
        } else {
            text
        };
        let text = if trim_right {
            text.trim_end_matches(is_space)
        } else {
            text
        };
        if !text.is_empty() {
            self.tokens.push(Token {
                line,
                kind: Kind::Text(text.to_owned()),
                spaced: false,
            });
        }
    }

    /// Reads up to and with `}}`; returns whether the text after it is trimmed.
    fn action(&mut self) -> Result<bool, Failure> {
        let blank = self.rest.len() - self.rest.trim_start_matches(is_space).len();
        // A comment stands directly behind the mark, or behind the trim mark and its blank.
        if self.rest[blank..].starts_with("/*") && blank <= 1 {
            self.skip(blank);
            return self.comment();
        }
        self.push(Kind::Open, false);
        let mut depth = 0_usize;
        loop {
            let spaces = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            let spaced = spaces > 0;
            if spaced && self.rest[spaces..].starts_with("-}}") {
                self.skip(spaces + 3);
                self.close(depth)?;
                return Ok(true);
            }
            self.skip(spaces);
            if self.rest.starts_with("}}") {
                self.skip(2);
                self.close(depth)?;
                return Ok(false);
            }
            let Some(first) = self.rest.chars().next() else {
                return self.fail("unclosed action");
            };
            match first {
                '(' => {
                    depth += 1;
                    self.single(Kind::Left, spaced);
                }
                ')' => {
                    if depth == 0 {
                        return self.fail("unexpected right paren");
                    }
                    depth -= 1;
                    self.single(Kind::Right, spaced);
                }
                '|' => self.single(Kind::Pipe, spaced),
                ',' => self.single(Kind::Comma, spaced),
                '=' => self.single(Kind::Assign, spaced),
                ':' => {
                    if !self.rest.starts_with(":=") {
                        return self.fail("expected :=");
                    }
                    self.skip(2);
                    self.push(Kind::Declare, spaced);
                }
                '"' => self.quoted(spaced)?,
                '`' => self.raw(spaced)?,
                '\'' => self.character(spaced)?,
                '.' if !self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    let name = self.name_at(1);
                    self.skip(1 + name.len());
                    if name.is_empty() {
                        self.push(Kind::Dot, spaced);
                    } else {
                        self.push(Kind::Field(name), spaced);
                    }
                    self.end_of_word()?;
                }
                '$' => {
                    let name = self.name_at(1);
                    self.skip(1 + name.len());
                    self.push(Kind::Variable(name), spaced);
                    self.end_of_word()?;
                }
                '+' | '-' | '.' | '0'..='9' => self.number(spaced)?,
                c if c == '_' || c.is_alphanumeric() => {
                    let name = self.name_at(0);
                    self.skip(name.len());
                    self.push(Kind::Name(name), spaced);
                    self.end_of_word()?;
                }
                c => return self.fail(format!("unexpected character {c:?} in an action")),
            }
        }
    }

    fn single(&mut self, kind: Kind, spaced: bool) {
        self.skip(1);
        self.push(kind, spaced);
    }

    fn close(&mut self, depth: usize) -> Result<(), Failure> {
        if depth > 0 {
            return self.fail("unclosed left paren");
        }
        self.push(Kind::Close, false);
        Ok(())
    }

    fn comment(&mut self) -> Result<bool, Failure> {
        let Some(end) = self.rest.find("*/") else {
            return self.fail("unclosed comment");
        };
        let after = &self.rest[end + 2..];
        let spaces = after.len() - after.trim_start_matches(is_space).len();
        if after.starts_with("}}") {
            self.skip(end + 4);
            Ok(false)
        } else if spaces > 0 && after[spaces..].starts_with("-}}") {
            self.skip(end + 2 + spaces + 3);
            Ok(true)
        } else {
            self.fail("a comment ends before its action does")
        }
    }

    fn name_at(&self, start: usize) -> String {
        self.rest[start..]
            .chars()
            .take_while(|c| *c == '_' || c.is_alphanumeric())
            .collect()
    }

    /// A word ends where a blank, the action or one of a few marks begins.
    fn end_of_word(&self) -> Result<(), Failure> {
        let ends = self.rest.is_empty()
            || self.rest.starts_with("}}")
            || self
                .rest
                .starts_with(|c: char| is_space(c) || ".,|:)(=".contains(c));
        if ends {
            Ok(())
        } else {
            self.fail("bad character in a name")
        }
    }

    fn quoted(&mut self, spaced: bool) -> Result<(), Failure> {
        let mut out = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.skip(1 + at + 1);
                    self.push(Kind::Quoted(out), spaced);
                    return Ok(());
                }
                '\n' => break,
                '\\' => match escape(&mut chars, '"') {
                    Some(c) => out.push(c),
                    None => return self.fail("a string holds an escape that does not exist"),
                },
                c => out.push(c),
            }
        }
        self.fail("unterminated quoted string")
    }

    fn raw(&mut self, spaced: bool) -> Result<(), Failure> {
        let Some(end) = self.rest[1..].find('`') else {
            return self.fail("unterminated raw quoted string");
        };
        let text = self.rest[1..=end].replace('\r', "");
        self.push(Kind::Quoted(text), spaced);
        self.skip(end + 2);
        Ok(())
    }

    fn character(&mut self, spaced: bool) -> Result<(), Failure> {
        let mut chars = self.rest[1..].char_indices();
        let found = match chars.next() {
            Some((_, '\\')) => escape(&mut chars, '\''),
            Some((_, '\'' | '\n')) | None => None,
            Some((_, c)) => Some(c),
        };
        match (found, chars.next()) {
            (Some(c), Some((end, '\''))) => {
                self.skip(1 + end + 1);
                self.push(Kind::Int(i64::from(u32::from(c))), spaced);
                Ok(())
            }
            _ => self.fail("malformed character constant"),
        }
    }

    fn number(&mut self, spaced: bool) -> Result<(), Failure> {
        let length = self
            .rest
            .char_indices()
            .find(|(at, c)| {
                let sign =
                    "+-".contains(*c) && (*at == 0 || self.rest[..*at].ends_with(['e', 'E', 'p']));
                !(sign || c.is_ascii_alphanumeric() || "._".contains(*c))
            })
            .map_or(self.rest.len(), |(at, _)| at);
        let text = self.skip(length);
        let unsigned = text.trim_start_matches(['+', '-']);
        let kind = crate::yip::fields::integer(text)
            .map(Kind::Int)
            .or_else(|| {
                let is_decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
                let digits = text.replace('_', "");
                digits.parse().ok().filter(|_| is_decimal).map(Kind::Float)
            });
        match kind {
            Some(kind) => {
                self.push(kind, spaced);
                self.end_of_word()
            }
            None => self.fail(format!("bad number syntax: {text:?}")),
        }
    }
}

/// Reads what follows a backslash; `None` where that is no escape, or one of a byte that is no character.
fn escape(chars: &mut std::str::CharIndices<'_>, quote: char) -> Option<char> {
    let (_, c) = chars.next()?;
    let mut digits = |count: usize, radix: u32, start: u32, most: u32| {
        let mut number = start;
        for _ in 0..count {
            let digit = chars.next()?.1.to_digit(radix)?;
            number = number.checked_mul(radix)?.checked_add(digit)?;
        }
        char::from_u32(number).filter(|_| number <= most)
    };
    match c {
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        '\\' => Some('\\'),
        'x' => digits(2, 16, 0, 0x7f),
        'u' => digits(4, 16, 0, u32::MAX),
        'U' => digits(8, 16, 0, u32::MAX),
        '0'..='7' => digits(2, 8, c.to_digit(8)?, 0x7f),
        c => (c == quote).then_some(c),
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
