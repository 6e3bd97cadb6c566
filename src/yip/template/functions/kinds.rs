//! What kind of thing a value is, in Go's names.
//!
//! Integers here have one width and lists one type of item; where Go tells them apart, the answer is refused.

use super::super::value::Value;
use super::{Args, Fault, Outcome};

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "kindOf" => args
            .exactly(1)
            .and_then(|()| Ok(Value::text(kind(args.any(0)?)?))),
        "kindIs" => args.exactly(2).and_then(|()| is(args, kind, "int")),
        "typeOf" => args
            .exactly(1)
            .and_then(|()| Ok(Value::text(type_of(args.any(0)?)?))),
        "typeIs" | "typeIsLike" => args.exactly(2).and_then(|()| {
            is(
                args,
                type_of,
                match args.any(1)? {
                    Value::List(_) => "[",
                    Value::Map(_) => "map[",
                    _ => "int",
                },
            )
        }),
        _ => return None,
    })
}

/// Compares names; a value whose name is not known is at least none whose names begin otherwise than `start`.
fn is(args: &Args, name: fn(&Value) -> Result<&'static str, Fault>, start: &str) -> Outcome {
    let wanted = args.text(0)?;
    match name(args.any(1)?) {
        Ok(name) => Ok(Value::Bool(name == wanted)),
        Err(_) if !wanted.starts_with(start) => Ok(Value::Bool(false)),
        Err(fault) => Err(fault),
    }
}

fn kind(value: &Value) -> Result<&'static str, Fault> {
    Ok(match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => return Err(unknown("an integer")),
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Version(_) => "ptr",
        Value::Refused(what) => return Err(Fault::Unsupported(what.clone())),
    })
}

fn type_of(value: &Value) -> Result<&'static str, Fault> {
    Ok(match value {
        Value::Nil => "<nil>",
        Value::List(_) => return Err(unknown("a list")),
        Value::Map(_) => return Err(unknown("a mapping")),
        Value::Version(_) => "*semver.Version",
        value => return kind(value),
    })
}

fn unknown(what: &str) -> Fault {
    Fault::Unsupported(format!("the type of {what} is not known here"))
}
