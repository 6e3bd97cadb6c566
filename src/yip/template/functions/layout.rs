//! Text cut and folded to a width. Widths count bytes, as sprig's do.

use super::super::value::Value;
use super::{Args, Fault, Outcome, fits};

const DOTS: &str = "...";

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "abbrev" => args
            .exactly(2)
            .and_then(|()| abbreviated(args.text(1)?, 0, args.int(0)?)),
        "abbrevboth" => args
            .exactly(3)
            .and_then(|()| abbreviated(args.text(2)?, args.int(0)?, args.int(1)?)),
        "wrap" => args
            .exactly(2)
            .and_then(|()| wrapped(args.text(1)?, args.int(0)?, "\n", false)),
        "wrapWith" => args
            .exactly(3)
            .and_then(|()| wrapped(args.text(2)?, args.int(0)?, args.text(1)?, true)),
        "swapcase" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Text(swapped(args.text(0)?)))),
        _ => return None,
    })
}

/// Cuts to `width`, dots included: what is left begins about `offset`.
fn abbreviated(text: &str, offset: i64, width: i64) -> Outcome {
    let whole = || Ok(Value::text(text));
    if width < 4 || (offset > 0 && width < 7) {
        return whole();
    }
    let (Ok(width), Ok(offset)) = (usize::try_from(width), usize::try_from(offset.max(0))) else {
        return whole();
    };
    if text.len() <= width {
        return whole();
    }
    let room = width - DOTS.len();
    let offset = offset.min(text.len() - room);
    Ok(Value::Text(if offset <= 4 {
        format!("{}{DOTS}", piece(text, 0, room)?)
    } else if offset + room < text.len() {
        let middle = piece(text, offset, offset + room - DOTS.len())?;
        format!("{DOTS}{middle}{DOTS}")
    } else {
        format!("{DOTS}{}", piece(text, text.len() - room, text.len())?)
    }))
}

/// Breaks lines at spaces so that none is longer than `width`; longer words are cut only where `cut` says so.
fn wrapped(text: &str, width: i64, newline: &str, cut: bool) -> Outcome {
    let newline = if newline.is_empty() { "\n" } else { newline };
    let width = usize::try_from(width.max(1)).unwrap_or(usize::MAX);
    let breaks = text.len().div_ceil(width).saturating_add(text.len());
    fits(breaks.checked_mul(newline.len().max(1)))?;
    let mut out = String::new();
    let mut at = 0;
    while text.len() - at > width {
        if text.as_bytes()[at] == b' ' {
            at += 1;
            continue;
        }
        let line = &text.as_bytes()[at..=at + width];
        let end = line.iter().rposition(|byte| *byte == b' ');
        let (end, next) = match end {
            Some(end) => (at + end, at + end + 1),
            None if cut => (at + width, at + width),
            None => {
                let rest = &text.as_bytes()[at + width..];
                match rest.iter().position(|byte| *byte == b' ') {
                    Some(more) => (at + width + more, at + width + more + 1),
                    None => break,
                }
            }
        };
        out.push_str(piece(text, at, end)?);
        out.push_str(newline);
        at = next;
    }
    out.push_str(piece(text, at, text.len())?);
    Ok(Value::Text(out))
}

fn piece(text: &str, start: usize, end: usize) -> Result<&str, Fault> {
    text.get(start..end)
        .ok_or_else(|| Fault::Unsupported("it cuts through a character of several bytes".into()))
}

/// Turns capitals small and small letters into capitals.
fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}
