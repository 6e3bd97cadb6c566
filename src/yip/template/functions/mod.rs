//! The functions of templates: Go's own, and those of sprig that depend on nothing but their arguments.

mod builtin;
mod data;
mod format;
mod numbers;
mod text;

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
const TABLES: &[fn(&str, &Args) -> Option<Outcome>] =
    &[builtin::call, text::call, numbers::call, data::call];

/// What a name of sprig's means that is not here.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "it reads the environment or the network of the building machine",
        &["env", "expandenv", "getHostByName"],
    ),
    (
        "it depends on the moment of the build",
        &["now", "ago", "htmlDate", "htmlDateInZone"],
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
        "kfactory does not have it; write the result instead, or compute it in a command",
        &[
            "abbrev",
            "abbrevboth",
            "adler32sum",
            "b32dec",
            "b32enc",
            "sha1sum",
            "all",
            "any",
            "buildCustomCert",
            "call",
            "camelcase",
            "chunk",
            "date",
            "dateInZone",
            "dateModify",
            "date_in_zone",
            "date_modify",
            "decryptAES",
            "deepCopy",
            "deepEqual",
            "derivePassword",
            "dig",
            "divf",
            "duration",
            "durationRound",
            "addf",
            "add1f",
            "hello",
            "js",
            "kebabcase",
            "kindIs",
            "kindOf",
            "maxf",
            "merge",
            "mergeOverwrite",
            "minf",
            "mulf",
            "mustAppend",
            "mustChunk",
            "mustCompact",
            "mustDateModify",
            "mustDeepCopy",
            "mustFirst",
            "mustFromJson",
            "mustHas",
            "mustInitial",
            "mustLast",
            "mustMerge",
            "mustMergeOverwrite",
            "mustPrepend",
            "mustPush",
            "mustRegexFind",
            "mustRegexFindAll",
            "mustRegexMatch",
            "mustRegexReplaceAll",
            "mustRegexReplaceAllLiteral",
            "mustRegexSplit",
            "mustRest",
            "mustReverse",
            "mustSlice",
            "mustToDate",
            "mustToJson",
            "mustToPrettyJson",
            "mustToRawJson",
            "mustUniq",
            "mustWithout",
            "must_date_modify",
            "round",
            "semver",
            "semverCompare",
            "set",
            "snakecase",
            "subf",
            "swapcase",
            "toDate",
            "typeIs",
            "typeIsLike",
            "typeOf",
            "unixEpoch",
            "unset",
            "urlJoin",
            "urlParse",
            "wrap",
            "wrapWith",
        ],
    ),
];

/// Says whether templates can call `name`.
pub(super) fn known(name: &str) -> Known {
    let no_arguments = Args(Vec::new());
    if matches!(name, "and" | "or")
        || TABLES
            .iter()
            .any(|table| table(name, &no_arguments).is_some())
    {
        return Known::Yes;
    }
    let elsewhere = ELSEWHERE.iter().find(|(_, names)| names.contains(&name));
    elsewhere.map_or(Known::No, |(why, _)| Known::Elsewhere(why))
}

/// Calls `name`.
pub(super) fn call(name: &str, arguments: Vec<Value>) -> Outcome {
    let arguments = Args(arguments);
    TABLES
        .iter()
        .find_map(|table| table(name, &arguments))
        .unwrap_or_else(|| Err("wrong number of args".into()))
}

/// The arguments of a call.
#[derive(Debug)]
pub(super) struct Args(Vec<Value>);

impl Args {
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
