//! What several tests look at and none of them keeps.

use std::sync::{Arc, Mutex, PoisonError};

/// A value that is made for the first of several tests and dropped with the last of them.
///
/// Statics are never dropped, and what a test run leaves until its end must fit on the disk together.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    /// Tests that have not asked yet.
    to_come: usize,
    /// Made, with what came of it.
    value: Option<Option<Arc<T>>>,
}

impl<T> Shared<T> {
    /// For as many tests as `users`; where only some of them run, the value stays to the end.
    pub(crate) const fn new(users: usize) -> Self {
        Self(Mutex::new(State {
            to_come: users,
            value: None,
        }))
    }

    /// Returns the value, made by `make` if this is the first call. A test calls this once.
    pub(crate) fn get(&self, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.to_come = state.to_come.saturating_sub(1);
        let value = state
            .value
            .get_or_insert_with(|| make().map(Arc::new))
            .clone();
        if state.to_come == 0 {
            state.value = Some(None);
        }
        value
    }
}
