//! The functions of templates: Go's own, and those of sprig that depend on nothing but their arguments.

mod builtin;
mod data;
mod decimal;
mod encoding;
mod format;
mod kinds;
mod layout;
mod numbers;
mod text;
mod version;

use super::budget::{self, Budget};
use super::value::Value;

/// A result that would be larger than this is refused before it is made.
const MAX_BYTES: usize = 16 << 20;

/// Whether there is a function of some name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Here.
    Yes,
    /// In other yip programs only, and why not here.
    Elsewhere(&'static str),
    /// Nowhere.
    No,
}

/// Why a call gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails everywhere.
    Failed(String),
    /// It works elsewhere, in a way that is not known here.
    Unsupported(String),
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Fault::Failed(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Fault::Failed(message.to_owned())
    }
}

pub(super) type Outcome = Result<Value, Fault>;

/// Where functions of one kind are: each answers `None` for a name that is not its own.
const TABLES: &[fn(&str, &Args) -> Option<Outcome>] = &[
    builtin::call,
    text::call,
    layout::call,
    encoding::call,
    numbers::call,
    decimal::call,
    data::call,
    kinds::call,
    version::call,
];

/// Functions that differ from others only in how they fail, which here is the same: an error either way.
const TWINS: &[&str] = &[
    "append",
    "chunk",
    "compact",
    "deepCopy",
    "first",
    "has",
    "initial",
    "last",
    "prepend",
    "push",
    "regexFind",
    "regexFindAll",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "regexSplit",
    "rest",
    "reverse",
    "slice",
    "toJson",
    "toPrettyJson",
    "toRawJson",
    "uniq",
    "without",
];

/// What a name of sprig's means that is not here.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "it reads the environment or the network of the building machine",
        &["env", "expandenv", "getHostByName"],
    ),
    (
        "it depends on the moment of the build, or on the time zone of the building machine",
        &[
            "ago",
            "date",
            "dateInZone",
            "dateModify",
            "date_in_zone",
            "date_modify",
            "htmlDate",
            "htmlDateInZone",
            "mustDateModify",
            "mustToDate",
            "must_date_modify",
            "now",
            "toDate",
            "unixEpoch",
        ],
    ),
    (
        "it gives something else each time, so that no two builds would be equal",
        &[
            "bcrypt",
            "encryptAES",
            "genCA",
            "genCAWithKey",
            "genPrivateKey",
            "genSelfSignedCert",
            "genSelfSignedCertWithKey",
            "genSignedCert",
            "genSignedCertWithKey",
            "htpasswd",
            "randAlpha",
            "randAlphaNum",
            "randAscii",
            "randBytes",
            "randInt",
            "randNumeric",
            "shuffle",
            "uuidv4",
        ],
    ),
    (
        "keys and secrets do not belong into a build's files: make them on the machine that needs them",
        &["buildCustomCert", "decryptAES", "derivePassword"],
    ),
    (
        "it changes a mapping in place; make another with `dict`, `pick` or `omit`",
        &[
            "merge",
            "mergeOverwrite",
            "mustMerge",
            "mustMergeOverwrite",
            "set",
            "unset",
        ],
    ),
    ("SHA-1 can be forged; use `sha256sum`", &["sha1sum"]),
    (
        "kfactory does not have it; write the result instead, or compute it in a command",
        &[
            "call",
            "camelcase",
            "deepEqual",
            "duration",
            "durationRound",
            "kebabcase",
            "snakecase",
            "urlJoin",
            "urlParse",
        ],
    ),
];

/// Returns the name that a function is found under.
fn canonical(name: &str) -> String {
    let twin = name.strip_prefix("must").map(|rest| {
        let mut letters = rest.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    twin.filter(|twin| TWINS.contains(&twin.as_str()))
        .unwrap_or_else(|| name.to_owned())
}

/// Says whether templates can call `name`.
pub(super) fn known(name: &str) -> Known {
    let budget = Budget::default();
    let no_arguments = Args(Vec::new(), &budget);
    let found = canonical(name);
    if matches!(name, "and" | "or")
        || TABLES
            .iter()
            .any(|table| table(&found, &no_arguments).is_some())
    {
        return Known::Yes;
    }
    let elsewhere = ELSEWHERE.iter().find(|(_, names)| names.contains(&name));
    elsewhere.map_or(Known::No, |(why, _)| Known::Elsewhere(why))
}

/// Calls `name`; what it makes is taken from `budget`.
pub(super) fn call(name: &str, arguments: Vec<Value>, budget: &Budget) -> Outcome {
    budget::check_arguments(&arguments)?;
    let arguments = Args(arguments, budget);
    let name = canonical(name);
    let value = TABLES
        .iter()
        .find_map(|table| table(&name, &arguments))
        .unwrap_or_else(|| Err("wrong number of args".into()))?;
    budget.made(&value)?;
    Ok(value)
}

/// The arguments of a call, and what it may cost.
#[derive(Debug)]
pub(super) struct Args<'a>(Vec<Value>, &'a Budget);

impl Args<'_> {
    /// Counts work that is more than reading the arguments and writing the result, in bytes looked at.
    fn charge(&self, bytes: usize) -> Result<(), Fault> {
        Ok(self.1.charge(bytes)?)
    }

    fn exactly(&self, count: usize) -> Result<(), Fault> {
        if self.0.len() == count {
            return Ok(());
        }
        Err(format!("wrong number of args: want {count} got {}", self.0.len()).into())
    }

    fn at_least(&self, count: usize) -> Result<(), Fault> {
        if self.0.len() >= count {
            return Ok(());
        }
        Err(format!(
            "wrong number of args: want at least {count} got {}",
            self.0.len()
        )
        .into())
    }

    fn any(&self, index: usize) -> Result<&Value, Fault> {
        self.0
            .get(index)
            .ok_or_else(|| "wrong number of args".into())
    }

    fn from(&self, index: usize) -> &[Value] {
        self.0.get(index..).unwrap_or_default()
    }

    fn text(&self, index: usize) -> Result<&str, Fault> {
        match self.any(index)? {
            Value::Text(text) => Ok(text),
            Value::Nil => Err("invalid value; expected string".into()),
            other => Err(format!(
                "wrong type for value; expected string; got {}",
                other.kind()
            )
            .into()),
        }
    }

    fn int(&self, index: usize) -> Result<i64, Fault> {
        match self.any(index)? {
            Value::Int(number) => Ok(*number),
            Value::Nil => Err("invalid value; expected int".into()),
            other => {
                Err(format!("wrong type for value; expected int; got {}", other.kind()).into())
            }
        }
    }

    fn bool(&self, index: usize) -> Result<bool, Fault> {
        match self.any(index)? {
            Value::Bool(value) => Ok(*value),
            other => {
                Err(format!("wrong type for value; expected bool; got {}", other.kind()).into())
            }
        }
    }

    fn list(&self, index: usize) -> Result<&[Value], Fault> {
        match self.any(index)? {
            Value::List(items) => Ok(items),
            other => Err(format!(
                "wrong type for value; expected a list; got {}",
                other.kind()
            )
            .into()),
        }
    }

    fn map(&self, index: usize) -> Result<&std::collections::BTreeMap<String, Value>, Fault> {
        match self.any(index)? {
            Value::Map(entries) => Ok(entries),
            other => Err(format!(
                "wrong type for value; expected a dict; got {}",
                other.kind()
            )
            .into()),
        }
    }
}

/// Refuses a result that would not fit.
fn fits(bytes: Option<usize>) -> Result<(), Fault> {
    match bytes {
        Some(bytes) if bytes <= MAX_BYTES => Ok(()),
        _ => Err(format!("the result has more than {MAX_BYTES} bytes").into()),
    }
}
