//! Which of the installed kernels the image boots.
//!
//! Pure: the caller lists `/lib/modules` and says what it found there; nothing here touches a disk. The order is numeric, so
//! that `5.15.0-101` comes after `5.15.0-99` and names with `_` (`6.12.0-55.el10.x86_64`) are versions like all others.

use std::cmp::Ordering;

/// The models for which Ubuntu installs a board kernel beside the generic one.
const RASPBERRY_MODELS: [&str; 2] = ["rpi3", "rpi4"];

/// The end of the names of the kernels with the Raspberry Pi's own drivers.
const RASPBERRY_SUFFIX: &str = "-raspi";

/// One entry of `/lib/modules` that may be a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelCandidate {
    /// The name of the directory, which is the kernel's release (`uname -r`).
    pub name: String,
    /// Whether `modules.dep` is in the directory. It is missing in what removed packages leave behind.
    pub has_modules_dep: bool,
    /// Whether the kernel itself was found: `vmlinuz` in the directory, or `/boot/vmlinuz-NAME`, `/boot/vmlinux-NAME` or
    /// `/boot/Image-NAME`.
    pub has_vmlinuz: bool,
}

/// Why no kernel could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// `/lib/modules` is missing or holds no directory.
    #[error("no kernel versions found in `/lib/modules`")]
    NoneFound,
}

/// Chooses the kernel that the image boots, and returns its name exactly as it was given.
///
/// `candidates` are the directories of `/lib/modules` (not its files), in any order. Left-overs lose first: if some candidates
/// have a kernel file, only these count; then, if some have `modules.dep`, only these. `model` `rpi3` or `rpi4` then prefers names
/// that end in `-raspi`, as the generic kernel that Ubuntu pulls in lacks the drivers of the Pi's SD card. Of what remains the
/// highest version wins; names that do not begin with a number count only if there is no other. Among those the alphabetically
/// first wins, with the `-raspi` preference the last.
///
/// # Errors
///
/// [`KernelError::NoneFound`] for an empty list.
pub fn choose<'a>(candidates: &'a [KernelCandidate], model: &str) -> Result<&'a str, KernelError> {
    let mut names: Vec<&KernelCandidate> = candidates.iter().collect();
    narrow(&mut names, |candidate| candidate.has_vmlinuz);
    narrow(&mut names, |candidate| candidate.has_modules_dep);
    let raspberry = RASPBERRY_MODELS.contains(&model)
        && narrow(&mut names, |candidate| {
            candidate.name.ends_with(RASPBERRY_SUFFIX)
        });
    let versioned = narrow(&mut names, |candidate| is_version(&candidate.name));
    let names = names.into_iter().map(|candidate| candidate.name.as_str());
    let chosen = match (versioned, raspberry) {
        (true, _) => names.max_by(|a, b| compare(a, b)),
        (false, true) => names.max(),
        (false, false) => names.min(),
    };
    chosen.ok_or(KernelError::NoneFound)
}

/// Keeps only what `wanted` holds for, unless it holds for nothing; returns whether it held for something.
fn narrow(
    candidates: &mut Vec<&KernelCandidate>,
    wanted: impl Fn(&KernelCandidate) -> bool,
) -> bool {
    let found = candidates.iter().any(|candidate| wanted(candidate));
    if found {
        candidates.retain(|candidate| wanted(candidate));
    }
    found
}

fn is_version(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit())
}

/// Orders two kernel releases by version.
///
/// Runs of digits compare as numbers of any length, runs of letters as text, and a number is newer than a word. A release
/// candidate (`-rc1`, `~rc1`) is older than the release it leads to, and a `debug` build never wins against the plain one.
/// Names that still are equal (`1.0` and `1_0`) fall back to the text, so that the order is total.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (Tokens(a), Tokens(b));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return a.cmp(b),
            (left, right) => left.unwrap_or(Token::End).cmp(&right.unwrap_or(Token::End)),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// A part of a kernel's release; the order of the variants is their rank against each other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Token<'a> {
    /// `rc` and what is glued to a `~`: older than the same name without it.
    Before(&'a str),
    /// The name is over.
    End,
    /// A word.
    Word(&'a str),
    /// Length without leading zeros, then the digits: orders as the number does, without a limit on its size.
    Number(usize, &'a str),
}

/// Splits a release into words and numbers; every other character only separates.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let start = self.0.find(|c: char| c.is_alphanumeric())?;
        let tilde = self.0[..start].ends_with('~');
        let rest = &self.0[start..];
        let digits = rest.starts_with(|c: char| c.is_ascii_digit());
        let end = rest
            .find(|c: char| !c.is_alphanumeric() || c.is_ascii_digit() != digits)
            .unwrap_or(rest.len());
        let (run, rest) = rest.split_at(end);
        self.0 = rest;
        Some(if digits {
            let digits = run.trim_start_matches('0');
            Token::Number(digits.len(), digits)
        } else if tilde || run == "rc" || run == "debug" {
            Token::Before(run)
        } else {
            Token::Word(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(names: &[&str]) -> Vec<KernelCandidate> {
        let complete = |name: &&str| KernelCandidate {
            name: (*name).to_owned(),
            has_modules_dep: true,
            has_vmlinuz: true,
        };
        names.iter().map(complete).collect()
    }

    fn chosen(names: &[&str], model: &str) -> String {
        choose(&complete(names), model)
            .expect("a kernel")
            .to_owned()
    }

    #[test]
    fn the_numerically_highest_version_wins() {
        for (names, expected) in [
            (
                &[
                    "5.15.0-100-generic",
                    "5.15.0-101-generic",
                    "5.15.0-102-generic",
                ][..],
                "5.15.0-102-generic",
            ),
            (
                &["5.4.0-101-generic.fc32.x86_64"],
                "5.4.0-101-generic.fc32.x86_64",
            ),
            (
                &["5.15.0-99-generic", "5.15.0-101-generic"],
                "5.15.0-101-generic",
            ),
            (
                &[
                    "6.12.0-55.9.1.el10_0.x86_64",
                    "6.12.0-55.12.1.el10_0.x86_64",
                ],
                "6.12.0-55.12.1.el10_0.x86_64",
            ),
            (
                &["6.9.5-200.fc40.x86_64", "6.10.3-200.fc40.x86_64"],
                "6.10.3-200.fc40.x86_64",
            ),
            (&["6.12-foo", "6.11.9-foo"], "6.12-foo"),
            (&["6.12-foo", "6.12.1-foo"], "6.12.1-foo"),
            (&["6.1.0-9-amd64", "6.1.0-41-amd64"], "6.1.0-41-amd64"),
            (&["6.12.13-0-lts", "6.12.9-0-lts"], "6.12.13-0-lts"),
            (&["6.12.0-rc7", "6.12.0"], "6.12.0"),
            (&["6.12~rc7-amd64", "6.12-amd64"], "6.12-amd64"),
            (
                &["6.12.0-rc2-amd64", "6.12.0-rc10-amd64"],
                "6.12.0-rc10-amd64",
            ),
            (
                &["6.4.0-150600.21-default", "6.4.0-150600.23.7-default"],
                "6.4.0-150600.23.7-default",
            ),
            (
                &["5.14.0-503.el9.x86_64+debug", "5.14.0-503.el9.x86_64"],
                "5.14.0-503.el9.x86_64",
            ),
            (
                &[
                    "6.1.0-99999999999999999999999-x",
                    "6.1.0-100000000000000000000000-x",
                ],
                "6.1.0-100000000000000000000000-x",
            ),
        ] {
            assert_eq!(chosen(names, "generic"), expected);
            let reversed: Vec<&str> = names.iter().rev().copied().collect();
            assert_eq!(
                chosen(&reversed, "generic"),
                expected,
                "the order of the list must not matter"
            );
        }
    }

    #[test]
    fn names_that_are_no_versions_count_only_among_themselves() {
        assert_eq!(
            chosen(&["beta-kernel", "alpha-kernel"], "generic"),
            "alpha-kernel"
        );
        assert_eq!(chosen(&["zeta-kernel", "4.4.0"], "generic"), "4.4.0");
    }

    #[test]
    fn a_pi_prefers_its_own_kernel() {
        assert_eq!(
            chosen(&["6.8.0-51-generic", "5.15.0-1025-raspi"], "rpi4"),
            "5.15.0-1025-raspi"
        );
        assert_eq!(
            chosen(&["5.15.0-1025-raspi", "5.15.0-1009-raspi"], "rpi3"),
            "5.15.0-1025-raspi"
        );
        assert_eq!(
            chosen(&["custom-b-raspi", "custom-a-raspi"], "rpi4"),
            "custom-b-raspi"
        );
        assert_eq!(
            chosen(&["6.8.0-51-generic", "6.8.0-52-generic"], "rpi4"),
            "6.8.0-52-generic"
        );
        assert_eq!(
            chosen(&["6.8.0-51-generic", "5.15.0-1025-raspi"], "generic"),
            "6.8.0-51-generic"
        );
    }

    #[test]
    fn what_removed_kernels_leave_behind_does_not_win() {
        let mut kernels = complete(&["6.1.0-10-amd64", "6.1.0-11-amd64"]);
        kernels[1].has_vmlinuz = false;
        assert_eq!(choose(&kernels, "generic"), Ok("6.1.0-10-amd64"));
        kernels[1].has_vmlinuz = true;
        kernels[1].has_modules_dep = false;
        assert_eq!(choose(&kernels, "generic"), Ok("6.1.0-10-amd64"));
    }

    #[test]
    fn incomplete_kernels_are_still_chosen_when_there_is_nothing_better() {
        let mut kernels = complete(&["5.15.148-tegra", "5.15.136-tegra"]);
        for kernel in &mut kernels {
            kernel.has_vmlinuz = false;
            kernel.has_modules_dep = false;
        }
        assert_eq!(
            choose(&kernels, "nvidia-jetson-orin-nx"),
            Ok("5.15.148-tegra")
        );
    }

    #[test]
    fn no_candidates_is_an_error() {
        assert_eq!(choose(&[], "generic"), Err(KernelError::NoneFound));
    }

    #[test]
    fn the_order_is_total() {
        let names = [
            "1.0",
            "1_0",
            "1.0~a",
            "1.0-rc1",
            "1.0-debug",
            "1.00",
            "",
            "~",
            "é",
            "1é",
            "a1",
            "1a",
            "01",
        ];
        for a in names {
            for b in names {
                assert_eq!(compare(a, b), compare(b, a).reverse(), "{a:?} {b:?}");
                assert_eq!(compare(a, b).is_eq(), a == b, "{a:?} {b:?}");
            }
        }
    }
}
