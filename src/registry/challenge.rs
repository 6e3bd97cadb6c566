//! Reads `WWW-Authenticate`: how a registry wants to be convinced.
//!
//! Spec: RFC 9110 section 11.6.1, and the distribution project's token authentication.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The way in that a registry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scopes: Vec<String>,
    },
}

impl Challenge {
    /// Returns the strongest challenge understood: tokens before passwords. `None` when there is none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut found: Vec<_> = values.flat_map(parse).collect();
        found.sort_by_key(|challenge| *challenge == Self::Basic);
        found.into_iter().next()
    }
}

fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = value.trim_start();
    while let Some((scheme, after)) = take_token(rest) {
        let (parameters, next) = take_parameters(after.trim_start());
        challenges.extend(challenge(scheme, &parameters));
        rest = next.trim_start_matches([',', ' ', '\t']);
    }
    challenges
}

fn challenge(scheme: &str, parameters: &[(&str, String)]) -> Option<Challenge> {
    let get = |name: &str| {
        let found = parameters
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let scopes = get("scope")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    Some(Challenge::Bearer {
        realm: get("realm")?,
        service: get("service"),
        scopes,
    })
}

fn take_token(text: &str) -> Option<(&str, &str)> {
    let word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Takes `name=value` pairs for as long as they come; a word without `=` starts the next challenge.
fn take_parameters(text: &str) -> (Vec<(&str, String)>, &str) {
    let mut parameters = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = take_token(rest) {
        let Some(value) = after.trim_start().strip_prefix('=') else {
            break;
        };
        let Some((value, after)) = take_value(value.trim_start()) else {
            break;
        };
        parameters.push((name, value));
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    (parameters, rest)
}

fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return take_token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("header"));
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Option<Challenge> {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes,
        })
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        for (values, expected) in [
            (
                &[r#"Basic realm="Registry Realm""#][..],
                Some(Challenge::Basic),
            ),
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/ubuntu:pull""#,
                ],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    &["repository:library/ubuntu:pull"],
                ),
            ),
            (
                &[
                    r#"bearer realm="https://a/t", scope="repository:a:pull,push repository:b:pull", error="insufficient_scope""#,
                ],
                bearer(
                    "https://a/t",
                    None,
                    &["repository:a:pull,push", "repository:b:pull"],
                ),
            ),
            (
                &[r#"Basic realm="x", Bearer realm="https://a/\"t""#],
                bearer("https://a/\"t", None, &[]),
            ),
            (&["Basic realm=x", "Bearer realm=y"], bearer("y", None, &[])),
            (&["Negotiate", "Basic"], Some(Challenge::Basic)),
            (&["Bearer service=x"], None),
            (&[""], None),
            (&[r#"Bearer realm="https://a"#], None),
        ] {
            assert_eq!(read(values), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(text in "[ -~]{0,80}") {
            let _ = read(&[&text]);
        }
    }
}
