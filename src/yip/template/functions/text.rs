//! Text: cases, cutting, joining, regular expressions, paths.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::super::value::Value;
use super::{Args, Fault, Outcome, fits, format};

/// So many bytes are searched for a pattern while one is copied.
const SEARCHED_AT_ONCE: usize = 2;
/// What compiling a pattern is worth, in bytes copied.
const COMPILED: usize = 16 << 10;

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    cases(name, args)
        .or_else(|| cutting(name, args))
        .or_else(|| joining(name, args))
        .or_else(|| searching(name, args))
        .or_else(|| paths(name, args))
}

fn one(args: &Args, change: impl FnOnce(&str) -> String) -> Outcome {
    args.exactly(1)?;
    Ok(Value::Text(change(args.text(0)?)))
}

/// A function of two texts, the second of which is the one that is piped in.
fn two(args: &Args, change: impl FnOnce(&str, &str) -> Value) -> Outcome {
    args.exactly(2)?;
    Ok(change(args.text(0)?, args.text(1)?))
}

fn cases(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "hello" => args.exactly(0).map(|()| Value::text("Hello!")),
        "upper" => one(args, str::to_uppercase),
        "lower" => one(args, str::to_lowercase),
        "title" => one(args, |text| {
            words(text, is_go_separator, |c| c.to_uppercase().collect())
        }),
        "untitle" => one(args, |text| {
            words(text, char::is_whitespace, |c| c.to_lowercase().collect())
        }),
        "nospace" => one(args, |text| {
            text.chars().filter(|c| !c.is_whitespace()).collect()
        }),
        "initials" => one(args, |text| {
            text.split_whitespace()
                .filter_map(|word| word.chars().next())
                .collect()
        }),
        "trim" => one(args, |text| text.trim().to_owned()),
        "trimAll" | "trimall" => two(args, |set, text| {
            let set: BTreeSet<char> = set.chars().collect();
            Value::text(text.trim_matches(|c| set.contains(&c)))
        }),
        "trimSuffix" => two(args, |end, text| {
            Value::text(text.strip_suffix(end).unwrap_or(text))
        }),
        "trimPrefix" => two(args, |start, text| {
            Value::text(text.strip_prefix(start).unwrap_or(text))
        }),
        _ => return None,
    })
}

/// Changes the first letter of every word.
fn words(text: &str, is_gap: impl Fn(char) -> bool, change: impl Fn(char) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at_start = true;
    for c in text.chars() {
        if at_start {
            out.push_str(&change(c));
        } else {
            out.push(c);
        }
        at_start = is_gap(c);
    }
    out
}

fn is_go_separator(c: char) -> bool {
    if c.is_ascii() {
        !(c.is_ascii_alphanumeric() || c == '_')
    } else {
        c.is_whitespace()
    }
}

fn cutting(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "trunc" => args
            .exactly(2)
            .and_then(|()| trunc(args.int(0)?, args.text(1)?)),
        "substr" => args
            .exactly(3)
            .and_then(|()| substr(args.int(0)?, args.int(1)?, args.text(2)?)),
        "split" => two(args, |by, text| {
            let parts = pieces(text, by, None);
            let numbered = parts.into_iter().enumerate();
            Value::Map(
                numbered
                    .map(|(at, part)| (format!("_{at}"), Value::Text(part)))
                    .collect(),
            )
        }),
        "splitn" => args.exactly(3).and_then(|()| {
            let most = usize::try_from(args.int(1)?)
                .map_err(|_| Fault::Unsupported("a negative count is not available".into()))?;
            let parts = pieces(args.text(2)?, args.text(0)?, Some(most));
            let numbered = parts.into_iter().enumerate();
            Ok(Value::Map(
                numbered
                    .map(|(at, part)| (format!("_{at}"), Value::Text(part)))
                    .collect(),
            ))
        }),
        "splitList" => two(args, |by, text| {
            Value::List(
                pieces(text, by, None)
                    .into_iter()
                    .map(Value::Text)
                    .collect(),
            )
        }),
        _ => return None,
    })
}

/// Splits as Go does: by nothing means into characters.
fn pieces(text: &str, by: &str, most: Option<usize>) -> Vec<String> {
    if most == Some(0) {
        return Vec::new();
    }
    if by.is_empty() {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        if let Some(most) = most.filter(|most| *most < parts.len()) {
            let rest = parts.split_off(most - 1).concat();
            parts.push(rest);
        }
        return parts;
    }
    match most {
        Some(most) => text.splitn(most, by).map(str::to_owned).collect(),
        None => text.split(by).map(str::to_owned).collect(),
    }
}

fn trunc(count: i64, text: &str) -> Outcome {
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    if count < 0 && length.saturating_add(count) > 0 {
        return part(text, length + count, length);
    }
    if count >= 0 && length > count {
        return part(text, 0, count);
    }
    Ok(Value::text(text))
}

fn substr(start: i64, end: i64, text: &str) -> Outcome {
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    if start < 0 {
        return part(text, 0, end);
    }
    if end < 0 || end > length {
        return part(text, start, length);
    }
    part(text, start, end)
}

/// Cuts by bytes, which is what these functions count.
fn part(text: &str, start: i64, end: i64) -> Outcome {
    let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
        return Err("slice bounds out of range".into());
    };
    if start > end || end > text.len() {
        return Err("slice bounds out of range".into());
    }
    match text.get(start..end) {
        Some(part) => Ok(Value::text(part)),
        None => Err(Fault::Unsupported(
            "it cuts through a character of several bytes".into(),
        )),
    }
}

fn joining(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "repeat" => args.exactly(2).and_then(|()| {
            let count =
                usize::try_from(args.int(0)?).map_err(|_| Fault::from("negative Repeat count"))?;
            let text = args.text(1)?;
            fits(text.len().checked_mul(count))?;
            Ok(Value::Text(text.repeat(count)))
        }),
        "indent" => args
            .exactly(2)
            .and_then(|()| indent("", args.int(0)?, args.text(1)?)),
        "nindent" => args
            .exactly(2)
            .and_then(|()| indent("\n", args.int(0)?, args.text(1)?)),
        "replace" => args.exactly(3).and_then(|()| {
            let (old, new, text) = (args.text(0)?, args.text(1)?, args.text(2)?);
            let most = text
                .len()
                .checked_add(1)
                .and_then(|n| n.checked_mul(new.len()));
            fits(most.and_then(|n| n.checked_add(text.len())))?;
            Ok(Value::Text(text.replace(old, new)))
        }),
        "quote" => Ok(Value::Text(
            shown(args)
                .iter()
                .map(|text| format::quoted(text))
                .collect::<Vec<_>>()
                .join(" "),
        )),
        "squote" => Ok(Value::Text(
            shown(args)
                .iter()
                .map(|text| format!("'{text}'"))
                .collect::<Vec<_>>()
                .join(" "),
        )),
        "cat" => Ok(Value::Text(shown(args).join(" "))),
        "join" => args
            .exactly(2)
            .and_then(|()| join(args.text(0)?, &strings(args.any(1)?))),
        "plural" => args.exactly(3).and_then(|()| {
            Ok(Value::text(if args.int(2)? == 1 {
                args.text(0)?
            } else {
                args.text(1)?
            }))
        }),
        "toString" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Text(args.any(0)?.shown()))),
        "toStrings" => args.exactly(1).and_then(|()| {
            Ok(Value::List(
                strings(args.any(0)?).into_iter().map(Value::Text).collect(),
            ))
        }),
        "sortAlpha" => args.exactly(1).and_then(|()| {
            let mut list = strings(args.any(0)?);
            list.sort();
            Ok(Value::List(list.into_iter().map(Value::Text).collect()))
        }),
        _ => return None,
    })
}

fn join(gap: &str, parts: &[String]) -> Outcome {
    let gaps = gap.len().checked_mul(parts.len());
    let texts: usize = parts.iter().map(String::len).sum();
    fits(gaps.and_then(|gaps| gaps.checked_add(texts)))?;
    Ok(Value::Text(parts.join(gap)))
}

fn shown(args: &Args) -> Vec<String> {
    args.from(0)
        .iter()
        .filter(|value| **value != Value::Nil)
        .map(Value::shown)
        .collect()
}

/// Makes a list of texts: nothing is left out, anything else is a list of one.
pub(super) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::List(items) => items
            .iter()
            .filter(|item| **item != Value::Nil)
            .map(Value::shown)
            .collect(),
        Value::Nil => Vec::new(),
        other => vec![other.shown()],
    }
}

fn indent(first: &str, count: i64, text: &str) -> Outcome {
    let count = usize::try_from(count).map_err(|_| Fault::from("negative Repeat count"))?;
    let lines = text.matches('\n').count() + 1;
    fits(
        count
            .checked_mul(lines)
            .and_then(|more| more.checked_add(text.len())),
    )?;
    let pad = " ".repeat(count);
    Ok(Value::Text(format!(
        "{first}{pad}{}",
        text.replace('\n', &format!("\n{pad}"))
    )))
}

fn searching(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "contains" => two(args, |part, text| Value::Bool(text.contains(part))),
        "hasPrefix" => two(args, |start, text| Value::Bool(text.starts_with(start))),
        "hasSuffix" => two(args, |end, text| Value::Bool(text.ends_with(end))),
        "mustRegexMatch" => args.exactly(2).and_then(|()| {
            Ok(Value::Bool(
                pattern(args, args.text(0)?)?.is_match(args.text(1)?),
            ))
        }),
        "regexMatch" => args.exactly(2).and_then(|()| {
            let found = pattern(args, args.text(0)?)
                .map(|regex| args.text(1).map(|text| regex.is_match(text)));
            // A pattern that is none matches nothing.
            Ok(Value::Bool(found.unwrap_or(Ok(false))?))
        }),
        "regexFind" => args.exactly(2).and_then(|()| {
            let regex = pattern(args, args.text(0)?)?;
            Ok(Value::text(
                regex.find(args.text(1)?).map_or("", |found| found.as_str()),
            ))
        }),
        "regexFindAll" => args.exactly(3).and_then(|()| {
            let regex = pattern(args, args.text(0)?)?;
            let most = usize::try_from(args.int(2)?).unwrap_or(usize::MAX);
            let text = args.text(1)?;
            let mut all = Vec::new();
            for found in regex.find_iter(text).take(most) {
                searched(args, text, found.start())?;
                all.push(Value::text(found.as_str()));
            }
            Ok(Value::List(all))
        }),
        "regexReplaceAll" => args.exactly(3).and_then(|()| {
            let new = args.text(2)?;
            // Each `$` may stand for all that matched.
            let groups = new.matches('$').count();
            let most = |matched| groups.checked_mul(matched)?.checked_add(new.len());
            replaced(args, most, |found, out| found.expand(new, out))
        }),
        "regexReplaceAllLiteral" => args.exactly(3).and_then(|()| {
            let new = args.text(2)?;
            replaced(args, |_| Some(new.len()), |_, out| out.push_str(new))
        }),
        "regexSplit" => args.exactly(3).and_then(|()| {
            let regex = pattern(args, args.text(0)?)?;
            let most = usize::try_from(args.int(2)?).ok();
            let parts = split_by(args, &regex, args.text(1)?, most)?;
            Ok(Value::List(parts.into_iter().map(Value::text).collect()))
        }),
        "regexQuoteMeta" => one(args, |text| {
            let mut out = String::new();
            for c in text.chars() {
                if "\\.+*?()|[]{}^$".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
            out
        }),
        _ => return None,
    })
}

/// Replaces what matches; `most` says how long the text for a match of some length can be, in bytes.
fn replaced(
    args: &Args,
    most: impl Fn(usize) -> Option<usize>,
    write: impl Fn(&regex::Captures<'_>, &mut String),
) -> Outcome {
    let (regex, text) = (pattern(args, args.text(0)?)?, args.text(1)?);
    let (mut out, mut done) = (String::new(), 0);
    for found in regex.captures_iter(text) {
        let whole = found.get_match();
        searched(args, text, whole.start())?;
        out.push_str(&text[done..whole.start()]);
        fits(most(whole.len()).and_then(|more| more.checked_add(out.len())))?;
        write(&found, &mut out);
        done = whole.end();
    }
    out.push_str(&text[done..]);
    fits(Some(out.len()))?;
    Ok(Value::Text(out))
}

/// Counts a search that found something at `at`: it may have looked through all that follows.
fn searched(args: &Args, text: &str, at: usize) -> Result<(), Fault> {
    args.charge((text.len() - at) / SEARCHED_AT_ONCE)
}

/// Splits as Go does: what matches nothing divides characters, but neither starts nor ends the text.
fn split_by<'a>(
    args: &Args,
    regex: &Regex,
    text: &'a str,
    most: Option<usize>,
) -> Result<Vec<&'a str>, Fault> {
    if most == Some(0) {
        return Ok(Vec::new());
    }
    if text.is_empty() {
        return Ok(vec![""]);
    }
    let (mut out, mut start, mut end) = (Vec::new(), 0, 0);
    for found in regex.find_iter(text) {
        if most == Some(out.len() + 1) {
            break;
        }
        searched(args, text, found.start())?;
        end = found.start();
        if found.end() != 0 {
            out.push(&text[start..end]);
        }
        start = found.end();
    }
    if end != text.len() {
        out.push(&text[start..]);
    }
    Ok(out)
}

fn pattern(args: &Args, text: &str) -> Result<Regex, Fault> {
    args.charge(COMPILED)?;
    crate::yip::pattern::compile(text).map_err(Fault::Failed)
}

fn paths(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "base" | "osBase" => one(args, base),
        "dir" | "osDir" => one(args, |path| {
            clean(path.rfind('/').map_or("", |at| &path[..=at]))
        }),
        "ext" | "osExt" => one(args, |path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name.rfind('.')
                .map_or(String::new(), |at| name[at..].to_owned())
        }),
        "clean" | "osClean" => one(args, clean),
        "isAbs" | "osIsAbs" => args
            .exactly(1)
            .and_then(|()| Ok(Value::Bool(args.text(0)?.starts_with('/')))),
        _ => return None,
    })
}

fn base(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let bare = path.trim_end_matches('/');
    if bare.is_empty() {
        return "/".to_owned();
    }
    bare.rsplit('/').next().unwrap_or(bare).to_owned()
}

/// Writes a path in its shortest form, by words alone.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Sorted keys of what a mapping holds, for functions of mappings.
pub(super) fn keys(entries: &BTreeMap<String, Value>) -> Vec<Value> {
    entries
        .keys()
        .map(|key| Value::text(key.as_str()))
        .collect()
}
