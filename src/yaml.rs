//! Reads YAML that people write, and says what is wrong with it in words that need no knowledge of the reader.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::{Error as YamlError, MessageFormatter as _, UserMessageFormatter};

use crate::error::{Error, Result};
use crate::suggest::nearest;

/// Reads `text`; `what` names it in errors: "recipe `os.yaml`".
///
/// # Errors
///
/// A usage error with the line of the first mistake, and the line itself.
pub fn read<T: DeserializeOwned>(text: &str, what: &str) -> Result<T> {
    serde_saphyr::from_str(text).map_err(|error| explain(&error, text, what))
}

/// Checks that `text` has keys with values, or nothing.
///
/// # Errors
///
/// The line of the first mistake, which itself is not shown: it may hold a secret.
pub fn check(text: &str) -> Result<()> {
    let read: Result<Option<BTreeMap<String, IgnoredAny>>, _> = serde_saphyr::from_str(text);
    read.map(drop).map_err(|error| {
        let error = error.without_snippet();
        let (problem, _) = words(error);
        let place = line_of(error).map(|line| format!("line {line}: "));
        Error::user(format!("{}{problem}", place.unwrap_or_default()))
    })
}

fn line_of(error: &YamlError) -> Option<usize> {
    usize::try_from(error.location()?.line()).ok()
}

fn explain(error: &YamlError, text: &str, what: &str) -> Error {
    let error = error.without_snippet();
    let (problem, hint) = words(error);
    let line = line_of(error);
    let quoted = line
        .and_then(|number| text.lines().nth(number.checked_sub(1)?))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let place = match (line, quoted) {
        (Some(number), Some(quoted)) => format!("line {number} (`{quoted}`): "),
        (Some(number), None) => format!("line {number}: "),
        _ => String::new(),
    };
    let error =
        Error::usage(format!("cannot read {what}")).context_below(format!("{place}{problem}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Returns what is wrong, and what to write instead where that can be told.
fn words(error: &YamlError) -> (String, Option<String>) {
    match error {
        YamlError::SerdeUnknownField {
            field, expected, ..
        } => (
            format!("unknown key `{field}`"),
            Some(instead(field, expected)),
        ),
        YamlError::SerdeUnknownVariant {
            variant, expected, ..
        } => (
            format!("unknown value `{variant}`"),
            Some(instead(variant, expected)),
        ),
        YamlError::Budget { .. } => ("it holds more than anybody writes".into(), None),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("key `{key}` is given twice"), None)
        }
        YamlError::DuplicateMappingKey { key: None, .. } => ("a key is given twice".into(), None),
        YamlError::Unexpected { expected, .. } => match *expected {
            "sequence start" => (
                "expected a list".into(),
                Some("write `[one, two]`, or each value after `- ` on a line of its own".into()),
            ),
            "mapping start" => ("expected keys, each as `key: value`".into(), None),
            "string scalar" => ("expected one word or text".into(), None),
            other => (format!("expected {other}"), None),
        },
        YamlError::InvalidBooleanStrict { .. } | YamlError::InvalidScalar { ty: "boolean", .. } => {
            ("expected `true` or `false`".into(), None)
        }
        YamlError::MultipleDocuments { .. } => (
            "a second document begins".into(),
            Some("remove the line `---`".into()),
        ),
        YamlError::ExternalMessage { msg, .. } => (format!("this is no YAML: {msg}"), None),
        other => (
            UserMessageFormatter.format_message(other).into_owned(),
            None,
        ),
    }
}

/// Keys that the program writes for itself: a recipe keeps in it what people write as build arguments (`FAMILY`, `FLAVOR`).
const OWN_KEYS: [&str; 1] = ["expected"];

fn instead(word: &str, known: &[&'static str]) -> String {
    let known = known.iter().copied().filter(|key| !OWN_KEYS.contains(key));
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
    #[derive(Default)]
    #[allow(dead_code, reason = "only read from text")]
    struct Sample {
        base: String,
        destinations: Vec<String>,
        trusted: bool,
        stage: crate::request::Stage,
    }

    #[test]
    fn every_mistake_is_named_with_its_line_in_plain_words() {
        for (text, expected) in [
            (
                "base: x\nbogus: 1",
                "line 2 (`bogus: 1`): unknown key `bogus`\nhint: known: base, destinations, trusted, stage",
            ),
            (
                "bse: x",
                "line 1 (`bse: x`): unknown key `bse`\nhint: did you mean `base`?",
            ),
            (
                "stage: instal",
                "line 1 (`stage: instal`): unknown value `instal`\nhint: did you mean `install`?",
            ),
            (
                "destinations: x",
                "line 1 (`destinations: x`): expected a list\nhint: write `[one, two]`, or each value after `- ` on a line of its own",
            ),
            (
                "base: [a]",
                "line 1 (`base: [a]`): expected one word or text",
            ),
            (
                "trusted: maybe",
                "line 1 (`trusted: maybe`): expected `true` or `false`",
            ),
            ("- a", "line 1 (`- a`): expected keys, each as `key: value`"),
            (
                "base: x\nbase: y",
                "line 2 (`base: y`): key `base` is given twice",
            ),
            (
                "base: x\n---\nbase: y",
                "line 3 (`base: y`): a second document begins\nhint: remove the line `---`",
            ),
        ] {
            let error = read::<Sample>(text, "recipe `r`")
                .unwrap_err()
                .render_text();
            assert_eq!(
                error,
                format!("error: cannot read recipe `r`\ncaused by: {expected}\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_yaml_is_said_to_be_none() {
        for text in ["base: x\n y: z", "base: \"x", "base: \t@"] {
            let error = read::<Sample>(text, "recipe `r`")
                .unwrap_err()
                .render_text();
            assert!(
                error.contains("line ") && error.contains("this is no YAML"),
                "{error}"
            );
            assert!(!error.contains("-->"), "{error}");
        }
    }
}
