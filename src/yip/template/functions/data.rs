//! Defaults, lists, mappings and JSON.

use std::collections::BTreeMap;

use super::super::value::Value;
use super::{Args, Fault, Outcome, text};

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    choosing(name, args)
        .or_else(|| lists(name, args))
        .or_else(|| mappings(name, args))
        .or_else(|| json(name, args))
}

fn choosing(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "default" => args.at_least(1).and_then(|()| {
            let given = args.from(1).first().filter(|value| value.is_true());
            Ok(given.unwrap_or(args.any(0)?).clone())
        }),
        "empty" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Bool(!args.any(0)?.is_true()))),
        "coalesce" => Ok(args
            .from(0)
            .iter()
            .find(|value| value.is_true())
            .cloned()
            .unwrap_or(Value::Nil)),
        "all" => Ok(Value::Bool(args.from(0).iter().all(Value::is_true))),
        "any" => Ok(Value::Bool(args.from(0).iter().any(Value::is_true))),
        "deepCopy" => args.exactly(1).and_then(|()| Ok(args.any(0)?.clone())),
        "ternary" => args
            .exactly(3)
            .and_then(|()| Ok(args.any(if args.bool(2)? { 0 } else { 1 })?.clone())),
        "fail" => args
            .exactly(1)
            .and_then(|()| Err(Fault::Failed(args.text(0)?.to_owned()))),
        _ => return None,
    })
}

fn lists(name: &str, args: &Args) -> Option<Outcome> {
    let list = |items: Vec<Value>| Ok(Value::List(items));
    Some(match name {
        "list" | "tuple" => list(args.from(0).to_vec()),
        "first" => args
            .exactly(1)
            .and_then(|()| Ok(args.list(0)?.first().cloned().unwrap_or(Value::Nil))),
        "last" => args
            .exactly(1)
            .and_then(|()| Ok(args.list(0)?.last().cloned().unwrap_or(Value::Nil))),
        "rest" => args
            .exactly(1)
            .and_then(|()| list(args.list(0)?.iter().skip(1).cloned().collect())),
        "initial" => args.exactly(1).and_then(|()| {
            let items = args.list(0)?;
            list(items[..items.len().saturating_sub(1)].to_vec())
        }),
        "append" | "push" => args.exactly(2).and_then(|()| {
            list(
                args.list(0)?
                    .iter()
                    .chain([args.any(1)?])
                    .cloned()
                    .collect(),
            )
        }),
        "prepend" => args.exactly(2).and_then(|()| {
            list(
                [args.any(1)?]
                    .into_iter()
                    .chain(args.list(0)?)
                    .cloned()
                    .collect(),
            )
        }),
        "concat" => concat(args),
        "reverse" => args
            .exactly(1)
            .and_then(|()| list(args.list(0)?.iter().rev().cloned().collect())),
        "uniq" => args.exactly(1).and_then(|()| {
            let mut out: Vec<Value> = Vec::new();
            for item in args.list(0)? {
                // Each is compared with all before it.
                args.charge(out.len() * size_of::<Value>())?;
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
            list(out)
        }),
        "without" => args.at_least(1).and_then(|()| {
            let unwanted = args.from(1);
            args.charge(args.list(0)?.len() * unwanted.len() * size_of::<Value>())?;
            list(
                args.list(0)?
                    .iter()
                    .filter(|item| !unwanted.contains(item))
                    .cloned()
                    .collect(),
            )
        }),
        "compact" => args.exactly(1).and_then(|()| {
            list(
                args.list(0)?
                    .iter()
                    .filter(|item| item.is_true())
                    .cloned()
                    .collect(),
            )
        }),
        "has" => args.exactly(2).and_then(|()| match args.any(1)? {
            Value::Nil => Ok(Value::Bool(false)),
            _ => Ok(Value::Bool(args.list(1)?.contains(args.any(0)?))),
        }),
        "slice" => slice(args),
        "chunk" => chunk(args),
        _ => return None,
    })
}

fn concat(args: &Args) -> Outcome {
    let mut out = Vec::new();
    for index in 0..args.from(0).len() {
        out.extend(args.list(index)?.iter().cloned());
    }
    Ok(Value::List(out))
}

fn slice(args: &Args) -> Outcome {
    args.at_least(1)?;
    let items = args.list(0)?;
    if items.is_empty() {
        return Ok(Value::Nil);
    }
    let bound = |index: usize, default: usize| match args.from(0).len() > index {
        true => {
            usize::try_from(args.int(index)?).map_err(|_| Fault::from("slice index out of range"))
        }
        false => Ok(default),
    };
    let (start, end) = (bound(1, 0)?, bound(2, items.len())?);
    match items.get(start..end) {
        Some(part) => Ok(Value::List(part.to_vec())),
        None => Err("slice index out of range".into()),
    }
}

fn chunk(args: &Args) -> Outcome {
    args.exactly(2)?;
    let size = usize::try_from(args.int(0)?).ok().filter(|size| *size > 0);
    let size = size.ok_or("a chunk holds at least one item")?;
    let parts = args.list(1)?.chunks(size);
    Ok(Value::List(
        parts.map(|part| Value::List(part.to_vec())).collect(),
    ))
}

fn mappings(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "dict" => Ok(dict(args)),
        "get" => args.exactly(2).and_then(|()| {
            let found = args.map(0)?.get(args.text(1)?);
            Ok(found.cloned().unwrap_or_else(|| Value::text("")))
        }),
        "hasKey" => args
            .exactly(2)
            .and_then(|()| Ok(Value::Bool(args.map(0)?.contains_key(args.text(1)?)))),
        "keys" => keys(args),
        "values" => args
            .exactly(1)
            .and_then(|()| Ok(Value::List(args.map(0)?.values().cloned().collect()))),
        "pluck" => pluck(args),
        "dig" => dig(args),
        "pick" => filter(args, true),
        "omit" => filter(args, false),
        _ => return None,
    })
}

fn dict(args: &Args) -> Value {
    let mut out = BTreeMap::new();
    for pair in args.from(0).chunks(2) {
        let value = pair.get(1).cloned().unwrap_or_else(|| Value::text(""));
        out.insert(pair[0].shown(), value);
    }
    Value::Map(out)
}

fn keys(args: &Args) -> Outcome {
    let mut out = Vec::new();
    for index in 0..args.from(0).len() {
        out.extend(text::keys(args.map(index)?));
    }
    Ok(Value::List(out))
}

fn pluck(args: &Args) -> Outcome {
    args.at_least(1)?;
    let key = args.text(0)?;
    let mut out = Vec::new();
    for index in 1..args.from(0).len() {
        out.extend(args.map(index)?.get(key).cloned());
    }
    Ok(Value::List(out))
}

/// Looks one key after the other up in mappings inside one another: keys, what it is otherwise, the mapping.
fn dig(args: &Args) -> Outcome {
    args.at_least(3)?;
    let last = args.from(0).len() - 1;
    let mut at = args.map(last)?;
    for index in 0..last - 1 {
        let Some(found) = at.get(args.text(index)?) else {
            return Ok(args.any(last - 1)?.clone());
        };
        match found {
            found if index == last - 2 => return Ok(found.clone()),
            Value::Map(entries) => at = entries,
            other => return Err(format!("{} is no dict to look into", other.kind()).into()),
        }
    }
    Ok(Value::Map(at.clone()))
}

fn filter(args: &Args, keep: bool) -> Outcome {
    args.at_least(1)?;
    let mut names = Vec::new();
    for index in 1..args.from(0).len() {
        names.push(args.text(index)?);
    }
    let entries = args
        .map(0)?
        .iter()
        .filter(|(key, _)| names.contains(&key.as_str()) == keep);
    Ok(Value::Map(
        entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    ))
}

fn json(name: &str, args: &Args) -> Option<Outcome> {
    let write = |pretty: bool, escape: bool| {
        args.exactly(1)?;
        let value = to_json(args.any(0)?)?;
        let text = if pretty {
            serde_json::to_string_pretty(&value)
        } else {
            serde_json::to_string(&value)
        };
        let text = text.map_err(|error| Fault::Failed(error.to_string()))?;
        Ok(Value::Text(if escape { escaped(&text) } else { text }))
    };
    Some(match name {
        "toJson" => write(false, true),
        "toPrettyJson" => write(true, true),
        "toRawJson" => write(false, false),
        "mustFromJson" => args.exactly(1).and_then(|()| {
            serde_json::from_str(args.text(0)?)
                .map(from_json)
                .map_err(|error| Fault::Failed(error.to_string()))
        }),
        "fromJson" => args.exactly(1).and_then(|()| {
            // What is no JSON gives nothing.
            Ok(serde_json::from_str(args.text(0)?).map_or(Value::Nil, from_json))
        }),
        _ => return None,
    })
}

/// Escapes what Go's encoder escapes so that HTML can hold it.
fn escaped(text: &str) -> String {
    text.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

fn to_json(value: &Value) -> Result<serde_json::Value, Fault> {
    Ok(match value {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            (*number as i64).into()
        }
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items
            .iter()
            .map(to_json)
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Value::Map(entries) => {
            let entries: Result<serde_json::Map<String, serde_json::Value>, Fault> = entries
                .iter()
                .map(|(key, value)| Ok((key.clone(), to_json(value)?)))
                .collect();
            entries?.into()
        }
        Value::Version(release) => release.version.to_string().into(),
        Value::Refused(what) => return Err(Fault::Unsupported(what.clone())),
    })
}

fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(0.0)),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key, from_json(value)))
                .collect(),
        ),
    }
}
