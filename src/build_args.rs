//! The build arguments of Kairos' Dockerfile and Earthly builds (`BASE_IMAGE`, `TRUSTED_BOOT`, ...), as `--set KEY=VALUE` and as keys
//! of a recipe.
//!
//! An empty value counts as not given: that is what an argument nobody set looks like. `FAMILY`, `FLAVOR` and `FLAVOR_RELEASE` say
//! what the base is, which kfactory reads from the base itself; so they are checked against it.

mod agreement;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::request::{Request, TWO_NAMES};
use crate::suggest::nearest;
use crate::words;

pub(crate) use agreement::Said;

/// Every build argument that is understood.
pub const KEYS: [&str; 13] = [
    "BASE_IMAGE",
    "FAMILY",
    "FLAVOR",
    "FLAVOR_RELEASE",
    "MODEL",
    "VARIANT",
    "BOOTLOADER",
    "TRUSTED_BOOT",
    "PROVIDER_NAME",
    "PROVIDER_VERSION",
    "KUBERNETES_DISTRO",
    "KUBERNETES_VERSION",
    "VERSION",
];

/// What somebody says the base is, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Expected {
    /// Its family, or the distribution that gives the family its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Its distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Its release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor_release: Option<String>,
    /// `core` or `standard`: whether a provider is to make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Expected {
    /// Holds what is expected against the keys of `/etc/kairos-release`.
    ///
    /// # Errors
    ///
    /// A usage error that names what the base is.
    pub fn check(&self, release: &BTreeMap<String, String>) -> Result<()> {
        let is = |key: &str| release.get(key).map(String::as_str).unwrap_or_default();
        let (family, flavor) = (is("KAIROS_FAMILY"), is("KAIROS_FLAVOR"));
        let number = is("KAIROS_FLAVOR_RELEASE");
        let known = [
            ("FAMILY", &self.family, vec![family, flavor]),
            ("FLAVOR", &self.flavor, vec![flavor]),
            ("FLAVOR_RELEASE", &self.flavor_release, vec![number]),
        ];
        for (key, expected, found) in known {
            let Some(expected) = expected else { continue };
            let word = expected.to_ascii_lowercase();
            if !found.contains(&other_name(&word)) {
                return Err(Error::usage(format!(
                    "the base is not what `{key}={expected}` says: it is {flavor} {number}, family {family}"
                ))
                .hint(format!("leave `{key}` out, or name another base")));
            }
        }
        self.check_variant(is("KAIROS_VARIANT"))
    }

    fn check_variant(&self, made: &str) -> Result<()> {
        match self.variant.as_deref() {
            Some("standard") if made == "core" => {
                Err(Error::usage("`VARIANT=standard` needs a provider")
                    .hint("`PROVIDER_NAME=k3s` or `--provider k3s`"))
            }
            Some("core") if made == "standard" => {
                Err(Error::usage("`VARIANT=core` has no provider")
                    .hint("leave `VARIANT` out, or the provider"))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the word that kfactory has for a family or distribution of the Earthly builds.
fn other_name(word: &str) -> &str {
    match word {
        "rhel" => "redhat",
        "rockylinux" => "rocky",
        "alma" => "almalinux",
        "oraclelinux" => "ol",
        "archlinux" => "arch",
        other => other,
    }
}

/// Build arguments as they were given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildArgs(BTreeMap<String, String>);

impl BuildArgs {
    /// Adds one, given as `KEY=VALUE`.
    ///
    /// # Errors
    ///
    /// A usage error for another form, for an unknown key with the nearest one, and for a second value of a key.
    pub fn set(&mut self, text: &str) -> Result<()> {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Error::usage(format!("`--set {text}` is not KEY=VALUE"))
                .hint(format!("keys: {}", KEYS.join(", ")))
        })?;
        if !KEYS.contains(&key) {
            let error = Error::usage(format!("unknown key `{key}` in `--set {text}`"));
            return Err(match nearest(key, KEYS) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("keys: {}", KEYS.join(", "))),
            });
        }
        if let Some(known) = self.get(key).filter(|known| *known != value.trim()) {
            if value.trim().is_empty() {
                return Ok(());
            }
            return Err(Error::usage(format!(
                "`--set {key}={known}` and `--set {text}` contradict each other"
            ))
            .hint("give one of them"));
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Returns the value of `key` unless it is empty.
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// Puts everything that was given into `request`.
    ///
    /// # Errors
    ///
    /// Usage errors: a value that is none, and two that contradict each other.
    pub fn apply(&self, request: &mut Request) -> Result<()> {
        let owned = |key| self.get(key).map(str::to_owned);
        if let Some(base) = owned("BASE_IMAGE") {
            request.base = base;
        }
        if let Some(model) = owned("MODEL") {
            request.model = model;
        }
        request.version = owned("VERSION").or(request.version.take());
        let expected = &mut request.expected;
        expected.family = owned("FAMILY").or(expected.family.take());
        expected.flavor = owned("FLAVOR").or(expected.flavor.take());
        expected.flavor_release = owned("FLAVOR_RELEASE").or(expected.flavor_release.take());
        if let Some(trusted) = self.trusted()? {
            request.trusted = trusted;
        }
        if let Some(variant) = self.get("VARIANT") {
            const VARIANTS: [&str; 2] = ["core", "standard"];
            if !VARIANTS.contains(&variant) {
                return Err(unknown_value("VARIANT", variant, &VARIANTS));
            }
            request.expected.variant = Some(variant.to_owned());
        }
        self.apply_provider(request)
    }

    fn trusted(&self) -> Result<Option<bool>> {
        let by_loader = self
            .get("BOOTLOADER")
            .map(|loader| match loader {
                "grub" => Ok(false),
                TRUSTED_LOADER => Ok(true),
                _ => Err(unknown_value(
                    "BOOTLOADER",
                    loader,
                    &["grub", TRUSTED_LOADER],
                )),
            })
            .transpose()?;
        let stated = self
            .get("TRUSTED_BOOT")
            .map(|text| words::boolean("TRUSTED_BOOT", text))
            .transpose()?;
        match (by_loader, stated) {
            (Some(by_loader), Some(stated)) if by_loader != stated => Err(Error::usage(
                "`BOOTLOADER` and `TRUSTED_BOOT` contradict each other",
            )
            .hint("Trusted Boot has `systemd-boot`, everything else `grub`")),
            (by_loader, stated) => Ok(stated.or(by_loader)),
        }
    }

    /// Returns what both names of an argument say, the newer one first.
    fn either(&self, new: &str, old: &str) -> Result<Option<&str>> {
        match (self.get(new), self.get(old)) {
            (Some(one), Some(other)) if one != other => Err(Error::usage(format!(
                "`{new}={one}` and `{old}={other}` contradict each other"
            ))
            .hint(format!("`{old}` is the older name of `{new}`; give one"))),
            (new, old) => Ok(new.or(old)),
        }
    }

    fn apply_provider(&self, request: &mut Request) -> Result<()> {
        let name = self.either("PROVIDER_NAME", "KUBERNETES_DISTRO")?;
        let version = self.either("PROVIDER_VERSION", "KUBERNETES_VERSION")?;
        // Both mean that whoever builds does not mind which; ours is pinned, so that the same input gives the same image.
        let version = version.filter(|version| !is_any_version(version));
        if let Some(name) = name {
            request.providers = vec![name.to_owned()];
            request.provider_options.retain(|it, _| it == name);
        }
        let Some(version) = version else {
            return Ok(());
        };
        let [name] = request.providers.as_slice() else {
            return Err(
                Error::usage(format!("`{version}` is the version of no provider"))
                    .hint("`PROVIDER_NAME` names the provider"),
            );
        };
        let options = request.provider_options.entry(name.clone()).or_default();
        options.version = Some(version.to_owned());
        Ok(())
    }
}

/// The boot loader of Trusted Boot.
const TRUSTED_LOADER: &str = "systemd-boot";

/// Returns whether whoever builds does not mind which version it is.
fn is_any_version(version: &str) -> bool {
    matches!(version, "auto" | "latest")
}

fn unknown_value(key: &str, value: &str, known: &[&'static str]) -> Error {
    let error = Error::usage(format!("`{key}={value}` is unknown"));
    match nearest(value, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("known: {}", known.join(", "))),
    }
}

/// A recipe file: a request, and build arguments beside its keys.
#[derive(Debug)]
pub struct Recipe {
    /// What the recipe's own keys say.
    pub request: Request,
    /// The build arguments.
    pub args: BuildArgs,
    /// The keys that are given.
    keys: Vec<String>,
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Recipe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys, each as `key: value`")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Recipe, A::Error> {
                let mut args = BuildArgs::default();
                let mut keys = Vec::new();
                let filter = Filter {
                    map,
                    args: &mut args,
                    seen: &mut keys,
                };
                let request = Request::deserialize(MapAccessDeserializer::new(filter))?;
                Ok(Recipe {
                    request,
                    args,
                    keys,
                })
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Passes on every key but the build arguments.
struct Filter<'a, A> {
    map: A,
    args: &'a mut BuildArgs,
    /// The keys that were given.
    seen: &'a mut Vec<String>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Filter<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        mut seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        loop {
            match self.map.next_key_seed(Key {
                seed,
                seen: self.seen,
            })? {
                None => return Ok(None),
                Some(Found::Other(value)) => return Ok(Some(value)),
                Some(Found::BuildArg(key, back)) => {
                    let value: Scalar = self.map.next_value()?;
                    self.args.0.insert(key, value.0);
                    seed = back;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Reads a key: for whom it is meant shows only then.
struct Key<'a, K> {
    seed: K,
    seen: &'a mut Vec<String>,
}

enum Found<K, V> {
    BuildArg(String, K),
    Other(V),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, K> {
    type Value = Found<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let Key { seed, seen } = self;
        let key = String::deserialize(deserializer)?;
        if KEYS.contains(&key.as_str()) {
            return Ok(Found::BuildArg(key, seed));
        }
        if let Some(twin) = twin(&key)
            && seen.iter().any(|seen| seen == twin)
        {
            return Err(D::Error::custom(format!(
                "key `{key}` is given already, as `{twin}`: they are one"
            )));
        }
        seen.push(key.clone());
        let other: serde::de::value::StringDeserializer<D::Error> = key.into_deserializer();
        seed.deserialize(other).map(Found::Other)
    }
}

/// Returns the other name of a key that has two.
fn twin(key: &str) -> Option<&'static str> {
    TWO_NAMES.iter().find_map(|(one, other)| match key {
        key if key == *one => Some(*other),
        key if key == *other => Some(*one),
        _ => None,
    })
}

/// A value as it is written: `24.04` is no number here.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            Option::<String>::deserialize(deserializer)?.unwrap_or_default(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ProviderOptions;

    fn applied(pairs: &[&str]) -> Result<Request> {
        let mut args = BuildArgs::default();
        pairs.iter().try_for_each(|pair| args.set(pair))?;
        let mut request = Request::defaults();
        args.apply(&mut request)?;
        Ok(request)
    }

    #[test]
    fn arguments_of_the_earthly_and_the_dockerfile_build_make_a_request() {
        let request = applied(&[
            "BASE_IMAGE=my-base-image",
            "FAMILY=ubuntu",
            "FLAVOR=ubuntu",
            "FLAVOR_RELEASE=24.04",
            "MODEL=generic",
            "VARIANT=core",
            "BOOTLOADER=systemd-boot",
            "KUBERNETES_DISTRO=",
            "KUBERNETES_VERSION=latest",
            "VERSION=v1.0.0",
        ])
        .unwrap();
        let expected = Request {
            base: "my-base-image".into(),
            trusted: true,
            version: Some("v1.0.0".into()),
            expected: Expected {
                family: Some("ubuntu".into()),
                flavor: Some("ubuntu".into()),
                flavor_release: Some("24.04".into()),
                variant: Some("core".into()),
            },
            ..Request::defaults()
        };
        assert_eq!(request, expected);
        for (name, version) in [
            ("PROVIDER_NAME", "PROVIDER_VERSION"),
            ("KUBERNETES_DISTRO", "KUBERNETES_VERSION"),
        ] {
            let pairs = [format!("{name}=k3s"), format!("{version}=v1.34.3+k3s1")];
            let request = applied(&[&pairs[0], &pairs[1], "TRUSTED_BOOT=false"]).unwrap();
            assert_eq!(request.providers, ["k3s"]);
            let options = ProviderOptions {
                version: Some("v1.34.3+k3s1".into()),
                ..ProviderOptions::default()
            };
            assert_eq!(request.provider_options["k3s"], options);
            assert!(!request.trusted);
        }
    }

    #[test]
    fn typos_and_contradictions_are_answered_with_the_way_out() {
        for (pairs, words) in [
            (
                &["BASE_IMGAE=x"][..],
                &["unknown key `BASE_IMGAE`", "`BASE_IMAGE`"][..],
            ),
            (&["COLOUR=x"], &["keys: BASE_IMAGE"]),
            (&["VERSION"], &["not KEY=VALUE"]),
            (&["TRUSTED_BOOT=ture"], &["`TRUSTED_BOOT`", "`true`"]),
            (
                &["BOOTLOADER=system-boot"],
                &["did you mean `systemd-boot`"],
            ),
            (
                &["BOOTLOADER=grub", "TRUSTED_BOOT=true"],
                &["contradict each other"],
            ),
            (
                &["PROVIDER_NAME=k3s", "KUBERNETES_DISTRO=k0s"],
                &["`KUBERNETES_DISTRO=k0s`", "older name"],
            ),
            (&["PROVIDER_VERSION=v1.2.3"], &["`PROVIDER_NAME`"]),
            (&["VARIANT=standrad"], &["did you mean `standard`"]),
        ] {
            let text = applied(pairs).unwrap_err().render_text();
            for word in words {
                assert!(text.contains(word), "{pairs:?}: no {word:?} in {text}");
            }
        }
    }

    #[test]
    fn the_base_must_be_what_is_expected_in_either_generations_words() {
        let release = |family: &str, flavor: &str, number: &str| {
            [
                ("KAIROS_FAMILY", family),
                ("KAIROS_FLAVOR", flavor),
                ("KAIROS_FLAVOR_RELEASE", number),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
        };
        let expected = |family: &str, flavor: &str, number: &str| Expected {
            family: Some(family.into()),
            flavor: Some(flavor.into()),
            flavor_release: Some(number.into()),
            variant: None,
        };
        let ubuntu = release("debian", "ubuntu", "24.04");
        for family in ["ubuntu", "debian"] {
            expected(family, "ubuntu", "24.04").check(&ubuntu).unwrap();
        }
        expected("rhel", "rockylinux", "9")
            .check(&release("redhat", "rocky", "9"))
            .unwrap();
        expected("opensuse", "opensuse", "leap-15.6")
            .check(&release("suse", "opensuse", "leap-15.6"))
            .unwrap();
        for (family, flavor, number, key) in [
            ("rhel", "ubuntu", "24.04", "FAMILY=rhel"),
            ("ubuntu", "debian", "24.04", "FLAVOR=debian"),
            ("ubuntu", "ubuntu", "22.04", "FLAVOR_RELEASE=22.04"),
        ] {
            let error = expected(family, flavor, number).check(&ubuntu).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(key) && text.contains("ubuntu 24.04"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_variant_follows_from_the_provider_and_must_be_the_expected_one() {
        let made = |variant: &str| [("KAIROS_VARIANT".to_owned(), variant.to_owned())].into();
        for (expected, found, hint) in [
            ("standard", "core", Some("`--provider k3s`")),
            ("core", "standard", Some("leave `VARIANT` out")),
            ("core", "core", None),
            ("standard", "standard", None),
        ] {
            let variant = Some(expected.to_owned());
            let checked = Expected {
                variant,
                ..Expected::default()
            }
            .check(&made(found));
            let text = checked.err().map(|error| error.render_text());
            assert_eq!(text.is_some(), hint.is_some(), "{expected} {found}");
            assert!(text.unwrap_or_default().contains(hint.unwrap_or_default()));
        }
    }

    #[test]
    fn a_recipe_may_hold_them_beside_its_own_keys() {
        let text = "BASE_IMAGE: ubuntu:24.04\nskip-steps: [grub]\nFLAVOR_RELEASE: 24.10\nTRUSTED_BOOT: true\nPROVIDER_NAME:\n";
        let request = Request::from_yaml(text, "r").unwrap();
        assert_eq!(request.base, "ubuntu:24.04");
        assert_eq!(request.skip_steps, ["grub"]);
        assert_eq!(request.expected.flavor_release.as_deref(), Some("24.10"));
        assert!(request.trusted && request.providers.is_empty());
        for (text, words) in [
            (
                "base: x\nBASE_IMGAE: y\n",
                ["line 2", "unknown key `BASE_IMGAE`"],
            ),
            ("base: x\nTRUSTED_BOOT: ture\n", ["`ture`", "TRUSTED_BOOT"]),
            ("base: x\nstage: instal\n", ["line 2", "`install`"]),
        ] {
            let error = Request::from_yaml(text, "r").unwrap_err().render_text();
            for word in words {
                assert!(error.contains(word), "{text}: no {word:?} in {error}");
            }
        }
    }
}
