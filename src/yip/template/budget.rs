//! What one rendering may cost: of memory, and so of time, which every value costs too. Its user may end it before.

use std::cell::Cell;

use kfactory_sandbox::CancelToken;

use super::value::Value;
use crate::stop::Stopped;

/// All values of one rendering together, copies and what is compared or searched again included, in bytes.
const MAX_BYTES: usize = 512 << 20;
/// One value, or all arguments of one call.
const MAX_VALUE: usize = 64 << 20;
/// Lists and mappings inside one another: what walks through them does so by recursion.
const MAX_DEPTH: usize = 200;

/// What a rendering may still make.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
    stop: Option<CancelToken>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: Cell::new(MAX_BYTES),
            stop: None,
        }
    }
}

impl Budget {
    /// Makes one of which nothing is left once `stop` is cancelled.
    pub(super) fn until(stop: Option<&CancelToken>) -> Self {
        Self {
            stop: stop.cloned(),
            ..Self::default()
        }
    }

    /// Checks that the user has not stopped the run.
    ///
    /// # Errors
    ///
    /// That is so.
    pub(super) fn check_stop(&self) -> Result<(), String> {
        match &self.stop {
            Some(stop) if stop.is_cancelled() => Err(Stopped.to_string()),
            _ => Ok(()),
        }
    }

    /// Counts `bytes` of work.
    ///
    /// # Errors
    ///
    /// There are not so many left, or as for [`check_stop`](Self::check_stop).
    pub(super) fn charge(&self, bytes: usize) -> Result<(), String> {
        self.check_stop()?;
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or_else(|| {
            format!("the template works on more than {MAX_BYTES} bytes of text and lists")
        })
    }

    /// Counts a value that is made, best before it is.
    ///
    /// # Errors
    ///
    /// It is too large or too deep, or there is not so much left.
    pub(super) fn made(&self, value: &Value) -> Result<(), String> {
        let bytes = weight(value, MAX_DEPTH)?;
        check_size(bytes)?;
        self.charge(bytes)
    }
}

/// Checks that what is given to a call is not more than one value may be, because a value may be made of all of it.
///
/// # Errors
///
/// It is.
pub(super) fn check_arguments(values: &[Value]) -> Result<(), String> {
    let mut bytes = 0usize;
    for value in values {
        bytes = bytes.saturating_add(weight(value, MAX_DEPTH)?);
    }
    check_size(bytes)
}

fn check_size(bytes: usize) -> Result<(), String> {
    match bytes <= MAX_VALUE {
        true => Ok(()),
        false => Err(format!("a value has more than {MAX_VALUE} bytes")),
    }
}

/// Returns how much memory a value takes, in bytes.
fn weight(value: &Value, depth: usize) -> Result<usize, String> {
    let inside = || {
        depth.checked_sub(1).ok_or_else(|| {
            format!("lists or dicts are more than {MAX_DEPTH} deep inside one another")
        })
    };
    let held = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => {
            let depth = inside()?;
            let weights = items.iter().map(|item| weight(item, depth));
            weights.sum::<Result<usize, String>>()?
        }
        Value::Map(entries) => {
            let depth = inside()?;
            let weights = entries
                .iter()
                .map(|(key, item)| Ok(size_of::<String>() + key.len() + weight(item, depth)?));
            weights.sum::<Result<usize, String>>()?
        }
        _ => 0,
    };
    Ok(size_of::<Value>() + held)
}
