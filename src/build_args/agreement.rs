//! Whether build arguments agree with the options or keys that stand beside them and say the same.

use super::{BuildArgs, Recipe};
use crate::error::{Error, Result};
use crate::kairos::version::Version;
use crate::location::Location;
use crate::request::Request;
use crate::words;

/// What an option or a key says that a build argument may say too.
#[derive(Debug)]
pub(crate) struct Said {
    /// The build argument.
    pub(crate) key: &'static str,
    /// The option or key with its value, as it is written.
    pub(crate) words: String,
    /// Its value.
    pub(crate) value: String,
}

impl Said {
    /// Makes one of `value`, if there is one; `words` writes it as it stands there.
    pub(crate) fn new(
        key: &'static str,
        value: Option<impl ToString>,
        words: impl Fn(&str) -> String,
    ) -> Option<Self> {
        let value = value?.to_string();
        let words = words(&value);
        (!value.trim().is_empty()).then_some(Self { key, words, value })
    }
}

impl BuildArgs {
    /// Checks that no argument has another value than what is `said` beside it; `words` writes an argument as it stands there.
    ///
    /// # Errors
    ///
    /// A usage error that names both.
    pub(crate) fn agree(
        &self,
        said: impl IntoIterator<Item = Said>,
        words: impl Fn(&str, &str) -> String,
    ) -> Result<()> {
        for said in said {
            let Some((name, value)) = self.given(said.key) else {
                continue;
            };
            if !is_same((name, value), said.value.trim())? {
                return Err(Error::usage(format!(
                    "`{}` and `{}` contradict each other",
                    words(name, value),
                    said.words
                ))
                .hint("they say the same thing: give one of them, or both the same value"));
            }
        }
        Ok(())
    }

    /// Returns what is given of `key`, by whichever of its names.
    fn given(&self, key: &'static str) -> Option<(&'static str, &str)> {
        let names: &[&'static str] = match key {
            "PROVIDER_NAME" => &["PROVIDER_NAME", "KUBERNETES_DISTRO"],
            "PROVIDER_VERSION" => &["PROVIDER_VERSION", "KUBERNETES_VERSION"],
            "TRUSTED_BOOT" => &["TRUSTED_BOOT", "BOOTLOADER"],
            _ => return Some((key, self.get(key)?)),
        };
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }
}

/// Returns whether a build argument says the same as `other`, in whichever spelling.
fn is_same((name, value): (&str, &str), other: &str) -> Result<bool> {
    Ok(value == other
        || match name {
            "BASE_IMAGE" => {
                let place = |text: &str| text.parse::<Location>().ok();
                place(value).is_some_and(|it| Some(it) == place(other))
            }
            "VERSION" => {
                let version = |text: &str| Version::parse(text).ok();
                version(value).is_some_and(|it| Some(it) == version(other))
            }
            "PROVIDER_VERSION" | "KUBERNETES_VERSION" => super::is_any_version(value),
            "TRUSTED_BOOT" => words::boolean(name, value)? == words::boolean(name, other)?,
            "BOOTLOADER" => (value == super::TRUSTED_LOADER) == words::boolean(name, other)?,
            _ => false,
        })
}

impl Recipe {
    /// Returns the request with the build arguments in it.
    ///
    /// # Errors
    ///
    /// As for [`BuildArgs::apply`]; and a key and a build argument that contradict each other.
    pub fn into_request(self) -> Result<Request> {
        let mut said: Vec<Said> = self.said().into_iter().flatten().collect();
        let mut request = self.request.clone();
        self.args.apply(&mut request)?;
        // Whose version the argument is, the providers say, which may be an argument too.
        if let [name] = request.providers.as_slice() {
            let own = self.request.provider_options.get(name);
            let version = own.and_then(|options| options.version.as_ref());
            said.extend(Said::new("PROVIDER_VERSION", version, |text| {
                format!("provider-options: {{{name}: {{version: {text}}}}}")
            }));
        }
        self.args
            .agree(said, |name, value| format!("{name}: {value}"))?;
        Ok(request)
    }

    /// Returns what the recipe's own keys say that build arguments may say.
    fn said(&self) -> Vec<Option<Said>> {
        let request = &self.request;
        let expected = &request.expected;
        let key = |word: &'static str| move |text: &str| format!("{word}: {text}");
        let is_given = self.keys.iter().any(|key| key == "trusted");
        let providers = (!request.providers.is_empty()).then(|| request.providers.join(", "));
        vec![
            Said::new("BASE_IMAGE", Some(&request.base), key("base")),
            Said::new("MODEL", Some(&request.model), key("model")),
            Said::new("VERSION", request.version.as_ref(), key("version")),
            Said::new(
                "TRUSTED_BOOT",
                is_given.then_some(request.trusted),
                key("trusted"),
            ),
            Said::new("PROVIDER_NAME", providers, |text| {
                format!("providers: [{text}]")
            }),
            Said::new("FAMILY", expected.family.as_ref(), key("expected.family")),
            Said::new("FLAVOR", expected.flavor.as_ref(), key("expected.flavor")),
            Said::new(
                "FLAVOR_RELEASE",
                expected.flavor_release.as_ref(),
                key("expected.flavor-release"),
            ),
            Said::new(
                "VARIANT",
                expected.variant.as_ref(),
                key("expected.variant"),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_recipe_that_says_two_things_of_one_is_refused_with_both() {
        for (argument, key) in [
            ("BASE_IMAGE: ubuntu:24.04", "base: debian:12"),
            ("MODEL: rpi4", "model: rpi3"),
            ("VERSION: v2", "version: v1"),
            ("TRUSTED_BOOT: true", "trusted: false"),
            ("BOOTLOADER: grub", "trusted: true"),
            ("PROVIDER_NAME: k0s", "providers: [k3s]"),
            ("KUBERNETES_DISTRO: k0s", "providers: [k3s, edge]"),
            (
                "KUBERNETES_VERSION: v2",
                "provider-options: {k3s: {version: v1}}",
            ),
        ] {
            let provider = ["KUBERNETES_VERSION: v2"].contains(&argument);
            let rest = if provider { "\nproviders: k3s\n" } else { "\n" };
            let text = format!("{argument}\n{key}{rest}");
            let error = Request::from_yaml(&text, "r").expect_err(&text);
            assert_eq!(error.kind(), Kind::Usage);
            let said = error.render_text();
            let both = format!("`{argument}` and `{key}` contradict");
            assert!(said.contains(&both), "{text}: {said}");
        }
    }

    #[test]
    fn a_recipe_may_say_the_same_twice_in_any_spelling() {
        let text = "base: debian:12\nBASE_IMAGE: docker.io/library/debian:12\nversion: v1.0.0\nVERSION: v1.0.0\n\
            trusted: true\nBOOTLOADER: systemd-boot\nTRUSTED_BOOT: yes\nprovider: k3s\nPROVIDER_NAME: k3s\n\
            PROVIDER_VERSION: latest\nprovider-options: {k3s: {version: v1}}\nexpected: {flavor: debian}\nFLAVOR: debian\n";
        let request = Request::from_yaml(text, "r").unwrap();
        assert!(request.trusted && request.providers == ["k3s"]);
        let version = request.provider_options["k3s"].version.as_deref();
        assert_eq!(version, Some("v1"));
    }

    #[test]
    fn one_argument_has_one_value() {
        let mut args = BuildArgs::default();
        for same in ["MODEL=rpi3", "MODEL=rpi3", "MODEL="] {
            args.set(same).unwrap();
        }
        let said = args.set("MODEL=rpi4").unwrap_err().render_text();
        assert!(
            said.contains("`--set MODEL=rpi3` and `--set MODEL=rpi4` contradict"),
            "{said}"
        );
    }
}
