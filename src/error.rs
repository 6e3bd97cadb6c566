//! The one error type that people and scripts see: a kind, a chain of causes, and hints.
//!
//! Libraries below return their own errors; whose fault it was and what to try next is decided here and nowhere
//! else. The kind sets the exit code and, in JSON, the word that scripts match on.

use std::fmt;

use crate::printable::bounded;
use crate::stop::Stopped;

/// Whose turn it is to act, and with it the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line or recipe is wrong (exit code 2).
    Usage,
    /// Something outside the program is wrong: a reference, a credential, a disk (exit code 1).
    User,
    /// A command of a step ended with an error (exit code 3).
    Step,
    /// A state that the program rules out: a defect (exit code 70).
    Internal,
    /// The user stopped the run (exit code 130).
    Interrupted,
}

impl Kind {
    /// Returns the process exit code for this kind.
    pub fn exit_code(self) -> i32 {
        match self {
            Kind::User => 1,
            Kind::Usage => 2,
            Kind::Step => 3,
            Kind::Internal => 70,
            Kind::Interrupted => 130,
        }
    }

    /// Returns the kebab-case word used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Usage => "usage",
            Kind::Step => "step",
            Kind::Internal => "internal",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, why, and what to try.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    /// Outermost first; never empty.
    chain: Vec<String>,
    hints: Vec<String>,
    /// Output of a failed command, shown between the causes and the hints.
    output: Vec<String>,
}

/// What the HTTP client says on the way to the cause: no more than that a request was not answered.
const EMPTY: [&str; 6] = [
    "error sending request",
    "client error (Connect)",
    "client error (SendRequest)",
    "tcp connect error",
    "dns error",
    "error resolving DNS",
];

impl Error {
    /// Creates an error of `kind` whose top line is `message`.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            chain: vec![message.to_string()],
            hints: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Creates an error about the outside world.
    pub fn user(message: impl fmt::Display) -> Self {
        Self::new(Kind::User, message)
    }

    /// Creates an error about the command line or the recipe.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Creates the end of a run that its user stopped; `kept` says what of it is left.
    pub fn interrupted(kept: impl fmt::Display) -> Self {
        Self::new(Kind::Interrupted, kept)
    }

    /// Creates an error about a state that should be impossible.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, format!("internal error: {message}"))
    }

    /// Wraps `source` and all its causes as an error about the outside world, or as the user's stop where that is one of them.
    pub fn from_source(source: &(dyn std::error::Error + 'static)) -> Self {
        let mut kind = Kind::User;
        let mut hints = Vec::new();
        for cause in std::iter::successors(Some(source), |cause| cause.source()) {
            if cause.downcast_ref().is_some_and(Stopped::is_in) {
                kind = Kind::Interrupted;
            }
            if cause.downcast_ref().is_some_and(is_full) {
                hints = vec![FULL.to_owned()];
            }
        }
        Self {
            kind,
            chain: telling(source),
            hints,
            output: Vec::new(),
        }
    }

    /// Puts `message` above the present top line: what was being done.
    #[must_use]
    pub fn context(mut self, message: impl fmt::Display) -> Self {
        self.chain.insert(0, message.to_string());
        self
    }

    /// Puts `message` below the present causes: one more reason.
    #[must_use]
    pub fn context_below(mut self, message: impl fmt::Display) -> Self {
        self.chain.push(message.to_string());
        self
    }

    /// Puts another error below this one: its causes in one line, and its hints.
    #[must_use]
    pub fn and(mut self, other: Error) -> Self {
        self.chain.push(other.chain.join(": "));
        self.hints.extend(other.hints);
        self
    }

    /// Adds a line that names something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Adds several hints.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Changes the kind.
    #[must_use]
    pub fn kind_is(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Attaches the last lines that a failed command printed.
    #[must_use]
    pub fn output(mut self, lines: Vec<String>) -> Self {
        self.output = lines;
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether it says what a stopped run leaves, as [`Error::interrupted`] does.
    pub fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
            && self.chain.len() == 1
            && self.chain[0] != Stopped.to_string()
    }

    /// Renders the error for a terminal: the top line, causes, command output, hints. Of what the user stopped, one line.
    pub fn render_text(&self) -> String {
        if self.kind == Kind::Interrupted {
            return format!("interrupted: {}\n", bounded(&self.chain[0]));
        }
        let mut text = format!("error: {}\n", bounded(&self.chain[0]));
        for cause in &self.chain[1..] {
            text.push_str(&format!("caused by: {}\n", bounded(cause)));
        }
        if !self.output.is_empty() {
            text.push_str(&format!(
                "last {} lines of its output:\n",
                self.output.len()
            ));
            for line in &self.output {
                text.push_str(&format!("  | {}\n", bounded(line)));
            }
        }
        for hint in &self.hints {
            text.push_str(&format!("hint: {}\n", bounded(hint)));
        }
        text
    }

    /// Returns the last lines that a failed command printed.
    pub fn said(&self) -> &[String] {
        &self.output
    }

    /// Returns what may remedy it, a text each.
    pub fn hint_texts(&self) -> &[String] {
        &self.hints
    }

    /// Renders the error as one JSON object.
    pub fn render_json(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "error",
            "kind": self.kind.name(),
            "message": bounded(&self.chain[0]),
            "causes": each_bounded(&self.chain[1..]),
            "output": each_bounded(&self.output),
            "hints": each_bounded(&self.hints),
        })
    }
}

fn each_bounded(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| bounded(text)).collect()
}

/// Returns what `error` and its causes say, each once and the empty ones left out; never nothing.
pub(crate) fn telling(error: &dyn std::error::Error) -> Vec<String> {
    let mut chain = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        let text = cause.to_string();
        if next.is_none() || !EMPTY.contains(&text.as_str()) {
            chain.push(text);
        }
    }
    // An error whose Display already ends with its source would print it twice.
    chain.dedup_by(|later, earlier| earlier.ends_with(later.as_str()));
    chain
}

/// What to do where a file system has no room left, the store's or another.
const FULL: &str = "that file system is full: make room there; where it holds the store, `kfactory store gc` frees what no image \
    needs, and `--store DIR` uses another disk";

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain.join(": "))
    }
}

impl std::error::Error for Error {}

/// Adds the frame "what we were doing" to any error.
pub trait Context<T> {
    /// Puts `message()` above the error.
    ///
    /// # Errors
    ///
    /// The error of `self`, with one more line on top.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::error::Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let any: &(dyn std::error::Error + 'static) = &error;
            match any.downcast_ref::<Error>() {
                Some(ours) => ours.clone(),
                None => Error::from_source(any),
            }
            .context(message())
        })
    }
}

macro_rules! from_library_error {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Error::from_source(&error)
            }
        }
    )*};
}

from_library_error!(
    std::io::Error,
    serde_json::Error,
    rustix::io::Errno,
    kfactory_layers::root::RootError,
    kfactory_layers::blobs::BlobError,
    crate::artifact::ext4::Ext4Error,
    crate::artifact::fat::FatError,
    crate::artifact::gpt::GptError,
    crate::artifact::gpt::ReadError,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_without_end_both_ends_are_shown_and_the_cause_after_it() {
        let path = format!("start{}end", "ä/".repeat(20_000));
        let error = Error::user(format!("cannot unpack {path:?}: is a directory")).hint(&path);
        for text in [error.render_text(), error.render_json().to_string()] {
            assert!(text.len() < 2000, "{} bytes", text.len());
            assert!(text.contains("cannot unpack") && text.contains("start"));
            assert!(text.contains(" of 60011 bytes ") && text.contains(": is a directory"));
        }
    }

    #[test]
    fn a_cause_is_printed_once_and_hints_come_last() {
        let io = std::io::Error::other("no space");
        let error = std::result::Result::<(), _>::Err(io)
            .context(|| "writing blob".to_owned())
            .context(|| "cannot pull `x`".to_owned())
            .unwrap_err()
            .hint("free some");
        assert_eq!(
            error.render_text(),
            "error: cannot pull `x`\ncaused by: writing blob\ncaused by: no space\nhint: free some\n"
        );
    }

    #[test]
    fn of_causes_that_say_nothing_only_the_last_is_kept() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Cause(&'static str, #[source] Option<Box<Cause>>);
        let last = Cause("dns error", None);
        let middle = Cause("client error (Connect)", Some(Box::new(last)));
        let error = Error::from_source(&Cause("GET https://r.example/v2/", Some(Box::new(middle))));
        assert_eq!(
            error.render_text(),
            "error: GET https://r.example/v2/\ncaused by: dns error\n"
        );
    }

    #[test]
    fn a_full_disk_has_its_remedy_however_deep_it_stands() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let inner = kfactory_layers::blobs::BlobError::Io {
            doing: "writing blob",
            path: "store/x".into(),
            source: full,
        };
        let error = std::result::Result::<(), _>::Err(inner)
            .context(|| "cannot read `x`".to_owned())
            .unwrap_err();
        let text = error.render_text();
        assert!(
            text.contains("caused by: writing blob \"store/x\"\n"),
            "{text}"
        );
        assert!(text.contains("hint: that file system is full"), "{text}");
        assert!(text.contains("`kfactory store gc`"), "{text}");
    }

    #[test]
    fn wrapping_keeps_the_kind_and_the_output() {
        let inner = Error::new(Kind::Step, "x").output(vec!["a".into()]);
        let outer = std::result::Result::<(), _>::Err(inner)
            .context(|| "y".into())
            .unwrap_err();
        assert_eq!(outer.kind().exit_code(), 3);
        assert!(outer.render_text().contains("  | a\n"));
    }
}
