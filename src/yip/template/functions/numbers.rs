//! Arithmetic, conversion, and lists of numbers.

use super::super::value::Value;
use super::{Args, Fault, Outcome};

/// The longest list of numbers that is made.
const MAX_ITEMS: i64 = 1_000_000;

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "add" => fold(args, 0, 0, i64::wrapping_add),
        "mul" => args
            .at_least(1)
            .and_then(|()| fold(args, 0, 1, i64::wrapping_mul)),
        "sub" => pair(args, |a, b| Ok(a.wrapping_sub(b))),
        "div" => pair(args, |a, b| {
            a.checked_div(b)
                .ok_or_else(|| "integer divide by zero".into())
        }),
        "mod" => pair(args, |a, b| {
            a.checked_rem(b)
                .ok_or_else(|| "integer divide by zero".into())
        }),
        "max" | "biggest" => args
            .at_least(1)
            .and_then(|()| fold(args, 0, i64::MIN, i64::max)),
        "min" => args
            .at_least(1)
            .and_then(|()| fold(args, 0, i64::MAX, i64::min)),
        "add1" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Int(to_int(args.any(0)?).wrapping_add(1)))),
        "floor" => float(args, f64::floor),
        "ceil" => float(args, f64::ceil),
        "int" | "int64" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Int(to_int(args.any(0)?)))),
        "float64" => float(args, |number| number),
        "atoi" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Int(args.text(0)?.parse().unwrap_or(0)))),
        "toDecimal" => to_decimal(args),
        "until" => args.exactly(1).and_then(|()| until(0, args.int(0)?, 1)),
        "untilStep" => args
            .exactly(3)
            .and_then(|()| until(args.int(0)?, args.int(1)?, args.int(2)?)),
        "seq" => seq(args),
        _ => return None,
    })
}

fn fold(args: &Args, from: usize, start: i64, combine: impl Fn(i64, i64) -> i64) -> Outcome {
    Ok(Value::Int(
        args.from(from).iter().map(to_int).fold(start, combine),
    ))
}

fn pair(args: &Args, combine: impl Fn(i64, i64) -> Result<i64, Fault>) -> Outcome {
    args.exactly(2)?;
    combine(to_int(args.any(0)?), to_int(args.any(1)?)).map(Value::Int)
}

fn float(args: &Args, change: impl Fn(f64) -> f64) -> Outcome {
    args.exactly(1)?;
    Ok(Value::Float(change(to_float(args.any(0)?))))
}

/// Makes a number with a point of anything: what is none is 0.
pub(super) fn to_float(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        Value::Int(number) => *number as f64,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Text(text) => text.parse().unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Makes an integer of anything: what is none is 0.
fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        // Towards zero, and never out of range.
        Value::Float(number) => *number as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => {
            // `1.00` is a whole number, `1.5` is none.
            let whole = text
                .rsplit_once('.')
                .filter(|(_, zeros)| !zeros.is_empty() && zeros.bytes().all(|digit| digit == b'0'));
            let digits = whole.map_or(text.as_str(), |(digits, _)| digits);
            crate::yip::fields::integer(digits).unwrap_or(0)
        }
        _ => 0,
    }
}

fn to_decimal(args: &Args) -> Outcome {
    args.exactly(1)?;
    let digits = args.any(0)?.shown();
    Ok(Value::Int(i64::from_str_radix(&digits, 8).unwrap_or(0)))
}

fn until(start: i64, stop: i64, step: i64) -> Outcome {
    // A single bound may lie below zero: then it counts down.
    let step = if start == 0 && stop < 0 && step == 1 {
        -1
    } else {
        step
    };
    if step == 0 {
        return Ok(Value::List(Vec::new()));
    }
    let mut out = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if out.len() as i64 >= MAX_ITEMS {
            return Err(format!("a list of more than {MAX_ITEMS} numbers").into());
        }
        out.push(Value::Int(at));
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(Value::List(out))
}

/// Writes numbers from the first to the last, the last included.
fn seq(args: &Args) -> Outcome {
    let number = |index| args.int(index);
    let (start, step, end) = match args.from(0).len() {
        0 => return Ok(Value::text("")),
        1 => {
            let end = number(0)?;
            (1, if end < 1 { -1 } else { 1 }, end)
        }
        2 => {
            let (start, end) = (number(0)?, number(1)?);
            (start, if end < start { -1 } else { 1 }, end)
        }
        3 => {
            let (start, step, end) = (number(0)?, number(1)?, number(2)?);
            if step == 0 || (step > 0 && end < start) || (step < 0 && end > start) {
                return Ok(Value::text(""));
            }
            (start, step, end)
        }
        _ => return Ok(Value::text("")),
    };
    let stop = end.saturating_add(step.signum());
    let Value::List(numbers) = until_exact(start, stop, step)? else {
        return Ok(Value::text(""));
    };
    let words: Vec<String> = numbers.iter().map(Value::shown).collect();
    Ok(Value::Text(words.join(" ")))
}

fn until_exact(start: i64, stop: i64, step: i64) -> Outcome {
    if start == 0 && stop < 0 && step == 1 {
        return Ok(Value::List(Vec::new()));
    }
    until(start, stop, step)
}
