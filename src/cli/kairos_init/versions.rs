//! Versions of the Kairos binaries that a base image asks for.

use std::collections::BTreeMap;
use std::path::Path;

use super::read_in;
use crate::error::{Error, Result};
use crate::framework::FrameworkSpec;
use crate::suggest::nearest;

/// Where a base says which versions it wants.
const FILE: &str = "/etc/kairos/.init_versions.yaml";
/// The keys that kairos-init knows.
const KEYS: [&str; 5] = [
    "agent",
    "immucore",
    "kcrypt_challenger",
    "provider",
    "edgevpn",
];

/// Returns `framework` with the versions that the tree at `root` asks for. Those of the command line win, and a framework that is at
/// hand already has the versions it has.
///
/// # Errors
///
/// The file is no mapping of known keys to versions.
pub(super) fn apply(framework: &str, root: &Path) -> Result<String> {
    let Some(text) = read_in(root, FILE)? else {
        return Ok(framework.to_owned());
    };
    merge(framework, &text).map_err(|error| error.context(format!("cannot use {FILE}")))
}

fn merge(framework: &str, text: &str) -> Result<String> {
    let wanted: BTreeMap<String, Option<String>> =
        serde_saphyr::from_str(text).map_err(|error| {
            Error::user("it is no mapping of names to versions").context_below(error)
        })?;
    let mut words = Vec::new();
    for (key, version) in wanted {
        if !KEYS.contains(&key.as_str()) {
            let error = Error::user(format!("unknown key `{key}`"));
            return Err(match nearest(&key, KEYS) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("known keys: {}", KEYS.join(", "))),
            });
        }
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            words.push(format!("{key}={version}"));
        }
    }
    let (source, chosen) = framework.split_once(':').unwrap_or((framework, ""));
    if words.is_empty() || !matches!(source, "release" | "go") {
        return Ok(framework.to_owned());
    }
    // The last one wins.
    words.extend(
        chosen
            .split(',')
            .map(str::to_owned)
            .filter(|it| !it.is_empty()),
    );
    let merged = format!("{source}:{}", words.join(","));
    merged
        .parse::<FrameworkSpec>()
        .map_err(|error| Error::from_source(&error).hints(error.hints()))?;
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_base_and_what_is_at_hand_over_both() {
        let file = "agent: v2.20.0\nimmucore: \"\"\nedgevpn: v0.30.0\n";
        for (framework, expected) in [
            ("release", "release:agent=v2.20.0,edgevpn=v0.30.0"),
            (
                "go:kairos-agent=v2.31.0",
                "go:agent=v2.20.0,edgevpn=v0.30.0,kairos-agent=v2.31.0",
            ),
            ("dir:/framework", "dir:/framework"),
        ] {
            assert_eq!(merge(framework, file).unwrap(), expected);
        }
        let spec: FrameworkSpec = "go:agent=v2.20.0,kairos-agent=v2.31.0".parse().unwrap();
        assert_eq!(spec.to_string(), "go:kairos-agent=v2.31.0");
    }

    #[test]
    fn an_unknown_key_or_a_moving_version_is_an_error() {
        let error = merge("release", "imucore: v1.0.0\n").unwrap_err();
        assert!(
            error.render_text().contains("did you mean `immucore`"),
            "{}",
            error.render_text()
        );
        for bad in ["agent: latest\n", "- agent\n"] {
            assert!(merge("release", bad).is_err(), "{bad}");
        }
    }
}
