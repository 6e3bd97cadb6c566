//! Semantic versions, and the constraints that they may satisfy.
//!
//! Versions may begin with `v` and leave out their last numbers. A constraint is written as in Masterminds/semver: `||`
//! between alternatives, commas or spaces between what must hold together, `x` for any number, `1.2 - 1.4` for a range.

use std::cmp::Ordering;
use std::sync::LazyLock;

use regex::{Captures, Match, Regex};
use semver::Version;

use super::super::value::{Release, Value};
use super::{Args, Fault, Outcome};

const TAIL: &str = r"(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?";
const PARTIAL: &str = r"v?([0-9xX*]+)(?:\.([0-9xX*]+))?(?:\.([0-9xX*]+))?";

static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    compiled(&format!(
        r"^v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{TAIL}$"
    ))
});
static CONSTRAINT: LazyLock<Regex> = LazyLock::new(|| {
    compiled(&format!(
        r"^\s*(=>|=<|!=|>=|<=|~>|=|>|<|~|\^)?\s*{PARTIAL}{TAIL}(\s*,\s*|\s+|$)"
    ))
});
static RANGE: LazyLock<Regex> = LazyLock::new(|| compiled(r"(\S+)\s+-\s+(\S+)"));

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants, and tests use each"
)]
fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern")
}

pub(super) fn call(name: &str, args: &Args) -> Option<Outcome> {
    Some(match name {
        "semver" => args.exactly(1).and_then(|()| {
            let original = args.text(0)?;
            Ok(Value::Version(Box::new(Release {
                version: parse(original)?,
                original: original.to_owned(),
            })))
        }),
        "semverCompare" => args.exactly(2).and_then(|()| {
            let groups = groups(args.text(0)?)?;
            let version = parse(args.text(1)?)?;
            Ok(Value::Bool(
                groups.iter().any(|group| satisfies(&version, group)),
            ))
        }),
        _ => return None,
    })
}

fn parse(text: &str) -> Result<Version, Fault> {
    let found = VERSION.captures(text).ok_or("invalid semantic version")?;
    let part = |index| found.get(index).map_or("0", |part| part.as_str());
    assemble([part(1), part(2), part(3)], found.get(4), found.get(5))
}

/// Makes a version of its three numbers, and of what stands behind `-` and `+`.
fn assemble(
    numbers: [&str; 3],
    early: Option<Match<'_>>,
    build: Option<Match<'_>>,
) -> Result<Version, Fault> {
    let [major, minor, patch] = numbers.map(|digits| match digits.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    });
    let mut text = format!("{major}.{minor}.{patch}");
    for (sign, part) in [('-', early), ('+', build)] {
        if let Some(part) = part {
            text.push(sign);
            text.push_str(part.as_str());
        }
    }
    Version::parse(&text).map_err(|_| "invalid semantic version".into())
}

/// One comparison, and how many of its version's numbers were given.
#[derive(Debug)]
struct Constraint {
    operator: String,
    version: Version,
    given: usize,
}

/// Reads the alternatives, each with what must hold together.
fn groups(text: &str) -> Result<Vec<Vec<Constraint>>, Fault> {
    let improper = || Fault::Failed(format!("improper constraint: {text}"));
    let mut out = Vec::new();
    for alternative in text.split("||") {
        let alternative = RANGE.replace_all(alternative, ">=$1 <=$2");
        let mut rest = alternative.as_ref();
        let mut group = Vec::new();
        let mut goes_on = true;
        while goes_on {
            let found = CONSTRAINT.captures(rest).ok_or_else(improper)?;
            group.push(constraint(&found).map_err(|_| improper())?);
            rest = &rest[found.get(0).map_or(0, |all| all.end())..];
            goes_on = !rest.is_empty() || found.get(7).is_some_and(|it| it.as_str().contains(','));
        }
        out.push(group);
    }
    Ok(out)
}

fn constraint(found: &Captures<'_>) -> Result<Constraint, Fault> {
    let parts: Vec<&str> = (2..5)
        .map_while(|index| found.get(index).map(|part| part.as_str()))
        .take_while(|part| !matches!(*part, "x" | "X" | "*"))
        .collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or("0");
    Ok(Constraint {
        operator: found.get(1).map_or("", |it| it.as_str()).to_owned(),
        version: assemble([part(0), part(1), part(2)], found.get(5), found.get(6))?,
        given: parts.len(),
    })
}

/// A version before a release satisfies only what names such a version itself.
fn satisfies(version: &Version, group: &[Constraint]) -> bool {
    let may_be_early = group.iter().any(|one| !one.version.pre.is_empty());
    (version.pre.is_empty() || may_be_early) && group.iter().all(|one| one.holds(version))
}

impl Constraint {
    fn holds(&self, version: &Version) -> bool {
        let order = version.cmp_precedence(&self.version);
        let (have, want) = (version, &self.version);
        let same_major = have.major == want.major;
        let same_minor = same_major && have.minor == want.minor;
        match self.operator.as_str() {
            "" | "=" if self.given == 3 => order == Ordering::Equal,
            "" | "=" | "~" | "~>" => {
                let is_any = self.given == 0
                    || (self.given == 3 && (want.major, want.minor, want.patch) == (0, 0, 0));
                let is_near = if self.given == 1 {
                    same_major
                } else {
                    same_minor
                };
                order != Ordering::Less && (is_any || is_near)
            }
            "!=" => match self.given {
                1 => !same_major,
                2 => !same_minor || have.pre != want.pre,
                _ => order != Ordering::Equal,
            },
            ">" => match self.given {
                1 => have.major > want.major,
                2 => (have.major, have.minor) > (want.major, want.minor),
                _ => order == Ordering::Greater,
            },
            "<" => order == Ordering::Less,
            ">=" | "=>" => order != Ordering::Less,
            "<=" | "=<" => match self.given {
                3 => order != Ordering::Greater,
                1 => have.major <= want.major,
                _ => (have.major, have.minor) <= (want.major, want.minor),
            },
            // `^`: the first number that is not zero stays.
            _ => {
                let is_near = if want.major > 0 || self.given == 1 {
                    same_major
                } else if want.minor > 0 || self.given == 2 {
                    same_minor
                } else {
                    same_minor && have.patch == want.patch
                };
                order != Ordering::Less && is_near
            }
        }
    }
}
