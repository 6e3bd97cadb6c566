//! The functions that every Go template has.

use super::super::value::Value;
use super::{Args, Fault, Outcome, format};
use std::cmp::Ordering;

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "not" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Bool(!args.any(0)?.is_true()))),
        "eq" => eq(args),
        "ne" => args
            .exactly(2)
            .and_then(|()| Ok(Value::Bool(!args.any(0)?.equals(args.any(1)?)?))),
        "lt" => compare(args, |order| order == Ordering::Less),
        "le" => compare(args, |order| order != Ordering::Greater),
        "gt" => compare(args, |order| order == Ordering::Greater),
        "ge" => compare(args, |order| order != Ordering::Less),
        "len" => len(args),
        "index" => index(args),
        "print" => Ok(Value::Text(format::print(args.from(0)))),
        "println" => Ok(Value::Text(format::println(args.from(0)))),
        "printf" => args
            .at_least(1)
            .and_then(|()| format::printf(args.text(0)?, args.from(1))),
        "html" => Ok(Value::Text(html(&format::evaluated(args.from(0))))),
        "js" => Ok(Value::Text(js(&format::evaluated(args.from(0))))),
        "urlquery" => Ok(Value::Text(urlquery(&format::evaluated(args.from(0))))),
        _ => return None,
    })
}

fn eq(args: &Args) -> Outcome {
    args.at_least(2)?;
    for other in args.from(1) {
        if args.any(0)?.equals(other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn compare(args: &Args, holds: impl Fn(Ordering) -> bool) -> Outcome {
    args.exactly(2)?;
    let order = args.any(0)?.order(args.any(1)?)?;
    Ok(Value::Bool(holds(order)))
}

fn len(args: &Args) -> Outcome {
    args.exactly(1)?;
    let length = match args.any(0)? {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        other => return Err(format!("len of type {}", other.kind()).into()),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(args: &Args) -> Outcome {
    args.at_least(1)?;
    let mut value = args.any(0)?.clone();
    for key in args.from(1) {
        value = match (&value, key) {
            (Value::List(items), Value::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(|| Fault::Failed(format!("index out of range: {at}")))?,
            (Value::Text(text), Value::Int(at)) => usize::try_from(*at)
                .ok()
                .and_then(|at| text.as_bytes().get(at))
                .map(|byte| Value::Int(i64::from(*byte)))
                .ok_or_else(|| Fault::Failed(format!("index out of range: {at}")))?,
            (Value::Map(entries), Value::Text(key)) => {
                entries.get(key).cloned().unwrap_or(Value::Nil)
            }
            (Value::Nil, _) => return Err("index of untyped nil".into()),
            (value, key) => {
                return Err(format!("cannot index {} with {}", value.kind(), key.kind()).into());
            }
        };
    }
    Ok(value)
}

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c if c.is_ascii() || format::is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
