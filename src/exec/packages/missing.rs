//! What to do about a package that no repository has, by whoever asks for it: an option, or a rule.

use crate::choice::KernelChoice;
use crate::error::Error;
use crate::request::Request;

/// What a package manager says that it cannot find.
#[derive(Debug, PartialEq, Eq)]
enum Missing<'a> {
    /// A package, as it was given to the manager: its version may be part of the word.
    Package(&'a str),
    /// A version of a package that is there.
    Version { name: &'a str, version: &'a str },
}

/// How each manager names a package that it cannot find: what stands before the name and what behind it.
const SAID: &[(&str, &str)] = &[
    // apt
    ("E: Unable to locate package ", ""),
    ("E: Package '", "' has no installation candidate"),
    // dnf 4 and 5, microdnf
    ("No match for argument: ", ""),
    ("error: No package matches '", "'"),
    // zypper
    ("No provider of '", "' found."),
    ("Package '", "' not found."),
    // apk
    ("", " (no such package):"),
    // pacman
    ("error: target not found: ", ""),
];

/// Adds to `error`, which says what a package manager said, what to do about a package that it did not find.
///
/// `versions` lists those that there are of a package, the newest first; nothing where that cannot be told.
pub(super) fn explain(
    error: Error,
    request: &Request,
    versions: impl FnOnce(&str) -> Vec<String>,
) -> Error {
    let remedy = error.said().iter().find_map(|line| missing(line));
    match remedy.map(|missing| remedy_for(&missing, request, versions)) {
        Some(remedy) => error.hint(remedy),
        None => error,
    }
}

/// As [`explain`], of a package that a stage extension names.
pub(super) fn explain_extension(error: Error) -> Error {
    let found = error.said().iter().find_map(|line| missing(line));
    let what = match found {
        Some(Missing::Package(name)) => format!("`{name}`"),
        Some(Missing::Version { name, version }) => format!("`{name}` in version {version}"),
        None => return error,
    };
    error.hint(format!(
        "the base's repositories have no {what}: correct the name in `packages` of the stage extension, or add the repository that has \
         it in a step before"
    ))
}

fn missing(line: &str) -> Option<Missing<'_>> {
    if let Some(rest) = line.strip_prefix("E: Version '") {
        let (version, rest) = rest.split_once("' for '")?;
        let (name, _) = rest.split_once("' was not found")?;
        return Some(Missing::Version { name, version });
    }
    let mut names = SAID
        .iter()
        .filter_map(|(before, after)| line.trim().strip_prefix(before)?.strip_suffix(after));
    let name = names.find(|name| !name.is_empty() && !name.contains(char::is_whitespace));
    name.map(Missing::Package)
}

fn remedy_for(
    missing: &Missing<'_>,
    request: &Request,
    versions: impl FnOnce(&str) -> Vec<String>,
) -> String {
    let kernel = request.kernel.as_str();
    let name = match *missing {
        Missing::Version { name, version } => {
            let there = match versions(name) {
                none if none.is_empty() => String::new(),
                some => format!("; they have {}", some.join(", ")),
            };
            return format!(
                "the base's repositories have no `{name}` in version {version}{there}: correct `--kernel {kernel}`, or leave the version \
                 out for the newest"
            );
        }
        Missing::Package(name) => name,
    };
    if request.with.iter().any(|with| with == name) {
        return format!(
            "the base's repositories have no `{name}`: correct or drop `--with {name}`"
        );
    }
    match kernel.parse() {
        Ok(KernelChoice::Package {
            name: asked,
            version,
        }) if asked == name => match version {
            None => format!(
                "the base's repositories have no `{name}`: correct `--kernel {kernel}`, or drop it for the kernel that the rules choose"
            ),
            Some(_) => format!(
                "the base's repositories have no `{name}`: correct the name in `--kernel {kernel}`"
            ),
        },
        Ok(KernelChoice::Package {
            version: Some(version),
            ..
        }) if name.ends_with(&version) => format!(
            "the base's repositories have no `{name}`: correct `--kernel {kernel}`, or leave the version out for the newest"
        ),
        _ => format!(
            "the base's repositories have no `{name}`, which a rule chose: leave it out with `--without {name}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_is_understood() {
        for line in [
            "E: Unable to locate package nope",
            "E: Package 'nope' has no installation candidate",
            "No match for argument: nope",
            "error: No package matches 'nope'",
            "No provider of 'nope' found.",
            "Package 'nope' not found.",
            "  nope (no such package):",
            "error: target not found: nope",
        ] {
            assert_eq!(missing(line), Some(Missing::Package("nope")), "{line}");
        }
        assert_eq!(
            missing("E: Version '9.9' for 'linux' was not found"),
            Some(Missing::Version {
                name: "linux",
                version: "9.9"
            })
        );
        for line in ["", "Reading package lists...", "E: Broken packages"] {
            assert_eq!(missing(line), None, "{line}");
        }
    }

    #[test]
    fn the_remedy_names_the_option_that_asked_for_the_package() {
        for (kernel, line, told, not_told) in [
            (
                "linux-nope",
                "E: Unable to locate package linux-nope",
                "correct `--kernel linux-nope`",
                "--with",
            ),
            (
                "linux-nope=1",
                "E: Unable to locate package linux-nope",
                "correct the name in `--kernel linux-nope=1`",
                "--with",
            ),
            (
                "linux=9.9",
                "E: Version '9.9' for 'linux' was not found",
                "no `linux` in version 9.9; they have 6.2, 6.1: correct `--kernel linux=9.9`",
                "--with",
            ),
            (
                "kernel=9.9",
                "No match for argument: kernel-core-9.9",
                "leave the version out",
                "--with",
            ),
            (
                "",
                "E: Unable to locate package vmi",
                "correct or drop `--with vmi`",
                "--without",
            ),
            (
                "",
                "E: Unable to locate package neovim",
                "`--without neovim`",
                "--with neovim",
            ),
        ] {
            let request = Request {
                kernel: kernel.into(),
                with: vec!["vmi".into()],
                ..Request::new("debian:12")
            };
            let error = Error::user("apt-get").output(vec!["Reading".into(), line.into()]);
            let versions = |_: &str| vec!["6.2".to_owned(), "6.1".to_owned()];
            let text = explain(error, &request, versions).render_text();
            assert!(text.contains(told), "{line}: {text}");
            assert!(!text.contains(not_told), "{line}: {text}");
        }
    }
}
