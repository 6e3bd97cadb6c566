//! What an artifact is called when nobody says: upstream's names, made of the keys of `/etc/kairos-release`.

use std::collections::BTreeMap;

use crate::error::{Context as _, Error, Result};
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::tree::Tree;

/// Returns `kairos-FLAVOR-RELEASE-VARIANT-ARCH-MODEL-VERSION`, for standard images with the Kubernetes distribution and its version.
///
/// # Errors
///
/// The image has no such file, or a key of these is missing there.
pub fn stem(tree: &Tree) -> Result<String> {
    let text = tree.text(RELEASE_PATH)?.ok_or_else(|| {
        Error::user(format!("the image has no /{RELEASE_PATH}")).hint("`--name` gives a name")
    })?;
    let keys = dotenv::parse(&text)
        .map_err(|error| Error::from_source(&error))
        .context(|| format!("reading /{RELEASE_PATH}"))?;
    let mut name = "kairos".to_owned();
    for part in [
        "FLAVOR",
        "FLAVOR_RELEASE",
        "VARIANT",
        "ARCH",
        "MODEL",
        "VERSION",
    ] {
        name.push('-');
        name.push_str(key(&keys, part)?);
    }
    if key(&keys, "VARIANT")? == "standard" {
        name.push('-');
        name.push_str(key(&keys, "SOFTWARE_VERSION_PREFIX")?);
        name.push_str(key(&keys, "SOFTWARE_VERSION")?);
    }
    // The text is the image's own: it must not lead anywhere.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    Ok(name.replace(|c| !plain(c), "-"))
}

fn key<'a>(keys: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str> {
    let value = keys
        .get(&format!("KAIROS_{name}"))
        .or_else(|| keys.get(name));
    let value = value.map(String::as_str).filter(|value| !value.is_empty());
    value.ok_or_else(|| {
        Error::user(format!("/{RELEASE_PATH} has no KAIROS_{name}")).hint("`--name` gives a name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::samples::Sample;

    fn named(more: &str) -> Result<String> {
        let text = format!(
            "KAIROS_FLAVOR=\"debian\"\nKAIROS_FLAVOR_RELEASE=\"12\"\nKAIROS_ARCH=\"amd64\"\nKAIROS_MODEL=\"generic\"\nKAIROS_VERSION=\"v1.0.0\"\n{more}"
        );
        stem(
            &Sample::new()
                .file(RELEASE_PATH, 0o644, text.as_bytes())
                .tree(),
        )
    }

    #[test]
    fn names_are_upstreams() {
        assert_eq!(
            named("KAIROS_VARIANT=core\n").unwrap(),
            "kairos-debian-12-core-amd64-generic-v1.0.0"
        );
        let standard = "KAIROS_VARIANT=standard\nKAIROS_SOFTWARE_VERSION=v1.33.4+k3s1\nKAIROS_SOFTWARE_VERSION_PREFIX=k3s\n";
        assert_eq!(
            named(standard).unwrap(),
            "kairos-debian-12-standard-amd64-generic-v1.0.0-k3sv1.33.4+k3s1"
        );
    }

    #[test]
    fn a_key_that_is_missing_is_named_and_one_with_slashes_leads_nowhere() {
        let error = named("").unwrap_err().render_text();
        assert!(error.contains("KAIROS_VARIANT"), "{error}");
        assert!(!named("KAIROS_VARIANT=../../x\n").unwrap().contains('/'));
    }
}
