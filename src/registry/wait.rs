//! Time limits that fit transfers: a request may take long, but not stand still.

use std::time::{Duration, Instant};

use super::body::{FileSlice, Payload};
use super::error::{RegistryError, RequestLine};
use super::transport::Call;

/// How long neither side may stay silent.
const IDLE_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes a second below which an answer counts as silent. Eight downloads at a time leave each that much of the slowest modem.
pub(super) const LEAST_RATE: u64 = 1024;

/// How long a registry may take to answer after the last byte of an upload: it may copy the blob in its storage.
const COMMIT_PATIENCE: Duration = Duration::from_secs(300);

/// How often upload progress is reported, and idleness looked at.
const TICK: Duration = Duration::from_millis(100);

/// How long an answer may say nothing, or next to nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(pub(super) Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(IDLE_PATIENCE)
    }
}

/// What came of an answer since it was last fast enough.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: u64,
    /// Waited for the network alone: a slow disk is not the registry's fault.
    waited: Duration,
}

/// An answer that came too slowly to count as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooSlow {
    pub(super) bytes: u64,
    pub(super) waited: Duration,
}

impl Pace {
    /// Notes a piece of `bytes` that was `waited` for.
    pub(super) fn came(
        &mut self,
        bytes: usize,
        waited: Duration,
        patience: Patience,
    ) -> Result<(), TooSlow> {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < patience.0 {
            return Ok(());
        }
        let Self { bytes, waited } = std::mem::take(self);
        let least = waited.as_secs_f64() * LEAST_RATE as f64;
        if (bytes as f64) < least {
            return Err(TooSlow { bytes, waited });
        }
        Ok(())
    }
}

/// Reports the bytes of a blob that are done, counted from its start.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Waits for the answer as long as the request makes progress.
pub(super) async fn wait<T>(
    call: &Call<'_>,
    line: &RequestLine,
    sending: impl Future<Output = T>,
) -> Result<T, RegistryError> {
    let Payload::File(slice) = &call.payload else {
        let timeout = |_| RegistryError::Timeout {
            request: line.clone(),
            after: IDLE_PATIENCE,
        };
        return tokio::time::timeout(IDLE_PATIENCE, sending)
            .await
            .map_err(timeout);
    };
    tokio::pin!(sending);
    let mut watch = Watch {
        seen: 0,
        since: Instant::now(),
    };
    loop {
        let answer = tokio::time::timeout(TICK, &mut sending).await;
        let sent = slice.sent();
        if let Some(progress) = call.progress {
            progress(slice.start + sent);
        }
        match answer {
            Ok(answer) => return Ok(answer),
            Err(_) => watch.look(sent, slice, line)?,
        }
    }
}

/// When an upload last moved.
struct Watch {
    seen: u64,
    since: Instant,
}

impl Watch {
    fn look(
        &mut self,
        sent: u64,
        slice: &FileSlice,
        line: &RequestLine,
    ) -> Result<(), RegistryError> {
        if sent != self.seen {
            *self = Self {
                seen: sent,
                since: Instant::now(),
            };
        }
        let after = if sent >= slice.len {
            COMMIT_PATIENCE
        } else {
            IDLE_PATIENCE
        };
        if self.since.elapsed() < after {
            return Ok(());
        }
        Err(RegistryError::Timeout {
            request: line.clone(),
            after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_counts_as_silence_and_a_slow_link_does_not() {
        let second = Duration::from_secs(1);
        for (rate, is_too_slow) in [(1, true), (1000, true), (1100, false)] {
            let mut pace = Pace::default();
            let mut come = || pace.came(rate, second, Patience::default());
            let found = (0..300).find_map(|_| come().err());
            let slow = TooSlow {
                bytes: rate as u64 * 60,
                waited: 60 * second,
            };
            assert_eq!(found, is_too_slow.then_some(slow), "{rate}");
        }
    }
}
