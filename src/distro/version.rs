//! Release numbers and the constraints the package rules put on them.
//!
//! Distributions number their releases with two to three dotted numbers, not with semantic versions: `24.04` is
//! the release `24.4`, and `9` is `9.0`. Constraints are therefore their own small language here.

use std::cmp::Ordering;
use std::fmt;

/// Marks what [`Constraint::parse`] could not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// The text has no leading number, or a number that is too large.
    #[error("{text:?} is not a release number")]
    NotANumber {
        /// The text as it was given.
        text: String,
    },
    /// A constraint, or one side of its `,` or `||`, is empty.
    #[error("{text:?} is not a version constraint")]
    NotAConstraint {
        /// The text as it was given.
        text: String,
    },
}

/// A release of a distribution, for comparison.
///
/// Missing numbers count as zero, so `9` equals `9.0`. [`Release::Newest`] is above every numbered release: it stands for
/// rolling distributions and for development branches that have no number yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// A release with a number, its parts in order, without trailing zeros.
    Numbered(Vec<u64>),
    /// Whatever comes after every numbered release.
    Newest,
}

impl Release {
    /// Reads the leading dotted number of `text`; what follows it (`-SP6`, `_alpha20250108`) is not looked at.
    ///
    /// # Errors
    ///
    /// [`VersionError::NotANumber`] if `text` does not begin with a digit or a number passes 64 bits.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let mut parts =
            numbers(text[..end].trim_end_matches('.')).ok_or_else(|| not_a_number(text))?;
        drop_trailing_zeros(&mut parts);
        Ok(Self::Numbered(parts))
    }

    /// Returns the first number, or `None` for [`Release::Newest`].
    pub fn major(&self) -> Option<u64> {
        match self {
            Self::Numbered(parts) => Some(parts.first().copied().unwrap_or(0)),
            Self::Newest => None,
        }
    }
}

impl Ord for Release {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Newest, Self::Newest) => Ordering::Equal,
            (Self::Newest, _) => Ordering::Greater,
            (_, Self::Newest) => Ordering::Less,
            // Without trailing zeros, the shorter of two lists with a common start is the smaller release.
            (Self::Numbered(a), Self::Numbered(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for Release {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A condition on a release: alternatives joined by `||`, each a list joined by `,` of which all must hold.
///
/// Operators are `<`, `<=`, `>`, `>=`, `!=`, `=` and `~>`; none means `=`. `~> 1.2` accepts `1.2` and everything after it
/// below `2`, `~> 1.2.3` everything below `1.3`, `~> 1` everything from `1` on: the last number given may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    alternatives: Vec<Vec<Term>>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    op: Op,
    release: Release,
    /// The release in which `~>` ends, exclusive; `None` where it has no end.
    end: Option<Release>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    NotEqual,
    Equal,
    Compatible,
}

/// Longer operators first: `<` would otherwise hide `<=`.
const OPERATORS: &[(&str, Op)] = &[
    ("<=", Op::LessEqual),
    (">=", Op::GreaterEqual),
    ("!=", Op::NotEqual),
    ("~>", Op::Compatible),
    ("<", Op::Less),
    (">", Op::Greater),
    ("=", Op::Equal),
];

impl Constraint {
    /// Parses `text`, for example `>=22.04, <26.04 || 28.04`.
    ///
    /// # Errors
    ///
    /// [`VersionError::NotAConstraint`] for an empty part, [`VersionError::NotANumber`] for a part without a clean number.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let all_of = |part: &str| {
            part.split(',')
                .map(Term::parse)
                .collect::<Result<Vec<_>, _>>()
        };
        let alternatives = text
            .split("||")
            .map(all_of)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            alternatives,
            text: text.to_owned(),
        })
    }

    /// Tells whether `release` satisfies the constraint.
    pub fn accepts(&self, release: &Release) -> bool {
        self.alternatives
            .iter()
            .any(|terms| terms.iter().all(|term| term.accepts(release)))
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Term {
    fn parse(text: &str) -> Result<Self, VersionError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(VersionError::NotAConstraint {
                text: text.to_owned(),
            });
        }
        let (op, number) = OPERATORS
            .iter()
            .find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?.trim_start())))
            .unwrap_or((Op::Equal, text));
        let mut parts = numbers(number).ok_or_else(|| not_a_number(number))?;
        let end = match op {
            Op::Compatible => compatible_end(&parts),
            _ => None,
        };
        drop_trailing_zeros(&mut parts);
        Ok(Self {
            op,
            release: Release::Numbered(parts),
            end,
        })
    }

    fn accepts(&self, release: &Release) -> bool {
        let order = release.cmp(&self.release);
        match self.op {
            Op::Less => order.is_lt(),
            Op::LessEqual => order.is_le(),
            Op::Greater => order.is_gt(),
            Op::GreaterEqual => order.is_ge(),
            Op::NotEqual => order.is_ne(),
            Op::Equal => order.is_eq(),
            Op::Compatible => order.is_ge() && self.end.as_ref().is_none_or(|end| release < end),
        }
    }
}

/// Returns where `~>` stops: the second to last number, one up, and nothing after it.
fn compatible_end(parts: &[u64]) -> Option<Release> {
    let mut end = parts.split_last()?.1.to_vec();
    *end.last_mut()? = end.last()?.saturating_add(1);
    Some(Release::Numbered(end))
}

/// Reads dotted numbers; `None` if any part is empty, has another character or passes 64 bits.
fn numbers(text: &str) -> Option<Vec<u64>> {
    let number = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())
            .flatten()
    };
    text.split('.').map(number).collect()
}

/// Makes equal releases equal values: `9.0` becomes `9`.
fn drop_trailing_zeros(parts: &mut Vec<u64>) {
    while parts.last() == Some(&0) {
        parts.pop();
    }
}

fn not_a_number(text: &str) -> VersionError {
    VersionError::NotANumber {
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(constraint: &str, release: &str) -> bool {
        Constraint::parse(constraint)
            .expect("a constraint")
            .accepts(&Release::parse(release).expect("a release"))
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_padded_with_zeros() {
        for (constraint, release, expected) in [
            ("24.04", "24.04", true),
            ("24.04", "24.4.0", true),
            ("9", "9.0", true),
            (">=9.0", "9", true),
            (">=9.0", "8.10", false),
            ("<10", "9.5", true),
            ("<10", "10.0", false),
            (">=13", "12", false),
            (">=22.04", "20.04", false),
            ("<26.04", "25.10", true),
            (">9", "9.0.1", true),
            ("!=9", "9.0", false),
            ("=0", "0.0", true),
        ] {
            assert_eq!(
                accepts(constraint, release),
                expected,
                "{constraint} on {release}"
            );
        }
    }

    #[test]
    fn comma_is_and_and_double_bar_is_or() {
        for (constraint, release, expected) in [
            ("!=5.4, !=5.5", "5.4", false),
            ("!=5.4, !=5.5", "15.6", true),
            ("20.04 || 22.04", "22.04", true),
            ("20.04 || 22.04", "21.04", false),
            (">=22.04,<24.04||26.04", "26.04", true),
            (">=22.04,<24.04||26.04", "24.04", false),
        ] {
            assert_eq!(
                accepts(constraint, release),
                expected,
                "{constraint} on {release}"
            );
        }
    }

    #[test]
    fn tilde_lets_the_last_given_number_grow() {
        for (constraint, release, expected) in [
            ("~> 1.2", "1.2", true),
            ("~> 1.2", "1.9.9", true),
            ("~> 1.2", "2.0", false),
            ("~> 1.2", "1.1", false),
            ("~>1.2.3", "1.2.9", true),
            ("~>1.2.3", "1.3", false),
            ("~>1.0", "1.5", true),
            ("~>1", "7", true),
        ] {
            assert_eq!(
                accepts(constraint, release),
                expected,
                "{constraint} on {release}"
            );
        }
    }

    #[test]
    fn the_newest_release_is_above_every_number_and_equal_to_none() {
        let accepts = |text: &str| {
            Constraint::parse(text)
                .expect("a constraint")
                .accepts(&Release::Newest)
        };
        assert!(accepts(">=13"));
        assert!(accepts("!=13"));
        assert!(!accepts("13"));
        assert!(!accepts("<99999"));
        assert!(!accepts("~>12.1"));
    }

    #[test]
    fn a_release_is_the_leading_number_of_its_text() {
        for (text, same) in [
            ("15-SP6", "15"),
            ("3.22_alpha20250108", "3.22"),
            ("12.", "12"),
            ("24.04.3 LTS", "24.4.3"),
        ] {
            assert_eq!(Release::parse(text), Release::parse(same), "{text}");
        }
        assert_eq!(Release::parse("9.5").expect("a release").major(), Some(9));
    }

    #[test]
    fn text_without_a_number_is_refused() {
        for text in ["", "sid", ".5", "..", "v1", "99999999999999999999"] {
            assert!(Release::parse(text).is_err(), "{text:?}");
        }
        for text in ["", ">=", "1,", "||", ">= 12a", "1..2", "=> 1"] {
            assert!(Constraint::parse(text).is_err(), "{text:?}");
        }
    }
}
