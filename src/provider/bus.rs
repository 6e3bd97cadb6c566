//! The language of provider plugins: events, answers, and what a set of answers means.
//!
//! A plugin is an executable called `agent-provider-NAME`. It gets the event's name as its argument and one JSON object on standard
//! input, and answers with one JSON object on standard output. Everything else is an error: a plugin that says nothing, two things,
//! or something else. Every plugin gets every event, and each is waited for; how one is run is the caller's business.

use serde::{Deserialize, Serialize};
use serde_json::json;

/// What the file names of plugins begin with.
pub const PREFIX: &str = "agent-provider-";
/// Data longer than this many bytes travels in a file.
const MAX_DATA_BYTES: usize = 1 << 13;
/// Most bytes of an answer.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;
/// How many lines of what a plugin says stand in its error.
const TAIL_LINES: usize = 30;

const INSTALL: &str = "init.provider.install";
const INFO: &str = "init.provider.info";

/// A plugin in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// What follows [`PREFIX`] in its name.
    pub name: String,
    /// Its absolute path in the image.
    pub path: String,
}

/// The plugins of an image.
#[derive(Debug, Default)]
pub struct Plugins {
    /// The first of each name along the search path.
    pub found: Vec<Plugin>,
    /// What has a plugin's name and cannot be one.
    pub not_executable: Vec<String>,
}

/// What a plugin is to install.
///
/// The names in the document are those that plugins know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// The provider that was asked for.
    pub provider: String,
    /// The version; empty: the plugin's choice.
    pub version: String,
    /// How much the plugin should say.
    pub log_level: String,
    /// The path of a configuration file in the image; empty: there is none.
    pub config: String,
    /// The family of the distribution.
    pub family: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name, which is also the plugin's only argument.
    pub name: &'static str,
    /// What belongs to it, as JSON.
    data: String,
}

/// What one plugin is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// The content of the file that the input names, where the data does not fit into the input.
    pub file: Option<Vec<u8>>,
}

impl Event {
    /// Makes the event that asks for an installation.
    pub fn install(payload: &Payload) -> Self {
        Self {
            name: INSTALL,
            data: json!(payload).to_string(),
        }
    }

    /// Makes the event that asks which provider is installed.
    pub fn info() -> Self {
        Self {
            name: INFO,
            data: "null".into(),
        }
    }

    /// Returns the message; long data goes into a file, which the plugin must find at `path`.
    pub fn message(&self, path: &str) -> Message {
        let by_file = self.data.len() > MAX_DATA_BYTES;
        let (data, file) = if by_file {
            ("", path)
        } else {
            (self.data.as_str(), "")
        };
        Message {
            stdin: json!({ "name": self.name, "data": data, "file": file })
                .to_string()
                .into_bytes(),
            file: by_file.then(|| self.data.clone().into_bytes()),
        }
    }
}

/// What a plugin wrote. Go's encoder writes absent texts as empty ones, other languages' as null.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    log: Option<String>,
}

/// What a plugin made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It did what the event asks for, and says this.
    Done {
        /// Of the event's own form.
        data: String,
        /// What happened, for people.
        log: String,
    },
    /// The event is none of its business.
    NotApplicable,
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is no answer.
    #[error("it said nothing, where one JSON object is due")]
    Silent,
    /// There is more than one.
    #[error("it answered more than once; what follows the first answer begins with {0:?}")]
    MoreThanOne(String),
    /// It is not of the form.
    #[error(
        "its answer is not a JSON object with `state`, `data`, `error` and `log`: {reason}; it begins with {start:?}"
    )]
    Malformed {
        /// What is wrong with it.
        reason: String,
        /// Its first characters.
        start: String,
    },
    /// It does not say what is installed in the form of the event.
    #[error(
        "it does not name what is installed as a JSON object with `provider` and `version`: {reason}; its data begins with {start:?}"
    )]
    NotInfo {
        /// What is wrong with it.
        reason: String,
        /// Its first characters.
        start: String,
    },
    /// The state is none that we know.
    #[error(
        "it answered with state {0:?}, which is none of `success`, `error` and `non-applicable`"
    )]
    UnknownState(String),
    /// The plugin says that it failed.
    #[error("it reports: {message}")]
    Failed {
        /// Its words.
        message: String,
        /// The last lines of its log and data.
        said: Vec<String>,
    },
}

impl AnswerError {
    /// Returns the last lines of what the plugin said besides.
    pub fn said(&self) -> &[String] {
        match self {
            Self::Failed { said, .. } => said,
            _ => &[],
        }
    }
}

/// Reads what a plugin wrote to its standard output.
///
/// # Errors
///
/// [`AnswerError`]: an error text is a failure whatever the state.
pub fn read_answer(stdout: &[u8]) -> Result<Reply, AnswerError> {
    let answer = one_object(stdout)?;
    let text = |value: Option<String>| value.unwrap_or_default();
    let (state, error) = (text(answer.state), text(answer.error));
    let (data, log) = (text(answer.data), text(answer.log));
    if state == "error" || !error.is_empty() {
        let message = if error.trim().is_empty() {
            "an error, without a reason".into()
        } else {
            error.trim().to_owned()
        };
        return Err(AnswerError::Failed {
            message,
            said: last_lines(&[&log, &data]),
        });
    }
    match state.as_str() {
        "success" => Ok(Reply::Done { data, log }),
        // Plugins made with the usual library answer events they do not know with an empty state.
        "non-applicable" | "" => Ok(Reply::NotApplicable),
        _ => Err(AnswerError::UnknownState(state)),
    }
}

fn one_object(stdout: &[u8]) -> Result<Answer, AnswerError> {
    if without_blanks(stdout).is_empty() {
        return Err(AnswerError::Silent);
    }
    let malformed = |error: serde_json::Error| AnswerError::Malformed {
        reason: error.to_string(),
        start: start(stdout),
    };
    let mut values = serde_json::Deserializer::from_slice(stdout).into_iter::<serde_json::Value>();
    let first = values.next().unwrap_or(Ok(serde_json::Value::Null));
    let value = first.map_err(malformed)?;
    let rest = without_blanks(&stdout[values.byte_offset()..]);
    if !rest.is_empty() {
        return Err(AnswerError::MoreThanOne(start(rest)));
    }
    if !value.is_object() {
        return Err(AnswerError::Malformed {
            reason: "it is no object".into(),
            start: start(stdout),
        });
    }
    serde_json::from_value(value).map_err(malformed)
}

/// Returns `bytes` without what JSON takes for blanks in front.
fn without_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| b" \t\r\n".contains(byte));
    &bytes[blanks.count()..]
}

/// Returns the first characters of an answer, for an error.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim()
        .chars()
        .take(60)
        .collect()
}

fn last_lines(texts: &[&str]) -> Vec<String> {
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}

/// Why nobody, or not just one, installed a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The image has no plugin.
    #[error("the image holds no provider plugin")]
    NoPlugins,
    /// There are plugins, and it is none of their business.
    #[error("none of the image's plugins installs it: {}", .0.join(", "))]
    Unclaimed(Vec<String>),
    /// More than one plugin did it; what the image holds would depend on their order.
    #[error("more than one plugin installed it: {}", .0.join(", "))]
    ClaimedTwice(Vec<String>),
}

/// Returns the one plugin that did what an installation event asked for.
///
/// `replies` holds the reply of each plugin that was asked.
///
/// # Errors
///
/// [`ClaimError`]: no plugin did, or more than one.
pub fn claimed_by<'a>(replies: &'a [(Plugin, Reply)]) -> Result<&'a Plugin, ClaimError> {
    let paths = |plugins: &[&Plugin]| plugins.iter().map(|it| it.path.clone()).collect();
    let all: Vec<&Plugin> = replies.iter().map(|(plugin, _)| plugin).collect();
    let done: Vec<&'a Plugin> = replies
        .iter()
        .filter(|(_, reply)| matches!(reply, Reply::Done { .. }))
        .map(|(plugin, _)| plugin)
        .collect();
    match done[..] {
        [only] => Ok(only),
        [] if all.is_empty() => Err(ClaimError::NoPlugins),
        [] => Err(ClaimError::Unclaimed(paths(&all))),
        _ => Err(ClaimError::ClaimedTwice(paths(&done))),
    }
}

/// What is installed, as a plugin says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Installed {
    /// The provider's name.
    pub provider: String,
    /// Its version.
    pub version: String,
}

/// Reads the data of an answer to the info event; `None` where it names no provider or no version.
///
/// # Errors
///
/// [`AnswerError::NotInfo`].
pub fn read_info(data: &str) -> Result<Option<Installed>, AnswerError> {
    let installed: Installed =
        serde_json::from_str(data).map_err(|error| AnswerError::NotInfo {
            reason: error.to_string(),
            start: start(data.as_bytes()),
        })?;
    let values = [&installed.provider, &installed.version];
    // They end up in a file that shells and GRUB read.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+~:".contains(c);
    if let Some(value) = values.iter().find(|value| !value.chars().all(plain)) {
        return Err(AnswerError::NotInfo {
            reason: format!("{value:?} holds a character that no version has"),
            start: start(data.as_bytes()),
        });
    }
    let whole = values.iter().all(|value| !value.is_empty());
    Ok(whole.then_some(installed))
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
