//! Time limits that fit transfers: a request may take long, but not stand still.

use std::time::{Duration, Instant};

use super::body::{FileSlice, Payload};
use super::error::{RegistryError, RequestLine};
use super::transport::Call;
use crate::pace::{Patience, Stalled};

/// How long a registry may take to answer after the last byte of an upload: it may copy the blob in its storage.
const COMMIT_PATIENCE: Duration = Duration::from_secs(300);

/// How often upload progress is reported, and idleness looked at.
const TICK: Duration = Duration::from_millis(100);

/// Reports the bytes of a blob that are done, counted from its start.
pub type Progress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// Waits for the answer as long as the request makes progress.
pub(super) async fn wait<T>(
    call: &Call<'_>,
    line: &RequestLine,
    sending: impl Future<Output = T>,
) -> Result<T, RegistryError> {
    let idle = Patience::default().0;
    let Payload::File(slice) = &call.payload else {
        let answer = tokio::time::timeout(idle, sending).await;
        return answer.map_err(|_| silent(line, idle));
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
            Patience::default().0
        };
        if self.since.elapsed() < after {
            return Ok(());
        }
        Err(silent(line, after))
    }
}

fn silent(line: &RequestLine, after: Duration) -> RegistryError {
    RegistryError::Stalled {
        request: line.clone(),
        how: Stalled::Silent { after },
    }
}
