//! What is wrong with an extension: file, line, cause and remedy. All of it is gathered before anything is refused.

use std::fmt;

use crate::error::Error;
use crate::printable;
use crate::printable::counted;

/// Errors beyond this number are only counted: the first ones tell what to mend.
const MAX_SHOWN: usize = 20;

/// One thing that is wrong, or will not do what it seems to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user would name it.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On one line, whatever the names in it are made of.
        let (file, message) = (printable::name(&self.file), printable::name(&self.message));
        write!(f, "{file}:{}: {message}", self.line)?;
        match &self.hint {
            Some(hint) => write!(f, " ({})", printable::name(hint)),
            None => Ok(()),
        }
    }
}

/// Everything found in one file, or in several.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    file: String,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Starts with nothing found in `file`.
    pub(super) fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            ..Self::default()
        }
    }

    /// Returns what must be mended before anything runs.
    pub fn errors(&self) -> &[Problem] {
        &self.errors
    }

    /// Returns what runs, but should be known.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Returns whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.warnings.is_empty()
    }

    pub(super) fn error(&mut self, line: usize, message: impl Into<String>) {
        let problem = self.problem(line, message, None);
        self.errors.push(problem);
    }

    pub(super) fn error_with(
        &mut self,
        line: usize,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let problem = self.problem(line, message, Some(hint.into()));
        self.errors.push(problem);
    }

    pub(super) fn warning(&mut self, line: usize, message: impl Into<String>) {
        let problem = self.problem(line, message, None);
        self.warnings.push(problem);
    }

    /// As [`error`](Self::error), in a file of its own.
    pub(super) fn error_in(
        &mut self,
        file: &str,
        line: usize,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let problem = Problem {
            file: file.to_owned(),
            line,
            message: message.into(),
            hint,
        };
        self.errors.push(problem);
    }

    /// Takes over what was found elsewhere.
    pub(super) fn add(&mut self, other: Problems) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }

    fn problem(&self, line: usize, message: impl Into<String>, hint: Option<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line,
            message: message.into(),
            hint,
        }
    }

    /// Returns the errors as one, each on a line of its own; `None` where there are none.
    pub(super) fn to_error(&self) -> Option<Error> {
        let mut errors: Vec<&Problem> = self.errors.iter().collect();
        if errors.is_empty() {
            return None;
        }
        errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let top = Error::usage(format!(
            "cannot use the stage extensions: {}",
            counted(errors.len(), "error")
        ));
        let shown = errors.iter().take(MAX_SHOWN);
        let error = shown.fold(top, |error, problem| error.context_below(problem));
        Some(match errors.len().saturating_sub(MAX_SHOWN) {
            0 => error,
            more => error.context_below(format!("and {more} more")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_names_are_made_of() {
        let mut problems = Problems::new("a\nb.yaml");
        problems.warning(7, "`/x\n\u{1b}[31m` is written twice");
        assert_eq!(
            problems.warnings()[0].to_string(),
            r"a\nb.yaml:7: `/x\n\u001b[31m` is written twice"
        );
    }
}
