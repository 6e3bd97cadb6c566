//! `print`, `printf` and quoting, as Go's `fmt` does them.

use super::super::value::Value;
use super::{Fault, Outcome, fits};

/// Operands in a row; a space where neither neighbour is text.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&value.shown());
    }
    out
}

pub(super) fn println(values: &[Value]) -> String {
    let shown: Vec<String> = values.iter().map(Value::shown).collect();
    format!("{}\n", shown.join(" "))
}

/// What escaping functions make of their arguments: one text as it is, others printed.
pub(super) fn evaluated(values: &[Value]) -> String {
    match values {
        [Value::Text(text)] => text.clone(),
        values => print(values),
    }
}

#[derive(Debug, Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

pub(super) fn printf(format: &str, values: &[Value]) -> Outcome {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                ' ' => verb.space = true,
                '0' => verb.zero = true,
                '#' => verb.sharp = true,
                _ => break,
            }
            chars.next();
        }
        verb.width = number(&mut chars)?;
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let Some(letter) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{letter}(MISSING)"));
            continue;
        };
        let text = one(&verb, letter, value)?;
        out.push_str(&pad(&verb, text, value)?);
        fits(Some(out.len()))?;
    }
    if values.next().is_some() {
        return Err(Fault::Unsupported(
            "more arguments than its format has verbs".into(),
        ));
    }
    Ok(Value::Text(out))
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, Fault> {
    let mut found = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        let so_far: usize = found.unwrap_or(0);
        let next = so_far.saturating_mul(10).saturating_add(digit as usize);
        fits(Some(next))?;
        found = Some(next);
        chars.next();
    }
    Ok(found)
}

fn one(verb: &Verb, letter: char, value: &Value) -> Result<String, Fault> {
    let cut = |text: &str| match verb.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let unsupported = || {
        Err(Fault::Unsupported(format!(
            "`%{letter}` for {} is not available",
            value.kind()
        )))
    };
    match (letter, value) {
        ('v', Value::Text(text)) if !verb.sharp && !verb.plus => Ok(cut(text)),
        ('v', Value::Int(number)) if !verb.sharp => Ok(signed(verb, *number)),
        ('v', value) if !verb.sharp && !verb.plus && verb.precision.is_none() => Ok(value.shown()),
        ('s', Value::Text(text)) => Ok(cut(text)),
        ('s', Value::Version(_)) if verb.precision.is_none() => Ok(value.shown()),
        ('q', Value::Text(text)) if !verb.sharp && !verb.plus => Ok(quoted(&cut(text))),
        ('d', Value::Int(number)) if verb.precision.is_none() => Ok(signed(verb, *number)),
        ('x', Value::Int(number)) if *number >= 0 => {
            Ok(format!("{}{number:x}", if verb.sharp { "0x" } else { "" }))
        }
        ('X', Value::Int(number)) if *number >= 0 => {
            Ok(format!("{}{number:X}", if verb.sharp { "0X" } else { "" }))
        }
        ('o', Value::Int(number)) if *number >= 0 => {
            Ok(format!("{}{number:o}", if verb.sharp { "0" } else { "" }))
        }
        ('b', Value::Int(number)) if *number >= 0 && !verb.sharp => Ok(format!("{number:b}")),
        ('c', Value::Int(number)) => Ok(u32::try_from(*number)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or('\u{fffd}')
            .to_string()),
        ('x', Value::Text(text)) if !verb.sharp && !verb.space && verb.precision.is_none() => {
            Ok(text.bytes().map(|byte| format!("{byte:02x}")).collect())
        }
        ('t', Value::Bool(value)) => Ok(value.to_string()),
        ('f' | 'F', Value::Float(number)) => {
            let text = format!("{:.*}", verb.precision.unwrap_or(6).min(1000), number.abs());
            let sign = match () {
                () if number.is_sign_negative() => "-",
                () if verb.plus => "+",
                () if verb.space => " ",
                () => "",
            };
            Ok(format!("{sign}{text}"))
        }
        _ => unsupported(),
    }
}

fn signed(verb: &Verb, number: i64) -> String {
    let sign = match () {
        () if number < 0 => "-",
        () if verb.plus => "+",
        () if verb.space => " ",
        () => "",
    };
    format!("{sign}{}", number.unsigned_abs())
}

/// Widens to the wanted number of characters; zeros go behind the sign of a number.
fn pad(verb: &Verb, text: String, value: &Value) -> Result<String, Fault> {
    let have = text.chars().count();
    let Some(width) = verb.width.filter(|width| *width > have) else {
        return Ok(text);
    };
    let more = width - have;
    if verb.minus {
        return Ok(format!("{text}{}", " ".repeat(more)));
    }
    if !verb.zero {
        return Ok(format!("{}{text}", " ".repeat(more)));
    }
    match value {
        Value::Int(_) | Value::Float(_) => {
            let digits = text.trim_start_matches(['-', '+', ' ']);
            let sign = &text[..text.len() - digits.len()];
            Ok(format!("{sign}{}{digits}", "0".repeat(more)))
        }
        Value::Text(_) => Ok(format!("{}{text}", "0".repeat(more))),
        _ => Err(Fault::Unsupported(
            "the flag `0` for such a value is not available".into(),
        )),
    }
}

/// Returns whether a literal shows the character itself.
pub(super) fn is_printable(c: char) -> bool {
    !(c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}')
}

/// Writes a text as a Go string literal.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if !is_printable(c) => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
