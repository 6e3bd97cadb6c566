//! The options of single providers, whose names no fixed grammar can hold.
//!
//! The grammar knows `--provider-NAME-version` and `--provider-NAME-config` by these very words, so that help, manual pages and
//! completions show them. What a user writes, `--provider-k3s-version V`, becomes `--provider-NAME-version k3s=V` before the grammar
//! sees it. So a provider may be asked for on the command line or in a recipe, before or after its options.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::error::{Error, Result};
use crate::provider::ProviderOptions;
use crate::suggest::nearest;

const PREFIX: &str = "--provider-";
/// What stands for a provider's name in the grammar.
const PLACEHOLDER: &str = "NAME";
const OPTIONS: [&str; 2] = ["version", "config"];

/// Rewrites the options of single providers in `arguments` to those of the grammar of the subcommand that they belong to.
///
/// # Errors
///
/// A usage error for an option of this form that is none, or one without its value.
pub(super) fn rewrite(arguments: Vec<OsString>, grammar: &clap::Command) -> Result<Vec<OsString>> {
    let name = arguments
        .iter()
        .skip(1)
        .find_map(|it| it.to_str().filter(|word| !word.starts_with('-')));
    match name.and_then(|name| grammar.find_subcommand(name)) {
        Some(command) => rewrite_for(arguments, command),
        None => Ok(arguments),
    }
}

/// As [`rewrite`], to those of the grammar of `command`.
///
/// # Errors
///
/// As for [`rewrite`].
pub(super) fn rewrite_for(
    arguments: Vec<OsString>,
    command: &clap::Command,
) -> Result<Vec<OsString>> {
    let Some(fixed) = fixed_options(command) else {
        return Ok(arguments);
    };
    let mut out = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let text = argument.to_str().unwrap_or_default();
        if text == "--" {
            out.push(argument);
            out.extend(rest);
            break;
        }
        let (option, value) = match text.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(words) = option.strip_prefix(PREFIX) else {
            out.push(argument);
            continue;
        };
        if fixed.iter().any(|known| known == option) {
            out.push(argument);
            continue;
        }
        let (name, kind) = split(words).ok_or_else(|| unknown(option, &fixed))?;
        let value = match value {
            Some(value) => value,
            None => next_value(option, &mut rest)?,
        };
        // Wrappers pass on the options of a provider that they have no name for, without a value.
        if name.is_empty() && value.is_empty() {
            continue;
        }
        out.push(format!("{PREFIX}{PLACEHOLDER}-{kind}").into());
        out.push(format!("{name}={value}").into());
    }
    Ok(out)
}

/// Returns the options that begin like those of a provider and are none, as `command` has them; `None` where it takes no providers.
fn fixed_options(command: &clap::Command) -> Option<Vec<String>> {
    let options: Vec<String> = command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .map(|long| format!("--{long}"))
        .filter(|option| option.starts_with(PREFIX))
        .collect();
    let placeholder = format!("{PREFIX}{PLACEHOLDER}-");
    let (dynamic, fixed): (Vec<_>, Vec<_>) = options
        .into_iter()
        .partition(|option| option.starts_with(&placeholder));
    (!dynamic.is_empty()).then_some(fixed)
}

/// Splits `k3s-version` into the provider's name and the kind of option.
fn split(words: &str) -> Option<(&str, &'static str)> {
    OPTIONS
        .into_iter()
        .find_map(|kind| Some((words.strip_suffix(kind)?.strip_suffix('-')?, kind)))
}

fn next_value(option: &str, rest: &mut impl Iterator<Item = OsString>) -> Result<String> {
    match rest.next().map(OsString::into_string) {
        Some(Ok(value)) if !value.starts_with('-') => Ok(value),
        Some(Err(_)) => Err(Error::usage(format!(
            "the value of `{option}` is not UTF-8"
        ))),
        _ => Err(Error::usage(format!("`{option}` needs a value"))
            .hint(format!("`{option} VALUE` or `{option}=VALUE`"))),
    }
}

fn unknown(option: &str, fixed: &[String]) -> Error {
    let name = option.rsplit_once('-').map_or(option, |(name, _)| name);
    let mut known: Vec<String> = OPTIONS.map(|kind| format!("{name}-{kind}")).into();
    known.extend_from_slice(fixed);
    let error = Error::usage(format!("unknown option `{option}`"));
    let error = match nearest(option, known.iter().map(String::as_str)) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => error,
    };
    error
        .hint(format!(
            "the options of a provider are `{PREFIX}NAME-version` and `{PREFIX}NAME-config`"
        ))
        .hint(format!("options for all of them: {}", fixed.join(", ")))
}

/// Puts what the grammar collected for one kind of option into `options`.
///
/// # Errors
///
/// A usage error for an option that is given twice for a provider.
pub(super) fn merge(
    options: &mut BTreeMap<String, ProviderOptions>,
    kind: &str,
    pairs: &[String],
    slot: fn(&mut ProviderOptions) -> &mut Option<String>,
) -> Result<()> {
    let mut seen = Vec::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((PLACEHOLDER, pair));
        if seen.contains(&name) {
            return Err(Error::usage(format!(
                "`{PREFIX}{name}-{kind}` is given twice"
            )));
        }
        seen.push(name);
        *slot(options.entry(name.to_owned()).or_default()) = Some(value.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn rewritten(words: &[&str]) -> Result<Vec<String>> {
        let grammar = super::super::Cli::command();
        let arguments = ["kfactory"].iter().chain(words).map(OsString::from);
        rewrite(arguments.collect(), &grammar).map(|out| {
            out.into_iter()
                .skip(1)
                .map(|word| word.into_string().expect("UTF-8"))
                .collect()
        })
    }

    #[test]
    fn options_of_a_provider_become_those_of_the_grammar() {
        for (given, expected) in [
            (
                &["convert", "--provider-k3s-version", "v1", "base"][..],
                &["convert", "--provider-NAME-version", "k3s=v1", "base"][..],
            ),
            (
                &["plan", "--provider-my-own-config=a=b"],
                &["plan", "--provider-NAME-config", "my-own=a=b"],
            ),
            (
                &["--unknown", "convert", "--provider-k3s-version="],
                &["--unknown", "convert", "--provider-NAME-version", "k3s="],
            ),
            (
                &["convert", "--provider", "", "--provider--version", ""],
                &["convert", "--provider", ""],
            ),
            (
                &["convert", "--provider-source", "plugin"],
                &["convert", "--provider-source", "plugin"],
            ),
            (
                &["convert", "--", "--provider-k3s-version", "v1"],
                &["convert", "--", "--provider-k3s-version", "v1"],
            ),
            (
                &["copy", "--provider-k3s-version", "v1"],
                &["copy", "--provider-k3s-version", "v1"],
            ),
        ] {
            assert_eq!(rewritten(given).expect("good"), expected, "{given:?}");
        }
    }

    #[test]
    fn a_typo_is_answered_with_the_options_there_are() {
        for (typo, meant) in [
            ("--provider-k3s-verison", "`--provider-k3s-version`?"),
            ("--provider-sorce", "`--provider-source`?"),
            ("--provider-k3s", ""),
        ] {
            let error = rewritten(&["convert", typo, "v1"])
                .expect_err(typo)
                .render_text();
            let words = [typo, meant, "--provider-NAME-version", "--provider-source"];
            for word in words {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn a_missing_value_is_said_to_be_missing() {
        for words in [
            &["convert", "--provider-k3s-version"][..],
            &["convert", "--provider-k3s-version", "--stage"],
        ] {
            let error = rewritten(words).expect_err("no value").to_string();
            assert_eq!(error, "`--provider-k3s-version` needs a value");
        }
    }

    #[test]
    fn an_option_given_twice_for_a_provider_is_refused() {
        let pairs = ["k3s=1", "k0s=2", "k3s=3"].map(str::to_owned);
        let mut options = BTreeMap::new();
        let error = merge(&mut options, "version", &pairs, |it| &mut it.version);
        let text = error.expect_err("twice").to_string();
        assert_eq!(text, "`--provider-k3s-version` is given twice");
    }
}
