//! What a user changes about the packages, as read from the command line or a recipe: `--kernel`, `--firmware`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Which kernel the image gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KernelChoice {
    /// The one that the rules choose.
    #[default]
    Default,
    /// None.
    None,
    /// This package, in this version where one is named.
    Package {
        /// The package's name.
        name: String,
        /// Its version, as the package manager writes it.
        version: Option<String>,
    },
    /// What this file holds.
    File(PathBuf),
}

impl FromStr for KernelChoice {
    type Err = Error;

    /// Reads `PACKAGE[=VERSION]`, `none`, or a file, which is told from a package by its `/`.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Default);
        }
        if text == "none" {
            return Ok(Self::None);
        }
        if text.contains('/') {
            return Ok(Self::File(text.into()));
        }
        let (name, version) = match text.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if name.eq_ignore_ascii_case("none") {
            return Err(
                Error::usage(format!("`--kernel {text}`: that is no kernel package"))
                    .hint("did you mean `none`?"),
            );
        }
        let good_version = version.is_none_or(|version| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ".+-:~_^".contains(c);
            !version.is_empty() && version.chars().all(allowed)
        });
        if !is_package_name(name) || !good_version {
            return Err(Error::usage(format!("`{text}` is no kernel package"))
                .hint("`--kernel PACKAGE`, `--kernel PACKAGE=VERSION`, `--kernel none` or `--kernel ./FILE`"));
        }
        Ok(Self::Package {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        })
    }
}

/// Which firmware for devices the image gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FirmwareChoice {
    /// What the rules choose.
    #[default]
    Default,
    /// All that the distribution has.
    All,
    /// None.
    None,
    /// That of these vendors.
    Vendors(Vec<String>),
}

impl FromStr for FirmwareChoice {
    type Err = Error;

    /// Reads `all`, `none`, or vendors separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" => Ok(Self::Default),
            "all" => Ok(Self::All),
            "none" => Ok(Self::None),
            _ => {
                let vendors: Vec<String> = text.split(',').map(|v| v.trim().to_owned()).collect();
                if let Some(word) = vendors
                    .iter()
                    .find(|v| matches!(v.as_str(), "" | "all" | "none"))
                {
                    return Err(Error::usage(format!("cannot read `--firmware {text}`"))
                        .context_below(if word.is_empty() {
                            "a vendor's name is empty".to_owned()
                        } else {
                            format!("`{word}` stands alone")
                        })
                        .hint(
                            "`--firmware all`, `--firmware none` or `--firmware VENDOR,VENDOR`",
                        ));
                }
                Ok(Self::Vendors(vendors))
            }
        }
    }
}

/// Tells whether a text is a package's name on any distribution; never an option, a pattern or a path.
pub fn is_package_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && !name.ends_with('-')
}

/// Checks one value of `--with` or `--without`.
///
/// # Errors
///
/// A usage error that names the option.
pub fn check_package(option: &str, name: &str) -> Result<()> {
    if is_package_name(name) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "`{option} {name}`: that is no package name"
    ))
    .hint("a name has letters, digits and `.+-_`, and begins with a letter or a digit; several are separated by commas"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_a_package_a_file_or_none() {
        let package = |name: &str, version: Option<&str>| KernelChoice::Package {
            name: name.into(),
            version: version.map(str::to_owned),
        };
        for (text, expected) in [
            ("", KernelChoice::Default),
            ("none", KernelChoice::None),
            (
                "linux-image-cloud-amd64",
                package("linux-image-cloud-amd64", None),
            ),
            (
                "kernel=6.12.0-55.9.1.el10",
                package("kernel", Some("6.12.0-55.9.1.el10")),
            ),
            ("./vmlinuz", KernelChoice::File("./vmlinuz".into())),
        ] {
            assert_eq!(text.parse::<KernelChoice>().unwrap(), expected, "{text}");
        }
        for text in ["-x", "a b", "a=", "linux-", "a=1;b", "*"] {
            assert!(text.parse::<KernelChoice>().is_err(), "{text}");
        }
        for text in ["NONE", "None", "none=1"] {
            let error = text.parse::<KernelChoice>().unwrap_err().render_text();
            assert!(error.contains("did you mean `none`?"), "{text}: {error}");
        }
    }

    #[test]
    fn firmware_is_all_none_or_vendors_and_words_do_not_mix() {
        assert_eq!(
            "all".parse::<FirmwareChoice>().unwrap(),
            FirmwareChoice::All
        );
        assert_eq!(
            "amd, intel".parse::<FirmwareChoice>().unwrap(),
            FirmwareChoice::Vendors(vec!["amd".into(), "intel".into()])
        );
        for text in ["amd,none", "all,amd", "amd,,intel", ","] {
            assert!(text.parse::<FirmwareChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn package_names_are_words_without_meaning_to_a_shell_or_a_package_manager() {
        for name in [
            "jq",
            "libstdc++6",
            "python3.11",
            "NetworkManager",
            "linux-image-6.1.0-41-amd64",
        ] {
            assert!(check_package("--with", name).is_ok(), "{name}");
        }
        for name in ["", "-y", "vim-", "a/b", "a b", "../x", "x*", "a=1"] {
            assert!(check_package("--with", name).is_err(), "{name}");
        }
    }
}
