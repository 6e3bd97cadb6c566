//! The end of a run by its user, wherever bytes are being moved.

use std::io::{self, BufRead, Read, Write};

use kfactory_sandbox::CancelToken;
use tokio::runtime::Runtime;

use crate::error::{Error, Kind, Result};

/// Says that the user stopped the run. Travels inside an [`io::Error`]; [`Error`] makes [`Kind::Interrupted`] of it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("stopped by the user")]
pub struct Stopped;

impl Stopped {
    /// Returns whether that is what `error` is.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> Self {
        // Not `Interrupted`, which readers and writers of the standard library answer by trying again.
        io::Error::other(stopped)
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Error::new(Kind::Interrupted, stopped)
    }
}

/// Fails once `cancel` is cancelled.
///
/// # Errors
///
/// [`Kind::Interrupted`].
pub fn check(cancel: &CancelToken) -> Result<()> {
    match cancel.is_cancelled() {
        true => Err(Stopped.into()),
        false => Ok(()),
    }
}

/// Waits for `work` on `runtime`, and gives it up when `cancel` is cancelled.
///
/// # Errors
///
/// Those of `work`; [`Kind::Interrupted`] when it was given up.
pub fn block_on<T>(
    runtime: &Runtime,
    cancel: &CancelToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            done = work => done,
            () = stopped(cancel) => Err(Stopped.into()),
        }
    })
}

async fn stopped(cancel: &CancelToken) {
    // Short enough to seem immediate, long enough to cost nothing.
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
    while !cancel.is_cancelled() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// A reader or writer that fails with [`Stopped`] once `cancel` is cancelled.
#[derive(Debug)]
pub struct Stoppable<T> {
    inner: T,
    cancel: Option<CancelToken>,
}

impl<T> Stoppable<T> {
    /// Wraps `inner`; without a token it goes on to its end.
    pub fn new(inner: T, cancel: Option<&CancelToken>) -> Self {
        let cancel = cancel.cloned();
        Self { inner, cancel }
    }

    /// Returns what was wrapped.
    pub fn into_inner(self) -> T {
        self.inner
    }

    fn check(&self) -> io::Result<()> {
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(Stopped.into()),
            _ => Ok(()),
        }
    }
}

impl<T: Read> Read for Stoppable<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buf)
    }
}

impl<T: BufRead> BufRead for Stoppable<T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}

impl<T: Write> Write for Stoppable<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Context as _;

    #[test]
    fn what_is_being_moved_stops_and_is_known_to_have_been_stopped() {
        let cancel = CancelToken::new().unwrap();
        let mut reader = Stoppable::new(io::repeat(0), Some(&cancel));
        reader.read_exact(&mut [0; 10]).unwrap();
        cancel.cancel();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(Stopped::is_in(&error));
        let error = Err::<(), _>(error).context(|| "copying".into());
        assert_eq!(error.unwrap_err().kind(), Kind::Interrupted);
    }
}
