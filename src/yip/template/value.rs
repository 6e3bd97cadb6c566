//! Values of a template, printed and compared as Go's templates do it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::yip) enum Value {
    /// Nothing: a key that is missing, or `nil`.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// What `semver` makes.
    Version(Box<Release>),
    /// Data of the machine that builds, which must not get into an image: what it would be.
    Refused(String),
}

/// A semantic version, and how it was written.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::yip) struct Release {
    pub(super) version: semver::Version,
    pub(super) original: String,
}

impl Release {
    /// Returns what the methods of a version without arguments answer.
    pub(super) fn field(&self, name: &str) -> Option<Value> {
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let version = &self.version;
        Some(match name {
            "Major" => number(version.major),
            "Minor" => number(version.minor),
            "Patch" => number(version.patch),
            "Prerelease" => Value::text(version.pre.as_str()),
            "Metadata" => Value::text(version.build.as_str()),
            "Original" => Value::text(self.original.as_str()),
            "String" => Value::Text(version.to_string()),
            _ => return None,
        })
    }
}

impl Value {
    /// Makes a mapping.
    pub(in crate::yip) fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    pub(in crate::yip) fn text(text: impl Into<String>) -> Self {
        Value::Text(text.into())
    }

    /// Returns Go's name of the type, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nothing",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
            Value::Version(_) => "*semver.Version",
            Value::Refused(_) => "a value of the building machine",
        }
    }

    /// Returns whether it is neither zero nor empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nil | Value::Refused(_) => false,
            Value::Bool(value) => *value,
            Value::Int(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Version(_) => true,
        }
    }

    /// Returns the text that an action with this value prints.
    pub(super) fn printed(&self) -> String {
        match self {
            Value::Nil => "<no value>".to_owned(),
            other => other.shown(),
        }
    }

    /// Returns the text of `%v`.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::Nil => "<nil>".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => float(*number),
            Value::Text(text) => text.clone(),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Value::shown).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", value.shown()))
                    .collect();
                format!("map[{}]", entries.join(" "))
            }
            Value::Version(release) => release.version.to_string(),
            Value::Refused(what) => format!("<{what}>"),
        }
    }

    /// Compares as `lt` does; only values of one basic kind can be.
    pub(super) fn order(&self, other: &Value) -> Result<Ordering, String> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
            (Value::Float(a), Value::Float(b)) => a
                .partial_cmp(b)
                .ok_or_else(|| "incompatible types for comparison".to_owned()),
            (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
            (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
            _ => Err("incompatible types for comparison".to_owned()),
        }
    }

    /// Compares as `eq` does.
    pub(super) fn equals(&self, other: &Value) -> Result<bool, String> {
        match (self, other) {
            (Value::Nil, Value::Nil) => Ok(true),
            (Value::Nil, _) | (_, Value::Nil) => Ok(false),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
                Err("non-comparable type".to_owned())
            }
            _ => self.order(other).map(|order| order == Ordering::Equal),
        }
    }
}

/// Writes a number as `%v` does: shortest form, with an exponent where that is below -4 or at least 6.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        format!("{number}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_go() {
        for (number, text) in [
            (1.0, "1"),
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (999_999.5, "999999.5"),
            (1e6, "1e+06"),
            (12_345_678.9, "1.23456789e+07"),
            (1e21, "1e+21"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
        ] {
            assert_eq!(Value::Float(number).shown(), text);
        }
    }
}
